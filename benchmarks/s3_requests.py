"""How often a backfill asks an object store: for each file, shard and market, and for itself.

Small archives of several shapes are backfilled in process from and to an S3 server of this machine,
the one of the tests; every request of the client is counted. Requests are put down to what they
grow with: the shapes differ in one thing at a time.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from candlebeam.catalog import Catalog
from candlebeam.outcome import WRITTEN
from candlebeam.pipelines import runner
from candlebeam.pipelines.backfill import BackfillRequest, run_backfill
from candlebeam.storage import storage_of

_SERVER = """
import json, threading
from tests.object_store import object_store
with object_store() as running:
    print(json.dumps([running.environment, running.bucket()]), flush=True)
    threading.Event().wait()
"""
_PLACES = ("archive", "manifests", "chunks", "outcomes", "candles")
_TEXT = gzip.compress(b"1704067200000 100.5 1 1\n", mtime=0)


@dataclass(frozen=True)
class Shape:
    """An archive: markets, shards of each, files of each shard but the last, which has one."""

    markets: int
    shards: int
    files: int

    @property
    def market_files(self) -> int:
        """Files of a market."""
        return (self.shards - 1) * self.files + 1

    def counts(self) -> list[int]:
        """Of what requests may grow with: the run, markets, shards, files."""
        return [1, self.markets, self.markets * self.shards, self.markets * self.market_files]


SHAPES = (Shape(2, 2, 2), Shape(4, 2, 2), Shape(2, 4, 2), Shape(2, 2, 4), Shape(3, 3, 3))

Kind = tuple[str, str, str]
"""Who asks, the operation, and what it is about."""
TIMED_REQUESTS = 500
GROWS_WITH = ("run", "market", "shard", "file")


class _Requests:
    """Counts what clients of AWS ask, by what it is about and whether a worker asks."""

    def __init__(self) -> None:
        self.counted: Counter[Kind] = Counter()
        self._working = False

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Counts what is asked inside the `with`."""
        from botocore.client import BaseClient

        ask, run = BaseClient._make_api_call, runner.run_pipeline

        def count(client: Any, operation: str, arguments: dict[str, Any]) -> Any:
            key = str(arguments.get("Key") or arguments.get("Prefix") or "")
            who = "worker" if self._working else "driver"
            self.counted[who, operation, _place(key)] += 1
            return ask(client, operation, arguments)

        def work(*arguments: Any, **more: Any) -> None:
            self._working = True
            try:
                run(*arguments, **more)
            finally:
                self._working = False

        BaseClient._make_api_call = count
        runner.run_pipeline = work
        try:
            yield
        finally:
            BaseClient._make_api_call = ask
            runner.run_pipeline = run


def _place(key: str) -> str:
    parts = [part for part in key.split("/") if part]
    return next((place for place in _PLACES if place in parts), "other")


@contextmanager
def _server() -> Iterator[str]:
    """An S3 server for this process; gives the URL of a bucket."""
    process = subprocess.Popen([sys.executable, "-c", _SERVER], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        environment, bucket = json.loads(process.stdout.readline())
        os.environ.update(environment)
        yield bucket
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def count_requests(shape: Shape, root: str) -> Counter[Kind]:
    """The requests of a backfill of a made-up archive below a URL, where nothing is yet."""
    _upload(shape, root)
    requests = _Requests()
    with tempfile.TemporaryDirectory() as work:
        database = str(Path(work) / "index.sqlite")
        with Catalog(database, create=True) as catalog:
            catalog.index(f"{root}/archive")
        request = BackfillRequest(
            f"{root}/candles",
            db=database,
            # The last file of a market is always a shard of its own.
            shard_bytes=len(_TEXT) * shape.files,
            # So no worker begins before Beam does, as on a cluster.
            beam_arguments=("--runner=FnApiRunner", "--direct_num_workers=1"),
        )
        with requests.counting():
            report = run_backfill(request)
    written = sum(outcome.status == WRITTEN for outcome in report.markets)
    if written != shape.markets:
        raise SystemExit(f"{written} markets were written, not {shape.markets}")
    return requests.counted


def _upload(shape: Shape, root: str) -> None:
    storage = storage_of(root)
    for market in range(shape.markets):
        for file in range(shape.market_files):
            name = f"m{market}usdt/2024-01-{file + 1:02d}-00.gz"
            storage.write(f"{root}/archive/RAM/b/BINANCE/{name}", _TEXT)


def put_down(
    count: Callable[[Shape], Mapping[Kind, int]],
) -> dict[Kind, dict[str, float]]:
    """By kind of request: how many there are of it a run, a market, a shard and a file."""
    found = [count(shape) for shape in SHAPES]
    grows = np.array([shape.counts() for shape in SHAPES], float)
    table = {}
    for kind in sorted({kind for counted in found for kind in counted}):
        counts = np.array([counted.get(kind, 0) for counted in found], float)
        answer = np.linalg.lstsq(grows, counts, rcond=None)[0]
        if np.abs(grows @ answer - counts).max() > 0.5:
            raise SystemExit(f"{kind}: {counts.tolist()} does not grow evenly with {SHAPES}")
        each = [round(float(one), 2) + 0.0 for one in answer]
        table[kind] = dict(zip(GROWS_WITH, each, strict=True))
    return table


def request_seconds(root: str) -> float:
    """Seconds of processor time that this process takes for a request: the median of some."""
    storage, path = storage_of(root), f"{root}/one"
    storage.write(path, _TEXT)
    found = []
    for _ in range(TIMED_REQUESTS):
        begun = time.process_time()
        storage.read(path)
        found.append(time.process_time() - begun)
    return median(found)


def measure_requests() -> dict[str, Any]:
    """The table of `put_down` as plain rows, and what a request takes."""
    with _server() as bucket:
        table = put_down(lambda shape: count_requests(shape, f"{bucket}/{SHAPES.index(shape)}"))
        seconds = request_seconds(bucket)
    rows = [
        {"who": who, "operation": operation, "about": about, **each}
        for (who, operation, about), each in table.items()
    ]
    return {"requests": rows, "request_seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.s3_requests", description=__doc__)
    parser.add_argument("--out", type=Path, help="a JSON file for the answer")
    chosen = parser.parse_args()
    found = measure_requests()
    if chosen.out is not None:
        chosen.out.write_text(json.dumps(found, indent=2) + "\n")
    for row in found["requests"]:
        grows = ", ".join(f"{row[name]:g} a {name}" for name in GROWS_WITH if row[name])
        print(f"{row['who']}: {row['operation']} of {row['about']}: {grows}")
    print(f"a request takes {found['request_seconds'] * 1e3:.2f} ms of a core")


if __name__ == "__main__":
    main()
