"""Beam filesystems whose files are held in memory: `kept://` of objects, `tree://` of folders."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from typing import Any, ClassVar

from apache_beam.io.filesystem import (
    BeamIOError,
    CompressionTypes,
    FileMetadata,
    FileSystem,
)


class _Upload(io.BytesIO):
    """A file that is there once it is closed."""

    def __init__(self, files: _Files, path: str) -> None:
        super().__init__()
        self._files, self._path = files, path

    def close(self) -> None:
        if not self.closed:
            self._files.held[self._path] = (self.getvalue(), time.time())
        super().close()


class _Files(FileSystem):
    held: ClassVar[dict[str, tuple[bytes, float]]] = {}
    folders = False

    @classmethod
    def scheme(cls) -> str:
        return "none"

    def join(self, basepath: str, *paths: str) -> str:
        return "/".join((basepath, *paths))

    def split(self, path: str) -> tuple[str, str]:
        head, _, tail = path.rpartition("/")
        return head, tail

    def mkdirs(self, path: str) -> None:
        assert self.folders

    def has_dirs(self) -> bool:
        return self.folders

    def _list(self, dir_or_prefix: str) -> Iterator[FileMetadata]:
        if self.folders:
            yield from self._list_folder(dir_or_prefix.rstrip("/") + "/")
            return
        for path in sorted(self.held):
            if path.startswith(dir_or_prefix):
                yield self.metadata(path)

    def _list_folder(self, folder: str) -> Iterator[FileMetadata]:
        """What is in a folder itself, its folders as empty files, as HDFS does."""
        names = {path[len(folder) :] for path in self.held if path.startswith(folder)}
        if not names:
            raise BeamIOError("List operation failed", {folder: OSError("no such folder")})
        for name in sorted({name.partition("/")[0] for name in names}):
            path = folder + name
            yield self.metadata(path) if name in names else FileMetadata(path, 0, 1.0)

    def create(self, path: str, *_: Any, **kind: Any) -> Any:
        assert kind["compression_type"] == CompressionTypes.UNCOMPRESSED
        if self.folders and path in self.held:
            raise BeamIOError("Create operation failed", {path: OSError("it is there")})
        return _Upload(self, path)

    def open(self, path: str, *_: Any, **kind: Any) -> Any:
        assert kind["compression_type"] == CompressionTypes.UNCOMPRESSED
        return io.BytesIO(self._find(path)[0])

    def _find(self, path: str) -> tuple[bytes, float]:
        if path not in self.held:
            raise BeamIOError(f"File not found: {path}")
        return self.held[path]

    def copy(self, source_file_names: list[str], destination_file_names: list[str]) -> None:
        for source, target in zip(source_file_names, destination_file_names, strict=True):
            self.held[target] = self._find(source)

    def rename(self, source_file_names: list[str], destination_file_names: list[str]) -> None:
        for source, target in zip(source_file_names, destination_file_names, strict=True):
            if target in self.held:
                raise BeamIOError("it is there", {target: FileExistsError(17, "it is there")})
            self.held[target] = self.held.pop(source)

    def exists(self, path: str) -> bool:
        below = path.rstrip("/") + "/"
        return path in self.held or (self.folders and any(p.startswith(below) for p in self.held))

    def size(self, path: str) -> int:
        return len(self._find(path)[0])

    def last_updated(self, path: str) -> float:
        return self._find(path)[1]

    def checksum(self, path: str) -> str:
        return str(hash(self._find(path)[0]))

    def metadata(self, path: str) -> FileMetadata:
        data, changed = self._find(path)
        return FileMetadata(path, len(data), changed)

    def delete(self, paths: list[str]) -> None:
        for path in paths:
            for found in list(self.held):
                if found == path or (self.folders and found.startswith(path + "/")):
                    del self.held[found]


class KeptFiles(_Files):
    """Objects."""

    held: ClassVar[dict[str, tuple[bytes, float]]] = {}

    @classmethod
    def scheme(cls) -> str:
        return "kept"


class TreeFiles(_Files):
    """Files in folders."""

    held: ClassVar[dict[str, tuple[bytes, float]]] = {}
    folders = True

    @classmethod
    def scheme(cls) -> str:
        return "tree"
