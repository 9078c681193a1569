"""What must hold of an aligned file: of its records, its index, and what it was made from.

Checks, and what a finding of each is:

- `journal`: there is none that can be read (an error), or a file that waits to be put in place
  (information; it is checked as it will be);
- `index`: it is missing (a warning), damaged, or of 16 bytes (information); it ends behind the end
  of the file or within a record; its date is not that of the last committed record;
- `size`: no whole number of records; or more behind what is committed than an open bar (a warning;
  information while somebody writes there, or has died doing so);
- `sidecar`: what the file was made from cannot be read (a warning), or is not known as another
  program wrote there last (information);
- `leftovers`: files that a crash has left (information);
- `padding`: bytes that should be zero (a warning).
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any

import numpy as np

from candlebeam.errors import FormatError
from candlebeam.formats.aligned.file import ALIGNED_DTYPE, PIECE_BARS, RECORD_BYTES, bars_of
from candlebeam.formats.aligned.state import (
    AlignedIndex,
    AlignedJournal,
    AlignedPaths,
    read_aligned_journal,
    read_index,
    read_sidecar,
)
from candlebeam.formats.bar_source import Piece
from candlebeam.formats.candles.companion import read_bytes
from candlebeam.formats.mapped import MappedBytes
from candlebeam.model import MS_PER_DAY, Records
from candlebeam.rules.checks import (
    ERROR,
    INFORMATION,
    KEPT_PLACES,
    WARNING,
    Finding,
    Place,
    format_ts,
    one,
)

#: The checks of an aligned file, in the order of their findings.
ALIGNED_CHECKS = ("journal", "index", "size", "sidecar", "leftovers", "padding")

_INDEX_PADDING = slice(4, 8)
_EPOCH = date(1970, 1, 1)


@dataclass
class AlignedCheck:
    """An aligned file being checked.

    `findings` has what concerns the files alone. Once `pieces` have been taken to their end,
    `padding` has what was found in the records.

    Args:
        paths: its files.
        keep: how many places of a check are kept.

    Attributes:
        committed: how many records count by the index; all of them without one.
        records: all that are looked at: those that are committed, and an open bar.

    Raises:
        OSError: a file cannot be read.
    """

    paths: AlignedPaths
    keep: int = KEPT_PLACES
    findings: list[Finding] = field(default_factory=list)
    committed: int = 0

    def __post_init__(self) -> None:
        journal = self._journal()
        index = journal.index if journal else self._index()
        path = self.paths.records
        if journal and os.path.exists(self.paths.replacement):
            path = self.paths.replacement
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = size // RECORD_BYTES * RECORD_BYTES
            mapped: Any = (
                mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ) if length else b""
            )
        self.records: Records = np.frombuffer(mapped, ALIGNED_DTYPE)
        self.committed = len(self.records)
        self._seen = 0
        self._padded = Finding(WARNING, "padding", 0, "bytes that should be zero are not")
        if index is not None:
            self._check_index(index, size)
        self._check_size(index, size)
        self._check_sidecar(index)
        self._check_leftovers(journal)

    def _journal(self) -> AlignedJournal | None:
        try:
            journal = read_aligned_journal(self.paths)
        except FormatError as error:
            self._note(ERROR, "journal", "damaged journal", error.expected, error.found)
            return None
        if journal is not None:
            message = "a new file waits for the next run to put it in place; checked as it will be"
            self._note(INFORMATION, "journal", message, "no journal", self.paths.journal)
        return journal

    def _index(self) -> AlignedIndex | None:
        try:
            index = read_index(self.paths)
        except FormatError as error:
            self._note(ERROR, "index", "damaged index", error.expected, error.found)
            return None
        if index is None:
            self._note(WARNING, "index", "no index", self.paths.index, "no such file")
        return index

    def _note(self, severity: str, check: str, message: str, expected: str, found: str) -> None:
        self.findings.append(one(severity, check, message, expected, found))

    def _check_index(self, index: AlignedIndex, size: int) -> None:
        """Holds the index against the records; afterwards only those that count are left."""
        if index.last_date is None:
            message = "an index of 16 bytes, without a date: the next writer replaces it"
            self._note(INFORMATION, "index", message, "24 bytes", "16 bytes")
        padding = (read_bytes(self.paths.index) or b"")[_INDEX_PADDING]
        if index.last_date is not None and any(padding):
            self._note(
                WARNING, "index", "padding that is not zero", "00 00 00 00", padding.hex(" ")
            )
        if index.out_pos > size:
            expected = f"at least {index.out_pos} bytes, as the index says"
            self._note(ERROR, "index", "the file ends before out_pos", expected, f"{size} bytes")
            return
        if index.out_pos % RECORD_BYTES:
            expected = f"out_pos at a multiple of {RECORD_BYTES}"
            self._note(ERROR, "index", "out_pos within a record", expected, f"{index.out_pos}")
            return
        self.committed = index.out_pos // RECORD_BYTES
        self.records = self.records[: self.committed + 1]
        if not self.committed:
            return
        last_ts = int(self.records["ts"][self.committed - 1])
        last_date = _date_of(last_ts)
        if index.last_date not in (None, last_date):
            message = "the date is not that of the last committed record"
            self._note(ERROR, "index", message, f"last_date {last_date}", f"{index.last_date}")
        if len(self.records) > self.committed:
            open_ts = int(self.records["ts"][self.committed])
            if open_ts <= last_ts:
                # Readers pass over it, so it is no bar out of order.
                self.records = self.records[: self.committed]
                message = "the record behind out_pos does not go on from those before it"
                self._note(
                    WARNING,
                    "size",
                    message,
                    f"a bar after {format_ts(last_ts)}",
                    format_ts(open_ts),
                )

    def _check_size(self, index: AlignedIndex | None, size: int) -> None:
        if size % RECORD_BYTES:
            message = "no whole number of records"
            expected = f"a multiple of {RECORD_BYTES} bytes"
            self._note(ERROR, "size", message, expected, f"{size} bytes")
        if index is None:
            return
        behind = size // RECORD_BYTES - index.out_pos // RECORD_BYTES
        if behind > 1:
            writing = os.path.exists(self.paths.writing)
            message = "more than one record behind out_pos: the next writer cuts them"
            self._note(
                INFORMATION if writing else WARNING, "size", message,
                f"at most {RECORD_BYTES} bytes behind out_pos {index.out_pos}",
                f"{size - index.out_pos}",
            )  # fmt: skip

    def _check_sidecar(self, index: AlignedIndex | None) -> None:
        try:
            sidecar = read_sidecar(self.paths)
        except FormatError as error:
            message = "what it was made from cannot be read"
            self._note(WARNING, "sidecar", message, error.expected, error.found)
            return
        if sidecar is None or index is None or sidecar.state_of(index) is not None:
            return
        if not os.path.exists(self.paths.journal):
            known = ", ".join(f"{state.out_pos}" for state in sidecar.states)
            message = "another program has written the index last"
            self._note(INFORMATION, "sidecar", message, f"out_pos {known}", f"{index.out_pos}")

    def _check_leftovers(self, journal: AlignedJournal | None) -> None:
        paths = self.paths
        left = [
            path
            for path in (*paths.unfinished, paths.writing, f"{paths.journal}.damaged")
            if os.path.exists(path) and not (journal and path == paths.replacement)
        ]
        if left:
            message = "files of a writer that was interrupted, or is at it"
            places = tuple(Place(None, None, "no such file", path) for path in left)
            finding = Finding(INFORMATION, "leftovers", len(left), message, places)
            self.findings.append(finding)

    def pieces(self) -> Iterator[Piece]:
        """The bars of `records`, in order; memory does not grow with their number.

        They can be taken more than once.
        """
        mapped = MappedBytes(self.records)
        for begin in range(0, len(self.records), PIECE_BARS):
            part = self.records[begin : begin + PIECE_BARS]
            self._check_padding(begin, part)
            yield Piece(begin, bars_of(part))
            mapped.let_go((begin + len(part)) * RECORD_BYTES)

    def _check_padding(self, begin: int, part: Records) -> None:
        if begin < self._seen:
            return
        self._seen = begin + len(part)
        padding = part["padding"]
        wrong = np.flatnonzero((padding[:, 0] | padding[:, 1]) != 0)
        if not len(wrong):
            return
        known = self._padded
        places = tuple(
            Place(
                begin + int(place),
                int(part["ts"][place].astype(np.int64)),
                "16 zero bytes",
                padding[place].tobytes().hex(" "),
            )
            for place in wrong[: self.keep - len(known.places)]
        )
        self._padded = replace(known, count=known.count + len(wrong), places=known.places + places)

    @property
    def padding(self) -> list[Finding]:
        """See the class."""
        return [self._padded] if self._padded.count else []


def _date_of(ts: int) -> int | None:
    """The day of a time in ms as YYYYMMDD; None where it is in no year of four digits."""
    try:
        return int((_EPOCH + timedelta(days=ts // MS_PER_DAY)).strftime("%Y%m%d"))
    except OverflowError:
        return None
