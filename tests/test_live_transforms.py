"""Closing candles at a watermark: Beam's, as `TestStream` moves it, or that of each market."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.test_stream import TestStream
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.utils.timestamp import Timestamp

from candlebeam.errors import UsageError
from candlebeam.model import Market
from candlebeam.rules.candles import aggregate
from candlebeam.rules.open_candles import CandleUpdate, InputMark, MarketUpdate, OpenCandles
from candlebeam.rules.price_scale import PriceScale
from candlebeam.transforms.live import CloseCandles, _Close
from tests.trade_batches import MARKET, MIDNIGHT, MINUTE, Row, batch

OTHER = Market("PI", "KRAKEN", "XBT-USDT")
#: What an update says: end of its last candle, times and counts of its candles, late trades.
Said = tuple[str, float, list[tuple[float, int]], int]


def update(
    *minutes: float, market: Market = MARKET, watermark: float = 0, price: float = 1.0
) -> tuple[Market, MarketUpdate]:
    """An update with trades at minutes after midnight, and with a market's own watermark."""
    trades = batch([Row(MIDNIGHT + round(m * 60_000), price, 1.0, 1) for m in minutes])
    block = aggregate(type(trades)(market, *list(vars(trades).values())[1:]), MINUTE)
    reached = MIDNIGHT + round(watermark * 60_000) if watermark else 0
    return market, MarketUpdate(block, watermark=reached)


def minutes_of(ts: int) -> float:
    return (ts - MIDNIGHT) / 60_000


def said(element: tuple[Market, CandleUpdate]) -> Said:
    market, found = element
    candles = [
        (minutes_of(int(each["time"])), int(each["buy_count"])) for each in found.block.candles
    ]
    return market.symbol, minutes_of(found.end_ts), candles, found.late_trades


def at(minutes: float) -> Timestamp:
    return Timestamp(micros=(MIDNIGHT + round(minutes * 60_000)) * 1000)


def check(
    steps: Iterable[float | Sequence[tuple[Market, MarketUpdate]]],
    expected: list[Said],
    lateness_ms: int = 120_000,
    **options: Any,
) -> None:
    """Runs a stream: updates, and minutes that the watermark advances to."""
    stream = TestStream().advance_watermark_to(at(-1_000))
    for step in steps:
        if isinstance(step, (int, float)):
            stream = stream.advance_watermark_to(at(step))
        else:
            stream = stream.add_elements(
                [beam.window.TimestampedValue(element, at(-999)) for element in step]
            )
    stream = stream.advance_watermark_to_infinity()
    pipeline_options = PipelineOptions(["--direct_running_mode=in_memory"])
    pipeline_options.view_as(StandardOptions).streaming = True
    with TestPipeline(runner="BundleBasedDirectRunner", options=pipeline_options) as pipeline:
        found = (
            pipeline
            | stream
            | CloseCandles(timeframe=MINUTE, lateness_ms=lateness_ms, **options)
            | beam.Map(said)
        )
        assert_that(found, equal_to(expected))


def test_candle_closes_when_the_watermark_reaches_its_end() -> None:
    check(
        [[update(0.1, 0.2)], 0.5, [update(0.9, 1.5)], 1.0, [update(1.6)], 2.0],
        [
            ("btcusdt", 1.0, [(0.0, 3)], 0),
            ("btcusdt", 2.0, [(0.0, 3), (1.0, 2)], 0),
        ],
    )


def test_late_trades_within_the_lateness_open_their_candle_again() -> None:
    check(
        [[update(0.1, 1.1)], 2.0, [update(0.5)], 2.5, [update(1.2)]],
        [
            ("btcusdt", 1.0, [(0.0, 1)], 0),
            ("btcusdt", 2.0, [(0.0, 1), (1.0, 1)], 0),
            ("btcusdt", 2.0, [(0.0, 2), (1.0, 1)], 0),
            ("btcusdt", 2.0, [(0.0, 2), (1.0, 2)], 0),
        ],
    )


