"""The index of a month of day blobs: which bytes of its data file hold which day.

A month folder `{base}/{symbol}/{YYYY}/{MM}` holds two files:

    data.quantdev    blobs, one after the other
    index.quantdev   rows of `<HQQ`: day of the month, offset, length;
                     or `<4sIQ` ("QIDX", 1, count) and rows of `<HQQQ` with a checksum each

Several rows may name one day. Whoever reads it takes the first whose blob is whole. No numpy in
here: planning reads nothing but indexes.
"""

from __future__ import annotations

import calendar
import os
import re
import struct
from collections.abc import Callable, Iterator
from datetime import date, datetime, timezone
from typing import NamedTuple

from candlebeam.errors import CandlebeamError, FormatError
from candlebeam.storage import storage_of
from candlebeam.storage.folders import Folder

DATA_NAME = "data.quantdev"
INDEX_NAME = "index.quantdev"

#: An index row: day of the month, offset and length in the data file in bytes.
ROW = struct.Struct("<HQQ")
#: The other kind of index: magic, version and number of rows, then rows with a checksum.
CHECKED_MAGIC = b"QIDX"
CHECKED_VERSION = 1
CHECKED_HEADER = struct.Struct("<4sIQ")
CHECKED_ROW = struct.Struct("<HQQQ")

_YEAR = re.compile(r"[0-9]{4}")
_MONTH = re.compile(r"0[1-9]|1[0-2]")


class IndexRow(NamedTuple):
    """Where a day's blob stands.

    Attributes:
        day: of the month.
        offset, length: of the compressed blob in the data file, in bytes.
        checksum: BLAKE2b of the uncompressed blob, in 8 bytes, little-endian; None where the index
            has none.
    """

    day: int
    offset: int
    length: int
    checksum: int | None = None

    @property
    def end(self) -> int:
        return self.offset + self.length

    def encode(self) -> bytes:
        """The row as an index without checksums has it."""
        return ROW.pack(self.day, self.offset, self.length)


class Index(NamedTuple):
    """What an index file says.

    Attributes:
        rows: in their order.
        checked: whether it is of the kind with checksums.
        damage: what is wrong with it; None if nothing is.
    """

    rows: list[IndexRow]
    checked: bool
    damage: str | None

    def of_day(self, day: int) -> list[IndexRow]:
        """The rows of a day, in their order."""
        return [row for row in self.rows if row.day == day]


def parse_index(data: bytes, path: str) -> Index:
    """The rows of an index file; what is torn or makes no sense is left out and named.

    Args:
        data: its bytes.
        path: its name, for messages.

    Raises:
        FormatError: this is an index of neither kind.
    """
    checked = data[:4] == CHECKED_MAGIC
    begin, form = (CHECKED_HEADER.size, CHECKED_ROW) if checked else (0, ROW)
    problems = []
    announced = None
    if checked:
        if len(data) < begin:
            raise FormatError(path, f"a header of {begin} bytes", f"{len(data)} bytes", 0)
        _, version, announced = CHECKED_HEADER.unpack_from(data)
        if version != CHECKED_VERSION:
            raise FormatError(path, f"QIDX version {CHECKED_VERSION}", f"version {version}", 4)
    rows = []
    end = begin + (len(data) - begin) // form.size * form.size
    for place in range(begin, end, form.size):
        row = IndexRow(*form.unpack_from(data, place))
        if 1 <= row.day <= 31:
            rows.append(row)
        elif not checked and place == 0 and _looks_like_magic(data[:4]):
            found = repr(data[:4])
            raise FormatError(path, "rows of a day from 1 to 31 each, or QIDX", found, 0)
        else:
            problems.append(f"expected a day from 1 to 31 at byte {place}, found {row.day}")
    if not rows and problems:
        raise FormatError(path, "rows of a day from 1 to 31 each, or QIDX", repr(data[:18]), 0)
    if end < len(data):
        problems.append(f"torn row of {len(data) - end} bytes at byte {end}")
    count = (end - begin) // form.size
    if announced is not None and announced != count:
        problems.append(f"expected {announced} rows as its header says, found {count}")
    return Index(rows, checked, "; ".join(problems) or None)


def read_index(folder: str) -> Index:
    """The index of a month folder.

    Raises:
        FormatError: it is none of those known.
        OSError: it cannot be read.
    """
    path = os.path.join(folder, INDEX_NAME)
    return parse_index(storage_of(path).read(path), path)


