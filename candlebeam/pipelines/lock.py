"""One writer an output root."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import filelock

from candlebeam.errors import CandlebeamError

LOCK_NAME = ".candlebeam.lock"
_HOLDER_NAME = ".candlebeam.holder"


@contextmanager
def output_lock(out: str) -> Iterator[None]:
    """Holds the lock of an output root, which is made if it is not there.

    The operating system frees the lock of a process that dies.

    Raises:
        CandlebeamError: another process holds it, or the root cannot be written.
    """
    try:
        os.makedirs(out, exist_ok=True)
        lock = filelock.FileLock(os.path.join(out, LOCK_NAME))
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise CandlebeamError(f"{out}: another run is writing here{_holder(out)}") from None
    except OSError as error:
        raise CandlebeamError(f"cannot write {out}: {error.strerror or error}") from None
    holder = os.path.join(out, _HOLDER_NAME)
    try:
        with open(holder, "w", encoding="utf-8") as file:
            json.dump({"pid": os.getpid(), "host": socket.gethostname()}, file)
        yield
    except OSError as error:
        raise CandlebeamError(
            f"cannot write {error.filename or out}: {error.strerror or error}"
        ) from error
    finally:
        if os.path.exists(holder):
            os.unlink(holder)
        lock.release()


def _holder(out: str) -> str:
    try:
        with open(os.path.join(out, _HOLDER_NAME), encoding="utf-8") as file:
            values = json.load(file)
        return f" (process {values['pid']} on {values['host']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
