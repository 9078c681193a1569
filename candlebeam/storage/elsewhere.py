"""What storages that are not of this machine have in common.

An object appears when its upload ends, whole or not at all; nothing is appended and nothing locks.
What is read is fetched into a local file without a name, so that readers know descriptors alone.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from candlebeam.storage.protocol import OpenInput, Storage

PIECE = 1 << 20
#: Files that are fetched at the same time.
_AT_ONCE = 8


@contextmanager
def fetched_by(storage: Storage, paths: Sequence[str]) -> Iterator[list[str]]:
    """Copies of remote files in a folder that is gone at the end; see `Storage.fetched`."""

    def fetch(path: str, copy: str) -> None:
        opened = storage.open_input(path)
        with os.fdopen(opened.descriptor, "rb") as source, open(copy, "wb") as target:
            shutil.copyfileobj(source, target, PIECE)

    with tempfile.TemporaryDirectory(prefix="candlebeam-") as folder:
        copies = [os.path.join(folder, str(number)) for number in range(len(paths))]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in pool.map(fetch, paths, copies):
                pass
        yield copies


def open_copy(fill: Callable[[int], tuple[int, int]]) -> OpenInput:
    """A local file without a name that is filled, from its start.

    Args:
        fill: writes to a descriptor; gives the size and the time of the remote file.
    """
    descriptor = _nameless()
    try:
        size, mtime_ns = fill(descriptor)
        os.ftruncate(descriptor, size)
        os.lseek(descriptor, 0, os.SEEK_SET)
    except BaseException:
        os.close(descriptor)
        raise
    return OpenInput(descriptor, size, mtime_ns)


@contextmanager
def uploading(upload: Callable[[int, int], None]) -> Iterator[int]:
    """A descriptor to write by; if that goes well, what was written is uploaded.

    Args:
        upload: given the descriptor of a file, at its start, and its size in bytes.
    """
    descriptor = _nameless()
    try:
        yield descriptor
        os.lseek(descriptor, 0, os.SEEK_SET)
        upload(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


def _nameless() -> int:
    """A local file that is gone when its descriptor is closed."""
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
