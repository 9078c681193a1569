"""Timing of whole processes: a fresh interpreter each, the memory of all their children counted.

It reads /proc, so it needs Linux.

This module and `benchmarks.run` import nothing large: on Linux a process's peak memory begins with
that of the process which started it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

POLL_SECONDS = 0.05
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Measured:
    """One run of a command.

    Attributes:
        wall: seconds from start to end.
        cpu: seconds of processor time, user and system, of the process and its children.
        peak: bytes; the greatest memory (RSS) that the process and its children held together.
        others: the share of the cores' time that other programs took meanwhile, 0 to 1.
    """

    wall: float
    cpu: float
    peak: int
    others: float


class CommandFailed(RuntimeError):
    """A timed command that did not end with 0."""


def timed_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a timed process: as a user has it, compiled modules being kept."""
    unwanted = ("PYTHONDONTWRITEBYTECODE", "PYTHONDEVMODE", "PYTHONWARNINGS")
    return {name: value for name, value in environ.items() if name not in unwanted}


def children(pid: int) -> list[int]:
    """The process ids of a process's children; raises an OSError if it has ended."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found.extend(int(child) for child in (task / "children").read_text().split())
    return found


def tree_memory(pid: int) -> int:
    """Bytes of memory (RSS) that a process and all its children hold now."""
    total, waiting = 0, [pid]
    while waiting:
        one = waiting.pop()
        try:
            total += int(Path(f"/proc/{one}/statm").read_text().split()[1]) * _PAGE
            waiting.extend(children(one))
        except OSError:
            continue  # It ended meanwhile.
    return total


def busy_seconds() -> float:
    """Seconds of work, whoever's, that the cores this process may use have done since they began.

    Time that a virtual machine's host took away counts as work of others.
    """
    names = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    ticks = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *times = line.split()
        if name in names:
            user, nice, system, _idle, _waiting, *interrupts_and_stolen = map(int, times[:8])
            ticks += user + nice + system + sum(interrupts_and_stolen)
    return ticks / os.sysconf("SC_CLK_TCK")


class _Watch(threading.Thread):
    """Looks at a process tree's memory until told to stop, and keeps the greatest."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._pid = pid
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(POLL_SECONDS):
            self.peak = max(self.peak, tree_memory(self._pid))

    def stop(self) -> None:
        self._over.set()
        self.join()


def measure(command: Sequence[str]) -> Measured:
    """Run a command to its end, its output thrown away.

    Raises:
        CommandFailed: it did not end with 0; the message has the end of what it wrote.
    """
    os.sync()  # What an earlier command left to be written is not this one's burden.
    with tempfile.TemporaryFile() as output:
        busy = busy_seconds()
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=timed_environment(),
        )
        watch = _Watch(process.pid)
        watch.start()
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        busy = busy_seconds() - busy
        process.returncode = os.waitstatus_to_exitcode(status)
        watch.stop()
        if process.returncode:
            output.seek(0)
            tail = output.read()[-2_000:].decode(errors="replace")
            raise CommandFailed(
                f"{shlex.join(command)} ended with {process.returncode}:\n{tail.strip()}"
            )
    cpu = used.ru_utime + used.ru_stime
    available = wall * len(os.sched_getaffinity(0))
    return Measured(
        wall=wall,
        cpu=cpu,
        peak=max(used.ru_maxrss * 1024, watch.peak),
        others=max(busy - cpu, 0.0) / available,
    )
