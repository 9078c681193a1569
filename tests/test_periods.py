"""Periods: how they are named, and where days, weeks and months of a zone begin."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlebeam.errors import RangeError, UsageError
from candlebeam.model import MS_PER_DAY, Timeframe
from candlebeam.rules.periods import Period, boundaries, open_zone

LISTED = "15s,30s,45s,1m,2m,3m,5m,15m,30m,1h,2h,4h,1d,1w,1M"
CALENDAR = [Period.parse(text) for text in ("1d", "1w", "1M")]
HOUR = 3_600_000
#: Half hours, half-hour steps, a midnight that does not occur, one that occurs twice, a lost day.
ZONES = [
    "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "America/Havana",
    "America/Sao_Paulo", "Asia/Beirut", "Pacific/Apia", "America/St_Johns", "UTC",
]  # fmt: skip


def ms(text: str, zone: str = "UTC") -> int:
    moment = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))
    return round(moment.timestamp() * 1_000)


def starts(period: str, tz: str | None, begin: str, end: str) -> list[str]:
    """The starts from one time to another, both included, as the zone's clock shows them."""
    found = boundaries(Period.parse(period), tz, ms(begin), ms(end)).tolist()
    zone = open_zone(tz)
    return [datetime.fromtimestamp(ts / 1_000, zone).isoformat(" ") for ts in found]


# Names


@pytest.mark.parametrize("text", LISTED.split(","))
def test_every_listed_period_keeps_its_name(text: str) -> None:
    assert str(Period.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("60s", "1m"), ("1min", "1m"), ("5min", "5m"), ("60m", "1h"), ("24h", "1d"),
        ("1440m", "1d"), ("6h", "6h"), ("10s", "10s"), ("12h", "12h"),
    ],
)  # fmt: skip
def test_other_spellings_and_other_divisors_of_a_day(text: str, name: str) -> None:
    assert str(Period.parse(text)) == name
    assert Period.parse(text) == Period.parse(name)


@pytest.mark.parametrize(
    "text", ["", "m", "5", "0m", "-1m", "1.5m", "1 m", "1W", "1D", "2w", "3M", "1mo", "5mins", "٣m"]
)
def test_what_is_no_period_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected a number and a unit, such as 15s, 5m"):
        Period.parse(text)


@pytest.mark.parametrize("text", ["7m", "2d", "25h", "5h", "99999999h"])
def test_what_does_not_divide_a_day_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f"timeframe {text}: expected a divisor of a day"):
        Period.parse(text)


def test_a_list_is_sorted_and_has_each_once() -> None:
    assert [str(p) for p in Period.parse_all("1M,1h, 5m,1d,60m,1w,300s")] == [
        "5m", "1h", "1d", "1w", "1M",
    ]  # fmt: skip


@pytest.mark.parametrize(("length", "unit"), [(1_000, "d"), (MS_PER_DAY, ""), (60_000, "x")])
def test_a_period_that_contradicts_itself_cannot_be_made(length: int, unit: str) -> None:
    with pytest.raises(UsageError):
        Period(length, unit)


@pytest.mark.parametrize(
    ("period", "timeframe", "can"),
    [
        ("5m", "1m", True), ("1m", "1m", True), ("45s", "1m", False), ("1m", "5m", False),
        ("3m", "2m", False), ("1d", "1d", True), ("1w", "1d", True), ("1M", "4h", True),
        ("12h", "1d", False),
    ],
)  # fmt: skip
def test_what_can_be_made_of_what(period: str, timeframe: str, can: bool) -> None:
    assert Period.parse(period).can_hold(Timeframe.parse(timeframe)) is can


@pytest.mark.parametrize("name", ["Mars/Base", "", "America", "../../etc/passwd", "/etc", "a\0b"])
def test_zone_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="expected a name such as Europe/Berlin"):
        open_zone(name)


# Boundaries


def test_days_of_a_zone_have_23_and_25_hours() -> None:
    assert starts("1d", "Europe/Berlin", "2024-03-30T12:00", "2024-03-31T12:00") == [
        "2024-03-30 00:00:00+01:00", "2024-03-31 00:00:00+01:00", "2024-04-01 00:00:00+02:00",
    ]  # fmt: skip
    spring = boundaries(CALENDAR[0], "Europe/Berlin", ms("2024-03-31"), ms("2024-03-31"))
    autumn = boundaries(CALENDAR[0], "Europe/Berlin", ms("2024-10-27"), ms("2024-10-27"))
    assert np.diff(spring).tolist() == [23 * HOUR]
    assert np.diff(autumn).tolist() == [25 * HOUR]


