"""Tests of what a user may not read or write, which root may."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65_534


@contextmanager
def unprivileged_folder() -> Iterator[Path]:
    """A new folder of a user who is not root; inside the `with`, this process is that user."""
    folder = Path(tempfile.mkdtemp(prefix="candlebeam-test-"))
    as_root = os.geteuid() == 0
    try:
        if as_root:
            os.chown(folder, NOBODY, NOBODY)
            os.setegid(NOBODY)
            os.seteuid(NOBODY)
        yield folder
    finally:
        if as_root:
            os.seteuid(0)
            os.setegid(0)
        for parent, _, _ in os.walk(folder):
            Path(parent).chmod(0o700)
        shutil.rmtree(folder)
