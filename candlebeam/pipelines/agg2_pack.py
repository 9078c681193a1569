"""`agg2 pack`: from Binance's aggTrades files to day blobs."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any, NamedTuple

import numpy as np

from candlebeam.errors import CandlebeamError, UsageError
from candlebeam.formats.agg2.binance_trades import BinanceTrades, RejectedLine
from candlebeam.formats.agg2.blob import AGG2_ROW_DTYPE
from candlebeam.formats.agg2.index import day_of
from candlebeam.io.agg2_writer import write_day
from candlebeam.market import MS_PER_DAY
from candlebeam.model import Records
from candlebeam.outcome import FAILED, UP_TO_DATE, WRITTEN
from candlebeam.pipelines.lock import output_lock
from candlebeam.pipelines.wording import counted, shortened
from candlebeam.storage.durable import cannot_write, write_atomic

#: Rows that wait for more of their day before other days are written.
WAITING_ROWS = 2_000_000

_NAME = re.compile(
    r"(?P<symbol>.+)-aggTrades-(?P<year>\d{4})-(?P<month>\d\d)(-(?P<day>\d\d))?(\.csv)?(\.zip|\.gz)?"
)


@dataclass
class PackedFile:
    """What became of an input file.

    Attributes:
        rows: rows that were taken.
        rejected: rows that were not, by reason.
        rejects: the first of these.
        notes: what else the user should know.
        error: why it was not read to its end; None if it was.
    """

    path: str
    symbol: str
    rows: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    rejects: list[RejectedLine] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "rejects": [reject._asdict() for reject in self.rejects]}


@dataclass
class PackedDay:
    """What became of a day.

    Attributes:
        day: as YYYY-MM-DD.
        status: one of the statuses of `candlebeam.outcome`.
        rows: of the day now.
        kept: rows of it that stood there before and are not in the input.
        repeats: rows of the input that are exact repeats.
        bytes: of its blob, compressed.
        error: why it could not be written.
    """

    symbol: str
    day: str
    status: str
    rows: int = 0
    kept: int = 0
    repeats: int = 0
    bytes: int = 0
    error: str | None = None

    @property
    def name(self) -> str:
        return f"{self.symbol} {self.day}"

    def follow(self, earlier: PackedDay) -> None:
        """Takes into account what became of the same day earlier in the run."""
        if FAILED in (self.status, earlier.status):
            self.status, self.error = FAILED, self.error or earlier.error
        elif earlier.status == WRITTEN:
            self.status = WRITTEN
        self.kept = min(self.kept, earlier.kept)
        self.repeats += earlier.repeats


@dataclass
class PackReport:
    """What a run came to."""

    files: list[PackedFile] = field(default_factory=list)
    days: list[PackedDay] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 if every file was read and every day is there, else 1."""
        failed = any(f.error for f in self.files) or any(d.status == FAILED for d in self.days)
        return int(failed)

    @property
    def rejected(self) -> dict[str, int]:
        """Rejected rows of all files by reason."""
        found: dict[str, int] = {}
        for file in self.files:
            for reason, rows in file.rejected.items():
                found[reason] = found.get(reason, 0) + rows
        return found

    def count(self, status: str) -> int:
        """How many days ended that way."""
        return sum(day.status == status for day in self.days)

    def to_json(self) -> dict[str, Any]:
        """The whole of it as plain JSON values."""
        return {
            "files": [file.to_json() for file in self.files],
            "days": [asdict(day) for day in self.days],
            "totals": {
                "files": len(self.files),
                "rows": sum(file.rows for file in self.files),
                "rejected": self.rejected,
                "written": self.count(WRITTEN),
                "up_to_date": self.count(UP_TO_DATE),
                "failed": self.count(FAILED),
            },
        }

    def write(self, path: str) -> None:
        """Writes it as JSON."""
        data = (json.dumps(self.to_json(), indent=2) + "\n").encode()
        write_atomic(os.path.abspath(path), data, durable=False)

    def summary_lines(self) -> list[str]:
        """What was made."""
        rows = sum(file.rows for file in self.files)
        lines = [f"{counted(len(self.files), 'file')}: {counted(rows, 'row')}"]
        if self.rejected:
            rejected = ", ".join(f"{reason} {n:,}" for reason, n in self.rejected.items())
            lines.append(f"rejected rows: {rejected}")
        statuses = (("written", WRITTEN), ("up to date", UP_TO_DATE), ("failed", FAILED))
        counts = [f"{self.count(s):,} {name}" for name, s in statuses if self.count(s)]
        if counts:
            lines.append(f"{counted(len(self.days), 'day')}: {', '.join(counts)}")
        return lines

    def problem_lines(self) -> list[str]:
        """What the user should know besides, one line each."""
        rejects = [
            f"{file.path}, line {line}: {reason}: {found}"
            for file in self.files
            for line, reason, found in file.rejects
        ]
        notes = [f"{file.path}: {note}" for file in self.files for note in file.notes]
        for day in self.days:
            if day.repeats:
                notes.append(f"{day.name}: {counted(day.repeats, 'repeated row')} taken once")
            if day.kept:
                notes.append(
                    f"{day.name}: {counted(day.kept, 'row')} of before kept that the input lacks"
                )
        failed = [f"{file.path}: failed: {file.error}" for file in self.files if file.error]
        failed += [f"{day.name}: failed: {day.error}" for day in self.days if day.error]
        return [
            *shortened(rejects, "rejected rows"),
            *shortened(notes, "notes"),
            *shortened(failed, "failures"),
        ]

    def print(self) -> None:
        """Prints what was made on standard output, and what went wrong on standard error."""
        for line in self.summary_lines():
            print(line)
        for line in self.problem_lines():
            print(f"candlebeam: {line}", file=sys.stderr)


