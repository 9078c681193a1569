"""Days, weeks and months of a time zone as a calendar for `checks.BarChecker`."""

from __future__ import annotations

import numpy as np

from candlebeam.model import MS_PER_DAY, Int64Array
from candlebeam.rules.periods import Period, boundaries

#: From the year 1000 to 9000: a time outside is taken for the nearest of these, and is no start.
_FIRST_TS, _LAST_TS = (int(np.datetime64(year, "ms").astype(np.int64)) for year in ("1000", "9000"))
#: The longest that periods are, in ms: with an hour more, as when summer time ends.
_LONGEST = {unit: days * MS_PER_DAY + 3_600_000 for unit, days in (("d", 1), ("w", 7), ("M", 31))}


class PeriodCalendar:
    """Numbers the periods that times are in, and gives their starts.

    Args:
        period: a day, a week or a month.
        tz: the IANA name of a zone; None is UTC.

    Raises:
        UsageError: there is no such zone.

    >>> calendar = PeriodCalendar(Period.parse("1M"), None)
    >>> numbers, starts = calendar.periods(np.array([0, 31 * 86_400_000, 32 * 86_400_000]))
    >>> numbers.tolist(), starts.tolist()
    ([0, 1, 1], [0, 2678400000, 2678400000])
    """

    def __init__(self, period: Period, tz: str | None) -> None:
        self._period, self._tz = period, tz
        # The starts that are known, and the place of the one that has the number 0.
        self._starts = boundaries(period, tz, 0, 0)
        self._origin = 0
        self._zero = int(self._starts[0])

    def periods(self, ts: Int64Array) -> tuple[Int64Array, Int64Array]:
        """For each time the number of its period, and when that starts in ms."""
        place = self._places(ts)
        starts: Int64Array = self._starts[place]
        return place - self._origin, starts

    def ends(self, ts: Int64Array) -> Int64Array:
        """For each start of a bar its end in ms; of one that starts elsewhere, the latest possible.

        >>> calendar = PeriodCalendar(Period.parse("1d"), "Europe/Berlin")
        >>> starts = np.array(["2024-03-30T23", "2024-03-31T22"], "datetime64[ms]").view("int64")
        >>> (calendar.ends(starts) - starts) // 3_600_000
        array([23, 24])
        """
        place = self._places(ts)
        begin, end = self._starts[place], self._starts[place + 1]
        ends: Int64Array = np.where(begin == ts, end, ts + _LONGEST[self._period.unit])
        return ends

    def _places(self, ts: Int64Array) -> Int64Array:
        known = np.clip(ts, _FIRST_TS, _LAST_TS)
        if len(ts):
            self._extend(int(known.min()), int(known.max()))
        place: Int64Array = np.searchsorted(self._starts, known, side="right") - 1
        return place

    def _extend(self, first: int, last: int) -> None:
        """Has the starts reach from before one time to behind another."""
        if self._starts[0] <= first and last < self._starts[-1]:
            return
        begin, end = int(self._starts[0]), int(self._starts[-1])
        # By half of what is there: so that pieces in order do not make them all again each time.
        more = (end - begin) // 2 + MS_PER_DAY
        first = begin if begin <= first else max(min(first, begin - more), _FIRST_TS)
        last = end - 1 if last < end else min(max(last, end + more), _LAST_TS)
        self._starts = boundaries(self._period, self._tz, first, last)
        self._origin = int(np.searchsorted(self._starts, self._zero))
