"""What stands in front of a Databento file's records: dataset, schema, and which symbol is whose.

The bytes are read by Databento's own library, `databento_dbn`.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from candlebeam.errors import CandlebeamError, FormatError
from candlebeam.formats.dbn.stream import DbnStream
from candlebeam.market import Market, Timeframe

#: The collector of all markets that come from Databento's files.
COLLECTOR = "DATABENTO"
#: Schemas whose records are trades, or hold them among others.
TRADE_SCHEMAS = frozenset(("trades", "tbbo", "mbp-1", "mbp-10", "mbo", "cmbp-1", "tcbbo"))
#: Schemas of bars, and how long they are.
BAR_SCHEMAS: Mapping[str, Timeframe] = {
    f"ohlcv-{length}": Timeframe.parse(length) for length in ("1s", "1m", "1h", "1d")
}

_PREFIX = 8
_VERSIONS = (1, 2, 3)
_NS_PER_MS = 1_000_000
# The metadata of half a million symbols is about this long.
_LONGEST = 1 << 30


class SymbolInterval(NamedTuple):
    """When an instrument is known by a symbol.

    Attributes:
        start_date: the first day in UTC, by the time at which Databento received the record; None
            in live files, where a mapping holds from its place in the file on.
        end_date: the day after the last one; None in live files.
        symbol: the symbol.
    """

    start_date: datetime.date | None
    end_date: datetime.date | None
    symbol: str


@dataclass(frozen=True)
class DbnFile:
    """What a Databento file says of itself.

    Attributes:
        path: the file.
        dataset: Databento's name of it, such as XNAS.ITCH; the exchange of its markets.
        schema: what its records are; None for files of a live session, which hold several kinds.
        version: of the encoding, 1 to 3.
        start_ts, end_ts: the range that was asked for, in ms, the end exclusive; None if not known.
        intervals: by instrument, what it is called when, by start. The symbol is the raw symbol
            where the file has it: where symbols were asked for by raw symbol, by parent or by
            instrument, and in live files. A continuous contract has the name that was asked for
            (`ES.c.0`), as the file knows no other.
        head_bytes: the length of all this in the file, decompressed.
    """

    path: str
    dataset: str
    schema: str | None
    version: int
    start_ts: int | None
    end_ts: int | None
    intervals: Mapping[int, tuple[SymbolInterval, ...]] = field(repr=False)
    head_bytes: int = 0

    @property
    def has_trades(self) -> bool:
        """Whether its records are trades or can have trades among them."""
        return self.schema is None or self.schema in TRADE_SCHEMAS

    @property
    def timeframe(self) -> Timeframe | None:
        """The length of its bars; None if they are none."""
        return BAR_SCHEMAS.get(self.schema or "")

    @property
    def symbols(self) -> list[str]:
        """All symbols of its instruments, sorted."""
        return sorted({known.symbol for spans in self.intervals.values() for known in spans})

    def market(self, symbol: str) -> Market:
        """The market of a symbol."""
        return Market(COLLECTOR, self.dataset, symbol)


def databento_dbn() -> Any:
    """Databento's library of the encoding, which comes with `databento`.

    Raises:
        CandlebeamError: it is not installed.
    """
    try:
        import databento_dbn as library
    except ImportError as error:
        raise CandlebeamError(
            "Databento files need the databento library: pip install 'candlebeam[databento]'"
        ) from error
    return library


def read_head(stream: DbnStream, path: str) -> DbnFile:
    """The head of a stream that stands at its start; afterwards it stands at the first record.

    Raises:
        FormatError: it is no Databento file, of a newer version, or its head is damaged.
        CandlebeamError: the library is not installed.
    """
    library = databento_dbn()
    prefix = stream.read(_PREFIX)
    place = None if stream.compressed else 0
    if prefix[:3] != b"DBN":
        found = "an empty file" if not stream.size else stream.damage or repr(prefix)
        raise FormatError(path, "a Databento file, which begins with b'DBN'", found, place)
    if len(prefix) < _PREFIX:
        raise FormatError(path, f"{_PREFIX} bytes of a Databento file", f"{len(prefix)}", place)
    if prefix[3] not in _VERSIONS:
        raise FormatError(path, "version 1, 2 or 3 of Databento's encoding", f"{prefix[3]}", place)
    length = int.from_bytes(prefix[4:], "little")
    if length > _LONGEST:
        raise FormatError(path, f"metadata of at most {_LONGEST} bytes", f"{length}", place)
    encoded = stream.read(length)
    if len(encoded) < length:
        found = f"{len(encoded)}" + (f" ({stream.damage})" if stream.damage else "")
        raise FormatError(path, f"{length} bytes of metadata", found, place)
    policy = library.VersionUpgradePolicy.AS_IS
    try:
        metadata = library.Metadata.decode(prefix + encoded, upgrade_policy=policy)
        end = metadata.end
        return DbnFile(
            path,
            str(metadata.dataset),
            None if metadata.schema is None else str(metadata.schema),
            int(metadata.version),
            _ms(metadata.start),
            None if not end else _ms(end - 1 + _NS_PER_MS),
            _intervals(metadata),
            _PREFIX + length,
        )
    except (library.DBNError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise FormatError(path, "Databento metadata", f"{error}", place) from error


def _ms(ns: int | None) -> int | None:
    return ns // _NS_PER_MS if ns and ns < 2**63 else None


def _intervals(metadata: Any) -> dict[int, tuple[SymbolInterval, ...]]:
    found: dict[int, set[SymbolInterval]] = {}
    for instrument, interval in _mapped(metadata):
        found.setdefault(instrument, set()).add(interval)
    return {instrument: tuple(sorted(spans)) for instrument, spans in found.items()}


def _mapped(metadata: Any) -> Iterator[tuple[int, SymbolInterval]]:
    by_instrument = metadata.stype_in is not None and str(metadata.stype_in) == "instrument_id"
    if not by_instrument and str(metadata.stype_out) != "instrument_id":
        return
    for asked, spans in metadata.mappings.items():
        for span in spans:
            if not span["symbol"]:
                continue  # not listed in these days
            instrument, symbol = (
                (asked, span["symbol"]) if by_instrument else (span["symbol"], asked)
            )
            number = int(instrument)
            if not 0 <= number < 1 << 32:
                raise ValueError(f"instrument {number} of symbol {symbol}")
            yield number, SymbolInterval(span["start_date"], span["end_date"], str(symbol))
