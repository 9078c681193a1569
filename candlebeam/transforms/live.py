"""Candles of a stream: fixed windows of the timeframe, by state and event-time timers.

Beam's own windows let data that is later than the allowed lateness vanish, and judge it by one
watermark for all markets. Here every market has a watermark of its own, what comes too late is
counted, and a market's candles change together with how far its inputs have been read.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam import coders, pvalue
from apache_beam.transforms import userstate
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.utils.timestamp import Timestamp

from candlebeam.errors import CandlebeamError, UsageError
from candlebeam.feeds.clock import Clock
from candlebeam.feeds.stream_errors import told_errors
from candlebeam.model import Market, Timeframe
from candlebeam.rules.open_candles import CandleUpdate, MarketUpdate, OpenCandles
from candlebeam.rules.price_scale import PriceScale

_LOG = logging.getLogger("candlebeam")
#: How much Beam's watermark may be ahead of the clock in earnest, ms.
_AHEAD_MS = 60_000


class CloseCandles(beam.PTransform):
    """Closes the candles of each market as its watermark passes; late trades open them again.

    In: a PCollection of (`Market`, `MarketUpdate`), in any windowing; the updates of one input in
    the order of its rows. Out: a PCollection of (`Market`, `CandleUpdate`), in the global window;
    those of one market in order.

    A candle of [t, t + timeframe) closes when the market's watermark reaches its end: the one of
    its updates, or, where they have none (0), Beam's. Trades that come until `lateness_ms` after
    that give an update with the candle made again; later ones are counted.

    Args:
        timeframe: the length of a candle.
        lateness_ms: how long a candle that has closed may still change, ms of event time.
        price_scale: the scale of all prices; None to choose one a market.
        quiet_candles: whether candles without trades are told as well when their end is passed, as
            `CandleUpdate.quiet`. Updates with a watermark of their own then have to come for every
            candle. By Beam's, those before the time that `clock` tells are told: it may go to the
            end of all time when a pipeline ends.
        clock: tells event time.

    A market whose trades cannot be put into candles (a sum that does not fit in 64 bits, a price
    that does not fit the scale that was asked for) is told in the log, and gives nothing any more;
    the others go on.
    """

    def __init__(
        self,
        *,
        timeframe: Timeframe,
        lateness_ms: int,
        price_scale: PriceScale | None = None,
        quiet_candles: bool = False,
        clock: Clock | None = None,
    ) -> None:
        super().__init__()
        if lateness_ms < 0:
            raise UsageError(f"lateness_ms {lateness_ms}: expected 0 or more")
        self._close = _Close(
            timeframe, lateness_ms, price_scale, quiet_candles=quiet_candles, clock=clock
        )

    def expand(self, updates: pvalue.PCollection) -> pvalue.PCollection:
        return (
            updates
            | "AllTime" >> beam.WindowInto(beam.window.GlobalWindows())
            | "Close" >> beam.ParDo(self._close).with_output_types(tuple[Market, CandleUpdate])
        )


class _Close(beam.DoFn):
    OPEN = userstate.ReadModifyWriteStateSpec("open", coders.PickleCoder())
    END = userstate.TimerSpec("end", TimeDomain.WATERMARK)

    def __init__(
        self,
        timeframe: Timeframe,
        lateness_ms: int,
        price_scale: PriceScale | None,
        *,
        quiet_candles: bool = False,
        clock: Clock | None = None,
    ) -> None:
        super().__init__()
        self._timeframe, self._lateness_ms = timeframe, lateness_ms
        self._price_scale = price_scale
        self._quiet_candles, self._clock = quiet_candles, clock or Clock()

    def process(
        self,
        element: tuple[Market, MarketUpdate],
        state: Any = beam.DoFn.StateParam(OPEN),
        timer: Any = beam.DoFn.TimerParam(END),
    ) -> Iterator[tuple[Market, CandleUpdate]]:
        market, update = element
        candles = _taken(state)
        if candles is None:
            candles = OpenCandles(
                market,
                self._timeframe,
                self._lateness_ms,
                self._price_scale,
                quiet=self._quiet_candles,
            )
        if isinstance(candles, str):
            return
        with told_errors(f"the candles of {market} cannot be made"):
            yield from self._closed(candles, update, state)
        if not update.watermark and (end := self._next_end(candles)) is not None:
            timer.set(Timestamp(micros=end * 1000))

    @userstate.on_timer(END)
    def on_end(
        self,
        time: Any = beam.DoFn.TimestampParam,
        state: Any = beam.DoFn.StateParam(OPEN),
        timer: Any = beam.DoFn.TimerParam(END),
    ) -> Iterator[tuple[Market, CandleUpdate]]:
        candles = _taken(state)
        if not isinstance(candles, OpenCandles):
            return
        reached, end = time.micros // 1000, candles.next_end_ts
        is_quiet = self._quiet_candles and (end is None or end > reached)
        if is_quiet and reached > self._clock.now() + _AHEAD_MS:
            # Beam's watermark has gone to the end of all time: no candle is quiet there.
            if end is not None:
                timer.set(Timestamp(micros=end * 1000))
            return
        candles.watermark = max(candles.watermark, reached)
        with told_errors(f"the candles of {candles.market} cannot be made"):
            yield from self._closed(candles, None, state)
        if (end := self._next_end(candles)) is not None:
            timer.set(Timestamp(micros=end * 1000))

    def _next_end(self, candles: OpenCandles) -> int | None:
        """When there will be something to close by Beam's watermark, ms; None if never."""
        if self._quiet_candles and candles.watermark:
            return candles.open_end_ts
        return candles.next_end_ts

    @staticmethod
    def _closed(
        candles: OpenCandles, update: MarketUpdate | None, state: Any
    ) -> Iterator[tuple[Market, CandleUpdate]]:
        try:
            if update is not None:
                candles.add(update)
            closed = candles.close()
        except CandlebeamError as error:
            _LOG.error("%s is not followed any more: %s", candles.market, error)
            state.write(str(error))
            return
        state.write(candles)
        if closed is not None:
            yield candles.market, closed


def _taken(state: Any) -> OpenCandles | str | None:
    """What a state holds: its candles, or why there are none any more.

    A copy, since what is read may be held for another try of the bundle.
    """
    candles: OpenCandles | str | None = state.read()
    return candles.copy() if isinstance(candles, OpenCandles) else candles
