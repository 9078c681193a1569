"""Resampling: bars, or trades, to longer bars of any number of periods, in one pass.

A bar is the first open, the highest high, the lowest low, the last close and the sum of the volumes
of what it is made from; its time is where it begins. Where there is nothing, there is no bar. The
volumes of each period are added one by one in the order of the input, with Kahan's correction: no
period's sum depends on what other periods are asked for, and whole numbers stay exact up to 2^53.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from candlebeam.errors import CandlebeamError, RangeError, UsageError
from candlebeam.model import BAR_COLUMNS, MS_PER_DAY, Bars, Int64Array, Timeframe, for_kernels
from candlebeam.rules.periods import Period, boundaries, open_zone
from candlebeam.rules.resample_kernels import (
    BEGIN,
    EDGE,
    END,
    FIRST,
    FLOAT_FIELDS,
    INT_FIELDS,
    LANES,
    LAST_EDGE,
    LOST,
    NO_BAR,
    PARTIAL,
    ROW,
    STEP,
    STRADDLES,
    fold_bars,
)
from candlebeam.rules.time_order import TimeOrder

#: How much older than one before it a trade may be, in ms.
TRADE_PATIENCE = 60_000
#: Boundaries are looked up for so much time at once, in ms.
_AHEAD = 400 * MS_PER_DAY
#: The end of a bar that has not begun: at or before any time.
_NOT_YET = -(1 << 62)
#: Times farther from 1970 than that are none, in ms.
_LATEST = 1 << 60


class BadBar(CandlebeamError, ValueError):
    """An input bar that has some prices only.

    Attributes:
        number: which one it is, counted from `Resampler.begin` on.
        found: its prices.
    """

    #: What a bar should have.
    expected = "a bar with four prices or none"

    def __init__(self, number: int, found: str) -> None:
        super().__init__(f"bar {number}: expected {self.expected}, found {found}")
        self.number, self.found = number, found

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.number, self.found)


@dataclass(frozen=True)
class Ending:
    """What is left of one period at the end of the input.

    Attributes:
        closed: bars that no later input can change.
        open: the bar that may still change, if there is one; several only where several input bars
            may still change.
        place: the number of the first input of the open bar; of what may itself still change if
            there is nothing else in it, and of the input to come if there is no open bar. Where
            the input is trades, always that of the input to come.
    """

    closed: Bars
    open: Bars
    place: int


class Resampler:
    """Makes bars of several periods of one instrument, as its input comes.

    Trades that are out of order by up to `TRADE_PATIENCE` are put in order. Older ones, and bars
    that stand behind a later one, are left out of everything and counted.

    Args:
        periods: what to make.
        tz: the IANA name of the zone whose midnights days, weeks and months begin at; None is UTC.
        timeframe: of the input; None for trades.
        begin: the number of the first input.

    Attributes:
        order: how the input was ordered, with the count of what came too late.

    Raises:
        UsageError: there is no such zone, or the input cannot be put together to such a period.
    """

    def __init__(
        self,
        periods: Sequence[Period],
        tz: str | None = None,
        *,
        timeframe: Timeframe | None,
        begin: int = 0,
    ) -> None:
        open_zone(tz)
        check_periods(periods, timeframe)
        self._periods, self._tz, self._timeframe = tuple(periods), tz, timeframe
        self._number = begin
        self.order = TimeOrder(TRADE_PATIENCE if timeframe is None else 0)
        self._days = _Edges(Period.parse("1d"), tz)
        self._edges = [_Edges(period, tz) if period.unit else None for period in periods]
        count = len(self._periods)
        self._ints = np.zeros((count, INT_FIELDS), np.int64)
        self._ints[:, END] = _NOT_YET
        self._ints[:, FIRST] = NO_BAR
        self._ints[:, STEP] = [0 if period.unit else period.ms for period in periods]
        self._floats = np.zeros((-(-count // LANES) * LANES, FLOAT_FIELDS))
        self._last_ts: int | None = None
        self._left: list[Bars] | None = None
        self._out_ts, self._out = np.empty(0, np.int64), np.empty((5, 0))

    def add(self, bars: Bars) -> list[Bars]:
        """Takes the next input; gives the bars that it closes, a list with one item a period.

        Raises:
            BadBar: one has some prices only. `finish` still gives all that stands before it.
            UsageError: one ends after the bar it belongs to.
            RangeError: a time is outside of the calendar.
        """
        number = self._number
        ordered, kept = self.order.add(bars)
        closed = self._fold(ordered, kept)
        self._number = number + len(bars)
        return closed

    def finish(self, tail: Bars | None = None) -> list[Ending]:
        """Gives what is left, an item a period. Nothing can be added after it.

        A bar is closed once input that is itself closed has come to its end, or something else has
        begun after it.

        Args:
            tail: input at the end that may itself still change.
        """
        rest = Bars.join([])
        closed = self._left or self._fold(self.order.finish())
        reached = self._end_of_input()
        if tail is not None and len(tail) and self._left is None:
            # What has been closed stays so.
            ready, _ = self.order.add(tail.part(tail.ts >= reached))
            rest = Bars.join([ready, self.order.finish()])
            reached = max(reached, int(rest.ts[0])) if len(rest) else reached
        places = []
        for k in range(len(closed)):
            if self._ints[k, FIRST] != NO_BAR and self._ints[k, END] <= reached:
                closed[k] = Bars.join([closed[k], self._take(k)])
            first = int(self._ints[k, FIRST])
            known = first != NO_BAR and self._timeframe is not None
            places.append(first if known else self._number)
        opened = self._fold(rest)
        return [
            Ending(closed[k], Bars.join([opened[k], self._take(k)]), place)
            for k, place in enumerate(places)
        ]

    @property
    def settled(self) -> int:
        """The number of the first input that is in no closed bar: no `Ending.place` is before."""
        first = self._ints[:, FIRST]
        return int(np.where(first == NO_BAR, self._number, first).min())

    def _fold(self, bars: Bars, kept: Int64Array | None = None) -> list[Bars]:
        """Takes in bars in order. `kept`: their places, where some have been left out."""
        if not len(bars):
            return [Bars.join([])] * len(self._periods)
        edges, starts = self._prepare(bars)
        number = self._number
        ended, place = fold_bars(
            for_kernels(bars.ts),
            for_kernels(bars.open),
            for_kernels(bars.high),
            for_kernels(bars.low),
            for_kernels(bars.close),
            for_kernels(bars.volume),
            number,
            self._check_length(bars),
            edges,
            self._ints,
            self._floats,
            self._out_ts,
            self._out,
        )
        if ended == STRADDLES:
            raise self._straddles(int(bars.ts[place]))
        if kept is not None:
            first = self._ints[:, FIRST]
            new = first >= number
            first[new] = number + kept[first[new] - number]
        closed = [
            _bars(self._out_ts[start:end].copy(), self._out[:, start:end].copy())
            for start, end in zip(starts, self._ints[:, ROW].tolist(), strict=True)
        ]
        if place:
            self._last_ts = int(bars.ts[place - 1])
        if ended == PARTIAL:
            self._left = closed
            self._number += place if kept is None else int(kept[place])
            found = ", ".join(f"{name} {getattr(bars, name)[place]}" for name in BAR_COLUMNS[1:5])
            raise BadBar(self._number, found)
        return closed

    def _prepare(self, bars: Bars) -> tuple[Int64Array, list[int]]:
        """Makes room for what the bars may close. Gives all boundaries, and the periods' rows."""
        # Gaps may stand anywhere.
        first, last = int(bars.ts.min()), int(bars.ts.max())
        for ts in (first, last):
            if abs(ts) > _LATEST:
                raise RangeError(f"time {ts}: expected ms since 1970")
        found: list[Int64Array] = []
        rows, starts, edges = 0, [], 0
        for k, (period, calendar) in enumerate(zip(self._periods, self._edges, strict=True)):
            if calendar is None:
                most = (last - first) // period.ms + 2
            else:
                found.append(calendar.between(first, last))
                most = len(found[-1])
                self._ints[k, EDGE], self._ints[k, LAST_EDGE] = edges, edges + most - 1
                edges += most
            starts.append(rows)
            self._ints[k, ROW] = rows
            rows += min(len(bars), most) + 1
        if rows > len(self._out_ts):
            self._out_ts, self._out = np.empty(rows, np.int64), np.empty((5, rows))
        return np.concatenate([np.empty(0, np.int64), *found]), starts

    def _take(self, k: int) -> Bars:
        """The open bar of a period, which is over then."""
        if self._ints[k, FIRST] == NO_BAR:
            return Bars.join([])
        self._ints[k, FIRST] = NO_BAR
        return _bars(self._ints[k, BEGIN : BEGIN + 1].copy(), self._floats[k, :LOST, None].copy())

    def _end_of_input(self) -> int:
        """Where the last bar that was taken in ends."""
        if self._last_ts is None:
            return _NOT_YET
        if self._timeframe is None:
            return self._last_ts
        if self._timeframe.ms < MS_PER_DAY:
            return self._last_ts + self._timeframe.ms
        return int(self._days.between(self._last_ts, self._last_ts)[1])

    def _check_length(self, bars: Bars) -> int:
        """How long a bar is, so that the loop can see where it ends.

        Days have several lengths, but all of them end where the next one begins.
        """
        if self._timeframe is None or self._timeframe.ms < MS_PER_DAY:
            return self._timeframe.ms if self._timeframe else 0
        days = self._days.between(int(bars.ts.min()), int(bars.ts.max()))
        wrong = days[np.searchsorted(days, bars.ts, side="right") - 1] != bars.ts
        if bool(wrong.any()):
            ts = time_text(int(bars.ts[wrong][0]))
            raise UsageError(f"a bar of 1d begins at {ts}, which is not midnight in {self._zone}")
        return 0

    def _straddles(self, ts: int) -> UsageError:
        k = int(np.argmin(self._ints[:, END]))
        where = f" in {self._zone}" if self._periods[k].unit else ""
        return UsageError(
            f"the bar of {self._timeframe} from {time_text(ts)} lasts longer than that of"
            f" {self._periods[k]}{where}, until {time_text(int(self._ints[k, END]))}"
        )

    @property
    def _zone(self) -> str:
        return self._tz or "UTC"


