"""Where a cluster's TaskManagers or executors get Python workers from."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from clusters.errors import ClusterError
from clusters.process_table import descendants
from clusters.processes import Processes

_PROJECT = Path(__file__).resolve().parent.parent
_NAME = "worker-pool"
_ANNOUNCED = re.compile(r"^worker pool at port (?P<port>\d+)", re.MULTILINE)


class WorkerPool:
    """`python -m candlebeam.worker` of this project, at a port of the loopback.

    Args:
        logs: where its workers write what they print.
    """

    def __init__(self, processes: Processes, logs: Path) -> None:
        self._processes = processes
        self._logs = logs
        self._process: subprocess.Popen[bytes] | None = None
        self._port: int | None = None

    @property
    def address(self) -> str:
        """`localhost:PORT`."""
        if self._port is None:
            raise ClusterError("the worker pool is not ready")
        return f"localhost:{self._port}"

    def start(self) -> None:
        """Starts it, and waits for nothing."""
        paths = [str(_PROJECT), os.environ.get("PYTHONPATH", "")]
        where = ["--port", "0", "--log-dir", str(self._logs)]
        self._process = self._processes.start(
            _NAME,
            [sys.executable, "-m", "candlebeam.worker", *where],
            env={"PYTHONPATH": os.pathsep.join(filter(None, paths))},
            # It ends its workers then.
            at_parents_end=signal.SIGTERM,
        )

    def wait(self) -> None:
        """Waits until it has compiled what workers need, and is ready to start them."""
        assert self._process is not None
        self._processes.wait_until(
            self._announced, "the worker pool was ready", self._process, seconds=300
        )

    def workers(self) -> list[int]:
        """The process ids of what it has started and still runs."""
        return descendants(self._process.pid) if self._process is not None else []

    def _announced(self) -> bool:
        found = _ANNOUNCED.search(self._processes.log_of(_NAME))
        if found is not None:
            self._port = int(found["port"])
            self._processes.uses(self._port)
        return found is not None
