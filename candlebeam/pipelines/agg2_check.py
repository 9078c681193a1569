"""`agg2 check`: what an AGG2 archive holds, and what is wrong with it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any

import numpy as np

from candlebeam.errors import CandlebeamError
from candlebeam.formats.agg2 import kernels as loops
from candlebeam.formats.agg2.blob import FLAG_IS_BUYER_MAKER, LAYOUTS, MAGIC, SCALE, Layout
from candlebeam.formats.agg2.day import Day, DayBlobs, Month, open_month
from candlebeam.formats.agg2.index import DayInput, IndexRow, day_of, list_days
from candlebeam.formats.trade_log.usual_rows import MAX_TS, MIN_TS
from candlebeam.market import MS_PER_DAY
from candlebeam.model import Int64Array
from candlebeam.pipelines.wording import counted
from candlebeam.rules.steps import Step
from candlebeam.storage.durable import write_atomic

#: Problems of the archive's layout that are named on the terminal; the report has all of them.
_SHOWN = 5


@dataclass
class CheckedDay:
    """A day of the archive.

    Attributes:
        path: `{symbol}/{YYYY}/{MM}/{DD}`, below the base.
        format: AGG2 or AGG3; None if there is no blob that can be read.
        rows: of its blob.
        bytes: of its blob, compressed.
        first_ts, last_ts: the earliest and the latest time of its rows in ms; None without rows.
        index_row, index_rows: which index row of the day was taken, of how many; 0 for none.
        price_step, quantity_step: what prices and quantities are multiples of; None if the writer
            does not tell or has not truncated.
        damage: what is wrong with it; None if it is whole.
        contradictions: what it says that does not agree, though all can be read.
        unsorted: rows that are older than the one before them.
        duplicates: rows that equal an earlier one.
    """

    path: str
    symbol: str
    day: str
    format: str | None = None
    rows: int = 0
    bytes: int = 0
    first_ts: int | None = None
    last_ts: int | None = None
    index_row: int = 0
    index_rows: int = 0
    price_step: str | None = None
    quantity_step: str | None = None
    damage: str | None = None
    contradictions: list[str] = field(default_factory=list)
    unsorted: int = 0
    duplicates: int = 0

    def lines(self) -> Iterator[str]:
        """The day as text."""
        name = f"{self.symbol} {self.day}"
        if self.format is None:
            yield f"{name}  damaged"
        else:
            size = f"{counted(self.rows, 'row')}, {counted(self.bytes, 'byte')}"
            times = f", {_clock(self.first_ts)} to {_clock(self.last_ts)}" if self.rows else ""
            row = f", index row {self.index_row} of {self.index_rows}"
            yield f"{name}  {self.format}  {size}{times}{row}"
        if self.damage:
            yield f"  damaged: {self.damage}"
        for contradiction in self.contradictions:
            yield f"  {contradiction}"
        if self.duplicates:
            yield f"  {counted(self.duplicates, 'repeated row')}"
        if self.unsorted:
            yield f"  {counted(self.unsorted, 'row')} older than the one before"


@dataclass
class CheckedMonth:
    """The files of a month.

    Attributes:
        path: `{symbol}/{YYYY}/{MM}`, below the base.
        data_bytes: of the data file.
        unreferenced_bytes: of these, what no index row points to.
        overlapping_bytes: of these, what rows of different days point to.
        damage: what is wrong with the index; None if nothing is.
    """

    path: str
    data_bytes: int = 0
    unreferenced_bytes: int = 0
    overlapping_bytes: int = 0
    damage: str | None = None

    def lines(self) -> Iterator[str]:
        """What is to be said of the month, if anything is."""
        if self.unreferenced_bytes:
            size = f"{self.unreferenced_bytes:,} of {counted(self.data_bytes, 'byte')}"
            yield f"{self.path}  no index row points to {size}"
        if self.overlapping_bytes:
            size = counted(self.overlapping_bytes, "byte")
            yield f"{self.path}  rows of several days point to the same {size}"


@dataclass
class CheckReport:
    """What was found.

    Attributes:
        problems: of files that cannot be read as an archive, in words that name them.
        strays: paths that are no part of an archive.
    """

    days: list[CheckedDay] = field(default_factory=list)
    months: list[CheckedMonth] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)

    @property
    def damaged(self) -> int:
        """Days that are not whole."""
        return sum(day.damage is not None for day in self.days)

    @property
    def exit_code(self) -> int:
        """1 if anything is damaged, else 0."""
        return int(self.damaged > 0 or bool(self.problems))

    def to_json(self) -> dict[str, Any]:
        """The whole of it as plain JSON values."""
        return {
            "days": [asdict(day) for day in self.days],
            "months": [asdict(month) for month in self.months],
            "problems": self.problems,
            "strays": self.strays,
            "totals": {
                "days": len(self.days),
                "damaged": self.damaged,
                "rows": sum(day.rows for day in self.days),
                "bytes": sum(day.bytes for day in self.days),
                "unreferenced_bytes": sum(month.unreferenced_bytes for month in self.months),
            },
        }

    def write(self, path: str) -> None:
        """Writes it as JSON."""
        data = (json.dumps(self.to_json(), indent=2) + "\n").encode()
        write_atomic(os.path.abspath(path), data, durable=False)

    def print(self) -> None:
        """Prints all of it on standard output, and what cannot be read on standard error."""
        for day in self.days:
            print("\n".join(day.lines()))
        for month in self.months:
            for line in month.lines():
                print(line)
        if self.strays:
            names = ", ".join(self.strays[:_SHOWN]) + ", ..." * (len(self.strays) > _SHOWN)
            print(f"{len(self.strays):,} skipped, no part of an archive: {names}")
        rows = sum(day.rows for day in self.days)
        damaged = f", {self.damaged:,} damaged" if self.damaged else ""
        print(f"{counted(len(self.days), 'day')}{damaged}, {counted(rows, 'row')}")
        for problem in self.problems:
            print(f"candlebeam: {problem}", file=sys.stderr)


def run_check(base: str, symbol: str | None = None) -> CheckReport:
    """Reads every day of an archive, or of one symbol of it.

    Raises:
        CandlebeamError: there is no such folder.
    """
    report = CheckReport()
    days = list_days(base, symbol, on_stray=report.strays.append, on_problem=report.problems.append)
    rows = _Rows()
    blobs = DayBlobs(watch=rows)
    month: Month | None = None
    folder = ""
    try:
        for day in days:
            if os.path.dirname(day.path) != folder:
                if month is not None:
                    os.close(month.descriptor)
                    month = None
                folder = os.path.dirname(day.path)
                try:
                    month = open_month(os.path.join(base, folder))
                except (CandlebeamError, OSError) as error:
                    report.problems.append(_explained(error, os.path.join(base, folder)))
                else:
                    report.months.append(_checked_month(folder, month))
            report.days.append(_checked_day(day, month, blobs, rows))
    finally:
        if month is not None:
            os.close(month.descriptor)
    return report


def _explained(error: CandlebeamError | OSError, place: str) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or place}: {error.strerror or error}"
    return str(error)


def _checked_month(folder: str, month: Month) -> CheckedMonth:
    covered, several = _covered(
        [
            row._replace(length=min(row.end, month.size) - row.offset)
            for row in month.index.rows
            if row.offset < month.size
        ]
    )
    return CheckedMonth(folder, month.size, month.size - covered, several, month.index.damage)


def _covered(rows: list[IndexRow]) -> tuple[int, int]:
    """How many bytes rows point to, and to how many of them rows of several days do."""
    covered = several = end = 0
    days: list[tuple[int, int]] = []  # (end, day) of rows that reach beyond the start of the next
    for row in sorted(set(rows), key=lambda row: (row.offset, row.end)):
        covered += max(0, row.end - max(end, row.offset))
        end = max(end, row.end)
        others = [other for other, day in days if day != row.day and other > row.offset]
        if others:
            several += min(max(others), row.end) - row.offset
        days = [(other, day) for other, day in days if other > row.offset] + [(row.end, row.day)]
    return covered, several


def _checked_day(listed: DayInput, month: Month | None, blobs: DayBlobs, rows: _Rows) -> CheckedDay:
    when = day_of(listed.start_ts)
    checked = CheckedDay(listed.path, listed.symbol, when.isoformat())
    if month is None:
        checked.damage = "its files cannot be opened"
        return checked
    checked.index_rows = len(month.index.of_day(when.day))
    rows.day = listed.start_ts
    try:
        search = blobs.find(month, when.day)
        day = search.day
        if day is None:
            checked.damage = f"no blob of the day can be read: {'; '.join(search.passed)}"
            return checked
        checked.format, checked.rows, checked.index_row = day.layout.name, day.rows, day.place
        checked.bytes = max(0, min(day.row.end, month.size) - day.row.offset)
        checked.price_step, checked.quantity_step = map(_step, (day.price_step, day.size_step))
        checked.damage = day.damage
        if day.damage is None:
            checked.contradictions += [f"passed over {passed}" for passed in search.passed]
        _look_at_rows(checked, day, rows)
    except (CandlebeamError, OSError) as error:
        checked.damage = _explained(error, month.path)
    return checked


def _step(step: Step) -> str | None:
    """A step as a number of units, such as 0.01."""
    if not step.truncated:
        return None
    return f"{step.size / SCALE:.8f}".rstrip("0").rstrip(".")


class _Rows:
    """What there is to be said of the rows of a blob, as they come by.

    Attributes:
        day: the ms at which their day begins.
        stored_first, stored_last: the earliest and the latest time as it is stored.
        first, last: in ms, of valid times alone.
    """

    def __init__(self) -> None:
        self.day = 0
        self.begin(LAYOUTS[MAGIC])

    def begin(self, layout: Layout) -> None:
        self._dtype = layout.dtype
        self.stored_first, self.stored_last = np.iinfo(np.int64).max, np.iinfo(np.int64).min
        self.first, self.last = self.stored_first, self.stored_last
        self._before = self.stored_last
        self.invalid = self.micros = self.elsewhere = self.sides = self.free = self.unsorted = 0

    def add(self, words: Int64Array) -> None:
        if not len(words):
            return
        rows = words.view(self._dtype)
        stored: Int64Array = rows["ts_ms"]
        self.stored_first = min(self.stored_first, int(stored.min()))
        self.stored_last = max(self.stored_last, int(stored.max()))
        in_micros = (stored > loops.MIN_MICROSECONDS) & (stored < loops.MAX_MICROSECONDS)
        ts = np.where(in_micros, stored // 1000, stored)
        valid = (ts > MIN_TS) & (ts < MAX_TS)
        self.micros += int(in_micros.sum())
        self.invalid += int((~valid).sum())
        self.free += int((rows["px"] == 0).sum())
        if "side" in (rows.dtype.names or ()):
            self.sides += int((rows["side"] != 1 - (rows["flags"] & FLAG_IS_BUYER_MAKER)).sum())
        ts = ts[valid]
        if not len(ts):
            return
        self.elsewhere += int(((ts < self.day) | (ts >= self.day + MS_PER_DAY)).sum())
        self.unsorted += int((np.diff(ts, prepend=max(self._before, ts[0])) < 0).sum())
        self._before = int(ts[-1])
        self.first, self.last = min(self.first, int(ts.min())), max(self.last, int(ts.max()))


def _look_at_rows(checked: CheckedDay, day: Day, rows: _Rows) -> None:
    """Holds the rows against the header, and against each other."""
    checked.unsorted = rows.unsorted
    checked.duplicates = int(day.repeated.sum())
    if rows.last >= rows.first:
        checked.first_ts, checked.last_ts = rows.first, rows.last
    header = day.header
    if day.rows and (header.ts_min, header.ts_max) != (rows.stored_first, rows.stored_last):
        checked.contradictions.append(
            f"its header says {header.ts_min} to {header.ts_max},"
            f" its rows are from {rows.stored_first} to {rows.stored_last}"
        )
    for count, what in (
        (rows.invalid, "without a valid time"),
        (rows.elsewhere, "of another day"),
        (rows.free, "without a price"),
        (rows.sides, "whose side contradicts its flags"),
        (rows.micros, "in microseconds"),
    ):
        if count:
            checked.contradictions.append(f"{counted(count, 'row')} {what}")


def _clock(ts: int | None) -> str:
    """The time of day, or what there is of it."""
    if ts is None:
        return "?"
    moment = datetime.fromtimestamp(ts // 1000, timezone.utc)
    return f"{moment:%H:%M:%S}.{ts % 1000:03d}"
