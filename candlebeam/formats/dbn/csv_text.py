"""Databento files as CSV.

Bars of one instrument become the columns of `csv_text.HEADER`. Everything else becomes Databento's
own layout: all fields of the schema, prices as decimals, times in ISO 8601, and the symbol last.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from candlebeam.errors import FormatError
from candlebeam.formats.csv.text import HEADER, encode_csv
from candlebeam.formats.dbn.metadata import databento_dbn, read_head
from candlebeam.formats.dbn.stream import DbnStream
from candlebeam.model import Bars, Float64Array, Int64Array, Records

#: One bar of the schemas ohlcv-1s, -1m, -1h, -1d and -eod, in every version of DBN. Prices are in
#: units of 1e-9; one that is not known is `UNKNOWN_PRICE`.
BAR_DTYPE = np.dtype(
    [
        ("length", "u1"),
        ("rtype", "u1"),
        ("publisher_id", "<u2"),
        ("instrument_id", "<u4"),
        ("ts_event", "<u8"),
        ("open", "<i8"),
        ("high", "<i8"),
        ("low", "<i8"),
        ("close", "<i8"),
        ("volume", "<u8"),
    ]
)
UNKNOWN_PRICE = np.iinfo(np.int64).max
_PRICE_UNITS = 1e9
_NS_PER_MS = 1_000_000
_NS_PER_SECOND = 1_000_000_000
_READ_SIZE = 1 << 20
_WORDS = BAR_DTYPE.itemsize // 4
_RTYPES = (32, 33, 34, 35, 36)


def is_bars(schema: str) -> bool:
    """Whether a schema's records are bars."""
    return schema.startswith("ohlcv-")


def write_csv(path: str, file: BinaryIO, *, bars: bool) -> int:
    """Writes the records of a zstd-compressed DBN file as CSV.

    Args:
        path: the DBN file.
        file: where to; memory does not grow with the number of records.
        bars: whether to write the columns of bars, which takes records of bars.

    Returns:
        How many bars do not come after the one before them: those of another publisher or
        instrument. 0 without `bars`.

    Raises:
        FormatError: the file is not whole, or holds no bars where these are asked for.
    """
    if not bars:
        _write_all_fields(path, file)
        return 0
    file.write(HEADER)
    last = np.iinfo(np.int64).min
    unordered = 0
    for records in _bar_records(path):
        batch = _bars(records)
        if len(batch):
            times = np.concatenate([[last], batch.ts])
            unordered += int((times[1:] <= times[:-1]).sum())
            last = int(batch.ts[-1])
        file.write(encode_csv(batch, header=False, milliseconds=False))
    return unordered


def _bar_records(path: str) -> Iterator[Records]:
    with DbnStream(path) as stream:
        head = read_head(stream, path)
        offset = head.head_bytes
        rest = b""
        while piece := stream.read(_READ_SIZE):
            data = rest + piece
            whole = len(data) // BAR_DTYPE.itemsize * BAR_DTYPE.itemsize
            records = np.frombuffer(data[:whole], BAR_DTYPE)
            wrong = (records["length"] != _WORDS) | ~np.isin(records["rtype"], _RTYPES)
            wrong |= records["ts_event"] % _NS_PER_SECOND != 0
            if wrong.any():
                at = int(wrong.argmax())
                size, kind, ts = (records[name][at] for name in ("length", "rtype", "ts_event"))
                found = f"{size * 4} bytes of type {kind}, {ts % _NS_PER_SECOND} ns behind one"
                expected = f"a bar of {BAR_DTYPE.itemsize} bytes at a whole second"
                raise FormatError(path, expected, found, offset + at * BAR_DTYPE.itemsize)
            yield records
            offset += whole
            rest = data[whole:]
        if stream.damage or rest:
            found = stream.damage or f"{len(rest)} bytes of one"
            raise FormatError(path, "a whole record", found, offset)


def _bars(records: Records) -> Bars:
    return Bars(
        ts=(records["ts_event"] // _NS_PER_MS).astype(np.int64),
        open=_prices(records["open"]),
        high=_prices(records["high"]),
        low=_prices(records["low"]),
        close=_prices(records["close"]),
        volume=records["volume"].astype(np.float64),
    )


def _prices(column: Int64Array) -> Float64Array:
    prices: Float64Array = np.where(column == UNKNOWN_PRICE, np.nan, column / _PRICE_UNITS)
    return prices


def _write_all_fields(path: str, file: BinaryIO) -> None:
    library = databento_dbn()
    transcoder = library.Transcoder(
        file, library.Encoding.CSV, library.Compression.NONE, map_symbols=True
    )
    try:
        with DbnStream(path) as stream:
            while piece := stream.read(_READ_SIZE):
                transcoder.write(piece)
            transcoder.flush()
            damage = stream.damage
    except (library.DBNError, ValueError) as error:
        raise FormatError(path, "Databento records", str(error)) from None
    rest = len(transcoder.buffer())
    if damage or rest:
        raise FormatError(path, "a whole record", damage or f"{rest} bytes of one")
