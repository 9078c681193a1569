"""What resampling writes: aligned files, and CSV files of months, one period of a market each."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np

from candlebeam.errors import CandlebeamError, UsageError
from candlebeam.formats.aligned.file import RECORD_BYTES, AlignedPaths
from candlebeam.formats.candles.companion import read_bytes
from candlebeam.formats.csv.bars import csv_path, encode_csv
from candlebeam.formats.csv.names import open_bar_path
from candlebeam.io.aligned_writer import AlignedWriter
from candlebeam.model import Bars, Market, Timeframe
from candlebeam.rules.periods import Period, boundaries, open_zone
from candlebeam.storage.durable import remove, sync_folder, write_atomic

ALIGNED, CSV = "aligned", "csv"
FORMATS = (ALIGNED, CSV)
MARK, OMIT = "mark", "omit"
#: Bars that are collected before they are laid out and written.
_RUN = 1 << 14
#: Names of folders that differ in case alone.
_ALIKE = ("1m", "1M")


@dataclass(frozen=True)
class ResampleOptions:
    """How bars are resampled.

    Attributes:
        to: the root of the output.
        periods: what to make, each once.
        tz: the IANA name of the zone whose midnights days, weeks and months begin at; None is UTC.
        open_bar: "mark" writes the bar that may still change apart from the others; "omit" leaves
            it out.
        form: "aligned" or "csv".
        by_market: has a folder for each collector and exchange under the root.
        force: makes everything again.
    """

    to: str
    periods: tuple[Period, ...]
    tz: str | None = None
    open_bar: str = MARK
    form: str = ALIGNED
    by_market: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        if self.form not in FORMATS:
            raise UsageError(f"format {self.form!r}: expected {' or '.join(FORMATS)}")
        if self.open_bar not in (MARK, OMIT):
            raise UsageError(f"open bar {self.open_bar!r}: expected {MARK} or {OMIT}")
        if not self.periods or len(set(self.periods)) < len(self.periods):
            raise UsageError("timeframes: expected one or more, each once")
        open_zone(self.tz)

    def root(self, market: Market) -> str:
        """The folder that has one for each timeframe, in which the market's files are."""
        folders = market.path.split("/")[:-1]
        return os.path.join(self.to, *folders) if self.by_market else self.to

    def paths(self, market: Market, period: Period) -> AlignedPaths:
        """The aligned files of a market."""
        return AlignedPaths.of(self.root(market), str(period), market.path.split("/")[-1])


class Output(Protocol):
    """The bars of one period of a market, as they are written.

    Attributes:
        notes: what the user should know, in sentences.
        files: what was written, after `commit`.
        bars: how many bars were written, likewise.
        empty: whether there is nothing, and has been nothing.
    """

    notes: list[str]
    files: list[str]
    bars: int

    @property
    def empty(self) -> bool: ...

    def add(self, bars: Bars) -> None:
        """Takes closed bars, ascending."""
        ...

    def commit(self, in_pos: int, checksum: int, open_bar: Bars) -> None:
        """Makes all of it count. To be called once, last.

        Args:
            in_pos: where to go on in the source, in bytes or places.
            checksum: of what the source holds before that; or of all of it.
            open_bar: one row, or none.
        """
        ...

    def close(self) -> None:
        """Takes back what is not committed, as far as it is not whole."""
        ...


