from __future__ import annotations

import pickle
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
from apache_beam import coders
from apache_beam.pipeline import PipelineVisitor
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given
from hypothesis import strategies as st

from candlebeam.io.coders import (
    BarsCoder,
    CandleBlockCoder,
    ChunkRefCoder,
    MarketCoder,
    MarketOutcomeCoder,
    ShardRefCoder,
    TradeBatchCoder,
)
from candlebeam.io.market_commit import CommitOptions
from candlebeam.io.read_trades import ShardPart, ShardPartCoder
from candlebeam.io.staging import ChunkRef, ShardRef
from candlebeam.model import Bars, CandleBlock, FileOutcome, Market, TradeBatch
from candlebeam.outcome import MarketOutcome
from candlebeam.pipelines.flow import FlowOptions, build_backfill
from candlebeam.rules.candles import aggregate, empty_candles, merge
from candlebeam.settings import CandleSettings
from tests.in_process import pipeline
from tests.trade_batches import MARKET, MIDNIGHT, MINUTE, ROWS, Row, batch, rows_of, same_block

TEXT = st.text(st.characters() | st.just("\udc80"), max_size=8)
PLACES = st.integers(0, 2**63)
MARKETS = st.builds(Market, TEXT, TEXT, TEXT)
# Without `together`, builds would nest them to any depth.
ALONE = st.builds(ShardRef, TEXT, PLACES, PLACES, PLACES, PLACES, together=st.just(()))
SHARDS = st.lists(ALONE, min_size=1, max_size=2).map(ShardRef.of_all)
CHUNKS = st.builds(ChunkRef, SHARDS, st.integers(0, 10**6), TEXT, st.booleans(), TEXT)
COUNTS = st.integers(0, 2**62)
OUTCOMES = st.builds(
    MarketOutcome,
    market=TEXT,
    status=TEXT,
    error=st.none() | TEXT,
    notes=st.lists(TEXT, max_size=2),
    files=COUNTS,
    rejected=st.dictionaries(TEXT, COUNTS, max_size=2),
    damaged=st.lists(st.fixed_dictionaries({"path": TEXT, "damage": TEXT}), max_size=2),
    missing=st.lists(TEXT, max_size=2),
    records=COUNTS,
    rebuilt=st.booleans(),
)
PARTS = st.builds(
    ShardPart,
    SHARDS,
    MARKETS,
    st.integers(0, 9),
    TEXT,
    st.integers(0, 9),
    st.none() | st.lists(st.builds(FileOutcome, TEXT), max_size=2).map(tuple),
)
#: Each coder with its type and values of it that compare with `==`.
PLAIN: dict[str, tuple[Any, Any, st.SearchStrategy[Any]]] = {
    "market": (MarketCoder(), Market, MARKETS),
    "shard": (ShardRefCoder(), ShardRef, SHARDS),
    "chunk": (ChunkRefCoder(), ChunkRef, CHUNKS),
    "outcome": (MarketOutcomeCoder(), MarketOutcome, OUTCOMES),
    "part": (ShardPartCoder(), ShardPart, PARTS),
}
FRAMES: tuple[tuple[Any, Any], ...] = (
    (TradeBatchCoder(), TradeBatch),
    (CandleBlockCoder(), CandleBlock),
    (BarsCoder(), Bars),
)
ALL = [(coder, kind) for coder, kind, _ in PLAIN.values()] + list(FRAMES)


def copied(value: Any) -> Any:
    """An equal value that shares nothing with the first."""
    return pickle.loads(pickle.dumps(value))  # noqa: S301


@pytest.mark.parametrize("name", PLAIN)
@given(data=st.data())
def test_round_trip_with_its_type(name: str, data: st.DataObject) -> None:
    coder, kind, values = PLAIN[name]
    value = data.draw(values)
    found = coder.decode(coder.encode(value))
    assert found == value
    assert type(found) is kind


@pytest.mark.parametrize("name", ["market", "shard", "chunk", "outcome"])
@given(data=st.data())
def test_equal_values_are_equal_bytes_and_others_are_not(name: str, data: st.DataObject) -> None:
    coder, _, values = PLAIN[name]
    one, other = data.draw(values), data.draw(values)
    assert coder.encode(copied(one)) == coder.encode(one)
    assert (coder.encode(one) == coder.encode(other)) == (one == other)


@given(st.lists(ROWS, max_size=9), MARKETS, st.booleans())
def test_trade_batch_round_trip(rows: list[Row], market: Market, counted: bool) -> None:
    coder = TradeBatchCoder()
    trades = batch(rows, market, counted=counted)
    encoded = coder.encode(trades)
    found = coder.decode(encoded)
    assert found.market == market
    assert rows_of(found) == rows_of(trades)
    assert (found.count is not None) == counted
    assert coder.encode(found) == encoded


