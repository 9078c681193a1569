"""The simulation of a large backfill: what it gives out is what there is, and no more."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import schedule as program
from benchmarks.made_up_catalog import market_sizes, write_catalog
from benchmarks.schedule_model import (
    Rates,
    Shards,
    Store,
    at_random,
    commit_seconds,
    cut_archive,
    greedy_loads,
    loads,
    reading_seconds,
    round_robin,
    schedule,
)
from candlebeam.catalog import Catalog
from candlebeam.io.staging import Staging
from candlebeam.plan import PlanOptions, plan_market
from candlebeam.settings import CandleSettings

FILES, MARKETS, BYTES = 60_000, 60, 20_000_000_000
REQUESTS = (
    {"who": "worker", "market": 9.0, "shard": 4.0, "file": 1.0},
    {"who": "driver", "market": 5.0, "shard": 5.0, "file": 5.0},
)
RATES = Rates(
    costs={
        "find": {"shards": 1e-4, "files": 1e-5},
        "read": {"files": 6e-5, "trades": 6e-8},
        "candles": {"shards": 5e-5, "trades": 6e-9, "candles": 5e-8},
        "stage": {"shards": 2e-4, "files": 6e-5, "candles": 2e-7},
        "commit": {"markets": 2e-3, "shards": 1e-4, "records": 2e-7},
    },
    parts={"decompress": {"files": 2e-5, "bytes": 2e-9}},
    bytes_per_trade=8.0,
    bytes_per_candle=105.0,
    in_a_job=1.25,
    shard_in_job=1e-3,
    java=0.2,
    plan=30.0,
    start=10.0,
    worker_peak=4e8,
    requests=REQUESTS,
    request_seconds=1e-3,
    about="a day, a machine",
)

SECONDS = st.lists(st.floats(0, 1e4), min_size=1, max_size=60).map(np.array)
SLOTS = st.integers(1, 12)


@pytest.fixture(scope="module")
def shards() -> Shards:
    return cut_archive(market_sizes(FILES, MARKETS, BYTES), 8 << 20, RATES.bytes_per_trade)


def test_shards_are_those_that_the_plan_of_the_same_catalog_has(tmp_path: Path) -> None:
    markets = [
        market
        for market in market_sizes(3_000, 30, 6_000_000_000)
        # Names of these two become other markets, some of which are one.
        if market.exchange not in ("POLONIEX", "BITGET")
    ]
    total = write_catalog(str(tmp_path / "index.sqlite"), markets)
    found = cut_archive(markets, 1 << 20, RATES.bytes_per_trade)
    assert found.bytes.sum() == pytest.approx(total, abs=0)
    options = PlanOptions(str(tmp_path / "out"), CandleSettings(), shard_bytes=1 << 20)
    staging = Staging(str(tmp_path / "staging"))
    staging.prepare()
    writer = staging.write_plan()
    planned: dict[str, list[tuple[float, float]]] = {}
    with Catalog(str(tmp_path / "index.sqlite")) as catalog:
        for market, ranges in catalog.markets().items():
            plan = plan_market(catalog, market, ranges, options)
            assert plan.task is not None
            writer.add(plan.task, plan.shards)
            planned[str(market)] = [(shard.bytes, len(shard.files)) for shard in plan.shards]
    assert list(found.names) == list(planned)
    assert len(writer.close()) == found.manifest[-1] + 1
    mine: dict[str, list[tuple[float, float]]] = {name: [] for name in found.names}
    for place, size, files in zip(found.market, found.bytes, found.files, strict=True):
        mine[found.names[place]].append((size, files))
    # A file that the catalog has twice, before and after it was compressed, is one input.
    different = {name for name in mine if mine[name] != planned[name]}
    assert len(different) <= sum(market.seed % 700 < market.files - 1 for market in markets)
    assert len(different) < len(mine)
    assert sum(map(len, planned.values())) == pytest.approx(len(found), rel=0.01)


def test_archive_is_cut_without_loss(shards: Shards) -> None:
    again = cut_archive(market_sizes(FILES, MARKETS, BYTES), 64 << 20, RATES.bytes_per_trade)
    assert shards.files.sum() == again.files.sum() == FILES
    assert shards.bytes.sum() == again.bytes.sum() == pytest.approx(BYTES, rel=0.05)
    assert shards.trades.sum() == pytest.approx(again.trades.sum())
    assert shards.candles.sum() == pytest.approx(again.candles.sum())
    assert shards.candles.sum() <= shards.records.sum()
    assert len(again) < len(shards)
    alone = shards.files == 1
    assert (shards.bytes[~alone] <= 8 << 20).all()
    assert (np.diff(shards.market) >= 0).all()
    assert (np.diff(shards.manifest) >= 0).all()


@given(SECONDS, SLOTS, st.integers(0, 9))
def test_work_that_is_spread_is_all_done(seconds: np.ndarray, slots: int, seed: int) -> None:
    found = loads(seconds, at_random(len(seconds), slots, seed), slots)
    greedy = greedy_loads(seconds, slots)
    for each in (found, greedy):
        assert len(each) == slots
        assert each.sum() == pytest.approx(seconds.sum())
        assert each.max() >= max(seconds.sum() / slots, seconds.max()) * (1 - 1e-9)
    # Nobody waits while there is work: so the last one ends by then.
    assert greedy.max() <= (seconds.sum() / slots + seconds.max()) * (1 + 1e-9)
    assert greedy.min() >= greedy.max() - seconds.max() * (1 + 1e-9) - 1e-6


@pytest.mark.parametrize("slots", [1, 3, 16, 64, 1000])
def test_every_slot_gets_as_many_shards_as_the_others(shards: Shards, slots: int) -> None:
    counts = np.bincount(round_robin(shards, slots), minlength=slots)
    senders = min(slots, int(shards.manifest[-1]) + 1)
    assert counts.sum() == len(shards)
    assert counts.max() - counts.min() <= senders
    assert counts.max() >= len(shards) / slots


@pytest.mark.parametrize("slots", [1, 2, 16, 64])
@pytest.mark.parametrize("latency", [0.0, 0.03])
def test_run_takes_at_least_what_its_work_takes(shards: Shards, slots: int, latency: float) -> None:
    store = Store(latency)
    run = schedule(shards, RATES, slots, store)
    assert run.reading.total == pytest.approx(reading_seconds(shards, RATES, store).sum())
    assert run.committing.total == pytest.approx(commit_seconds(shards, RATES, store).sum())
    for stage in (run.reading, run.committing):
        assert stage.greedy is not None
        least = max(stage.total / slots, stage.longest)
        assert least <= stage.greedy * (1 + 1e-9)
        assert stage.greedy <= stage.makespan * (1 + 1e-9)
        assert 0 < stage.utilisation <= 1 + 1e-9
    assert run.seconds >= RATES.plan + RATES.start + run.reading.makespan
    assert 0 < run.utilisation <= 1


def test_one_slot_does_all_of_it(shards: Shards) -> None:
    run = schedule(shards, RATES, 1)
    assert run.reading.makespan == pytest.approx(run.reading.total)
    assert run.reading.greedy == pytest.approx(run.reading.total)
    assert run.committing.utilisation == pytest.approx(1)


def test_same_seed_gives_the_same_run_and_waiting_makes_it_longer(shards: Shards) -> None:
    first, again = schedule(shards, RATES, 16), schedule(shards, RATES, 16)
    assert first.seconds == again.seconds
    assert (first.committing.loads == again.committing.loads).all()
    other = schedule(shards, RATES, 16, seed=2)
    assert (first.committing.loads != other.committing.loads).any()
    seconds = [schedule(shards, RATES, 16, Store(latency)).seconds for latency in (0, 0.01, 0.1)]
    assert seconds == sorted(seconds)
    assert seconds[0] < seconds[-1]


def test_costs_are_those_of_what_is_counted() -> None:
    one = Shards(
        bytes=np.array([9e6]),
        files=np.array([4.0]),
        trades=np.array([1e6]),
        candles=np.array([240.0]),
        market=np.array([0]),
        manifest=np.array([0]),
        names=("m",),
        records=np.array([300.0]),
    )
    read = 4 * 6e-5 + 1e6 * 6e-8
    rest = 1e-4 + 4e-5 + 5e-5 + 6e-3 + 1.2e-5 + 2e-4 + 2.4e-4 + 4.8e-5
    assert reading_seconds(one, RATES, Store())[0] == pytest.approx(1.25 * (read + rest) + 1e-3)
    # Three requests of its own, and the first file, are waited for; all of them take work.
    waited = reading_seconds(one, RATES, Store(0.01))[0] - reading_seconds(one, RATES, Store())[0]
    assert waited == pytest.approx(0.04 + 7e-3)
    assert commit_seconds(one, RATES, Store())[0] == pytest.approx(1.25 * (2e-3 + 1e-4 + 6e-5))
    assert commit_seconds(one, RATES, Store(0.3))[0] == pytest.approx(0.3 * 10 / 3)


def test_tables_are_written_into_a_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = tmp_path / "rates.json"
    rates.write_text(json.dumps({**vars(RATES), "requests": list(REQUESTS)}))
    arguments = ["--files", "20000", "--rates", str(rates)]
    program.main(arguments)
    printed = capsys.readouterr().out
    document = tmp_path / "scale.md"
    marks = [f"<!-- schedule: {name} -->\nold\n<!-- end -->\n" for name in program.TABLES]
    document.write_text("before\n" + "between\n".join(marks) + "after\n")
    program.main([*arguments, "--update", str(document)])
    text = document.read_text()
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert text.count("between\n") == len(marks) - 1
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert tables == [line for line in printed.splitlines() if line.startswith("|")]
    program.main([*arguments, "--update", str(document)])
    assert document.read_text() == text
    document.write_text("no place")
    with pytest.raises(SystemExit, match="no place for the table 'inputs'"):
        program.main([*arguments, "--update", str(document)])
