"""The transforms that need no files, each alone, on a few literal elements."""

from __future__ import annotations

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

from candlebeam.errors import RangeError, UsageError
from candlebeam.model import CandleBlock, Market, Timeframe
from candlebeam.rules.candles import aggregate, empty_candles, fill_gaps
from candlebeam.rules.corrections import CORRECTIONS, correct_trades
from candlebeam.transforms.candles import FillGaps, TradesToCandles
from candlebeam.transforms.correct import CorrectTrades
from tests.in_process import assert_makes, pipeline
from tests.trade_batches import MARKET, MIDNIGHT, MINUTE, Row, batch

ROWS = [Row(MIDNIGHT + n * 20_000, n + 1.0, 2.0, n % 2) for n in range(9)]
OTHER = Market("PI", "KRAKEN", "XBT-USDT")
OVERFLOW = Row(MIDNIGHT, 1e13, 1.0)


# CorrectTrades


@pytest.mark.parametrize("names", [(), ("random-side-2019",), tuple(CORRECTIONS)])
def test_correct_trades_is_the_function_of_each_batch(names: tuple[str, ...]) -> None:
    rows = [Row(1_574_193_600_000 + n, 1.0, 2.0, 1, n % 2) for n in range(9)]
    batches = [batch(rows, Market("RAM", exchange, "x")) for exchange in ("BITFINEX", "OKEX")]
    assert_makes(
        CorrectTrades(corrections=names),
        list(enumerate(batches)),
        [(key, correct_trades(trades, names)) for key, trades in enumerate(batches)],
    )


def test_correct_trades_applies_all_by_default() -> None:
    trades = batch([Row(1, 1.0, 1.0, 1, 1)], Market("RAM", "BITFINEX", "x"))
    assert_makes(CorrectTrades(), [("k", trades)], [("k", correct_trades(trades, CORRECTIONS))])


def test_correct_trades_refuses_an_unknown_name_when_it_is_built() -> None:
    with pytest.raises(UsageError, match="correction 'nothing': expected one of"):
        CorrectTrades(corrections=["nothing"])


# TradesToCandles and FillGaps


@pytest.mark.parametrize(("timeframe", "include"), [(MINUTE, False), (Timeframe(1000), True)])
def test_trades_to_candles_is_the_function_of_each_batch(
    timeframe: Timeframe, include: bool
) -> None:
    batches = [batch([*ROWS, Row(MIDNIGHT, 50.0, 1.0, 1, 1)]), batch([], OTHER)]
    assert_makes(
        TradesToCandles(timeframe=timeframe, include_liquidations=include),
        list(enumerate(batches)),
        [
            (key, aggregate(trades, timeframe, include_liquidations=include))
            for key, trades in enumerate(batches)
        ],
    )


def test_trades_to_candles_gives_an_overflow_as_a_value_if_it_is_asked_to() -> None:
    good, bad = batch(ROWS), batch([OVERFLOW])
    error = RangeError(f"{MARKET}: the volume of the candle at {MIDNIGHT} does not fit in 64 bits")
    assert_makes(
        TradesToCandles(timeframe=MINUTE, errors_as_values=True),
        [("bad", bad), ("good", good)],
        [("bad", error), ("good", aggregate(good, MINUTE))],
    )


def test_trades_to_candles_raises_an_overflow_otherwise() -> None:
    with pytest.raises(Exception, match="does not fit in 64 bits"):
        assert_makes(TradesToCandles(timeframe=MINUTE), [("bad", batch([OVERFLOW]))], [])


def test_fill_gaps_is_the_function_of_each_block() -> None:
    gappy = aggregate(batch([ROWS[0], Row(MIDNIGHT + 600_000, 2.0)]), MINUTE)
    empty = CandleBlock(OTHER, MINUTE, empty_candles())
    assert len(fill_gaps(gappy)) == 11
    assert_makes(
        FillGaps(), [(1, gappy), (2, empty)], [(1, fill_gaps(gappy)), (2, fill_gaps(empty))]
    )


def test_transforms_can_be_put_together_without_files() -> None:
    gappy = [ROWS[0], Row(MIDNIGHT + 600_000, 2.0)]
    with pipeline() as running:
        candles = (
            running
            | beam.Create([("k", batch(gappy))])
            | CorrectTrades()
            | TradesToCandles(timeframe=MINUTE)
            | FillGaps()
            | beam.Values()
            | beam.Map(len)
        )
        assert_that(candles, equal_to([11]))
