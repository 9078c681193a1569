"""The files of a folder that are there for users."""

from __future__ import annotations

import os
from collections.abc import Iterator

from candlebeam.storage import is_remote, storage_of


def visible_files(folder: str) -> Iterator[str]:
    """The paths of the files at any depth below a folder, sorted within each of its folders.

    What has a name that begins with a dot is passed over.
    """
    if is_remote(folder):
        for path in sorted(found.path for found in storage_of(folder).walk(folder)):
            if not any(part.startswith(".") for part in path.split("/")):
                yield os.path.join(folder, path)
        return
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield os.path.join(here, name)
