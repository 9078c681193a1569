"""What is timed, and what was measured of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.cache import Built
from benchmarks.measure import Measured

BACKFILL = "candlebeam backfill"
NOTHING_NEW = "candlebeam backfill, nothing new"
INDEX = "candlebeam index"
INDEX_AGAIN = "candlebeam index, again"
HELP = "candlebeam --help"
RESAMPLE = "candlebeam resample"
ALIGN = "candlebeam align"
DUCKDB = "DuckDB"
POLARS = "Polars"
PANDAS = "pandas"
DECOMPRESS_64K = "decompression alone, 64 KiB pieces"
DECOMPRESS_1M = "decompression alone, 1 MiB pieces"
ZSTD_DAYS = "zstandard alone, whole days"
ZSTD_PIECES = "zstandard alone, 1 MiB pieces"
DATABENTO = "DBNStore.to_ndarray in chunks"
COPY = "plain copy with fsync"


@dataclass(frozen=True)
class Row:
    """A command to time.

    Attributes:
        makes: what it makes, which is removed before each run.
        output: what of it is compared with what other rows made.
        against: the row of candlebeam that this one stands beside.
        reads_all: whether it goes over all rows of the data set.
        start: the same command on next to nothing.
    """

    name: str
    command: tuple[str, ...]
    makes: Path | None = None
    output: Path | None = None
    against: str = ""
    reads_all: bool = False
    start: Row | None = None


@dataclass
class Results:
    """What was measured.

    Attributes:
        rows: by data set and name, in the order of the table.
        runs: by data set and row, the counted runs, in the order they were made.
        starts: the same of their starts.
        built: by data set, what it holds.
    """

    cores: int
    rows: dict[tuple[str, str], Row] = field(default_factory=dict)
    runs: dict[tuple[str, str], list[Measured]] = field(default_factory=dict)
    starts: dict[tuple[str, str], list[Measured]] = field(default_factory=dict)
    built: dict[str, Built] = field(default_factory=dict)

    def add(self, data: str, row: Row, run: Measured, start: Measured | None = None) -> None:
        self.rows[data, row.name] = row
        self.runs.setdefault((data, row.name), []).append(run)
        if start is not None:
            self.starts.setdefault((data, row.name), []).append(start)

    def all_runs(self) -> Iterator[Measured]:
        """Every counted run."""
        for kept in (self.runs, self.starts):
            for runs in kept.values():
                yield from runs

    def median(self, data: str, row: str, figure: str = "wall") -> float | None:
        """The median of a figure over the runs of a row; None if it was not measured."""
        values = self._values(data, row, figure, apart=False)
        return median(values) if values else None

    def ratio(
        self, data: str, mine: str, theirs: str, figure: str = "wall", *, apart: bool = False
    ) -> float | None:
        """A figure of one row over that of another, paired run by run: the median.

        Args:
            apart: takes what a start costs in the median off both.

        Returns:
            None if one of them was not measured, or took no longer than its start.
        """
        pairs = list(
            zip(
                self._values(data, mine, figure, apart),
                self._values(data, theirs, figure, apart),
                strict=False,
            )
        )
        if not pairs or min(map(min, pairs)) <= 0:
            return None
        return median(one / other for one, other in pairs)

    def _values(self, data: str, row: str, figure: str, apart: bool) -> list[float]:
        values = [float(getattr(run, figure)) for run in self.runs.get((data, row), [])]
        if not apart:
            return values
        starts = [float(getattr(run, figure)) for run in self.starts.get((data, row), [])]
        return [value - median(starts) for value in values] if starts else []
