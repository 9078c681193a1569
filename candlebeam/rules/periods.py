"""The lengths that bars are resampled to, and where such bars begin.

Periods below a day divide one and begin at UTC midnight, whatever the zone. Days, weeks (from
Monday) and months begin at midnight of a time zone, with its daylight saving: a day there may have
23 or 25 hours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np

from candlebeam.errors import RangeError, UsageError
from candlebeam.model import MS_PER_DAY, Int64Array, Timeframe

_UNITS = {"s": 1_000, "min": 60_000, "m": 60_000, "h": 3_600_000, "d": MS_PER_DAY}
#: What begins at a midnight, and how long it usually is.
_CALENDAR = {"d": MS_PER_DAY, "w": 7 * MS_PER_DAY, "M": 30 * MS_PER_DAY}
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  what a clock on a wall shows
_EPOCH_DAY = _EPOCH.toordinal()
#: A margin for a month and a zone at both ends of what a date can be.
_MARGIN = 40


@dataclass(frozen=True, order=True)
class Period:
    """How long an output bar is.

    Attributes:
        ms: the length of a bar; the usual one of a day, a week or a month.
        unit: "d", "w" or "M" for these three, else "".

    >>> [str(Period.parse(text)) for text in ("60s", "5min", "4h", "24h", "1w", "1M")]
    ['1m', '5m', '4h', '1d', '1w', '1M']
    """

    ms: int
    unit: str = ""

    def __post_init__(self) -> None:
        if self.unit:
            if _CALENDAR.get(self.unit) != self.ms:
                raise UsageError(f"period of {self.ms} ms and unit {self.unit!r}: no such period")
        elif Timeframe(self.ms).ms == MS_PER_DAY:
            raise UsageError("period of a day: expected unit 'd'")

    @classmethod
    def parse(cls, text: str) -> Period:
        """Reads `15s`, `5m` or `5min`, `4h`, `1d`, `1w`, `1M` (a month; `1m` is a minute).

        Raises:
            UsageError: it is something else, or below a day and no divisor of one.
        """
        if text in ("1w", "1M"):
            return cls(_CALENDAR[text[1:]], text[1:])
        match = re.fullmatch(r"([1-9][0-9]{0,7})(s|min|m|h|d)", text)
        if not match:
            expected = "a number and a unit, such as 15s, 5m, 4h, 1d, 1w or 1M"
            raise UsageError(f"timeframe {text!r}: expected {expected}")
        ms = int(match[1]) * _UNITS[match[2]]
        if ms > MS_PER_DAY or MS_PER_DAY % ms:
            raise UsageError(f"timeframe {text}: expected a divisor of a day, or 1d, 1w or 1M")
        return cls(ms, "d" if ms == MS_PER_DAY else "")

    @classmethod
    def parse_all(cls, text: str) -> tuple[Period, ...]:
        """Reads several with commas between them; ascending, each once. Raises `UsageError`."""
        return tuple(sorted({cls.parse(part.strip()) for part in text.split(",")}))

    def can_hold(self, timeframe: Timeframe) -> bool:
        """Whether bars of a timeframe can be put together to bars of this length.

        >>> Period.parse("45s").can_hold(Timeframe.parse("15s"))
        True
        >>> Period.parse("45s").can_hold(Timeframe.parse("30s"))
        False
        """
        return bool(self.unit) or self.ms % timeframe.ms == 0

    def __str__(self) -> str:
        return f"1{self.unit}" if self.unit else str(Timeframe(self.ms))


def open_zone(name: str | None) -> tzinfo:
    """A time zone by its IANA name; None is UTC. Raises `UsageError` if there is none."""
    if name is None:
        return timezone.utc
    try:
        return ZoneInfo(name)
    # It looks for a file of that name: where that is a folder, say, the error is that of `open`.
    except (KeyError, ValueError, OSError):
        expected = "a name such as Europe/Berlin or UTC"
        raise UsageError(f"time zone {name!r}: expected {expected}") from None


def boundaries(period: Period, tz: str | None, from_ts: int, to_ts: int) -> Int64Array:
    """Where the bars of a day, a week or a month begin.

    A local midnight that the clock shows twice is the first of the two. Where the clock skips it,
    the bar begins at the first moment after. A day that a zone has skipped has no bar.

    Args:
        period: one with a unit.
        tz: the IANA name of a zone; None is UTC.
        from_ts, to_ts: in ms.

    Returns:
        Ascending times in ms, from the start of the bar that holds `from_ts` to the first start
        after `to_ts`.

    Raises:
        UsageError: there is no such zone.
        RangeError: a time is outside of the years that a calendar has, 1 to 9999.

    >>> boundaries(Period.parse("1d"), "Europe/Berlin", 1711800000000, 1711900000000) // 3_600_000
    array([475487, 475511, 475534])
    """
    zone = open_zone(tz)
    # A zone's date is at most a day off that of UTC.
    days = _first_days(period, _day_of(from_ts) - 1, _day_of(to_ts) + 1)
    if zone is timezone.utc:
        starts = np.array([day * MS_PER_DAY for day in days], np.int64)
    else:
        starts = np.unique(np.array([_midnight(zone, day) for day in days], np.int64))
    begin = int(np.searchsorted(starts, from_ts, side="right")) - 1
    end = int(np.searchsorted(starts, to_ts, side="right")) + 1
    return starts[begin:end]


def _day_of(ts: int) -> int:
    """Its day in UTC, counted from 1970."""
    day = ts // MS_PER_DAY
    if not _MARGIN < day + _EPOCH_DAY < date.max.toordinal() - _MARGIN:
        raise RangeError(f"time {ts}: expected ms since 1970, within the years 1 to 9999")
    return day


def _first_days(period: Period, first: int, last: int) -> Iterable[int]:
    """The dates on which bars begin, from one at or before `first` to one after `last`."""
    date_of_first = date.fromordinal(first + _EPOCH_DAY)
    if period.unit == "d":
        return range(first, last + 2)
    if period.unit == "w":
        return range(first - date_of_first.weekday(), last + 8, 7)
    firsts = [date_of_first.replace(day=1)]
    while firsts[-1].toordinal() - _EPOCH_DAY <= last:
        firsts.append((firsts[-1] + timedelta(days=31)).replace(day=1))
    return [day.toordinal() - _EPOCH_DAY for day in firsts]


@lru_cache(maxsize=1 << 15)
def _midnight(zone: tzinfo, day: int) -> int:
    """The first moment, in ms, at which a zone's clock shows the midnight of a day or later."""
    wall = _EPOCH + timedelta(days=day)
    before, after = (_seconds(wall, zone, fold) for fold in (0, 1))
    if before <= after:
        return before * 1_000
    # The clock skips midnight. Reckoned with the offset that holds before it does so, the moment
    # lies behind the gap; with the offset after, before it.
    low, high = after, before
    while low < high:
        middle = (low + high) // 2
        if _shown(middle, zone) < wall:
            low = middle + 1
        else:
            high = middle
    return low * 1_000


def _seconds(wall: datetime, zone: tzinfo, fold: int) -> int:
    offset = wall.replace(tzinfo=zone, fold=fold).utcoffset() or timedelta()
    return round((wall - offset - _EPOCH).total_seconds())


def _shown(seconds: int, zone: tzinfo) -> datetime:
    moment = (_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=timezone.utc)
    return moment.astimezone(zone).replace(tzinfo=None)
