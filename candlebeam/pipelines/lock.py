"""One writer an output root."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import filelock

from candlebeam.errors import CandlebeamError
from candlebeam.io.cancellation import cancel_all
from candlebeam.storage import Storage, absolute, storage_of

LOCK_NAME = ".candlebeam.lock"
_HOLDER_NAME = ".candlebeam.holder"
#: Behind the name of a remote lock: an object that is written to see what time it is.
_CLOCK = ".clock"
#: A remote lock that was not renewed for so long is nobody's any more.
LEASE_SECONDS = 60.0
_RENEW_SECONDS = 15.0
#: How long to wait whether somebody else takes a remote lock at the same moment.
_SETTLE_SECONDS = 1.0


@contextmanager
def output_lock(out: str) -> Iterator[None]:
    """Holds the lock of an output root, which is made if it is not there.

    The operating system frees the lock of a process that dies. A remote storage has no such locks:
    there it is an object that is renewed while it is held, and counts for a minute after that.

    Raises:
        CandlebeamError: another process holds it, or the root cannot be written.
    """
    storage = storage_of(out)
    with _local_lock(out) if storage.is_local else _lease(storage, absolute(out)):
        yield


@contextmanager
def _local_lock(out: str) -> Iterator[None]:
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


@contextmanager
def _lease(storage: Storage, out: str) -> Iterator[None]:
    """The lock of an output root in a remote storage."""
    path, mark = os.path.join(out, LOCK_NAME), uuid.uuid4().hex
    values = {"mark": mark, "pid": os.getpid(), "host": socket.gethostname()}
    data = json.dumps(values).encode()
    try:
        _take(storage, out, path, data)
    except OSError as error:
        raise CandlebeamError(f"cannot write {out}: {error.strerror or error}") from None
    ended, lost = threading.Event(), threading.Event()

    def renew() -> None:
        while not ended.wait(_RENEW_SECONDS):
            # Missed once, it is renewed the next time, well before it is nobody's.
            with suppress(OSError):
                if not _is_ours(storage, path, data):
                    lost.set()
                    cancel_all()
                    return
                storage.write(path, data)

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    except OSError as error:
        raise CandlebeamError(
            f"cannot write {error.filename or out}: {error.strerror or error}"
        ) from error
    finally:
        ended.set()
        thread.join()
        if lost.is_set():
            raise CandlebeamError(
                f"{out}: another run has begun, since nothing was heard of this one for a while"
            )
        with suppress(OSError):
            if _is_ours(storage, path, data):
                storage.remove(path)


def _is_ours(storage: Storage, path: str, data: bytes) -> bool:
    """Whether a lock that we have taken was not taken by another; gone, it can be put back."""
    try:
        return storage.read(path) == data
    except FileNotFoundError:
        return True


def _take(storage: Storage, out: str, path: str, data: bytes) -> None:
    now = _time_at(storage, path)
    try:
        with suppress(FileNotFoundError):
            age = (now - storage.state(path).mtime_ns) / 1e9
            if age < LEASE_SECONDS:
                raise _held(storage, out, path, age)
        storage.write(path, data)
        time.sleep(_SETTLE_SECONDS)
        if storage.read(path) != data:
            raise _held(storage, out, path, 0)
    finally:
        storage.remove(path + _CLOCK)


def _time_at(storage: Storage, path: str) -> int:
    """The time by the storage's own clock, which tells how old a lock is: ns since 1970."""
    while True:
        storage.write(path + _CLOCK, b"")
        # Another run that looks at the same moment may have removed it.
        with suppress(FileNotFoundError):
            return storage.state(path + _CLOCK).mtime_ns


def _held(storage: Storage, out: str, path: str, age: float) -> CandlebeamError:
    holder = ""
    with suppress(OSError, ValueError, KeyError, TypeError):
        values = json.loads(storage.read(path))
        holder = f" (process {values['pid']} on {values['host']}, {max(age, 0):.0f} s ago)"
    return CandlebeamError(
        f"{out}: another run is writing here{holder};"
        f" if it was killed, this ends within {LEASE_SECONDS:.0f} s"
    )
