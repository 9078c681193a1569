"""Walking trade-log archives, on this machine and elsewhere.

An archive holds `{collector}/{bucket}/{exchange}/{symbol}/` folders with files in them. Whatever
else stands there is told apart, and so is what cannot be read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain, groupby
from typing import NamedTuple, Protocol

from candlebeam.errors import UsageError
from candlebeam.storage import is_remote, storage_of
from candlebeam.storage.paths import real
from candlebeam.storage.protocol import Found

_DEPTH = 4  # collector / bucket / exchange / symbol


class Entry(Protocol):
    """What stands in the folder of a symbol, as `os.scandir` has it."""

    @property
    def name(self) -> str: ...

    def is_file(self) -> bool: ...

    def stat(self) -> _HasSize: ...


class _HasSize(Protocol):
    @property
    def st_size(self) -> int: ...


class SymbolFolder(NamedTuple):
    """The folder of a symbol.

    Attributes:
        parts: collector, bucket, exchange, symbol.
        entries: what is in it, to be looked at before the next folder is asked for.
    """

    parts: tuple[str, ...]
    entries: AbstractContextManager[Iterable[Entry]]

    @property
    def prefix(self) -> str:
        """Its path below the root, with a slash at its end."""
        return "/".join(self.parts) + "/"


class ArchiveWalk:
    """The folders of an archive; iterate it, once.

    Args:
        root: the archive; see `storage`.
        include: folders under it, relative to it, to walk instead of all of it.
        on_stray: called with the path, below the root, of what is no part of an archive.
        on_unreadable: called with a path below the root, and why it cannot be read.

    Attributes:
        root: its full path, without links.

    Iterating yields `SymbolFolder`s, those of this machine sorted by their names. A remote archive
    is listed once, in the order of the store, and nothing of it is held; one that cannot be listed
    raises `OSError`.

    Raises:
        UsageError: the root, or a folder to include, is no folder or is outside the root; where
            the archive is remote, while it is walked.
    """

    def __init__(
        self,
        root: str,
        include: Sequence[str],
        *,
        on_stray: Callable[[str], None],
        on_unreadable: Callable[[str, OSError], None],
    ) -> None:
        self.root = real(root)
        self._on_stray, self._on_unreadable = on_stray, on_unreadable
        self._is_remote = is_remote(self.root)
        if not self._is_remote and not os.path.isdir(self.root):
            raise UsageError(self._no_archive())
        self._subtrees = [_subtree(self.root, name) for name in include]

    def __iter__(self) -> Iterator[SymbolFolder]:
        walk = self._listed if self._is_remote else self._scanned
        for subtree in self._subtrees or [()]:
            yield from walk(subtree)

    def _no_archive(self) -> str:
        return f"{self.root}: expected a folder with an archive, found none"

    # On this machine

    def _scanned(self, subtree: tuple[str, ...]) -> Iterator[SymbolFolder]:
        """The folders of symbols under a folder."""
        is_symbol = len(subtree) == _DEPTH
        found: list[os.DirEntry[str]] = []
        try:
            entries = os.scandir(os.path.join(self.root, *subtree))
            if not is_symbol:
                with entries:
                    found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            self._on_unreadable("/".join(subtree) + "/" * is_symbol, error)
            return
        if is_symbol:
            yield SymbolFolder(subtree, entries)
        for entry in found:
            path = (*subtree, entry.name)
            try:
                is_folder = entry.is_dir()
            except OSError as error:
                self._on_unreadable("/".join(path), error)
                continue
            if not is_folder or (entry.is_symlink() and _is_loop(entry.path)):
                self._on_stray("/".join(path))
            else:
                yield from self._scanned(path)

    # Elsewhere

    def _listed(self, subtree: tuple[str, ...]) -> Iterator[SymbolFolder]:
        folder = "/".join((self.root, *subtree))
        found = iter(storage_of(folder).walk(folder))
        first = next(found, None)
        if first is None:
            if subtree:
                raise UsageError(f"--include {'/'.join(subtree)}: no such folder under {self.root}")
            raise UsageError(self._no_archive())
        yield from self._grouped(subtree, chain([first], found))

    def _grouped(self, subtree: tuple[str, ...], found: Iterable[Found]) -> Iterator[SymbolFolder]:
        def files() -> Iterator[_Listed]:
            for path, size in found:
                parts = (*subtree, *path.split("/"))
                if len(parts) <= _DEPTH or "" in parts:
                    self._on_stray("/".join(parts))
                else:
                    yield _Listed(parts[:_DEPTH], parts[_DEPTH], len(parts) == _DEPTH + 1, size)

        for parts, together in groupby(files(), key=lambda file: file.folder):
            yield SymbolFolder(parts, nullcontext(_each_folder_once(together)))


class _Listed(NamedTuple):
    """An `Entry` of a remote folder: an object, or, where `is_one` is False, one in a folder."""

    folder: tuple[str, ...]
    name: str
    is_one: bool
    st_size: int

    def is_file(self) -> bool:
        return self.is_one

    def stat(self) -> _Listed:
        return self


def _each_folder_once(entries: Iterable[_Listed]) -> Iterator[_Listed]:
    before = ""
    for entry in entries:
        if entry.is_one or entry.name != before:
            yield entry
        before = "" if entry.is_one else entry.name


def _subtree(root: str, name: str) -> tuple[str, ...]:
    if is_remote(root):
        relative = name.removeprefix(root + "/").strip("/")
        parts = tuple(part for part in relative.split("/") if part not in ("", os.curdir))
        outside = os.pardir in parts or (is_remote(name) and not name.startswith(root + "/"))
    else:
        full = os.path.realpath(os.path.join(root, name))
        relative = os.path.relpath(full, root)
        parts = () if relative == os.curdir else tuple(relative.split(os.sep))
        outside = parts[:1] == (os.pardir,)
        if not outside and not os.path.isdir(full):
            raise UsageError(f"--include {name}: no such folder under {root}")
    if outside:
        raise UsageError(f"--include {name}: expected a folder under {root}")
    if len(parts) > _DEPTH:
        raise UsageError(f"--include {name}: deeper than collector/bucket/exchange/symbol")
    return parts


def _is_loop(path: str) -> bool:
    """Whether a link leads to a folder that it stands in itself."""
    target, here = os.path.realpath(path), os.path.realpath(os.path.dirname(path))
    return os.path.commonpath([target, here]) == target
