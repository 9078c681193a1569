"""The logs of workers: what they print, a file each, that neither grow nor gather without end.

A worker writes to its file itself, so nobody has to read a pipe for it to go on. It holds a lock on
the file as long as it, or what it has started, runs; so others know whose files may go.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple, TextIO

from candlebeam.errors import CandlebeamError, os_reason

#: Names the folder for the logs of workers that no pool has started.
FOLDER_VARIABLE = "CANDLEBEAM_WORKER_LOGS"
#: The logs of ended workers that are kept.
KEPT = 20
DEFAULT_LIMIT = 16 << 20

_NAME = re.compile(r"\d{8}T\d{6}Z-.*-\d+\.log")
_EARLIER = ".1"


class LogSettings(NamedTuple):
    """Where logs are, and how many bytes one may hold before it begins anew."""

    folder: str
    limit: int = DEFAULT_LIMIT


def default_folder() -> str:
    """The folder for logs where none is given."""
    named = os.environ.get(FOLDER_VARIABLE)
    return named or os.path.join(tempfile.gettempdir(), f"candlebeam-workers-{os.getuid()}")


class WorkerLog:
    """The log of this process: its standard output and error go there once it is made.

    Nothing is made of what is printed: it is in the file in the order of the writes.

    Args:
        settings: where, and how large.
        worker_id: becomes part of the file's name.

    Raises:
        CandlebeamError: the file cannot be made.
    """

    def __init__(self, settings: LogSettings, worker_id: str) -> None:
        self._limit = settings.limit
        name = re.sub(r"[^A-Za-z0-9_.]+", "-", worker_id)[:100]
        time_text = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        self.path = Path(settings.folder, f"{time_text}-{name}-{os.getpid()}.log")
        make_folder(settings.folder)
        try:
            self._direct_here()
        except OSError as error:
            raise CandlebeamError(f"{self.path}: {os_reason(error)}") from None
        _by_lines(sys.stdout)
        _by_lines(sys.stderr)
        remove_old(settings.folder)

    def rotate(self) -> None:
        """Begins the file anew if it is full; the one before is kept beside it."""
        if os.fstat(1).st_size < self._limit:
            return
        try:
            os.replace(self.path, f"{self.path}{_EARLIER}")
            self._direct_here()
        except OSError:
            # The folder is gone or full. Better lose what was said than fill the disk.
            with contextlib.suppress(OSError):
                os.ftruncate(1, 0)

    def _direct_here(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        # Beam says there which options it runs with, and some are secrets.
        descriptor = os.open(self.path, flags, 0o600)
        try:
            # Some network filesystems have no locks. There old logs stay.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            # At no moment is there no output: a write goes to the one file or to the other.
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
        finally:
            os.close(descriptor)


def make_folder(folder: str) -> None:
    """Makes a folder for logs, if it is not there.

    Raises:
        CandlebeamError: it cannot be made, or not be written to.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise CandlebeamError(f"no logs can be written to {folder}: {os_reason(error)}") from None


def remove_old(folder: str, kept: int = KEPT) -> None:
    """Removes the logs of workers that have ended, but for the last ones."""
    with contextlib.suppress(OSError):
        # The names begin with the time.
        logs = sorted((p for p in Path(folder).iterdir() if _NAME.fullmatch(p.name)), reverse=True)
        for log in [log for log in logs if _has_ended(log)][kept:]:
            log.unlink(missing_ok=True)
            Path(f"{log}{_EARLIER}").unlink(missing_ok=True)


def _has_ended(log: Path) -> bool:
    try:
        descriptor = os.open(log, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(descriptor)
    except OSError:
        return False
    return True


def _by_lines(stream: TextIO) -> None:
    """What is printed is to be read even if the process is killed."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")