class _Edges:
    """Where the bars of a calendar period begin, looked up a year at a time."""

    def __init__(self, period: Period, tz: str | None) -> None:
        self._period, self._tz = period, tz
        self._known = np.empty(0, np.int64)

    def between(self, from_ts: int, to_ts: int) -> Int64Array:
        """From the start of the bar that holds `from_ts` to the first start after `to_ts`."""
        known = self._known
        if not len(known) or from_ts < known[0] or to_ts >= known[-1]:
            try:
                known = boundaries(self._period, self._tz, from_ts, to_ts + _AHEAD)
            except CandlebeamError:
                return boundaries(self._period, self._tz, from_ts, to_ts)
            self._known = known
        begin = int(np.searchsorted(known, from_ts, side="right")) - 1
        end = int(np.searchsorted(known, to_ts, side="right")) + 1
        return known[begin:end]


def check_periods(periods: Iterable[Period], timeframe: Timeframe | None) -> None:
    """Raises `UsageError` for a period that input of a timeframe cannot be put together to."""
    for period in periods:
        if timeframe is None or period.can_hold(timeframe):
            continue
        if period.ms < timeframe.ms:
            raise UsageError(f"timeframe {period}: the input has bars of {timeframe}, longer ones")
        raise UsageError(f"timeframe {period}: no multiple of {timeframe}, which the input has")


