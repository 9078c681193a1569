"""Files of Beam's filesystems: HDFS, Google's and Microsoft's stores of objects.

S3 has a storage of its own (`storage.s3`), which takes Beam's options as well.

Where there are folders (HDFS), files cannot be written over and a listing goes one level deep.
There a file is written beside its place, the old one is removed, and the new one renamed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from candlebeam.storage.durable import write_all
from candlebeam.storage.elsewhere import PIECE, fetched_by, open_copy, uploading
from candlebeam.storage.protocol import FileState, Found, OpenInput, Ranges

_RAW = {
    "mime_type": "application/octet-stream",
    "compression_type": CompressionTypes.UNCOMPRESSED,
}


class RemoteStorage:
    """A `Storage` of the files that Beam reaches by a scheme.

    Its options (keys, endpoints) are Beam's: those that `use_options` was given, in a worker those
    of the pipeline, and without any those of the environment.
    """

    is_local = False

    def open_input(self, path: str, ranges: Ranges | None = None) -> OpenInput:
        def fill(descriptor: int) -> FileState:
            with _filesystem(path) as files:
                state = _state(files, path)
                with _opened(files, path) as source:
                    for offset, length in [(0, state.size)] if ranges is None else ranges:
                        _copy(source, offset, min(length, state.size - offset), descriptor, path)
            return state

        return open_copy(fill)

    def state(self, path: str) -> FileState:
        with _filesystem(path) as files:
            return _state(files, path)

    def exists(self, path: str) -> bool:
        with _filesystem(path) as files:
            return bool(files.exists(path)) and not (files.has_dirs() and _is_folder(files, path))

    def read(self, path: str, offset: int = 0, length: int = -1) -> bytes:
        with _filesystem(path) as files, _opened(files, path) as source:
            if offset:
                source.seek(offset)
            data: bytes = source.read(length)
            return data

    def walk(self, folder: str) -> Iterator[Found]:
        prefix = folder.rstrip("/") + "/"
        with _filesystem(prefix) as files:
            for path, size in _files_below(files, prefix):
                yield Found(path[len(prefix) :], size)

    def names(self, folder: str) -> Iterator[str]:
        for found in self.walk(folder):
            yield found.path

    def fetched(self, paths: Sequence[str]) -> AbstractContextManager[list[str]]:
        return fetched_by(self, paths)

    def make_folder(self, path: str) -> None:
        with _filesystem(path) as files:
            if files.has_dirs() and not files.exists(path):
                files.mkdirs(path)

    def write(self, path: str, data: bytes, *, durable: bool = True) -> None:
        with self.placing(path) as descriptor:
            write_all(descriptor, data)

    def placing(self, path: str, *, durable: bool = True) -> AbstractContextManager[int]:
        def upload(descriptor: int, size: int) -> None:
            with _filesystem(path) as files:
                place = _beside(path) if files.has_dirs() else path
                with contextlib.closing(files.create(place, **_RAW)) as target:
                    while data := os.read(descriptor, PIECE):
                        target.write(data)
                found = _state(files, place).size
                if found != size:
                    reason = f"{size} bytes were uploaded but {found} are there"
                    raise OSError(errno.EIO, reason, path)
                if place != path:
                    _rename(files, place, path)

        return uploading(upload)

    def replace(self, source: str, target: str) -> None:
        with _filesystem(target) as files:
            if files.has_dirs():
                _rename(files, source, target)
                return
            _raise_first(target, files.copy([source], [target]))
            files.delete([source])

    def remove(self, path: str) -> None:
        with _filesystem(path) as files:
            if files.exists(path):
                files.delete([path])

    def remove_tree(self, folder: str) -> None:
        with contextlib.suppress(OSError), _filesystem(folder) as files:
            if files.has_dirs():
                files.delete([folder])
                return
            paths = [os.path.join(folder, found.path) for found in self.walk(folder)]
            if paths:
                files.delete(paths)


def use_options(options: PipelineOptions) -> None:
    """Has remote files read and written with the options of a pipeline, in all of this process."""
    FileSystems.set_options(options)


@contextmanager
def _filesystem(path: str) -> Iterator[Any]:
    """What reaches a path; what goes wrong with it is an `OSError` with the path and one line."""
    if getattr(FileSystems, "_pipeline_options", None) is None:
        FileSystems.set_options(PipelineOptions([]))
    try:
        yield FileSystems.get_filesystem(path)
    except (GeneratorExit, AssertionError):
        raise
    except Exception as error:  # each library has its own errors
        raise _as_os_error(path, error) from error


def _files_below(files: Any, folder: str) -> Iterator[Found]:
    """All files below a folder or prefix, by their full paths."""
    if files.has_dirs() and not _is_folder(files, folder):
        return
    # Not `match`, which would hold all of them in memory and take some names for patterns.
    for found in files._list(folder):
        # A folder is listed as an empty file is.
        if files.has_dirs() and not found.size_in_bytes and _is_folder(files, found.path):
            yield from _files_below(files, found.path)
        elif not found.path.endswith("/"):
            yield Found(found.path, found.size_in_bytes)


def _is_folder(files: Any, path: str) -> bool:
    """Whether a path of a filesystem with folders is one: a file cannot be listed."""
    try:
        next(iter(files._list(path)), None)
    except BeamIOError:
        return False
    return True


def _beside(path: str) -> str:
    """A name of its own in the folder of a file; it is not taken for one that is whole."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.{uuid.uuid4().hex}.tmp")


def _rename(files: Any, source: str, target: str) -> None:
    _state(files, source)  # without it the target must stay
    if files.exists(target):
        files.delete([target])
    files.rename([source], [target])


def _state(files: Any, path: str) -> FileState:
    found = files.metadata(path)
    return FileState(found.size_in_bytes, int(found.last_updated_in_seconds * 1_000_000_000))


@contextmanager
def _opened(files: Any, path: str) -> Iterator[Any]:
    with contextlib.closing(files.open(path, **_RAW)) as source:
        yield source


def _copy(source: Any, offset: int, length: int, descriptor: int, path: str) -> None:
    """Copies a part of a remote file to the same place of a local one."""
    source.seek(offset)
    end = offset + length
    while offset < end:
        data = source.read(min(PIECE, end - offset))
        if not data:
            raise OSError(errno.EIO, f"it ended at byte {offset}, before its size", path)
        write_all(descriptor, data, offset)
        offset += len(data)


def _raise_first(path: str, results: Any) -> None:
    """Raises what went wrong in a copy; some filesystems return it instead of raising it."""
    for *_, error in results or ():
        if error is not None:
            raise _as_os_error(path, error)


def _as_os_error(path: str, error: BaseException) -> OSError:
    if isinstance(error, BeamIOError) and error.exception_details:
        inner = next(iter(error.exception_details.values()))
        if isinstance(inner, BaseException):
            return _as_os_error(path, inner)
    code = getattr(error, "code", None)
    said = str(error)[:80]
    if isinstance(error, FileNotFoundError) or code == 404 or "404" in said or "not found" in said:
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    if isinstance(error, OSError) and error.errno == errno.ENOENT:
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    if isinstance(error, OSError) and error.errno and error.strerror:
        return OSError(error.errno, error.strerror, path)
    reason = " ".join(str(error).split()) or type(error).__name__
    if "Unable to get filesystem from specified path" in reason:
        reason = "no Beam filesystem for this scheme is installed"
    return OSError(errno.EIO, reason, path)
