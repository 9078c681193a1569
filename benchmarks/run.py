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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import report
from benchmarks.cache import NAMES, Built, cache_folder, read_built
from benchmarks.measure import Measured, measure, timed_environment
from benchmarks.report import Results

CORES = 2
PEER_PIECES = {report.DECOMPRESS_64K: 64 << 10, report.DECOMPRESS_1M: 1 << 20}
LARGE_RUNS = 3
"""Counted runs at most of a data set that is there for its memory alone."""


@dataclass(frozen=True)
class Row:
    """A command to time, and what it makes, which is removed before each run."""

    name: str
    command: tuple[str, ...]
    makes: Path | None = None
    output: Path | None = None
    """Candles to be compared with those of the other rows."""


def _candlebeam(*arguments: object) -> tuple[str, ...]:
    return (str(Path(sys.executable).with_name("candlebeam")), *map(str, arguments))


def _module(name: str, *arguments: object) -> tuple[str, ...]:
    return (sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class Bench:
    """The rows of one data set, and a folder for what they make."""

    def __init__(self, data: str, work: Path) -> None:
        self.data = data
        self.root = cache_folder() / data
        self.work = work / data
        self.database = self.work / "index.sqlite"

    def prepare(self) -> None:
        """Build the archive and index it."""
        subprocess.run(_module("datasets", self.data), check=True, stdout=subprocess.DEVNULL)
        self.work.mkdir()
        measure(_candlebeam("index", self.root, "--db", self.database))

    def rows(self) -> Iterator[Row]:
        """What is timed, in the order of the table."""
        yield self._backfill()
        if self.data in ("dense", "small"):
            yield self._peer(report.DUCKDB, "duckdb")
            yield self._peer(report.POLARS, "polars")
        if self.data != "dense4":
            for name, piece in PEER_PIECES.items():
                command = ("decompress", self.root, "--threads", CORES, "--piece", piece)
                yield Row(name, _module("peers", *command))
        if self.data == "small":
            # The backfill above, the first row of each turn, has left its output.
            again = self._backfill()
            yield Row(report.NOTHING_NEW, again.command)
            fresh = self.work / "fresh.sqlite"
            yield Row(report.INDEX, _candlebeam("index", self.root, "--db", fresh), makes=fresh)
            yield Row(report.INDEX_AGAIN, _candlebeam("index", self.root, "--db", self.database))

    def _backfill(self) -> Row:
        out = self.work / "candles"
        command = _candlebeam("backfill", "--db", self.database, "--out", out)
        return Row(report.BACKFILL, command, makes=out, output=out)

    def _peer(self, name: str, what: str) -> Row:
        out = self.work / what
        command = _module("peers", what, self.root, "--out", out, "--threads", CORES)
        return Row(name, command, makes=out, output=out)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _time(data: str, row: Row) -> Measured:
    if row.makes:
        _remove(row.makes)
    measured = measure(row.command)
    _say(
        f"{data}: {row.name}: {measured.wall:.2f} s, {measured.cpu:.2f} s of CPU, "
        f"{measured.peak / 1e6:.0f} MB, other programs {measured.others:.0%}"
    )
    return measured


def _content(out: Path) -> dict[str, float]:
    done = subprocess.run(
        _module("outputs", out), check=True, capture_output=True, env=timed_environment()
    )
    content: dict[str, float] = json.loads(done.stdout)
    return content


def check_equal(contents: dict[str, dict[str, float]], built: Built) -> None:
    """Hold what every row made against the others and against the archive.

    Counts must be equal. Sums of prices and volumes may differ by what rounding does.

    Raises:
        SystemExit: something differs.
    """
    names = list(contents)
    for name in names:
        for what, value in contents[name].items():
            wanted = built.candles if what == "candles" else contents[names[0]][what]
            if abs(value - wanted) > (0 if isinstance(value, int) else 1e-7 * abs(wanted)):
                raise SystemExit(f"{name} has {what} {value:,}; it should be {wanted:,}")


def _run_set(bench: Bench, turns: int, results: Results) -> None:
    bench.prepare()
    built = read_built(bench.data)
    if built is None:
        raise SystemExit(f"{bench.data} was not built")
    results.built[bench.data] = built
    rows = list(bench.rows())
    _say(f"{bench.data}: once, not counted")
    for row in rows:
        _time(bench.data, row)
    check_equal({row.name: _content(row.output) for row in rows if row.output}, built)
    if bench.data not in ("dense", "small"):
        turns = min(turns, LARGE_RUNS)
    for turn in range(turns):
        _say(f"{bench.data}: {turn + 1} of {turns}")
        for row in rows:
            results.add(bench.data, row.name, _time(bench.data, row))
    _remove(bench.work)


def run(sets: Sequence[str], turns: int) -> Results:
    """Time every row of these data sets `turns` times, and `candlebeam --help`."""
    results = Results(_use_cores(CORES))
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="work-", dir=cache_folder()) as work:
        for data in sets:
            _run_set(Bench(data, Path(work)), turns, results)
    help_row = Row(report.HELP, _candlebeam("--help"))
    _time("no data", help_row)
    for _ in range(turns):
        results.add("no data", help_row.name, _time("no data", help_row))
    return results


def _use_cores(count: int) -> int:
    """Keep this process and those it starts on so many cores."""
    chosen = sorted(os.sched_getaffinity(0))[:count]
    os.sched_setaffinity(0, chosen)
    return len(chosen)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument(
        "--sets", default="dense,small,busy", help=f"some of {','.join(NAMES)}",
        metavar="SETS",
    )  # fmt: skip
    parser.add_argument("--full", action="store_true", help="dense4 as well: 3 GB more of disk")
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each row")
    parser.add_argument("--write", action="store_true", help="write benchmarks/RESULTS.md")
    chosen = parser.parse_args()
    sets = [*chosen.sets.split(","), *(["dense4"] if chosen.full else [])]
    unknown = [name for name in sets if name not in NAMES]
    if unknown:
        parser.error(f"no data set {unknown[0]!r}; there are {', '.join(NAMES)}")
    if chosen.runs < 1:
        parser.error("--runs must be 1 or more")
    text = report.render(run(sets, chosen.runs))
    print(text)
    if chosen.write:
        Path(__file__).with_name("RESULTS.md").write_text(text)


if __name__ == "__main__":
    main()
