"""What processes there are."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True)
class Entry:
    """A process that has not ended."""

    pid: int
    parent: int
    group: int


def processes() -> list[Entry]:
    """Every process that can be seen, by process id; those that ended but wait for it left out."""
    rows = _from_proc() if (_PROC / "self" / "stat").exists() else _from_ps()
    return sorted(
        (Entry(pid, parent, group) for pid, parent, group, state in rows if state[0] not in "ZX"),
        key=lambda entry: entry.pid,
    )


def descendants(pid: int) -> list[int]:
    """The process ids of a process's children, their children, and so on; the oldest id first."""
    table = processes()
    found = {pid}
    before = 0
    while len(found) > before:
        before = len(found)
        found |= {entry.pid for entry in table if entry.parent in found}
    return sorted(found - {pid})


def marked(mark: str, groups: Iterable[int]) -> list[int]:
    """The processes that were started with `mark` (`NAME=value`) in their environment.

    Where the environment of other processes cannot be seen: those of the process groups.
    """
    wanted = set(groups)
    if not (_PROC / "self" / "environ").exists():
        return [entry.pid for entry in processes() if entry.group in wanted]
    word = mark.encode()
    return [
        entry.pid
        for entry in processes()
        if entry.group in wanted or word in _read(_PROC / str(entry.pid) / "environ").split(b"\0")
    ]


def _from_proc() -> list[tuple[int, int, int, str]]:
    rows = []
    for folder in _PROC.iterdir():
        if not folder.name.isdigit():
            continue
        # The second field is a name in brackets, which may hold anything.
        fields = _read(folder / "stat").decode(errors="replace").rpartition(")")[2].split()
        if fields:
            rows.append((int(folder.name), int(fields[1]), int(fields[2]), fields[0]))
    return rows


def _from_ps() -> list[tuple[int, int, int, str]]:
    columns = "pid=,ppid=,pgid=,state="
    done = subprocess.run(
        ["ps", "-A", "-o", columns], stdout=subprocess.PIPE, text=True, check=True
    )
    rows = [line.split() for line in done.stdout.splitlines()]
    return [(int(row[0]), int(row[1]), int(row[2]), row[3]) for row in rows]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # the process has ended meanwhile
