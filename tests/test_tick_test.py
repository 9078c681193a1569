"""The tick test against a plain reading of its rule."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from candlebeam.rules.tick_test import BUY, NOTHING_SEEN, SELL, TickState, infer_sides

UNKNOWN = 2
TRADES = st.lists(
    st.tuples(
        st.one_of(st.integers(1, 4), st.integers(-(2**63) + 1, 2**63 - 2)),
        st.sampled_from([BUY, SELL, UNKNOWN]),
    ),
    max_size=40,
)


def naive(trades: list[tuple[int, int]]) -> list[int]:
    sides: list[int] = []
    last_price, last_change = None, "up"
    for price, side in trades:
        if last_price is not None and price != last_price:
            last_change = "up" if price > last_price else "down"
        last_price = price
        sides.append(side if side != UNKNOWN else {"up": BUY, "down": SELL}[last_change])
    return sides


def infer(
    trades: list[tuple[int, int]], state: TickState = NOTHING_SEEN
) -> tuple[list[int], TickState]:
    price = np.array([price for price, _ in trades], np.int64)
    side = np.array([side for _, side in trades], np.uint8)
    buy, after = infer_sides(price, side, state)
    return buy.tolist(), after


@given(TRADES)
def test_unknown_sides_are_those_of_the_last_price_change(trades: list[tuple[int, int]]) -> None:
    assert infer(trades)[0] == naive(trades)


@given(TRADES, st.integers(0, 40))
def test_a_cut_anywhere_changes_nothing(trades: list[tuple[int, int]], cut: int) -> None:
    first, state = infer(trades[:cut])
    second, end = infer(trades[cut:], state)
    assert (first + second, end) == infer(trades)


def test_first_trade_without_side_is_a_buy() -> None:
    assert infer([(5, UNKNOWN), (5, UNKNOWN)])[0] == [BUY, BUY]


def test_known_sides_move_the_price_but_not_the_side() -> None:
    assert infer([(5, SELL), (6, SELL), (6, UNKNOWN), (5, BUY), (5, UNKNOWN)])[0] == [
        SELL,
        SELL,
        BUY,
        BUY,
        SELL,
    ]


def test_the_input_is_left_as_it_is() -> None:
    side = np.array([UNKNOWN], np.uint8)
    infer_sides(np.array([1], np.int64), side)
    assert side.tolist() == [UNKNOWN]
