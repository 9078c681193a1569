"""Downloaded files on disk: where they are, and which of them count.

A file counts when it has its name, and it gets that when it is whole. What stands beside it, as
`.{name}.json`, tells the request that it answers; a file without it is read to its end once.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from candlebeam.errors import CandlebeamError, FormatError
from candlebeam.formats.dbn.whole import DbnContents, check_dbn
from candlebeam.formats.fetched_file import Fetched, read_fetched
from candlebeam.market import Market
from candlebeam.pipelines.databento.client import Query
from candlebeam.rules.contracts import ALL_SYMBOLS
from candlebeam.rules.months import Month, Span
from candlebeam.storage.durable import remove, sync_folder, write_atomic

_DATA = ".dbn.zst"
#: The ending of everything that a run has not finished.
UNFINISHED = ".part"


@dataclass(frozen=True)
class MonthFile:
    """The place of one month of one symbol.

    Attributes:
        out: the root of all downloads.
        dataset, schema, symbol, stype_in: what the file holds.
        month: which month of it.
    """

    out: str
    dataset: str
    schema: str
    symbol: str
    stype_in: str
    month: Month

    def __str__(self) -> str:
        return f"{self.symbol} {self.month}"

    @property
    def folder(self) -> str:
        """Of the symbol. No name in it can lead out of the root."""
        return os.path.join(self.out, Market(self.dataset, self.schema, self.symbol).path)

    @property
    def data(self) -> str:
        """The file itself."""
        return self._path(_DATA)

    @property
    def csv(self) -> str:
        """The CSV file made of it."""
        return self._path(".csv")

    @property
    def note(self) -> str:
        """What is kept of the request."""
        return self._hidden(_DATA, ".json")

    @property
    def short(self) -> str:
        """A whole file that has fewer records than the API counts."""
        return self._hidden(_DATA, ".short")

    def unfinished(self, path: str) -> str:
        """Where a file is written before it has its name."""
        folder, name = os.path.split(path)
        return os.path.join(folder, f".{name.lstrip('.')}{UNFINISHED}")

    def query(self, span: Span) -> Query:
        """The request for a part of the month."""
        return Query(self.dataset, self.schema, self.symbol, self.stype_in, span)

    def _path(self, ending: str) -> str:
        year, number = self.month
        name = os.path.basename(self.folder)
        return os.path.join(self.folder, f"{name}_{year:04}_{number:02}{ending}")

    def _hidden(self, ending: str, more: str) -> str:
        folder, name = os.path.split(self._path(ending))
        return os.path.join(folder, f".{name}{more}")


@dataclass(frozen=True)
class Stored:
    """What is there of a month.

    Attributes:
        fetched: the whole file that is there; None if there is none.
        damage: what is wrong with the file that is there, if it does not count.
    """

    fetched: Fetched | None = None
    damage: str | None = None


def stored(file: MonthFile, *, verify: bool = False, take_short: bool = False) -> Stored:
    """What is there of a month.

    Args:
        verify: whether to read the file to its end, whatever is known of it.
        take_short: whether a file with fewer records than the API counts is good enough; it gets
            its name then.

    Raises:
        CandlebeamError: what is there answers another request; it is not to be overwritten.
        OSError: it cannot be read.
    """
    if not os.path.exists(file.data):
        if not take_short or not os.path.exists(file.short):
            return Stored()
        if (found := _checked(file, file.short)).fetched is None:
            return Stored()
        commit(file, file.short, found.fetched)
        return found
    known = read_fetched(file.note, file.data)
    if known is not None and not verify:
        _refuse_other(file, (known.dataset, known.schema, known.symbol, known.stype_in))
        return Stored(known)
    found = _checked(file, file.data)
    if found.damage:
        remove(file.note)  # it says that the file is whole
    if found.fetched is not None and known is not None:
        found = Stored(replace(found.fetched, csv_size=known.csv_size))
    if found.fetched is not None and found.fetched != known:
        write_note(file, found.fetched)
    return found


def commit(file: MonthFile, path: str, fetched: Fetched) -> None:
    """Gives a whole file its name, come a power cut.

    What is known of an older file with that name stays until the new one is there: it claims less.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(path, file.data)
    sync_folder(file.folder)
    write_note(file, fetched)
    remove(file.short)


def write_note(file: MonthFile, fetched: Fetched) -> None:
    """Keeps what is known of a file."""
    write_atomic(file.note, fetched.encode(), temporary=file.unfinished(file.note))


def fetched_of(file: MonthFile, path: str, contents: DbnContents, span: Span) -> Fetched:
    """What is known of a file that has been read to its end."""
    return Fetched(
        dataset=file.dataset,
        schema=file.schema,
        symbol=file.symbol,
        stype_in=file.stype_in,
        start=span.start,
        end=span.end,
        records=contents.records,
        size=os.path.getsize(path),
    )


def _checked(file: MonthFile, path: str) -> Stored:
    """What a file without a note is, by what it says itself."""
    try:
        contents = check_dbn(path)
    except FormatError as error:
        return Stored(damage=str(error))
    symbol = file.symbol if file.symbol == ALL_SYMBOLS else ", ".join(contents.symbols)
    _refuse_other(file, (contents.dataset, contents.schema, symbol, contents.stype_in))
    if contents.limit is not None or contents.end is None:
        raise CandlebeamError(
            f"{path}: expected all of a range of time, found a request"
            f" {'without an end' if contents.end is None else f'for {contents.limit} records'};"
            " move it away, or fetch to another folder"
        )
    span = Span(contents.start, contents.end)
    return Stored(fetched_of(file, path, contents, span))


def _refuse_other(file: MonthFile, found: tuple[str, str, str, str]) -> None:
    expected = (file.dataset, file.schema, file.symbol, file.stype_in)
    if found != expected:
        raise CandlebeamError(
            f"{file.data}: expected {' '.join(expected)}, found {' '.join(found)};"
            " move it away, or fetch to another folder"
        )
