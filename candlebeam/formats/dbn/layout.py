"""Which records of a Databento file are what, by their type, as Databento's library lays them out.

The library says where each field stands; what is in `dbn_tables`, which loops are compiled with, is
held against that before a file is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.metadata import version

import numpy as np

from candlebeam.errors import CandlebeamError
from candlebeam.formats.dbn import tables as t
from candlebeam.formats.dbn.metadata import databento_dbn
from candlebeam.model import Int64Array

#: By schema, the type of its records and what they are.
SCHEMA_TYPES = {
    "trades": (0x00, t.TRADE),
    "tbbo": (0x01, t.TRADE),
    "mbp-1": (0x01, t.TRADE),
    "mbp-10": (0x0A, t.TRADE),
    "mbo": (0xA0, t.ORDER),
    "cmbp-1": (0xB1, t.TRADE),
    "tcbbo": (0xC2, t.TRADE),
    "ohlcv-1s": (0x20, t.BAR),
    "ohlcv-1m": (0x21, t.BAR),
    "ohlcv-1h": (0x22, t.BAR),
    "ohlcv-1d": (0x23, t.BAR),
}
#: By type, the words of a record.
RECORD_WORDS = {
    0x00: 6, 0x01: 10, 0x0A: 46, 0xA0: 7, 0xB1: 10, 0xC2: 10, 0x20: 7, 0x21: 7, 0x22: 7, 0x23: 7,
}  # fmt: skip
_ERROR, _SYMBOL_MAPPING, _SYSTEM = 0x15, 0x16, 0x17


#: By type, the library's class of its records.
_CLASSES = {
    0x00: "TradeMsg", 0x01: "MBP1Msg", 0x0A: "MBP10Msg", 0xA0: "MBOMsg", 0xB1: "CMBP1Msg",
    0xC2: "CMBP1Msg", 0x20: "OHLCVMsg", 0x21: "OHLCVMsg", 0x22: "OHLCVMsg", 0x23: "OHLCVMsg",
}  # fmt: skip


def _places(kind: int) -> Iterator[tuple[str, int]]:
    """The fields that the loops read of a record of a kind, and where in it, in bytes."""
    yield from (("length", 0), ("rtype", 1), ("instrument_id", 4), ("ts_event", 8 * t.TS_EVENT))
    if kind == t.BAR:
        yield from (("open", 8 * t.BAR_OPEN), ("volume", 8 * t.BAR_VOLUME))
        return
    price, size, received, action, side = (
        (t.TRADE_PRICE, t.TRADE_SIZE, t.TRADE_TS_RECV, t.TRADE_ACTION_BITS, t.TRADE_SIDE_BITS)
        if kind == t.TRADE
        else (t.ORDER_PRICE, t.ORDER_SIZE, t.ORDER_TS_RECV, t.ORDER_ACTION_BITS, t.ORDER_SIDE_BITS)
    )
    yield from (("price", 8 * price), ("size", 8 * size), ("ts_recv", 8 * received))
    yield from (("action", 8 * size + action // 8), ("side", 8 * size + side // 8))


@cache
def check_layout() -> None:
    """Holds the places of fields against those of the library that is installed.

    Raises:
        CandlebeamError: it lays out a record in another way, or is not installed.
    """
    library = databento_dbn()
    for record_type, kind in SCHEMA_TYPES.values():
        name = _CLASSES[record_type]
        fields = np.dtype(getattr(library, name)._dtypes)
        expected = [("all of it", 8 * RECORD_WORDS[record_type]), *_places(kind)]
        places = {field: place for field, (_, place, *_) in (fields.fields or {}).items()}
        found = {"all of it": fields.itemsize, **places}
        for field, place in expected:
            if found.get(field) != place:
                raise CandlebeamError(
                    f"databento_dbn {version('databento-dbn')}: expected {field} of {name} at byte"
                    f" {place}, found {found.get(field)}; this version cannot be used"
                )


def record_types(schema: str | None) -> tuple[Int64Array, Int64Array]:
    """What the records of a file are by type, and their words, for `walk_records`.

    A live file has trades among others; what is unknown is skipped, as it may come with a library
    of tomorrow. Bars of live files are not read, since bars of several lengths can stand in one.
    """
    check_layout()
    kinds = np.full(256, t.SKIPPED if schema is None else t.UNEXPECTED, np.int64)
    lengths = np.zeros(256, np.int64)
    kinds[[_ERROR, _SYSTEM]] = t.SKIPPED
    kinds[_SYMBOL_MAPPING] = t.MAPPING
    for name, (record_type, kind) in SCHEMA_TYPES.items():
        if name == schema or (schema is None and kind != t.BAR):
            kinds[record_type] = kind
            lengths[record_type] = RECORD_WORDS[record_type]
    return kinds, lengths


def record_text(words: Int64Array, pos: int) -> str:
    """What is in the record at a place, for the user."""
    head = int(words[pos])
    length, record_type = (head & 0xFF) >> 1, head >> 8 & 0xFF
    raw = words[pos : pos + length].view(np.uint64).tolist()
    instrument = head >> 32 & 0xFFFFFFFF
    begin = f"type={record_type} instrument_id={instrument} ts_event={raw[t.TS_EVENT]}"
    if record_type not in RECORD_WORDS:
        return begin
    kind = next(kind for known, kind in SCHEMA_TYPES.values() if known == record_type)
    if kind == t.BAR:
        prices = words[pos + t.BAR_OPEN : pos + t.BAR_OPEN + 4].tolist()
        named = zip(("open", "high", "low", "close"), prices, strict=True)
        return f"{begin} " + " ".join(f"{n}={p}" for n, p in named) + f" volume={raw[t.BAR_VOLUME]}"
    price, size, received, bits = (
        (t.TRADE_PRICE, t.TRADE_SIZE, t.TRADE_TS_RECV, t.TRADE_SIDE_BITS)
        if kind == t.TRADE
        else (t.ORDER_PRICE, t.ORDER_SIZE, t.ORDER_TS_RECV, t.ORDER_SIDE_BITS)
    )
    side = chr(raw[size] >> bits & 0xFF)
    return (
        f"{begin} ts_recv={raw[received]} price={int(words[pos + price])}"
        f" size={raw[size] & 0xFFFFFFFF} side={side!a}"
    )
