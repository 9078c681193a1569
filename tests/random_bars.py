"""Bars that are made up, and bars as values that compare exactly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from candlebeam.model import Bars, Int64Array
from tests.aligned_bars import rows_of


def exact(bars: Bars) -> list[tuple[object, ...]]:
    """Rows that are equal where all bits are: NaN as well."""
    return [(row[0], *(float(value).hex() for value in row[1:])) for row in rows_of(bars)]


def random_bars(seed: int, ts: Sequence[int] | Int64Array, gaps: float = 0.0) -> Bars:
    """Bars at these times; a share of them without trades."""
    rng = np.random.default_rng(seed)
    times: Int64Array = np.array(ts, np.int64)
    shape = (4, len(times))
    prices = rng.choice([0.01, 0.1, 1.0], shape) * rng.integers(-50, 5_000, shape)
    volume = rng.exponential(10.0 ** rng.integers(-6, 6), len(times))
    gap = rng.random(len(times)) < gaps
    prices[:, gap], volume[gap] = np.nan, 0.0
    return Bars(times, prices[0], prices.max(axis=0), prices.min(axis=0), prices[3], volume)
