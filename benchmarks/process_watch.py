"""What the processes of a cluster take while a command runs: of each kind, not of all together.

It reads /proc, so it needs Linux.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import children

POLL_SECONDS = 0.1
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """What the processes of a kind took.

    Attributes:
        cpu: seconds of processor time of all of them together, user and system.
        peak: bytes; the greatest memory (RSS) that one of them held.
        processes: how many there were.
    """

    cpu: float = 0.0
    peak: int = 0
    processes: int = 0


def cpu_seconds(pid: int) -> float:
    """Seconds of processor time that a process has taken, without its children; 0 if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_bytes(pid: int) -> int:
    """Bytes of memory (RSS) of a process; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def tree(pid: int) -> list[int]:
    """A process and all its children that run now, itself first."""
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        try:
            waiting.extend(children(one))
        except OSError:
            continue  # It has ended meanwhile.
        found.append(one)
    return found


class ProcessWatch(threading.Thread):
    """Looks at processes from its start until told to stop.

    Of a process that ends meanwhile, what it took since the last look is missed.

    Args:
        kinds: by process id, what kinds of processes run now.
    """

    def __init__(self, kinds: Callable[[], Mapping[int, str]]) -> None:
        super().__init__(daemon=True)
        self._kinds = kinds
        self._over = threading.Event()
        self._before = {pid: cpu_seconds(pid) for pid in kinds()}
        self._kind: dict[int, str] = {}
        self._cpu: dict[int, float] = {}
        self._peak: dict[int, int] = {}

    def run(self) -> None:
        while not self._over.wait(POLL_SECONDS):
            self._look()

    def stop(self) -> dict[str, Usage]:
        """By kind, what it took."""
        self._over.set()
        self.join()
        self._look()
        found: dict[str, Usage] = {}
        for pid, kind in self._kind.items():
            so_far = found.get(kind, Usage())
            found[kind] = Usage(
                so_far.cpu + self._cpu[pid] - self._before.get(pid, 0.0),
                max(so_far.peak, self._peak[pid]),
                so_far.processes + 1,
            )
        return found

    def _look(self) -> None:
        for pid, kind in self._kinds().items():
            memory = resident_bytes(pid)
            if memory == 0:
                continue  # It has ended, and only waits for its parent to hear of it.
            self._kind[pid] = kind
            self._cpu[pid] = max(self._cpu.get(pid, 0.0), cpu_seconds(pid))
            self._peak[pid] = max(self._peak.get(pid, 0), memory)
