"""Processor time of `backfill --follow` while nothing is new.

The command itself runs, on the many small files of `small`, whose candles are there. Its process's
time is read from /proc when the first round is over, and again after so many rounds more.

This module imports nothing large.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cache import cache_folder
from benchmarks.measure import busy_seconds, timed_environment

MOST_SECONDS = 0.5
"""Of processor time that a round may take."""
ROUNDS = 20
_EVERY_MS = 500
_PATIENCE_SECONDS = 300.0
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class QuietRounds:
    """What rounds with nothing new came to.

    Attributes:
        files: in the archive.
        rounds: how many were measured.
        cpu: seconds of processor time a round, user and system, children too.
        peak: bytes of memory (RSS) of the process at the end.
        grown: bytes by which that was more than after the first of them.
        others: the share of the cores' time that other programs took meanwhile, 0 to 1.
    """

    files: int
    rounds: int
    cpu: float
    peak: int
    grown: int
    others: float

    @property
    def misses(self) -> bool:
        """Whether a round takes more than it may."""
        return self.cpu > MOST_SECONDS


def measure_follow(root: Path | None = None, rounds: int = ROUNDS) -> QuietRounds:
    """Follows an archive, by default that of `small`, which has to be built already."""
    root = root or cache_folder() / "small"
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix=".follow-") as name:
        folder = Path(name)
        command = [
            *(sys.executable, "-m", "candlebeam", "backfill", "--db", str(folder / "index.sqlite")),
            *("--root", str(root), "--out", str(folder / "out"), "--follow", f"{_EVERY_MS}ms"),
        ]
        # The first process does the work and imports Beam; the second finds nothing to do.
        with _running(command) as working:
            _wait_for_line(working, "brought up to date")
            _interrupt(working)
        with _running(command) as idle:
            measured = _watch(idle, rounds)
            _interrupt(idle)
        with closing(sqlite3.connect(folder / "index.sqlite")) as catalog:
            (files,) = catalog.execute("SELECT count(*) FROM files").fetchone()
        shutil.rmtree(folder / "out")
    return QuietRounds(files, rounds, *measured)


def _running(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**timed_environment(), "PYTHONUNBUFFERED": "1"},
    )


def _wait_for_line(process: subprocess.Popen[str], words: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return
    raise RuntimeError(f"{process.args!r} ended with {process.wait()} before it had done anything")


def _watch(process: subprocess.Popen[str], rounds: int) -> tuple[float, int, int, float]:
    """Processor time a round, memory, growth and the share of others, over so many rounds.

    A round is seen by the pause behind it: the process sleeps then, and its time stands still.
    """
    _await_rounds(process, 2)
    begun, cpu, busy, memory = time.monotonic(), _cpu(process.pid), busy_seconds(), _rss(process)
    _await_rounds(process, rounds)
    wall, used, others = time.monotonic() - begun, _cpu(process.pid) - cpu, busy_seconds() - busy
    available = wall * len(os.sched_getaffinity(0))
    peak = _rss(process)
    return used / rounds, peak, peak - memory, max(others - used, 0.0) / available


def _await_rounds(process: subprocess.Popen[str], rounds: int) -> None:
    """Waits until so many more rounds have begun and ended."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    for _ in range(rounds):
        for is_busy in (True, False):
            while _is_busy(process.pid) is not is_busy:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise RuntimeError(f"{process.args!r} does not go on")


def _is_busy(pid: int) -> bool:
    """Whether the process uses the processor, as seen over a moment."""
    before = _cpu(pid)
    time.sleep(0.05)
    return _cpu(pid) > before


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS


def _rss(process: subprocess.Popen[str]) -> int:
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _interrupt(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=_PATIENCE_SECONDS)
    if process.returncode:
        raise RuntimeError(f"{process.args!r} ended with {process.returncode}: {errors[-500:]}")


def main() -> None:
    found = measure_follow()
    print(
        f"{found.files:,} files, {found.rounds} rounds with nothing new:"
        f" {found.cpu:.3f} s of processor time a round (at most {MOST_SECONDS}),"
        f" {found.peak / 1e6:.0f} MB, {found.grown / 1e6:+.1f} MB,"
        f" {found.others:.0%} of the cores used by others"
    )
    sys.exit(int(found.misses))


if __name__ == "__main__":
    main()
