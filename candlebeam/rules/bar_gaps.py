"""Bars without trades."""

from __future__ import annotations

import numpy as np

from candlebeam.model import Bars


def without_gaps(bars: Bars) -> Bars:
    """The bars that have a price.

    >>> bars = Bars(np.array([0, 60_000]), *np.array([[np.nan, 2.0]] * 4), np.array([0.0, 5.0]))
    >>> without_gaps(bars).ts.tolist()
    [60000]
    """
    prices = (bars.open, bars.high, bars.low, bars.close)
    gaps = np.logical_and.reduce([np.isnan(price) for price in prices])
    return bars.part(~gaps) if gaps.any() else bars
