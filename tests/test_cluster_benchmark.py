"""What the benchmark of clusters makes of its measurements."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from benchmarks.cluster_report import render
from benchmarks.cluster_results import MANY_SHARDS, TINY, ClusterResults
from benchmarks.cluster_runs import (
    DRIVER,
    EMBEDDED,
    ONE_SLOT,
    PLAIN,
    TASK_MANAGER,
    TWO_APART,
    WORKER,
    ClusterRun,
    JobTimes,
    output_digest,
)
from benchmarks.core_rates import PARTS, Walked, fit, predicted
from benchmarks.plan_scale import Planning
from benchmarks.process_watch import Usage
from benchmarks.s3_requests import SHAPES, Kind, Shape, put_down
from benchmarks.schedule_model import Rates

COSTS = {
    "find": {"shards": 1e-4, "files": 1e-5},
    "read": {"files": 6e-5, "trades": 6e-8},
    "candles": {"shards": 5e-5, "trades": 6e-9, "candles": 5e-8},
    "stage": {"shards": 2e-4, "files": 0.0, "candles": 2e-7},
    "commit": {"markets": 2e-3, "shards": 1e-4, "records": 2e-7},
}
PART = {"decompress": {"files": 2e-5, "bytes": 3e-9}}
NAMES = ("markets", "shards", "files", "trades", "candles", "records", "bytes", "chunk_bytes")
COUNTED = (
    ("dense", 8 << 20, (5, 95, 3000, 92_000_000, 720_000, 720_000, 720_000_000, 75_000_000)),
    ("dense", 1, (5, 3000, 3000, 92_000_000, 720_000, 720_000, 720_000_000, 76_000_000)),
    ("small", 8 << 20, (200, 400, 40_000, 4_800_000, 3_170_000, 9_600_000, 43_000_000, 3 << 28)),
    ("small", 16 << 10, (200, 2900, 40_000, 4_800_000, 3_170_000, 9_600_000, 43_000_000, 3 << 28)),
    ("small", 8 << 20, (200, 400, 40_000, 4_800_000, 160_000, 160_000, 43_000_000, 17_000_000)),
)


def walks() -> list[Walked]:
    """Measurements that follow from `COSTS` to the last bit."""
    found = []
    for data, shard_bytes, values in COUNTED:
        counts = dict(zip(NAMES, values, strict=True))
        seconds = {
            step: predicted({step: cost}, counts) for step, cost in {**COSTS, **PART}.items()
        }
        found.append(Walked(data, shard_bytes, counts, seconds, waited=0.5))
    return found


def test_costs_are_found_again_from_what_they_come_to() -> None:
    costs = {**fit(walks()), **fit(walks(), PARTS)}
    for step, each in {**COSTS, **PART}.items():
        assert costs[step] == pytest.approx(each, rel=1e-6, abs=1e-12)


def test_cost_that_would_be_below_nothing_is_nothing() -> None:
    found = walks()
    for walked in found:
        walked.seconds["stage"] -= 1e-6 * walked.counts["files"]
    costs = fit(found)
    assert costs["stage"]["files"] == 0
    assert all(each >= 0 for step in costs.values() for each in step.values())


def test_requests_are_put_down_to_what_they_grow_with() -> None:
    def count(shape: Shape) -> Counter[Kind]:
        _, markets, shards, files = shape.counts()
        return Counter(
            {
                ("worker", "GetObject", "archive"): files,
                ("worker", "PutObject", "chunks"): shards + 2 * markets,
                ("driver", "PutObject", "candles"): 3,
            }
        )

    table = put_down(count)
    assert table["worker", "GetObject", "archive"] == {"run": 0, "market": 0, "shard": 0, "file": 1}
    assert table["worker", "PutObject", "chunks"] == {"run": 0, "market": 2, "shard": 1, "file": 0}
    assert table["driver", "PutObject", "candles"] == {"run": 3, "market": 0, "shard": 0, "file": 0}
    with pytest.raises(SystemExit, match="does not grow evenly"):
        put_down(lambda shape: {("worker", "a", "b"): 5 * (shape == SHAPES[0])})


def run(wall: float, worker: float = 0.0, java: float = 0.0) -> ClusterRun:
    usage = {
        DRIVER: Usage(1.0, 200_000_000, 1),
        WORKER: Usage(worker, 400_000_000, 1),
        TASK_MANAGER: Usage(java, 800_000_000, 1),
    }
    job = JobTimes(5.0, 7.0, wall - 2, wall - 1)
    return ClusterRun(wall, 1.0 + worker + java, 0.01, usage, job)


@pytest.fixture
def results() -> ClusterResults:
    found = ClusterResults(2)
    alone = predicted(COSTS, walks()[0].counts)
    many = predicted(COSTS, walks()[1].counts)
    for turn in (0.0, 0.1, -0.1):
        found.add(TINY, PLAIN, run(1.0))
        found.add(TINY, EMBEDDED, run(9.0))
        found.add(TINY, ONE_SLOT, run(8.0, 2.0, 1.0))
        found.add(TINY, TWO_APART, run(9.0, 4.0, 2.0))
        found.add("dense", PLAIN, run(5.0 + turn))
        found.add("dense", EMBEDDED, run(15.0 + turn))
        found.add("dense", ONE_SLOT, run(18.0, 2.0 + 1.5 * alone, 1.0 + 0.3 * alone))
        found.add("dense", TWO_APART, run(14.0))
        shards = walks()[1].counts["shards"] - walks()[0].counts["shards"]
        found.add(MANY_SHARDS, ONE_SLOT, run(20.0, 2.0 + 1.5 * many + 2e-3 * shards, 1.0))
    found.planning["fresh"] = Planning({}, wall=50.0, peak=2 << 30, graph_bytes=40_000)
    found.rates = {"walks": [vars(walked) for walked in walks()], "costs": COSTS, "parts": PART}
    row = {"who": "worker", "operation": "GetObject", "about": "archive"}
    grows = {"run": 0.0, "market": 0.0, "shard": 0.0, "file": 1.0}
    found.requests = {"requests": [{**row, **grows}], "request_seconds": 0.0015}
    return found


def test_starts_are_told_apart(results: ClusterResults) -> None:
    assert results.ratio("dense", EMBEDDED, PLAIN, apart=False) == pytest.approx(3.0)
    # Seven of fifteen seconds against five: eight are its longer start.
    assert results.slower("dense", EMBEDDED, PLAIN) == pytest.approx(1.4)
    assert results.ratio("dense", ONE_SLOT, TWO_APART, apart=True) == pytest.approx(2.0)
    assert results.ratio("dense4", ONE_SLOT, TWO_APART, apart=True) is None


def test_report_has_a_verdict_on_every_figure(results: ClusterResults) -> None:
    lines = render(results).splitlines()
    verdicts = {
        line.split(" | ")[0].strip("| "): line.split(" | ")[2:]
        for line in lines
        if "reached" in line or "missed" in line
    }
    embedded = "dense: embedded Flink / in process"
    slots = "dense: 1 slot / 2 slots of two TaskManagers"
    assert verdicts[f"{embedded}, its longer start taken off"] == ["1.40", "reached |"]
    assert verdicts[f"{embedded}, whole processes"] == ["3.00", "**missed** |"]
    assert verdicts[f"{slots}, starts taken off"] == ["2.00", "reached |"]
    assert verdicts[f"{slots}, whole processes"] == ["1.29", "**missed** |"]
    assert verdicts["plan and graph of 12 million files"] == ["50.0 s", "reached |"]
    assert verdicts["memory of its driver"] == ["2,048 MiB", "**missed** |"]
    assert "was not quiet" not in render(results)
    assert any(line.startswith("| decompress | 20 | 0.003 |") for line in lines)


def test_report_of_nothing_is_no_error() -> None:
    assert render(ClusterResults(2)).startswith("# Clusters")
    assert ClusterResults(2).model_rates("") is None


def test_rates_of_the_model_are_what_was_measured(results: ClusterResults) -> None:
    found = results.model_rates("here")
    assert found is not None
    rates = Rates(**found)
    assert rates.in_a_job == pytest.approx(1.5)
    assert rates.shard_in_job == pytest.approx(2e-3)
    assert rates.java == pytest.approx(0.2)
    assert (rates.plan, rates.start, rates.worker_peak) == (50.0, 8.0, 400_000_000)
    assert (rates.asked("file"), rates.request_seconds) == (1, 0.0015)
    results.requests.clear()
    assert results.model_rates("here") is None


def test_outputs_differ_where_a_byte_does(tmp_path: Path) -> None:
    for name in ("a.bin", "a.json", "other"):
        (tmp_path / name).write_bytes(b"1234")
    first = output_digest(tmp_path)
    (tmp_path / "other").write_bytes(b"123")
    assert output_digest(tmp_path) == first
    (tmp_path / "a.bin").write_bytes(b"1235")
    assert output_digest(tmp_path) != first
