"""Candles that a stream goes on from: whether it can, and what it takes over from them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from candlebeam.errors import CandlebeamError
from candlebeam.formats.candles.companion import CandlePaths, Companion, ResumeState
from candlebeam.formats.candles.kept_decimals import stored_decimals_kept
from candlebeam.model import Market, TradeBatch
from candlebeam.rules.open_candles import ROUNDED, Base
from candlebeam.settings import CandleSettings
from candlebeam.storage import storage_of


def checked_state(
    companion: Companion,
    paths: CandlePaths,
    market: Market,
    settings: CandleSettings,
    cure: str = "`candlebeam backfill` makes it again",
) -> ResumeState:
    """The state of candles that can be gone on from.

    Args:
        cure: what to do where records are missing.

    Raises:
        CandlebeamError: they cannot; why.
    """
    state = companion.state
    if companion.market != market:
        raise CandlebeamError(f"{paths.companion} belongs to {companion.market}, not to {market}")
    if state is None:
        raise CandlebeamError(
            f"{paths.companion} was written by another program, or another version of this one"
        )
    if different := settings.differences(state.settings):
        raise CandlebeamError(
            f"{paths.records} was made with other settings ({'; '.join(different)})"
        )
    try:
        size = storage_of(paths.records).state(paths.records).size
    except FileNotFoundError:
        size = 0
    if size < companion.size:
        raise CandlebeamError(f"{paths.records} has {size} of {companion.size} bytes: {cure}")
    return state


def base_of(companion: Companion, paths: CandlePaths, state: ResumeState, tail: bytes) -> Base:
    """What a stream that goes on from candles has to know of them.

    Args:
        tail: what is not read again of the last candle.
    """
    companion = companion.traded
    return Base(
        start_ts=companion.start_ts,
        end_ts=companion.end_ts,
        tail=tail,
        prices=state.prices,
        decimals_kept=stored_decimals_kept(paths, companion) if state.exact else ROUNDED,
        late_trades=state.late_trades,
        skipped=state.skipped,
    )


def chosen_trades(trades: TradeBatch, chosen: npt.NDArray[np.bool_]) -> TradeBatch:
    """Some of the trades of a batch."""
    return TradeBatch(
        trades.market,
        trades.ts[chosen],
        trades.price[chosen],
        trades.size[chosen],
        trades.buy[chosen],
        trades.liquidation[chosen],
    )


def no_trades(market: Market) -> TradeBatch:
    """A batch without any."""
    return TradeBatch(
        market,
        np.empty(0, np.int64),
        np.empty(0),
        np.empty(0),
        np.empty(0, np.uint8),
        np.empty(0, np.uint8),
    )
