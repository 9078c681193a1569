"""Runs of `candlebeam resample` for tests: their inputs, and what they have to come to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

import candlebeam
from candlebeam.formats.aligned.file import AlignedPaths
from candlebeam.formats.candles.companion import CandlePaths
from candlebeam.formats.candles.records import RECORD_DTYPE
from candlebeam.formats.candles.source import CandleSource
from candlebeam.formats.csv.bars import encode_csv
from candlebeam.model import Bars, Market, Records
from candlebeam.rules.periods import Period, boundaries
from candlebeam.rules.resample import resample
from tests.aligned_bars import (
    Bar,
    bars_from,
    encoded,
    index_bytes,
    rows_of,
    write_aligned,
)
from tests.candle_pairs import companion_of, some_records, write_pair
from tests.command_line import Outcome, run_here
from tests.trade_batches import MARKET

MINUTE = 60_000
OTHER = Market("PI", "BITMEX", "XBTUSD")
WANTED = "5m,45m,1h,1d,1w,1M"
PERIODS = Period.parse_all(WANTED)


def candles(count: int, *gaps: int, seed: int = 1) -> Records:
    """Those of one seed are always the same, but for the gaps."""
    records = some_records(20_000, seed)[:count]
    records[list(gaps)] = np.zeros(1, RECORD_DTYPE)
    return records


def gappy(count: int, seed: int = 1) -> Records:
    """Half of them are gaps, some of these for hours."""
    rng = np.random.default_rng(seed)
    alive = np.repeat(rng.random(20_000 // 200) < 0.7, 200)
    records = some_records(20_000, seed)
    records[~alive | (rng.random(20_000) < 0.3)] = np.zeros(1, RECORD_DTYPE)
    found: Records = records[:count]
    # A candle file ends with a candle that has trades.
    found[-1] = some_records(count, seed)[-1]
    return found


def put(out: Path, records: Records, market: Market = MARKET) -> CandlePaths:
    """Puts a candle file where a backfill would."""
    return write_pair(out, companion_of(len(records), market=market), records)


def resampled(folder: Path, *options: object, wanted: str = WANTED) -> Outcome:
    arguments = (folder / "out", "--to", folder / "to", "--timeframes", wanted)
    return run_here("resample", *arguments, *options)


def paths_of(folder: Path, period: object, name: str = "btcusdt", *more: str) -> AlignedPaths:
    return AlignedPaths.of(str(Path(folder, "to", *more)), str(period), name)


def end_of(period: Period, ts: int, tz: str | None) -> int:
    return int(boundaries(period, tz, ts, ts)[1]) if period.unit else ts + period.ms


def expected(bars: Bars, period: Period, tz: str | None, reached: int) -> tuple[Bars, Bars]:
    """The closed bars, and the open one, once time has come so far."""
    made = resample(bars, [period], tz)[period]
    closed = sum(end_of(period, ts, tz) <= reached for ts in made.ts.tolist())
    return made.part(slice(closed)), made.part(slice(closed, None))


def assert_made(folder: Path, path: str, tz: str | None = None, mark: bool = True) -> None:
    """The aligned files are those of a candle file, to the last byte."""
    source = CandleSource(path)
    bars = Bars.join([piece.bars for piece in source.pieces()])
    for period in PERIODS:
        paths = paths_of(folder, period)
        closed, opened = expected(bars, period, tz, int(bars.ts[-1]))
        data = encoded(rows_of(closed))
        tail = encoded(rows_of(opened)) if mark else b""
        assert Path(paths.records).read_bytes() == data + tail, str(period)
        place = source.closed
        if len(opened):
            inside = np.flatnonzero(~np.isnan(bars.open) & (bars.ts >= opened.ts[0]))
            place = min(place, int(inside[0]))
        day = datetime.fromtimestamp(int(closed.ts[-1]) / 1000, timezone.utc) if data else None
        date = int(day.strftime("%Y%m%d")) if day else 0
        assert Path(paths.index).read_bytes() == index_bytes(date, place * 56, len(data))


def contents(folder: Path) -> dict[str, bytes]:
    """What the command has written, but for what says how it came to it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix in (".bin", ".idx", ".csv")
    }


def aligned_input(folder: Path, rows: Sequence[Bar], opened: Sequence[Bar] = ()) -> AlignedPaths:
    """An aligned file of minutes as another program writes it."""
    data = encoded(rows)
    return write_aligned(
        folder / "in", data + encoded(opened), index_bytes(20_240_301, 0, len(data))
    )


def made_of(folder: Path, period: str = "5m", name: str = "btcusdt") -> tuple[list[Bar], list[Bar]]:
    """The closed bars and the open ones of an aligned output."""
    with candlebeam.open_aligned(paths_of(folder, period, name).records) as found:
        rows = [(int(r["ts"]), *map(float, r["ohlcv"])) for r in found.records]
        assert found.committed is not None
        return rows[: found.committed], rows[found.committed :]  # type: ignore[return-value]


def joined(made: tuple[list[Bar], list[Bar]]) -> list[Bar]:
    return [*made[0], *made[1]]


def write_csv(path: Path, rows: Sequence[Bar]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_csv(bars_from(rows)))
    return path
