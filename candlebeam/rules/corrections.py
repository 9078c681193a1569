"""Corrections: what is known to be wrong in recorded trades, put right.

Each correction is a pure function over a `TradeBatch`, named in `CORRECTIONS`. To add one, write
the function and name it there: the command line, the flow and the report know it from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from candlebeam.errors import UsageError
from candlebeam.model import TradeBatch

Correction: TypeAlias = Callable[[TradeBatch], TradeBatch]

OKEX_LIQUIDATION_SIZE = 500.0
OKEX_WINDOW = (1_572_940_388_059, 1_572_964_319_495)
RANDOM_SIDE_WINDOW = (1_574_193_600_000, 1_575_489_600_000)


def flip_bitfinex_liquidations(trades: TradeBatch) -> TradeBatch:
    """BITFINEX reports a liquidation with the side of the position, not of the aggressor."""
    if trades.market.exchange != "BITFINEX" or not trades.liquidation.any():
        return trades
    return replace(trades, buy=trades.buy ^ trades.liquidation)


def shrink_okex_liquidations(trades: TradeBatch) -> TradeBatch:
    """OKEX liquidations with OKEX_WINDOW[0] <= ts < OKEX_WINDOW[1] are 500 times too large."""
    if trades.market.exchange != "OKEX":
        return trades
    wrong = trades.liquidation.astype(bool)
    wrong &= (trades.ts >= OKEX_WINDOW[0]) & (trades.ts < OKEX_WINDOW[1])
    if not wrong.any():
        return trades
    return replace(trades, size=np.where(wrong, trades.size / OKEX_LIQUIDATION_SIZE, trades.size))


def draw_lost_sides(trades: TradeBatch) -> TradeBatch:
    """Sides recorded in RANDOM_SIDE_WINDOW (both ends in) are wrong: draws a random but fixed one.

    In float64, `fmod(ts * 9301 + 49297, 233280) / 233280 >= 0.5` is a buy. The product passes 2**53
    and so loses its last digit: on purpose, since files made before were made that way.
    """
    begin, end = RANDOM_SIDE_WINDOW
    if not len(trades) or trades.ts.max() < begin or trades.ts.min() > end:
        return trades
    wrong = (trades.ts >= begin) & (trades.ts <= end) & (trades.liquidation == 0)
    seed = np.fmod(trades.ts.astype(np.float64) * 9301.0 + 49297.0, 233280.0)
    drawn = (seed / 233280.0 >= 0.5).astype(np.uint8)
    return replace(trades, buy=np.where(wrong, drawn, trades.buy))


CORRECTIONS: dict[str, Correction] = {
    "bitfinex-liquidation-side": flip_bitfinex_liquidations,
    "okex-liquidation-size": shrink_okex_liquidations,
    "random-side-2019": draw_lost_sides,
}


def check_corrections(names: Iterable[str]) -> tuple[str, ...]:
    """The names in the order of their application, each once; `UsageError` for an unknown one."""
    wanted = set(names)
    unknown = sorted(wanted - set(CORRECTIONS))
    if unknown:
        raise UsageError(f"correction {unknown[0]!r}: expected one of {', '.join(CORRECTIONS)}")
    return tuple(name for name in CORRECTIONS if name in wanted)


def correct_trades(trades: TradeBatch, names: Iterable[str]) -> TradeBatch:
    """Applies the named corrections to a batch; the batch that came in is left as it was."""
    for name in names:
        trades = CORRECTIONS[name](trades)
    return trades
