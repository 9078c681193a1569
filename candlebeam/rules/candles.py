"""Candles: from trades to candle blocks, merging blocks, filling gaps.

Everything is exact: volumes are integers, and of open and close the block remembers when they were
traded. So any split of the trades into batches, merged in file order, gives the same candles.
"""

from __future__ import annotations

import numpy as np

from candlebeam.errors import RangeError
from candlebeam.model import (
    BLOCK_DTYPE,
    NO_FIRST,
    NO_LAST,
    CandleBlock,
    Float64Array,
    Int64Array,
    Records,
    Timeframe,
    TradeBatch,
    for_kernels,
)
from candlebeam.rules.candle_kernels import OVERFLOW, fold_candles, fold_trades

#: The names of the two ways to treat liquidations, the default first.
LIQUIDATION_MODES = ("separate", "included")


def aggregate(
    trades: TradeBatch, timeframe: Timeframe, *, include_liquidations: bool = False
) -> CandleBlock:
    """The candles of a batch of trades.

    Args:
        trades: in file order; their times need not ascend.
        timeframe: the length of a candle.
        include_liquidations: counts liquidations in prices, volumes and counts as well; they always
            count in the liquidation volumes.

    Raises:
        RangeError: a quote volume, or a sum of volumes or counts, does not fit in int64.
    """
    runs: Records = np.empty(min(len(trades), 1024), BLOCK_DTYPE)
    count = trades.count if trades.count is not None else np.empty(0, np.int64)
    if not count.sum(dtype=np.float64) < 2.0**63:
        raise RangeError(f"{trades.market}: a sum of trade counts does not fit in 64 bits")
    ts, price, size = for_kernels(trades.ts), for_kernels(trades.price), for_kernels(trades.size)
    buy, liquidation = for_kernels(trades.buy), for_kernels(trades.liquidation)
    count = for_kernels(count)
    done = used = 0
    while done < len(trades):
        done, used = fold_trades(
            ts,
            price,
            size,
            buy,
            liquidation,
            count,
            timeframe.ms,
            include_liquidations,
            done,
            *_views(runs),
            used,
        )
        if done == OVERFLOW:
            raise _overflow(trades.market, int(runs["time"][used]))
        if done < len(trades):
            runs = _grown(runs, len(trades))
    # A copy, since the runs may be a small part of a large array.
    return CandleBlock(trades.market, timeframe, _settle(trades.market, runs[:used]).copy())


def merge(blocks: list[CandleBlock]) -> CandleBlock:
    """One block of several of one market and timeframe, given in file order.

    Raises:
        RangeError: a sum does not fit in int64.
        ValueError: without any block, or with blocks of several markets or timeframes.
    """
    if len({(block.market, block.timeframe) for block in blocks}) != 1:
        raise ValueError("merge: expected blocks of one market and one timeframe")
    first = blocks[0]
    if len(blocks) == 1:
        return first
    records = np.concatenate([block.candles for block in blocks])
    return CandleBlock(first.market, first.timeframe, _settle(first.market, records))


def fill_gaps(block: CandleBlock) -> CandleBlock:
    """The block with an empty candle for every one that is missing between its first and its last.

    An empty candle has the form of one with nothing in it (see `BLOCK_DTYPE`).
    """
    candles, step = block.candles, block.timeframe.ms
    if not len(candles):
        return block
    place = (candles["time"] - candles["time"][0]) // step
    filled = empty_candles(int(candles["time"][0]), int(place[-1]) + 1, block.timeframe)
    filled[place] = candles
    return CandleBlock(block.market, block.timeframe, filled)


def empty_candles(
    start_ts: int = 0, length: int = 0, timeframe: Timeframe = Timeframe(60_000)
) -> Records:
    """`length` records of `BLOCK_DTYPE` with nothing in them, from `start_ts` on."""
    empty = np.zeros(length, BLOCK_DTYPE)
    empty["time"] = start_ts + np.arange(length, dtype=np.int64) * timeframe.ms
    empty["high"], empty["low"] = -np.inf, np.inf
    empty["first_ts"], empty["last_ts"] = NO_FIRST, NO_LAST
    return empty


class CandleMerger:
    """Merges blocks that arrive in file order, at a cost that does not grow with what is there.

    Most blocks only touch the end of what came before; those are kept apart until `finish`, or
    until there are many.
    """

    def __init__(self) -> None:
        self._blocks: list[CandleBlock] = []
        self._pending = 0

    def __len__(self) -> int:
        """How many candles are held; `finish` makes them fewer where they are of the same times."""
        return sum(map(len, self._blocks))

    def add(self, block: CandleBlock) -> None:
        """Takes the next block in file order."""
        if not len(block):
            return
        self._blocks.append(block)
        self._pending += len(block)
        if len(self._blocks) > 1 and self._pending > max(1 << 16, 2 * len(self._blocks[0])):
            self._blocks = [merge(self._blocks)]
            self._pending = 0

    def finish(self) -> CandleBlock | None:
        """All of them as one block; None if there was no candle."""
        if not self._blocks:
            return None
        self._blocks = [merge(self._blocks)]
        return self._blocks[0]

    def records(self) -> Records:
        """The candles of all of them, as records of `BLOCK_DTYPE`."""
        block = self.finish()
        return empty_candles() if block is None else block.candles


def _settle(market: object, runs: Records) -> Records:
    """Runs of candles in file order, the same time maybe more than once, as a block's candles.

    The runs are the caller's to lose.
    """
    time = runs["time"]
    if len(runs) < 2 or bool((time[1:] > time[:-1]).all()):
        return runs
    if bool((time[1:] < time[:-1]).any()):
        runs = runs[np.argsort(time, kind="stable")]
    used = int(fold_candles(*_views(runs)))
    if used < 0:
        raise _overflow(market, int(runs["time"][-1 - used]))
    return runs[:used]


def _views(runs: Records) -> tuple[Int64Array, Float64Array]:
    shape = (len(runs), len(BLOCK_DTYPE.names or ()))
    return runs.view(np.int64).reshape(shape), runs.view(np.float64).reshape(shape)


def _grown(runs: Records, limit: int) -> Records:
    grown = np.empty(min(limit, len(runs) * 8), BLOCK_DTYPE)
    grown[: len(runs)] = runs
    return grown


def _overflow(market: object, ts: int) -> RangeError:
    return RangeError(f"{market}: the volume of the candle at {ts} does not fit in 64 bits")