class _Input(NamedTuple):
    """An input file with what its name says; in the order in which files are read."""

    symbol: str
    period: str  # YYYY-MM or YYYY-MM-DD; empty if the name does not say
    path: str


class _Day(NamedTuple):
    symbol: str
    number: int  # days since 1970


@dataclass
class _Waiting:
    """Rows of days that may get more, with the number of the file that each part is from."""

    days: dict[_Day, list[tuple[int, Records]]] = field(default_factory=dict)
    rows: int = 0

    def add(self, day: _Day, file: int, rows: Records) -> None:
        # The day that was touched last stands last.
        parts = self.days.pop(day, [])
        parts.append((file, rows))
        self.days[day] = parts
        self.rows += len(rows)

    def drop(self, file: int) -> None:
        """Forgets what a file has brought."""
        days, self.days, self.rows = self.days, {}, 0
        for day, parts in days.items():
            for number, rows in parts:
                if number != file:
                    self.add(day, number, rows)

    def take(self, all_of_them: bool) -> Iterator[tuple[_Day, Records]]:
        """Takes out the days, but for the one that was touched last unless all are asked for."""
        last = None if all_of_them else next(reversed(self.days), None)
        for day in [day for day in self.days if day != last]:
            rows = _joined(self.days.pop(day))
            self.rows -= len(rows)
            yield day, rows


def _joined(parts: list[tuple[int, Records]]) -> Records:
    """The rows of all parts, each of which is gone once it is taken."""
    parts.reverse()
    rows: Records = np.empty(sum(len(part) for _, part in parts), AGG2_ROW_DTYPE)
    at = 0
    while parts:
        _, part = parts.pop()
        rows[at : at + len(part)] = part
        at += len(part)
    return rows


def run_pack(paths: Sequence[str], out: str, symbol: str | None = None) -> PackReport:
    """Puts the trades of Binance's files into an AGG2 archive.

    A day that holds the same already is left alone, so this can be run again and again, also after
    it was killed. One file that cannot be read, or one day that cannot be written, does not stop
    the others.

    Args:
        paths: CSV files of aggTrades, or zip files of one each.
        out: the folder of the archive; made if it is not there.
        symbol: whose trades they are; by default the names of the files say so.

    Raises:
        UsageError: no symbol is known for a file, or it cannot be the name of a folder.
        CandlebeamError: another process is writing there, or nothing can be written.
    """
    inputs = sorted(_input(path, symbol) for path in paths)
    waiting = _Waiting()
    files: list[PackedFile] = []
    days: dict[_Day, PackedDay] = {}
    with output_lock(out, "agg2 pack"):
        for number, each in enumerate(inputs):
            files.append(_read(each, number, waiting, out, days))
            _write(waiting.take(False), out, days)
        _write(waiting.take(True), out, days)
    return PackReport(files, [days[day] for day in sorted(days)])


def _input(path: str, symbol: str | None) -> _Input:
    found = _NAME.fullmatch(os.path.basename(path))
    name = symbol or (found["symbol"] if found else "")
    if not name:
        raise UsageError(
            f"{path}: expected a name such as BTCUSDT-aggTrades-2024-01-05.zip, or --symbol"
        )
    if name.startswith(".") or re.search(r"[/\\\x00-\x1f]", name):
        raise UsageError(f"symbol {name!r}: expected what can be the name of a folder")
    period = "-".join(filter(None, found.group("year", "month", "day"))) if found else ""
    return _Input(name, period, path)


def _read(
    each: _Input, number: int, waiting: _Waiting, out: str, days: dict[_Day, PackedDay]
) -> PackedFile:
    """Reads a file to the days that wait, and writes days when many rows do."""
    file = PackedFile(each.path, each.symbol)
    source = BinanceTrades(each.path)
    strays = 0
    try:
        for batch in source:
            for day, rows in _by_day(batch):
                if not day_of(day * MS_PER_DAY).isoformat().startswith(each.period):
                    strays += len(rows)
                waiting.add(_Day(each.symbol, day), number, rows)
            if waiting.rows >= WAITING_ROWS and len(waiting.days) > 1:
                _write(waiting.take(False), out, days)
    except (CandlebeamError, OSError) as error:
        waiting.drop(number)
        reason = error.strerror or error if isinstance(error, OSError) else error
        file.error = str(reason)
    file.rows, file.rejected, file.rejects = source.rows, source.rejected, source.rejects
    if strays:
        file.notes.append(f"{counted(strays, 'row')} of other days than its name says")
    return file


def _by_day(rows: Records) -> Iterator[tuple[int, Records]]:
    """The rows of each day, counted from 1970."""
    days = rows["ts_ms"] // MS_PER_DAY
    for day in np.unique(days).tolist():
        chosen = days == day
        yield day, rows if bool(chosen.all()) else rows[chosen]


def _write(taken: Iterator[tuple[_Day, Records]], out: str, days: dict[_Day, PackedDay]) -> None:
    for day, rows in taken:
        when = day_of(day.number * MS_PER_DAY)
        packed = PackedDay(day.symbol, when.isoformat(), FAILED)
        try:
            _write_one(packed, out, when, rows)
        except CandlebeamError as error:
            packed.error = str(error)
        except OSError as error:
            packed.error = cannot_write(error, out)
        if day in days:
            packed.follow(days[day])
        days[day] = packed


def _write_one(packed: PackedDay, out: str, when: date, rows: Records) -> None:
    written = write_day(out, packed.symbol, when, rows)
    packed.status = WRITTEN if written.changed else UP_TO_DATE
    packed.rows, packed.kept = written.rows, written.kept
    packed.repeats, packed.bytes = written.repeats, written.length
