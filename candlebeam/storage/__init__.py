"""Where files are: on this machine, or wherever a Beam filesystem reaches.

A path with a scheme (`s3://bucket/archive`, `gs://…`, `hdfs://…`) is reached with Beam's options;
every other one, and `file://`, is the operating system's. `storage_of` gives what can be done with
a path. Paths are joined by `/` in both worlds, so `os.path.join`, `dirname` and `basename` serve
both.
"""

from __future__ import annotations

from candlebeam.storage.local import LocalStorage
from candlebeam.storage.paths import absolute, is_remote
from candlebeam.storage.protocol import FileState, Found, OpenInput, Ranges, Storage

__all__ = [
    "FileState",
    "Found",
    "LocalStorage",
    "OpenInput",
    "Ranges",
    "Storage",
    "absolute",
    "is_remote",
    "open_input",
    "storage_of",
]

_LOCAL = LocalStorage()


def storage_of(path: str) -> Storage:
    """What reads and writes a path."""
    if not is_remote(path):
        return _LOCAL
    # Beam and boto3 are imported only where there is such a path.
    if path.startswith("s3://"):
        from candlebeam.storage.s3 import S3Storage

        return S3Storage()
    from candlebeam.storage.remote import RemoteStorage

    return RemoteStorage()


def open_input(path: str, ranges: Ranges | None = None) -> OpenInput:
    """Opens a file to be read; see `Storage.open_input`."""
    return storage_of(path).open_input(path, ranges)
