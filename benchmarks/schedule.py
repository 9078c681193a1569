"""How a backfill of 4 TB in 12 million files is spread over the slots of a cluster: a simulation.

The archive is that of `made_up_catalog`, the rates are those that `make bench-cluster` has measured
last, the slots are cores of that machine, all alike. Flink gives every shard to a slot beforehand
and moves none; beside it stands what it would be if shards went to whoever is free.

With --update the tables are written into a document, each between `<!-- schedule: NAME -->` and
`<!-- end -->`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from benchmarks.made_up_catalog import BYTES, FILES, MARKETS, MadeUpMarket, market_sizes
from benchmarks.report import table
from benchmarks.schedule_model import (
    COMMITTED_AT_ONCE,
    FETCHED_AT_ONCE,
    Rates,
    Schedule,
    Shards,
    Store,
    commit_seconds,
    cut_archive,
    reading_seconds,
    schedule,
)

SLOTS = (1, 16, 64)
SWEPT_SLOTS = (4, 16, 64, 256)
SHARD_MIB = (2, 8, 32, 128)
USUAL_MIB = 8
LATENCIES = (0.01, 0.03, 0.1)
_RECORD_BYTES = 56

_STEPS = {
    "find": "finding out what is done",
    "decompress": "opening and decompressing files",
    "read": "parsing",
    "candles": "corrections, candles",
    "stage": "staging chunks",
}


@dataclass(frozen=True, eq=False)
class Archive:
    """The made-up archive, and what its parts take."""

    files: int
    rates: Rates

    @cached_property
    def markets(self) -> list[MadeUpMarket]:
        """Fewer files are fewer markets, of the same kind."""
        share = self.files / FILES
        return market_sizes(self.files, max(round(MARKETS * share), 1), round(BYTES * share))

    @lru_cache  # noqa: B019  one archive lives as long as the program
    def cut(self, mib: int) -> Shards:
        """Its shards."""
        return cut_archive(self.markets, mib << 20, self.rates.bytes_per_trade)

    def run(self, slots: int, mib: int = USUAL_MIB, latency: float = 0.0) -> Schedule:
        """A run."""
        return schedule(self.cut(mib), self.rates, slots, Store(latency))


def _time(seconds: float) -> str:
    if seconds < 99.5:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5990 else f"{seconds / 3600:.1f} h"


def inputs_table(archive: Archive) -> str:
    """What the model goes on from."""
    rates = archive.rates
    shards = archive.cut(USUAL_MIB)
    candles, records = shards.candles.sum(), shards.records.sum()
    in_files = shards.bytes.sum()
    rows = [
        ("measured on", rates.about),
        ("files, markets", f"{archive.files:,}, {len(shards.names):,}"),
        ("packed bytes", f"{in_files / 1e12:.2f} TB"),
        ("packed bytes a trade", f"{rates.bytes_per_trade:.1f}"),
        ("trades", f"{shards.trades.sum() / 1e9:,.0f} billion"),
        ("candles with trades, with gaps", f"{candles / 1e9:.2f}, {records / 1e9:.2f} billion"),
        (f"shards of {USUAL_MIB} MiB", f"{len(shards):,} in {shards.manifest[-1] + 1:,} manifests"),
        ("chunks on the way", f"{candles * rates.bytes_per_candle / 1e9:,.0f} GB"),
        ("candle files", f"{records * _RECORD_BYTES / 1e9:,.0f} GB"),
        ("a worker's time in a job, over that in one process", f"{rates.in_a_job:.2f}"),
        ("what the runner adds to a shard", f"{rates.shard_in_job * 1e3:.2f} ms"),
        ("Java beside a worker", f"{rates.java:.0%} of its processor time"),
        ("memory of a worker", f"{rates.worker_peak / 1e6:,.0f} MB"),
        ("planning; a job with nothing to do", f"{_time(rates.plan)}; {_time(rates.start)}"),
    ]
    return table(("", ""), rows)


def steps_table(archive: Archive) -> str:
    """Hours of one core by step."""
    shards, rates = archive.cut(USUAL_MIB), archive.rates
    counts = {
        "shards": np.ones(len(shards)),
        "files": shards.files,
        "trades": shards.trades,
        "candles": shards.candles,
        "bytes": shards.bytes,
    }
    seconds = {what: rates.seconds(step, counts).sum() for step, what in _STEPS.items()}
    seconds[_STEPS["read"]] -= seconds[_STEPS["decompress"]]
    seconds["the runner, shard by shard"] = rates.shard_in_job * len(shards)
    seconds["committing"] = commit_seconds(shards, rates, Store()).sum()
    total = sum(seconds.values())
    rows = [(what, f"{each / 3600:.2f}", f"{each / total:.1%}") for what, each in seconds.items()]
    rate = shards.bytes.sum() / total / 1e6
    rows.append((f"all: {rate:.0f} MB/s of packed files", f"{total / 3600:.2f}", ""))
    return table(("step", "hours of a core", "share"), rows)


def runs_table(archive: Archive) -> str:
    """A run on few slots and on many."""
    size = archive.cut(USUAL_MIB).bytes.sum()

    def rows() -> Iterator[tuple[str, ...]]:
        for slots in SLOTS:
            run = archive.run(slots)
            reading, committing = run.reading, run.committing
            yield (
                f"{slots}",
                _time(run.before),
                _time(reading.makespan),
                f"{reading.makespan / (reading.total / slots) - 1:.1%}",
                _time(committing.makespan),
                f"{committing.makespan / (committing.total / slots) - 1:.0%}",
                _time(run.seconds),
                f"{run.utilisation:.0%}",
                f"{size / reading.makespan / 1e6:,.0f} MB/s",
            )

    head = (
        "slots", "plan and start", "reading", "slowest slot over the mean", "committing",
        "slowest slot over the mean", "whole run", "slots at work", "archive read at",
    )  # fmt: skip
    return table(head, rows())


def shard_sizes_table(archive: Archive) -> str:
    """What the size of shards does."""

    def rows() -> Iterator[tuple[str, ...]]:
        for mib in SHARD_MIB:
            shards = archive.cut(mib)
            for slots in SWEPT_SLOTS:
                run = archive.run(slots, mib)
                reading = run.reading
                assert reading.greedy is not None
                yield (
                    f"{mib} MiB, {slots} slots",
                    f"{len(shards) / slots:,.0f}",
                    _time(reading.longest),
                    _time(reading.makespan),
                    f"{reading.utilisation:.1%}",
                    _time(reading.greedy),
                    _time(run.committing.makespan),
                    _time(run.seconds),
                )

    head = (
        "shards of", "shards a slot", "longest shard", "reading", "slots at work while reading",
        "if whoever is free took the next", "committing", "whole run",
    )  # fmt: skip
    return table(head, rows())


def skew_table(archive: Archive) -> str:
    """The largest markets, and what they do to committing."""
    shards = archive.cut(USUAL_MIB)
    sizes = np.bincount(shards.market, weights=shards.bytes)
    read = np.bincount(shards.market, weights=reading_seconds(shards, archive.rates, Store()))
    commit = commit_seconds(shards, archive.rates, Store())
    chunks = np.bincount(shards.market)
    largest = np.argsort(sizes)[::-1]

    def row(what: str, chosen: np.ndarray) -> tuple[str, ...]:
        return (
            what,
            f"{sizes[chosen].sum() / sizes.sum():.1%}",
            f"{chunks[chosen].sum():,}",
            _time(float(read[chosen].sum())),
            _time(float(commit[chosen].max())),
        )

    some = [number for number in (1, 10, 100, 1000) if number < len(largest)]
    rows = [row(f"the largest {n if n > 1 else 'market'}", largest[:n]) for n in some]
    rows.append(row("all", largest))
    head = ("markets", "of all bytes", "shards", "reading, one core", "longest commit of one")
    return table(head, rows)


def object_store_table(archive: Archive) -> str:
    """The same with answers that are waited for; how long is an assumption."""

    def rows() -> Iterator[tuple[str, ...]]:
        for mib in SHARD_MIB:
            times = [archive.run(64, mib, latency) for latency in (0.0, *LATENCIES)]
            yield (f"{mib} MiB", *(_time(run.seconds) for run in times))

    head = (
        "64 slots, shards of", "file system", *(f"{each * 1e3:.0f} ms" for each in LATENCIES),
    )  # fmt: skip
    asked = archive.rates.asked
    text = (
        f"A worker makes {asked('file'):g} request a file ({FETCHED_AT_ONCE} of them at a time), "
        f"{asked('shard') - 1:g} a shard and 1 more when it is committed, {asked('market'):g} a "
        f"market ({COMMITTED_AT_ONCE} markets at a time); every slot reads every manifest. "
        f"Each takes {archive.rates.request_seconds * 1e3:.1f} ms of a core; how long its answer "
        "takes stands above the column.\n\n"
    )
    return text + table(head, rows())


TABLES: dict[str, Callable[[Archive], str]] = {
    "inputs": inputs_table,
    "steps": steps_table,
    "runs": runs_table,
    "skew": skew_table,
    "shard sizes": shard_sizes_table,
    "object store": object_store_table,
}


def updated(document: str, archive: Archive) -> str:
    """A document with its tables written anew."""
    for name, make in TABLES.items():
        block = re.compile(rf"(<!-- schedule: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        found = block.search(document)
        if found is None:
            raise SystemExit(f"no place for the table {name!r}: expected <!-- schedule: {name} -->")
        whole = f"{found[1]}{make(archive)}\n{found[2]}"
        document = document[: found.start()] + whole + document[found.end() :]
    return document


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.schedule",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--files", type=int, default=FILES, help="of the archive")
    parser.add_argument("--rates", type=Path, help="another file than cluster_rates.json")
    parser.add_argument("--only", nargs="+", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--update", type=Path, help="a document to write the tables into")
    chosen = parser.parse_args(arguments)
    archive = Archive(chosen.files, Rates.read(chosen.rates) if chosen.rates else Rates.read())
    if chosen.update is not None:
        chosen.update.write_text(updated(chosen.update.read_text(), archive))
        return
    for name in chosen.only:
        print(f"## {name}\n\n{TABLES[name](archive)}\n")


if __name__ == "__main__":
    main()
