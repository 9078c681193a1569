"""Putting in order what comes almost in order, without waiting for its end."""

from __future__ import annotations

import numpy as np

from candlebeam.model import Bars, Int64Array

_NEVER = int(np.iinfo(np.int64).min)


class TimeOrder:
    """Hands on bars, or trades, ascending by time; those of the same time as they came.

    One that is older than another before it by more than `patience` comes too late, and is left
    out. A bar without prices is never late, and makes none late. What is handed on does not depend
    on how the input is cut into pieces.

    Args:
        patience: in ms; this much of the end is held back.

    Attributes:
        newest: the latest time so far of a bar with prices, in ms.
        late: how many came too late.
        first_late: the time of the first of these; None without any.
    """

    def __init__(self, patience: int = 0) -> None:
        self._patience = patience
        self._held = Bars.join([])
        self.newest = _NEVER
        self.late = 0
        self.first_late: int | None = None

    def add(self, bars: Bars) -> tuple[Bars, Int64Array | None]:
        """Takes more input.

        Returns:
            (What can be handed on, and None); without patience, in place of None the places in
            `bars` of what is handed on, where that is not all of it.
        """
        kept = None
        ascending = _ascending(bars.ts)
        if len(bars) and (bars.ts[0] < self.newest or not ascending):
            kept = self._in_time(bars)
            bars = bars.part(kept)
        if ascending and len(bars) and bars.open[-1] == bars.open[-1]:
            self.newest = max(self.newest, int(bars.ts[-1]))
        else:
            self.newest = int(bars.ts[~np.isnan(bars.open)].max(initial=self.newest))
        if not self._patience:
            return bars, kept
        held = Bars.join([self._held, bars])
        if not _ascending(held.ts):
            held = held.part(np.argsort(held.ts, kind="stable"))
        ready = int(
            np.searchsorted(held.ts, max(self.newest, _NEVER + self._patience) - self._patience)
        )
        # A copy, or else all of what it is cut from stays in memory.
        self._held = Bars.join([held.part(slice(ready, None))])
        return held.part(slice(ready)), None

    def finish(self) -> Bars:
        """What has been held back."""
        held, self._held = self._held, Bars.join([])
        return held

    def _in_time(self, bars: Bars) -> Int64Array:
        times = np.where(np.isnan(bars.open), _NEVER, bars.ts)
        before = np.maximum.accumulate(np.concatenate([[self.newest], times[:-1]]))
        # Not `before - patience`, which may lie below what int64 holds.
        soon = np.maximum(before, _NEVER + self._patience) - self._patience
        late = (times < soon) & (times != _NEVER)
        if bool(late.any()):
            self.late += int(late.sum())
            if self.first_late is None:
                self.first_late = int(bars.ts[late][0])
        return np.flatnonzero(~late)


def _ascending(ts: Int64Array) -> bool:
    return bool((ts[1:] >= ts[:-1]).all())
