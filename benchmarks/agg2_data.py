"""AGG2 archives: a month of a futures market, as a collector writes it.

Written by the specification alone, without candlebeam. Prices and quantities are cut off at eight
decimals as their usual writer does it, with `int(float(price) * 1e8)`.
"""

from __future__ import annotations

import struct
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard

from benchmarks.cache import VERSION, Built
from benchmarks.candle_sums import MINUTE_MS, candle_sums

SYMBOL = "BTCUSDT"
START = datetime(2024, 4, 1, tzinfo=timezone.utc)
LEVEL = 3
DAY_MS = 86_400_000
INDEX_ROW = struct.Struct("<HQQ")
HEADER = struct.Struct("<4sBBHQqq16x")
ROW_DTYPE = np.dtype(
    {
        "names": ["trade_id", "px", "qty", "first_id", "count", "flags", "ts_ms", "side"],
        "formats": ["<u8", "<u8", "<u8", "<u8", "<u2", "<u2", "<i8", "u1"],
        "offsets": [0, 8, 16, 24, 32, 34, 36, 44],
        "itemsize": 48,
    }
)

_TICKS = 10
"""Of a price, in one unit of it."""
_LOTS = 1_000
_MIDDLE = 68_000 * _TICKS
_BLOCK = 500_000


@dataclass(frozen=True)
class Agg2Set:
    """The first days of a month, at most 30."""

    name: str
    days: int
    rows_per_day: int
    base: None = None

    def scaled(self, scale: float) -> Agg2Set:
        """With shorter days."""
        rows = max(round(self.rows_per_day * scale), min(self.rows_per_day, 100))
        return replace(self, rows_per_day=rows)

    def build(self, root: Path) -> Built:
        """Make it in an empty folder."""
        folder = month_folder(root)
        folder.mkdir(parents=True)
        built = Built()
        with (
            (folder / "data.quantdev").open("wb") as data,
            (folder / "index.quantdev").open("wb") as index,
            ProcessPoolExecutor(2) as pool,
        ):
            days = range(1, self.days + 1)
            for day, (blob, part) in zip(
                days, pool.map(_pack_day, days, [self.rows_per_day] * self.days), strict=True
            ):
                index.write(INDEX_ROW.pack(day, data.tell(), len(blob)))
                data.write(blob)
                built += part
        return built


def month_folder(root: Path) -> Path:
    """Where the two files of an archive lie."""
    return root / SYMBOL / f"{START:%Y}" / f"{START:%m}"


def _pack_day(day: int, rows: int) -> tuple[bytes, Built]:
    records = np.zeros(rows, ROW_DTYPE)
    built = Built(files=1, rows=rows)
    ticks = _MIDDLE + int(np.random.default_rng([VERSION, 2, day]).integers(-20_000, 20_000))
    # The ids of a day go on from about where those of the day before ended.
    first_id = 4_800_000_000 + day * rows * 3
    for begin in range(0, rows, _BLOCK):
        block = records[begin : begin + _BLOCK]
        span = (_minute(begin, rows), _minute(begin + len(block), rows))
        rng = np.random.default_rng([VERSION, 2, day, begin])
        block["trade_id"] = np.arange(begin, begin + len(block)) + (2_100_000_000 + day * rows)
        ticks, first_id, part = _fill(rng, block, day, span, ticks, first_id)
        built += part
    ts = records["ts_ms"]
    raw = HEADER.pack(b"AGG2", 1, day, 0, rows, int(ts[0]), int(ts[-1])) + records.tobytes()
    blob = zstandard.ZstdCompressor(level=LEVEL).compress(raw)
    return blob, built + Built(bytes=len(raw), packed_bytes=len(blob))


def _minute(row: int, rows: int) -> int:
    """Where a row would stand in a steady day, to the minute, in ms."""
    return DAY_MS * row // rows // MINUTE_MS * MINUTE_MS


def _fill(
    rng: np.random.Generator,
    block: npt.NDArray[Any],
    day: int,
    span: tuple[int, int],
    ticks: int,
    first_id: int,
) -> tuple[int, int, Built]:
    """The rows of a stretch of a day, which begins at a price of `ticks`.

    Orders come in bursts. A third of the rows share time and side with the row before and go on a
    tick or more in its direction: one order that takes several prices.

    Returns:
        The last price, the next trade's id, and what is there.
    """
    rows = len(block)
    event = np.cumsum(rng.random(rows) < 0.67)
    events = int(event[-1]) + 1
    busy = np.append(0.0, np.cumsum(rng.lognormal(0.0, 0.8, (span[1] - span[0]) // MINUTE_MS)))
    share = np.sort(rng.random(events)) * busy[-1]
    moments = np.interp(share, busy, np.linspace(*span, len(busy)))
    start = int(START.timestamp()) * 1000 + (day - 1) * DAY_MS
    ts = (start + moments.astype(np.int64))[event]
    maker = (rng.random(events) < 0.5)[event]
    swept = np.diff(event, prepend=-1) == 0
    step = np.where(
        swept,
        np.where(maker, -1, 1) * rng.geometric(0.6, rows),
        rng.integers(-3, 4, rows) * (rng.random(rows) < 0.3),
    )
    walk = np.maximum(ticks + np.cumsum(step), 1)
    lots = np.maximum(np.exp(rng.normal(2.5, 1.7, rows)).astype(np.int64), 1)
    lots = np.where(rng.random(rows) < 0.25, rng.integers(1, 6, rows), lots)
    count = np.where(rng.random(rows) < 0.6, 1, 1 + rng.geometric(0.35, rows))
    price, quantity = walk / _TICKS, lots / _LOTS
    block["px"] = (price * 1e8).astype(np.uint64)
    block["qty"] = (quantity * 1e8).astype(np.uint64)
    block["first_id"] = first_id + np.cumsum(count) - count
    block["count"] = count
    block["flags"] = maker
    block["ts_ms"] = ts
    block["side"] = ~maker
    part = candle_sums(ts // MINUTE_MS, price, quantity, count)
    return int(walk[-1]), first_id + int(count.sum()), part