@given(st.lists(ROWS, max_size=9), MARKETS)
def test_candle_block_round_trip(rows: list[Row], market: Market) -> None:
    coder = CandleBlockCoder()
    block = aggregate(batch(rows, market), MINUTE)
    encoded = coder.encode(block)
    found = coder.decode(encoded)
    assert same_block(found, block)
    assert found.timeframe == MINUTE
    assert coder.encode(found) == encoded


@pytest.mark.parametrize("counted", [False, True])
def test_what_was_decoded_can_be_worked_on(counted: bool) -> None:
    rows = [Row(MIDNIGHT + n * 20_000, n + 1.0) for n in range(9)]
    trades = batch(rows, counted=counted)
    block = aggregate(trades, MINUTE)
    decoded = TradeBatchCoder().decode(TradeBatchCoder().encode(trades))
    assert same_block(aggregate(decoded, MINUTE), block)
    again = CandleBlockCoder().decode(CandleBlockCoder().encode(block))
    assert same_block(merge([again, again]), merge([block, block]))


def test_batches_are_compact() -> None:
    assert len(TradeBatchCoder().encode(batch([Row(1, 2.0)] * 1000))) < 26 * 1000 + 100
    empty = CandleBlock(MARKET, MINUTE, empty_candles(0, 1000))
    assert len(CandleBlockCoder().encode(empty)) < 104 * 1000 + 100


@pytest.mark.parametrize(("coder", "kind"), ALL, ids=lambda value: getattr(value, "__name__", ""))
def test_type_finds_its_coder(coder: Any, kind: Any) -> None:
    assert type(coders.registry.get_coder(kind)) is type(coder)
    assert coder.is_deterministic()


@pytest.mark.parametrize("coder", [coder for coder, _ in ALL if type(coder) is not ShardPartCoder])
def test_coders_of_one_type_are_equal(coder: Any) -> None:
    assert coder == type(coder)()
    assert hash(coder) == hash(type(coder)())
    assert coder != coders.BytesCoder()


def test_equal_keys_form_one_group() -> None:
    names = ["btcusdt", "ethusdt", "ünï", "a,b"]
    pairs = [
        (Market("RAM", "BINANCE", "".join(list(name))), number)
        for number in range(50)
        for name in names
    ]
    with pipeline() as running:
        # Made in bundles of their own, so that no two equal keys are one object.
        grouped = (
            running
            | beam.Create([copied(pair) for pair in pairs])
            | beam.Reshuffle()
            | beam.Map(copied).with_output_types(tuple[Market, int])
            | beam.GroupByKey()
            | beam.MapTuple(lambda market, numbers: (market, sorted(numbers)))
        )
        expected = [(Market("RAM", "BINANCE", name), list(range(50))) for name in names]
        assert_that(grouped, equal_to(expected))


def test_arrays_cross_a_shuffle() -> None:
    rows = [Row(MIDNIGHT + n * 20_000, n + 1.0) for n in range(9)]
    with pipeline() as running:
        blocks = (
            running
            | beam.Create(range(3))
            | beam.Map(lambda n: (n, batch(rows))).with_output_types(tuple[int, TradeBatch])
            | "ShuffleTrades" >> beam.Reshuffle()
            | beam.MapTuple(lambda n, trades: (n, aggregate(trades, MINUTE))).with_output_types(
                tuple[int, CandleBlock]
            )
            | "ShuffleCandles" >> beam.Reshuffle()
            | beam.MapTuple(lambda n, block: (n, block.candles.tobytes()))
        )
        expected = aggregate(batch(rows), MINUTE).candles.tobytes()
        assert_that(blocks, equal_to([(n, expected) for n in range(3)]))


def test_no_trades_and_no_candles_round_trip() -> None:
    assert len(TradeBatchCoder().decode(TradeBatchCoder().encode(batch([])))) == 0
    block = CandleBlock(MARKET, MINUTE, empty_candles())
    assert np.array_equal(
        CandleBlockCoder().decode(CandleBlockCoder().encode(block)).candles, block.candles
    )


def test_every_shuffle_of_a_backfill_knows_its_types() -> None:
    """Keys that are pickled would form several groups on another runner or Python."""
    shuffled: dict[str, Any] = {}

    class Shuffles(PipelineVisitor):
        def enter_composite_transform(self, node: Any) -> None:
            self.visit_transform(node)

        def visit_transform(self, node: Any) -> None:
            if isinstance(node.transform, beam.GroupByKey | beam.Reshuffle):
                shuffled[node.full_label] = node.inputs[0].element_type

    running = pipeline()
    commit = CommitOptions("out", CandleSettings())
    build_backfill(running, ["manifest"], FlowOptions(staging="staging", commit=commit))
    running.visit(Shuffles())
    found = {name: coders.registry.get_coder(kind) for name, kind in shuffled.items()}
    key, value = found["CommitMarkets/GroupChunks"].coders()
    assert (type(key), type(value)) == (MarketCoder, ChunkRefCoder)
    assert type(found["ListShards/SpreadShards"]) is ShardRefCoder
