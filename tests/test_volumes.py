"""Volumes of bars against those of their source: against a naive reading of the rules."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from candlebeam.model import Bars, Int64Array
from candlebeam.rules.checks import Finding
from candlebeam.rules.volumes import VolumeCheck, quote_volume
from tests.trade_batches import MIDNIGHT

LENGTH = 60_000
#: A time and a volume.
Row = tuple[int, float]


def bars_of(rows: Sequence[Row], price: float = 1.0) -> Bars:
    prices = np.full(len(rows), price)
    volume = np.array([row[1] for row in rows], np.float64)
    return Bars(
        np.array([row[0] for row in rows], np.int64), prices, prices, prices, prices, volume
    )


def pieces(rows: Sequence[Row], length: int, price: float = 1.0) -> Iterator[tuple[int, Bars]]:
    for begin in range(0, len(rows), length):
        yield begin, bars_of(rows[begin : begin + length], price)


def end_of(ts: Int64Array) -> Int64Array:
    return ts + LENGTH


def compare(
    bars: Sequence[Row], source: Sequence[Row], piece: int = 3, source_piece: int = 4, **more: int
) -> list[Finding]:
    check = VolumeCheck(
        pieces(bars, piece),
        pieces(source, source_piece),
        ends=end_of,
        **{"source_length": 1_000, **more},  # type: ignore[arg-type]
    )
    return check.run()


# The oracle


def ends_of(bars: Sequence[Row]) -> list[int]:
    following = [*(ts for ts, _ in bars[1:]), math.inf]
    return [int(min(ts + LENGTH, n)) for (ts, _), n in zip(bars, following, strict=True)]


def expected(
    bars: Sequence[Row], source: Sequence[Row], source_length: int, closed: int
) -> tuple[list[int], list[int], int]:
    """Places of the bars that are compared, of those that differ, and rows without a bar."""
    if not bars or not source:
        return [], [], 0
    ends = ends_of(bars)
    first = min(ts for ts, _ in source)
    last = max(ts for ts, _ in source) + max(source_length, 1)
    compared, wrong = [], []
    for place, (ts, volume) in enumerate(bars):
        inside = first <= ts and ends[place] <= last
        if place in (0, len(bars) - 1):
            inside = first < ends[place] and ts < last
        if place >= closed and last > ends[place]:
            inside = False
        if inside:
            compared.append(place)
            total = math.fsum(v for t, v in source if ts <= t < ends[place])
            if abs(total - volume) > 0.01:
                wrong.append(place)
    without = [
        v
        for t, v in source
        if bars[0][0] <= t < ends[-1]
        and v
        and not any(ts <= t < end for (ts, _), end in zip(bars, ends, strict=True))
    ]
    return compared, wrong, len(without)


@st.composite
def both(draw: st.DrawFn) -> tuple[list[Row], list[Row]]:
    """Rows of a source, and bars that are made of them but for some."""
    seconds = draw(st.lists(st.integers(0, 900), max_size=40))
    source = [(MIDNIGHT + s * 1_000, draw(st.sampled_from([0.0, 1.0, 2.5]))) for s in seconds]
    source.sort()
    bars = []
    for place in range(15):
        ts = MIDNIGHT + place * LENGTH
        total = math.fsum(v for t, v in source if ts <= t < ts + LENGTH)
        kind = draw(st.integers(0, 9))
        if kind == 0 or (kind < 4 and not total):
            continue
        bars.append((ts, total + (1.0 if kind == 1 else 0.009 if kind == 2 else 0.0)))
    keep = slice(draw(st.integers(0, 10)), draw(st.integers(0, 40)))
    return bars, source[keep]


@given(
    both(), st.integers(1, 6), st.integers(1, 6), st.sampled_from([0, 1_000]), st.integers(0, 15)
)
def test_volumes_are_compared_as_the_rules_say(
    rows: tuple[list[Row], list[Row]], piece: int, source_piece: int, length: int, closed: int
) -> None:
    bars, source = rows
    check = VolumeCheck(
        pieces(bars, piece),
        pieces(source, source_piece),
        ends=end_of,
        source_length=length,
        closed=closed,
    )
    findings = check.run()
    compared, wrong, without = expected(bars, source, length, closed)
    assert check.compared == len(compared)
    warnings = {f.message.split(";")[0]: f for f in findings if f.severity == "warning"}
    differing = warnings.pop("volume is not that of the source", None)
    assert (differing.count if differing else 0) == len(wrong)
    assert [place.place for place in (differing.places if differing else ())] == wrong[:5]
    missing = warnings.pop("volume in the source where there is no bar", None)
    assert (missing.count if missing else 0) == without
    # Many small differences can still make a large one.
    assert not warnings.keys() - {"the sum of all volumes is not that of the source"}
    if bars and not compared and not without:
        assert [finding.severity for finding in findings] == ["information"]


# Cases of their own

BARS = [(MIDNIGHT + n * LENGTH, 60.0) for n in range(9)]
SECONDS = [(MIDNIGHT + n * 1_000, 1.0) for n in range(9 * 60)]


def test_bars_that_are_the_sum_of_their_source_give_no_finding() -> None:
    assert compare(BARS, SECONDS) == []
    assert compare([], SECONDS) == []


def test_a_bar_with_another_volume_is_named() -> None:
    bars = list(BARS)
    bars[4] = (bars[4][0], 60.011)
    (finding,) = compare(bars, SECONDS)
    assert (finding.severity, finding.check, finding.count) == ("warning", "volume", 1)
    assert finding.message == (
        "volume is not that of the source; in all it is 540.011, and in the source 540.0"
    )
    assert finding.places == ((4, MIDNIGHT + 4 * LENGTH, "volume 60.0", "60.011"),)


def test_a_difference_of_one_hundredth_is_none() -> None:
    bars = list(BARS)
    bars[4] = (bars[4][0], 60.01)
    assert compare(bars, SECONDS) == []


def test_many_small_differences_are_found_in_the_sum() -> None:
    (finding,) = compare([(ts, volume + 0.009) for ts, volume in BARS], SECONDS)
    assert finding.message == "the sum of all volumes is not that of the source"
    assert finding.count == 1


def test_huge_volumes_may_differ_by_what_float64_sums_lose() -> None:
    source = [(ts, 1e15) for ts, _ in SECONDS]
    assert compare([(ts, 6e16 + 1e4) for ts, _ in BARS], source) == []
    (finding,) = compare([(ts, 6e16 + 1e6) for ts, _ in BARS], source)
    assert finding.count == len(BARS)


def test_volume_without_a_bar_is_found() -> None:
    (finding,) = compare([*BARS[:4], *BARS[5:]], SECONDS)
    assert (finding.severity, finding.count) == ("warning", 60)
    assert finding.message == "volume in the source where there is no bar"
    assert finding.places[0] == (None, BARS[4][0], "a bar for a volume of 1.0", "none")


def test_nothing_in_common_is_information() -> None:
    later = [(ts + 86_400_000, volume) for ts, volume in SECONDS]
    for source in (later, []):
        (finding,) = compare(BARS, source)
        assert (finding.severity, finding.message) == (
            "information",
            "not compared: the source covers none of these bars",
        )


def test_bars_that_the_source_covers_in_part_are_left_out_but_for_the_ends() -> None:
    assert compare(BARS, SECONDS[90:-90]) == []
    bars = list(BARS)
    bars[0], bars[-1] = (bars[0][0], 50.0), (bars[-1][0], 50.0)
    assert compare(bars, SECONDS[10:-10]) == []


def test_a_bar_that_may_still_change_is_compared_if_the_source_has_nothing_behind_it() -> None:
    bars = [*BARS[:5], (BARS[5][0], 30.0)]
    assert compare(bars, SECONDS, closed=5) == []
    assert compare(bars, SECONDS[: 5 * 60 + 30], closed=5) == []
    (finding,) = compare(bars, SECONDS[: 5 * 60 + 31], closed=5)
    assert finding.count == 1


def test_trades_that_are_nearly_in_order_are_taken_for_the_bar_they_are_in() -> None:
    source = list(SECONDS)
    for place in range(0, len(source) - 7, 14):
        source[place], source[place + 7] = source[place + 7], source[place]
    assert compare(BARS, source, piece=2, source_piece=50) == []


def test_trades_are_worth_what_candle_files_say() -> None:
    trades = bars_of([(MIDNIGHT, 0.5), (MIDNIGHT + 1, 3e-7)], price=1.5)
    assert quote_volume(trades).tolist() == [0.75, 0.0]
    check = VolumeCheck(
        [(0, bars_of([(MIDNIGHT, 0.75)]))],
        [(0, trades)],
        ends=end_of,
        source_length=0,
        in_quote=True,
    )
    assert check.run() == []


def test_a_volume_that_is_missing_counts_as_none() -> None:
    assert compare([(MIDNIGHT, math.nan)], [(MIDNIGHT, 0.0)]) == []
    (finding,) = compare([(MIDNIGHT, math.nan)], [(MIDNIGHT, 1.0)])
    assert finding.count == 1
