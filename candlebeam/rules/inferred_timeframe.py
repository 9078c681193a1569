"""The length of bars of which nothing says it."""

from __future__ import annotations

import numpy as np

from candlebeam.errors import UsageError
from candlebeam.model import Int64Array, Timeframe

#: So much of all steps has to be a multiple of the timeframe.
_MOST = 0.9
#: How many of the commonest steps are tried.
_TRIED = 1_000


def inferred_timeframe(ts: Int64Array) -> Timeframe | None:
    """The greatest timeframe of which nearly all steps between bars are multiples.

    It is one of these steps, or their greatest common divisor: some bars may be missing, and some
    may stand where they should not.

    Args:
        ts: starts of bars in ms, in any order.

    Returns:
        None where there is none; also without two different times.

    >>> str(inferred_timeframe(np.array([0, 60_000, 180_000])))
    '1m'
    """
    steps = np.diff(ts)
    steps, counts = np.unique(steps[steps > 0], return_counts=True)
    if not len(steps):
        return None
    common = np.argsort(-counts, kind="stable")[:_TRIED]
    candidates = {int(np.gcd.reduce(steps)), *steps[common].tolist()}
    for step in sorted(candidates, reverse=True):
        if counts[steps % step == 0].sum() < _MOST * counts.sum():
            continue
        try:
            return Timeframe(step)
        except UsageError:
            continue
    return None
