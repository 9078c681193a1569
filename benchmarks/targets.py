"""The figures to reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmarks import results as names
from benchmarks.results import Results

_MEMORY_LIMIT = 600e6
_GROWTH_LIMIT = 1.10


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


def _greatest_ratio(
    results: Results, data: str, mine: str, theirs: tuple[str, ...], apart: bool = False
) -> float | None:
    """Over the quickest of several ways to do it, so the ratio is the least flattering one."""
    ratios = [results.ratio(data, mine, row, apart=apart) for row in theirs]
    return max((ratio for ratio in ratios if ratio is not None), default=None)


def _wall(data: str, what: str, limit: float, *theirs: str, mine: str = names.BACKFILL) -> Target:
    """Of whole processes."""
    value = partial(_greatest_ratio, data=data, mine=mine, theirs=theirs)
    return Target(data, what, value, limit, _times)


def _wall_and_apart(
    data: str, what: str, limit: float, *theirs: str, mine: str = names.BACKFILL
) -> tuple[Target, Target]:
    """Without what a start costs on either side, and of whole processes."""
    value = partial(_greatest_ratio, data=data, mine=mine, theirs=theirs, apart=True)
    return (
        Target(data, f"{what}, starts taken off", value, limit, _times),
        _wall(data, f"{what}, whole processes", limit, *theirs, mine=mine),
    )


def _median(data: str, what: str, limit: float, row: str) -> Target:
    return Target(data, what, lambda results: results.median(data, row), limit, _seconds)


def _peak(data: str, row: str = names.BACKFILL) -> Target:
    return Target(
        data,
        f"peak memory, {row}",
        lambda results: results.median(data, row, "peak"),
        _MEMORY_LIMIT,
        _megabytes,
    )


def _growth(large: str, little: str, row: str = names.BACKFILL) -> Target:
    def value(results: Results) -> float | None:
        most, least = (results.median(data, row, "peak") for data in (large, little))
        return most / least if most and least else None

    return Target(large, f"peak memory / {little}'s, {row}", value, _GROWTH_LIMIT, _times)


_ISAL = (names.DECOMPRESS_64K, names.DECOMPRESS_1M)
_ZSTD = (names.ZSTD_DAYS, names.ZSTD_PIECES)

TARGETS = (
    _wall("dense", "wall / DuckDB's", 0.50, names.DUCKDB),
    _wall("dense", "wall / Polars'", 0.65, names.POLARS),
    _wall("dense", "wall / decompression alone", 2.2, *_ISAL),
    _wall("dense", "the same, where it should end up", 1.5, *_ISAL),
    _peak("dense"),
    _wall("small", "wall / DuckDB's", 0.25, names.DUCKDB),
    _median("small", "nothing new", 1.0, names.NOTHING_NEW),
    _median("small", "index", 0.6, names.INDEX),
    _median("small", "index, again", 0.4, names.INDEX_AGAIN),
    _growth("dense4", "dense"),
    _peak("busy"),
    *_wall_and_apart("agg2", "wall / zstandard alone", 1.6, *_ZSTD),
    _peak("agg2"),
    _growth("agg2", "agg2-quarter"),
    _peak("agg2-day"),
    *_wall_and_apart("dbn", "wall / DBNStore.to_ndarray", 1.4, names.DATABENTO),
    _peak("dbn"),
    _growth("dbn", "dbn-quarter"),
    *_wall_and_apart("dbn-few", "wall / DBNStore.to_ndarray", 1.4, names.DATABENTO),
    _peak("dbn-few"),
    *_wall_and_apart("candles", "wall / pandas'", 0.2, names.PANDAS, mine=names.RESAMPLE),
    *_wall_and_apart("candles", "wall / Polars'", 1.0, names.POLARS, mine=names.RESAMPLE),
    _peak("candles", names.RESAMPLE),
    _growth("candles", "candles-quarter", names.RESAMPLE),
    *_wall_and_apart("candles", "wall / plain copy", 2.0, names.COPY, mine=names.ALIGN),
    _peak("candles", names.ALIGN),
    _growth("candles", "candles-quarter", names.ALIGN),
    _median("no data", "--help", 0.2, names.HELP),
)
