"""The checks of bars: against a naive reading of the rules, and each by itself."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlebeam.model import Bars, Int64Array, Timeframe
from candlebeam.rules.checks import BarChecker, Finding, Place, format_ts
from candlebeam.rules.inferred_timeframe import inferred_timeframe
from candlebeam.rules.period_calendar import PeriodCalendar
from candlebeam.rules.periods import Period, boundaries
from candlebeam.rules.repeated_times import repeated_times
from tests.trade_batches import MIDNIGHT, MINUTE

NAN, INF = math.nan, math.inf
NAMES = (
    "order", "duplicates", "alignment", "finite", "volume-without-prices", "high", "low",
    "negative-prices", "zero-prices", "negative-volumes",
)  # fmt: skip


class Bar(NamedTuple):
    """One bar as literals."""

    ts: int
    open: float = 10.0
    high: float = 12.0
    low: float = 9.0
    close: float = 11.0
    volume: float = 5.0


def bars_of(rows: Sequence[Bar]) -> Bars:
    columns = list(zip(*rows, strict=True)) or [()] * 6
    return Bars(np.array(columns[0], np.int64), *(np.array(c, np.float64) for c in columns[1:]))


def good_bars(count: int = 20, step: int = MINUTE.ms, start: int = MIDNIGHT) -> list[Bar]:
    return [Bar(start + n * step) for n in range(count)]


def check(
    rows: Sequence[Bar],
    timeframe: Timeframe | None = MINUTE,
    cuts: Sequence[int] = (),
    any_price: bool = False,
) -> list[Finding]:
    """The findings of bars that come in pieces, cut at these places."""
    checker = BarChecker(timeframe, any_price=any_price)
    edges = [0, *sorted(cuts), len(rows)]
    for begin, end in pairwise(edges):
        checker.add(begin, bars_of(rows[begin:end]))
    assert checker.bars == len(rows)
    return checker.finish()


# The oracle


class Gaps(NamedTuple):
    """What there is to know of gaps."""

    number: int
    missing: int
    longest: int
    over_twice: list[int]


def is_gap(bar: Bar) -> bool:
    return all(map(math.isnan, bar[1:5])) or not any(bar[1:])


def expected_places(
    bars: Sequence[Bar], timeframe: Timeframe | None, any_price: bool
) -> Iterator[tuple[str, int]]:
    """Pairs of a check and a place where it finds something, read off the rules one by one."""
    for place, bar in enumerate(bars):
        prices, volume = bar[1:5], bar.volume
        if place and bar.ts < bars[place - 1].ts:
            yield "order", place
        if timeframe and place and bar.ts == bars[place - 1].ts:
            yield "duplicates", place
        if timeframe and bar.ts % timeframe.ms:
            yield "alignment", place
        if all(map(math.isnan, prices)):
            if math.isinf(volume):
                yield "finite", place
            elif volume > 0:
                yield "volume-without-prices", place
            elif volume < 0:
                yield "negative-volumes", place
            continue
        if not all(map(math.isfinite, bar[1:])):
            yield "finite", place
            continue
        if timeframe and bar.high != max(prices):
            yield "high", place
        if timeframe and bar.low > min(bar.open, bar.close):
            yield "low", place
        if min(prices) < 0:
            yield "negative-prices", place
        elif min(prices) == 0 and any(bar[1:]) and not any_price:
            yield "zero-prices", place
        if volume < 0:
            yield "negative-volumes", place


def expected_gaps(bars: Sequence[Bar], step: int) -> Gaps:
    latest: int | None = None
    missing: list[int] = []
    over_twice = []
    for place, bar in enumerate(bars):
        if is_gap(bar):
            continue
        if latest is not None and (bar.ts - latest) // step > 1:
            missing.append((bar.ts - latest) // step - 1)
        if latest is not None and bar.ts - latest > 2 * step:
            over_twice.append(place)
        latest = bar.ts if latest is None else max(latest, bar.ts)
    return Gaps(len(missing), sum(missing), max(missing, default=0), over_twice)


NUMBERS = st.one_of(
    st.sampled_from([NAN, INF, -INF, 0.0, -0.0, -1.0]), st.integers(1, 3).map(float)
)
FAR = 2**63 - 1


@st.composite
def strange_bars(draw: st.DrawFn) -> list[Bar]:
    """Bars that are well for the most part, with all sorts of things wrong with some of them."""
    bars: list[Bar] = []
    ts = draw(st.sampled_from([MIDNIGHT, 0, -7 * MINUTE.ms, FAR - FAR % MINUTE.ms - 5 * MINUTE.ms]))
    for _ in range(draw(st.integers(0, 30))):
        kind = draw(st.integers(0, 9))
        if kind == 0:
            ts += draw(st.integers(-3, 3)) * MINUTE.ms // 2
        elif kind == 1:
            ts = draw(st.sampled_from([-FAR, FAR, 0, MIDNIGHT, MIDNIGHT + 3 * MINUTE.ms]))
        elif kind == 2:
            ts += draw(st.integers(1, 5)) * MINUTE.ms
        ts = min(max(ts, -FAR), FAR)
        if kind == 3:
            bars.append(Bar(ts, *(draw(NUMBERS) for _ in range(5))))
        elif kind == 4:
            bars.append(Bar(ts, NAN, NAN, NAN, NAN, draw(NUMBERS)))
        elif kind == 5:
            bars.append(Bar(ts, 0.0, 0.0, 0.0, 0.0, draw(NUMBERS)))
        else:
            bars.append(Bar(ts))
        ts = min(ts + MINUTE.ms, FAR)
    return bars


@given(
    strange_bars(),
    st.lists(st.integers(0, 30)),
    st.sampled_from([MINUTE, Timeframe(30_000), None]),
    st.booleans(),
)
def test_the_checker_finds_what_the_rules_say(
    bars: list[Bar], cuts: list[int], timeframe: Timeframe | None, any_price: bool
) -> None:
    findings = {
        finding.check: finding
        for finding in check(bars, timeframe, [cut for cut in cuts if cut < len(bars)], any_price)
    }
    found = list(expected_places(bars, timeframe, any_price))
    for name in NAMES:
        places = [place for check_name, place in found if check_name == name]
        finding = findings.pop(name, None)
        assert (finding.count if finding else 0) == len(places)
        assert [place.place for place in (finding.places if finding else ())] == places[:5]
        for place in finding.places if finding else ():
            assert place.place is not None
            assert place.ts == bars[place.place].ts

    gaps = expected_gaps(bars, timeframe.ms) if timeframe else Gaps(0, 0, 0, [])
    finding = findings.pop("gaps", None)
    assert (finding.count if finding else 0) == gaps.number
    if finding:
        assert finding.severity == "information"
        assert finding.message.startswith(f"bars missing: {gaps.missing}; the longest: ")
        assert f" longest: {gaps.longest} from " in finding.message
        assert finding.message.endswith(f" over twice the timeframe: {len(gaps.over_twice)}")
        assert [place.place for place in finding.places] == gaps.over_twice[:5]
    else:
        assert gaps.over_twice == []

    none = not bars or all(map(is_gap, bars))
    assert ("bars" in findings) == none
    findings.pop("bars", None)
    assert findings == {}


@given(strange_bars(), st.lists(st.integers(0, 30)))
def test_how_bars_are_cut_into_pieces_changes_nothing(bars: list[Bar], cuts: list[int]) -> None:
    assert check(bars, cuts=[cut for cut in cuts if cut < len(bars)]) == check(bars)


# Each check alone, and exactly it


def changed(place: int, **columns: float) -> list[Bar]:
    """Good bars, one of them with other numbers."""
    bars = good_bars()
    bars[place] = bars[place]._replace(**columns)  # type: ignore[arg-type]
    return bars


def moved(place: int, by: int) -> list[Bar]:
    return changed(place, ts=MIDNIGHT + place * MINUTE.ms + by)


AT_7 = MIDNIGHT + 7 * MINUTE.ms
MUTATIONS: list[tuple[list[Bar], str, str, Place]] = [
    (moved(7, -MINUTE.ms), "error", "duplicates",
     Place(7, AT_7 - MINUTE.ms, "a start after 2024-03-01 00:06:00", "2024-03-01 00:06:00")),
    (moved(7, -2 * MINUTE.ms), "error", "order",
     Place(7, AT_7 - 2 * MINUTE.ms, "a start after 2024-03-01 00:06:00", "2024-03-01 00:05:00")),
    (moved(7, 7), "warning", "alignment",
     Place(7, AT_7 + 7, "a start at 2024-03-01 00:07:00", "2024-03-01 00:07:00.007")),
    (changed(7, close=NAN), "error", "finite",
     Place(7, AT_7, "finite numbers, or no prices at all",
           "open 10.0, high 12.0, low 9.0, close nan, volume 5.0")),
    (changed(7, volume=INF), "error", "finite",
     Place(7, AT_7, "finite numbers, or no prices at all",
           "open 10.0, high 12.0, low 9.0, close 11.0, volume inf")),
    (changed(7, open=NAN, high=NAN, low=NAN, close=NAN), "error", "volume-without-prices",
     Place(7, AT_7, "volume 0.0 without prices", "volume 5.0")),
    (changed(7, high=10.5), "error", "high", Place(7, AT_7, "high of at least 11.0", "10.5")),
    (changed(7, low=10.5), "error", "low", Place(7, AT_7, "low of at most 10.0", "10.5")),
    (changed(7, low=-1.0), "error", "negative-prices",
     Place(7, AT_7, "prices of at least 0", "low -1.0")),
    (changed(7, low=0.0), "warning", "zero-prices", Place(7, AT_7, "prices above 0", "low 0.0")),
    (changed(7, volume=-0.5), "error", "negative-volumes",
     Place(7, AT_7, "volume of at least 0", "-0.5")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("bars", "severity", "name", "place"), MUTATIONS, ids=[f"{m[2]}" for m in MUTATIONS]
)
def test_a_wrong_bar_gives_the_finding_that_names_it_and_no_other(
    bars: list[Bar], severity: str, name: str, place: Place
) -> None:
    findings = [finding for finding in check(bars) if finding.check != "gaps"]
    assert [(f.severity, f.check, f.count, f.places) for f in findings] == [
        (severity, name, 1, (place,))
    ]


def test_good_bars_give_no_finding() -> None:
    assert check(good_bars()) == []
    assert check(good_bars(), None) == []
    assert check(changed(7, volume=0.0)) == []
    assert check([Bar(MIDNIGHT, 1.0, 1.0, 1.0, 1.0, 0.0)]) == []


def test_no_bars_are_an_error_and_bars_without_prices_a_warning() -> None:
    (finding,) = check([])
    assert finding == Finding(
        "error", "bars", 1, "no bars at all", (Place(None, None, "bars", "none"),)
    )
    (finding,) = check([Bar(MIDNIGHT, NAN, NAN, NAN, NAN, 0.0)] * 1)
    assert (finding.severity, finding.message) == ("warning", "no bar has prices")


@pytest.mark.parametrize("empty", [Bar(0, NAN, NAN, NAN, NAN, 0.0), Bar(0, 0.0, 0.0, 0.0, 0.0, 0.0),
                                   Bar(0, NAN, NAN, NAN, NAN, NAN)])  # fmt: skip
def test_gaps_are_the_same_whether_bars_are_missing_or_empty(empty: Bar) -> None:
    bars = good_bars()
    filled = [
        bar if place not in (3, 7, 8) else empty._replace(ts=bar.ts)
        for place, bar in enumerate(bars)
    ]
    without = [bar for place, bar in enumerate(bars) if place not in (3, 7, 8)]
    (one,), (other,) = check(filled), check(without)
    assert one.message == (
        "bars missing: 3; the longest: 2 from 2024-03-01 00:06:00 to 2024-03-01 00:09:00;"
        " over twice the timeframe: 1"
    )
    assert (one.severity, one.count, one.message) == (other.severity, other.count, other.message)
    assert one.places == (
        Place(9, MIDNIGHT + 9 * MINUTE.ms,
              "bars between 2024-03-01 00:06:00 and 2024-03-01 00:09:00", "none"),
    )  # fmt: skip


def test_empty_bars_at_the_ends_are_no_gaps() -> None:
    bars = good_bars()
    for place in (0, 1, 18, 19):
        bars[place] = Bar(bars[place].ts, NAN, NAN, NAN, NAN, 0.0)
    assert check(bars) == []


def test_a_straggler_makes_no_gap() -> None:
    bars = good_bars()
    bars.insert(12, bars[3])
    assert [(f.check, f.count) for f in check(bars)] == [("order", 1)]


def test_where_prices_can_be_negative_they_are_information_and_zeros_are_nothing() -> None:
    bars = changed(7, low=-1.0)
    bars[8] = bars[8]._replace(low=0.0)
    (finding,) = check(bars, any_price=True)
    assert (finding.severity, finding.check) == ("information", "negative-prices")


def test_trades_may_share_a_time_and_come_late_and_far_apart() -> None:
    ts = [MIDNIGHT, MIDNIGHT + 1, MIDNIGHT + 1, MIDNIGHT, MIDNIGHT + 10**9]
    (finding,) = check([Bar(t, 2.0, 2.0, 2.0, 2.0) for t in ts], None)
    assert (finding.severity, finding.check, finding.count) == ("information", "order", 1)


def test_only_the_first_places_are_kept_and_all_are_counted() -> None:
    bars = [bar._replace(volume=-1.0) for bar in good_bars()]
    (finding,) = check(bars, cuts=[2, 3, 9])
    assert finding.count == 20
    assert [place.place for place in finding.places] == [0, 1, 2, 3, 4]


def test_the_checker_names_the_checks_it_makes() -> None:
    assert BarChecker(MINUTE).checks == ("bars", *NAMES, "gaps")
    assert "zero-prices" not in BarChecker(MINUTE, any_price=True).checks
    assert not {"duplicates", "alignment", "gaps"} & set(BarChecker(None).checks)


def test_a_finding_survives_json() -> None:
    for finding in check(changed(7, low=-1.0, volume=-1.0)):
        assert Finding.from_json(finding.to_json()) == finding


def test_a_finding_has_one_of_three_severities() -> None:
    with pytest.raises(ValueError, match="severity 'bad': expected one of error, warning, inf"):
        Finding("bad", "high", 1, "")


@pytest.mark.parametrize(
    ("ts", "name"),
    [
        (0, "1970-01-01 00:00:00"),
        (-1, "1969-12-31 23:59:59.999"),
        (253_402_300_799_999, "9999-12-31 23:59:59.999"),
        (253_402_300_800_000, "253402300800000 ms"),
        (-FAR - 1, "-9223372036854775808 ms"),
    ],
)
def test_any_time_has_a_name(ts: int, name: str) -> None:
    assert format_ts(ts) == name


# Calendars


class Months:
    """The months of UTC."""

    def periods(self, ts: Int64Array) -> tuple[Int64Array, Int64Array]:
        months = ts.view("datetime64[ms]").astype("datetime64[M]")
        return months.view(np.int64), months.astype("datetime64[ms]").view(np.int64)


def month(text: str) -> Bar:
    return Bar(int(np.datetime64(text, "ms").astype(np.int64)))


def check_months(*moments: str) -> list[Finding]:
    checker = BarChecker(None, calendar=Months())
    for place, moment in enumerate(moments):
        checker.add(place, bars_of([month(moment)]))
    return checker.finish()


def test_bars_of_a_calendar_are_counted_in_its_periods() -> None:
    assert check_months("2024-01", "2024-02", "2024-03", "2024-04") == []
    (finding,) = check_months("2024-01", "2024-02", "2024-05")
    assert finding.message == (
        "bars missing: 2; the longest: 2 from 2024-02-01 00:00:00 to 2024-05-01 00:00:00;"
        " over twice the timeframe: 1"
    )
    (finding,) = check_months("2024-01", "2024-02-02", "2024-03")
    assert (finding.severity, finding.check, finding.count) == ("warning", "alignment", 1)
    assert finding.places == (
        Place(1, month("2024-02-02").ts, "a start at 2024-02-01 00:00:00", "2024-02-02 00:00:00"),
    )
    (finding,) = check_months("2024-01", "2024-02", "2024-02")
    assert finding.check == "duplicates"
    (finding,) = check_months("2024-02", "2024-01")
    assert finding.check == "order"


def test_many_misaligned_periods_are_counted_and_the_first_kept() -> None:
    checker = BarChecker(None, calendar=Months())
    days = [month(f"2024-01-{day:02}") for day in range(2, 30)]
    checker.add(0, bars_of(days[:3]))
    checker.add(3, bars_of(days[3:]))
    (finding,) = checker.finish()
    assert (finding.check, finding.count) == ("alignment", 28)
    assert [place.ts for place in finding.places] == [bar.ts for bar in days[:5]]


@pytest.mark.parametrize("unit", ["1d", "1w", "1M"])
@pytest.mark.parametrize("tz", [None, "Europe/Berlin", "Pacific/Apia", "America/Sao_Paulo"])
@pytest.mark.parametrize("step", [1, 7, -3])
def test_periods_of_a_zone_have_numbers_however_they_are_asked_for(
    unit: str, tz: str | None, step: int
) -> None:
    period = Period.parse(unit)
    edges = boundaries(period, tz, MIDNIGHT - 10**12, MIDNIGHT)
    calendar = PeriodCalendar(period, tz)
    order = np.arange(len(edges) - 1)[::step]
    asked = [calendar.periods(edges[place : place + 1]) for place in order]
    numbers = np.array([number[0] for number, _ in asked])
    assert [start[0] for _, start in asked] == edges[order].tolist()
    assert (np.diff(numbers) == step).all()
    assert calendar.ends(edges[:-1]).tolist() == edges[1:].tolist()
    inside, starts = calendar.periods(edges[order] + 1)
    assert (inside - numbers == inside[0] - numbers[0]).all()
    assert starts.tolist() == edges[order].tolist()


def test_times_in_no_year_are_in_no_period() -> None:
    calendar = PeriodCalendar(Period.parse("1M"), None)
    far: Int64Array = np.array([-FAR, FAR])
    _, starts = calendar.periods(far)
    assert (starts != far).all()


def test_a_timeframe_and_a_calendar_are_one_too_many() -> None:
    with pytest.raises(ValueError, match="expected one of timeframe, calendar and any_length"):
        BarChecker(MINUTE, calendar=Months())


def test_bars_of_unknown_lengths_are_checked_for_all_else() -> None:
    checker = BarChecker(None, any_length=True)
    assert not {"alignment", "gaps"} & set(checker.checks)
    times = [MIDNIGHT, MIDNIGHT + 7, MIDNIGHT + 7, MIDNIGHT + 10**10, MIDNIGHT + 7]
    checker.add(0, bars_of([Bar(ts, high=1.0) for ts in times]))
    assert [(f.severity, f.check, f.count) for f in checker.finish()] == [
        ("error", "order", 1),
        ("error", "duplicates", 1),
        ("error", "high", 5),
    ]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0, 60_000, 120_000], "1m"),
        ([0, 120_000, 300_000, 360_000], "1m"),
        ([0, 120_000, 300_000], "1m"),
        ([*range(0, 1_800_000, 60_000), 1_800_007, 1_860_000], "1m"),
        ([120_000, 60_000, 0, 60_000], "1m"),
        ([0, 86_400_000], "1d"),
        ([0, 7 * 86_400_000, 14 * 86_400_000], "None"),
        ([0, 7, 14], "None"),
        ([5, 5], "None"),
        ([5], "None"),
        ([], "None"),
    ],
)
def test_a_timeframe_is_inferred_from_most_of_the_steps(times: list[int], expected: str) -> None:
    assert str(inferred_timeframe(np.array(times, np.int64))) == expected


# Repeated times in bars that are not in order


@given(
    st.lists(st.integers(0, 20).map(lambda n: MIDNIGHT + n * 1000)),
    st.integers(1, 8),
    st.integers(1, 9),
)
def test_repeated_times_are_found_wherever_they_stand(
    times: list[int], piece: int, room: int
) -> None:
    seen: set[int] = set()
    again = []
    for place, ts in enumerate(times):
        if ts in seen:
            again.append((place, ts))
        seen.add(ts)

    def pieces() -> Iterator[tuple[int, Int64Array]]:
        for begin in range(0, len(times), piece):
            yield begin, np.array(times[begin : begin + piece], np.int64)

    findings = repeated_times(pieces, len(times), room=room)
    assert sum(finding.count for finding in findings) == len(again)
    found = [place[:2] for finding in findings for place in finding.places]
    assert found == again[:5]
