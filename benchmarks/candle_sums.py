"""What the candles of trades come to, said without candlebeam."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.cache import Built

MINUTE_MS = 60_000


def candle_sums(
    candle: npt.NDArray[Any],
    price: npt.NDArray[Any],
    size: npt.NDArray[Any],
    count: npt.NDArray[Any] | int = 1,
) -> Built:
    """How many candles, and the sums of `outputs.Content` over them.

    Args:
        candle: of each row, which candle it belongs to; the rows of one stand together.
        count: trades of each row.
    """
    if not candle.size:
        return Built()
    starts = np.flatnonzero(np.diff(candle, prepend=candle[0] - 1))
    quote = np.floor(price * size * 1e6 + 0.5).astype(np.int64)
    sums = {
        "trades": int(np.broadcast_to(count, price.shape).sum()),
        "high": float(np.maximum.reduceat(price, starts).sum()),
        "low": float(np.minimum.reduceat(price, starts).sum()),
        "volume": int(quote.sum()) / 1e6,
    }
    return Built(candles=len(starts), sums=sums)
