"""Files of the operating system."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from candlebeam.storage.durable import placing, remove, write_atomic
from candlebeam.storage.protocol import FileState, Found, OpenInput, Ranges

_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
# A pipe where a file is expected must not hang the reader.
_OPEN_FLAGS |= getattr(os, "O_NONBLOCK", 0)


class LocalStorage:
    """A `Storage` of the operating system's files."""

    is_local = True

    def open_input(self, path: str, ranges: Ranges | None = None) -> OpenInput:
        descriptor = os.open(path, _OPEN_FLAGS)
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            os.close(descriptor)
            kind = "a folder" if stat.S_ISDIR(found.st_mode) else "no regular file"
            raise OSError(0, f"not a file: {kind}", path)
        return OpenInput(descriptor, found.st_size, found.st_mtime_ns)

    def state(self, path: str) -> FileState:
        found = os.stat(path)
        return FileState(found.st_size, found.st_mtime_ns)

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def read(self, path: str, offset: int = 0, length: int = -1) -> bytes:
        with open(path, "rb") as file:
            if offset:
                file.seek(offset)
            return file.read(length)

    def walk(self, folder: str) -> Iterator[Found]:
        for path in self.names(folder):
            yield Found(path, os.path.getsize(os.path.join(folder, path)))

    def names(self, folder: str) -> Iterator[str]:
        for here, _, names in os.walk(folder):
            below = here[len(folder) :].lstrip("/")
            for name in names:
                yield os.path.join(below, name)

    @contextmanager
    def fetched(self, paths: Sequence[str]) -> Iterator[list[str]]:
        yield list(paths)

    def make_folder(self, path: str) -> None:
        os.makedirs(path, exist_ok=True)

    def write(self, path: str, data: bytes, *, durable: bool = True) -> None:
        write_atomic(path, data, durable=durable)

    def placing(self, path: str, *, durable: bool = True) -> AbstractContextManager[int]:
        return placing(path, durable=durable)

    def replace(self, source: str, target: str) -> None:
        os.replace(source, target)

    def remove(self, path: str) -> None:
        remove(path)

    def remove_tree(self, folder: str) -> None:
        shutil.rmtree(folder, ignore_errors=True)
