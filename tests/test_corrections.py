from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlebeam.errors import UsageError
from candlebeam.model import Market
from candlebeam.rules.corrections import CORRECTIONS, check_corrections, correct_trades
from tests.trade_batches import ROWS, Row, batch, rows_of

BITFINEX = Market("RAM", "BITFINEX", "BTCUSD")
OKEX = Market("RAM", "OKEX", "BTC-USD-SWAP")
BINANCE = Market("RAM", "BINANCE", "btcusdt")
OKEX_FROM, OKEX_TO = 1_572_940_388_059, 1_572_964_319_495
SIDES_FROM, SIDES_TO = 1_574_193_600_000, 1_575_489_600_000

EDGES = [edge + step for edge in (OKEX_FROM, OKEX_TO, SIDES_FROM, SIDES_TO) for step in (-1, 0, 1)]
EDGE_ROWS = st.builds(
    lambda row, ts: row._replace(ts=ts),
    ROWS,
    st.sampled_from(EDGES) | st.integers(OKEX_FROM - 10**8, SIDES_TO + 10**8),
)


def bitfinex_rule(exchange: str, row: Row) -> Row:
    wrong = exchange == "BITFINEX" and row.liquidation
    return row._replace(buy=1 - row.buy) if wrong else row


def okex_rule(exchange: str, row: Row) -> Row:
    wrong = exchange == "OKEX" and row.liquidation and OKEX_FROM <= row.ts < OKEX_TO
    return row._replace(size=row.size / 500) if wrong else row


def sides_rule(exchange: str, row: Row) -> Row:
    if row.liquidation or not SIDES_FROM <= row.ts <= SIDES_TO:
        return row
    seed = math.fmod(float(row.ts) * 9301.0 + 49297.0, 233280.0)
    return row._replace(buy=int(seed / 233280.0 >= 0.5))


RULES: dict[str, Callable[[str, Row], Row]] = {
    "bitfinex-liquidation-side": bitfinex_rule,
    "okex-liquidation-size": okex_rule,
    "random-side-2019": sides_rule,
}


def corrected(market: Market, rows: list[Row], *names: str) -> list[Row]:
    return rows_of(correct_trades(batch(rows, market), names))


@pytest.mark.parametrize("name", CORRECTIONS)
@given(
    st.sampled_from([BITFINEX, OKEX, BINANCE, Market("RAM", "OKEX2", "x")]),
    st.lists(EDGE_ROWS, max_size=20),
)
def test_each_correction_is_its_formula_row_by_row(
    name: str, market: Market, rows: list[Row]
) -> None:
    rows = [row._replace(trades=1) for row in rows]
    assert corrected(market, rows, name) == [RULES[name](market.exchange, row) for row in rows]


@given(st.sampled_from([BITFINEX, OKEX, BINANCE]), st.lists(EDGE_ROWS, max_size=20))
def test_all_together_are_all_the_formulas(market: Market, rows: list[Row]) -> None:
    expected = [row._replace(trades=1) for row in rows]
    for rule in RULES.values():
        expected = [rule(market.exchange, row) for row in expected]
    assert corrected(market, rows, *CORRECTIONS) == expected


@pytest.mark.parametrize("buy", [0, 1])
def test_bitfinex_liquidation_changes_sides(buy: int) -> None:
    rows = [Row(1, 2.0, 3.0, buy, 1), Row(1, 2.0, 3.0, buy, 0)]
    assert [r.buy for r in corrected(BITFINEX, rows, *CORRECTIONS)] == [1 - buy, buy]
    assert [r.buy for r in corrected(BINANCE, rows, *CORRECTIONS)] == [buy, buy]


@pytest.mark.parametrize(
    ("ts", "size"),
    [(OKEX_FROM - 1, 1000.0), (OKEX_FROM, 2.0), (OKEX_TO - 1, 2.0), (OKEX_TO, 1000.0)],
)
def test_okex_window_takes_its_begin_in_and_leaves_its_end_out(ts: int, size: float) -> None:
    rows = [Row(ts, 1.0, 1000.0, 1, 1), Row(ts, 1.0, 1000.0, 1, 0)]
    assert [r.size for r in corrected(OKEX, rows, *CORRECTIONS)] == [size, 1000.0]
    assert [r.size for r in corrected(BINANCE, rows, *CORRECTIONS)] == [1000.0, 1000.0]


@pytest.mark.parametrize(
    ("ts", "buy", "drawn"),
    [
        (SIDES_FROM - 1, (0, 1), False),
        (SIDES_FROM, (0, 1), True),
        (SIDES_TO, (0, 1), True),
        (SIDES_TO + 1, (0, 1), False),
    ],
)
def test_lost_sides_are_drawn_with_both_ends_of_the_window_in(
    ts: int, buy: tuple[int, int], drawn: bool
) -> None:
    rows = [Row(ts, 1.0, 1.0, side) for side in buy]
    sides = [row.buy for row in corrected(BINANCE, rows, *CORRECTIONS)]
    assert sides == (list(buy) if not drawn else [sides_rule("", rows[0]).buy] * 2)


def test_lost_sides_of_liquidations_stay() -> None:
    rows = [Row(SIDES_FROM + n, 1.0, 1.0, n % 2, 1) for n in range(100)]
    assert corrected(BINANCE, rows, *CORRECTIONS) == rows


@pytest.mark.parametrize(
    ("ts", "buy"), [(1_574_193_634_102, 0), (1_574_193_750_742, 1), (1_574_193_750_743, 1)]
)
def test_lost_sides_are_drawn_in_float64(ts: int, buy: int) -> None:
    """In integers the first two are drawn the other way: the product passes 2**53."""
    assert corrected(BINANCE, [Row(ts, 1.0)], *CORRECTIONS)[0].buy == buy


def test_lost_sides_are_drawn_about_evenly() -> None:
    times = range(SIDES_FROM, SIDES_TO, 1_296_001)
    sides = [r.buy for r in corrected(BINANCE, [Row(ts, 1.0) for ts in times], *CORRECTIONS)]
    assert 0.45 < sum(sides) / len(sides) < 0.55


def test_batch_that_came_in_is_left_as_it_was() -> None:
    rows = [Row(SIDES_FROM, 1.0, 1.0, side, side) for side in (0, 1)]
    for market in (BITFINEX, OKEX, BINANCE):
        before = batch(rows, market)
        correct_trades(before, CORRECTIONS)
        assert rows_of(before) == rows


def test_batch_keeps_its_market_its_length_and_its_counts() -> None:
    rows = [Row(SIDES_FROM, 1.0, 1.0, 0, 0, 7), Row(SIDES_FROM, 1.0, 1.0, 0, 1, 9)]
    after = correct_trades(batch(rows, BITFINEX, counted=True), CORRECTIONS)
    assert after.market == BITFINEX
    assert [row.trades for row in rows_of(after)] == [7, 9]


@pytest.mark.parametrize("market", [BITFINEX, OKEX, BINANCE])
def test_no_trades_stay_none(market: Market) -> None:
    assert corrected(market, [], *CORRECTIONS) == []


def test_none_applied_changes_nothing() -> None:
    rows = [Row(SIDES_FROM, 1.0, 1.0, side) for side in (0, 1)]
    assert corrected(BINANCE, rows) == rows


def test_names_come_in_the_order_of_application_each_once() -> None:
    names = tuple(CORRECTIONS)
    assert check_corrections([*reversed(names), names[0]]) == names
    assert check_corrections([]) == ()


def test_unknown_name_is_refused() -> None:
    with pytest.raises(UsageError, match="correction 'okex': expected one of bitfinex-liq"):
        check_corrections(["okex"])
