"""What each step of a backfill takes of one core, and what that comes to a file, trade or candle.

The steps are those of a worker, one after the other in one process: no runner, no other thread. The
same archives are cut in several ways, so that costs a file, a trade and a shard come apart.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.cache import cache_folder, ensure, scale
from benchmarks.datasets import DATA_SETS
from candlebeam.catalog import Catalog
from candlebeam.formats.trade_log.gzip_text import text_pieces
from candlebeam.inventory import TRADE_LOG
from candlebeam.io.chunk_builder import ChunkBuilder
from candlebeam.io.commit_markets import commit_chunks
from candlebeam.io.make_chunk import load_kernels
from candlebeam.io.market_commit import CommitOptions
from candlebeam.io.shard_reader import open_reader
from candlebeam.io.staging import ChunkRef, ShardRef, Staging, list_shards, read_shard
from candlebeam.model import Market, Timeframe
from candlebeam.plan import PlanOptions, plan_market
from candlebeam.rules.candles import aggregate
from candlebeam.rules.corrections import correct_trades
from candlebeam.settings import CandleSettings
from candlebeam.storage import open_input


class Cutting(NamedTuple):
    """An archive, and how it is worked on."""

    data: str
    shard_bytes: int
    timeframe: str = "1m"


CUTTINGS = (
    Cutting("dense", 8 << 20),
    Cutting("dense", 1),
    Cutting("small", 8 << 20),
    Cutting("small", 16 << 10),
    Cutting("small", 8 << 20, "1h"),
)
"""What costs are taken from: large files and small ones, in large shards and small ones."""

DEPENDS: Mapping[str, tuple[str, ...]] = {
    "find": ("shards", "files"),
    "read": ("files", "trades"),
    "candles": ("shards", "trades", "candles"),
    "stage": ("shards", "files", "candles"),
    "commit": ("markets", "shards", "records"),
}
"""By step, what its time is put down to."""
PARTS: Mapping[str, tuple[str, ...]] = {"decompress": ("files", "bytes")}
"""What is a part of reading: opening and decompressing the files, and nothing done with them."""


@dataclass
class Walked:
    """What there was, and the seconds of processor time by step.

    Attributes:
        data, shard_bytes: what was worked on.
        counts: markets, shards, files, trades, candles (with trades), records (with gaps), bytes
            (of files as they are), chunk_bytes.
        seconds: by the steps of `DEPENDS`, and by `PARTS`, which were done once more for it.
        waited: seconds of wall clock of committing beyond its processor time: the disk.
    """

    data: str
    shard_bytes: int
    counts: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    waited: float = 0.0


def walk(cutting: Cutting, database: str, work: Path) -> Walked:
    """Makes the candles of an archive as one worker would, each step timed."""
    shutil.rmtree(work, ignore_errors=True)
    settings = CandleSettings(timeframe=Timeframe.parse(cutting.timeframe))
    options = CommitOptions(str(work / "candles"), settings)
    staging = Staging(str(work / "staging"))
    manifests = _plan(cutting, database, options, staging)
    walked = Walked(cutting.data, cutting.shard_bytes)
    clock = _Clock(walked.seconds)
    chunks: dict[Market, list[ChunkRef]] = {}
    counts = dict.fromkeys(("shards", "files", "trades", "candles", "bytes", "chunk_bytes"), 0)
    for ref in [ref for manifest in manifests for ref in list_shards(manifest)]:
        market, chunk, found = _make(ref, staging, settings, clock)
        chunks.setdefault(market, []).append(chunk)
        for name, value in found.items():
            counts[name] += value
    records = 0
    begun = time.perf_counter()
    for market, refs in chunks.items():
        with clock("commit"):
            outcome = commit_chunks(staging, market, refs, options)
        if outcome.error is not None:
            raise SystemExit(f"{market}: {outcome.error}")
        records += outcome.records
    walked.waited = time.perf_counter() - begun - walked.seconds["commit"]
    walked.counts = {"markets": len(chunks), "records": records, **counts}
    shutil.rmtree(work)
    return walked


def _plan(
    cutting: Cutting, database: str, options: CommitOptions, staging: Staging
) -> Sequence[str]:
    staging.prepare()
    plan = staging.write_plan()
    wanted = PlanOptions(options.out, options.settings, shard_bytes=cutting.shard_bytes)
    with Catalog(database) as catalog:
        for market, ranges in catalog.markets().items():
            planned = plan_market(catalog, market, ranges, wanted)
            if planned.task is None:
                raise SystemExit(f"{market}: nothing was planned: {planned.error}")
            plan.add(planned.task, planned.shards)
    return plan.close()


def _make(
    ref: ShardRef, staging: Staging, settings: CandleSettings, clock: _Clock
) -> tuple[Market, ChunkRef, dict[str, int]]:
    """One chunk, and what went into it."""
    with clock("find"):
        shard = read_shard(ref)
        if staging.find_chunk(shard):
            raise SystemExit(f"{shard.name} is there already")
    with clock("decompress"):
        for file in shard.files:
            opened = open_input(file.path)
            for _ in text_pieces(opened.descriptor, opened.size, file.path):
                pass
            os.close(opened.descriptor)
    reader = open_reader([shard], snap=settings.snap)
    builder = ChunkBuilder(staging)
    batches = iter(reader)
    while True:
        with clock("read"):
            found = next(batches, None)
        if found is None:
            break
        with clock("candles"):
            block = aggregate(
                correct_trades(found[1], settings.corrections),
                settings.timeframe,
                include_liquidations=settings.include_liquidations,
            )
        with clock("stage"):
            builder.add(shard.market, shard.name, block)
    outcomes = reader.outcomes(0)
    with clock("stage"):
        builder.finish(shard.market, shard.name, outcomes)
    with staging.open_chunks(shard.market, [shard.name]) as (chunk,):
        candles = chunk.length
    counts = {
        "shards": 1,
        "files": len(shard.files),
        "trades": sum(outcome.trades for outcome in outcomes),
        "candles": candles,
        "bytes": shard.bytes,
        "chunk_bytes": os.path.getsize(staging.chunk_path(shard.market, shard.name)),
    }
    return shard.market, ChunkRef(ref, shard.ordinal, shard.name, reused=False), counts


class _Clock:
    """Adds up processor time by name."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds = seconds

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        begun = time.process_time()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.process_time() - begun


