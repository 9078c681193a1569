"""Months and times of requests: nothing between two of them is lost, and nothing is asked twice."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlebeam.errors import UsageError
from candlebeam.rules.months import (
    NS_PER_DAY,
    Month,
    Span,
    date_text,
    months_of,
    parse_end,
    parse_moment,
    parse_start,
    time_text,
)

LAST = parse_end("2261-12")
TIMES = st.integers(0, LAST)


def span_of(first: int, second: int) -> Span:
    return Span(min(first, second), max(first, second))


@given(TIMES, TIMES)
def test_months_of_a_range_join_without_gap_or_overlap_and_hold_it(first: int, second: int) -> None:
    years = 366 * NS_PER_DAY * 3
    span = span_of(first, min(second, first + years) if second > first else second)
    if span.end - span.start > years:
        span = Span(span.end - years, span.end)
    months = list(months_of(span))
    assert all(one.span.end == other.span.start for one, other in pairwise(months))
    parts = [month.span.within(span) for month in months]
    assert all(parts)
    assert sum(part.end - part.start for part in parts) == span.end - span.start
    assert not months or (parts[0].start, parts[-1].end) == span


@given(st.integers(1970, 2261), st.integers(1, 12))
def test_month_ends_where_the_next_begins(year: int, number: int) -> None:
    month = Month(year, number)
    begin = datetime(year, number, 1, tzinfo=timezone.utc)
    after = (begin + timedelta(days=31)).replace(day=1)
    assert month.span == (_ns(begin), _ns(after))
    assert month.next == (after.year, after.month)


def _ns(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=timezone.utc)).days * NS_PER_DAY


@given(TIMES)
def test_a_time_reads_back_from_its_text(time: int) -> None:
    assert parse_moment(time_text(time)) == time
    assert parse_start(date_text(time)) <= time < parse_end(date_text(time))


def test_an_end_takes_in_the_whole_of_the_month_or_day_that_it_names() -> None:
    assert time_text(parse_end("2023-12")) == "2024-01-01"
    assert parse_end("2023-12-31") == parse_end("2023-12")
    assert time_text(parse_end("2024-02-28")) == "2024-02-29"


def test_a_time_is_where_a_range_begins_or_ends() -> None:
    for parse in (parse_start, parse_end):
        assert time_text(parse("2024-02-28T23:59:59.999999999")) == "2024-02-28 23:59:59.999999999"
        assert time_text(parse("2024-02-28 23:59")) == "2024-02-28 23:59:00"
        assert time_text(parse("2024-02-28T23:59:00-05:30")) == "2024-02-29 05:29:00"
        assert time_text(parse("2024-02-29T00:00:00.000000000Z")) == "2024-02-29"


@pytest.mark.parametrize(
    "text",
    ["", "2024", "2024-13", "2024-00", "2024-02-30", "2023-02-29", "2024-2-1", "1969-12-31",
     "2262-01-01", "2024-01-01T24:00", "2024-01-01T12", "2024-01-01T12:60",
     "2024-01-01T12:00:00.0000000001", "2024-01-01T12:00+24:00", "2024-01-01Z", "yesterday",
     "٢٠٢٤-01-01"],
)  # fmt: skip
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected a month, a day or a time"):
        parse_start(text)