def test_weeks_begin_on_monday_and_months_on_their_first() -> None:
    assert starts("1w", "America/New_York", "2024-11-01", "2024-11-10") == [
        "2024-10-28 00:00:00-04:00", "2024-11-04 00:00:00-05:00", "2024-11-11 00:00:00-05:00",
    ]  # fmt: skip
    assert starts("1M", "Asia/Kolkata", "2023-12-31T19:00", "2024-02-10") == [
        "2024-01-01 00:00:00+05:30", "2024-02-01 00:00:00+05:30", "2024-03-01 00:00:00+05:30",
    ]  # fmt: skip


def test_without_a_zone_it_is_utc() -> None:
    assert starts("1w", None, "1969-12-30", "1970-01-01") == starts(
        "1w", "UTC", "1969-12-30", "1970-01-01"
    )
    assert starts("1w", None, "1969-12-30", "1970-01-01") == [
        "1969-12-29 00:00:00+00:00", "1970-01-05 00:00:00+00:00",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("tz", "day", "expected"),
    [
        # Skipped by an hour: the day begins at 01:00.
        ("America/Sao_Paulo", "2018-11-04T12:00", "2018-11-04 01:00:00-02:00"),
        ("Asia/Beirut", "2022-03-27T12:00", "2022-03-27 01:00:00+03:00"),
        # Shown twice: the first time counts.
        ("America/Havana", "2022-11-06T12:00", "2022-11-06 00:00:00-04:00"),
        # The clock went back to the day before at one minute past midnight.
        ("America/St_Johns", "2010-11-07T12:00", "2010-11-07 00:00:00-02:30"),
        # The clock went from 23:30 to 00:30: the day begins within the gap's shadow.
        ("America/Toronto", "1919-03-31T12:00", "1919-03-31 00:30:00-04:00"),
    ],
)
def test_a_midnight_that_is_skipped_or_shown_twice(tz: str, day: str, expected: str) -> None:
    assert starts("1d", tz, day, day)[0] == expected


def test_a_day_that_a_zone_skipped_has_no_bar() -> None:
    assert starts("1d", "Pacific/Apia", "2011-12-30T00:00", "2011-12-30T11:00") == [
        "2011-12-29 00:00:00-10:00", "2011-12-31 00:00:00+14:00", "2012-01-01 00:00:00+14:00",
    ]  # fmt: skip


@pytest.mark.parametrize("ts", [-(10**14), 10**15])
def test_time_outside_of_the_calendar_is_refused(ts: int) -> None:
    with pytest.raises(RangeError, match=f"time {ts}: expected ms since 1970, within the years"):
        boundaries(CALENDAR[0], None, ts, ts)


def key(period: Period, ts: int, tz: str) -> tuple[int, ...]:
    """The day, week or month that a zone's clock shows."""
    zone = ZoneInfo(tz)
    moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=ts)
    shown = moment.astimezone(zone)
    if period.unit == "d":
        return shown.year, shown.month, shown.day
    return shown.isocalendar()[:2] if period.unit == "w" else (shown.year, shown.month)


@given(
    st.sampled_from(CALENDAR),
    st.sampled_from(ZONES),
    st.integers(ms("1995-01-01"), ms("2037-01-01")),
    st.integers(0, 60 * MS_PER_DAY),
    st.data(),
)
def test_a_bar_holds_what_the_clock_shows_as_one_day_week_or_month(
    period: Period, tz: str, begin: int, length: int, data: st.DataObject
) -> None:
    found = boundaries(period, tz, begin, begin + length)
    assert found[0] <= begin < found[1]
    assert found[-2] <= begin + length < found[-1]
    assert bool((np.diff(found) > 0).all())
    for start, end in zip(found.tolist(), found[1:].tolist(), strict=False):
        assert key(period, start - 1, tz) != key(period, start, tz)
        inside = data.draw(st.integers(start, end - 1))
        if tz == "America/St_Johns" and key(period, inside, tz) < key(period, start, tz):
            # Set back by an hour one minute into the day.
            assert inside - start < HOUR
            continue
        assert key(period, inside, tz) == key(period, start, tz)


@pytest.mark.parametrize(
    "tz", ["Europe/Berlin", "America/New_York", "America/Havana", "Asia/Beirut"]
)
@pytest.mark.parametrize(("period", "rule"), [("1d", "D"), ("1w", "W-MON"), ("1M", "MS")])
def test_thirty_years_are_those_of_pandas(tz: str, period: str, rule: str) -> None:
    days = pd.date_range("1999-11-01", "2030-02-01", freq=rule)
    # Not by name: pandas may have another edition of the zones.
    expected = days.tz_localize(
        ZoneInfo(tz), ambiguous=np.ones(len(days), bool), nonexistent="shift_forward"
    ).as_unit("ms")
    found = boundaries(Period.parse(period), tz, int(expected.asi8[0]), int(expected.asi8[-1]) - 1)
    assert found.tolist() == expected.asi8.tolist()
