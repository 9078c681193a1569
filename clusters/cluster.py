"""What clusters of every engine have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from clusters.errors import ClusterError
from clusters.processes import Processes
from clusters.worker_pool import WorkerPool

#: Times that ports are chosen anew because another program has taken one meanwhile.
_ATTEMPTS = 3
_TAKEN = ("BindException", "Address already in use", "Could not start rest endpoint on any port")


class Cluster(ABC):
    """A cluster that runs from `with` to the end of it."""

    def __init__(self, folder: Path, worker_pools: bool) -> None:
        self.folder = folder.absolute()
        self._processes = Processes(self.folder / "logs")
        self._pool = WorkerPool(self._processes, self.folder / "logs") if worker_pools else None

    @property
    @abstractmethod
    def master(self) -> str:
        """The address that a pipeline is submitted to."""

    @property
    def pool(self) -> str:
        """`localhost:PORT` of the worker pool, as `--environment_config` wants it."""
        if self._pool is None:
            raise ClusterError("this cluster was made without a worker pool")
        return self._pool.address

    def __enter__(self) -> Self:
        try:
            if self._pool is not None:
                self._pool.start()
            self._start()
            if self._pool is not None:
                self._pool.wait()
        except BaseException:
            self._processes.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._processes.stop()

    def worker_processes(self) -> list[int]:
        """The process ids of the Python workers that run now, the oldest id first."""
        return self._pool.workers() if self._pool is not None else []

    def log_text(self) -> str:
        """The logs of all processes, those of workers included."""
        return self._processes.log_text()

    def assert_nothing_left(self) -> None:
        """After the end: raises an AssertionError where a process or an open port is left."""
        self._processes.assert_nothing_left()

    @abstractmethod
    def _start(self) -> None:
        """Starts everything but the worker pool; all of it is ready when this returns."""

    def _with_free_ports(self, start: Callable[[], None]) -> None:
        for _ in range(_ATTEMPTS - 1):
            try:
                return start()
            except ClusterError as error:
                if not any(text in str(error) for text in _TAKEN):
                    raise
        return start()
