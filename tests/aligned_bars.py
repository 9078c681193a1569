"""Bars as literals, and what an aligned file of them has to be, for the tests of aligned files."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from candlebeam.formats.aligned.file import AlignedPaths
from candlebeam.model import BAR_COLUMNS, Bars
from tests.trade_batches import MIDNIGHT, MINUTE

#: ts, open, high, low, close, volume.
Bar = tuple[int, float, float, float, float, float]


def bars_from(rows: Iterable[Bar]) -> Bars:
    """Rows as columns."""
    columns = list(zip(*rows, strict=True)) or [()] * len(BAR_COLUMNS)
    ts, *values = columns
    return Bars(np.array(ts, np.int64), *(np.array(column, np.float64) for column in values))


def rows_of(bars: Bars) -> list[Bar]:
    """Columns as rows."""
    columns = [getattr(bars, name).tolist() for name in BAR_COLUMNS]
    return list(zip(*columns, strict=True))


def gap(minute: int) -> Bar:
    """A minute without trades."""
    return (MIDNIGHT + minute * MINUTE.ms, math.nan, math.nan, math.nan, math.nan, 0.0)


def minutes(begin: int, end: int, *gaps: int, seed: int = 1) -> list[Bar]:
    """A bar for each minute, all different; those of one seed are always the same."""
    rows = []
    for minute in range(begin, end):
        price = 100.0 + seed + minute / 8
        bar = (price, price + 0.5, price - 0.25, price + 0.125, 3.0 * minute + seed)
        rows.append(gap(minute) if minute in gaps else (MIDNIGHT + minute * MINUTE.ms, *bar))
    return rows


def filled(rows: Iterable[Bar], gaps: str, close: float = math.nan) -> list[Bar]:
    """What is written for bars, one after the other; gaps are zeros, or filled, or left out."""
    found = []
    for ts, *values in rows:
        if math.isnan(values[0]):
            if gaps == "skip":
                continue
            price = 0.0 if gaps == "zero" or math.isnan(close) else close
            values = [price] * 4 + [0.0]
        else:
            close = values[3]
        found.append((ts, *values))
    return found  # type: ignore[return-value]


def encoded(rows: Iterable[Bar], gaps: str = "zero") -> bytes:
    """The bytes of the records."""
    return b"".join(struct.pack("<Q5d16x", *row) for row in filled(rows, gaps))


def index_bytes(last_date: int, in_pos: int, out_pos: int) -> bytes:
    """An index of 24 bytes."""
    return struct.pack("<i4xQQ", last_date, in_pos, out_pos)


def write_aligned(
    folder: Path, records: bytes, index: bytes | None, timeframe: str = "1m"
) -> AlignedPaths:
    """An aligned file as another program writes it: records and index, and nothing else."""
    paths = AlignedPaths.of(str(folder), timeframe, "btcusdt")
    os.makedirs(os.path.dirname(paths.index), exist_ok=True)
    Path(paths.records).write_bytes(records)
    if index is not None:
        Path(paths.index).write_bytes(index)
    return paths
