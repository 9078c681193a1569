"""Putting in order what comes almost in order, without waiting for its end."""

from __future__ import annotations

import numpy as np

from candlebeam.model import Bars, Int64Array

_NEVER = int(np.iinfo(np.int64).min)


class TimeOrder:
    """Hands on bars, or trades, ascending by time; those of the same time as they came.

    One that is older than another before it by more than `patience` comes too late, and is left
    out. What is handed on does not depend on how the input is cut into pieces.

    Args:
        patience: in ms; this much of the end is held back.

    Attributes:
        newest: the latest time so far, in ms.
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
        if len(bars) and (bars.ts[0] < self.newest or not _ascending(bars.ts)):
            kept = self._in_time(bars)
            bars = bars.part(kept)
            self.newest = max(self.newest, int(bars.ts.max(initial=_NEVER)))
        elif len(bars):
            self.newest = int(bars.ts[-1])
        if not self._patience:
            return bars, kept
        held = Bars.join([self._held, bars])
        if not _ascending(held.ts):
            held = held.part(np.argsort(held.ts, kind="stable"))
        ready = int(np.searchsorted(held.ts, self.newest - self._patience))
        # A copy, or else all of what it is cut from stays in memory.
        self._held = Bars.join([held.part(slice(ready, None))])
        return held.part(slice(ready)), None

    def finish(self) -> Bars:
        """What has been held back."""
        held, self._held = self._held, Bars.join([])
        return held

    def _in_time(self, bars: Bars) -> Int64Array:
        before = np.maximum.accumulate(np.concatenate([[self.newest], bars.ts[:-1]]))
        # Not `before - patience`, which may lie below what int64 holds.
        late = bars.ts < np.maximum(before, _NEVER + self._patience) - self._patience
        if bool(late.any()):
            self.late += int(late.sum())
            if self.first_late is None:
                self.first_late = int(bars.ts[late][0])
        return np.flatnonzero(~late)


def _ascending(ts: Int64Array) -> bool:
    return bool((ts[1:] >= ts[:-1]).all())
