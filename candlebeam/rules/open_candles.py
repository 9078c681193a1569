"""Candles that are still being made: of one market, from a stream of what its inputs give.

A candle closes when the market's watermark passes its end. Trades that come after that, within the
lateness, change it once more; those that come later still are left out, and counted. What an input
has given is kept apart from what others have, so that open and close are those of file order
whatever order the inputs are read in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from candlebeam.model import BLOCK_DTYPE, CandleBlock, Market, Records, Timeframe
from candlebeam.rules.candles import empty_candles, merge
from candlebeam.rules.price_scale import (
    MAX_DECIMALS,
    PriceScale,
    PriceState,
    decimals_kept,
    price_state,
    quantized_prices,
)

#: More decimals than any price scale has: prices that no scale gives back.
ROUNDED = 1 << 20

#: Start, path and root of an input: its place in file order.
_Order = tuple[int, str, str]
#: Before every input: where the candles that a stream goes on from came from.
_BASE = (-1, "", "")
#: Before every input too: of a source without any.
_NO_INPUT = (0, "", "")
#: Inputs of so many starts are known at least; those before may be forgotten.
_KNOWN_STARTS = 4


class InputMark(NamedTuple):
    """How far an input of a market has been read.

    Attributes:
        start_ts: where it starts, ms.
        path: relative to the root, without `.gz`. Inputs are in the order of start, path, root.
        root: the root it was found under.
        name: the file name that was read.
        size: its bytes when it was read, as far as they were used.
        text_bytes: bytes of its text up to the end of the last whole row.
        last_ts: the latest time of its trades so far, ms; 0 without any.
        covered: how many inputs of the market there are up to this one.
    """

    start_ts: int
    path: str
    root: str
    name: str
    size: int
    text_bytes: int
    last_ts: int
    covered: int

    @property
    def order(self) -> tuple[int, str, str]:
        """Its place in file order."""
        return self.start_ts, self.path, self.root


class LateTrade(NamedTuple):
    """A trade that came too late for its candle.

    Attributes:
        ts, price, size, buy, liquidation: as in `TradeBatch`.
        path: of its input.
    """

    ts: int
    price: float
    size: float
    buy: int
    liquidation: int
    path: str


class Base(NamedTuple):
    """The candles that a stream goes on from.

    Attributes:
        start_ts, end_ts: start of the first candle and end of the last.
        tail: what inputs that are not read again gave to the last candle: a record of
            `BLOCK_DTYPE`, or none.
        prices: the state of the prices of every candle but the last.
        decimals_kept: the least decimals of a scale that each of these prices can be had back
            from, if it is stored at that; `ROUNDED` if one is rounded already.
        late_trades: trades that came too late before.
        skipped: inputs that were left out before, by folder and name.
    """

    start_ts: int
    end_ts: int
    tail: bytes
    prices: PriceState
    decimals_kept: int
    late_trades: int
    skipped: tuple[tuple[str, str], ...]


@dataclass(frozen=True, eq=False)
class MarketUpdate:
    """What a source gives of one market.

    Attributes:
        block: candles of the trades that were read; of one input, in the order of its rows. Empty
            where only the rest has changed.
        mark: the input, and how far it has been read; None for a source without inputs.
        watermark: ms; the source expects no trade before it any more. 0 for a source that leaves
            this to Beam.
        late: trades that were read and came too late.
        base: the candles to go on from, with a market's first update; None if there are none.
    """

    block: CandleBlock
    mark: InputMark | None = None
    watermark: int = 0
    late: tuple[LateTrade, ...] = ()
    base: Base | None = None


@dataclass(frozen=True, eq=False)
class CandleUpdate:
    """What the candles of a market have become.

    Attributes:
        start_ts: start of the market's first candle, ms.
        block: the candles that may differ from the update before, up to the last that is closed;
            those in between that have no trades are left out. The last of the update before is
            one of them. All older ones stay.
        scale, prices, exact, tail, late_trades, skipped: as in a companion.
        decimals_kept: as in `Base`, of the candles before those of the block.
        inputs: those of the latest start before which no input has given anything to an open
            candle, and how far they are read.
        covered: how many inputs the candles cover, those included.
        known: all inputs that a candle may still come from, and how far they are read.
        late: trades that came too late since the update before, by their number: they are the
            last of the market's late ones, which count from 1.
        watermark: up to where the market is complete, ms.
        quiet: how many candles without trades, closed as well, are behind those of the block.
    """

    start_ts: int
    block: CandleBlock
    scale: PriceScale
    prices: PriceState
    exact: bool
    decimals_kept: int
    tail: bytes
    inputs: tuple[InputMark, ...]
    covered: int
    known: tuple[InputMark, ...]
    late_trades: int
    skipped: tuple[tuple[str, str], ...]
    late: tuple[tuple[int, LateTrade], ...]
    watermark: int
    quiet: int = 0

    @property
    def traded_end_ts(self) -> int:
        """End of the last candle with trades, ms."""
        return int(self.block.candles["time"][-1]) + self.block.timeframe.ms

    @property
    def end_ts(self) -> int:
        """End of the last candle, ms."""
        return self.traded_end_ts + self.quiet * self.block.timeframe.ms


@dataclass
class OpenCandles:
    """The candles of one market that may still change, and what has to be known of the others.

    Args:
        market, timeframe: whose candles, and their length.
        lateness_ms: how long after a candle has closed its trades still count.
        price_scale: the scale of all prices; None to choose the one they need.
        quiet: whether candles without trades behind the last one with trades are told as well.

    Attributes:
        watermark: up to where the market is complete, ms.
        late_trades: how many trades have come too late, those of earlier runs included.

    It can be pickled, and its size depends on the lateness alone.

    An update is due when a candle closes (with `quiet`, also one without trades), when one that was
    given has changed, and when the inputs that a later run has to read again are others. So
    whatever was given last, a later run can go on from it: it finds all that open candles have got
    in the inputs it reads, none of it twice.
    One thing it cannot tell: trades older than the last candle in an input that starts after
    `CandleUpdate.inputs`. They are in the candles, and the later run counts them as late.
    """

    market: Market
    timeframe: Timeframe
    lateness_ms: int
    price_scale: PriceScale | None = None
    quiet: bool = False
    watermark: int = 0
    late_trades: int = 0
    _parts: dict[_Order, Records] = field(default_factory=dict)
    _marks: dict[_Order, InputMark] = field(default_factory=dict)
    _start_ts: int | None = None
    _from_ts: int = 0
    _settled: PriceState = field(default_factory=PriceState)
    _decimals_kept: int = -MAX_DECIMALS
    _skipped: tuple[tuple[str, str], ...] = ()
    _late: tuple[tuple[int, LateTrade], ...] = ()
    _is_due: bool = False
    _told_end_ts: int = 0
    _told_group_ts: int = 0

    def __getstate__(self) -> tuple[object, ...]:
        values = dict(vars(self))
        values["_parts"] = [(order, part.tobytes()) for order, part in self._parts.items()]
        values["_marks"] = [tuple(mark) for mark in self._marks.values()]
        return tuple(values.values())

    def __setstate__(self, state: tuple[object, ...]) -> None:
        values: dict[str, Any] = dict(zip(self.__dataclass_fields__, state, strict=True))
        parts = [(order, np.frombuffer(part, BLOCK_DTYPE)) for order, part in values["_parts"]]
        marks = [InputMark(*mark) for mark in values["_marks"]]
        vars(self).update(values, _parts=dict(parts), _marks={each.order: each for each in marks})

    def copy(self) -> OpenCandles:
        """One that can be changed without this one."""
        # Records are never changed in place.
        return replace(self, _parts=dict(self._parts), _marks=dict(self._marks))

    def add(self, update: MarketUpdate) -> None:
        """Takes what a source gives. Updates of one input come in the order of its rows.

        Raises:
            RangeError: a sum does not fit in 64 bits.
        """
        if update.base is not None:
            self._go_on_from(update.base)
        mark = update.mark
        order = _NO_INPUT if mark is None else mark.order
        candles = self._in_time(update.block.candles)
        if len(candles):
            self._parts[order] = self._merged([self._parts.get(order), candles])
            if int(candles["time"][0]) < self._told_end_ts:
                self._is_due = True
        if mark is not None and self._marks.get(order) != mark:
            self._marks[order] = mark
            # What is read of the last inputs is told with the candle it belongs to.
            if not len(candles) or mark.start_ts < self._told_group_ts:
                self._is_due = True
        for trade in update.late:
            self.late_trades += 1
            self._late += ((self.late_trades, trade),)
            self._is_due = True
        self.watermark = max(self.watermark, update.watermark)

    def _go_on_from(self, base: Base) -> None:
        self._start_ts, self._from_ts = base.start_ts, base.end_ts - self.timeframe.ms
        self._settled, self._decimals_kept = base.prices, base.decimals_kept
        self.late_trades, self._skipped = base.late_trades, base.skipped
        if base.tail:
            self._parts[_BASE] = np.frombuffer(base.tail, BLOCK_DTYPE)

    def _in_time(self, candles: Records) -> Records:
        """The candles that have not come too late."""
        horizon = max(self._from_ts, self.watermark - self.lateness_ms - self.timeframe.ms + 1)
        if not len(candles) or int(candles["time"][0]) >= horizon:
            return candles
        late = candles["time"] < horizon
        counts = candles["buy_count"][late].sum() + candles["sell_count"][late].sum()
        self.late_trades += int(counts)
        self._is_due = True
        return candles[~late]

    @property
    def next_end_ts(self) -> int | None:
        """The end of the first candle that is still open; None if all are closed."""
        ends = []
        for part in self._parts.values():
            times = part["time"]
            place = int(times.searchsorted(self.watermark - self.timeframe.ms, side="right"))
            if place < len(times):
                ends.append(int(times[place]) + self.timeframe.ms)
        return min(ends, default=None)

    @property
    def open_end_ts(self) -> int:
        """The end of the candle that the watermark is in, ms."""
        return self.watermark - self.watermark % self.timeframe.ms + self.timeframe.ms

    def close(self) -> CandleUpdate | None:
        """The candles up to the watermark; None if no update is due.

        Raises:
            PriceScaleError: a price does not fit the price scale that was asked for.
            RangeError: a sum does not fit in 64 bits.
        """
        end_ts, step = self._closed_end(), self.timeframe.ms
        quiet = (self.watermark - end_ts) // step if self.quiet else 0
        told_end_ts = end_ts + quiet * step
        if end_ts == 0 or (told_end_ts == self._told_end_ts and not self._is_due):
            return None
        closed = self._merged(self._parts[order] for order in sorted(self._parts))
        closed = closed[closed["time"] < end_ts]
        start_ts = int(closed["time"][0])
        self._start_ts = start_ts if self._start_ts is None else min(self._start_ts, start_ts)
        before, last = closed[:-1], closed[-1:]
        prices = self._settled.joined(price_state(before))
        scale = self.price_scale or prices.joined(price_state(last)).scale()
        is_exact = quantized_prices(closed, scale, len(before))[1]
        group, covered = self._group(end_ts)
        group_ts = group[0].start_ts if group else 0
        update = CandleUpdate(
            start_ts=self._start_ts,
            block=CandleBlock(self.market, self.timeframe, closed),
            scale=scale,
            prices=prices,
            exact=is_exact and self._decimals_kept <= scale.decimals,
            decimals_kept=self._decimals_kept,
            tail=self._tail(group_ts, end_ts - step),
            inputs=group,
            covered=covered,
            known=tuple(self._marks.values()),
            late_trades=self.late_trades,
            skipped=self._skipped,
            late=self._late,
            watermark=self.watermark,
            quiet=quiet,
        )
        self._settle(closed, scale)
        self._is_due, self._late = False, ()
        self._told_end_ts, self._told_group_ts = told_end_ts, group_ts
        return update

    def _closed_end(self) -> int:
        """The end of the last candle that is closed, ms; 0 without any."""
        found = 0
        for part in self._parts.values():
            times = part["time"]
            place = int(times.searchsorted(self.watermark - self.timeframe.ms, side="right"))
            if place:
                found = max(found, int(times[place - 1]) + self.timeframe.ms)
        return found

    def _group(self, end_ts: int) -> tuple[tuple[InputMark, ...], int]:
        """The inputs that a later run reads again, and how many there are up to them."""
        marks = [self._marks[order] for order in sorted(self._marks)]
        if not marks:
            return (), 0
        start = marks[0].start_ts
        for mark, following in pairwise(marks):
            if mark.last_ts >= end_ts:
                break
            start = following.start_ts
        covered = max(mark.covered for mark in marks if mark.start_ts <= start)
        starts = sorted({mark.start_ts for mark in marks})
        oldest = min(start, starts[-_KNOWN_STARTS:][0])
        self._marks = {mark.order: mark for mark in marks if mark.start_ts >= oldest}
        return tuple(mark for mark in marks if mark.start_ts == start), covered

    def _tail(self, start_ts: int, time: int) -> bytes:
        """What inputs before a start have given to the candle of a time."""
        parts = [self._parts[order] for order in sorted(self._parts) if order[0] < start_ts]
        return self._merged(part[part["time"] == time] for part in parts).tobytes()

    def _settle(self, closed: Records, scale: PriceScale) -> None:
        """Forgets the candles that nothing can change any more, but for the last."""
        cut = self.watermark - self.lateness_ms - self.timeframe.ms
        settled = closed[:-1][closed["time"][:-1] <= cut]
        if not len(settled):
            return
        self._settled = self._settled.joined(price_state(settled))
        stored, is_exact = quantized_prices(settled, scale)
        kept = decimals_kept(stored, scale) if is_exact else ROUNDED
        self._decimals_kept = max(self._decimals_kept, kept)
        last = int(settled["time"][-1])
        parts = {order: part[part["time"] > last] for order, part in self._parts.items()}
        self._parts = {order: part.copy() for order, part in parts.items() if len(part)}

    def _merged(self, parts: Iterable[Records | None]) -> Records:
        """Candles of several parts, given in file order, as one."""
        blocks = [
            CandleBlock(self.market, self.timeframe, part)
            for part in parts
            if part is not None and len(part)
        ]
        return merge(blocks).candles if blocks else empty_candles()
