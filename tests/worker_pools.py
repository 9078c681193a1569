"""Worker pools as processes, and a runner that does nothing but take workers."""

from __future__ import annotations

import functools
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import grpc
from apache_beam.portability.api import (
    beam_fn_api_pb2,
    beam_fn_api_pb2_grpc,
    beam_provision_api_pb2,
    beam_provision_api_pb2_grpc,
    endpoints_pb2,
)

from tests.command_line import PATIENCE, environment

MODULE = (sys.executable, "-m", "candlebeam.worker")


def runs(pid: int) -> bool:
    """Whether a process runs. A zombie does not: who is to reap it may not be ours."""
    found = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return found.stdout.strip()[:1] not in ("", "Z")


def is_reaped(pid: int) -> bool:
    """Whether nothing is left of a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def wait_until(holds: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Waits, as a rule as long as tests wait for anything."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.05)


def wait_until_gone(*pids: int) -> None:
    """Waits until processes run no more."""
    for pid in pids:
        wait_until(functools.partial(_is_gone, pid), f"process {pid} is gone")


def _is_gone(pid: int) -> bool:
    return not runs(pid)


def pid_of(log: str) -> int:
    """The process of a worker, as its log says."""
    return int(log.split("process ")[1].partition(",")[0])


class Started(NamedTuple):
    """A worker that is connected to its runner."""

    pid: int
    log: Path


class Pool:
    """A worker pool that has said that it serves.

    Attributes:
        process: its process.
        line: what it has said.
        port: where it serves.
        logs: the folder of its workers' logs.
    """

    def __init__(self, folder: Path, *options: str, **env: str) -> None:
        self.logs = folder / "logs"
        self._errors = folder / "pool.err"
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [*MODULE, "--port=0", f"--log-dir={self.logs}", *options],
                env=environment(**env),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        assert self.line, self.errors
        self.port = int(self.line.split("port ")[1].split(";")[0])

    @property
    def errors(self) -> str:
        """What it has said on standard error."""
        return self._errors.read_text()

    @property
    def log_texts(self) -> list[str]:
        """The logs of its workers."""
        return [path.read_text() for path in self.logs.glob("*.log")]

    @property
    def options(self) -> list[str]:
        """Beam options for a job on its workers, with a runner that needs no Java."""
        return [
            "--runner=PortableRunner",
            "--job_endpoint=embed",
            "--environment_type=EXTERNAL",
            f"--environment_config=localhost:{self.port}",
        ]

    def start_worker(self, worker_id: str, endpoint: str) -> str:
        """Asks for a worker as a runner does: "", or what was wrong."""
        url = endpoints_pb2.ApiServiceDescriptor(url=endpoint)
        request = beam_fn_api_pb2.StartWorkerRequest(
            worker_id=worker_id,
            control_endpoint=url,
            logging_endpoint=url,
            artifact_endpoint=url,
            provision_endpoint=url,
        )
        return str(self._call("StartWorker", request).error)

    def start(self, worker_id: str, endpoint: str) -> Started:
        """Starts a worker, which must end well."""
        before = set(self.logs.glob("*.log"))
        assert self.start_worker(worker_id, endpoint) == ""
        (log,) = set(self.logs.glob("*.log")) - before
        return Started(pid_of(log.read_text()), log)

    def stop_worker(self, worker_id: str) -> str:
        request = beam_fn_api_pb2.StopWorkerRequest(worker_id=worker_id)
        return str(self._call("StopWorker", request).error)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Ends it with a signal: its exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _call(self, method: str, request: Any) -> Any:
        with grpc.insecure_channel(f"localhost:{self.port}") as channel:
            stub = beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel)
            return getattr(stub, method)(request, timeout=PATIENCE)


@contextmanager
def job(kind: str, path: Path, options: Iterable[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that runs `tests.worker_job`; it is killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.worker_job", kind, str(path), *options],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


class Runner(
    beam_fn_api_pb2_grpc.BeamFnControlServicer,
    beam_fn_api_pb2_grpc.BeamFnLoggingServicer,
    beam_provision_api_pb2_grpc.ProvisionServiceServicer,
):
    """Takes workers, and has nothing for them to do.

    Args:
        options: of the pipeline.
        tells_endpoints: whether it says where it is, as runners do that give workers nothing else
            but where to ask.

    Attributes:
        endpoint: where it is.
        connected: gets the name of each worker that connects.
        asked: gets the name of each worker that asks what it is to do.
    """

    def __init__(
        self, options: Mapping[str, Any] | None = None, *, tells_endpoints: bool = False
    ) -> None:
        self.connected: queue.Queue[str] = queue.Queue()
        self.asked: queue.Queue[str] = queue.Queue()
        self._options = dict(options or {})
        self._tells_endpoints = tells_endpoints
        self._done = threading.Event()
        self._server = grpc.server(ThreadPoolExecutor(max_workers=16))
        beam_fn_api_pb2_grpc.add_BeamFnControlServicer_to_server(self, self._server)
        beam_fn_api_pb2_grpc.add_BeamFnLoggingServicer_to_server(self, self._server)
        beam_provision_api_pb2_grpc.add_ProvisionServiceServicer_to_server(self, self._server)
        self.endpoint = f"localhost:{self._server.add_insecure_port('localhost:0')}"

    def end_workers(self) -> None:
        """Says to all workers that there is no more work."""
        self._done.set()

    def vanish(self) -> None:
        """Breaks all connections."""
        self._server.stop(0).wait()

    def __enter__(self) -> Runner:
        self._server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        self._server.stop(0).wait()

    # Beam's services

    def GetProvisionInfo(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.asked.put(_worker_id(context))
        info = beam_provision_api_pb2.ProvisionInfo(runner_capabilities=["a", "b"])
        info.pipeline_options.update(self._options)
        if self._tells_endpoints:
            info.control_endpoint.url = info.logging_endpoint.url = self.endpoint
        return beam_provision_api_pb2.GetProvisionInfoResponse(info=info)

    def Logging(self, entries: Iterable[Any], context: Any) -> Iterator[Any]:  # noqa: N802
        for _ in entries:
            pass
        yield from ()

    def Control(self, responses: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        self.connected.put(_worker_id(context))
        while context.is_active() and not self._done.wait(0.05):
            pass
        yield from ()


def _worker_id(context: Any) -> str:
    return str(dict(context.invocation_metadata())["worker_id"])
