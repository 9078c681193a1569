"""What can be done with files, wherever they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

#: Parts of a file: (offset, length) in bytes each.
Ranges = Sequence[tuple[int, int]]


class FileState(NamedTuple):
    """Tells a file from what it was.

    Attributes:
        size: in bytes.
        mtime_ns: when it was last changed, in ns since 1970.
    """

    size: int
    mtime_ns: int


class OpenInput(NamedTuple):
    """A file that is open.

    Attributes:
        descriptor: to be read by; whoever opened it closes it. Of a remote file: of a local copy.
        size, mtime_ns: of the file when it was opened; see `FileState`.
    """

    descriptor: int
    size: int
    mtime_ns: int


class Found(NamedTuple):
    """A file that was listed: its path below the folder, and its size in bytes."""

    path: str
    size: int


class Storage(Protocol):
    """One kind of storage. Methods raise `OSError`; `FileNotFoundError` where a file is not there.

    Attributes:
        is_local: whether files can be written in part, renamed and locked.
    """

    is_local: bool

    def open_input(self, path: str, ranges: Ranges | None = None) -> OpenInput:
        """Opens a regular file to be read.

        Args:
            ranges: all that will be read of it, if that is known: of a remote file the rest is
                not fetched and reads as zeros.
        """
        ...

    def state(self, path: str) -> FileState:
        """Of a file."""
        ...

    def exists(self, path: str) -> bool:
        """Whether a file is there. A folder of a remote storage never is."""
        ...

    def read(self, path: str, offset: int = 0, length: int = -1) -> bytes:
        """The bytes of a file from `offset` on, all of them or `length`, if there are as many."""
        ...

    def walk(self, folder: str) -> Iterator[Found]:
        """The files at any depth below a folder, in no order."""
        ...

    def names(self, folder: str) -> Iterator[str]:
        """The paths, below a folder, of the files at any depth; none if it is not there."""
        ...

    def fetched(self, paths: Sequence[str]) -> AbstractContextManager[list[str]]:
        """Local paths by which files can be read while the context is open."""
        ...

    def make_folder(self, path: str) -> None:
        """Makes a folder and those above it, where there is such a thing."""
        ...

    def write(self, path: str, data: bytes, *, durable: bool = True) -> None:
        """Puts a file in place at once; who reads it sees the old bytes or all of the new ones.

        `durable`: whether it outlasts a power cut from then on. Its folder must be there.
        """
        ...

    def placing(self, path: str, *, durable: bool = True) -> AbstractContextManager[int]:
        """A descriptor to write a file by, which is put in place at the end of the `with`.

        If the `with` ends with an error, nothing changes.
        """
        ...

    def replace(self, source: str, target: str) -> None:
        """Puts a file in the place of another. Doing so again after a crash does no harm."""
        ...

    def remove(self, path: str) -> None:
        """Removes a file that may not be there."""
        ...

    def remove_tree(self, folder: str) -> None:
        """Removes a folder, that may not be there, with all that is in it, as far as possible."""
        ...
