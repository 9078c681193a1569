"""The made-up archive that plans and schedules are measured with."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.made_up_catalog import (
    BYTES,
    FILES,
    MARKETS,
    CatalogSet,
    file_sizes,
    market_sizes,
    write_catalog,
)
from candlebeam.catalog import Catalog


def test_markets_have_all_files_between_them_and_few_have_most() -> None:
    markets = market_sizes()
    assert markets == market_sizes()
    assert markets != market_sizes(seed=2)
    counts = [market.files for market in markets]
    assert (len(markets), sum(counts)) == (MARKETS, FILES)
    assert min(counts) >= 1
    assert sum(counts[:1200]) > FILES / 3
    assert len({market.folder for market in markets}) == MARKETS
    sizes = sorted((market.files * market.mean_bytes for market in markets), reverse=True)
    assert sum(sizes) == pytest.approx(BYTES)
    assert BYTES * 0.03 < sizes[0] < BYTES * 0.1


def test_sizes_of_a_market_come_to_about_its_mean() -> None:
    market = market_sizes()[0]
    sizes = file_sizes(market)
    assert len(sizes) == market.files
    assert sizes.mean() == pytest.approx(market.mean_bytes, rel=0.05)
    assert (sizes == file_sizes(market)).all()


def test_more_files_than_there_are_hours_is_an_error() -> None:
    with pytest.raises(ValueError, match="100000 files do not go into 1 markets"):
        market_sizes(100_000, 1)


def test_catalog_holds_every_file_of_the_markets(tmp_path: Path) -> None:
    wanted = CatalogSet().scaled(1 / 3000)
    markets = market_sizes(wanted.files, wanted.markets, wanted.bytes)
    path = str(tmp_path / "db")
    total = write_catalog(path, markets)
    assert total == sum(int(file_sizes(market).sum()) for market in markets)
    with Catalog(path) as catalog:
        found = catalog.markets()
        inputs = {market: catalog.inputs(market, ranges) for market, ranges in found.items()}
        for market, ranges in found.items():
            later = inputs[market].last[0].start_ts
            earlier = len(inputs[market].paths) - len(inputs[market].last)
            assert catalog.count_before(market, ranges, later) == earlier
    # Of a file that was found twice one counts.
    files = sum(len(each.paths) for each in inputs.values())
    assert wanted.files * 0.99 < files <= wanted.files
    assert {path[-3:] == ".gz" for each in inputs.values() for path in each.paths} == {True, False}
