"""What `benchmarks.cluster` measured, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.cluster_runs import (
    ONE_SLOT,
    TASK_MANAGER,
    WORKER,
    ClusterRun,
    JobTimes,
)
from benchmarks.plan_scale import Planning
from benchmarks.process_watch import Usage

TINY = "dense-tiny"
MANY_SHARDS = "dense, a shard a file"
#: Largest first: what runs longer tells more.
LARGE = ("dense4", "dense")


@dataclass
class ClusterResults:
    """What was measured; what was not is empty.

    Attributes:
        cores: that everything ran on.
        runs: by data set and way, the counted runs, in the order they were made.
        planning: by name, the plans of many files.
        rates: what `core_rates` gives.
        requests: what `s3_requests` gives.
    """

    cores: int
    runs: dict[tuple[str, str], list[ClusterRun]] = field(default_factory=dict)
    planning: dict[str, Planning] = field(default_factory=dict)
    rates: dict[str, Any] = field(default_factory=dict)
    requests: dict[str, Any] = field(default_factory=dict)

    def add(self, data: str, way: str, run: ClusterRun) -> None:
        self.runs.setdefault((data, way), []).append(run)

    def median(self, data: str, way: str, figure: Callable[[ClusterRun], float]) -> float | None:
        """The median of a figure over the runs of a way; None if there are none."""
        runs = self.runs.get((data, way))
        return median(map(figure, runs)) if runs else None

    def wall(self, data: str, way: str) -> float | None:
        """Seconds from start to end."""
        return self.median(data, way, lambda run: run.wall)

    def cpu(self, data: str, way: str, kind: str) -> float | None:
        """Seconds of processor time of a kind of process."""
        return self.median(data, way, lambda run: run.usage.get(kind, Usage()).cpu)

    def peak(self, data: str, way: str, kind: str) -> float | None:
        """Bytes that one process of a kind held at most."""
        return self.median(data, way, lambda run: run.usage.get(kind, Usage()).peak)

    def phase(self, data: str, way: str, moment: Callable[[JobTimes], float]) -> float | None:
        """Seconds until a moment of the job."""
        runs = [run for run in self.runs.get((data, way), []) if run.job is not None]
        return median(moment(run.job) for run in runs if run.job) if runs else None

    def ratio(self, data: str, mine: str, theirs: str, *, apart: bool) -> float | None:
        """The time of one way over that of another, turn by turn: the median.

        Args:
            apart: takes off both what they take on next to nothing, in the median.
        """
        off = (self.wall(TINY, mine), self.wall(TINY, theirs)) if apart else (0.0, 0.0)
        pairs = zip(
            self.runs.get((data, mine), []), self.runs.get((data, theirs), []), strict=False
        )
        if off[0] is None or off[1] is None:
            return None
        found = [(one.wall - off[0], other.wall - off[1]) for one, other in pairs]
        if not found or min(map(min, found)) <= 0:
            return None
        return median(one / other for one, other in found)

    def slower(self, data: str, mine: str, theirs: str) -> float | None:
        """The time of one way over that of another, but for what its start takes longer."""
        more = (self.wall(TINY, mine), self.wall(TINY, theirs))
        pairs = list(
            zip(self.runs.get((data, mine), []), self.runs.get((data, theirs), []), strict=False)
        )
        if more[0] is None or more[1] is None or not pairs:
            return None
        return median((one.wall - (more[0] - more[1])) / other.wall for one, other in pairs)

    def others(self) -> float:
        """The share of the cores' time that other programs took, in the median run."""
        found = [run.others for runs in self.runs.values() for run in runs]
        return median(found) if found else 0.0

    # For the model of a large run

    def walk(self, data: str, shard_bytes: int) -> Mapping[str, Any]:
        """What `core_rates` has of an archive, cut like that, in candles of a minute."""
        return next(
            walk
            for walk in self.rates["walks"]
            if (walk["data"], walk["shard_bytes"]) == (data, shard_bytes)
        )

    def model_rates(self, about: str) -> dict[str, Any] | None:
        """What `schedule_model.Rates` holds; None if something of it was not measured."""
        data = next((name for name in LARGE if (name, ONE_SLOT) in self.runs), None)
        start = self.wall(TINY, ONE_SLOT)
        if not (self.rates and self.planning and self.requests and data and start):
            return None
        dense = self.walk("dense", 8 << 20)
        worked = self._beyond_start(data, WORKER)
        alone = _worker_seconds(self.rates["costs"], _times(dense["counts"], data))
        return {
            "costs": self.rates["costs"],
            "parts": self.rates["parts"],
            "bytes_per_trade": dense["counts"]["bytes"] / dense["counts"]["trades"],
            "bytes_per_candle": dense["counts"]["chunk_bytes"] / dense["counts"]["candles"],
            "in_a_job": worked / alone,
            "shard_in_job": self._shard_in_job(worked / alone),
            "java": self._beyond_start(data, TASK_MANAGER) / worked,
            "plan": self.planning["fresh"].wall,
            "start": start,
            "worker_peak": self.peak(data, ONE_SLOT, WORKER),
            **self.requests,
            "about": about,
        }

    def _beyond_start(self, data: str, kind: str) -> float:
        """Seconds of processor time on one slot, those on next to nothing taken off."""
        return (self.cpu(data, ONE_SLOT, kind) or 0.0) - (self.cpu(TINY, ONE_SLOT, kind) or 0.0)

    def _shard_in_job(self, in_a_job: float) -> float:
        """Seconds a shard that a worker takes beyond those of its steps: the runner's."""
        few, many = self.walk("dense", 8 << 20)["counts"], self.walk("dense", 1)["counts"]
        costs = self.rates["costs"]
        worked = self._beyond_start(MANY_SHARDS, WORKER) - self._beyond_start("dense", WORKER)
        known = in_a_job * (_worker_seconds(costs, many) - _worker_seconds(costs, few))
        more: int = many["shards"] - few["shards"]
        return max(worked - known, 0.0) / more


def _times(counts: Mapping[str, int], data: str) -> dict[str, int]:
    """The counts of `dense` for a data set of its kind: `dense4` has four times its files."""
    times = 4 if data == "dense4" else 1
    return {name: n if name == "markets" else n * times for name, n in counts.items()}


def _worker_seconds(costs: Mapping[str, Mapping[str, float]], counts: Mapping[str, int]) -> float:
    return sum(each * counts[name] for step in costs.values() for name, each in step.items())
