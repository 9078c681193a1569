"""Days of a month folder: which of a day's blobs is whole, and the rows of it."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from candlebeam.formats.agg2 import kernels as loops
from candlebeam.formats.agg2.blob import (
    HEADER_BYTES,
    LAYOUTS,
    ROW_BYTES,
    BlobError,
    Header,
    Layout,
    Salvage,
    UnknownBlobError,
    Unpacked,
    check_header,
    unpacked,
)
from candlebeam.formats.agg2.index import DATA_NAME, Index, IndexRow, read_index
from candlebeam.model import Int64Array, Uint8Array
from candlebeam.rules.step_kernels import MAX_EXPONENT, STATE_SIZE
from candlebeam.rules.steps import AS_STORED, Step, step_of

#: Rows that are read at a time.
PIECE_ROWS = 8192
PIECE = PIECE_ROWS * ROW_BYTES
#: Rows of a blob that take more bytes are not held in memory but decompressed twice, unless their
#: trade ids do not ascend.
HELD_BYTES = 96 << 20

_NOTHING = np.empty(0, np.uint8)
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)


@dataclass(frozen=True)
class Month:
    """The open files of a month.

    Attributes:
        index: what its index says.
        descriptor: of its data file; whoever has opened the month closes it.
        path, size, mtime_ns: of its data file when it was opened.
    """

    index: Index
    descriptor: int
    path: str
    size: int
    mtime_ns: int


def open_month(folder: str) -> Month:
    """Opens the two files of a month folder.

    Raises:
        FormatError: its index is none of those known.
        OSError: one of them is missing, no file, or cannot be read.
    """
    # The index first: what it names is in the data by then.
    index = read_index(folder)
    path = os.path.join(folder, DATA_NAME)
    descriptor = os.open(path, _OPEN_FLAGS)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise OSError(0, f"not a file: {kind}", path)
    return Month(index, descriptor, path, status.st_size, status.st_mtime_ns)


@dataclass
class Day:
    """A day of which rows can be read.

    Attributes:
        row: where its blob stands.
        place: the place of that row among the index rows of the day, from 1.
        layout, header: of the blob.
        rows: how many of its rows are there.
        price_step, size_step: how prices and quantities are to be read.
        ascending: whether trade ids ascend strictly.
        held: the rows as words, if they are held in memory: until the next day is looked for.
        repeated: 1 for each row that an earlier one equals; of length 0 if there is none.
        damage: what is wrong with the blob; None if nothing is.
    """

    row: IndexRow
    place: int
    layout: Layout
    header: Header
    rows: int
    price_step: Step
    size_step: Step
    ascending: bool
    held: Int64Array | None = None
    repeated: Uint8Array = field(default_factory=lambda: _NOTHING)
    damage: str | None = None


class Search(NamedTuple):
    """What looking for a day came to.

    Attributes:
        day: the first of its blobs that is whole; else what is left of the first one whose header
            is right; None if there is neither.
        passed: why the index rows before it were passed over; all of them, where none is whole.
        unknown: of what kind a blob is that is not known, if that is why there is no day.
    """

    day: Day | None
    passed: list[str]
    unknown: str | None = None


class DayBlobs:
    """Finds days, and reads their rows. It has one buffer, for one day at a time.

    Args:
        check: called for each piece that is read; raises what is to end the work.
    """

    def __init__(self, check: Callable[[], None] = lambda: None) -> None:
        self._check = check
        self._buffer: Uint8Array = _NOTHING

    def find(self, month: Month, number: int) -> Search:
        """Looks for a day of the month.

        Raises:
            OSError: the data file cannot be read.
        """
        rows = month.index.of_day(number)
        passed: list[str] = []
        reasons: list[str] = []
        unknown = None
        for place, row in enumerate(rows, start=1):
            try:
                if row.end > month.size:
                    raise BlobError(
                        f"expected bytes {row.offset} to {row.end},"
                        f" found the end of the data at {month.size}"
                    )
                source = unpacked(month.descriptor, row)
                return Search(self._survey(month, row, place, source), passed)
            except BlobError as error:
                reasons.append(str(error))
                passed.append(f"index row {place} of {len(rows)}: {error}")
                if isinstance(error, UnknownBlobError):
                    unknown = unknown or str(error)
        for place, row in enumerate(rows, start=1):
            if row.offset < month.size:
                try:
                    day = self._survey(month, row, place, Salvage(month.descriptor, row))
                except BlobError:
                    continue
                # A blob may be all there but for what its row says of it.
                day.damage = day.damage or reasons[place - 1]
                return Search(day, passed)
        return Search(None, passed, unknown)

    def pieces(self, month: Month, day: Day) -> Iterator[Int64Array]:
        """The rows of a day in pieces, as words: six of int64 a row. They may share the buffer.

        Raises:
            BlobError: the files have changed since.
            OSError: the data file cannot be read.
        """
        if day.held is not None:
            for begin in range(0, len(day.held), PIECE_ROWS * loops.WORDS):
                yield day.held[begin : begin + PIECE_ROWS * loops.WORDS]
            return
        for begin, end in self._read_again(month, day, keep=False):
            yield self._buffer[begin:end].view(np.int64)

    def hold(self, month: Month, day: Day) -> Int64Array:
        """All rows of a day, as words; valid until the next day is looked for."""
        if day.held is None:
            self._room(day.rows * ROW_BYTES)
            for _ in self._read_again(month, day, keep=True):
                pass
            day.held = self._buffer[: day.rows * ROW_BYTES].view(np.int64)
        return day.held

    def release(self) -> None:
        """Gives the buffer's memory back."""
        self._buffer = _NOTHING

    def _survey(self, month: Month, row: IndexRow, place: int, source: Unpacked | Salvage) -> Day:
        """Reads a blob to its end: whether it is whole, and what is to be known to read its rows.

        Raises:
            BlobError: it is not whole; if it is to be salvaged, only where it is no blob of a day.
        """
        head = np.empty(HEADER_BYTES, np.uint8)
        head = head[: source.readinto(head)]
        header = check_header(head.tobytes(), row.day)
        layout = LAYOUTS[header.magic]
        digest = hashlib.blake2b(head.data, digest_size=8) if row.checksum is not None else None
        state: Int64Array = np.zeros(loops.SURVEY_SIZE, np.int64)
        for search in (loops.PRICE_STATE, loops.SIZE_STATE):
            state[search : search + STATE_SIZE] = (MAX_EXPONENT, 1, 0)
        state[loops.ASCENDING] = 1
        size = ROW_BYTES * header.row_count
        hold = size <= HELD_BYTES
        buffer = self._room(size if hold else 0)
        rows = torn = 0
        filled = PIECE
        while filled == PIECE:
            self._check()
            begin = rows * ROW_BYTES
            if not hold or begin + PIECE > len(buffer):
                hold, begin = False, 0
            filled = source.readinto(buffer[begin : begin + PIECE])
            taken, torn = divmod(filled, ROW_BYTES)
            if digest is not None:
                digest.update(buffer[begin : begin + filled].data)
            words = buffer[begin : begin + taken * ROW_BYTES].view(np.int64)
            loops.survey_rows(words, layout.places, state)
            rows += taken
        damage = _damage(header, rows, torn, source, row.checksum, digest)
        if damage and not isinstance(source, Salvage):
            raise BlobError(damage)
        prices, sizes = (
            AS_STORED if header.exact else step_of(state[search : search + STATE_SIZE])
            for search in (loops.PRICE_STATE, loops.SIZE_STATE)
        )
        ascending = bool(state[loops.ASCENDING])
        day = Day(row, place, layout, header, rows, prices, sizes, ascending, damage=damage)
        if hold:
            day.held = buffer[: rows * ROW_BYTES].view(np.int64)
        if not ascending:
            day.repeated = repeated_rows(self.hold(month, day))
        return day

    def _room(self, size: int) -> Uint8Array:
        """The buffer, with room for so many bytes and a piece behind them."""
        if len(self._buffer) < size + PIECE:
            self._buffer = _NOTHING  # the old one goes before the new one comes
            self._buffer = np.empty(size + PIECE, np.uint8)
        return self._buffer

    def _read_again(self, month: Month, day: Day, keep: bool) -> Iterator[tuple[int, int]]:
        """Reads the rows into the buffer, at its start or one piece behind the other."""
        source = (unpacked if day.damage is None else Salvage)(month.descriptor, day.row)
        source.readinto(np.empty(HEADER_BYTES, np.uint8))
        for at in range(0, day.rows * ROW_BYTES, PIECE):
            self._check()
            begin = at if keep else 0
            end = begin + min(PIECE, day.rows * ROW_BYTES - at)
            if source.readinto(self._buffer[begin:end]) < end - begin:
                raise BlobError("it has changed while it was read")
            yield begin, end


