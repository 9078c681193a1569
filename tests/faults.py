"""Faults on demand: the system calls that change files are counted, and the nth one goes wrong.

    python -m tests.faults

is a host for runs that get a signal in the middle: it loads the command line once, then forks a
process for each line of JSON on its standard input, and answers with a line when that has ended.
"""

from __future__ import annotations

import errno
import importlib
import itertools
import json
import logging
import mmap
import os
import pkgutil
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.command_line import environment

#: What changes files.
CALLS = (
    "open",
    "write",
    "pwrite",
    "ftruncate",
    "fsync",
    "replace",
    "rename",
    "unlink",
    "mkdir",
    "rmdir",
    "link",
)
WRITES = ("write", "pwrite")
_CHANGING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
NEVER = 1 << 60
#: How `KillHost.run` tells that the run has been stopped, not ended.
STOPPED = 1_000


@contextmanager
def counting(action: Callable[[int], None], calls: tuple[str, ...] = CALLS) -> Iterator[None]:
    """Calls `action` with 1, 2, 3 ... before every system call of these names."""
    originals: dict[str, Callable[..., Any]] = {name: getattr(os, name) for name in calls}
    count = 0

    def patched(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            if name != "open" or (len(arguments) > 1 and arguments[1] & _CHANGING):
                count += 1
                action(count)
            return originals[name](*arguments, **named)

        return call

    try:
        for name in calls:
            setattr(os, name, patched(name))
        yield
    finally:
        for name, original in originals.items():
            setattr(os, name, original)


@contextmanager
def counting_requests(action: Callable[[int], None]) -> Iterator[None]:
    """Calls `action` with 1, 2, 3 ... before every request to S3."""
    from botocore.httpsession import URLLib3Session

    original = URLLib3Session.send
    numbers = itertools.count(1)

    def send(session: Any, request: Any) -> Any:
        action(next(numbers))
        return original(session, request)

    URLLib3Session.send = send
    try:
        yield
    finally:
        URLLib3Session.send = original


@contextmanager
def failing_from(number: int, code: int = errno.ENOSPC) -> Iterator[list[int]]:
    """From the `number`th write on, every write fails as on a full disk. Gives a list of those."""
    failed: list[int] = []

    def fail(count: int) -> None:
        if count >= number:
            failed.append(count)
            raise OSError(code, os.strerror(code))

    with counting(fail, WRITES):
        yield failed


def _run(job: dict[str, Any], calls: mmap.mmap) -> None:
    arguments, at, signal_number = job["arguments"], job["at"], job["signal"]

    def raise_signal(count: int) -> None:
        calls[:8] = count.to_bytes(8, "little")
        if count == at:
            os.kill(os.getpid(), signal_number)

    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)
    sys.argv = ["candlebeam", *arguments]
    for name, value in job["values"].items():
        module, _, attribute = name.rpartition(".")
        setattr(importlib.import_module(module), attribute, value)
    with (counting_requests if job["requests"] else counting)(raise_signal):
        runpy.run_module("candlebeam", run_name="__main__", alter_sys=True)


def _fork(job: dict[str, Any], calls: mmap.mmap) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        _run(job, calls)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        os._exit(code)


def _load() -> None:
    """Imports all that a run needs and loads the kernels, so that a fork is ready at once."""
    logging.disable(logging.WARNING)  # Beam has something to say about what it does not find
    import apache_beam.runners.portability.fn_api_runner.fn_runner  # noqa: F401

    import candlebeam
    from candlebeam.kernels import Kernel

    for found in pkgutil.walk_packages(candlebeam.__path__, "candlebeam."):
        if not found.name.endswith("__main__"):
            for value in vars(importlib.import_module(found.name)).values():
                if isinstance(value, Kernel):
                    value.compiled()


def _serve() -> None:
    _load()
    child, calls = 0, mmap.mmap(-1, 8)  # shared with what is forked
    for line in sys.stdin:
        job = json.loads(line)
        if job["arguments"]:
            child = _fork(job, calls)
        else:
            os.kill(child, signal.SIGCONT)
        # Somebody else may stop it as well, which is no answer.
        _, status = os.waitpid(child, os.WUNTRACED if job["signal"] == signal.SIGSTOP else 0)
        stopped = os.WIFSTOPPED(status)
        code = STOPPED if stopped else os.waitstatus_to_exitcode(status)
        print(code, int.from_bytes(calls[:8], "little"), flush=True)


class KillHost:
    """A running host; a context manager.

    Args:
        requests: whether requests to S3 are counted, and not system calls.
        values: what runs find in modules instead of what stands there, by full name.

    Attributes:
        calls: how many calls the last run had made when it ended.
    """

    calls = 0

    def __init__(self, *, requests: bool = False, values: dict[str, float] | None = None) -> None:
        self._requests, self._values = requests, values or {}

    def __enter__(self) -> KillHost:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults"],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(
        self, arguments: tuple[object, ...], at: int, signal_number: int = signal.SIGKILL
    ) -> int:
        """How a run ends that gets a signal at its nth call, if it makes as many: -9 if killed."""
        return self._ask([str(part) for part in arguments], at, signal_number)

    def go_on(self) -> int:
        """How the run that was stopped ends."""
        return self._ask([], 0, 0)

    def _ask(self, arguments: list[str], at: int, signal_number: int) -> int:
        job = {
            "arguments": arguments,
            "at": at,
            "signal": int(signal_number),
            "requests": self._requests,
            "values": self._values,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        code, calls = self._process.stdout.readline().split()
        self.calls = int(calls)
        return int(code)


if __name__ == "__main__":
    _serve()