def fit(
    walks: Sequence[Walked], depends: Mapping[str, tuple[str, ...]] = DEPENDS
) -> dict[str, dict[str, float]]:
    """By step and by what it is put down to, seconds each: the least squares of relative errors.

    A cost that would be below nothing is nothing.
    """
    costs: dict[str, dict[str, float]] = {}
    for step, names in depends.items():
        left = list(names)
        while True:
            rows = np.array([[w.counts[name] / w.seconds[step] for name in left] for w in walks])
            widths = np.linalg.norm(rows, axis=0)
            found = np.linalg.lstsq(rows / widths, np.ones(len(walks)), rcond=None)[0] / widths
            if (found >= 0).all():
                break
            left.remove(left[int(np.argmin(found * widths))])
        costs[step] = dict.fromkeys(names, 0.0) | dict(zip(left, found.tolist(), strict=True))
    return costs


def predicted(costs: Mapping[str, Mapping[str, float]], counts: Mapping[str, int]) -> float:
    """Seconds of a core that costs come to."""
    return sum(each * counts[name] for step in costs.values() for name, each in step.items())


def measure_rates(databases: Mapping[str, str], turns: int) -> dict[str, Any]:
    """Every cutting so many times, in turns: the medians, and the costs that follow from them."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    load_kernels(TRADE_LOG)
    runs: dict[Cutting, list[Walked]] = {}
    with tempfile.TemporaryDirectory(prefix="rates-", dir=cache_folder()) as work:
        for turn in range(turns + 1):
            for cutting in CUTTINGS:
                walked = walk(cutting, databases[cutting.data], Path(work) / "walk")
                if turn:  # The first fills the page cache and loads what is compiled.
                    runs.setdefault(cutting, []).append(walked)
    middle = [_median(walks) for walks in runs.values()]
    return {
        "walks": [asdict(walked) for walked in middle],
        "costs": fit(middle),
        "parts": fit(middle, PARTS),
    }


def _median(walks: Sequence[Walked]) -> Walked:
    first = walks[0]
    seconds = {
        step: float(np.median([walked.seconds[step] for walked in walks]))
        for step in (*DEPENDS, *PARTS)
    }
    waited = float(np.median([walked.waited for walked in walks]))
    return Walked(first.data, first.shard_bytes, first.counts, seconds, waited)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.core_rates", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="counted runs")
    parser.add_argument("--out", type=Path, help="a JSON file for the answer")
    chosen = parser.parse_args()
    names = dict.fromkeys(cutting.data for cutting in CUTTINGS)
    for name in names:
        ensure(DATA_SETS[name] if scale() == 1 else DATA_SETS[name].scaled(scale()))
    with tempfile.TemporaryDirectory(prefix="index-", dir=cache_folder()) as work:
        databases = {name: str(Path(work) / f"{name}.sqlite") for name in names}
        for name, database in databases.items():
            with Catalog(database, create=True) as catalog:
                catalog.index(str(cache_folder() / name))
        text = json.dumps(measure_rates(databases, chosen.runs), indent=2)
    if chosen.out is not None:
        chosen.out.write_text(text + "\n")
    else:
        print(text)


if __name__ == "__main__":
    main()
