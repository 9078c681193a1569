"""Beam's files of S3, by clients that are kept.

Beam makes a new client for every call, which takes a tenth of a second of the processor: more than
most calls themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from apache_beam.io.aws import s3io
from apache_beam.io.aws.clients.s3 import boto3_client
from apache_beam.io.filesystem import FileMetadata
from apache_beam.options.pipeline_options import PipelineOptions

# Those that nobody uses at the moment, with the options they were made with. A client is not for
# several threads at a time: it remembers how far it has read.
_idle: list[tuple[PipelineOptions, S3Files]] = []


@contextmanager
def borrowed(options: PipelineOptions) -> Iterator[S3Files]:
    """A client with these options, for one thread."""
    made_with, files = None, None
    with suppress(IndexError):
        made_with, files = _idle.pop()
    if files is None or made_with is not options:
        files = S3Files(options)
    try:
        yield files
    finally:
        _idle.append((options, files))


class S3Files:
    """What `apache_beam.io.aws.s3filesystem.S3FileSystem` does, by one client."""

    def __init__(self, options: PipelineOptions) -> None:
        self._io = s3io.S3IO(client=boto3_client.Client(options=options))

    def has_dirs(self) -> bool:
        """Whether there are folders: there are prefixes alone."""
        return False

    def metadata(self, path: str) -> FileMetadata:
        """The size and the age of an object."""
        found = self._io._status(path)
        return FileMetadata(path, found["size"], found["last_updated"])

    def exists(self, path: str) -> bool:
        """Whether there is an object of this name."""
        return bool(self._io.exists(path))

    def open(self, path: str, **_: Any) -> Any:
        """A file to read by."""
        return self._io.open(path, "rb")

    def create(self, path: str, mime_type: str, **_: Any) -> Any:
        """A file to write by; the object is there once it is closed."""
        return self._io.open(path, "wb", mime_type=mime_type)

    def copy(self, sources: list[str], targets: list[str]) -> list[Any]:
        """Copies objects where they are; gives (source, target, error or None) each."""
        found: list[Any] = self._io.copy_paths(list(zip(sources, targets, strict=True)))
        return found

    def delete(self, paths: list[str]) -> None:
        """Removes objects."""
        for error in self._io.delete_paths(paths).values():
            if error is not None:
                raise error

    def _list(self, prefix: str) -> Iterator[FileMetadata]:
        for path, (size, updated) in self._io.list_files(prefix, with_metadata=True):
            yield FileMetadata(path, size, updated)
