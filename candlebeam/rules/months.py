"""Calendar months and times in UTC, as nanoseconds since 1970.

Ranges are half open: what has a time equal to the end is not in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

from candlebeam.errors import UsageError

NS_PER_SECOND = 1_000_000_000
NS_PER_DAY = 86_400 * NS_PER_SECOND

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_TIME = re.compile(
    r"(?P<year>\d{4})-(?P<month>\d{2})"
    r"(?:-(?P<day>\d{2})"
    r"(?P<time>[T ](?P<hour>\d{2}):(?P<minute>\d{2})"
    r"(?::(?P<second>\d{2})(?:\.(?P<fraction>\d{1,9}))?)?"
    r"(?P<zone>Z|[+-]\d{2}:\d{2})?)?)?",
    re.ASCII,
)
# What int64 can tell of nanoseconds, in whole years.
_FIRST_YEAR, _LAST_YEAR = 1970, 2261


class Span(NamedTuple):
    """A range of time: from `start` on, before `end`, in ns."""

    start: int
    end: int

    def __str__(self) -> str:
        return f"{time_text(self.start)} to {time_text(self.end)}"

    def __bool__(self) -> bool:
        return self.start < self.end

    def within(self, other: Span) -> Span:
        """What both have in common; false if that is nothing."""
        return Span(max(self.start, other.start), min(self.end, other.end))

    def covers(self, other: Span) -> bool:
        """Whether nothing of `other` lies outside."""
        return self.start <= other.start and other.end <= self.end


class Month(NamedTuple):
    """A month of the calendar."""

    year: int
    number: int

    def __str__(self) -> str:
        return f"{self.year:04}-{self.number:02}"

    @property
    def span(self) -> Span:
        """From its first nanosecond to that of the next month.

        >>> str(Month(2024, 12).span)
        '2024-12-01 to 2025-01-01'
        """
        return Span(_ns(self.year, self.number), _ns(*self.next))

    @property
    def next(self) -> Month:
        """The month behind it."""
        return Month(self.year + self.number // 12, self.number % 12 + 1)


def months_of(span: Span) -> Iterator[Month]:
    """The months that a range has a part of, in order.

    >>> [str(month) for month in months_of(Span(parse_start("2023-12-31"), parse_end("2024-01")))]
    ['2023-12', '2024-01']
    """
    if not span:
        return
    first = _EPOCH + timedelta(seconds=span.start // NS_PER_SECOND)
    month = Month(first.year, first.month)
    while month.span.start < span.end:
        yield month
        month = month.next


def parse_start(text: str) -> int:
    """The beginning of a month, a day or a time as ns.

    Args:
        text: `2024-03`, `2024-03-31` or `2024-03-31T09:30[:00[.000000000]]`, with `Z` or an offset
            such as `-05:00`; UTC without.

    Raises:
        UsageError: it is none of these.
    """
    return _parse(text).start


def parse_end(text: str) -> int:
    """The end of what a text names: a month and a day are whole, a time is itself the end.

    >>> time_text(parse_end("2024-02")), time_text(parse_end("2024-02-29"))
    ('2024-03-01', '2024-03-01')
    >>> time_text(parse_end("2024-02-29T12:00"))
    '2024-02-29 12:00:00'
    """
    return _parse(text).end


def parse_moment(text: str) -> int:
    """A point in time as ns, from what an API writes: `2024-03-31` means its beginning."""
    return _parse(text).start


def time_text(ns: int) -> str:
    """A time in UTC: a date if it is midnight, else with as many digits as it needs.

    >>> time_text(0), time_text(1), time_text(1_500_000_000)
    ('1970-01-01', '1970-01-01 00:00:00.000000001', '1970-01-01 00:00:01.5')
    """
    seconds, rest = divmod(ns, NS_PER_SECOND)
    moment = _EPOCH + timedelta(seconds=seconds)
    if ns % NS_PER_DAY == 0:
        return moment.strftime("%Y-%m-%d")
    fraction = f".{rest:09}".rstrip("0") if rest else ""
    return moment.strftime("%Y-%m-%d %H:%M:%S") + fraction


def date_text(ns: int) -> str:
    """The day that a time lies in."""
    return time_text(ns // NS_PER_DAY * NS_PER_DAY)


def _parse(text: str) -> Span:
    found = _TIME.fullmatch(text.strip())
    try:
        if not found:
            raise ValueError
        parts = found.groupdict()
        year, month, day = (int(parts[name] or 1) for name in ("year", "month", "day"))
        if not _FIRST_YEAR <= year <= _LAST_YEAR:
            raise ValueError
        if parts["day"] is None:
            return Month(year, datetime(year, month, 1, tzinfo=timezone.utc).month).span
        begin = _ns(year, month, day)
        if parts["time"] is None:
            return Span(begin, begin + NS_PER_DAY)
        hour, minute, second = (int(parts[name] or 0) for name in ("hour", "minute", "second"))
        if hour > 23 or minute > 59 or second > 59:
            raise ValueError
        moment = begin + (hour * 3600 + minute * 60 + second) * NS_PER_SECOND
        moment += int((parts["fraction"] or "0").ljust(9, "0")) - _offset(parts["zone"])
    except ValueError:
        raise UsageError(
            f"time {text!r}: expected a month, a day or a time of the years"
            f" {_FIRST_YEAR} to {_LAST_YEAR},"
            " such as 2024-03, 2024-03-31 or 2024-03-31T09:30"
        ) from None
    return Span(moment, moment)


def _offset(zone: str | None) -> int:
    """How far a zone is ahead of UTC, in ns."""
    if zone is None or zone == "Z":
        return 0
    hours, minutes = int(zone[1:3]), int(zone[4:6])
    if hours > 23 or minutes > 59:
        raise ValueError
    return (hours * 3600 + minutes * 60) * NS_PER_SECOND * (-1 if zone[0] == "-" else 1)


def _ns(year: int, month: int, day: int = 1) -> int:
    moment = datetime(year, month, day, tzinfo=timezone.utc)
    return (moment - _EPOCH).days * NS_PER_DAY
