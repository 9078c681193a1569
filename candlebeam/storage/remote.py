"""Files of Beam's filesystems: object stores, HDFS.

An object appears when its upload ends, whole or not at all; nothing is appended and nothing locks.
What is read is fetched into a local file without a name, so that readers know descriptors alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from candlebeam.storage.durable import write_all
from candlebeam.storage.protocol import FileState, Found, OpenInput, Ranges

_PIECE = 1 << 20
#: Files that are fetched at the same time.
_AT_ONCE = 8
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
        descriptor = _nameless()
        try:
            with _filesystem(path) as files:
                state = _state(files, path)
                with _opened(files, path) as source:
                    for offset, length in [(0, state.size)] if ranges is None else ranges:
                        _copy(source, offset, min(length, state.size - offset), descriptor, path)
            os.ftruncate(descriptor, state.size)
            os.lseek(descriptor, 0, os.SEEK_SET)
        except BaseException:
            os.close(descriptor)
            raise
        return OpenInput(descriptor, *state)

    def state(self, path: str) -> FileState:
        with _filesystem(path) as files:
            return _state(files, path)

    def exists(self, path: str) -> bool:
        with _filesystem(path) as files:
            return bool(files.exists(path))

    def read(self, path: str, offset: int = 0, length: int = -1) -> bytes:
        with _filesystem(path) as files, _opened(files, path) as source:
            if offset:
                source.seek(offset)
            data: bytes = source.read(length)
            return data

    def walk(self, folder: str) -> Iterator[Found]:
        prefix = folder.rstrip("/") + "/"
        with _filesystem(prefix) as files:
            # Not `match`, which would hold all of them in memory and take some names for patterns.
            for found in files._list(prefix):
                if not found.path.endswith("/"):
                    yield Found(found.path[len(prefix) :], found.size_in_bytes)

    def names(self, folder: str) -> Iterator[str]:
        for found in self.walk(folder):
            yield found.path

    @contextmanager
    def fetched(self, paths: Sequence[str]) -> Iterator[list[str]]:
        with tempfile.TemporaryDirectory(prefix="candlebeam-") as folder:
            copies = [os.path.join(folder, str(number)) for number in range(len(paths))]
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                for _ in pool.map(self._fetch, paths, copies):
                    pass
            yield copies

    def _fetch(self, path: str, copy: str) -> None:
        opened = self.open_input(path)
        with os.fdopen(opened.descriptor, "rb") as source, open(copy, "wb") as target:
            shutil.copyfileobj(source, target, _PIECE)

    def make_folder(self, path: str) -> None:
        with _filesystem(path) as files:
            if files.has_dirs() and not files.exists(path):
                files.mkdirs(path)

    def write(self, path: str, data: bytes, *, durable: bool = True) -> None:
        with self.placing(path) as descriptor:
            write_all(descriptor, data)

    @contextmanager
    def placing(self, path: str, *, durable: bool = True) -> Iterator[int]:
        descriptor = _nameless()
        try:
            yield descriptor
            size = os.fstat(descriptor).st_size
            os.lseek(descriptor, 0, os.SEEK_SET)
            with _filesystem(path) as files:
                target = files.create(path, **_RAW)
                while data := os.read(descriptor, _PIECE):
                    target.write(data)
                target.close()
                found = _state(files, path).size
        finally:
            os.close(descriptor)
        if found != size:
            raise OSError(errno.EIO, f"{size} bytes were uploaded but {found} are there", path)

    def replace(self, source: str, target: str) -> None:
        with _filesystem(target) as files:
            if files.has_dirs():
                if files.exists(target):
                    files.delete([target])
                files.rename([source], [target])
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


def _nameless() -> int:
    """A local file that is gone when its descriptor is closed."""
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


@contextmanager
def _filesystem(path: str) -> Iterator[Any]:
    """What reaches a path; what goes wrong with it is an `OSError` with the path and one line."""
    if getattr(FileSystems, "_pipeline_options", None) is None:
        FileSystems.set_options(PipelineOptions([]))
    try:
        files = FileSystems.get_filesystem(path)
        if path.startswith("s3://"):
            from candlebeam.storage.s3 import borrowed

            with borrowed(FileSystems._pipeline_options) as files:
                yield files
        else:
            yield files
    except (GeneratorExit, AssertionError):
        raise
    except Exception as error:  # each library has its own errors
        raise _as_os_error(path, error) from error


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
        data = source.read(min(_PIECE, end - offset))
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
    if isinstance(error, FileNotFoundError) or code == 404 or "404" in str(error)[:80]:
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    if isinstance(error, OSError) and error.errno == errno.ENOENT:
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    if isinstance(error, OSError) and error.errno and error.filename is None and error.strerror:
        return OSError(error.errno, error.strerror, path)
    reason = " ".join(str(error).split()) or type(error).__name__
    if "Unable to get filesystem from specified path" in reason:
        reason = "no Beam filesystem for this scheme is installed (s3:// wants candlebeam[s3])"
    return OSError(errno.EIO, reason, path)
