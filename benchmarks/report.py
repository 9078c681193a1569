"""The table of a benchmark run: medians, ratios, and the figures to reach beside them."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

from benchmarks.cache import Built
from benchmarks.measure import Measured

BACKFILL = "candlebeam backfill"
NOTHING_NEW = "candlebeam backfill, nothing new"
INDEX = "candlebeam index"
INDEX_AGAIN = "candlebeam index, again"
HELP = "candlebeam --help"
DUCKDB = "DuckDB"
POLARS = "Polars"
DECOMPRESS_64K = "decompression alone, 64 KiB pieces"
DECOMPRESS_1M = "decompression alone, 1 MiB pieces"

_READS_ALL = (BACKFILL, DUCKDB, POLARS, DECOMPRESS_64K, DECOMPRESS_1M)

PACKAGES = ("candlebeam", "apache-beam", "numba", "numpy", "isal", "duckdb", "polars")

QUIET = 0.05
"""The share of the cores' time that other programs may take before the report warns of it."""

_MEMORY_LIMIT = 600e6


@dataclass
class Results:
    """What was measured.

    Attributes:
        runs: by data set and row of the table, the counted runs, in the order they were made.
        built: by data set, what it holds.
    """

    cores: int
    runs: dict[tuple[str, str], list[Measured]] = field(default_factory=dict)
    built: dict[str, Built] = field(default_factory=dict)

    def add(self, data: str, row: str, measured: Measured) -> None:
        self.runs.setdefault((data, row), []).append(measured)

    def values(self, data: str, row: str, figure: str = "wall") -> list[float]:
        """One figure of every run of a row; nothing if the row was not measured."""
        return [float(getattr(run, figure)) for run in self.runs.get((data, row), [])]

    def median(self, data: str, row: str, figure: str = "wall") -> float | None:
        """The median of a figure over the runs of a row; None if it was not measured."""
        values = self.values(data, row, figure)
        return median(values) if values else None

    def ratio(self, data: str, row: str, figure: str = "wall") -> float | None:
        """Candlebeam's figure over that of another row, paired run by run: the median."""
        pairs = zip(
            self.values(data, BACKFILL, figure), self.values(data, row, figure), strict=False
        )
        ratios = [mine / theirs for mine, theirs in pairs]
        return median(ratios) if ratios else None


@dataclass(frozen=True)
class Target:
    """A figure that the project set itself to reach."""

    data: str
    what: str
    value: Callable[[Results], float | None]
    limit: float
    form: Callable[[float], str]


def _seconds(value: float) -> str:
    return f"{value:.3g} s"


def _times(value: float) -> str:
    return f"{value:.3g}"


def _megabytes(value: float) -> str:
    return f"{value / 1e6:,.0f} MB"


def _over_decompression(results: Results) -> float | None:
    """Over the quicker of the two ways to decompress, so the ratio is the less flattering one."""
    ratios = [results.ratio("dense", row) for row in (DECOMPRESS_64K, DECOMPRESS_1M)]
    return max((ratio for ratio in ratios if ratio is not None), default=None)


def _peak_growth(results: Results) -> float | None:
    once = results.median("dense", BACKFILL, "peak")
    four_times = results.median("dense4", BACKFILL, "peak")
    return four_times / once if once and four_times else None


TARGETS = (
    Target("dense", "wall / DuckDB's", lambda r: r.ratio("dense", DUCKDB), 0.50, _times),
    Target("dense", "wall / Polars'", lambda r: r.ratio("dense", POLARS), 0.65, _times),
    Target("dense", "wall / decompression alone", _over_decompression, 2.2, _times),
    Target("dense", "the same, where it should end up", _over_decompression, 1.5, _times),
    Target(
        "dense", "peak memory", lambda r: r.median("dense", BACKFILL, "peak"), _MEMORY_LIMIT,
        _megabytes,
    ),
    Target("small", "wall / DuckDB's", lambda r: r.ratio("small", DUCKDB), 0.25, _times),
    Target("small", "nothing new", lambda r: r.median("small", NOTHING_NEW), 1.0, _seconds),
    Target("small", "index", lambda r: r.median("small", INDEX), 0.6, _seconds),
    Target("small", "index, again", lambda r: r.median("small", INDEX_AGAIN), 0.4, _seconds),
    Target("dense4", "peak memory / dense's", _peak_growth, 1.10, _times),
    Target(
        "busy", "peak memory", lambda r: r.median("busy", BACKFILL, "peak"), _MEMORY_LIMIT,
        _megabytes,
    ),
    Target("no data", "--help", lambda r: r.median("no data", HELP), 0.2, _seconds),
)  # fmt: skip


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    rule = ("---", *["---:"] * (len(head) - 1))
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def _measured_rows(results: Results) -> Iterator[tuple[str, ...]]:
    for (data, row), runs in results.runs.items():
        walls = [run.wall for run in runs]
        rate = ratios = ""
        if row in _READS_ALL:
            rate = f"{results.built[data].trades / median(walls) / 1e6:.1f}"
        if row in _READS_ALL and row != BACKFILL:
            found = (results.ratio(data, row), results.ratio(data, row, "cpu"))
            ratios = " / ".join(f"{ratio:.2f}" for ratio in found if ratio is not None)
        yield (
            f"{data}: {row}",
            f"{median(walls):.2f}",
            f"{min(walls):.2f} to {max(walls):.2f}",
            f"{median(run.cpu for run in runs):.2f}",
            f"{median(run.peak for run in runs) / 1e6:,.0f}",
            rate,
            ratios,
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
            f"{data.trades:,}",
            f"{data.candles:,}",
            f"{data.text_bytes / 1e6:,.0f}",
            f"{data.gzip_bytes / 1e6:,.0f}",
        )


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} (not installed)"


def _machine(results: Results) -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return (
        f"{_processor()}, {platform.machine()}, {results.cores} cores used, {memory:.0f} GiB of "
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
run by run, then the median: of the wall clock, and of processor time.

{measured}

## The data

{data}
"""

_TARGET_HEAD = ("figure", "to reach", "measured", "")
_MEASURED_HEAD = ("what", "wall s", "from to", "CPU s", "peak MB", "M trades/s", "ratio wall / CPU")
_DATA_HEAD = ("data set", "files", "trades", "candles", "text MB", "gzip MB")


def render(results: Results) -> str:
    """The report, as Markdown."""
    others = median(run.others for runs in results.runs.values() for run in runs)
    counts = sorted({len(runs) for runs in results.runs.values()}, reverse=True)
    return _REPORT.format(
        day=datetime.now(timezone.utc),
        machine=_machine(results),
        python=platform.python_version(),
        packages=", ".join(map(_version, PACKAGES)),
        counts=" or ".join(map(str, counts)),
        others=others,
        warning=_WARNING if others > QUIET else "",
        targets=_table(_TARGET_HEAD, _target_rows(results)),
        measured=_table(_MEASURED_HEAD, _measured_rows(results)),
        data=_table(_DATA_HEAD, _data_rows(results.built)),
    )
