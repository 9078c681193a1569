"""One writer an output root, and who it is."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

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
#: Who only looks whether a local lock is held holds a share of it for a moment (`lock_holder`).
_GLANCE_SECONDS = 0.3
_RETRY_SECONDS = 0.02


@dataclass(frozen=True)
class Holder:
    """Who holds the lock of an output root, as far as it has said so.

    Attributes:
        pid, host: the process.
        what: what it does: "backfill", "follow", "stream"...
        age: seconds since a remote lock was renewed; None for a local one.
    """

    pid: int | None = None
    host: str | None = None
    what: str | None = None
    age: float | None = None

    def __str__(self) -> str:
        """As `process 7 on db1, follow`; "" if nothing is known."""
        parts = [] if self.pid is None else [f"process {self.pid} on {self.host}"]
        if self.what is not None:
            parts.append(self.what)
        if parts and self.age is not None:
            parts.append(f"{max(self.age, 0):.0f} s ago")
        return ", ".join(parts)

    @property
    def bracketed(self) -> str:
        """` (process 7 on db1, follow)`, or ""."""
        text = str(self)
        return f" ({text})" if text else ""


class Held:
    """A lock that is held."""

    def __init__(self) -> None:
        self.lost = threading.Event()

    def check(self, out: str) -> None:
        """Raises `LostLockError` if another run has taken it, as it can a remote one."""
        if self.lost.is_set():
            raise LostLockError(
                f"{out}: another run has begun, since nothing was heard of this one for a while"
            )


class LostLockError(CandlebeamError):
    """Another run writes where this one did."""


def _notice(what: str) -> dict[str, Any]:
    """What a holder says of itself."""
    return {"pid": os.getpid(), "host": socket.gethostname(), "what": what}


def _decode_holder(data: bytes, age: float | None = None) -> Holder:
    """What a holder has said; one that makes no sense says nothing."""
    try:
        values = json.loads(data)
        pid, host, what = values["pid"], values["host"], values.get("what")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Holder(age=age)
    if type(pid) is not int or not isinstance(host, str):
        return Holder(age=age)
    return Holder(pid, host, what if isinstance(what, str) else None, age)


@contextmanager
def output_lock(out: str, what: str = "backfill") -> Iterator[Held]:
    """Holds the lock of an output root, which is made if it is not there.

    The operating system frees the lock of a process that dies. A remote storage has no such locks:
    there it is an object that is renewed while it is held, and counts for a minute after that.

    Args:
        what: is told to others who want it meanwhile: "backfill", "follow", "stream".

    Raises:
        CandlebeamError: another process holds it, or the root cannot be written.
    """
    storage = storage_of(out)
    held = Held()
    with _local_lock(out, what) if storage.is_local else _lease(storage, absolute(out), what, held):
        yield held


def lock_holder(out: str) -> Holder | None:
    """Who holds the lock of an output root; None if nobody does. Keeps no writer out.

    Of a remote lock, whose age is told by the clock of this machine, that can be wrong by as much
    as the two clocks are apart.

    Raises:
        OSError: it cannot be told.
    """
    storage = storage_of(out)
    if not storage.is_local:
        path = os.path.join(absolute(out), LOCK_NAME)
        try:
            age = time.time() - storage.state(path).mtime_ns / 1e9
            data = storage.read(path)
        except FileNotFoundError:
            return None
        return _decode_holder(data, age) if age < LEASE_SECONDS else None
    try:
        descriptor = os.open(os.path.join(out, LOCK_NAME), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        # A share of it is there for all but its holder. A writer who comes at this very moment
        # tries again: see `_GLANCE_SECONDS`.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _local_holder(out)
    finally:
        os.close(descriptor)
    return None


def _local_holder(out: str) -> Holder:
    try:
        with open(os.path.join(out, _HOLDER_NAME), "rb") as file:
            return _decode_holder(file.read())
    except OSError:
        return Holder()


@contextmanager
def _local_lock(out: str, what: str) -> Iterator[None]:
    try:
        os.makedirs(out, exist_ok=True)
        lock = filelock.FileLock(os.path.join(out, LOCK_NAME))
        lock.acquire(timeout=_GLANCE_SECONDS, poll_interval=_RETRY_SECONDS)
    except filelock.Timeout:
        holder = _local_holder(out).bracketed
        raise CandlebeamError(f"{out}: another run is writing here{holder}") from None
    except OSError as error:
        raise CandlebeamError(f"cannot write {out}: {error.strerror or error}") from None
    holder = os.path.join(out, _HOLDER_NAME)
    try:
        with open(holder, "w", encoding="utf-8") as file:
            json.dump(_notice(what), file)
        yield
    except OSError as error:
        raise CandlebeamError(
            f"cannot write {error.filename or out}: {error.strerror or error}"
        ) from error
    finally:
        if os.path.exists(holder):
            os.unlink(holder)
        lock.release()


@contextmanager
def _lease(storage: Storage, out: str, what: str, held: Held) -> Iterator[None]:
    """The lock of an output root in a remote storage."""
    path, mark = os.path.join(out, LOCK_NAME), uuid.uuid4().hex
    data = json.dumps({"mark": mark, **_notice(what)}).encode()
    try:
        _take(storage, out, path, data)
    except OSError as error:
        raise CandlebeamError(f"cannot write {out}: {error.strerror or error}") from None
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(_RENEW_SECONDS):
            # Missed once, it is renewed the next time, well before it is nobody's.
            with suppress(OSError):
                if not _is_ours(storage, path, data):
                    held.lost.set()
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
        held.check(out)
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
    with suppress(OSError):
        holder = _decode_holder(storage.read(path), age).bracketed
    return CandlebeamError(
        f"{out}: another run is writing here{holder};"
        f" if it was killed, this ends within {LEASE_SECONDS:.0f} s"
    )
