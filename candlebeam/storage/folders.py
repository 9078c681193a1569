"""What is in folders, wherever they are."""

from __future__ import annotations

import os

from candlebeam.storage import is_remote, storage_of


class Folder:
    """A folder and all below it. Paths are relative to it, "" for itself.

    Of a local one each folder is looked at when it is asked for. A store of objects knows only
    prefixes, so that all of its names are listed at once, and held.

    Args:
        path: its full path.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._sizes: dict[str, int] | None = None
        self._below: dict[str, dict[str, bool]] = {}
        if is_remote(path):
            self._sizes = {found.path: found.size for found in storage_of(path).walk(path)}
            for name in self._sizes:
                self._note(name)

    def _note(self, path: str) -> None:
        is_folder = False
        while path:
            above, _, name = path.rpartition("/")
            self._below.setdefault(above, {})[name] = is_folder
            path, is_folder = above, True

    def __bool__(self) -> bool:
        """Whether it is there."""
        return os.path.isdir(self.path) if self._sizes is None else bool(self._sizes)

    def is_folder(self, below: str) -> bool:
        """Whether there is a folder of this path."""
        if self._sizes is None:
            return os.path.isdir(os.path.join(self.path, below))
        return below in self._below

    def entries(self, below: str = "") -> list[tuple[str, bool]]:
        """Names and whether they are folders, in a folder; sorted. Raises `OSError`."""
        if self._sizes is not None:
            return sorted(self._below.get(below, {}).items())
        with os.scandir(os.path.join(self.path, below)) as found:
            return sorted((entry.name, entry.is_dir()) for entry in found)

    def size(self, path: str) -> int:
        """Bytes of a file. Raises `OSError`."""
        if self._sizes is None:
            return os.path.getsize(os.path.join(self.path, path))
        try:
            return self._sizes[path]
        except KeyError:
            raise FileNotFoundError(2, "No such file", os.path.join(self.path, path)) from None
