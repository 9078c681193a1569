"""Trades as literal rows, and as batches of them, for the tests of single rules and transforms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from candlebeam.model import CandleBlock, Market, Timeframe, TradeBatch

MARKET = Market("RAM", "BINANCE", "btcusdt")
MINUTE = Timeframe(60_000)
#: 2024-03-01T00:00Z.
MIDNIGHT = 1_709_251_200_000


class Row(NamedTuple):
    """One trade; `buy` and `liquidation` are 0 or 1."""

    ts: int
    price: float
    size: float = 1.0
    buy: int = 1
    liquidation: int = 0
    trades: int = 1


def batch(
    rows: Sequence[tuple[float, ...]], market: Market = MARKET, *, counted: bool = False
) -> TradeBatch:
    """The rows as columns; with the `count` column if they are `counted`."""
    full = [Row(int(row[0]), *row[1:]) for row in rows]  # type: ignore[arg-type]
    return TradeBatch(
        market,
        np.array([row.ts for row in full], np.int64),
        np.array([row.price for row in full], np.float64),
        np.array([row.size for row in full], np.float64),
        np.array([row.buy for row in full], np.uint8),
        np.array([row.liquidation for row in full], np.uint8),
        np.array([row.trades for row in full], np.int64) if counted else None,
    )


def rows_of(trades: TradeBatch) -> list[Row]:
    """The inverse of `batch`."""
    count = np.ones(len(trades), np.int64) if trades.count is None else trades.count
    columns = (trades.ts, trades.price, trades.size, trades.buy, trades.liquidation, count)
    return [Row(*values) for values in zip(*(c.tolist() for c in columns), strict=True)]


def same_block(one: CandleBlock, other: CandleBlock) -> bool:
    """Whether two blocks say the same, to the bit."""
    ours, theirs = ((b.market, b.timeframe, b.candles.tobytes()) for b in (one, other))
    return ours == theirs


#: Few times, prices and sizes, so that ties, late rows and equal candles are frequent.
ROWS = st.builds(
    Row,
    ts=st.integers(0, 5).map(lambda n: MIDNIGHT + n * 29_999) | st.integers(MIDNIGHT, 2**41),
    price=st.sampled_from([1.0, 2.0, 3.5]) | st.floats(1e-9, 1e6),
    size=st.sampled_from([0.0, 1.0, 0.1, 5e-7]) | st.floats(0.0, 1e3),
    buy=st.integers(0, 1),
    liquidation=st.sampled_from([0, 0, 0, 1]),
    trades=st.integers(0, 1000),
)
