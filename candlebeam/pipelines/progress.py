"""Showing how far a backfill has come, from what it leaves in its staging folder.

So it works alike whatever runs the pipeline, and shows only work that a crash would not undo.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TextIO

from candlebeam.io.staging import Staging
from candlebeam.pipelines.wording import counted

_LOG_SECONDS = 10.0
_TERMINAL_SECONDS = 0.25
#: Looking pauses at least so many times as long as it took.
_SHARE_OF_LOOKING = 5


class Work(NamedTuple):
    """What is to be done: shards, bytes of their input files on disk, markets."""

    shards: int
    bytes: int
    markets: int


@dataclass
class Counts:
    """What is to be done, and what has been.

    Attributes:
        shards, bytes, markets: see `Work`.
        shards_done, bytes_done, markets_done: of these.
        trades: kept so far.
        seconds: since the beginning.
    """

    shards: int
    bytes: int
    markets: int
    shards_done: int = 0
    bytes_done: int = 0
    markets_done: int = 0
    trades: int = 0
    seconds: float = 0.0
    _known: set[str] = field(default_factory=set)

    def look(self, staging: Staging, ended: threading.Event | None = None) -> None:
        """Counts what has been done since the last look, until the end of the work."""
        for head in staging.chunks(self._known):
            if ended is not None and ended.is_set():
                return
            self.shards_done = min(self.shards_done + 1, self.shards)
            self.bytes_done += head.bytes_read
            self.trades += head.trades
        self.markets_done = staging.count_outcomes()

    @property
    def seconds_left(self) -> float | None:
        """A guess from the bytes done so far; None before there are any."""
        if not self.bytes_done:
            return None
        return self.seconds / self.bytes_done * max(self.bytes - self.bytes_done, 0)


class Progress:
    """Shows nothing; the base of those that do."""

    #: Seconds between two looks; None to look never.
    interval: float | None = None

    @contextmanager
    def watching(self, staging: Staging, work: Work) -> Iterator[None]:
        """Shows progress while the work is done inside the `with`."""
        if self.interval is None:
            yield
            return
        counts = Counts(*work)
        ended = threading.Event()
        started = time.monotonic()

        def watch(interval: float) -> None:
            pause = interval
            while not ended.wait(pause):
                begun = time.monotonic()
                counts.look(staging, ended)
                counts.seconds = time.monotonic() - started
                self.show(counts)
                # Looking takes long where the staging folder is far away: not all of the time.
                pause = max(interval, _SHARE_OF_LOOKING * (time.monotonic() - begun))

        self.begin(counts)
        thread = threading.Thread(target=watch, args=(self.interval,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self.end()

    def say(self, line: str) -> None:
        """Tells the user what takes long before the work begins."""

    def begin(self, counts: Counts) -> None:
        """Called once before the work."""

    def show(self, counts: Counts) -> None:
        """Called at every look."""

    def end(self) -> None:
        """Called once after the work."""


class LogProgress(Progress):
    """Plain lines, for a log: one at the beginning, then one every some seconds."""

    def __init__(self, stream: TextIO, interval: float = _LOG_SECONDS) -> None:
        self._stream = stream
        self.interval = interval

    def begin(self, counts: Counts) -> None:
        self._print(
            f"{counted(counts.shards, 'shard')} of {counted(counts.markets, 'market')},"
            f" {format_bytes(counts.bytes)}"
        )

    def show(self, counts: Counts) -> None:
        self._print(describe(counts))

    def say(self, line: str) -> None:
        self._print(line)

    def _print(self, line: str) -> None:
        print(
            f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {line}",
            file=self._stream,
            flush=True,
        )


class TerminalProgress(Progress):
    """A live bar on a terminal."""

    interval = _TERMINAL_SECONDS

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None

    def say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    def begin(self, counts: Counts) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            BarColumn(),
            TextColumn("{task.description}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=max(counts.bytes, 1))
        self._bar.start()

    def show(self, counts: Counts) -> None:
        self._bar.update(self._task, completed=counts.bytes_done, description=describe(counts))

    def end(self) -> None:
        self._bar.stop()


def describe(counts: Counts) -> str:
    """One line: shards, bytes/s, trades/s, time left; then markets.

    >>> describe(Counts(10, 4_000_000, 2, 5, 2_000_000, 0, 1000, 2.0))
    '5/10 shards, 1.0 MB/s, 500 trades/s, 2 s left'
    """
    if counts.shards_done >= counts.shards:
        shards = f"{counts.shards}/{counts.shards} shards"
        return f"{shards}, {counts.markets_done}/{counts.markets} markets written"
    parts = [f"{counts.shards_done}/{counts.shards} shards"]
    if counts.seconds and counts.bytes_done:
        parts.append(f"{format_bytes(counts.bytes_done / counts.seconds)}/s")
        parts.append(f"{format_count(counts.trades / counts.seconds)} trades/s")
    if counts.seconds_left is not None:
        parts.append(f"{format_seconds(counts.seconds_left)} left")
    return ", ".join(parts)


def format_bytes(number: float) -> str:
    """>>> format_bytes(722_000_000)
    '722.0 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def format_count(number: float) -> str:
    """>>> format_count(92_000_000.4)
    '92,000,000'
    """
    return f"{number:,.0f}"


def format_seconds(seconds: float) -> str:
    """>>> format_seconds(3725)
    '1 h 2 min'
    """
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
