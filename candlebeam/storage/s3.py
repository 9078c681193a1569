"""Objects of S3, and of stores that speak as it does."""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from itertools import islice
from typing import Any, NamedTuple

from candlebeam.storage import s3_client
from candlebeam.storage.durable import write_all
from candlebeam.storage.elsewhere import PIECE, fetched_by, open_copy, uploading
from candlebeam.storage.protocol import FileState, Found, OpenInput, Ranges
from candlebeam.storage.s3_client import Place

#: Larger objects are sent and copied in parts of this size.
PART_BYTES = 64 << 20
#: As many keys as one request removes.
_REMOVED_AT_ONCE = 1000
_KIND = {"ContentType": "application/octet-stream"}


class S3Storage:
    """A `Storage` of objects.

    Its keys and endpoint are those of Beam's options `s3_…`, as `storage.remote` finds them, and
    for what these do not say those of the environment and the files of AWS.
    """

    is_local = False

    def open_input(self, path: str, ranges: Ranges | None = None) -> OpenInput:
        def fill(descriptor: int) -> FileState:
            if ranges is None:
                whole = _Part(path)
                whole.copy_to(descriptor)
                return whole.found.state
            found = _look(path)
            for offset, length in ranges:
                end = min(offset + length, found.state.size)
                if offset < end:
                    _Part(path, offset, end, found).copy_to(descriptor)
            return found.state

        return open_copy(fill)

    def state(self, path: str) -> FileState:
        return _look(path).state

    def exists(self, path: str) -> bool:
        try:
            _look(path)
        except FileNotFoundError:
            return False
        return True

    def read(self, path: str, offset: int = 0, length: int = -1) -> bytes:
        if offset == 0 and length < 0:
            return b"".join(_Part(path).pieces())
        found = _look(path)
        end = found.state.size if length < 0 else min(offset + length, found.state.size)
        return b"".join(_Part(path, offset, end, found).pieces()) if offset < end else b""

    def walk(self, folder: str) -> Iterator[Found]:
        bucket, prefix = Place.of(folder.rstrip("/") + "/")
        more: dict[str, str] = {}
        while True:
            page = s3_client.ask(folder, "list_objects_v2", Bucket=bucket, Prefix=prefix, **more)
            for found in page.get("Contents", ()):
                # Such a key only has a folder shown by those who look for folders.
                if not found["Key"].endswith("/"):
                    yield Found(found["Key"][len(prefix) :], found["Size"])
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def names(self, folder: str) -> Iterator[str]:
        for found in self.walk(folder):
            yield found.path

    def fetched(self, paths: Sequence[str]) -> AbstractContextManager[list[str]]:
        return fetched_by(self, paths)

    def make_folder(self, path: str) -> None:
        """There are prefixes alone."""

    def write(self, path: str, data: bytes, *, durable: bool = True) -> None:
        bucket, key = Place.of(path)
        s3_client.ask(path, "put_object", Bucket=bucket, Key=key, Body=data, **_KIND)

    def placing(self, path: str, *, durable: bool = True) -> AbstractContextManager[int]:
        def upload(descriptor: int, size: int) -> None:
            with os.fdopen(os.dup(descriptor), "rb") as file:
                if size <= PART_BYTES:
                    self.write(path, file.read())
                    return
                bucket, key = Place.of(path)
                config = _in_parts()
                s3_client.transfer(
                    path, "upload_fileobj", file, bucket, key, ExtraArgs=_KIND, Config=config
                )

        return uploading(upload)

    def replace(self, source: str, target: str) -> None:
        old, (bucket, key) = Place.of(source), Place.of(target)
        origin = {"Bucket": old.bucket, "Key": old.key}
        if _look(source).state.size > PART_BYTES:
            s3_client.transfer(target, "copy", origin, bucket, key, Config=_in_parts())
        else:
            s3_client.ask(target, "copy_object", CopySource=origin, Bucket=bucket, Key=key)
        self.remove(source)

    def remove(self, path: str) -> None:
        bucket, key = Place.of(path)
        s3_client.ask(path, "delete_object", Bucket=bucket, Key=key)

    def remove_tree(self, folder: str) -> None:
        bucket, prefix = Place.of(folder.rstrip("/") + "/")
        with suppress(OSError):
            found = self.walk(folder)
            while keys := [{"Key": prefix + f.path} for f in islice(found, _REMOVED_AT_ONCE)]:
                gone = {"Objects": keys, "Quiet": True}
                s3_client.ask(folder, "delete_objects", Bucket=bucket, Delete=gone)


class _Version(NamedTuple):
    """An object as it was found; `tag` differs wherever its bytes do."""

    state: FileState
    tag: str


def _version(answer: dict[str, Any], size: int) -> _Version:
    # The time is in whole seconds. Its fraction stands for the bytes: an object may be replaced
    # twice a second.
    tag = answer["ETag"]
    seconds = int(answer["LastModified"].timestamp())
    fraction = zlib.crc32(tag.encode()) % 1_000_000_000
    return _Version(FileState(size, seconds * 1_000_000_000 + fraction), tag)


def _look(path: str) -> _Version:
    bucket, key = Place.of(path)
    answer = s3_client.ask(path, "head_object", Bucket=bucket, Key=key)
    return _version(answer, answer["ContentLength"])


class _Part:
    """The bytes of an object from `begin` to `end`, or all of them.

    Where the connection breaks they are asked for from there on, of the same version.
    """

    def __init__(
        self, path: str, begin: int = 0, end: int | None = None, found: _Version | None = None
    ) -> None:
        self._path, self._at = path, begin
        self._known, self._end = found, end
        self._open()

    def _open(self) -> None:
        bucket, key = Place.of(self._path)
        request = {"Bucket": bucket, "Key": key}
        if self._known is not None:
            request["IfMatch"] = self._known.tag
            request["Range"] = f"bytes={self._at}-{(self._end or 0) - 1}"
        answer = s3_client.ask(self._path, "get_object", **request)
        self._body = answer["Body"]
        if self._known is None:
            self._known = _version(answer, answer["ContentLength"])
            self._end = self._known.state.size

    @property
    def found(self) -> _Version:
        """The object that is read."""
        assert self._known is not None
        return self._known

    def pieces(self) -> Iterator[bytes]:
        """The bytes in order."""
        attempt, end = 1, self._end or 0
        while self._at < end:
            data = self._read(min(PIECE, end - self._at))
            if data:
                attempt = 1
                self._at += len(data)
                yield data
                continue
            if attempt == s3_client.ATTEMPTS:
                raise OSError(errno.EIO, f"the connection broke at byte {self._at}", self._path)
            s3_client.pause(attempt)
            attempt += 1
            self._open()
        self._body.close()

    def _read(self, length: int) -> bytes:
        """Some bytes; none where the connection broke."""
        with s3_client.errors_of(self._path):
            try:
                data: bytes = self._body.read(length)
            except Exception as error:
                if not s3_client.may_pass(error):
                    raise
                data = b""
        if not data:
            self._body.close()
        return data

    def copy_to(self, descriptor: int) -> None:
        """Writes the bytes to the same place of a local file."""
        for data in self.pieces():
            write_all(descriptor, data, self._at - len(data))


def _in_parts() -> Any:
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES)
