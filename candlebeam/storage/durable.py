"""Writing that survives a crash: whole files or none."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager


def write_atomic(
    path: str, data: bytes, *, durable: bool = True, temporary: str | None = None
) -> None:
    """Puts a file in place at once; who reads `path` sees the old bytes or all of the new ones.

    Args:
        path: its folder must exist.
        durable: whether the bytes and the name are on disk, come a power cut, when this returns.
        temporary: where to write first, if nobody else does at the same time; so that what a crash
            leaves can be found. By default a name of its own in the folder.

    Raises:
        OSError: nothing has changed then.
    """
    with placing(path, durable=durable, temporary=temporary) as descriptor:
        write_all(descriptor, data)


@contextmanager
def placing(path: str, *, durable: bool = True, temporary: str | None = None) -> Iterator[int]:
    """A descriptor to write a file by; the file is put in place at the end of the `with`.

    Args and errors are those of `write_atomic`. If the `with` ends with an error nothing changes.
    """
    folder, name = os.path.split(path)
    temporary = temporary or os.path.join(folder, f".{name}.{uuid.uuid4().hex}.tmp")
    try:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            yield descriptor
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if durable:
        sync_folder(folder)


class Written:
    """What is written by a descriptor, as far as a writer of formats wants a file: unbuffered."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes | memoryview) -> object:
        """Writes all of the bytes where the file stands."""
        write_all(self._descriptor, data)
        return None

    def seek(self, offset: int) -> object:
        """Goes to a place, from the start of the file."""
        return os.lseek(self._descriptor, offset, os.SEEK_SET)


def cannot_write(error: OSError, place: str) -> str:
    """What could not be written, or `place` if the error does not say, and why."""
    return f"cannot write {error.filename or place}: {error.strerror or error}"


def write_all(descriptor: int, data: bytes | memoryview, offset: int | None = None) -> None:
    """Writes all of the bytes, at `offset` or where the file stands."""
    view = memoryview(data).cast("B")
    while len(view):
        if offset is None:
            done = os.write(descriptor, view)
        else:
            done = os.pwrite(descriptor, view, offset)
            offset += done
        view = view[done:]


def sync_folder(path: str) -> None:
    """Makes renames and new names in a folder durable."""
    descriptor = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: str) -> None:
    """Removes a file that may not be there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
