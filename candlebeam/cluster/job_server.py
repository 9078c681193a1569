"""Beam's job server for Flink or Spark, as a process that ends with this one."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from types import TracebackType

from candlebeam.cluster import keeper
from candlebeam.cluster.java import MODULE_OPTIONS, Java
from candlebeam.cluster.programs import kill_group
from candlebeam.errors import CandlebeamError

_ATTEMPTS = 3
_LOOK = 0.05
_PATIENCE = 0.5
_REMOVING = 5.0
_LONGEST = 300
_TAIL = 1 << 16
#: A client's first words in HTTP/2, which gRPC is made of, with empty settings; the server's first
#: frame must be settings too: the fourth byte is its type.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_SETTINGS = 4
#: A JVM without memory ends instead of going on with threads missing, and leaves no file in /tmp.
_JVM_OPTIONS = (
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:-UsePerfData",
    # It starts, hands over, and waits: there is nothing worth compiling well, or collecting fast.
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    # What the log of Beam's own jars is written by. At INFO it is thousands of lines a job.
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
)

#: What tells in a log why a JVM, or what it runs, ended; the first that is found counts.
_TELLING = tuple(
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        r"^.*UnsupportedClassVersionError.*$",
        r"^.*Unable to access jarfile.*$",
        r"^.*[Ii]nvalid or corrupt jarfile.*$",
        r"^.*no main manifest attribute.*$",
        r"^.*Could not find or load main class.*$",
        r"^.*OutOfMemoryError.*$",
        r"^.*Could not reserve enough space.*$",
        r"^.*insufficient memory for the Java Runtime.*$",
        r"^(?:Unrecognized|Invalid|Error: Could not create|Improperly).*$",
        r"^.*Address already in use.*$",
        r"^.*No space left on device.*$",
        r"^Caused by: .*$(?![\s\S]*^Caused by: )",
        r"^Exception in thread.*$",
        r"^cannot run .*$",
        r"^Error: .*$",
    )
)
_CHATTER = re.compile(r"SLF4J: |WARNING: |Picked up ")


class JobServer:
    """A job server in a process of its own, between `with` and its end.

    It has its own process group, so the terminal's Ctrl-C does not reach it; it ends when this
    process does, however that ends. Its temporary files go to a folder that is removed.

    Args:
        java: what runs it.
        jar: a jar with a main class that takes the arguments of Beam's job servers.
        arguments: its own, such as `--flink-master`. Ports are chosen here; so is
            `--artifacts-dir` where it is not among them.
        log: the file that gets its output; overwritten.
        properties: options for the JVM, after those that every one gets.
        starting_seconds: how long it may take until it answers.
    """

    def __init__(
        self,
        java: Java,
        jar: str,
        arguments: Sequence[str],
        *,
        log: str,
        properties: Sequence[str] = (),
        starting_seconds: float = 60,
    ) -> None:
        self.log = log
        self._java = java
        self._jar = jar
        self._arguments = list(arguments)
        self._properties = list(properties)
        self._starting_seconds = starting_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: str | None = None
        self._port = 0

    def __enter__(self) -> JobServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def endpoint(self) -> str:
        """Where it answers: `localhost:PORT`."""
        return f"localhost:{self._port}"

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._exit_code() is None

    def start(self) -> None:
        """Starts it and waits until it answers.

        Raises:
            CandlebeamError: it cannot be started, ends, or does not answer in time. Nothing of it
                is left then but its log.
        """
        deadline = time.monotonic() + self._starting_seconds
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._launch()
                self._wait(deadline)
                return
            except _PortTaken as taken:
                self.stop()
                if attempt == _ATTEMPTS:
                    raise CandlebeamError(str(taken)) from None
            except BaseException:
                self.stop()
                raise

    def stop(self) -> None:
        """Ends it and all that it started, and removes its folder; its log stays."""
        process, self._process = self._process, None
        if process is not None:
            if process.poll() is None:
                kill_group(process.pid, signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_PATIENCE)
                kill_group(process.pid)
            process.wait()
        folder, self._folder = self._folder, None
        if folder is not None:
            _remove_folder(folder)

    def log_text(self, last_bytes: int = _TAIL) -> str:
        """The end of what it has printed; "" if that cannot be read."""
        try:
            with open(self.log, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - last_bytes))
                return file.read(last_bytes).decode("utf-8", "replace")
        except OSError:
            return ""

    def _launch(self) -> None:
        self._port = _free_port()
        try:
            self._folder = tempfile.mkdtemp(prefix="candlebeam-job-server-")
            temporary = os.path.join(self._folder, "tmp")
            os.mkdir(temporary)
            with open(self.log, "wb") as output:
                self._process = subprocess.Popen(
                    self._command(self._folder, temporary),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            raise CandlebeamError(
                f"cannot start the job server: {error.filename or self._java.path}: "
                f"{error.strerror or error}"
            ) from None

    def _command(self, folder: str, temporary: str) -> list[str]:
        arguments = list(self._arguments)
        if not any(a.partition("=")[0] == "--artifacts-dir" for a in arguments):
            arguments += ["--artifacts-dir", os.path.join(folder, "artifacts")]
        return [
            *(sys.executable, "-I", "-S", keeper.__file__, str(os.getpid()), folder),
            self._java.path,
            *MODULE_OPTIONS,
            *_JVM_OPTIONS,
            f"-Djava.io.tmpdir={temporary}",
            *self._properties,
            *("-jar", self._jar),
            *arguments,
            *("--job-port", str(self._port), "--artifact-port", "0", "--expansion-port", "-1"),
        ]

    def _wait(self, deadline: float) -> None:
        """Until it answers."""
        while True:
            code = self._exit_code()
            if code is not None:
                raise self._ended(code)
            if _speaks_grpc(self._port) and self.alive:
                return
            if time.monotonic() > deadline:
                raise CandlebeamError(
                    f"the job server ({self._jar}) did not answer within "
                    f"{self._starting_seconds:g} s: {self._said()}"
                )
            time.sleep(_LOOK)

    def _ended(self, code: int) -> CandlebeamError:
        ended = f"the job server ({self._jar}) ended with exit code {code} before it answered: "
        if _is_taken(self._port):
            return _PortTaken(f"{ended}another program took port {self._port}")
        return CandlebeamError(ended + self._said())

    def _said(self) -> str:
        text = self.log_text()
        return f"{reason_in_log(text)} (its log is {self.log})"

    def _exit_code(self) -> int | None:
        """Its exit code, None while it runs; what it leaves behind when it ends is killed."""
        process = self._process
        if process is None or process.returncode is not None:
            return None if process is None else process.returncode
        code = process.poll()
        if code is not None:
            kill_group(process.pid)
        return code


class _PortTaken(CandlebeamError):
    """Somebody else listens at the port that was free a moment ago."""


def reason_in_log(text: str) -> str:
    """The line of a JVM's log that says best why it ended; the last one if none stands out."""
    for pattern in _TELLING:
        if found := pattern.search(text):
            return _shortened(found[0])
    lines = [line for line in text.splitlines() if line.strip() and not _CHATTER.match(line)]
    return _shortened(lines[-1]) if lines else "it printed nothing"


def _shortened(line: str) -> str:
    words = " ".join(line.split())
    return words if len(words) <= _LONGEST else words[: _LONGEST - 1] + "…"


def _remove_folder(folder: str) -> None:
    """Removes a folder in which processes that were killed may still be writing."""
    deadline = time.monotonic() + _REMOVING
    while os.path.lexists(folder) and time.monotonic() < deadline:
        shutil.rmtree(folder, ignore_errors=True)
        if os.path.lexists(folder):
            time.sleep(_LOOK)


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("localhost", 0))
        return int(listener.getsockname()[1])


def _is_taken(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("localhost", port))
        except OSError:
            return True
    return False


def _speaks_grpc(port: int) -> bool:
    """Whether what listens at a port of this machine greets as an HTTP/2 server."""
    try:
        with socket.create_connection(("localhost", port), 1) as connection:
            connection.sendall(_GREETING)
            answer = b""
            while len(answer) < 4:
                piece = connection.recv(4 - len(answer))
                if not piece:
                    return False
                answer += piece
            return answer[3] == _SETTINGS
    except OSError:
        return False
