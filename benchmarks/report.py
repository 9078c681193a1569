"""The table of a benchmark run: medians, ratios, and the figures to reach beside them."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

from benchmarks.cache import Built
from benchmarks.results import Results, Row
from benchmarks.targets import TARGETS

PACKAGES = (
    "candlebeam",
    "apache-beam",
    "numba",
    "numpy",
    "isal",
    "zstandard",
    "databento",
    "databento-dbn",
    "duckdb",
    "pandas",
    "polars",
)

QUIET = 0.05
"""The share of the cores' time that other programs may take before the report warns of it."""


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table; all columns but the first are numbers."""
    rule = ("---", *["---:"] * (len(head) - 1))
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def _ratios(results: Results, data: str, row: Row, *, apart: bool) -> str:
    if not row.against:
        return ""
    found = [
        results.ratio(data, row.against, row.name, figure, apart=apart)
        for figure in ("wall", "cpu")
    ]
    return " / ".join("-" if ratio is None else f"{ratio:.2f}" for ratio in found)


def _measured_rows(results: Results) -> Iterator[tuple[str, ...]]:
    for (data, name), runs in results.runs.items():
        row = results.rows[data, name]
        walls = [run.wall for run in runs]
        rate = f"{results.built[data].rows / median(walls) / 1e6:.1f}" if row.reads_all else ""
        yield (
            f"{data}: {name}",
            f"{median(walls):.2f}",
            f"{min(walls):.2f} to {max(walls):.2f}",
            f"{median(run.cpu for run in runs):.2f}",
            f"{median(run.peak for run in runs) / 1e6:,.0f}",
            rate,
            _ratios(results, data, row, apart=False),
            _ratios(results, data, row, apart=True) if (data, name) in results.starts else "",
        )


def _start_rows(results: Results) -> Iterator[tuple[str, ...]]:
    for (data, name), runs in results.starts.items():
        yield (
            f"{data}: {name}",
            f"{median(run.wall for run in runs):.2f}",
            f"{median(run.cpu for run in runs):.2f}",
            f"{median(run.peak for run in runs) / 1e6:,.0f}",
        )


def _target_rows(results: Results) -> Iterator[tuple[str, ...]]:
    for target in TARGETS:
        value = target.value(results)
        limit = f"at most {target.form(target.limit)}"
        if value is None:
            yield f"{target.data}: {target.what}", limit, "", "not measured"
        else:
            verdict = "reached" if value <= target.limit else "**missed**"
            yield f"{target.data}: {target.what}", limit, target.form(value), verdict


def _data_rows(built: Mapping[str, Built]) -> Iterator[tuple[str, ...]]:
    for name, data in built.items():
        yield (
            name,
            f"{data.files:,}",
            f"{data.rows:,}",
            f"{data.candles:,}",
            f"{data.bytes / 1e6:,.0f}",
            f"{data.packed_bytes / 1e6:,.0f}" if data.packed_bytes else "",
        )


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()


def package_version(package: str) -> str:
    """Its name and version."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} (not installed)"


def machine(cores: int) -> str:
    """What all of this ran on, of which so many cores."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return (
        f"{_processor()}, {platform.machine()}, {cores} cores used, {memory:.0f} GiB of "
        f"memory, {platform.system()} {platform.release().split('-')[0]}"
    )


_WARNING = (
    ". **The machine was not quiet: no verdict on a wall clock below can be relied on; ratios of "
    "processor time can**"
)

_REPORT = """\
# Benchmark results

Written by `make bench BENCH_ARGS=--write`; README.md beside this file says how it is measured.

- When: {day:%Y-%m-%d} (UTC)
- Machine: {machine}
- Python {python}; {packages}
- Counted runs of each row: {counts}, after one that is not counted
- Other programs meanwhile: {others:.0%} of the cores' time in the median run{warning}

## The figures to reach

{targets}

## Everything measured

Seconds and megabytes are medians over whole processes. A ratio is candlebeam's time over the row's,
run by run, then the median: of the wall clock, and of processor time. In the last column each side
has its start taken off: the median of what it takes on next to nothing.

{measured}
{starts}
## The data

{data}
"""

_STARTS = """
## Starts

The same commands on next to nothing of the same kind.

{starts}
"""

_TARGET_HEAD = ("figure", "to reach", "measured", "")
_MEASURED_HEAD = (
    "what", "wall s", "from to", "CPU s", "peak MB", "M rows/s", "ratio wall / CPU", "starts off",
)  # fmt: skip
_START_HEAD = ("what", "wall s", "CPU s", "peak MB")
_DATA_HEAD = ("data set", "files", "rows", "candles", "plain MB", "packed MB")


def render(results: Results) -> str:
    """The report, as Markdown."""
    others = median(run.others for run in results.all_runs())
    starts = table(_START_HEAD, _start_rows(results))
    counts = sorted({len(runs) for runs in results.runs.values()}, reverse=True)
    return _REPORT.format(
        day=datetime.now(timezone.utc),
        machine=machine(results.cores),
        python=platform.python_version(),
        packages=", ".join(map(package_version, PACKAGES)),
        counts=" or ".join(map(str, counts)),
        others=others,
        warning=_WARNING if others > QUIET else "",
        targets=table(_TARGET_HEAD, _target_rows(results)),
        measured=table(_MEASURED_HEAD, _measured_rows(results)),
        starts=_STARTS.format(starts=starts) if results.starts else "",
        data=table(_DATA_HEAD, _data_rows(results.built)),
    )
