"""Databento files for tests: any records behind a head that Databento's own library encodes.

And the oracle: what is in a file, read record by record by that library, by the rules as they stand
in the documentation.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import databento_dbn
import numpy as np
import zstandard

from benchmarks.dbn_data import START, Interval, Mapping, day_start_ns, encode_head
from candlebeam.model import Market

SAMPLES = Path(__file__).parent / "data" / "dbn"
DAY_NS = 86_400 * 10**9
#: The first day of generated files, in ns.
MIDNIGHT_NS = day_start_ns(START)
UNDEFINED_PRICE = 2**63 - 1
UNDEFINED_TIME = 2**64 - 1
UNDEFINED_SIZE = 2**32 - 1

_MESSAGES = {
    "trades": (0x00, "TradeMsg"),
    "tbbo": (0x01, "MBP1Msg"),
    "mbp-1": (0x01, "MBP1Msg"),
    "mbp-10": (0x0A, "MBP10Msg"),
    "mbo": (0xA0, "MBOMsg"),
    "cmbp-1": (0xB1, "CMBP1Msg"),
    "tcbbo": (0xC2, "CMBP1Msg"),
    "bbo-1s": (0xC3, "BBOMsg"),
    "ohlcv-1s": (0x20, "OHLCVMsg"),
    "ohlcv-1m": (0x21, "OHLCVMsg"),
    "ohlcv-1h": (0x22, "OHLCVMsg"),
    "ohlcv-1d": (0x23, "OHLCVMsg"),
    "mapping": (0x16, "SymbolMappingMsg"),
    "mapping-v1": (0x16, "SymbolMappingMsgV1"),
    "system": (0x17, "SystemMsg"),
}


def dtype_of(kind: str) -> np.dtype[Any]:
    """The library's own layout of a kind of record."""
    dtype: np.dtype[Any] = np.dtype(getattr(databento_dbn, _MESSAGES[kind][1])._dtypes)
    return dtype


def record(kind: str, *, ts_out: bool = False, **fields: Any) -> bytes:
    """One record; what is not named is zero, a trade is an action `T` of side `N`."""
    dtype = dtype_of(kind)
    row = np.zeros(1, dtype)
    row["length"] = (dtype.itemsize + 8 * ts_out) // 4
    row["rtype"] = _MESSAGES[kind][0]
    for name, value in fields.items():
        row[name] = value
    return row.tobytes() + bytes(8 * ts_out)


def trade(
    ns: int = 0,
    price: int = 100 * 10**9,
    size: int = 1,
    side: bytes = b"B",
    *,
    instrument: int = 7,
    action: bytes = b"T",
    kind: str = "trades",
    event_ns: int | None = None,
    **fields: Any,
) -> bytes:
    """A trade that was received `ns` after the first midnight; 2**64 - 1 stands for itself."""
    received = ns if ns == UNDEFINED_TIME else MIDNIGHT_NS + ns
    event = received if event_ns is None else event_ns
    fields = {"ts_recv": received, "ts_event": event, **fields}
    return record(
        kind, price=price, size=size, side=side, action=action, instrument_id=instrument, **fields
    )


def mapping(instrument: int, symbol: str, asked: str = "", *, kind: str = "mapping") -> bytes:
    """The record by which a live session tells a symbol."""
    return record(
        kind,
        instrument_id=instrument,
        stype_in_symbol=(asked or symbol).encode(),
        stype_out_symbol=symbol.encode(),
    )


def days(symbol: str, *spans: tuple[int, int, int]) -> Mapping:
    """A symbol's instruments: first day, day after the last, instrument; days count from START."""
    return Mapping(
        symbol,
        tuple(
            Interval(START + timedelta(days=first), START + timedelta(days=end), str(instrument))
            for first, end, instrument in spans
        ),
    )


#: One symbol that is instrument 7 for a hundred days.
ONE = (days("ABC", (0, 100, 7)),)


def write_dbn(
    path: Path,
    records: Sequence[bytes],
    mappings: tuple[Mapping, ...] = ONE,
    *,
    compressed: bool = False,
    **head: Any,
) -> str:
    """Writes a file; the answer is its path."""
    data = encode_head(mappings, days=100, **head) + b"".join(records)
    path.write_bytes(zstandard.ZstdCompressor().compress(data) if compressed else data)
    return str(path)


@dataclass
class Trades:
    """What a file has of one market: its trades, and how many records were rejected, by reason."""

    rows: list[tuple[int, float, float, int]] = field(default_factory=list)
    rejected: dict[str, int] = field(default_factory=dict)
    last_price: int | None = None
    last_side: int = 1

    def add(self, ns: int, price: int, size: int, side: str) -> None:
        """Takes a record by the rules."""
        ms = ns // 10**6
        if not 10**11 < ms < 10**13:
            return self._reject("timestamp")
        if price == UNDEFINED_PRICE or price <= 0:
            return self._reject("price")
        if size == UNDEFINED_SIZE:
            return self._reject("size")
        if side not in ("A", "B", "N"):
            return self._reject("side")
        if (price / 10**9 * size) * 1e6 >= 2.0**63:
            return self._reject("volume")
        if self.last_price is not None and price != self.last_price:
            self.last_side = int(price > self.last_price)
        self.last_price = price
        buy = {"A": 0, "B": 1, "N": self.last_side}[side]
        self.rows.append((ms, price / 10**9, float(size), buy))
        return None

    def _reject(self, reason: str) -> None:
        self.rejected[reason] = self.rejected.get(reason, 0) + 1


@dataclass
class Told:
    """What the oracle tells of a file."""

    markets: dict[Market, Trades] = field(default_factory=dict)
    unmapped: int = 0


def library_records(path: str | Path) -> Iterator[Any]:
    """The head of a whole file and its records, as the library gives them."""
    data = Path(path).read_bytes()
    if data[:3] != b"DBN":
        with zstandard.ZstdDecompressor().stream_reader(
            io.BytesIO(data), read_across_frames=True
        ) as reader:
            data = reader.read()
    decoder = databento_dbn.DBNDecoder(
        upgrade_policy=databento_dbn.VersionUpgradePolicy.UPGRADE_TO_V3
    )
    decoder.write(data)
    yield from decoder.decode()


def tell(path: str | Path) -> Told:
    """The trades of a historical file of any of the schemas of trades."""
    told = Told()
    head, *records = library_records(path)
    for symbol in (symbol for symbol, spans in head.mappings.items() if spans):
        told.markets[Market("DATABENTO", head.dataset, symbol)] = Trades()
    known: dict[int, list[tuple[date, date, str]]] = {}
    for symbol, spans in head.mappings.items():
        for span in spans:
            named = (span["start_date"], span["end_date"], symbol)
            known.setdefault(int(span["symbol"]), []).append(named)
    for row in records:
        if str(row.action) != "T":
            continue
        raw = bytes(row)
        ns = row.ts_recv if row.ts_recv != UNDEFINED_TIME else row.ts_event
        side = chr(raw[39] if int(row.rtype) == 0xA0 else raw[29])
        day = datetime.fromtimestamp(ns // 10**9, timezone.utc).date()
        spans = known.get(row.instrument_id, [])
        symbols = sorted({symbol for first, end, symbol in spans if first <= day < end})
        told.unmapped += not symbols
        for symbol in symbols:
            market = Market("DATABENTO", head.dataset, symbol)
            told.markets[market].add(ns, row.price, row.size, side)
    return told
