"""The sources for pipelines of one's own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from benchmarks.dbn_data import write_dbn_trades
from candlebeam.errors import CandlebeamError, UsageError
from candlebeam.formats.dbn.reader import DbnReader
from candlebeam.io.read_archives import ReadAgg2, ReadDbn
from candlebeam.model import FileOutcome, Market, TradeBatch
from tests.agg2_archive import DAY_MS, START, BlobArchive, day_rows

BTC = Market("QUANTDEV", "BINANCE_FUTURES", "BTCUSDT")


def summary(element: tuple[Market, TradeBatch]) -> tuple[Any, ...]:
    market, trades = element
    assert trades.market == market
    count = None if trades.count is None else int(trades.count.sum())
    return market.symbol, int(trades.ts[0]), len(trades), count, float(trades.price.sum())


def test_a_day_blob_is_one_element(tmp_path: Path) -> None:
    archive = BlobArchive(tmp_path)
    rows = {day: day_rows(day, 200_000 if day == 2 else 10) for day in (1, 2, 3)}
    for day, of_day in rows.items():
        archive.add("BTCUSDT", day, of_day)
    archive.add("ETHUSDT", 1, day_rows(1, 5))
    expected = [
        (
            "BTCUSDT",
            START + (day - 1) * DAY_MS,
            len(of_day),
            int(of_day["count"].sum()),
            float((of_day["px"] / 1e8).sum()),
        )
        for day, of_day in rows.items()
    ]
    with TestPipeline() as pipeline:
        read = pipeline | ReadAgg2(str(tmp_path), symbol="BTCUSDT")
        assert_that(read.trades | beam.Map(summary), equal_to(expected))
        ends = read.outcomes | "Ends" >> beam.Map(lambda keyed: (keyed[0], keyed[1].trades))
        assert_that(ends, equal_to([(BTC, 10), (BTC, 200_000), (BTC, 10)]), label="Outcomes")


def test_a_damaged_day_is_named_and_the_others_are_there(tmp_path: Path) -> None:
    archive = BlobArchive(tmp_path)
    for day in (1, 2):
        archive.add("BTCUSDT", day, day_rows(day, 10))
    archive.data("BTCUSDT").write_bytes(b"\xff" * 8 + archive.data("BTCUSDT").read_bytes()[8:])

    def damaged(found: Iterable[tuple[Market, FileOutcome]]) -> None:
        assert sorted((o.path[-2:], o.trades, o.damage is None) for _, o in found) == [
            ("01", 0, False),
            ("02", 10, True),
        ]

    with TestPipeline() as pipeline:
        read = pipeline | ReadAgg2(str(tmp_path))
        assert_that(read.outcomes, damaged)


def test_databento_files_give_their_markets(tmp_path: Path) -> None:
    path = tmp_path / "a.dbn.zst"
    write_dbn_trades(str(path), 5_000, 3, 1)
    reader = DbnReader(str(path))
    expected: dict[Market, int] = {}
    for batch in reader:
        expected[batch.market] = expected.get(batch.market, 0) + len(batch)
    assert len(expected) == 3
    with TestPipeline() as pipeline:
        read = pipeline | ReadDbn([str(tmp_path)])
        counts = (
            read.trades
            | beam.Map(lambda keyed: (keyed[0], len(keyed[1])))
            | beam.CombinePerKey(sum)
        )
        assert_that(counts, equal_to(list(expected.items())))
        kept = read.outcomes | beam.Map(lambda keyed: (keyed[0], keyed[1].trades))
        assert_that(kept, equal_to(list(expected.items())), label="Outcomes")


def test_what_cannot_be_listed_is_told_when_the_pipeline_is_built(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        ReadAgg2(str(tmp_path / "nowhere"))
    (tmp_path / "a.dbn").write_bytes(b"nothing")
    with pytest.raises(CandlebeamError, match=r"a\.dbn.*expected a Databento file"):
        ReadDbn([str(tmp_path)])


def test_days_of_a_batch_are_the_consumers_own(tmp_path: Path) -> None:
    trades = [
        TradeBatch(BTC, np.ones(2, np.int64), *(np.ones(2),) * 2, *(np.ones(2, np.uint8),) * 2)
        for _ in range(2)
    ]
    joined = TradeBatch.join(trades)
    assert len(joined) == 4
    assert joined.count is None
    with pytest.raises(ValueError, match="one market"):
        TradeBatch.join([])
