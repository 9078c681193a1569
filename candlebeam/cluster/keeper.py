"""Keeps a program for as long as its owner lives: a small process between the two.

    python keeper.py OWNER FOLDER PROGRAM ARGUMENT...

PROGRAM is a path. It runs in this process's group and gets its output. It is ended, and the folder
removed, when the process OWNER is gone, however it went, or when this one is told to terminate.
When it ends by itself its exit code is handed on, and the folder left to the owner. On Linux the
kernel kills the program when this process is killed.

It is run as a file of its own and imports the standard library alone, to be there at once.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import sys
import time
from types import FrameType
from typing import NoReturn

#: How often to look, how long the program may take to end when it is told to, in seconds.
_LOOK = 0.05
_PATIENCE = 5.0
_PR_SET_PDEATHSIG = 1


class Keeper:
    """A running program and its owner, a process id."""

    def __init__(self, owner: int, program: int) -> None:
        self._owner = owner
        self._program = program
        self._told_to_end = False
        signal.signal(signal.SIGTERM, self._tell)

    def _tell(self, number: int, frame: FrameType | None) -> None:
        self._told_to_end = True

    def keep(self, folder: str) -> int:
        """Waits for the end of the program or of the owner; the exit code as a shell tells it."""
        while self._owned() and not self._told_to_end:
            if (code := self._code()) is not None:
                return code
            time.sleep(_LOOK)
        self._end()
        shutil.rmtree(folder, ignore_errors=True)
        if not self._owned():
            # What the program has started and left behind, and this process with it.
            os.killpg(0, signal.SIGKILL)
        return 128 + signal.SIGTERM

    def _owned(self) -> bool:
        return os.getppid() == self._owner

    def _code(self) -> int | None:
        """The program's exit code, None while it runs."""
        pid, status = os.waitpid(self._program, os.WNOHANG)
        if pid == 0:
            return None
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code

    def _end(self) -> None:
        os.kill(self._program, signal.SIGTERM)
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            if self._code() is not None:
                return
            time.sleep(_LOOK)
        os.kill(self._program, signal.SIGKILL)
        os.waitpid(self._program, 0)


def _become(command: list[str], keeper: int) -> NoReturn:
    """Becomes the program, in a process that was forked for it."""
    try:
        if sys.platform.startswith("linux"):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == keeper:
            os.execv(command[0], command)
    except OSError as error:
        print(f"cannot run {command[0]}: {error.strerror or error}", flush=True)
    finally:
        os._exit(127)


def main(owner: int, folder: str, command: list[str]) -> int:
    """Starts the program and keeps it; see the module."""
    keeper = os.getpid()
    program = os.fork()
    if program == 0:
        _become(command, keeper)
    return Keeper(owner, program).keep(folder)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
