"""The worker pool: starts workers when a runner asks for them, and sees to it that none is left."""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NoReturn, TextIO

import grpc

from candlebeam.errors import CandlebeamError, os_reason
from candlebeam.worker import pool_messages as messages
from candlebeam.worker.boot import READY
from candlebeam.worker.worker_log import LogSettings, make_folder

#: How long a worker that is not needed any more may take to end by itself, and then when told to.
_LEAVE_SECONDS = 1.0
_END_SECONDS = 3.0
#: Requests that are served at a time: each waits for a worker's start or end.
_REQUESTS = 64


class PooledWorker:
    """A worker process that runs, or has run.

    Args:
        worker_id: the runner's name for it.
        process: leads a process group of its own.
        told: where the worker says that it is ready, or what is wrong.
    """

    def __init__(self, worker_id: str, process: subprocess.Popen[bytes], told: int) -> None:
        self.worker_id = worker_id
        self.process = process
        self.stopped = False
        self.ended = threading.Event()
        self._told = told

    def wait_for_start(self, logs: str) -> str:
        """Waits until it is connected to its runner: "", or what was wrong and where to look."""
        with os.fdopen(self._told, encoding="utf-8", errors="replace") as told:
            said = told.read()
        if said == READY:
            return ""
        if said:
            return said
        self.ended.wait()
        return (
            f"worker {self.worker_id} (process {self.process.pid}) {self.how_it_ended()} "
            f"before it was connected (logs in {logs})"
        )

    def wait_for_end(self) -> None:
        """Waits until it has ended, and ends what it has started."""
        self.process.wait()
        self.signal_group(signal.SIGKILL)
        self.ended.set()

    def signal_group(self, number: int) -> None:
        """Sends a signal to it and to what it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)

    def stop(self, leave_seconds: float) -> None:
        """Ends it: it may leave by itself, then is told to, then is not asked any more."""
        self.stopped = True
        if self.ended.wait(leave_seconds):
            return
        self.signal_group(signal.SIGTERM)
        if not self.ended.wait(_END_SECONDS):
            self.signal_group(signal.SIGKILL)
            self.ended.wait()

    def how_it_ended(self) -> str:
        """How it ended, in words."""
        code = self.process.returncode
        if code < 0:
            return f"was ended by signal {-code}"
        return f"ended with exit code {code}"


class WorkerPool:
    """Starts and stops workers.

    Args:
        logs: where workers write what they print.
    """

    def __init__(self, logs: LogSettings) -> None:
        self._logs = logs
        self._workers: set[PooledWorker] = set()
        self._lock = threading.Lock()
        # Processes are started by the main thread alone: workers end when the thread that has
        # started them does. None ends the pool.
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._prepared = threading.Event()
        self._stopping = self._failed = False

    # In the threads that serve requests

    def start_worker(self, request: Any) -> str:
        """Starts a worker as a runner asks for it: "" once it is connected, or what was wrong."""
        self._prepared.wait()
        started: Future[PooledWorker] = Future()
        self._tasks.put(lambda: self._spawn_for(request, started))
        try:
            return started.result().wait_for_start(self._logs.folder)
        except OSError as error:
            return f"worker {request.worker_id} cannot be started: {os_reason(error)}"

    def stop_worker(self, worker_id: str) -> None:
        """Stops a worker, and returns when it has ended.

        Two jobs may have given the same name. Which is meant nobody can tell, and both end by
        themselves when their runner is done with them.
        """
        with self._lock:
            found = [worker for worker in self._workers if worker.worker_id == worker_id]
        if len(found) == 1:
            found[0].stop(_LEAVE_SECONDS)

    # In the main thread

    def run(self, announce: Callable[[], None]) -> None:
        """Compiles the kernels, calls `announce`, and starts workers until `stop` is called.

        Raises:
            CandlebeamError: the kernels cannot be compiled.
        """
        compiling = compile_kernels()
        threading.Thread(target=self._wait_for_kernels, args=(compiling, announce)).start()
        try:
            for task in iter(self._tasks.get, None):
                task()
        finally:
            compiling.kill()
            self._stop_all()
        if self._failed:
            raise CandlebeamError(f"the kernels cannot be compiled: exit code {compiling.wait()}")

    def stop(self) -> None:
        """Ends `run`. It may be called in a signal's handler."""
        self._stopping = True
        self._tasks.put(None)

    def _wait_for_kernels(
        self, compiling: subprocess.Popen[bytes], announce: Callable[[], None]
    ) -> None:
        if compiling.wait() == 0:
            self._tasks.put(announce)
            self._prepared.set()
        else:
            self._failed = not self._stopping
            self._tasks.put(None)

    def _spawn_for(self, request: Any, started: Future[PooledWorker]) -> None:
        try:
            worker = self._spawn(request)
        except OSError as error:
            started.set_exception(error)
            return
        with self._lock:
            self._workers.add(worker)
        threading.Thread(target=self._see_off, args=(worker,), daemon=True).start()
        started.set_result(worker)

    def _spawn(self, request: Any) -> PooledWorker:
        told, tell = os.pipe()
        try:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "candlebeam.worker.boot"),
                    f"--id={request.worker_id}",
                    f"--provision_endpoint={request.provision_endpoint.url}",
                    f"--control_endpoint={request.control_endpoint.url}",
                    f"--logging_endpoint={request.logging_endpoint.url}",
                    f"--artifact_endpoint={request.artifact_endpoint.url}",
                    f"--log_dir={self._logs.folder}",
                    f"--log_limit={self._logs.limit}",
                    f"--pool_pid={os.getpid()}",
                    f"--tell_fd={tell}",
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=(tell,),
                start_new_session=True,
            )
        except OSError:
            os.close(told)
            raise
        finally:
            os.close(tell)
        return PooledWorker(request.worker_id, process, told)

    def _see_off(self, worker: PooledWorker) -> None:
        worker.wait_for_end()
        with self._lock:
            self._workers.discard(worker)
        if worker.process.returncode and not worker.stopped:
            _say(
                f"worker {worker.worker_id} (process {worker.process.pid}) {worker.how_it_ended()}",
                sys.stderr,
            )

    def _stop_all(self) -> None:
        with self._lock:
            workers = list(self._workers)
        stopping = [threading.Thread(target=worker.stop, args=(0,)) for worker in workers]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()


