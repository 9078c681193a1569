"""From the bars of a market to files of months: Parquet, CSV or Arrow.

A file is written beside its place, forced to disk and renamed; then the state of the export says
what it was made from. A crash leaves old or new files, and at worst one month that the next run
writes once more.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from candlebeam.errors import CandlebeamError, FormatError, UsageError
from candlebeam.formats.bar_inputs import CANDLES, CSV, BarInput, open_input
from candlebeam.formats.candles.companion import read_bytes
from candlebeam.formats.candles.file import open_candles
from candlebeam.formats.csv.bars import encode_csv
from candlebeam.formats.tables.places import (
    FORMATS,
    ExportPlace,
    name_of,
    period_of,
    place_of,
)
from candlebeam.formats.tables.state import ExportedMonth, ExportState
from candlebeam.formats.tables.tables import TABLE_VERSION, TableFile
from candlebeam.io.month_batches import (
    BarBatch,
    BarMonths,
    Batch,
    CandleMonths,
    MonthBatches,
    checksums,
)
from candlebeam.model import Bars, Market
from candlebeam.outcome import EMPTY, UP_TO_DATE, BarsOutcome
from candlebeam.rules.bar_gaps import without_gaps
from candlebeam.storage.durable import placing, remove, write_all, write_atomic

KEEP, SKIP = "keep", "skip"


@dataclass(frozen=True)
class ExportOptions:
    """How bars are exported.

    Attributes:
        to: the root of the files.
        form: "parquet", "csv" or "arrow".
        gaps: whether candles without trades "keep" their rows, or "skip".
        by_market, by_timeframe: for CSV, has a folder for each collector and exchange, and for
            each timeframe.
        force: makes everything again.
    """

    to: str
    form: str = FORMATS[0]
    gaps: str = KEEP
    by_market: bool = False
    by_timeframe: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        if self.form not in FORMATS:
            raise UsageError(f"format {self.form!r}: expected {', '.join(FORMATS)}")
        if self.gaps not in (KEEP, SKIP):
            raise UsageError(f"gaps {self.gaps!r}: expected {KEEP} or {SKIP}")
        if self.form != CSV and (self.by_market or self.by_timeframe):
            raise UsageError(
                f"by market or timeframe: expected with format {CSV}, as {self.form} has a folder"
                " for each of them anyway"
            )


@dataclass(frozen=True)
class ExportItem:
    """One market.

    Attributes:
        inputs: where its bars are: a candle file; or one or several files of another kind.
        market: whose bars they are.
        period: how long they are, as text; None where that is not known.
    """

    inputs: tuple[BarInput, ...]
    market: Market
    period: str | None

    def __str__(self) -> str:
        return str(self.inputs[0])

    @classmethod
    def of_candles(cls, path: str) -> ExportItem:
        """The item of a candle file. Raises `FormatError`, `FileNotFoundError`."""
        companion = open_candles(path).companion
        found = BarInput(CANDLES, (path,))
        return cls((found,), companion.market, str(companion.timeframe))

    def place(self, options: ExportOptions) -> ExportPlace:
        """Where its files go. Raises `UsageError` where that cannot be told."""
        return place_of(
            options.to,
            options.form,
            self.market,
            self.period,
            by_market=options.by_market,
            by_timeframe=options.by_timeframe,
        )

    def open(self, form: str) -> MonthBatches:
        """Its bars. Raises `CandlebeamError` where a file is damaged."""
        is_candles = self.inputs[0].kind == CANDLES
        if is_candles and form != CSV:
            return CandleMonths(open_candles(self.inputs[0].paths[0]))
        sources = [
            source
            for found in self.inputs
            for source in open_input(found)
            if source.market == self.market and period_of(found, source) == self.period
        ]
        return BarMonths(sources, whole=is_candles)


def export_bars(item: ExportItem, options: ExportOptions) -> BarsOutcome:
    """Brings the files of one market up to date.

    Raises:
        CandlebeamError: its bars are damaged, or its place is another market's.
        OSError: a file cannot be written.
    """
    return _Export(item, options).run()


class _Export:
    """One run over one market."""

    def __init__(self, item: ExportItem, options: ExportOptions) -> None:
        self._item, self._options = item, options
        self._place = item.place(options)
        self._source = item.open(options.form)
        self._outcome = BarsOutcome(str(item))
        name = f"{name_of(item.market)} {item.period or 'of unknown length'}"
        self._said = {
            **item.market._asdict(),
            "timeframe": item.period or "",
            "gaps": options.gaps,
        }
        made = {"format": options.form, "gaps": options.gaps, "tables": TABLE_VERSION}
        self._state = ExportState(name, made)
        # Whether what is at the place is another market's.
        self._replaces = False

    def run(self) -> BarsOutcome:
        outcome, state = self._outcome, self._state
        before = self._state_before()
        state.months.update(before.months)
        known = before.months if before.options == state.options else {}
        wanted: set[str] | None = None
        there: set[str] = set()
        if known and not self._options.force:
            found = checksums(self._source)
            there = set(found)
            wanted = {month for month in found if not self._is_done(month, found[month], known)}
        for month, batches in groupby(self._source.read(wanted), itemgetter(0)):
            there.add(month)
            done = self._write(month, map(itemgetter(1), batches))
            self._note_loss(month, known.get(month), done)
            state.months[month] = done
            self._write_state(durable=False)
        if self._remove_others(there) or outcome.files:
            self._write_state(durable=True)
        elif there:
            outcome.status = UP_TO_DATE
        if not there:
            outcome.status = EMPTY
        return outcome

    def _state_before(self) -> ExportState:
        """What earlier runs have written at this place; nothing, where nobody can tell."""
        path, nothing = self._place.state, ExportState(self._state.source, {})
        remove(_temporary(path))
        data = read_bytes(path)
        if data is None:
            return nothing
        try:
            before = ExportState.decode(data, path)
        except FormatError as error:
            self._outcome.notes.append(f"{error}; everything was written again")
            return nothing
        if before.source == self._state.source:
            return before
        if self._options.force:
            self._replaces = True
            return before
        hint = "; --by-market and --by-timeframe keep them apart" if self._place.form == CSV else ""
        raise CandlebeamError(
            f"{self._place.folder} has files of {before.source}, not of {self._state.source}{hint};"
            " --force replaces them"
        )

    def _is_done(self, month: str, checksum: int, known: dict[str, ExportedMonth]) -> bool:
        """Whether the file of a month is there, and would come out the same."""
        if month not in known or known[month].checksum != checksum:
            return False
        try:
            size: int | None = os.stat(self._place.file(month)).st_size
        except FileNotFoundError:
            size = None
        return size == known[month].size

    def _write(self, month: str, batches: Iterable[Batch]) -> ExportedMonth:
        path = self._place.file(month)
        checksum = bars = 0
        with ExitStack() as stack:
            file: _File | None = None
            for batch in batches:
                checksum = batch.checksum(checksum)
                rows = self._rows(batch)
                if not len(rows):
                    continue
                if file is None:
                    os.makedirs(os.path.dirname(path), exist_ok=True)
                    descriptor = stack.enter_context(placing(path, temporary=_temporary(path)))
                    file = self._open(stack, descriptor, month)
                file(rows)
                bars += len(rows)
        self._outcome.bars += bars
        if file is None:
            self._remove(month)
            return ExportedMonth(checksum, None, 0)
        self._outcome.files.append(path)
        return ExportedMonth(checksum, os.stat(path).st_size, bars)

    def _rows(self, batch: Batch) -> Any:
        """What is to be written of a batch: `Bars`, or a table."""
        keep = self._options.gaps == KEEP
        if self._place.form != CSV:
            return batch.table(keep)
        assert isinstance(batch, BarBatch)
        return batch.bars if keep else without_gaps(batch.bars)

    def _open(self, stack: ExitStack, descriptor: int, month: str) -> _File:
        if self._place.form == CSV:
            return _CsvFile(descriptor).write
        said = {**self._said, "month": month}
        return stack.enter_context(
            TableFile(
                lambda data: write_all(descriptor, data),
                self._place.form,
                self._source.schema(),
                said,
            )
        ).write

    def _note_loss(self, month: str, old: ExportedMonth | None, new: ExportedMonth) -> None:
        if old is not None and new.bars < old.bars:
            self._outcome.notes.append(
                f"{self._place.file(month)} has {new.bars:,} bars now, it had {old.bars:,}"
            )

    def _remove_others(self, there: set[str]) -> bool:
        """Removes the files of months that the market has not any more; says if there were any."""
        if not self._source.whole and not self._replaces:
            return False
        others = sorted(self._state.months.keys() - there)
        for month in others:
            self._remove(month)
            del self._state.months[month]
            self._outcome.notes.append(
                f"{self._place.file(month)} was removed: {self._item} has no bars of that month"
            )
        return bool(others)

    def _remove(self, month: str) -> None:
        path = self._place.file(month)
        remove(path)
        remove(_temporary(path))
        if self._place.form != CSV:
            with contextlib.suppress(OSError):
                os.rmdir(os.path.dirname(path))

    def _write_state(self, *, durable: bool) -> None:
        """Without force it may be lost in a power cut, or torn, which is found out."""
        path = self._place.state
        os.makedirs(self._place.folder, exist_ok=True)
        write_atomic(path, self._state.encode(), durable=durable, temporary=_temporary(path))


_File = Callable[[Any], object]


class _CsvFile:
    """The text of a CSV file, written piece by piece."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._begun = self._milliseconds = False

    def write(self, bars: Bars) -> None:
        # Once a time has milliseconds, all that follow have them.
        self._milliseconds = self._milliseconds or bool((bars.ts % 1_000).any())
        text = encode_csv(bars, header=not self._begun, milliseconds=self._milliseconds)
        self._begun = True
        write_all(self._descriptor, text)


def _temporary(path: str) -> str:
    """Where a file is written first: always at one place, so that a crash leaves no heap."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name.lstrip('.')}.new")