def resample(
    bars: Bars,
    periods: Sequence[Period],
    tz: str | None = None,
    *,
    timeframe: Timeframe | None = None,
) -> dict[Period, Bars]:
    """Bars of several periods, made of all the bars or trades there are.

    Args:
        bars: of one instrument; put in order of time if they are not, those of the same time as
            they stand. NaN prices are none.
        periods, tz: as of `Resampler`.
        timeframe: of the bars; None for trades, or where nobody knows.

    Returns:
        The bars of each period, ascending; the last one may not be over.

    Raises:
        UsageError: there is no such zone, or the bars cannot be put together to such a period; or
            one ends after the output bar it belongs to.
        BadBar: a bar has some prices only.

    >>> ts = np.array([0, 60_000, 300_000])
    >>> price = np.array([2.0, 3.0, 1.0])
    >>> five = Period.parse("5m")
    >>> made = resample(Bars(ts, price, price, price, price, price), [five])[five]
    >>> made.ts, made.high, made.volume
    (array([     0, 300000]), array([3., 1.]), array([5., 1.]))
    """
    if bool((bars.ts[1:] < bars.ts[:-1]).any()):
        bars = bars.part(np.argsort(bars.ts, kind="stable"))
    resampler = Resampler(periods, tz, timeframe=timeframe)
    made = zip(periods, resampler.add(bars), resampler.finish(), strict=True)
    return {period: Bars.join([first, rest.closed, rest.open]) for period, first, rest in made}


def time_text(ts: int) -> str:
    """A time in words.

    >>> time_text(1609459200000)
    '2021-01-01T00:00:00.000Z'
    """
    return f"{np.datetime64(ts, 'ms')}Z"


def _bars(ts: Int64Array, values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Bars:
    return Bars(ts, *values)
