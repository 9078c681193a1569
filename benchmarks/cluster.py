"""Time backfills on Flink beside those in process, and what a large one is made of.

Parts, each of which can be run alone:

- local: in process, and on Flink inside the process of the run;
- cluster: on a standalone cluster of this machine, with one slot and with two;
- plan: planning and submitting a catalog of 12 million made-up files;
- rates: what each step takes of one core;
- s3: how often an object store is asked.

The ways of a data set take turns. A turn before the first is not counted: it fills the page cache,
and in it all of them must make the same files. With --write, CLUSTER.md gets the report, and
cluster_rates.json what `benchmarks.schedule` goes on from.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks import cluster_report
from benchmarks.benches import CORES, candlebeam, module
from benchmarks.cache import cache_folder, scale, use_scale
from benchmarks.cluster_results import MANY_SHARDS, TINY, ClusterResults
from benchmarks.cluster_runs import (
    ONE_SLOT,
    ClusterRun,
    Way,
    cluster_ways,
    local_ways,
    output_digest,
    run_backfill,
)
from benchmarks.measure import timed_environment
from benchmarks.plan_scale import FILES, measure_plan
from clusters.errors import ClusterError
from clusters.flink import FlinkCluster

PARTS = ("local", "cluster", "plan", "rates", "s3")
SETS = ("dense", "dense4")
HERE = Path(__file__).parent


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class _Timing:
    """Runs of several data sets in several ways."""

    def __init__(self, results: ClusterResults, work: Path) -> None:
        self._results, self._work = results, work
        self._made: dict[str, str] = {}

    def prepare(self, sets: Sequence[str]) -> None:
        """Builds data sets and indexes them."""
        _run(module("datasets", *sets))
        for data in sets:
            if not self._database(data).exists():
                _run(candlebeam("index", cache_folder() / data, "--db", self._database(data)))

    def time(self, ways: Sequence[Way], sets: Sequence[str], turns: int) -> None:
        """Every way on every data set so many times, and once before that is not counted."""
        for data in sets:
            _say(f"{data}: once, not counted")
            for way in ways:
                made = self._once(way, data, digest=True)[1]
                if self._made.setdefault(data, made) != made:
                    raise SystemExit(f"{data}: {way.name} made other files than the ways before")
        for turn in range(turns):
            for data in sets:
                _say(f"{data}: {turn + 1} of {turns}")
                for way in ways:
                    self._results.add(data, way.name, self._once(way, data)[0])

    def time_many_shards(self, ways: Sequence[Way], turns: int) -> None:
        """The dense set with as many shards as it has files."""
        for way in ways:
            if way.name == ONE_SLOT:
                for _ in range(turns):
                    run, _ = self._once(way, "dense", "--shard-bytes", "1")
                    self._results.add(MANY_SHARDS, way.name, run)

    def _once(
        self, way: Way, data: str, *more: str, digest: bool = False
    ) -> tuple[ClusterRun, str]:
        out = self._work / "candles"
        run = run_backfill(way, self._database(data), out, *more)
        _say(
            f"{data}: {way.name}: {run.wall:.2f} s, {run.cpu:.2f} s of CPU, "
            f"other programs {run.others:.0%}"
        )
        made = output_digest(out) if digest else ""
        shutil.rmtree(out)
        return run, made

    def _database(self, data: str) -> Path:
        return self._work / f"{data}.sqlite"


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=timed_environment()
    )
    return done.stdout


def _answer(work: Path, name: str, *arguments: object) -> Any:
    """What a module of the benchmarks writes into the file that `--out` names."""
    out = work / f"{name}.json"
    _run(module(name, *arguments, "--out", out))
    return json.loads(out.read_text())


@contextmanager
def _clusters(work: Path) -> Iterator[list[Way]]:
    with ExitStack() as stack:
        apart = FlinkCluster(work / "apart", task_managers=2, slots=1)
        together = FlinkCluster(work / "together", task_managers=1, slots=2)
        for cluster in (apart, together):
            stack.callback(cluster.assert_nothing_left)
            stack.enter_context(cluster)
        yield cluster_ways(apart, together)


def measure_all(parts: Sequence[str], sets: Sequence[str], turns: int) -> ClusterResults:
    """Runs the parts of the benchmark."""
    chosen = sorted(os.sched_getaffinity(0))[:CORES]
    os.sched_setaffinity(0, chosen)
    results = ClusterResults(len(chosen))
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cluster-", dir=cache_folder()) as folder:
        work = Path(folder)
        timing = _Timing(results, work)
        if {"local", "cluster"} & set(parts):
            timing.prepare([TINY, *dict.fromkeys([*sets, "dense"])])
        if "local" in parts:
            timing.time(local_ways(), [TINY, *sets], turns)
        if "cluster" in parts:
            with _clusters(work) as ways:
                timing.time(ways, [TINY, *sets], turns)
                timing.time_many_shards(ways, turns)
        if "plan" in parts:
            files = round(FILES * scale())
            name = _run(module("made_up_catalog", "--files", files)).partition(":")[0]
            database = cache_folder() / name / "index.sqlite"
            results.planning["fresh"] = measure_plan(database, work / "planned")
        if "rates" in parts:
            results.rates = _answer(work, "core_rates", "--runs", turns)
        if "s3" in parts:
            results.requests = _answer(work, "s3_requests")
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cluster",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), metavar="NAME")
    parser.add_argument("--runs", type=int, default=3, help="counted runs of each way")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="data sets of that share of their sizes"
    )
    parser.add_argument("--write", action="store_true", help="write CLUSTER.md and its rates")
    chosen = parser.parse_args()
    if chosen.runs < 1:
        parser.error("--runs must be 1 or more")
    if not 0 < chosen.scale <= 1:
        parser.error("--scale must be above 0 and at most 1")
    whole = (*PARTS, *SETS, 1.0)
    if chosen.write and (*chosen.only, *chosen.sets, chosen.scale) != whole:
        parser.error("--write is for all parts and the whole data sets")
    use_scale(chosen.scale)
    # What ends this program ends the clusters first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        results = measure_all(chosen.only, chosen.sets, chosen.runs)
    except ClusterError as error:
        raise SystemExit(str(error)) from error
    text = cluster_report.render(results)
    print(text)
    rates = results.model_rates(cluster_report.about(results))
    if chosen.write:
        (HERE / "CLUSTER.md").write_text(text)
        (HERE / "cluster_rates.json").write_text(json.dumps(rates, indent=2) + "\n")


if __name__ == "__main__":
    main()
