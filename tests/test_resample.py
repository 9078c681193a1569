"""Resampling: the bars of every period, against pandas, however the input comes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from candlebeam.errors import RangeError, UsageError
from candlebeam.model import BAR_COLUMNS, MS_PER_DAY, Bars, Timeframe
from candlebeam.rules.periods import Period
from candlebeam.rules.resample import TRADE_PATIENCE, BadBar, Resampler, resample
from tests.aligned_bars import Bar, bars_from, rows_of
from tests.random_bars import exact, random_bars

ALL = list(Period.parse_all("15s,30s,45s,1m,2m,3m,5m,15m,30m,1h,2h,4h,1d,1w,1M"))
ZONES = [None, "UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"]
MINUTE = 60_000
MIDNIGHT = 1_704_067_200_000  # 2024-01-01, a Monday
#: An hour or two before the clocks change, in the zones above.
CHANGES = [
    round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("UTC")).timestamp()) * 1_000
    for text in (
        "2024-03-31T00:00", "2024-10-27T00:00", "2024-03-10T06:00", "2024-11-03T05:00",
        "2024-04-06T14:00", "2024-10-05T14:00", "2024-02-28T20:00", "1969-12-31T23:00",
    )
]  # fmt: skip


def periods(text: str) -> list[Period]:
    return list(Period.parse_all(text))


def pandas_rule(period: Period) -> dict[str, Any]:
    if period.unit == "w":
        return {"rule": "W-MON", "label": "left", "closed": "left"}
    return {"rule": {"d": "D", "M": "MS"}.get(period.unit) or pd.Timedelta(milliseconds=period.ms)}


def pandas_bars(bars: Bars, period: Period, tz: str | None) -> Bars:
    """What `DataFrame.resample` makes of the bars, without the empty ones."""
    index = pd.DatetimeIndex(bars.ts.view("datetime64[ms]"), tz="UTC")
    frame = pd.DataFrame({name: getattr(bars, name) for name in BAR_COLUMNS[1:]}, index=index)
    frame = frame.dropna()
    if frame.empty:
        return Bars.join([])
    if period.unit:
        # Not by name: pandas may have another edition of the zones.
        frame = frame.tz_convert(ZoneInfo(tz or "UTC"))
    made = frame.resample(**pandas_rule(period)).agg(
        {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    )
    made = made.dropna()
    ts = made.index.as_unit("ms").asi8
    return Bars(np.array(ts), *(made[name].to_numpy(np.float64) for name in BAR_COLUMNS[1:]))


def assert_like_pandas(made: Bars, bars: Bars, period: Period, tz: str | None) -> None:
    """Times and prices are the same to the last bit; pandas adds in a way of its own."""
    expected = pandas_bars(bars, period, tz)
    priced = [row[:5] for row in rows_of(made)]
    assert priced == [row[:5] for row in rows_of(expected)], str(period)
    np.testing.assert_allclose(made.volume, expected.volume, rtol=1e-13)


def kahan(values: Sequence[float]) -> float:
    """The sum in the order that the documentation tells."""
    total = lost = 0.0
    for value in values:
        wanted = value - lost
        grown = total + wanted
        total, lost = grown, (grown - total) - wanted
    return total


def run(
    bars: Bars,
    wanted: Sequence[Period],
    cuts: Sequence[int] = (),
    tz: str | None = None,
    timeframe: Timeframe | None = None,
) -> tuple[list[Bars], list[Bars]]:
    """The closed bars and the open ones of each period, from input cut at some places."""
    resampler = Resampler(wanted, tz, timeframe=timeframe)
    parts: list[list[Bars]] = [[] for _ in wanted]
    for begin, end in itertools.pairwise([0, *sorted(cuts), len(bars)]):
        for part, closed in zip(parts, resampler.add(bars.part(slice(begin, end))), strict=True):
            part.append(closed)
    endings = resampler.finish()
    whole = [Bars.join([*part, end.closed]) for part, end in zip(parts, endings, strict=True)]
    return whole, [ending.open for ending in endings]


# Against pandas


@st.composite
def some_times(draw: st.DrawFn, step: int) -> list[int]:
    """Ascending times of bars around a change of clocks, with holes of any length."""
    begin = draw(st.sampled_from(CHANGES)) + step * draw(st.integers(-300, 300))
    skips = draw(st.lists(st.sampled_from([1, 1, 1, 1, 2, 5, 40, 800, 9_000]), max_size=60))
    return [begin + step * sum(skips[:place]) for place in range(len(skips) + 1)]


@given(
    st.sampled_from([15_000, MINUTE, 15 * MINUTE]),
    st.sampled_from(ZONES),
    st.sampled_from([0.0, 0.3]),
    st.integers(0, 1 << 30),
    st.data(),
)
@settings(max_examples=60)
def test_bars_of_every_period_are_those_of_pandas(
    step: int, tz: str | None, gaps: float, seed: int, data: st.DataObject
) -> None:
    timeframe = Timeframe(step)
    wanted = [period for period in ALL if period.can_hold(timeframe)]
    bars = random_bars(seed, data.draw(some_times(step)), gaps)
    cuts = data.draw(st.lists(st.integers(0, len(bars)), max_size=4))
    closed, opened = run(bars, wanted, cuts, tz, timeframe)
    for period, first, rest in zip(wanted, closed, opened, strict=True):
        assert_like_pandas(Bars.join([first, rest]), bars, period, tz)


@given(st.sampled_from([*ALL, Period.parse("10s"), Period.parse("6h")]), st.integers(0, 99))
@settings(max_examples=30)
def test_trades_are_put_together_like_bars(period: Period, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ts = MIDNIGHT + np.sort(rng.integers(0, 3 * MS_PER_DAY, 300))
    price = rng.integers(1, 1_000, 300) / 8
    size = rng.integers(1, 100, 300).astype(np.float64)
    trades = Bars(ts, price, price, price, price, size)
    assert exact(resample(trades, [period])[period]) == exact(pandas_bars(trades, period, None))


def test_volumes_are_added_one_by_one_in_order_with_what_was_lost() -> None:
    bars = random_bars(7, MIDNIGHT + np.arange(50_000, dtype=np.int64) * MINUTE)
    for period, made in resample(bars, ALL[3:], "Europe/Berlin").items():
        assert_like_pandas(made, bars, period, "Europe/Berlin")
        places = [*np.searchsorted(bars.ts, made.ts).tolist(), len(bars)]
        for volume, (begin, end) in zip(made.volume, itertools.pairwise(places), strict=True):
            values = bars.volume[begin:end].tolist()
            assert volume == kahan(values)
            assert abs(volume - math.fsum(values)) <= 2 * math.ulp(volume)


def test_volumes_in_whole_numbers_are_exact() -> None:
    ts = MIDNIGHT + np.arange(2_000, dtype=np.int64) * MINUTE
    volume = np.full(2_000, float(2**42 + 1))
    price = np.ones(2_000)
    made = resample(Bars(ts, price, price, price, price, volume), periods("1d,1w"))
    assert made[Period.parse("1d")].volume.tolist() == [1440 * (2.0**42 + 1), 560 * (2.0**42 + 1)]
    assert made[Period.parse("1w")].volume.tolist() == [2000 * (2.0**42 + 1)]


# However it comes


@given(
    st.integers(0, 1 << 30),
    st.sampled_from([0.0, 0.4]),
    st.lists(st.integers(0, 200), max_size=6),
    st.sampled_from(ZONES),
)
@settings(max_examples=40)
def test_cutting_the_input_changes_nothing(
    seed: int, gaps: float, cuts: list[int], tz: str | None
) -> None:
    rng = np.random.default_rng(seed)
    ts = MIDNIGHT + MINUTE * np.cumsum(rng.choice([1, 1, 1, 1, 4, 700], 200))
    bars, timeframe = random_bars(seed, ts, gaps), Timeframe(MINUTE)
    whole, left = run(bars, ALL[3:], (), tz, timeframe)
    cut, rest = run(bars, ALL[3:], cuts, tz, timeframe)
    assert [exact(each) for each in cut] == [exact(each) for each in whole]
    assert [exact(each) for each in rest] == [exact(each) for each in left]


@given(st.integers(0, 1 << 30), st.lists(st.sampled_from(ALL), min_size=1, max_size=20))
@settings(max_examples=30)
def test_no_period_depends_on_what_else_is_asked_for(seed: int, wanted: list[Period]) -> None:
    rng = np.random.default_rng(seed)
    bars = random_bars(seed, MIDNIGHT + 5_000 * np.cumsum(rng.integers(1, 300, 300)), 0.1)
    closed, opened = run(bars, wanted, (), "Europe/Berlin", Timeframe(5_000))
    for place, period in enumerate(wanted):
        alone = run(bars, [period], (), "Europe/Berlin", Timeframe(5_000))
        assert exact(closed[place]) == exact(alone[0][0])
        assert exact(opened[place]) == exact(alone[1][0])


@given(st.integers(0, 1 << 30), st.integers(0, 300), st.sampled_from(ZONES[:4]))
@settings(max_examples=40)
def test_going_on_from_the_place_of_the_open_bar_gives_the_same(
    seed: int, cut: int, tz: str | None
) -> None:
    rng = np.random.default_rng(seed)
    ts = MIDNIGHT + MINUTE * np.cumsum(rng.choice([1, 1, 1, 6, 900], 300))
    bars, timeframe = random_bars(seed, ts, 0.2), Timeframe(MINUTE)
    for period in (Period.parse("5m"), Period.parse("2h"), *ALL[12:]):
        whole, left = run(bars, [period], (), tz, timeframe)
        first = Resampler([period], tz, timeframe=timeframe)
        before = first.add(bars.part(slice(cut)))[0]
        (ending,) = first.finish()
        assert ending.place <= cut
        rest = bars.part(slice(ending.place, None))
        (closed,), (opened,) = run(rest, [period], (), tz, timeframe)
        assert exact(Bars.join([before, ending.closed, closed])) == exact(whole[0])
        assert exact(opened) == exact(left[0])


# Closed and open


def minute(place: int, price: float = 1.0, volume: float = 1.0) -> Bar:
    return (MIDNIGHT + place * MINUTE, price, price, price, price, volume)


def closed_and_open(rows: Sequence[Bar], tail: Sequence[Bar] = ()) -> tuple[int, int]:
    """How many five-minute bars are closed, and how many open."""
    resampler = Resampler(periods("5m"), timeframe=Timeframe(MINUTE))
    closed = len(resampler.add(bars_from(rows))[0])
    (ending,) = resampler.finish(bars_from(tail))
    return closed + len(ending.closed), len(ending.open)


@pytest.mark.parametrize(
    ("rows", "tail", "expected"),
    [
        ([], [], (0, 0)),
        ([minute(0)], [], (0, 1)),
        ([minute(3)], [], (0, 1)),
        ([minute(4)], [], (1, 0)),
        ([minute(4), minute(5)], [], (1, 1)),
        ([minute(0), minute(9)], [], (2, 0)),
        ([minute(0), minute(4, np.nan, 0.0)], [], (1, 0)),
        ([minute(0), minute(7, np.nan, 0.0)], [], (1, 0)),
        ([minute(0, np.nan, 0.0)], [], (0, 0)),
        ([], [minute(4)], (0, 1)),
        ([minute(3)], [minute(4)], (0, 1)),
        ([minute(4)], [minute(5)], (1, 1)),
        ([minute(3)], [minute(5)], (1, 1)),
        ([minute(3)], [minute(5), minute(12)], (1, 2)),
    ],
)
def test_a_bar_is_closed_when_closed_input_reaches_its_end(
    rows: list[Bar], tail: list[Bar], expected: tuple[int, int]
) -> None:
    assert closed_and_open(rows, tail) == expected


def test_an_open_bar_holds_closed_input_and_what_may_change() -> None:
    resampler = Resampler(periods("5m,1h"), timeframe=Timeframe(MINUTE), begin=100)
    resampler.add(bars_from([minute(0, 2.0), minute(5, 3.0), minute(6, 1.0)]))
    five, hour = resampler.finish(bars_from([minute(7, 9.0)]))
    assert rows_of(five.open) == [(MIDNIGHT + 5 * MINUTE, 3.0, 9.0, 1.0, 9.0, 3.0)]
    assert rows_of(hour.open) == [(MIDNIGHT, 2.0, 9.0, 1.0, 9.0, 4.0)]
    assert (five.place, hour.place) == (101, 100)


def test_place_without_an_open_bar_is_that_of_the_input_to_come() -> None:
    resampler = Resampler(periods("5m"), timeframe=Timeframe(MINUTE), begin=7)
    resampler.add(bars_from([minute(3), minute(4), minute(6, np.nan, 0.0)]))
    assert [ending.place for ending in resampler.finish()] == [10]


def test_days_of_a_zone_as_input_close_weeks_across_a_change_of_clocks() -> None:
    zone = ZoneInfo("Europe/Berlin")
    days = [round(datetime(2024, 3, day, tzinfo=zone).timestamp() * 1_000) for day in range(25, 32)]
    rows = [(ts, 1.0, 1.0, 1.0, 1.0, 1.0) for ts in days]
    resampler = Resampler(periods("1d,1w,1M"), "Europe/Berlin", timeframe=Timeframe(MS_PER_DAY))
    assert [len(bars) for bars in resampler.add(bars_from(rows))] == [6, 0, 0]
    endings = resampler.finish()
    assert [(len(e.closed), len(e.open), e.place) for e in endings] == [
        (1, 0, 7), (1, 0, 7), (1, 0, 7),
    ]  # fmt: skip


# Order


def test_trades_of_the_same_time_keep_their_order() -> None:
    rows = [(MIDNIGHT, p, p, p, p, 1.0) for p in (2.0, 5.0, 1.0, 3.0)]
    (five,) = resample(bars_from(rows), periods("5m")).values()
    assert rows_of(five) == [(MIDNIGHT, 2.0, 5.0, 1.0, 3.0, 4.0)]


@given(
    st.lists(st.integers(0, 4 * TRADE_PATIENCE), min_size=1, max_size=60),
    st.lists(st.integers(0, 60), max_size=4),
)
def test_trades_that_are_a_little_out_of_order_are_put_in_order(
    offsets: list[int], cuts: list[int]
) -> None:
    """Against an oracle: what is a minute behind the latest is left out, the rest is sorted."""
    rows = [
        (
            MIDNIGHT + 20_000 * place + offset,
            float(place),
            float(place),
            float(place),
            float(place),
            1.0,
        )
        for place, offset in enumerate(offsets)
    ]
    kept: list[Bar] = []
    latest = 0
    for row in rows:
        if row[0] >= latest - TRADE_PATIENCE:
            kept.append(row)
        latest = max(latest, row[0])
    expected = resample(bars_from(sorted(kept, key=lambda row: row[0])), ALL[:8])
    resampler = Resampler(ALL[:8], timeframe=None)
    made: list[list[Bars]] = [[] for _ in ALL[:8]]
    bounds = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    for begin, end in itertools.pairwise(bounds):
        for part, closed in zip(made, resampler.add(bars_from(rows[begin:end])), strict=True):
            part.append(closed)
    for part, ending in zip(made, resampler.finish(), strict=True):
        part += [ending.closed, ending.open]
    assert [exact(Bars.join(part)) for part in made] == [exact(b) for b in expected.values()]
    assert resampler.order.late == len(rows) - len(kept)


def test_bars_behind_a_later_one_are_left_out_and_counted() -> None:
    rows = [minute(0), minute(7), minute(3, 9.0), minute(8), minute(8, 2.0), minute(1, 9.0)]
    resampler = Resampler(periods("5m"), timeframe=Timeframe(MINUTE))
    (closed,) = resampler.add(bars_from(rows[:2]))
    (more,) = resampler.add(bars_from(rows[2:]))
    (ending,) = resampler.finish()
    assert rows_of(Bars.join([closed, more])) == [minute(0)]
    assert rows_of(ending.open) == [(MIDNIGHT + 5 * MINUTE, 1.0, 2.0, 1.0, 2.0, 3.0)]
    assert ending.place == 1
    assert (resampler.order.late, resampler.order.first_late) == (2, MIDNIGHT + 3 * MINUTE)


@given(st.permutations(range(40)), st.lists(st.integers(0, 60), max_size=3))
@settings(max_examples=50)
def test_gaps_may_stand_anywhere(shuffled: list[int], cuts: list[int]) -> None:
    """What is no bar neither closes one nor makes one late, wherever it stands."""
    rows = [minute(7 * place, place / 8) for place in range(20)]
    wanted = periods("5m,1h,1d")
    expected, opened = run(bars_from(rows), wanted, (), "Europe/Berlin", Timeframe(MINUTE))
    for place, at in enumerate(shuffled):
        rows.insert(min(at, len(rows) - 1), minute(5 * place * place, np.nan, 0.0))
    bars = bars_from(rows)
    cuts = [min(cut, len(rows)) for cut in cuts]
    made, rest = run(bars, wanted, cuts, "Europe/Berlin", Timeframe(MINUTE))
    assert [exact(each) for each in made] == [exact(each) for each in expected]
    assert [exact(each) for each in rest] == [exact(each) for each in opened]


def test_places_count_what_has_been_left_out() -> None:
    rows = [minute(7), minute(3), minute(4), minute(10)]
    resampler = Resampler(periods("5m"), timeframe=Timeframe(MINUTE))
    resampler.add(bars_from(rows))
    (ending,) = resampler.finish()
    assert ending.place == 3


# What cannot be


@pytest.mark.parametrize(
    ("period", "timeframe", "message"),
    [
        ("5m", "1h", "timeframe 5m: the input has bars of 1h, longer ones"),
        ("45s", "30s", "timeframe 45s: no multiple of 30s, which the input has"),
    ],
)
def test_period_that_cannot_be_made_is_refused(period: str, timeframe: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Resampler(periods(period), timeframe=Timeframe.parse(timeframe))


def test_zone_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match="time zone 'Mars/Base'"):
        Resampler(periods("5m"), "Mars/Base", timeframe=None)


def test_bar_that_belongs_to_two_days_of_a_zone_is_refused() -> None:
    rows = [(MIDNIGHT + n * 60 * MINUTE, 1.0, 1.0, 1.0, 1.0, 1.0) for n in range(24)]
    expected = (
        "the bar of 1h from 2024-01-01T18:00:00.000Z lasts longer than that of 1d in Asia/Kolkata,"
        " until 2024-01-01T18:30:00.000Z"
    )
    with pytest.raises(UsageError, match=expected):
        Resampler(periods("4h,1d,1w"), "Asia/Kolkata", timeframe=Timeframe.parse("1h")).add(
            bars_from(rows)
        )
    del rows[18]
    made, _ = run(bars_from(rows), periods("1d"), (), "Asia/Kolkata", Timeframe.parse("1h"))
    assert [len(bars) for bars in made] == [1]


def test_bars_off_the_grid_of_their_own_timeframe_are_refused_where_they_cross() -> None:
    rows = [(MIDNIGHT + 30_000 + n * MINUTE, 1.0, 1.0, 1.0, 1.0, 1.0) for n in range(9)]
    with pytest.raises(UsageError, match=r"lasts longer than that of 5m, until 2024-01-01T00:05"):
        Resampler(periods("5m"), timeframe=Timeframe(MINUTE)).add(bars_from(rows))


def test_days_that_do_not_begin_at_midnight_of_the_zone_are_refused() -> None:
    rows = [(MIDNIGHT, 1.0, 1.0, 1.0, 1.0, 1.0)]
    with pytest.raises(UsageError, match=r"1d begins at 2024-01-01T00.*not midnight in Asia/K"):
        Resampler(periods("1w"), "Asia/Kolkata", timeframe=Timeframe(MS_PER_DAY)).add(
            bars_from(rows)
        )


@pytest.mark.parametrize("field", range(1, 5))
@pytest.mark.parametrize("lacking", [1, 3])
def test_bar_with_some_prices_only_is_refused_and_what_stands_before_it_is_kept(
    field: int, lacking: int
) -> None:
    rows = [minute(n, float(n)) for n in range(9)]
    values = list(rows[7])
    for place in range(field, field + lacking):
        values[1 + (place - 1) % 4] = np.nan
    rows[7] = tuple(values)  # type: ignore[assignment]
    resampler = Resampler(periods("3m,5m,1h"), timeframe=Timeframe(MINUTE), begin=20)
    with pytest.raises(BadBar, match=r"bar 27: expected a bar with four prices or none"):
        resampler.add(bars_from(rows))
    expected, rest = run(bars_from(rows[:7]), periods("3m,5m,1h"), (), None, Timeframe(MINUTE))
    for ending, closed, opened in zip(resampler.finish(), expected, rest, strict=True):
        assert (exact(ending.closed), exact(ending.open)) == (exact(closed), exact(opened))


def test_time_that_is_none_is_refused() -> None:
    rows = [(1 << 62, 1.0, 1.0, 1.0, 1.0, 1.0)]
    with pytest.raises(RangeError, match="expected ms since 1970"):
        resample(bars_from(rows), periods("5m"))
    with pytest.raises(RangeError, match="within the years 1 to 9999"):
        resample(bars_from([(10**15, *rows[0][1:])]), periods("1d"))


def test_nothing_gives_nothing() -> None:
    made = resample(Bars.join([]), ALL)
    assert [len(bars) for bars in made.values()] == [0] * len(ALL)
