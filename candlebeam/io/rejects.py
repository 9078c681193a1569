"""Rejected rows, kept for the user: one file an input that has any.

`{folder}/{collector}/{exchange}/{symbol}/{file name}.{digits}.tsv` with a line a row: input, line
number, reason, and the row as it was, or its first bytes if it is long. The digits stand for the
whole path of the input.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from candlebeam.model import Market
from candlebeam.settings import digest
from candlebeam.storage import storage_of

RejectedRow = tuple[int, str, bytes]


def write_rejects(folder: str, market: Market, path: str, rows: Iterable[RejectedRow]) -> None:
    """Writes the rejected rows of one input; the file of an earlier run is replaced."""
    asked = path.encode(errors="surrogateescape")
    lines = [b"\t".join((asked, b"%d" % line, reason.encode(), raw)) for line, reason, raw in rows]
    target = os.path.join(folder, *market.path.split("/"))
    storage = storage_of(folder)
    storage.make_folder(target)
    target = os.path.join(target, f"{os.path.basename(path)}.{digest(path)[:8]}.tsv")
    storage.write(target, b"".join(line + b"\n" for line in lines), durable=False)
