from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlebeam.formats.chunk_file import open_chunk
from candlebeam.io.chunk_builder import ChunkBuilder
from candlebeam.io.staging import Staging
from candlebeam.model import CandleBlock, FileOutcome, Market, Timeframe, TradeBatch
from candlebeam.rules.candles import CandleMerger, aggregate

MINUTE = Timeframe(60_000)
FILES = (FileOutcome("/a/b", "/a/b", 10, 20),)
MARKETS = (Market("DATABENTO", "X", "A"), Market("DATABENTO", "X", "B"))

#: (market, minute, price) of trades.
TRADES = st.lists(
    st.tuples(st.sampled_from(MARKETS), st.integers(0, 40), st.integers(1, 99)), max_size=60
)


def block_of(market: Market, minute: int, price: int) -> CandleBlock:
    one = np.ones(1)
    ts = np.full(1, minute * MINUTE.ms, np.int64)
    trades = TradeBatch(market, ts, one * price, one, one.astype(np.uint8), np.zeros(1, np.uint8))
    return aggregate(trades, MINUTE)


@given(trades=TRADES, held=st.integers(1, 30))
def test_chunks_do_not_depend_on_what_is_held_in_memory(
    tmp_path_factory: pytest.TempPathFactory,
    trades: list[tuple[Market, int, int]],
    held: int,
) -> None:
    staging = Staging(str(tmp_path_factory.mktemp("staging")))
    builder = ChunkBuilder(staging, held)
    expected = {market: CandleMerger() for market in MARKETS}
    for trade in trades:
        builder.add(trade[0], "chunk", block_of(*trade))
        expected[trade[0]].add(block_of(*trade))
    for market in MARKETS:
        builder.finish(market, "chunk", FILES)
        chunk = open_chunk(staging.chunk_path(market, "chunk"))
        assert chunk.files == FILES
        assert chunk.read(0, chunk.length).tobytes() == expected[market].records().tobytes()


def test_what_was_put_aside_leaves_nothing_behind(tmp_path: Path) -> None:
    staging = Staging(str(tmp_path))
    builder = ChunkBuilder(staging, 2)
    for minute in range(9):
        builder.add(MARKETS[0], "kept", block_of(MARKETS[0], minute, 1))
        builder.add(MARKETS[1], "dropped", block_of(MARKETS[1], minute, 1))
    builder.finish(MARKETS[0], "kept", FILES)
    builder.drop(MARKETS[1], "dropped")
    builder.drop(MARKETS[1], "dropped")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["kept"]
