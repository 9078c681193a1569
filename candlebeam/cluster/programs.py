"""Running another program for a short while."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

_LOOK = 0.25


class Ended(NamedTuple):
    """How a program ended: its exit code, and all that it printed."""

    code: int
    output: str


def run_program(
    command: Sequence[str],
    seconds: float,
    *,
    folder: str | None = None,
    progress: Callable[[], object] | None = None,
) -> Ended:
    """Runs a program to its end, away from the terminal's signals.

    Args:
        seconds: after these it is killed, with all that it started.
        folder: where it runs; by default where this process does.
        progress: the seconds begin anew whenever what this gives has changed.

    Raises:
        OSError: it cannot be started.
        TimeoutError: it did not end in time.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=folder,
        start_new_session=True,
    )
    with process:
        try:
            output = _output(process, seconds, progress)
        finally:
            if process.poll() is None:
                kill_group(process.pid)
    return Ended(process.returncode, output.decode("utf-8", "replace"))


def _output(
    process: subprocess.Popen[bytes], seconds: float, progress: Callable[[], object] | None
) -> bytes:
    last: object = None
    deadline = time.monotonic() + seconds
    while True:
        left = deadline - time.monotonic()
        try:
            # What was read before the time was up is kept for the next call.
            return process.communicate(timeout=max(0.0, min(left, _LOOK)))[0]
        except subprocess.TimeoutExpired:
            now = progress() if progress else None
            if now != last:
                last, deadline = now, time.monotonic() + seconds
            elif time.monotonic() >= deadline:
                raise TimeoutError(f"no end within {seconds:g} s") from None


def kill_group(leader: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Sends a signal to a process group, some of which may have ended."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


def first_line(text: str) -> str:
    """The first line that is not empty, or "nothing"."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "nothing")
