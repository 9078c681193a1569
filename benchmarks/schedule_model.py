"""A backfill as it is spread over slots: shards and markets with their costs, and who does what.

Nothing runs here. Shards are cut by the product's own rule from the sizes of a made-up archive,
cost what was measured of one core, and go to slots as a runner spreads them.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.made_up_catalog import MadeUpMarket, file_sizes
from candlebeam.io.staging import MANIFEST_FILES
from candlebeam.shards import FileRun, cut

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MEASURED = Path(__file__).with_name("cluster_rates.json")
FETCHED_AT_ONCE = 16
"""Remote files that a shard's reader waits for at the same time (`formats.trade_log.reader`)."""
CHUNKS_AT_ONCE = 8
"""Chunks that a commit fetches at the same time (`storage.elsewhere`)."""
COMMITTED_AT_ONCE = 3
"""Markets that a worker commits at the same time (`io.commit_markets`)."""


@dataclass(frozen=True)
class Rates:
    """What things take, as `make bench-cluster` has measured it.

    Attributes:
        costs: seconds of one core, by step and by what it grows with (`core_rates.DEPENDS`).
        parts: the same of decompression, which is a part of reading (`core_rates.PARTS`).
        bytes_per_trade: of packed files.
        bytes_per_candle: of chunks.
        in_a_job: what a worker of a cluster takes, over the same work in one process.
        shard_in_job: seconds that a worker takes for each shard besides, for the runner's sake.
        java: seconds of processor time of a TaskManager for one of its workers.
        plan: seconds of planning 12 million files.
        start: seconds of a job with next to nothing to do.
        worker_peak: bytes of memory that a worker holds at most.
        requests: rows of `s3_requests`.
        request_seconds: seconds of a core that a request to an object store takes.
    """

    costs: Mapping[str, Mapping[str, float]]
    parts: Mapping[str, Mapping[str, float]]
    bytes_per_trade: float
    bytes_per_candle: float
    in_a_job: float
    shard_in_job: float
    java: float
    plan: float
    start: float
    worker_peak: float
    requests: Sequence[Mapping[str, Any]]
    request_seconds: float
    about: str = ""

    @classmethod
    def read(cls, path: Path = MEASURED) -> Rates:
        """The rates that were measured last."""
        return cls(**json.loads(path.read_text()))

    def seconds(self, step: str, counts: Mapping[str, Floats]) -> Floats:
        """Of one core in a worker, for each of what is counted."""
        costs = {**self.costs, **self.parts}[step]
        terms = [each * counts[name] for name, each in costs.items()]
        found: Floats = self.in_a_job * np.sum(terms, axis=0)
        return found

    def asked(self, about: str) -> float:
        """Requests of workers for each market, shard or file of an object store."""
        return sum(float(row[about]) for row in self.requests if row["who"] == "worker")


@dataclass(frozen=True)
class Shards:
    """All shards of an archive, in the order of the plan, and its markets.

    Attributes:
        bytes, files, trades, candles: of each shard.
        market: the place of each shard's market.
        manifest: the number of the manifest it stands in.
        names: of the markets.
        records: candles of each market, gaps and all.
    """

    bytes: Floats
    files: Floats
    trades: Floats
    candles: Floats
    market: Ints
    manifest: Ints
    names: tuple[str, ...]
    records: Floats

    def __len__(self) -> int:
        return len(self.bytes)


def cut_archive(
    markets: Iterable[MadeUpMarket], shard_bytes: int, bytes_per_trade: float
) -> Shards:
    """Cuts an archive as a plan does.

    How many minutes of a file have a trade is taken as if trades fell anywhere in it.
    """
    ordered = sorted(markets, key=lambda one: (one.collector, one.exchange, one.symbol))
    columns: dict[str, list[Floats]] = {"bytes": [], "files": [], "trades": [], "candles": []}
    market, manifest, records = [], [], []
    in_manifest = number = 0
    for place, one in enumerate(ordered):
        sizes = file_sizes(one)
        runs = _runs(sizes, shard_bytes)
        begins = np.cumsum([0, *map(len, runs[:-1])])
        minutes = one.hours * 60
        trades = sizes / bytes_per_trade
        filled = minutes * -np.expm1(-trades / minutes)
        columns["bytes"].append(np.add.reduceat(sizes, begins).astype(float))
        columns["files"].append(np.array([len(run) for run in runs], float))
        columns["trades"].append(np.add.reduceat(trades, begins))
        columns["candles"].append(np.add.reduceat(filled, begins))
        market.append(np.full(len(runs), place))
        manifest.append(np.full(len(runs), number))
        records.append(float(one.files * minutes))
        in_manifest += one.files
        if in_manifest >= MANIFEST_FILES:
            number, in_manifest = number + 1, 0
    return Shards(
        **{name: np.concatenate(parts) for name, parts in columns.items()},
        market=np.concatenate(market),
        manifest=np.concatenate(manifest),
        names=tuple(f"{one.collector}/{one.exchange}/{one.symbol}" for one in ordered),
        records=np.array(records),
    )


def _runs(sizes: Ints, shard_bytes: int) -> list[FileRun]:
    """The runs of a market's files; those of the last start, here one, are cut by themselves."""
    files = FileRun([""] * len(sizes), sizes.tolist())
    return cut(files[:-1], shard_bytes) + cut(files[-1:], shard_bytes)


