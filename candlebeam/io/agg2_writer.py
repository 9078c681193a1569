"""Writing days into an AGG2 archive, so that a crash at any moment leaves every day readable.

The blob is appended to the data file and forced to disk; only then the index is replaced by one
that has the day's new row before its older ones. Nothing that is there is ever written over.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import date
from typing import NamedTuple

import numpy as np

from candlebeam.errors import FormatError
from candlebeam.formats.agg2.day import Day, DayBlobs, Month, open_month, repeated_rows
from candlebeam.formats.agg2.index import DATA_NAME, INDEX_NAME, IndexRow, parse_index
from candlebeam.formats.agg2.kernels import MAX_MICROSECONDS, MIN_MICROSECONDS, WORDS
from candlebeam.formats.agg2.reader import AGG2_ROW_DTYPE, MAX_COUNT, header_of
from candlebeam.model import Int64Array, Records
from candlebeam.rules.steps import recover
from candlebeam.storage.durable import sync_folder, write_all, write_atomic

#: How hard zstd tries.
LEVEL = 3
_WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)


class DayWritten(NamedTuple):
    """What became of a day.

    Attributes:
        changed: whether a blob was written; if not, the day held these rows already.
        rows: of the day now.
        kept: rows of it that only the blob of before had.
        repeats: rows that were given more than once.
        length: bytes of its blob, compressed.
    """

    changed: bool
    rows: int
    kept: int
    repeats: int
    length: int


def write_day(base: str, symbol: str, day: date, rows: Records) -> DayWritten:
    """Puts rows into a day of an archive, by trade id.

    Rows of the day that are there already stay, unless a new one has their trade id. Whoever calls
    this must be the only writer.

    Args:
        base: the folder of the archive.
        rows: of `AGG2_ROW_DTYPE`, with exact numbers, all of that day; an exact repeat counts once.

    Raises:
        FormatError: the month has an index of another kind.
        OSError: something cannot be read or written.
    """
    folder = os.path.join(base, symbol, f"{day.year:04d}", f"{day.month:02d}")
    given = len(rows)
    rows = _settled(rows)
    repeats = given - len(rows)
    kept = 0
    index_rows, damaged = _index_of(folder)
    with _old_day(folder, day.day) as (old, words):
        if old is not None and words is not None:
            missing = _not_in(words.reshape(-1, WORDS), rows)
            kept = len(missing)
            if kept:
                more = _exact_rows(old, words.reshape(-1, WORDS)[missing])
                rows = _settled(np.concatenate([more, rows]))
            if old.damage is None and _same(old, words, rows):
                if damaged:
                    _write_index(folder, index_rows)
                return DayWritten(False, len(rows), kept, repeats, old.row.length)
    os.makedirs(folder, exist_ok=True)
    row = _append(folder, day.day, rows)
    if row.offset == 0:
        # Maybe the month is new, and so may be all that leads to it.
        for above in (os.path.dirname(folder), os.path.join(base, symbol), base):
            sync_folder(above)
    # What lies behind the old end is nowhere, and must not come to lie in the new blob.
    index_rows = [other for other in index_rows if other.offset < row.offset]
    place = next((n for n, r in enumerate(index_rows) if r.day == day.day), len(index_rows))
    _write_index(folder, [*index_rows[:place], row, *index_rows[place:]])
    return DayWritten(True, len(rows), kept, repeats, row.length)


def _settled(rows: Records) -> Records:
    """The rows by trade id, each once; equal ids in their order."""
    ids = rows["trade_id"]
    if bool((ids[1:] > ids[:-1]).all()):
        return rows
    if bool((ids[1:] < ids[:-1]).any()):
        rows = rows[np.argsort(ids, kind="stable")]
    repeated = repeated_rows(np.ascontiguousarray(rows).view(np.int64))
    return rows[repeated == 0] if len(repeated) else rows


def _not_in(words: Int64Array, rows: Records) -> Int64Array:
    """The places of rows, six words each, whose trade ids no row of a settled day has."""
    if not len(rows):
        return np.arange(len(words))
    ids = np.ascontiguousarray(rows["trade_id"])
    old = np.ascontiguousarray(words[:, 0]).view(np.uint64)
    place = np.searchsorted(ids, old)
    place[place == len(ids)] = 0
    return np.flatnonzero(ids[place] != old)


def _exact_rows(day: Day, words: Int64Array) -> Records:
    """Rows of a day as this writer would have written them."""
    found = words.reshape(-1).view(day.layout.dtype)
    rows: Records = np.zeros(len(found), AGG2_ROW_DTYPE)
    for name in ("trade_id", "first_id", "flags"):
        rows[name] = found[name]
    rows["px"] = recover(found["px"], day.price_step)
    rows["qty"] = recover(found["qty"], day.size_step)
    rows["count"] = np.minimum(found["count"], MAX_COUNT)
    ts = found["ts_ms"]
    micros = (ts > MIN_MICROSECONDS) & (ts < MAX_MICROSECONDS)
    rows["ts_ms"] = np.where(micros, ts // 1000, ts)
    rows["side"] = found["side"] if found.dtype == AGG2_ROW_DTYPE else 1 - (found["flags"] & 1)
    return rows


def _same(day: Day, words: Int64Array, rows: Records) -> bool:
    """Whether a day's blob is that of these rows, byte for byte."""
    if day.header != header_of(rows, day.row.day):
        return False
    return bool(np.array_equal(words, np.ascontiguousarray(rows).view(np.int64)))


@contextlib.contextmanager
def _old_day(folder: str, number: int) -> Iterator[tuple[Day | None, Int64Array | None]]:
    """What a reader gets of a day that is there, and its rows."""
    try:
        month: Month = open_month(folder)
    except FileNotFoundError:
        yield None, None
        return
    try:
        blobs = DayBlobs()
        day = blobs.find(month, number).day
        yield day, None if day is None else blobs.hold(month, day)
    finally:
        os.close(month.descriptor)


def _index_of(folder: str) -> tuple[list[IndexRow], bool]:
    """The rows of an index, none if it is not there, and whether anything is wrong with it."""
    path = os.path.join(folder, INDEX_NAME)
    try:
        with open(path, "rb") as file:
            index = parse_index(file.read(), path)
    except FileNotFoundError:
        return [], False
    if index.checked:
        raise FormatError(path, "an index of AGG2, which is all that is written", "QIDX", 0)
    return index.rows, index.damage is not None


def _append(folder: str, day: int, rows: Records) -> IndexRow:
    """Appends the blob of a day to the data file; it is on disk when this returns."""
    import zstandard

    path = os.path.join(folder, DATA_NAME)
    header = header_of(rows, day)
    stream = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compressobj(header.size)
    compressed = stream.compress(header.encode())
    compressed += stream.compress(np.ascontiguousarray(rows).view(np.uint8).data)
    compressed += stream.flush()
    descriptor = os.open(path, _WRITE_FLAGS, 0o666)
    try:
        offset = os.fstat(descriptor).st_size
        try:
            write_all(descriptor, compressed, offset)
            os.fsync(descriptor)
        except OSError:
            # Nobody knows of these bytes.
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, offset)
            raise
    finally:
        os.close(descriptor)
    sync_folder(folder)
    return IndexRow(day, offset, len(compressed))


def _write_index(folder: str, rows: list[IndexRow]) -> None:
    data = b"".join(row.encode() for row in rows)
    # One writer, so that what a crash leaves of it is replaced by the next one.
    temporary = os.path.join(folder, f".{INDEX_NAME}.tmp")
    write_atomic(os.path.join(folder, INDEX_NAME), data, temporary=temporary)
