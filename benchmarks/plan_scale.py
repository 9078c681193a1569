"""How long a backfill of 12 million files takes until it is submitted, and what it submits.

The backfill itself runs, in a process of its own, up to the graph that would go to a runner:

- fresh: no candles are there, so that all files are planned and written into manifests;
- nothing new: every market has candles of all of its files.

This module imports nothing large, so that the memory of the process that is measured is its own.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import wraps
from pathlib import Path
from typing import Any

from benchmarks.cache import cache_folder
from benchmarks.measure import measure

FILES = 12_000_000
MOST_SECONDS, MOST_GRAPH, MOST_MEMORY = 60.0, 4 << 20, 1 << 30
"""What a plan of so many files may take."""
MOST_OTHERS = 0.05
"""Where other programs took more of the cores than that, the wall clock says little."""


@dataclass
class Planning:
    """What it came to.

    Attributes:
        wall, cpu: seconds of the whole process, until the graph is there.
        others: the share of the cores' time that other programs took meanwhile, 0 to 1.
        stages: wall seconds by what they went to.
        peak: bytes of memory (RSS) at most.
        markets, shards, manifests: how many were planned.
        manifest_bytes, graph_bytes: bytes of all manifests, and of the graph.
    """

    stages: dict[str, float]
    wall: float = 0.0
    cpu: float = 0.0
    others: float = 0.0
    peak: int = 0
    markets: int = 0
    shards: int = 0
    manifests: int = 0
    manifest_bytes: int = 0
    graph_bytes: int = 0

    @property
    def misses(self) -> list[str]:
        """What is more than it may be; processor time counts where the wall clock does not."""
        limits = {
            "time": (self.wall if self.others <= MOST_OTHERS else self.cpu, MOST_SECONDS),
            "graph": (self.graph_bytes, MOST_GRAPH),
            "memory": (self.peak, MOST_MEMORY),
        }
        return [name for name, (found, most) in limits.items() if found > most]


def measure_plan(database: Path, out: Path) -> Planning:
    """Plans the files of a catalog for an output root, in a process of its own."""
    out.mkdir(exist_ok=True)
    result = out / "planning.json"
    command = [sys.executable, "-m", "benchmarks.plan_scale", "--inside"]
    measured = measure([*command, str(database), str(out), str(result)])
    planning = Planning(**json.loads(result.read_text()))
    planning.wall, planning.cpu = measured.wall, measured.cpu
    planning.others, planning.peak = measured.others, measured.peak
    return planning


class _Submitted(Exception):
    """The graph is there; nothing runs it."""


class _Stages:
    """Seconds spent in functions, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time counted."""
        self.seconds[name] = 0.0

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[name] += time.perf_counter() - started

        return call


def _plan_here(database: str, out: str) -> Planning:
    """Runs the backfill up to its graph, its parts timed."""
    from candlebeam.catalog import Catalog
    from candlebeam.io.staging import PlanWriter
    from candlebeam.pipelines import backfill, runner
    from candlebeam.plan import plan_market

    stages = _Stages()
    planning = Planning(stages.seconds)

    def submit(options: Any, build: Callable[[Any], object], **_: Any) -> None:
        import apache_beam as beam

        pipeline = beam.Pipeline(options=options)
        build(pipeline)
        planning.graph_bytes = len(pipeline.to_runner_api().SerializeToString())
        raise _Submitted

    def close(writer: PlanWriter) -> list[str]:
        manifests = write_last(writer)
        planning.manifests = len(manifests)
        planning.manifest_bytes = sum(os.path.getsize(path) for path in manifests)
        return manifests

    def add(writer: PlanWriter, task: Any, shards: Any) -> None:
        planning.markets += 1
        planning.shards += len(shards)
        write(writer, task, shards)

    write, write_last = PlanWriter.add, PlanWriter.close
    for owner, name, stage, function in (
        (Catalog, "markets", "markets", Catalog.markets),
        (Catalog, "inputs", "files", Catalog.inputs),
        (Catalog, "count_before", "counts", Catalog.count_before),
        (backfill, "plan_market", "shards", plan_market),
        (PlanWriter, "add", "manifests", add),
        (PlanWriter, "close", "last manifest", close),
        (runner, "run_pipeline", "graph", submit),
    ):
        setattr(owner, name, stages.timed(stage, function))
    # Beam decides how to run, so that no worker begins to read files that are not there.
    request = backfill.BackfillRequest(out, db=database, beam_arguments=("--direct_num_workers=1",))
    with suppress(_Submitted):
        backfill.run_backfill(request)
    # Files and counts are asked for while shards are planned.
    stages.seconds["shards"] -= stages.seconds["files"] + stages.seconds["counts"]
    return planning


def make_outputs(database: str, out: str) -> None:
    """Candles for every market of a catalog, of one minute each, made of all of its files."""
    from candlebeam.catalog import Catalog
    from candlebeam.formats.candles.companion import (
        CandlePaths,
        Companion,
        InputState,
        ResumeState,
    )
    from candlebeam.formats.candles.records import RECORD_DTYPE
    from candlebeam.model import Timeframe
    from candlebeam.rules.price_scale import PriceScale
    from candlebeam.settings import CandleSettings

    minute = Timeframe(60_000)
    with Catalog(database) as catalog:
        for market, ranges in catalog.markets().items():
            files = catalog.inputs(market, ranges)
            start = files.last[0].start_ts
            inputs = tuple(
                InputState(f.root, f.path, os.path.basename(f.full_path), f.size, f.size * 4)
                for f in files.last
            )
            state = ResumeState(CandleSettings(), inputs, covered=len(files.paths))
            companion = Companion(
                market, minute, start, start + minute.ms, PriceScale(4), 1, start, state
            )
            paths = CandlePaths.of(out, market)
            os.makedirs(os.path.dirname(paths.records), exist_ok=True)
            Path(paths.records).write_bytes(bytes(RECORD_DTYPE.itemsize))
            Path(paths.companion).write_bytes(companion.encode())


def _table(planned: dict[str, Planning], files: int) -> str:
    rows = {
        "wall": [f"{p.wall:.1f} s" for p in planned.values()],
        "processor time": [f"{p.cpu:.1f} s" for p in planned.values()],
        "other programs": [f"{p.others:.0%} of the cores" for p in planned.values()],
        "processor time a file": [f"{p.cpu / files * 1e6:.2f} µs" for p in planned.values()],
        "peak memory": [f"{p.peak / (1 << 20):.0f} MiB" for p in planned.values()],
        "markets planned": [f"{p.markets:,}" for p in planned.values()],
        "shards": [f"{p.shards:,}" for p in planned.values()],
        "manifests": [f"{p.manifests:,}" for p in planned.values()],
        "bytes of manifests": [f"{p.manifest_bytes:,}" for p in planned.values()],
        "bytes of the graph": [f"{p.graph_bytes:,}" for p in planned.values()],
    }
    for stage in next(iter(planned.values())).stages:
        rows[f"wall: {stage}"] = [f"{p.stages[stage]:.1f} s" for p in planned.values()]
    lines = [["", *planned], ["---"] * (len(planned) + 1), *([k, *v] for k, v in rows.items())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plan_scale", description=__doc__)
    parser.add_argument("--files", type=int, default=FILES, help="rows of the catalog")
    parser.add_argument("--inside", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--outputs", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.inside:
        database, out, result = chosen.inside
        Path(result).write_text(json.dumps(asdict(_plan_here(database, out))))
        return 0
    if chosen.outputs:
        make_outputs(*chosen.outputs)
        return 0
    make = [sys.executable, "-m", "benchmarks.made_up_catalog", "--files", str(chosen.files)]
    name = subprocess.run(make, check=True, stdout=subprocess.PIPE, text=True).stdout
    catalog = cache_folder() / name.partition(":")[0] / "index.sqlite"
    work = Path(tempfile.mkdtemp(prefix="plan-", dir=cache_folder()))
    try:
        planned = {"fresh": measure_plan(catalog, work / "fresh")}
        done = str(work / "done")
        outputs = [sys.executable, "-m", "benchmarks.plan_scale", "--outputs", str(catalog), done]
        subprocess.run(outputs, check=True)
        planned["nothing new"] = measure_plan(catalog, work / "done")
    finally:
        shutil.rmtree(work)
    fresh, again = planned.values()
    if not fresh.graph_bytes or again.markets or again.graph_bytes:
        raise SystemExit("expected a plan of all markets, then one of none")
    print(_table(planned, chosen.files))
    misses = [f"{name}: {miss}" for name, one in planned.items() for miss in one.misses]
    print("all within the limits" if not misses else f"over the limit: {', '.join(misses)}")
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
