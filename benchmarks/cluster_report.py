"""The report of `benchmarks.cluster`, as Markdown."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from datetime import datetime, timezone

from benchmarks.cluster_results import MANY_SHARDS, TINY, ClusterResults
from benchmarks.cluster_runs import (
    EMBEDDED,
    KINDS,
    ONE_SLOT,
    PLAIN,
    TWO_APART,
    TWO_TOGETHER,
    JobTimes,
)
from benchmarks.plan_scale import MOST_GRAPH, MOST_MEMORY, MOST_SECONDS
from benchmarks.report import QUIET, machine, package_version, table

MOST_EMBEDDED, LEAST_FASTER = 1.5, 1.8

_MOMENTS: tuple[tuple[str, Callable[[JobTimes], float]], ...] = (
    ("submitted", lambda job: job.submitted),
    ("a worker is there", lambda job: job.workers),
    ("all chunks", lambda job: job.staged),
    ("all committed", lambda job: job.committed),
)

_REPORT = """\
# Clusters: benchmark results

Written by `make bench-cluster BENCH_ARGS=--write`; README.md beside this file says how it is
measured, docs/scale.md what follows from it.

- {about}
- Python {python}; {packages}
- Counted runs of each way: {turns}, after one that is not counted
- Other programs meanwhile: {others:.0%} of the cores' time in the median run{warning}
"""

_WARNING = ". **The machine was not quiet: no verdict on a wall clock below can be relied on**"


def about(results: ClusterResults) -> str:
    """When, and on what."""
    day = datetime.now(timezone.utc)
    return f"{day:%Y-%m-%d} (UTC), {machine(results.cores)}"


def render(results: ClusterResults) -> str:
    """The report."""
    others = results.others()
    head = _REPORT.format(
        about=about(results),
        python=platform.python_version(),
        packages=", ".join(map(package_version, ("candlebeam", "apache-beam", "numba", "numpy"))),
        turns=max(map(len, results.runs.values()), default=0),
        others=others,
        warning=_WARNING if others > QUIET else "",
    )
    sections = [
        ("The figures to reach", _targets(results)),
        ("Times", _times(results) if results.runs else ""),
        ("Where the processor time goes", _processor_time(results) if results.runs else ""),
        ("How a job goes", _phases(results)),
        ("Memory", _memory(results) if results.runs else ""),
        ("Planning", _planning(results)),
        ("What one core does", _rates(results) if results.rates else ""),
        ("What an object store is asked", _requests(results) if results.requests else ""),
    ]
    return head + "".join(f"\n## {title}\n\n{text}\n" for title, text in sections if text)


def _sets(results: ClusterResults) -> list[str]:
    return [name for name in dict.fromkeys(data for data, _ in results.runs) if name != TINY]


def _targets(results: ClusterResults) -> str:
    rows = []

    def add(what: str, limit: str, value: float | None, form: str, reached: bool) -> None:
        if value is not None:
            verdict = "reached" if reached else "**missed**"
            rows.append((what, limit, form.format(value), verdict))

    for data in [name for name in _sets(results) if name != MANY_SHARDS]:
        for what, slower in (
            ("its longer start taken off", results.slower(data, EMBEDDED, PLAIN)),
            ("whole processes", results.ratio(data, EMBEDDED, PLAIN, apart=False)),
        ):
            limit = f"at most {MOST_EMBEDDED}"
            name = f"{data}: embedded Flink / in process, {what}"
            add(name, limit, slower, "{:.2f}", (slower or 0) <= MOST_EMBEDDED)
        for way in (TWO_APART, TWO_TOGETHER):
            for what, apart in (("starts taken off", True), ("whole processes", False)):
                faster = results.ratio(data, ONE_SLOT, way, apart=apart)
                name = f"{data}: 1 slot / {way.partition(', ')[2]}, {what}"
                limit = f"at least {LEAST_FASTER}"
                add(name, limit, faster, "{:.2f}", (faster or 0) >= LEAST_FASTER)
    for planned in results.planning.values():
        what = "plan and graph of 12 million files"
        add(what, f"at most {MOST_SECONDS:.0f} s", planned.wall, "{:.1f} s",
            planned.wall <= MOST_SECONDS)  # fmt: skip
        add("its graph", f"at most {MOST_GRAPH >> 10:,} KiB", planned.graph_bytes / 1024,
            "{:,.0f} KiB", planned.graph_bytes <= MOST_GRAPH)  # fmt: skip
        add("memory of its driver", f"at most {MOST_MEMORY >> 20:,} MiB", planned.peak / (1 << 20),
            "{:,.0f} MiB", planned.peak <= MOST_MEMORY)  # fmt: skip
    return table(("figure", "to reach", "measured", ""), rows)


def _times(results: ClusterResults) -> str:
    def rows() -> Iterator[tuple[str, ...]]:
        for data in _sets(results):
            for name, way in results.runs:
                if name != data:
                    continue
                runs = results.runs[data, way]
                walls = [run.wall for run in runs]
                wall, start = results.wall(data, way), results.wall(TINY, way)
                cpu = results.median(data, way, lambda run: run.cpu)
                yield (
                    f"{data}: {way}",
                    f"{wall:.2f}",
                    f"{min(walls):.2f} to {max(walls):.2f}",
                    f"{start:.2f}" if start is not None else "",
                    f"{wall - start:.2f}" if start is not None and wall is not None else "",
                    f"{cpu:.2f}",
                )

    head = ("what", "wall s", "from to", "start s", "start off", "CPU s")
    text = (
        "Medians over whole processes. The start is the same command on next to nothing. Processor "
        "time is that of everything that worked for it, the cluster's processes included.\n\n"
    )
    return text + table(head, rows())


def _processor_time(results: ClusterResults) -> str:
    def rows() -> Iterator[tuple[str, ...]]:
        for data, way in results.runs:
            found = [results.cpu(data, way, kind) or 0.0 for kind in KINDS]
            yield (f"{data}: {way}", *(f"{cpu:.2f}" if cpu else "" for cpu in found))

    text = "Seconds, medians. In process and embedded, the driver does the work itself.\n\n"
    return text + table(("what", *KINDS), rows())


def _phases(results: ClusterResults) -> str:
    def rows() -> Iterator[tuple[str, ...]]:
        for data, way in results.runs:
            found = [results.phase(data, way, moment) for _, moment in _MOMENTS]
            if None not in found:
                yield (
                    f"{data}: {way}",
                    *(f"{each:.1f}" for each in found),
                    f"{results.wall(data, way):.1f}",
                )

    lines = list(rows())
    if not lines:
        return ""
    head = ("what", *(name for name, _ in _MOMENTS), "command ended")
    return "Seconds since the command began, medians.\n\n" + table(head, lines)


def _memory(results: ClusterResults) -> str:
    def rows() -> Iterator[tuple[str, ...]]:
        for data, way in results.runs:
            found = [results.peak(data, way, kind) or 0.0 for kind in KINDS]
            yield (f"{data}: {way}", *(f"{peak / 1e6:,.0f}" if peak else "" for peak in found))

    text = "MB (RSS) that one process of the kind held at most, medians.\n\n"
    return text + table(("what", *KINDS), rows())


def _planning(results: ClusterResults) -> str:
    if not results.planning:
        return ""
    rows = [
        (
            name,
            f"{one.wall:.1f}",
            f"{one.cpu:.1f}",
            f"{one.peak / (1 << 20):.0f}",
            f"{one.markets:,}",
            f"{one.shards:,}",
            f"{one.manifests:,}",
            f"{one.graph_bytes:,}",
            f"{one.others:.0%}",
        )
        for name, one in results.planning.items()
    ]
    head = (
        "plan", "wall s", "CPU s", "peak MiB", "markets", "shards", "manifests", "graph bytes",
        "other programs",
    )  # fmt: skip
    return "12 million made-up files (`benchmarks.plan_scale`).\n\n" + table(head, rows)


def _rates(results: ClusterResults) -> str:
    walks, costs = results.rates["walks"], results.rates["costs"]
    steps, parts = list(costs), list(results.rates["parts"])
    done = []
    for walk in walks:
        counts, seconds = walk["counts"], walk["seconds"]
        fitted = sum(each * counts[name] for step in costs.values() for name, each in step.items())
        total = sum(seconds[step] for step in steps)
        done.append(
            (
                f"{walk['data']}, {counts['shards']:,} shards, {counts['candles']:,} candles",
                *(f"{seconds[step]:.2f}" for step in (*parts, *steps)),
                f"{total:.2f}",
                f"{fitted:.2f}",
                f"{walk['waited']:.2f}",
                f"{counts['bytes'] / total / 1e6:.1f}",
                f"{counts['trades'] / total / 1e6:.2f}",
            )
        )
    head = (
        "what", *(f"{step} s" for step in (*parts, *steps)), "all s", "as fitted s",
        "disk s", "packed MB/s", "M trades/s",
    )  # fmt: skip
    grown = {**results.rates["parts"], **costs}
    names = list(dict.fromkeys(name for step in grown.values() for name in step))
    each = [
        (
            step,
            *(f"{cost[name] * 1e6:,.3g}" if name in cost else "" for name in names),
        )
        for step, cost in grown.items()
    ]
    return (
        "Seconds of processor time in one process on one core (`benchmarks.core_rates`): "
        "decompression, by itself once more and not in the sum; finding out what is done, reading "
        "(with decompression), making candles, staging, committing. "
        "Disk is what committing, one market at a time, waits for beyond that.\n\n"
        f"{table(head, done)}\n\n"
        "Put down to what they grow with, in microseconds each:\n\n"
        f"{table(('step', *(f'a {_singular(name)}' for name in names)), each)}"
    )


def _singular(name: str) -> str:
    return name.removesuffix("s")


def _requests(results: ClusterResults) -> str:
    grows = ("run", "market", "shard", "file")
    rows = [
        (
            f"{row['who']}: {row['operation']} of {row['about']}",
            *(f"{row[name]:g}" if row[name] else "" for name in grows),
        )
        for row in results.requests["requests"]
    ]
    text = (
        "Requests of a backfill from and to S3 (`benchmarks.s3_requests`). One takes "
        f"{results.requests['request_seconds'] * 1e3:.2f} ms of a core.\n\n"
    )
    return text + table(("who, request", *(f"a {name}" for name in grows)), rows)
