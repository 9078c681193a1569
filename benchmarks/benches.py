"""What is timed on each data set: candlebeam, and what stands beside it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks import results as names
from benchmarks.cache import FULL, TINY, Built, cache_folder, read_built
from benchmarks.measure import measure
from benchmarks.results import Row

CORES = 2
TIMEFRAMES = "5m,15m,30m,1h,2h,4h,1d,1w"
ISAL_PIECES = {names.DECOMPRESS_64K: 64 << 10, names.DECOMPRESS_1M: 1 << 20}
ZSTD_PIECES = {names.ZSTD_DAYS: 0, names.ZSTD_PIECES: 1 << 20}


def candlebeam(*arguments: object) -> tuple[str, ...]:
    """A command of candlebeam, as the environment of this process has it."""
    return (str(Path(sys.executable).with_name("candlebeam")), *map(str, arguments))


def module(name: str, *arguments: object) -> tuple[str, ...]:
    """A module of the benchmarks as a command."""
    return (sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments))


def _built(data: str) -> Built:
    built = read_built(data)
    if built is None:
        raise SystemExit(f"{data} was not built")
    return built


class Bench:
    """The rows of one data set, and a folder for what they make.

    Attributes:
        data: the data set.
        work: the folder.
        for_memory: whether the data set is there for memory alone.
    """

    def __init__(self, data: str, work: Path) -> None:
        self.data = data
        self.work = work / data
        self.for_memory = data in (*FULL, "busy")
        self._tiny = TINY.get(data.partition("-")[0])

    def prepare(self) -> None:
        """Build what is needed."""
        needed = [self.data] if self._tiny is None else [self.data, self._tiny]
        subprocess.run(module("datasets", *needed), check=True, stdout=subprocess.DEVNULL)
        self.work.mkdir()

    @property
    def built(self) -> Built:
        """What the data set holds."""
        return _built(self.data)

    @property
    def built_tiny(self) -> Built:
        """What the rows' starts read."""
        return Built() if self._tiny is None else _built(self._tiny)

    def rows(self) -> list[Row]:
        """What is timed, in the order of the table."""
        rows = list(self._rows(self.data))
        if self.for_memory:
            return [row for row in rows if not row.against]
        if self._tiny is None:
            return rows
        starts = self._rows(self._tiny)
        return [replace(row, start=start) for row, start in zip(rows, starts, strict=True)]

    def _rows(self, data: str) -> Iterator[Row]:
        """The rows on a data set, which may be the tiny one."""
        raise NotImplementedError


class TradeLogBench(Bench):
    """Trade logs, beside DuckDB, Polars and ISA-L."""

    def __init__(self, data: str, work: Path) -> None:
        super().__init__(data, work)
        self._root = cache_folder() / data
        self._database = self.work / "index.sqlite"

    def prepare(self) -> None:
        """Build the archive and index it."""
        super().prepare()
        measure(candlebeam("index", self._root, "--db", self._database))

    def rows(self) -> list[Row]:
        """What is timed, in the order of the table."""
        out = self.work / "candles"
        backfill = candlebeam("backfill", "--db", self._database, "--out", out)
        rows = [Row(names.BACKFILL, backfill, makes=out, output=out, reads_all=True)]
        if not self.for_memory:
            rows += [self._peer(names.DUCKDB, "duckdb"), self._peer(names.POLARS, "polars")]
        if self.data != "dense4":
            rows += [self._decompression(name, piece) for name, piece in ISAL_PIECES.items()]
        if self.data == "small":
            # The backfill above, the first row of each turn, has left its output.
            rows.append(Row(names.NOTHING_NEW, backfill))
            fresh, known = self.work / "fresh.sqlite", self._database
            index = candlebeam("index", self._root, "--db", fresh)
            rows.append(Row(names.INDEX, index, makes=fresh))
            rows.append(Row(names.INDEX_AGAIN, candlebeam("index", self._root, "--db", known)))
        return rows

    def _peer(self, name: str, what: str) -> Row:
        out = self.work / what
        command = module("peers", what, self._root, "--out", out, "--threads", CORES)
        return Row(name, command, makes=out, output=out, against=names.BACKFILL, reads_all=True)

    def _decompression(self, name: str, piece: int) -> Row:
        options = ("--threads", CORES, "--piece", piece, "--expect", self.built.bytes)
        command = module("peers", "decompress", self._root, *options)
        return Row(name, command, against=names.BACKFILL, reads_all=True)


class Agg2Bench(Bench):
    """AGG2 days, beside their decompression."""

    def _rows(self, data: str) -> Iterator[Row]:
        root, out = cache_folder() / data, self.work / f"{data}-candles"
        backfill = candlebeam("backfill", "--agg2", root, "--out", out)
        yield Row(names.BACKFILL, backfill, makes=out, output=out, reads_all=True)
        for name, piece in ZSTD_PIECES.items():
            options = ("--threads", CORES, "--piece", piece, "--expect", _built(data).bytes)
            command = module("peers", "agg2", root, *options)
            yield Row(name, command, against=names.BACKFILL, reads_all=True)


class DbnBench(Bench):
    """A Databento file, beside Databento's own reader."""

    def _rows(self, data: str) -> Iterator[Row]:
        root, out = cache_folder() / data, self.work / f"{data}-candles"
        backfill = candlebeam("backfill", "--dbn", root, "--out", out)
        yield Row(names.BACKFILL, backfill, makes=out, output=out, reads_all=True)
        command = module("peers", "databento", root, "--expect", _built(data).rows)
        yield Row(names.DATABENTO, command, against=names.BACKFILL, reads_all=True)


class CandleBench(Bench):
    """A candle file: resampled, beside pandas and Polars; aligned, beside a copy."""

    def _rows(self, data: str) -> Iterator[Row]:
        (candles,) = (cache_folder() / data).glob("*/*/*.bin")
        yield self._resampling(
            names.RESAMPLE, data, "resampled", candlebeam("resample", candles), ""
        )
        for name, what in ((names.PANDAS, "pandas"), (names.POLARS, "polars")):
            command = module("bar_peers", what, candles)
            yield self._resampling(name, data, what, command, names.RESAMPLE)
        aligned, copied = self.work / f"{data}-aligned", self.work / f"{data}-copied"
        align = candlebeam("align", candles, "--to", aligned)
        yield Row(names.ALIGN, align, makes=aligned, output=aligned, reads_all=True)
        # The command above has left what is copied here.
        copy = module("peers", "copy", aligned / "1m" / candles.name, "--out", copied)
        yield Row(
            names.COPY, copy, makes=copied, output=copied, against=names.ALIGN, reads_all=True
        )

    def _resampling(
        self, name: str, data: str, what: str, command: tuple[str, ...], against: str
    ) -> Row:
        out = self.work / f"{data}-{what}"
        command = (*command, "--timeframes", TIMEFRAMES, "--to", str(out))
        return Row(name, command, makes=out, output=out, against=against, reads_all=True)


_KINDS: dict[str, type[Bench]] = {"agg2": Agg2Bench, "dbn": DbnBench, "candles": CandleBench}


def bench(data: str, work: Path) -> Bench:
    """The bench of a data set."""
    return _KINDS.get(data.partition("-")[0], TradeLogBench)(data, work)
