"""The processes of a cluster: started, watched, and stopped without a trace."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from clusters.errors import ClusterError
from clusters.ports import listens
from clusters.process_table import marked

_LIFELINE = Path(__file__).with_name("lifeline.py")
#: Seconds between being asked to end and being made to.
_GRACE = 10
#: Lines of a log that a message shows.
_TAIL = 15
_FRAME = re.compile(r"\s+(at |\.\.\. \d+ more)")
# The system tells a child that its parent has ended when the thread that started it has.
_STARTER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="cluster-starter")


class Processes:
    """The processes of one cluster, each in a session of its own.

    They end when this process does, however that ends. What they print goes to `NAME.log`.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._mark = ("CANDLEBEAM_CLUSTER", uuid.uuid4().hex)
        self._started: dict[int, tuple[str, subprocess.Popen[bytes]]] = {}
        self._ports: set[int] = set()

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        at_parents_end: signal.Signals = signal.SIGKILL,
    ) -> subprocess.Popen[bytes]:
        """Starts a process.

        Args:
            name: that of its log, to which a process of the same name adds.
            env: what its environment has more than that of this process.
            at_parents_end: what it gets when this process has ended.
        """
        lifeline = [sys.executable, "-I", "-S", str(_LIFELINE)]
        whole = [*lifeline, str(os.getpid()), str(int(at_parents_end)), *command]
        self._logs.mkdir(parents=True, exist_ok=True)

        def popen() -> subprocess.Popen[bytes]:
            with (self._logs / f"{name}.log").open("ab") as log:
                return subprocess.Popen(
                    whole,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **(env or {}), self._mark[0]: self._mark[1]},
                    start_new_session=True,
                )

        process = _STARTER.submit(popen).result()
        self._started[process.pid] = (name, process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Ends a process at once, and waits until it has."""
        process.kill()
        process.wait()

    def wait_until(
        self,
        ready: Callable[[], bool],
        what: str,
        *watched: subprocess.Popen[bytes],
        seconds: float = 90,
    ) -> None:
        """Waits until something is so.

        Raises:
            ClusterError: a watched process ended, or it took too long.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            for process in watched:
                if process.poll() is not None:
                    name = self._started[process.pid][0]
                    ended = f"{name} ended with code {process.returncode} before {what}"
                    raise ClusterError(f"{ended}:\n{self._tail(name)}")
            if time.monotonic() > deadline:
                names = [self._started[process.pid][0] for process in watched]
                tails = "\n".join(self._tail(name) for name in names)
                raise ClusterError(f"{what} did not happen in {seconds:.0f} seconds:\n{tails}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Ends all processes, and what they have started: asked first, then made to."""
        running = [process for _, process in self._started.values() if process.poll() is None]
        for process in running:
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGCONT)  # one that is paused hears nothing
        deadline = time.monotonic() + _GRACE
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.kill(process)
        while left := self.left():
            for pid in left:
                _kill(pid)
            time.sleep(0.02)

    def left(self) -> list[int]:
        """The processes that have not ended: those started here, and those they started."""
        return marked("=".join(self._mark), self._started)

    def uses(self, *ports: int) -> None:
        """Says which ports have to be closed in the end."""
        self._ports |= set(ports)

    def assert_nothing_left(self) -> None:
        """Raises an AssertionError where a process runs still, or a port is open."""
        pids = self.left()
        assert not pids, f"processes that were left: {pids}"
        ports = sorted(port for port in self._ports if listens(port))
        assert not ports, f"ports that are open still: {ports}"

    def log_text(self) -> str:
        """All logs, one after the other, each with its name."""
        texts = []
        for path in sorted(self._logs.rglob("*")):
            if path.suffix != ".log" and path.name not in ("stdout", "stderr"):
                continue
            name = path.relative_to(self._logs).as_posix()
            texts.append(f"==> {name} <==\n{path.read_text(errors='replace')}")
        return "\n".join(texts)

    def log_of(self, name: str) -> str:
        """What the processes of a name have printed so far."""
        return (self._logs / f"{name}.log").read_text(errors="replace")

    def _tail(self, name: str) -> str:
        lines = self.log_of(name).splitlines()
        return "\n".join([line for line in lines if not _FRAME.match(line)][-_TAIL:])


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
