"""AGG2 archives of a month, made by hand: what their own writer would have left."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import zstandard

from candlebeam.model import Records

#: 2024-01-01.
START = 1_704_067_200_000
DAY_MS = 86_400_000
ROW = np.dtype(
    [
        ("trade_id", "<u8"),
        ("px", "<u8"),
        ("qty", "<u8"),
        ("first_id", "<u8"),
        ("count", "<u2"),
        ("flags", "<u2"),
        ("ts", "<i8"),
        ("side", "u1"),
        ("pad", "V3"),
    ]
)


def day_rows(day: int, count: int) -> Records:
    """Rows of a day of January 2024, the first at midnight; prices of two decimals, truncated."""
    random = np.random.default_rng(day)
    rows = np.zeros(count, ROW)
    rows["trade_id"] = day * 1_000_000 + np.arange(count)
    rows["px"] = (random.integers(4_000_000, 4_100_000, count) * 1_000_000).astype(np.uint64)
    rows["qty"] = random.integers(1, 5_000, count) * 100_000
    rows["count"] = random.integers(1, 9, count)
    rows["flags"] = random.integers(0, 2, count)
    rows["side"] = 1 - rows["flags"]
    ts = np.sort(random.integers(0, DAY_MS, count))
    ts[0] = 0
    rows["ts"] = START + (day - 1) * DAY_MS + ts
    return rows


class BlobArchive:
    """An archive of day blobs of January 2024 under a folder."""

    def __init__(self, base: Path) -> None:
        self.base = base

    def folder(self, symbol: str) -> Path:
        return self.base / symbol / "2024" / "01"

    def data(self, symbol: str) -> Path:
        return self.folder(symbol) / "data.quantdev"

    def index(self, symbol: str) -> Path:
        return self.folder(symbol) / "index.quantdev"

    def add(self, symbol: str, day: int, rows: Records) -> None:
        """Appends the blob of a day, then its index row."""
        self.folder(symbol).mkdir(parents=True, exist_ok=True)
        span = (int(rows["ts"].min()), int(rows["ts"].max())) if len(rows) else (0, 0)
        header = struct.pack("<4sBBHQqq16x", b"AGG2", 1, day, 0, len(rows), *span)
        blob = zstandard.ZstdCompressor(3).compress(header + rows.tobytes())
        with self.data(symbol).open("ab") as data:
            offset = data.tell()
            data.write(blob)
        with self.index(symbol).open("ab") as index:
            index.write(struct.pack("<HQQ", day, offset, len(blob)))
