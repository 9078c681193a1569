"""A disk that fails, or a process that is killed, at the nth call that changes files."""

from __future__ import annotations

import builtins
import errno
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

import pytest

from candlebeam.io import candle_writer

_ORIGINALS: dict[str, Callable[..., Any]] = {
    name: getattr(os, name)
    for name in ("open", "write", "pwrite", "ftruncate", "replace", "unlink")
}


class Killed(BaseException):
    """The process is dead: nothing that it would still do has any effect."""


class FailingDisk(AbstractContextManager["FailingDisk"]):
    """Counts the calls of a commit that change files; one of them goes wrong.

    A write that goes wrong has written half of its bytes. Syncing is counted but not done: what a
    test writes need not survive a power cut.

    Args:
        at: which call, from 1.
        kill: whether the process dies there; else the call raises `OSError`, and the next ones
            work again.

    Attributes:
        calls: (call, path or None) of all so far.
    """

    def __init__(self, at: int = 0, *, kill: bool = False) -> None:
        self._at, self._kill = at, kill
        self._dead = False
        self._patches = pytest.MonkeyPatch()
        self._paths: dict[int, str] = {}
        self.calls: list[tuple[str, str | None]] = []

    @property
    def failed(self) -> bool:
        """Whether there were as many calls."""
        return 0 < self._at <= len(self.calls)

    def __enter__(self) -> FailingDisk:
        for name in _ORIGINALS:
            self._patches.setattr(os, name, getattr(self, f"_{name}"))
        self._patches.setattr(os, "fsync", self._fsync)
        self._patches.setattr(candle_writer, "open", self._open_file, raising=False)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        self._patches.undo()
        return isinstance(error, Killed) or (isinstance(error, OSError) and self.failed)

    def step(self, name: str, path: str | None = None) -> None:
        if self._dead:
            raise Killed
        self.calls.append((name, path))
        if len(self.calls) != self._at:
            return
        if self._kill:
            self._dead = True
            raise Killed
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def _open(self, path: str, flags: int, *rest: Any) -> int:
        if flags & os.O_CREAT:
            self.step("open", path)
        descriptor = int(_ORIGINALS["open"](path, flags, *rest))
        self._paths[descriptor] = path
        return descriptor

    def _open_file(self, path: str, mode: str) -> Any:
        if mode == "wb":
            self.step("open", path)
        file = builtins.open(path, mode)  # noqa: SIM115  the commit closes it
        self._paths[file.fileno()] = path
        return _File(self, path, file)

    def _written(self, name: str, descriptor: int, data: memoryview, *rest: int) -> int:
        try:
            self.step(name, self._paths[descriptor])
        except (OSError, Killed):
            if len(self.calls) == self._at:
                _ORIGINALS[name](descriptor, data[: len(data) // 2], *rest)
            raise
        return int(_ORIGINALS[name](descriptor, data, *rest))

    def _write(self, descriptor: int, data: memoryview) -> int:
        return self._written("write", descriptor, data)

    def _pwrite(self, descriptor: int, data: memoryview, offset: int) -> int:
        return self._written("pwrite", descriptor, data, offset)

    def _ftruncate(self, descriptor: int, size: int) -> None:
        self.step("truncate", self._paths[descriptor])
        _ORIGINALS["ftruncate"](descriptor, size)

    def _fsync(self, descriptor: int) -> None:
        self.step("fsync", self._paths[descriptor])

    def _replace(self, source: str, target: str) -> None:
        self.step("replace", target)
        _ORIGINALS["replace"](source, target)

    def _unlink(self, path: str) -> None:
        if os.path.lexists(path):
            self.step("unlink", path)
        elif self._dead:
            raise Killed
        _ORIGINALS["unlink"](path)


class _File:
    """As much of a file as a commit uses."""

    def __init__(self, disk: FailingDisk, path: str, file: Any) -> None:
        self._disk, self._path, self._file = disk, path, file

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def fileno(self) -> int:
        return int(self._file.fileno())

    def truncate(self, size: int) -> None:
        self._disk.step("truncate", self._path)
        self._file.truncate(size)
