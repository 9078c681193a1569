"""The tick test: which side took a trade whose source does not say so.

Databento marks such trades with side `N` (auctions, hidden orders, trades of several legs). They
take the side of the last price change of their market: up is a buy, down is a sell. A trade that
itself changes the price counts by its own change. Every trade moves the price that the next one is
held against, whatever its side. Before any change the side is a buy.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from candlebeam.kernels import callee, kernel
from candlebeam.model import Int64Array, Uint8Array, for_kernels

#: The price of a state that has seen none: below every other, so that the first change is up.
NO_PRICE = -(2**63)
BUY, SELL = 1, 0


class TickState(NamedTuple):
    """What the test keeps from one batch to the next.

    Attributes:
        price: the last price, as an integer of any unit; `NO_PRICE` at first.
        side: the side of the last price change, `BUY` or `SELL`.
    """

    price: int = NO_PRICE
    side: int = BUY


NOTHING_SEEN = TickState()


@callee
def side_of_change(price: int, last_price: int, side: int) -> int:
    """The side of the last price change, once a trade at `price` has followed `last_price`."""
    return int(price > last_price) | (int(price == last_price) & side)


@kernel("int64(int64[::1], uint8[::1], int64, int64)")
def _fill_sides(price: Int64Array, buy: Uint8Array, last_price: int, side: int) -> int:
    for place in range(len(price)):
        side = side_of_change(price[place], last_price, side)
        last_price = price[place]
        if buy[place] > BUY:
            buy[place] = side
    return side


def infer_sides(
    price: Int64Array, side: Uint8Array, state: TickState = NOTHING_SEEN
) -> tuple[Uint8Array, TickState]:
    """The side of each trade, and the state for the trades that follow.

    Args:
        price: exact prices as int64, of any one unit, in file order.
        side: uint8, `BUY` or `SELL` where it is known, anything else where it is not.
        state: that of the trades before.

    >>> infer_sides(np.array([5, 6, 6, 4]), np.array([0, 9, 9, 9], np.uint8))
    (array([0, 1, 1, 0], dtype=uint8), TickState(price=4, side=0))
    """
    if not len(price):
        return np.empty(0, np.uint8), state
    buy = side.astype(np.uint8)
    last = _fill_sides(for_kernels(price), buy, state.price, state.side)
    return buy, TickState(int(price[-1]), int(last))
