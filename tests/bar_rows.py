"""Bars as literal rows, as values that compare, and as a source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from candlebeam.formats.bar_source import Piece
from candlebeam.model import BAR_COLUMNS, Bars, Market, Timeframe
from tests.trade_batches import MARKET


def bars_from(rows: Sequence[tuple[float, ...]]) -> Bars:
    """Bars of rows of ts, open, high, low, close and volume."""
    columns = list(zip(*rows, strict=True)) or [()] * len(BAR_COLUMNS)
    return Bars(np.array(columns[0], np.int64), *(np.array(c, np.float64) for c in columns[1:]))


def rows_of_bars(bars: Bars) -> list[tuple[Any, ...]]:
    """The inverse of `bars_from`."""
    return list(zip(*(getattr(bars, name).tolist() for name in BAR_COLUMNS), strict=True))


def exact(bars: Bars) -> list[tuple[Any, ...]]:
    """Rows that are equal where all bits are, also of NaN and of zeros."""
    columns = (getattr(bars, name).view(np.int64).tolist() for name in BAR_COLUMNS)
    return list(zip(*columns, strict=True))


@dataclass(frozen=True)
class HeldBars:
    """A `BarSource` of bars in memory."""

    bars: Bars
    timeframe: Timeframe | None
    piece_bars: int = 1_000
    market: Market = MARKET
    path: str = "held"
    record_bytes: int = 1
    closed: int | None = None

    def pieces(self, begin: int = 0) -> Iterator[Piece]:
        for start in range(begin, len(self.bars), self.piece_bars):
            yield Piece(start, self.bars.part(slice(start, start + self.piece_bars)))

    def checksum(self, end: int) -> int:
        return hash(tuple(exact(self.bars.part(slice(0, end)))))
