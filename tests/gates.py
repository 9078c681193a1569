"""Holding the workers of a backfill at certain places, so that faults strike there every time.

Workers that are started with the `environment` of some gates stop before a closed one:

    chunks   before a chunk is written, once the process has written as many as are allowed
    commit   before the lock of a market is taken, to commit it
    candles  before the candles of a market are written
    outcome  before it is noted that they were
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tests.command_line import PROJECT
from tests.worker_pools import runs, wait_until

_CODE = PROJECT / "tests" / "gate"


@dataclass(frozen=True)
class Gates:
    """The gates that `folder` tells of. All are open at first."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a process has to be started with, and hands on to those it starts."""
        paths = [str(_CODE), str(PROJECT), os.environ.get("PYTHONPATH", "")]
        return {
            "CANDLEBEAM_GATES": str(self.folder),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        }

    def close(self, gate: str, allowed: int = 0) -> None:
        """Closes a gate; each process may still write `allowed` chunks."""
        new = self.folder / f"{gate}.new"
        new.write_text(str(allowed))
        new.rename(self.folder / f"{gate}.closed")

    def open(self, *gates: str) -> None:
        """Opens gates, or all of them, and forgets who was held there."""
        for gate in gates or ("chunks", "commit", "candles", "outcome"):
            (self.folder / f"{gate}.closed").unlink(missing_ok=True)
            for path in self.folder.glob(f"{gate}.*.held"):
                path.unlink(missing_ok=True)

    def held(self, gate: str) -> list[int]:
        """The processes that are held at a gate."""
        pids = [int(path.name.split(".")[1]) for path in self.folder.glob(f"{gate}.*.held")]
        return sorted(pid for pid in pids if runs(pid))

    def wait(self, gate: str, count: int = 1) -> list[int]:
        """Waits until processes are held at a gate; gives all of them.

        One that its TaskManager gives up meanwhile may be gone by then.
        """
        held: list[int] = []

        def are_held() -> bool:
            held[:] = self.held(gate)
            return len(held) >= count

        wait_until(are_held, f"a worker was held at {gate}")
        return held

    def what_came_of_commits(self, pid: int) -> str:
        """How the last commit of a process ended, once it has."""
        path = self.folder / f"commit.{pid}.ended"
        wait_until(lambda: path.is_file() and path.read_text() != "", "a commit has ended")
        return path.read_text()