@dataclass(frozen=True)
class Store:
    """Where the archive, the staging folder and the candles are.

    Attributes:
        latency: seconds from a request to its answer; 0 for a file system.
    """

    latency: float = 0.0

    def waits(self, requests: Floats) -> Floats:
        """Seconds until the last of requests that are made one after the other is answered."""
        return requests * self.latency

    def works(self, requests: Floats, rates: Rates) -> Floats:
        """Seconds of a core that requests take: none for a file system."""
        return requests * (rates.request_seconds if self.latency else 0.0)


def reading_seconds(shards: Shards, rates: Rates, store: Store) -> Floats:
    """What a slot takes for each shard, from finding out whether it is done to its chunk."""
    counts = {
        "shards": np.ones(len(shards)),
        "files": shards.files,
        "trades": shards.trades,
        "candles": shards.candles,
    }
    fetched = rates.seconds("read", counts)
    rest = np.full(len(shards), rates.shard_in_job)
    for step in ("find", "candles", "stage"):
        rest += rates.seconds(step, counts)
    # One request of a shard is made when its market is committed. The first files are waited for,
    # the others come while these are read.
    own, file = rates.asked("shard") - 1, rates.asked("file")
    later = np.ceil(shards.files / FETCHED_AT_ONCE) - 1
    worked = fetched + store.works(file * shards.files, rates)
    alone = np.full(len(shards), own)
    rest += store.works(alone, rates) + store.waits(alone + file)
    found: Floats = np.maximum(worked, store.waits(file * later)) + rest
    return found


def commit_seconds(shards: Shards, rates: Rates, store: Store) -> Floats:
    """What a slot takes for each market, from its chunks to its committed files."""
    chunks = np.bincount(shards.market, minlength=len(shards.names)).astype(float)
    counts = {"markets": np.ones(len(chunks)), "shards": chunks, "records": shards.records}
    own = np.full(len(chunks), rates.asked("market"))
    worked = rates.seconds("commit", counts) + store.works(own + chunks, rates)
    waits = store.waits(own + np.ceil(chunks / CHUNKS_AT_ONCE))
    found: Floats = np.maximum(worked, waits / COMMITTED_AT_ONCE)
    return found


def round_robin(shards: Shards, slots: int) -> Ints:
    """The slot of each shard on Flink: nothing moves once it was given out.

    The slots take manifests in turn, and each gives out the shards of its own in turn, the first to
    itself.
    """
    sender = shards.manifest % slots
    found = np.empty(len(shards), np.int64)
    for slot in range(min(slots, int(shards.manifest[-1]) + 1)):
        (mine,) = np.nonzero(sender == slot)
        found[mine] = (slot + np.arange(len(mine))) % slots
    return found


def at_random(count: int, slots: int, seed: int) -> Ints:
    """A slot for each thing, as a hash of its key gives it."""
    return np.random.default_rng(seed).integers(0, slots, count)


def loads(seconds: Floats, slot: Ints, slots: int) -> Floats:
    """Seconds of each slot."""
    found = np.zeros(slots)
    np.add.at(found, slot, seconds)
    return found


def greedy_loads(seconds: Floats, slots: int) -> Floats:
    """Seconds of each slot where each thing goes, in order, to the slot that is free first."""
    free = [(0.0, slot) for slot in range(slots)]
    for each in seconds.tolist():
        time, slot = free[0]
        heapq.heapreplace(free, (time + each, slot))
    found = np.zeros(slots)
    for time, slot in free:
        found[slot] = time
    return found


@dataclass(frozen=True)
class Stage:
    """One stage over all slots.

    Attributes:
        loads: seconds of each slot.
        longest: seconds of the longest single thing.
        greedy: the slowest slot where each thing goes to whoever is free; None if not asked for.
    """

    loads: Floats
    longest: float
    greedy: float | None = None

    @property
    def makespan(self) -> float:
        """Seconds until the slowest slot is done."""
        return float(self.loads.max())

    @property
    def total(self) -> float:
        """Seconds of all slots."""
        return float(self.loads.sum())

    @property
    def utilisation(self) -> float:
        """The share of the slots' time that is worked."""
        return self.total / (self.makespan * len(self.loads))


@dataclass(frozen=True)
class Schedule:
    """A whole run: planning, the start of the job, reading, committing, one after the other."""

    slots: int
    before: float
    reading: Stage
    committing: Stage

    @property
    def seconds(self) -> float:
        """From start to end."""
        return self.before + self.reading.makespan + self.committing.makespan

    @property
    def utilisation(self) -> float:
        """The share of the slots' time that is worked."""
        return (self.reading.total + self.committing.total) / (self.seconds * self.slots)


def schedule(
    shards: Shards, rates: Rates, slots: int, store: Store | None = None, *, seed: int = 1
) -> Schedule:
    """A run on so many slots, as Flink spreads it."""
    store = store or Store()
    read = reading_seconds(shards, rates, store)
    commit = commit_seconds(shards, rates, store)
    before = rates.plan + rates.start
    if store.latency:
        # Every slot reads every manifest.
        before += (int(shards.manifest[-1]) + 1) * store.latency
    return Schedule(
        slots,
        before,
        Stage(
            loads(read, round_robin(shards, slots), slots),
            float(read.max()),
            float(greedy_loads(read, slots).max()),
        ),
        Stage(
            loads(commit, at_random(len(commit), slots, seed), slots),
            float(commit.max()),
            float(greedy_loads(commit, slots).max()),
        ),
    )
