"""Paths of files, here and elsewhere."""

from __future__ import annotations

import os
import re

from candlebeam.errors import UsageError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_FILE = "file://"


def is_remote(path: str) -> bool:
    """Whether a path is one of a Beam filesystem.

    >>> is_remote("s3://bucket/archive"), is_remote("/data/archive"), is_remote("file:///data")
    (True, False, False)
    """
    return "://" in path and _SCHEME.match(path) is not None and not path.startswith(_FILE)


def expect_local(path: str) -> None:
    """Raises `UsageError` for a remote path, where files have to be mapped into memory."""
    if is_remote(path):
        raise UsageError(f"{path}: expected a local path; only index and backfill reach others")


def absolute(path: str) -> str:
    """The full path of a local file; a remote path without slashes at its end.

    >>> absolute("s3://bucket/archive/"), absolute("file:///data/archive")
    ('s3://bucket/archive', '/data/archive')
    """
    if is_remote(path):
        return path.rstrip("/")
    return os.path.abspath(path.removeprefix(_FILE))


def real(path: str) -> str:
    """`absolute`, with the links of a local path resolved."""
    found = absolute(path)
    return found if is_remote(found) else os.path.realpath(found)