class AlignedOutput:
    """An aligned file as an `Output`. It can be gone on with where its last run ended.

    Args:
        market, timeframe: of the source; without a timeframe it is trades.
    """

    def __init__(
        self, market: Market, timeframe: Timeframe | None, period: Period, options: ResampleOptions
    ) -> None:
        self._period, self._options = period, options
        self._paths = options.paths(market, period)
        check_folder(self._paths.folder)
        settings = {"input": "trades" if timeframe is None else str(timeframe)}
        if period.unit:
            settings["timezone"] = options.tz or "UTC"
        self._source, self._settings = str(market).lstrip("/"), settings
        self._old = self._writer = self._open(options.force)
        self._begin()
        self.notes: list[str] = []
        self.files: list[str] = []
        self.bars = 0

    def _open(self, force: bool) -> AlignedWriter:
        return AlignedWriter(self._paths, source=self._source, settings=self._settings, force=force)

    def _begin(self) -> None:
        last = self._writer.last
        self._last_ts = None if last is None else int(last.ts[0])
        self._held: list[Bars] = []
        self._count = self._waiting = 0

    @property
    def in_pos(self) -> int:
        """Where to go on in the source, in bytes or places; 0 from scratch."""
        return self._writer.in_pos

    @property
    def floor(self) -> int | None:
        """The end of the last committed bar, in ms: what is older belongs to none to come."""
        if self._last_ts is None:
            return None
        if self._period.unit:
            starts = boundaries(self._period, self._options.tz, self._last_ts, self._last_ts)
            return int(starts[1])
        return self._last_ts + self._period.ms

    @property
    def empty(self) -> bool:
        """See `Output`."""
        return not self._count and not self._waiting and not self._old.committed

    def check(self, path: str, record_bytes: int, checksum: Callable[[int], int]) -> None:
        """Starts from scratch where a source is not what it was.

        Args:
            path, record_bytes: of the source.
            checksum: of what it holds before a place.
        """
        if not self._writer.continues(checksum, record_bytes):
            self.restart(f"{path} has other bars than before")

    def restart(self, reason: str) -> None:
        """Starts from scratch; what is there stays until `commit`."""
        if self.in_pos or self._last_ts is not None:
            self._writer.restart(reason)
        else:
            self._writer.close()
            self._old = self._writer = self._open(self._options.force)
        self._begin()

    def made_of(self, checksum: int) -> bool:
        """Whether a source of that checksum has been taken in already, all of it.

        Raises:
            CandlebeamError: nothing says what the file that is there was made from.
        """
        if self._options.force:
            return False
        same = self._old.continues(lambda _: checksum, 1)
        wanted = self._options.open_bar == MARK
        return same and self._old.in_pos > 0 and wanted == self._has_open

    def begin_anew(self) -> None:
        """Has everything made again. Where it comes out as it was, `commit` changes nothing."""
        if not self._options.force:
            self._writer = self._open(force=True)
            self._begin()

    @property
    def _has_open(self) -> bool:
        try:
            return os.path.getsize(self._paths.records) > self._old.committed * RECORD_BYTES
        except FileNotFoundError:
            return False

    def add(self, bars: Bars) -> None:
        """See `Output`. What is committed already is passed over."""
        if self._last_ts is not None and len(bars):
            bars = bars.part(bars.ts > self._last_ts)
        if not len(bars):
            return
        self._held.append(bars)
        self._waiting += len(bars)
        if self._waiting >= _RUN:
            self._flush()

    def _flush(self) -> None:
        self._writer.append(Bars.join(self._held))
        self._count += self._waiting
        self._held, self._waiting = [], 0

    def commit(self, in_pos: int, checksum: int, open_bar: Bars) -> None:
        """See `Output`."""
        self._flush()
        tail = open_bar.part(slice(1)) if len(open_bar) else None
        if self._options.open_bar == OMIT:
            tail = None
        if self._writer is not self._old and (
            self._old.in_pos == in_pos
            and self._old.continues(lambda _: checksum, 1)
            and self._old.committed == self._count
            and self._has_open == (tail is not None)
        ):
            self._writer.close()
        else:
            self._writer.commit(in_pos, checksum, tail)
        self.notes = [*self._old.notes]
        if self._writer is not self._old:
            self.notes += self._writer.notes
        if self._writer.written:
            self.files, self.bars = [self._paths.records], self._writer.bars

    def close(self) -> None:
        """See `Output`."""
        self._writer.close()


class CsvOutput:
    """CSV files of months, in UTC, as an `Output`. Always made from scratch.

    A file that would come out as it is stays untouched; each is replaced as a whole.
    """

    def __init__(self, market: Market, period: Period, options: ResampleOptions) -> None:
        self._root, self._symbol, self._period = options.root(market), market.symbol, str(period)
        self._options = options
        check_folder(os.path.join(self._root, self._period))
        self._month: str | None = None
        self._held: list[Bars] = []
        self._any = False
        self.notes: list[str] = []
        self.files: list[str] = []
        self.bars = 0

    @property
    def empty(self) -> bool:
        """See `Output`."""
        return not self._any

    @property
    def _open_path(self) -> str:
        return os.path.join(self._root, open_bar_path(self._symbol, self._period))

    def add(self, bars: Bars) -> None:
        """See `Output`."""
        if not len(bars):
            return
        self._any = True
        months = bars.ts.view("datetime64[ms]").astype("datetime64[M]")
        cuts = [0, *(np.flatnonzero(months[1:] != months[:-1]) + 1).tolist(), len(bars)]
        for begin, end in pairwise(cuts):
            month = csv_path(self._symbol, int(bars.ts[begin]), self._period)
            if month != self._month:
                self._write_month()
            self._month = month
            self._held.append(bars.part(slice(begin, end)))

    def _write_month(self) -> None:
        if self._month is not None:
            self._write(os.path.join(self._root, self._month), Bars.join(self._held))
        self._held = []

    def _write(self, path: str, bars: Bars) -> None:
        data = encode_csv(bars)
        if read_bytes(path) == data:
            return
        folder, name = os.path.split(path)
        os.makedirs(folder, exist_ok=True)
        write_atomic(path, data, temporary=os.path.join(folder, f".{name}.new"))
        self.files.append(path)
        self.bars += len(bars)

    def commit(self, in_pos: int, checksum: int, open_bar: Bars) -> None:
        """See `Output`."""
        self._write_month()
        self._month = None
        if len(open_bar) and self._options.open_bar == MARK:
            self._any = True
            self._write(self._open_path, open_bar)
        elif os.path.exists(self._open_path):
            remove(self._open_path)
            sync_folder(os.path.dirname(self._open_path))

    def close(self) -> None:
        """See `Output`."""


def check_folder(path: str) -> None:
    """Raises `CandlebeamError` where the file system takes `1m` and `1M` for one folder.

    Minutes and months would be written to the same files there.
    """
    parent, name = os.path.split(path)
    if name not in _ALIKE:
        return
    os.makedirs(path, exist_ok=True)
    if name not in os.listdir(parent or "."):
        raise CandlebeamError(
            f"{path}: this file system does not tell {' and '.join(_ALIKE)} apart;"
            " write one of them elsewhere"
        )