def serve(host: str, port: int, logs: LogSettings) -> NoReturn:
    """Runs a worker pool until the process is interrupted or terminated, which ends its workers.

    Args:
        host: the address to listen at.
        port: 0 takes any that is free.
        logs: where workers write what they print.

    Raises:
        CandlebeamError: it cannot listen there, no logs can be written, or the kernels cannot be
            compiled.
    """
    make_folder(logs.folder)
    pool = WorkerPool(logs)
    server, bound = _listen(host, port, pool)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: pool.stop())
    server.start()
    pool.run(lambda: _say(f"worker pool at port {bound}; workers log to {logs.folder}", sys.stdout))
    # Requests may still wait for workers that nobody starts any more.
    os._exit(0)


def compile_kernels() -> subprocess.Popen[bytes]:
    """Starts a process that compiles what a backfill needs, or finds it compiled."""
    return subprocess.Popen(
        [sys.executable, "-m", "candlebeam.worker.backfill_kernels", str(os.getpid())],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def _listen(host: str, port: int, pool: WorkerPool) -> tuple[grpc.Server, int]:
    """A server that has a port, and the port."""

    def start_worker(request: Any, context: grpc.ServicerContext) -> Any:
        return messages.StartWorkerResponse(error=pool.start_worker(request))

    def stop_worker(request: Any, context: grpc.ServicerContext) -> Any:
        pool.stop_worker(request.worker_id)
        return messages.StopWorkerResponse()

    _check_free(host, port)
    server = grpc.server(
        ThreadPoolExecutor(max_workers=_REQUESTS),
        options=[
            # Two pools at one port would each get half of the requests.
            ("grpc.so_reuseport", 0),
            # Runners keep their connections.
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.http2.max_ping_strikes", 0),
        ],
    )
    handlers = {
        "StartWorker": grpc.unary_unary_rpc_method_handler(
            start_worker,
            request_deserializer=messages.StartWorkerRequest.FromString,
            response_serializer=messages.StartWorkerResponse.SerializeToString,
        ),
        "StopWorker": grpc.unary_unary_rpc_method_handler(
            stop_worker,
            request_deserializer=messages.StopWorkerRequest.FromString,
            response_serializer=messages.StopWorkerResponse.SerializeToString,
        ),
    }
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(messages.SERVICE, handlers),)
    )
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        return server, server.add_insecure_port(address)
    except RuntimeError as error:
        raise CandlebeamError(f"port {port} of {host}: {error}") from None


def _check_free(host: str, port: int) -> None:
    """Raises `CandlebeamError` if nothing can listen there: gRPC says much, but not why."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        failures = [failure for family, *_, at in addresses if (failure := _refusal(family, at))]
    except OSError as error:
        raise CandlebeamError(f"cannot listen at {host}: {os_reason(error)}") from None
    # A machine may have no IPv6, and yet a name with such an address.
    absent = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
    real = [failure for failure in failures if failure.errno not in absent]
    if real or len(failures) == len(addresses):
        failure = (real or failures)[0]
        raise CandlebeamError(f"cannot listen at port {port} of {host}: {os_reason(failure)}")


def _refusal(family: int, address: Any) -> OSError | None:
    """Why nothing can listen at an address, if so."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # Else it would be in the way of its IPv4 sister.
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(address)
    except OSError as error:
        return error
    return None


def _say(line: str, stream: TextIO) -> None:
    # Nobody may be listening any more.
    with contextlib.suppress(OSError, ValueError):
        print(line, file=stream, flush=True)
