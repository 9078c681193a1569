"""The volumes of bars against those of what they were made from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from candlebeam.model import VOLUME_SCALE, Bars, Float64Array, Int64Array, for_kernels
from candlebeam.rules import volume_kernels as kernels
from candlebeam.rules.checks import INFORMATION, KEPT_PLACES, WARNING, Finding, Place

#: Volumes that differ by more than this are not the same ...
TOLERANCE = 0.01
#: ... or, where they are huge, by more than this part of the greater one: float64 sums of many
#: volumes are no better than that.
RELATIVE_TOLERANCE = 1e-11

_FOREVER = 2**63 - 1


def quote_volume(trades: Bars) -> Float64Array:
    """What trades were worth: price times size, each rounded as candle files do."""
    scaled = trades.open * trades.volume * VOLUME_SCALE
    whole = np.floor(scaled)
    volume: Float64Array = (whole + (scaled - whole >= 0.5)) / VOLUME_SCALE
    return volume


class VolumeCheck:
    """Holds the volume of bars against that of their source, over the time that both cover.

    Both are read once, together, and memory does not grow with their number. A bar that the source
    covers in part is compared only if it is the first or the last of all. One that may still change
    is compared only if the source does not go on behind it.

    Args:
        bars: ascending by time, piece by piece, each with the place of its first one.
        source: finer bars, or trades, nearly ascending; likewise.
        ends: gives the ends of bars for their starts, in ms; the next bar may start before.
        source_length: of a bar of the source; 0 for trades.
        closed: how many of the bars will never change; None means all.
        in_quote: whether the source is trades, and the bars' volume is what these were worth.
        keep: how many places are kept.

    Attributes:
        compared: how many bars were.
    """

    def __init__(
        self,
        bars: Iterable[tuple[int, Bars]],
        source: Iterable[tuple[int, Bars]],
        *,
        ends: Callable[[Int64Array], Int64Array],
        source_length: int,
        closed: int | None = None,
        in_quote: bool = False,
        keep: int = KEPT_PLACES,
    ) -> None:
        self._pieces = (bars for _, bars in bars if len(bars))
        self._source = (rows for _, rows in source if len(rows))
        self._ends_of, self._source_length = ends, max(source_length, 1)
        self._closed = _FOREVER if closed is None else closed
        self._in_quote, self._keep = in_quote, keep
        self._totals: list[float] = []
        self._source_totals: list[float] = []
        self._wrong = self._outside = 0
        self._places: list[Place] = []
        self._without_bar: list[Place] = []
        self.compared = 0
        # The bars that are open: their volumes, and of the source so far the sum for each, and what
        # it has lost to rounding. They are two pieces, so that a source that is nearly in order
        # always finds the bar of a row; `_older` of them are of the first.
        self._begin = self._older = 0
        self._ts: Int64Array = np.empty(0, np.int64)
        self._ends: Int64Array = np.empty(0, np.int64)
        self._volume, self._sums, self._lost = np.empty(0), np.empty(0), np.empty(0)
        self._next: Bars | None = None
        # From when to when the source has rows.
        self._source_ts, self._source_end = _FOREVER, -_FOREVER

    def run(self) -> list[Finding]:
        """Compares all; to be called once.

        Raises:
            CandlebeamError: one of both is damaged.
        """
        self._next = next(self._pieces, None)
        if self._next is None:
            return []
        self._first_ts = int(self._next.ts[0])
        self._open_next()
        self._open_next()
        for rows in self._source:
            self._add(rows)
            if int(rows.ts.min()) >= self._end_ts:
                break
        self._settle(len(self._ts))
        return self._findings()

    @property
    def _end_ts(self) -> int:
        """The end of the last bar of all, once that is open."""
        return _FOREVER if self._next is not None else int(self._ends[-1])

    def _open_next(self) -> None:
        """Settles the older of the two pieces of open bars, and opens the next one."""
        done = self._older
        self._settle(done)
        self._begin += done
        more = Bars.join([]) if self._next is None else self._next
        self._next = next(self._pieces, None)
        none = np.zeros(len(more))
        self._older = len(self._ts) - done
        self._ts = np.concatenate([self._ts[done:], more.ts])
        self._ends = np.concatenate([self._ends[done:], self._ends_of(more.ts)])
        self._ends[:-1] = np.minimum(self._ends[:-1], self._ts[1:])
        volume = np.where(np.isnan(more.volume), 0.0, more.volume)
        self._volume = np.concatenate([self._volume[done:], volume])
        self._sums = np.concatenate([self._sums[done:], none])
        self._lost = np.concatenate([self._lost[done:], none])

    def _add(self, rows: Bars) -> None:
        """Adds rows of the source to the bars they are in."""
        ts = for_kernels(rows.ts)
        volume = quote_volume(rows) if self._in_quote else rows.volume
        volume = np.where(np.isnan(volume), 0.0, volume)
        self._source_ts = min(self._source_ts, int(ts.min()))
        self._source_end = max(self._source_end, int(ts.max()) + self._source_length)
        state = np.zeros(kernels.STATE_SIZE, np.int64)
        outside = np.empty(self._keep, np.int64)
        while True:
            stop_ts = _FOREVER if self._next is None else int(self._next.ts[0])
            kernels.add_volumes(
                self._ts,
                self._ends,
                ts,
                volume,
                self._first_ts,
                self._end_ts,
                stop_ts,
                self._sums,
                self._lost,
                state,
                outside,
            )
            if state[kernels.ROW] == len(ts):
                break
            state[kernels.BAR] = max(int(state[kernels.BAR]) - self._older, 0)
            self._open_next()
        found = int(state[kernels.OUTSIDE])
        self._outside += found
        for row in outside[: min(found, self._keep - len(self._without_bar))].tolist():
            expected = f"a bar for a volume of {float(volume[row])!r}"
            self._without_bar.append(Place(None, int(ts[row]), expected, "none"))

    def _settle(self, count: int) -> None:
        """Compares the first of the open bars; no row of the source will be in them any more."""
        if not count:
            return
        ts, ends = self._ts[:count], self._ends[:count]
        covered = (ts >= self._source_ts) & (ends <= self._source_end)
        touched = (ends > self._source_ts) & (ts < self._source_end)
        if ts[0] == self._first_ts:
            covered[0] = touched[0]
        if self._next is None and count == len(self._ts):
            covered[-1] = touched[-1]
        places = np.arange(self._begin, self._begin + count)
        covered &= (places < self._closed) | (ends >= self._source_end)
        mine, theirs = self._volume[:count][covered], self._sums[:count][covered]
        self.compared += len(mine)
        self._totals.append(math.fsum(mine))
        self._source_totals.append(math.fsum(theirs))
        wrong = np.flatnonzero(~_same(mine, theirs))
        self._wrong += len(wrong)
        at = np.flatnonzero(covered)[wrong]
        for place in at[: self._keep - len(self._places)].tolist():
            expected = f"volume {float(self._sums[place])!r}"
            found = repr(float(self._volume[place]))
            self._places.append(Place(self._begin + place, int(ts[place]), expected, found))

    def _findings(self) -> list[Finding]:
        findings = []
        total, source_total = math.fsum(self._totals), math.fsum(self._source_totals)
        if not self.compared and not self._outside:
            message = "not compared: the source covers none of these bars"
            findings.append(Finding(INFORMATION, "volume", 1, message))
        if self._wrong:
            message = (
                "volume is not that of the source;"
                f" in all it is {total!r}, and in the source {source_total!r}"
            )
            findings.append(Finding(WARNING, "volume", self._wrong, message, tuple(self._places)))
        elif not _same(np.array([total]), np.array([source_total])).all():
            message = "the sum of all volumes is not that of the source"
            place = Place(None, None, repr(source_total), repr(total))
            findings.append(Finding(WARNING, "volume", 1, message, (place,)))
        if self._outside:
            message = "volume in the source where there is no bar"
            places = tuple(self._without_bar)
            findings.append(Finding(WARNING, "volume", self._outside, message, places))
        return findings


def _same(
    one: Float64Array, other: Float64Array
) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    greater = np.maximum(np.abs(one), np.abs(other))
    same = np.abs(one - other) <= np.maximum(TOLERANCE, RELATIVE_TOLERANCE * greater)
    return np.asarray(same, np.bool_)