class DayInput(NamedTuple):
    """A day of a symbol, as planning sees it.

    Attributes:
        symbol: the name of its folder.
        start_ts: the day's start in ms.
        path: `{symbol}/{YYYY}/{MM}/{DD}`, below the base folder.
        size: bytes of its blob, compressed: of the first one that the data file can hold.
        version: changes whenever the rows of the day do, or what the data file can hold of them.
    """

    symbol: str
    start_ts: int
    path: str
    size: int
    version: str


def list_days(
    base: str,
    symbol: str | None = None,
    *,
    on_stray: Callable[[str], None] | None = None,
    on_problem: Callable[[str], None] | None = None,
) -> Iterator[DayInput]:
    """The days under a base folder by their indexes, by symbol and then time.

    Args:
        base: holds `{symbol}/{YYYY}/{MM}`.
        symbol: only this one.
        on_stray: called with the path, below the base, of what is no part of such an archive.
        on_problem: called with what is wrong with a month, in words that name its file.

    Raises:
        CandlebeamError: there is no such folder.
    """
    stray = on_stray or _ignore
    problem = on_problem or _ignore
    tree = Folder(base)
    if not tree:
        raise CandlebeamError(f"{base}: no such folder")
    for name in _folders(tree, "", stray) if symbol is None else [symbol]:
        if not tree.is_folder(name):
            continue
        for year in _folders(tree, name, stray, _YEAR):
            for month in _folders(tree, f"{name}/{year}", stray, _MONTH):
                yield from _days_of_month(tree, name, f"{name}/{year}/{month}", stray, problem)


def _ignore(_: str) -> None:
    pass


def _folders(
    tree: Folder, below: str, stray: Callable[[str], None], form: re.Pattern[str] | None = None
) -> list[str]:
    """The folders in a folder whose names have the form, sorted; hidden files do not count."""
    names = []
    for name, is_folder in tree.entries(below):
        if name.startswith("."):
            continue
        if is_folder and (form is None or form.fullmatch(name)):
            names.append(name)
        else:
            stray(f"{below}/{name}" if below else name)
    return names


def _days_of_month(
    tree: Folder,
    symbol: str,
    below: str,
    stray: Callable[[str], None],
    problem: Callable[[str], None],
) -> Iterator[DayInput]:
    folder = os.path.join(tree.path, below)
    names = [name for name, _ in tree.entries(below)]
    for name in names:
        if name not in (DATA_NAME, INDEX_NAME) and not name.startswith("."):
            stray(f"{below}/{name}")
    try:
        size = tree.size(f"{below}/{DATA_NAME}")
    except OSError:
        size = 0  # whoever reads a day says what is wrong
    try:
        index = read_index(folder)
    except FileNotFoundError:
        if DATA_NAME in names:
            problem(f"{folder}: {DATA_NAME} without {INDEX_NAME}")
        else:
            stray(below)
        return
    except FormatError as error:
        problem(str(error))
        return
    except OSError as error:
        problem(f"{os.path.join(folder, INDEX_NAME)}: {error.strerror or error}")
        return
    if index.damage:
        problem(f"{os.path.join(folder, INDEX_NAME)}: {index.damage}")
    year, month = map(int, below.split("/")[-2:])
    last = calendar.monthrange(year, month)[1] if year else 0
    for day in sorted({row.day for row in index.rows}):
        if day > last:
            problem(f"{os.path.join(folder, INDEX_NAME)}: expected days up to {last}, found {day}")
            continue
        rows = index.of_day(day)
        held = [row for row in rows if row.end <= size]
        first = held[0].length if held else max(0, min(rows[0].end, size) - rows[0].offset)
        version = ",".join(f"{r.offset}+{r.length}" + "!" * (r.end > size) for r in rows)
        yield DayInput(symbol, day_start(year, month, day), f"{below}/{day:02d}", first, version)


def day_start(year: int, month: int, day: int) -> int:
    """The start of a day in ms.

    >>> day_start(1970, 1, 2)
    86400000
    """
    return (date(year, month, day).toordinal() - date(1970, 1, 1).toordinal()) * 86_400_000


def day_of(ts: int) -> date:
    """The day of a time in ms."""
    return datetime.fromtimestamp(ts // 1000, timezone.utc).date()


def _looks_like_magic(head: bytes) -> bool:
    return len(head) == 4 and head.isalnum()