def _damage(
    header: Header,
    rows: int,
    torn: int,
    source: Unpacked | Salvage,
    checksum: int | None,
    digest: hashlib.blake2b | None,
) -> str | None:
    """What is wrong with a blob of which so many rows, and bytes of a torn one, were read."""
    found = []
    salvaged = source.damage if isinstance(source, Salvage) else None
    if rows != header.row_count or torn or salvaged:
        text = f"expected {header.row_count} rows, found {rows}"
        if torn:
            text += f" and {torn} bytes"
        found.append(f"{text} before {salvaged}" if salvaged else text)
    if digest is not None:
        value = int.from_bytes(digest.digest(), "little")
        if value != checksum:
            found.append(f"expected checksum {checksum:016x}, found {value:016x}")
    return "; ".join(found) or None


def repeated_rows(words: Int64Array) -> Uint8Array:
    """1 for each row that equals an earlier one in all of its bytes, and has a trade id.

    Args:
        words: the rows, six words each.

    Returns:
        One value a row; of length 0 if no row is a repeat.
    """
    rows = words.reshape(-1, loops.WORDS)
    ids = rows[:, 0].copy()
    ids.sort()
    twice = ids[1:][(ids[1:] == ids[:-1]) & (ids[1:] != 0)]
    if not len(twice):
        return _NOTHING
    # Both are sorted, but for the rows themselves.
    place = np.searchsorted(twice, rows[:, 0])
    place[place == len(twice)] = 0
    some = np.flatnonzero(twice[place] == rows[:, 0])
    chosen = rows[some]
    # Stable, so that of equal rows the first comes first.
    order = np.lexsort(tuple(chosen.T))
    equal = (chosen[order[1:]] == chosen[order[:-1]]).all(axis=1)
    repeats = some[order[1:][equal]]
    if not len(repeats):
        return _NOTHING
    found = np.zeros(len(rows), np.uint8)
    found[repeats] = 1
    return found
