"""Time candlebeam beside its peers, as whole processes, and print the table.

The rows of a data set take turns, so that a machine that grows slower or busier meanwhile does so
for all of them alike. What candlebeam, DuckDB and Polars made is compared before anything is
counted: a row that did less work than another ends the benchmark.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks import report
from benchmarks.benches import CORES, Bench, bench, candlebeam, module
from benchmarks.cache import FULL, NAMES, USUAL, Built, cache_folder, use_scale
from benchmarks.measure import Measured, measure, timed_environment
from benchmarks.results import HELP, Results, Row

LARGE_RUNS = 3
"""Counted runs at most of a data set that is there for its memory alone."""


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _time(data: str, row: Row, what: str = "") -> Measured:
    if row.makes:
        _remove(row.makes)
    measured = measure(row.command)
    _say(
        f"{data}: {row.name}{what}: {measured.wall:.2f} s, {measured.cpu:.2f} s of CPU, "
        f"{measured.peak / 1e6:.0f} MB, other programs {measured.others:.0%}"
    )
    return measured


def _time_both(data: str, row: Row) -> tuple[Measured, Measured | None]:
    """A run, and one of its start."""
    run = _time(data, row)
    return run, _time(data, row.start, ", its start") if row.start else None


def _content(out: Path) -> dict[str, float]:
    done = subprocess.run(
        module("outputs", out), check=True, capture_output=True, env=timed_environment()
    )
    content: dict[str, float] = json.loads(done.stdout)
    return content


def check_equal(contents: Mapping[str, Mapping[str, float]], built: Mapping[str, float]) -> None:
    """Hold what every row made against the archive, and where that says nothing, the others.

    Counts must be equal. Sums of prices and volumes may differ by what rounding does.

    Args:
        contents: by row, what its output comes to; all of the same work.
        built: what is known of the archive.

    Raises:
        SystemExit: something differs.
    """
    first = next(iter(contents.values()))
    for name, content in contents.items():
        if content.keys() != first.keys():
            raise SystemExit(f"{name} made {', '.join(content)}; it should be {', '.join(first)}")
        for what, value in content.items():
            wanted = built.get(what, first[what])
            if abs(value - wanted) > (0 if isinstance(value, int) else 1e-7 * abs(wanted)):
                raise SystemExit(f"{name} has {what} {value:,}; it should be {wanted:,}")


def _check_outputs(rows: Iterable[Row], built: Built) -> None:
    groups: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows:
        if row.output:
            group = groups.setdefault(row.against or row.name, {})
            group[row.name] = _content(row.output)
    for contents in groups.values():
        check_equal(contents, {"candles": built.candles, **built.sums})


def _run_set(bench: Bench, turns: int, results: Results) -> None:
    bench.prepare()
    built = results.built[bench.data] = bench.built
    rows = bench.rows()
    _say(f"{bench.data}: once, not counted")
    for row in rows:
        _time_both(bench.data, row)
    _check_outputs(rows, built)
    _check_outputs([row.start for row in rows if row.start], bench.built_tiny)
    if bench.for_memory:
        turns = min(turns, LARGE_RUNS)
    for turn in range(turns):
        _say(f"{bench.data}: {turn + 1} of {turns}")
        for row in rows:
            results.add(bench.data, row, *_time_both(bench.data, row))
    _remove(bench.work)


def run(sets: Sequence[str], turns: int) -> Results:
    """Time every row of these data sets `turns` times, and `candlebeam --help`."""
    results = Results(_use_cores(CORES))
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="work-", dir=cache_folder()) as work:
        for data in sets:
            _run_set(bench(data, Path(work)), turns, results)
    help_row = Row(HELP, candlebeam("--help"))
    _time("no data", help_row)
    for _ in range(turns):
        results.add("no data", help_row, _time("no data", help_row))
    return results


def _use_cores(count: int) -> int:
    """Keep this process and those it starts on so many cores."""
    chosen = sorted(os.sched_getaffinity(0))[:count]
    os.sched_setaffinity(0, chosen)
    return len(chosen)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument(
        "--only", "--sets", nargs="+", default=list(USUAL), metavar="NAME",
        help=f"some of {', '.join(NAMES)}",
    )  # fmt: skip
    parser.add_argument(
        "--full", action="store_true", help="those for memory alone as well: 3 GB more of disk"
    )
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each row")
    parser.add_argument(
        "--scale", type=float, default=1.0,
        help="data sets of that share of their sizes, to try something",
    )  # fmt: skip
    parser.add_argument("--write", action="store_true", help="write benchmarks/RESULTS.md")
    chosen = parser.parse_args()
    names = [name for names in chosen.only for name in names.split(",")]
    sets = list(dict.fromkeys([*names, *(FULL if chosen.full else [])]))
    unknown = [name for name in sets if name not in NAMES]
    if unknown:
        parser.error(f"no data set {unknown[0]!r}; there are {', '.join(NAMES)}")
    if chosen.runs < 1:
        parser.error("--runs must be 1 or more")
    if not 0 < chosen.scale <= 1:
        parser.error("--scale must be above 0 and at most 1")
    if chosen.write and chosen.scale != 1:
        parser.error("--write and --scale: results are those of the whole data sets")
    use_scale(chosen.scale)
    text = report.render(run(sets, chosen.runs))
    print(text)
    if chosen.write:
        Path(__file__).with_name("RESULTS.md").write_text(text)


if __name__ == "__main__":
    main()
