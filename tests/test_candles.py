"""Candles against a naive reading of the rules, trade by trade, in Python's own integers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlebeam.errors import RangeError
from candlebeam.model import (
    BLOCK_DTYPE,
    NO_FIRST,
    NO_LAST,
    CandleBlock,
    Market,
    Timeframe,
    TradeBatch,
)
from candlebeam.rules.candles import CandleMerger, aggregate, empty_candles, fill_gaps, merge
from tests.trade_batches import MARKET, MIDNIGHT, MINUTE, ROWS, Row, batch, same_block

TIMEFRAMES = st.sampled_from(["1s", "1m", "1h", "1d"]).map(Timeframe.parse)
LARGEST = 2**63 - 1


@dataclass
class Naive:
    """One candle as the rules say it."""

    trades: list[Row] = field(default_factory=list)
    volume: dict[int, int] = field(default_factory=lambda: {0: 0, 1: 0})
    liquidation: dict[int, int] = field(default_factory=lambda: {0: 0, 1: 0})
    count: dict[int, int] = field(default_factory=lambda: {0: 0, 1: 0})

    def record(self, time: int) -> tuple[float, ...]:
        prices = [row.price for row in self.trades]
        first = min(self.trades, key=lambda row: row.ts, default=None)
        last = max(reversed(self.trades), key=lambda row: row.ts, default=None)
        return (
            time,
            first.price if first else 0.0,
            max(prices, default=-math.inf),
            min(prices, default=math.inf),
            last.price if last else 0.0,
            first.ts if first else NO_FIRST,
            last.ts if last else NO_LAST,
            *(
                sums[side]
                for sums in (self.volume, self.count, self.liquidation)
                for side in (1, 0)
            ),
        )


def quote_volume(row: Row) -> int:
    exact = (row.price * row.size) * 1e6
    whole = math.floor(exact)
    return whole + 1 if exact - whole >= 0.5 else whole


def naive(rows: list[Row], timeframe: Timeframe, include: bool, counted: bool) -> CandleBlock:
    candles: dict[int, Naive] = {}
    for row in rows:
        candle = candles.setdefault(row.ts // timeframe.ms * timeframe.ms, Naive())
        volume = quote_volume(row)
        if row.liquidation:
            candle.liquidation[row.buy] += volume
        if not row.liquidation or include:
            candle.trades.append(row)
            candle.volume[row.buy] += volume
            candle.count[row.buy] += row.trades if counted else 1
    records = [candles[time].record(time) for time in sorted(candles)]
    return CandleBlock(MARKET, timeframe, np.array(records, BLOCK_DTYPE))


@given(st.lists(ROWS, max_size=40), TIMEFRAMES, st.booleans(), st.booleans())
def test_candles_are_what_the_rules_say(
    rows: list[Row], timeframe: Timeframe, include: bool, counted: bool
) -> None:
    found = aggregate(batch(rows, counted=counted), timeframe, include_liquidations=include)
    assert found.candles.tolist() == naive(rows, timeframe, include, counted).candles.tolist()


@given(st.lists(st.lists(ROWS, max_size=12), min_size=1, max_size=6), TIMEFRAMES, st.booleans())
def test_any_split_into_batches_gives_the_same_block(
    parts: list[list[Row]], timeframe: Timeframe, include: bool
) -> None:
    whole = aggregate(
        batch([row for part in parts for row in part]), timeframe, include_liquidations=include
    )
    blocks = [aggregate(batch(p), timeframe, include_liquidations=include) for p in parts]
    merger = CandleMerger()
    for block in blocks:
        merger.add(block)
    assert same_block(merge(blocks), whole)
    assert same_block(merger.finish() or whole, whole)


@given(st.lists(ROWS, min_size=1, max_size=30), st.data())
def test_merging_groups_of_blocks_first_changes_nothing(
    rows: list[Row], data: st.DataObject
) -> None:
    blocks = [aggregate(batch([row]), MINUTE) for row in rows]
    cut = data.draw(st.integers(1, len(blocks)))
    left, right = merge(blocks[:cut]), blocks[cut:]
    assert same_block(merge([left, *([merge(right)] if right else [])]), merge(blocks))


def test_ties_open_with_the_first_and_close_with_the_last_in_file_order() -> None:
    rows = [Row(MIDNIGHT + 5, price) for price in (2.0, 9.0, 1.0, 3.0)]
    (candle,) = aggregate(batch(rows), MINUTE).candles
    assert [candle[name] for name in ("open", "high", "low", "close")] == [2.0, 9.0, 1.0, 3.0]
    (merged,) = merge([aggregate(batch([row]), MINUTE) for row in rows]).candles
    assert merged == candle


def test_late_rows_open_and_close_by_their_time_not_by_their_place() -> None:
    rows = [
        Row(MIDNIGHT + 30_000, 5.0),
        Row(MIDNIGHT + 60_000, 6.0),
        Row(MIDNIGHT, 1.0),
        Row(MIDNIGHT + 59_999, 9.0),
        Row(MIDNIGHT + 40_000, 7.0),
    ]
    first, second = aggregate(batch(rows), MINUTE).candles
    assert (first["open"], first["close"]) == (1.0, 9.0)
    assert (first["first_ts"], first["last_ts"]) == (MIDNIGHT, MIDNIGHT + 59_999)
    assert second["open"] == second["close"] == 6.0


def test_boundary_of_a_candle_belongs_to_the_one_that_begins() -> None:
    rows = [Row(MIDNIGHT + 59_999, 1.0), Row(MIDNIGHT + 60_000, 2.0), Row(MIDNIGHT - 1, 3.0)]
    times = aggregate(batch(rows), MINUTE).candles["time"].tolist()
    assert times == [MIDNIGHT - 60_000, MIDNIGHT, MIDNIGHT + 60_000]


def test_volume_is_rounded_half_up_trade_by_trade() -> None:
    halves = [Row(MIDNIGHT, 0.5e-6, 1.0), Row(MIDNIGHT, 1.0, 0.5e-6), Row(MIDNIGHT, 1.0, 0.4e-6)]
    (candle,) = aggregate(batch(halves), MINUTE).candles
    assert candle["buy_volume"] == 2


def test_liquidations_count_apart_unless_they_are_included() -> None:
    rows = [Row(MIDNIGHT, 2.0, 3.0, 1, 1), Row(MIDNIGHT, 4.0, 1.0, 0, 0)]
    (apart,) = aggregate(batch(rows), MINUTE).candles
    assert (apart["high"], apart["low"]) == (4.0, 4.0)
    assert (apart["buy_count"], apart["sell_count"]) == (0, 1)
    assert (apart["buy_volume"], apart["buy_liquidation"]) == (0, 6_000_000)
    (together,) = aggregate(batch(rows), MINUTE, include_liquidations=True).candles
    assert (together["high"], together["low"]) == (4.0, 2.0)
    assert (together["buy_count"], together["sell_count"]) == (1, 1)
    assert (together["buy_volume"], together["buy_liquidation"]) == (6_000_000, 6_000_000)


def test_candle_of_liquidations_alone_has_the_form_of_an_empty_one_but_for_its_volume() -> None:
    (candle,) = aggregate(batch([Row(MIDNIGHT + 7, 2.0, 3.0, 0, 1)]), MINUTE).candles
    (expected,) = empty_candles(MIDNIGHT, 1)
    assert candle["sell_liquidation"] == 6_000_000
    candle["sell_liquidation"] = 0
    assert candle == expected


def test_count_column_stands_for_the_trades_behind_a_row() -> None:
    rows = [Row(MIDNIGHT, 1.0, 1.0, 1, 0, 5), Row(MIDNIGHT, 1.0, 1.0, 0, 0, 0)]
    (counted,) = aggregate(batch(rows, counted=True), MINUTE).candles
    assert (counted["buy_count"], counted["sell_count"]) == (5, 0)
    (plain,) = aggregate(batch(rows), MINUTE).candles
    assert (plain["buy_count"], plain["sell_count"]) == (1, 1)


def test_times_before_1970_fall_into_the_candle_they_are_in() -> None:
    assert aggregate(batch([(-1, 1.0)]), MINUTE).candles["time"].tolist() == [-60_000]


def test_no_trades_give_no_candles() -> None:
    assert len(aggregate(batch([]), MINUTE)) == 0
    assert len(fill_gaps(aggregate(batch([]), MINUTE))) == 0
    assert CandleMerger().finish() is None


@pytest.mark.parametrize("order", [1, -1, 7])
def test_more_candles_than_the_first_guess_has_room_for(order: int) -> None:
    times = [MIDNIGHT + (n * order % 20_011) * 60_000 for n in range(20_011)]
    found = aggregate(batch([(ts, 1.0) for ts in times]), MINUTE).candles
    assert found["time"].tolist() == sorted(times)
    assert found["buy_count"].tolist() == [1] * len(times)


def test_largest_volume_fits_and_one_more_does_not() -> None:
    most = Row(MIDNIGHT, 9223372036854.773)
    rest = LARGEST - quote_volume(most)
    assert rest == 2047
    (candle,) = aggregate(batch([most, Row(MIDNIGHT, rest / 1e6)]), MINUTE).candles
    assert candle["buy_volume"] == LARGEST
    with pytest.raises(RangeError, match=f"RAM/BINANCE/btcusdt: .* at {MIDNIGHT} does not fit"):
        aggregate(batch([most, Row(MIDNIGHT, (rest + 1) / 1e6)]), MINUTE)
    assert math.nextafter(most.price, math.inf) * 1e6 == 2.0**63


@pytest.mark.parametrize("price", [9.3e12, 1e300, math.inf, math.nan])
@pytest.mark.parametrize("liquidation", [0, 1])
def test_one_volume_that_does_not_fit_is_an_error(price: float, liquidation: int) -> None:
    rows = [Row(MIDNIGHT - 60_000, 1.0), Row(MIDNIGHT, price, 1.0, 1, liquidation)]
    with pytest.raises(RangeError, match=f"the volume of the candle at {MIDNIGHT} does not fit"):
        aggregate(batch(rows), MINUTE)


@pytest.mark.parametrize(("buy", "liquidation"), [(0, 0), (1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("include", [False, True])
def test_sum_that_wraps_is_found_though_it_wraps_back(
    buy: int, liquidation: int, include: bool
) -> None:
    row = Row(MIDNIGHT, 9e12, 1.0, buy, liquidation)
    assert 3 * quote_volume(row) % 2**64 < 2**63 < 2 * quote_volume(row)
    with pytest.raises(RangeError, match="does not fit in 64 bits"):
        aggregate(batch([row] * 3), MINUTE, include_liquidations=include)


@pytest.mark.parametrize(("buy", "liquidation"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_merge_finds_a_sum_that_does_not_fit(buy: int, liquidation: int) -> None:
    one = aggregate(batch([Row(MIDNIGHT, 5e12, 1.0, buy, liquidation)]), MINUTE)
    with pytest.raises(RangeError, match=f"{MARKET}: the volume of the candle at {MIDNIGHT}"):
        merge([one, one])
    late = aggregate(batch([Row(MIDNIGHT + 60_000, 1.0)]), MINUTE)
    with pytest.raises(RangeError, match=f"the volume of the candle at {MIDNIGHT}"):
        merge([one, late, one])


def test_merge_finds_counts_that_do_not_fit() -> None:
    one = aggregate(batch([(MIDNIGHT, 1.0, 1.0, 1, 0, 2**62)], counted=True), MINUTE)
    assert one.candles["buy_count"].tolist() == [2**62]
    with pytest.raises(RangeError, match="does not fit in 64 bits"):
        merge([one, one])


def test_counts_of_a_batch_that_do_not_fit_are_an_error() -> None:
    rows = [(MIDNIGHT, 1.0, 1.0, 1, 0, 2**62)] * 4
    with pytest.raises(RangeError, match=f"{MARKET}: a sum of trade counts does not fit"):
        aggregate(batch(rows, counted=True), MINUTE)


def test_merge_wants_blocks_of_one_market_and_timeframe() -> None:
    one = aggregate(batch([(MIDNIGHT, 1.0)]), MINUTE)
    others = [
        aggregate(batch([(MIDNIGHT, 1.0)], Market("RAM", "X", "y")), MINUTE),
        aggregate(batch([(MIDNIGHT, 1.0)]), Timeframe(1000)),
    ]
    for wrong in ([], [one, others[0]], [one, others[1]]):
        with pytest.raises(ValueError, match="blocks of one market and one timeframe"):
            merge(wrong)


def test_merge_leaves_its_blocks_as_they_were() -> None:
    blocks = [aggregate(batch([(MIDNIGHT, 1.0)]), MINUTE) for _ in range(3)]
    before = [block.candles.tobytes() for block in blocks]
    merge(blocks)
    assert [block.candles.tobytes() for block in blocks] == before


def test_merger_gives_the_same_whenever_it_merges_between() -> None:
    """Enough candles for it to merge what has come before the end, several times."""
    starts = [MIDNIGHT + n * 20_000 * 60_000 for n in (0, 1, 2, 1, 3, 4, 0, 5, 6, 7)]
    blocks = [CandleBlock(MARKET, MINUTE, empty_candles(start, 21_000)) for start in starts]
    for number, block in enumerate(blocks):
        # All traded at the same time: the order of the blocks alone tells open and close.
        block.candles["first_ts"] = block.candles["last_ts"] = block.candles["time"]
        block.candles["open"] = block.candles["close"] = number
        block.candles["buy_count"] = 1
    merger = CandleMerger()
    for block in blocks:
        merger.add(block)
    found = merger.finish()
    assert found is not None
    assert same_block(found, merge(blocks))
    assert same_block(merger.finish() or found, found)
    assert found.candles["buy_count"].sum() == sum(len(block) for block in blocks)


@given(st.lists(st.integers(0, 300), min_size=1, max_size=20))
def test_filled_block_has_every_candle_from_the_first_to_the_last(places: list[int]) -> None:
    block = aggregate(batch([(MIDNIGHT + n * 60_000 + 1, 2.0) for n in places]), MINUTE)
    filled = fill_gaps(block).candles
    times = list(range(min(places), max(places) + 1))
    assert filled["time"].tolist() == [MIDNIGHT + n * 60_000 for n in times]
    (empty,) = empty_candles(0, 1)
    traded = dict(zip(block.candles["time"].tolist(), block.candles, strict=True))
    for candle in filled:
        time = int(candle["time"])
        if time in traded:
            assert candle == traded[time]
        else:
            candle["time"] = 0
            assert candle == empty


def test_filling_twice_changes_nothing_and_merging_gaps_changes_nothing() -> None:
    block = aggregate(batch([(MIDNIGHT, 1.0), (MIDNIGHT + 600_000, 2.0)]), MINUTE)
    filled = fill_gaps(block)
    assert same_block(fill_gaps(filled), filled)
    assert same_block(merge([filled, filled]), fill_gaps(merge([block, block])))


def columns_of(trades: TradeBatch) -> list[npt.NDArray[Any]]:
    assert trades.count is not None
    return [
        trades.ts, trades.price, trades.size, trades.buy, trades.liquidation, trades.count
    ]  # fmt: skip


def test_arrays_need_neither_be_writeable_nor_aligned_nor_contiguous() -> None:
    trades = batch([Row(MIDNIGHT + n * 30_000, n + 1.0) for n in range(9)], counted=True)
    expected = aggregate(trades, MINUTE)
    columns = columns_of(trades)
    odd = [np.frombuffer(b"-" + column.tobytes(), column.dtype, offset=1) for column in columns]
    assert same_block(aggregate(TradeBatch(MARKET, *odd), MINUTE), expected)
    every_other = [np.repeat(column, 2)[::2] for column in columns]
    assert same_block(aggregate(TradeBatch(MARKET, *every_other), MINUTE), expected)
