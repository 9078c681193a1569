"""Days of a month folder: which of a day's blobs is whole, and the rows of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from candlebeam.formats.agg2 import kernels as loops
from candlebeam.formats.agg2 import survey_kernels as surveys
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
from candlebeam.formats.agg2.held import HELD_ROW_BYTES, HeldRows, leave_words, take_words
from candlebeam.formats.agg2.index import DATA_NAME, Index, IndexRow, read_index
from candlebeam.model import Int64Array, Uint8Array
from candlebeam.rules.step_kernels import MAX_EXPONENT, STATE_SIZE
from candlebeam.rules.steps import AS_STORED, Step, step_of
from candlebeam.storage import open_input

#: Rows that are read at a time.
PIECE_ROWS = 8192
PIECE = PIECE_ROWS * ROW_BYTES
#: Days whose rows would take more than this to hold are decompressed twice.
HELD_BYTES = 48 << 20

_NOTHING = np.empty(0, np.uint8)
_NO_WORDS = np.empty(0, np.int64)


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
    size: int
    mtime_ns: int
    path: str


def open_month(folder: str, day: int | None = None) -> Month:
    """Opens the two files of a month folder.

    Args:
        day: the only one that will be read.

    Raises:
        FormatError: its index is none of those known.
        OSError: one of them is missing, no file, or cannot be read.
    """
    # The index first: what it names is in the data by then.
    index = read_index(folder)
    path = os.path.join(folder, DATA_NAME)
    return Month(index, *open_input(path, _ranges(index, day)), path)


def _ranges(index: Index, day: int | None) -> list[tuple[int, int]] | None:
    if day is None:
        return None
    return [(row.offset, row.length) for row in index.of_day(day)]


@dataclass
class Day:
    """A day of which rows can be read.

    Attributes:
        row: where its blob stands.
        place: the place of that row among the index rows of the day, from 1.
        layout, header: of the blob.
        rows: how many of its rows are there.
        salvaged: whether they are what is left of a damaged blob.
        price_step, size_step: how prices and quantities are to be read.
        held: the rows, if they are held in memory: until the next day is looked for.
        repeated: 1 for each row that an earlier one equals; of length 0 if there is none.
        damage: what is wrong with the blob; None if nothing is.
    """

    row: IndexRow
    place: int
    layout: Layout
    header: Header
    rows: int
    salvaged: bool
    price_step: Step
    size_step: Step
    held: HeldRows | None = None
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


class Watch(Protocol):
    """Sees the rows of a blob while it is looked at for the first time."""

    def begin(self, layout: Layout) -> None:
        """Called before the first rows. What came before was of another blob."""
        ...

    def add(self, words: Int64Array) -> None:
        """Called with the next rows, as words; they do not stay."""
        ...


class DayBlobs:
    """Finds days, and reads their rows, one day at a time.

    Args:
        check: called for each piece that is read; raises what is to end the work.
        hold: whether the rows of a day are held, if they can be: so that it need not be
            decompressed again to read them.
        watch: sees the rows of each blob that may be a day's; of a day that is found, last.
    """

    def __init__(
        self,
        check: Callable[[], None] = lambda: None,
        *,
        hold: bool = False,
        watch: Watch | None = None,
    ) -> None:
        self._check = check
        self._watch = watch
        self._hold = hold
        self._buffer: Uint8Array = np.empty(PIECE, np.uint8)
        self._words: Int64Array | None = None

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
        """The rows of a day as they were, in pieces: six words of int64 a row. They share a buffer.

        Raises:
            BlobError: the files have changed since.
            OSError: the data file cannot be read.
        """
        source = (Salvage if day.salvaged else unpacked)(month.descriptor, day.row)
        source.readinto(np.empty(HEADER_BYTES, np.uint8))
        for at in range(0, day.rows * ROW_BYTES, PIECE):
            self._check()
            piece = self._buffer[: day.rows * ROW_BYTES - at]
            if source.readinto(piece) < len(piece):
                raise BlobError("it has changed while it was read")
            yield piece.view(np.int64)

    def hold(self, month: Month, day: Day) -> Int64Array:
        """All rows of a day as they were, as words."""
        found: Int64Array = np.empty(day.rows * loops.WORDS, np.int64)
        at = 0
        for piece in self.pieces(month, day):
            found[at : at + len(piece)] = piece
            at += len(piece)
        return found

    def release(self) -> None:
        """Leaves the memory of the rows that are held to others."""
        if self._words is not None:
            leave_words(self._words)
            self._words = None

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
        state: Int64Array = np.zeros(surveys.SURVEY_SIZE, np.int64)
        for search in (surveys.PRICE_STATE, surveys.SIZE_STATE):
            state[search : search + STATE_SIZE] = (MAX_EXPONENT, 1, 0)
        fits = self._hold and header.row_count * HELD_ROW_BYTES <= HELD_BYTES
        held = HeldRows(self._room() if fits else _NO_WORDS)
        late_ids: Int64Array = np.empty(PIECE_ROWS, np.int64)
        late: list[Int64Array] = []
        if self._watch is not None:
            self._watch.begin(layout)
        buffer = self._buffer
        rows = torn = 0
        filled = PIECE
        while filled == PIECE:
            self._check()
            filled = source.readinto(buffer)
            taken, torn = divmod(filled, ROW_BYTES)
            if digest is not None:
                digest.update(buffer[:filled].data)
            words = buffer[: taken * ROW_BYTES].view(np.int64)
            if self._watch is not None:
                self._watch.add(words)
            found = surveys.survey_rows(
                words, layout.places, state, late_ids, held.words, held.state, held.forms
            )
            if found:
                late.append(late_ids[:found].copy())
            rows += taken
        damage = _damage(header, rows, torn, source, row.checksum, digest)
        salvaged = isinstance(source, Salvage)
        if damage and not salvaged:
            raise BlobError(damage)
        prices, sizes = (
            AS_STORED if header.exact else step_of(state[search : search + STATE_SIZE])
            for search in (surveys.PRICE_STATE, surveys.SIZE_STATE)
        )
        day = Day(row, place, layout, header, rows, salvaged, prices, sizes, damage=damage)
        if held.whole:
            day.held = held
        if late:
            day.repeated = self._repeated(month, day, np.concatenate(late))
        return day

    def _room(self) -> Int64Array:
        """For the rows of a day; only what is used of it takes memory."""
        if self._words is None:
            self._words = take_words(HELD_BYTES // 8)
        return self._words

    def _repeated(self, month: Month, day: Day, late_ids: Int64Array) -> Uint8Array:
        """What `repeated_rows` gives, for a day with these ids that are not above all before them.

        Of rows that are equal, all but the first have such an id.
        """
        ids = np.unique(late_ids)
        if len(ids) * ROW_BYTES > HELD_BYTES:
            ids = self._several(month, day, ids)
        places, rows = [], []
        before = 0
        for piece in self.pieces(month, day):
            found = piece.reshape(-1, loops.WORDS)
            some = _places_among(found[:, 0], ids)[0]
            places.append(some + before)
            rows.append(found[some])
            before += len(found)
        return _repeats(np.concatenate(places), np.concatenate(rows), day.rows)

    def _several(self, month: Month, day: Day, ids: Int64Array) -> Int64Array:
        """Those of the ids, sorted, that several rows of a day have."""
        counts = np.zeros(len(ids), np.int32)
        for piece in self.pieces(month, day):
            np.add.at(counts, _places_among(piece[:: loops.WORDS], ids)[1], 1)
        return ids[counts > 1]


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
    several = ids[1:][(ids[1:] == ids[:-1]) & (ids[1:] != 0)]
    some = _places_among(rows[:, 0], several)[0]
    return _repeats(some, rows[some], len(rows))


def _places_among(ids: Int64Array, wanted: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Where ids are that are among the wanted ones, which are sorted; and where those are there."""
    if not len(wanted):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    place = np.searchsorted(wanted, ids)
    place[place == len(wanted)] = 0
    some = np.flatnonzero(wanted[place] == ids)
    return some, place[some]


def _repeats(places: Int64Array, rows: Int64Array, count: int) -> Uint8Array:
    """1 for each of `count` rows that equals an earlier one; of length 0 if none does.

    Args:
        places: of the rows that can be.
        rows: these, as words.
    """
    # Stable, so that of equal rows the first comes first.
    order = np.lexsort(tuple(rows.T))
    equal = (rows[order[1:]] == rows[order[:-1]]).all(axis=1)
    repeats = places[order[1:][equal]]
    if not len(repeats):
        return _NOTHING
    found = np.zeros(count, np.uint8)
    found[repeats] = 1
    return found
