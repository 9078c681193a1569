"""The plan of a catalog of 200,000 files stays small, and so does what is submitted."""

from __future__ import annotations

import resource
import sqlite3
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from candlebeam.catalog import Catalog
from candlebeam.io.market_commit import CommitOptions
from candlebeam.io.staging import MANIFEST_FILES, Staging, list_shards, read_shard
from candlebeam.pipelines.flow import FlowOptions, build_backfill
from candlebeam.plan import DEFAULT_SHARD_BYTES, PlanOptions, plan_market
from candlebeam.settings import CandleSettings
from tests.in_process import pipeline

FILES = 200_000
MARKETS = 800
#: One market has far more files than the others.
LARGEST = 60_376
OTHERS = (FILES - LARGEST) // (MARKETS - 1)
STATM = Path("/proc/self/statm")

_MADE_UP = """
    WITH RECURSIVE
        market(number) AS (
            VALUES (:first) UNION ALL SELECT number + 1 FROM market WHERE number < :last
        ),
        hour(number) AS (
            VALUES (0) UNION ALL SELECT number + 1 FROM hour WHERE number < :files - 1
        )
    INSERT INTO files
    SELECT 1,
        printf('RAM/bucket/EX%d/symbol%03d/', market.number / 100, market.number)
            || strftime('%Y-%m-%d-%H', hour.number * 3600, 'unixepoch') || '.gz',
        'RAM', 'EX' || market.number / 100, printf('symbol%03d', market.number),
        hour.number * 3600000, '.gz', 250000
    FROM market CROSS JOIN hour
"""


def resident_bytes() -> int:
    """What this process has in memory now."""
    if not STATM.exists():
        return 0
    return int(STATM.read_text().split()[1]) * resource.getpagesize()


def make_up_catalog(path: str) -> None:
    Catalog(path, create=True).__exit__()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA synchronous = OFF")
        db.execute("INSERT INTO roots VALUES (1, '/archive')")
        db.execute(_MADE_UP, {"first": 0, "last": 0, "files": LARGEST})
        db.execute(_MADE_UP, {"first": 1, "last": MARKETS - 1, "files": OTHERS})
    db.close()


class Planned(NamedTuple):
    """What a plan came to; `growth` is how much more memory was in use at most, in bytes."""

    manifests: list[str]
    staging: str
    growth: int


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Planned:
    folder = tmp_path_factory.mktemp("plan")
    make_up_catalog(str(folder / "db"))
    staging = Staging(str(folder / "staging"))
    staging.prepare()
    options = PlanOptions(str(folder / "out"), CandleSettings())
    before = most = resident_bytes()
    with Catalog(str(folder / "db")) as catalog:
        markets = catalog.markets()
        writer = staging.write_plan()
        for market, ranges in markets.items():
            plan = plan_market(catalog, market, ranges, options)
            assert plan.task is not None
            writer.add(plan.task, plan.shards)
            most = max(most, resident_bytes())
        manifests = writer.close()
    return Planned(manifests, staging.path, most - before)


def test_many_files_are_planned_each_once(planned: Planned) -> None:
    files: Counter[str] = Counter()
    names: Counter[str] = Counter()
    for manifest in planned.manifests:
        for ref in list_shards(manifest):
            shard = read_shard(ref)
            files[shard.market.symbol] += len(shard.files)
            names[shard.name] += 1
            assert shard.bytes <= DEFAULT_SHARD_BYTES
    assert len(files) == MARKETS
    assert files.pop("symbol000") == LARGEST
    assert set(files.values()) == {OTHERS}
    assert set(names.values()) == {1}


@pytest.mark.skipif(not STATM.exists(), reason="the memory of a process is read from /proc")
def test_many_files_are_planned_in_little_memory(planned: Planned) -> None:
    """The largest market may be in memory, and what a manifest lists; never all files."""
    assert planned.growth < 80 << 20


def graph_bytes(planned: Planned, manifests: list[str]) -> int:
    running = pipeline()
    commit = CommitOptions("/out", CandleSettings())
    build_backfill(running, manifests, FlowOptions(staging=planned.staging, commit=commit))
    return len(running.to_runner_api().SerializeToString())


def test_many_files_are_submitted_as_names_of_manifests(planned: Planned) -> None:
    assert 2 < len(planned.manifests) <= FILES // MANIFEST_FILES + 1
    of_two, of_all = (graph_bytes(planned, planned.manifests[:n]) for n in (2, None))
    names = sum(len(path) for path in planned.manifests[2:])
    # A name is a string in a list: some bytes more than its characters.
    assert of_all - of_two < names + 40 * len(planned.manifests)
    assert of_two < 1 << 18