def test_trades_beyond_the_lateness_are_counted_and_change_nothing() -> None:
    check(
        [[update(0.1, 5.1)], 6.0, [update(0.5, 0.6)], [update(5.5)]],
        [
            ("btcusdt", 1.0, [(0.0, 1)], 0),
            ("btcusdt", 6.0, [(0.0, 1), (5.0, 1)], 0),
            ("btcusdt", 6.0, [(5.0, 1)], 2),
            ("btcusdt", 6.0, [(5.0, 2)], 2),
        ],
    )


def test_candle_after_quiet_minutes() -> None:
    check(
        [[update(0.1)], 10.0, [update(30.5)], 31.0],
        [
            ("btcusdt", 1.0, [(0.0, 1)], 0),
            ("btcusdt", 31.0, [(0.0, 1), (30.0, 1)], 0),
        ],
    )


def test_several_candles_close_when_the_watermark_passes_several_ends() -> None:
    check(
        [[update(0.1, 3.1)], 900.0],
        [
            ("btcusdt", 1.0, [(0.0, 1)], 0),
            ("btcusdt", 4.0, [(0.0, 1), (3.0, 1)], 0),
        ],
    )


def test_later_trades_do_not_put_off_the_end_of_an_earlier_candle() -> None:
    check(
        [[update(0.1)], [update(7.5)], 1.0, [update(0.2)], 8.0],
        [
            ("btcusdt", 1.0, [(0.0, 1)], 0),
            ("btcusdt", 1.0, [(0.0, 2)], 0),
            ("btcusdt", 8.0, [(0.0, 2), (7.0, 1)], 0),
        ],
    )


def test_markets_with_a_watermark_of_their_own_do_not_mind_that_of_beam() -> None:
    check(
        [
            [update(0.1, 1.1, watermark=0.5), update(0.1, 1.1, market=OTHER, watermark=1.2)],
            900.0,
            [update(0.3, watermark=0.9)],
            [update(1.5, watermark=1.0)],
            [update(market=OTHER, watermark=2.0)],
        ],
        [
            ("XBT-USDT", 1.0, [(0.0, 1)], 0),
            ("btcusdt", 1.0, [(0.0, 2)], 0),
            ("XBT-USDT", 2.0, [(0.0, 1), (1.0, 1)], 0),
        ],
    )


def test_market_that_cannot_be_put_into_candles_stops_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR, "candlebeam"):
        check(
            [[update(0.1, price=100.0), update(0.1, market=OTHER)], 1.0, [update(1.1)], 3.0],
            [("XBT-USDT", 1.0, [(0.0, 1)], 0)],
            price_scale=PriceScale(8),
        )
    (line,) = {record.getMessage() for record in caplog.records if record.name == "candlebeam"}
    assert line.startswith(f"{MARKET} is not followed any more: price 100.0 at ")


class _State:
    """A state that holds the object it was given, as one that is cached does."""

    def __init__(self) -> None:
        self.value: Any = None

    def read(self) -> Any:
        return self.value

    def write(self, value: Any) -> None:
        self.value = value


class _Timer:
    def set(self, time: Timestamp) -> None:
        pass


def test_a_bundle_that_is_tried_again_finds_the_candles_as_they_were() -> None:
    close = _Close(MINUTE, 120_000, None)
    state, timer = _State(), _Timer()
    list(close.process(update(0.1, 1.1, watermark=1.0), state, timer))
    held = state.value
    results = []
    for _ in range(2):
        state.value = held
        results.append([said(e) for e in close.process(update(0.2, watermark=2.5), state, timer)])
    assert results[0] == results[1] == [("btcusdt", 2.0, [(0.0, 2), (1.0, 1)], 0)]


def test_updates_are_few() -> None:
    """What is read of the last inputs is told with the candle that closes, not for itself."""
    candles = OpenCandles(MARKET, MINUTE, 120_000)
    given = 0
    for second in range(600):
        _, change = update(second / 60, watermark=second / 60 - 0.01 or 1)
        mark = InputMark(MIDNIGHT, "a", "/", "a", second, second, MIDNIGHT + second * 1000, 1)
        candles.add(MarketUpdate(change.block, mark, change.watermark))
        given += candles.close() is not None
    assert given == 9


def test_lateness_is_checked_when_the_transform_is_built() -> None:
    with pytest.raises(UsageError, match="lateness_ms -1: expected 0 or more"):
        CloseCandles(timeframe=MINUTE, lateness_ms=-1)
