"""What candlebeam's bars are timed against, each in a process of its own.

`pandas` and `polars` resample a candle file to several timeframes: first, maximum, minimum, last
and sum of the minutes with trades. They write the records that candlebeam does, 64 bytes each, and
force them to disk. Each is written the way that was fastest of those tried: minutes without trades
are left out beforehand; pandas aggregates all columns at once; Polars makes a timeframe in each of
two threads (one `collect_all` for all of them took twice as long).
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

CANDLE_DTYPE = np.dtype(
    [
        *((name, "<i4") for name in ("open", "high", "low", "close")),
        *((name, "<i8") for name in ("buy_volume", "sell_volume")),
        *((name, "<u4") for name in ("buy_count", "sell_count")),
        *((name, "<i8") for name in ("buy_liquidation", "sell_liquidation")),
    ]
)
BAR_DTYPE = np.dtype([("ts", "<i8"), ("ohlcv", "<f8", (5,)), ("padding", "<u8", (2,))])
COLUMNS = ("open", "high", "low", "close", "volume")

Columns = dict[str, npt.NDArray[Any]]
Bars = tuple[npt.NDArray[Any], npt.NDArray[Any]]
"""Starts in ms, and one row of `COLUMNS` a bar."""


def read_candles(path: Path) -> tuple[npt.NDArray[Any], Columns]:
    """The minutes with trades of a candle file: their starts, datetime64[ms], and columns."""
    about = json.loads(path.with_suffix(".json").read_text())
    records = np.memmap(path, CANDLE_DTYPE, "r")
    places = np.flatnonzero((records["buy_count"] | records["sell_count"]) != 0)
    traded = records[places]
    columns: Columns = {name: traded[name] / about["priceScale"] for name in COLUMNS[:4]}
    volume = traded["buy_volume"] + traded["sell_volume"]
    columns["volume"] = volume / about["volumeScale"]
    starts = about["startTs"] + places * about["timeframeMs"]
    return starts.view("datetime64[ms]"), columns


def run_pandas(candles: Path, timeframes: list[str], threads: int) -> Iterator[Bars]:
    """Bars of each timeframe, made by pandas in one thread: it does not let others run."""
    import pandas as pd

    ways = {
        "open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum",
    }  # fmt: skip
    starts, columns = read_candles(candles)
    frame = pd.DataFrame(columns, index=pd.DatetimeIndex(starts))
    for timeframe in timeframes:
        rule = {"1w": "W-MON", "1d": "1D"}.get(timeframe, timeframe.replace("m", "min"))
        bars = frame.resample(rule, closed="left", label="left").agg(ways)
        index = bars.index.to_numpy().astype("datetime64[ms]")
        yield index.view(np.int64), bars.to_numpy()


def run_polars(candles: Path, timeframes: list[str], threads: int) -> Iterator[Bars]:
    """Bars of each timeframe, made by Polars, so many of them at a time."""
    import polars as pl

    starts, columns = read_candles(candles)
    frame = pl.DataFrame({"ts": starts, **columns}).set_sorted("ts")
    ways = (
        pl.col("open").first(),
        pl.col("high").max(),
        pl.col("low").min(),
        pl.col("close").last(),
        pl.col("volume").sum(),
    )

    def bars_of(timeframe: str) -> Bars:
        bars = frame.group_by_dynamic("ts", every=timeframe).agg(ways)
        return bars["ts"].to_physical().to_numpy(), bars.select(COLUMNS).to_numpy()

    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(bars_of, timeframes)


def write_bars(path: Path, bars: Bars) -> None:
    """Write bars as aligned records, on disk when it returns."""
    starts, values = bars
    records = np.zeros(len(starts), BAR_DTYPE)
    records["ts"] = starts
    records["ohlcv"] = values
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        records.tofile(file)
        file.flush()
        os.fsync(file.fileno())


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bar_peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=["pandas", "polars"])
    parser.add_argument("path", type=Path, help="a candle file")
    parser.add_argument("--to", type=Path, required=True, help="a new folder")
    parser.add_argument("--timeframes", default="5m", help="such as 5m,1h,1d,1w")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    os.environ["POLARS_MAX_THREADS"] = str(chosen.threads)
    run: Callable[[Path, list[str], int], Iterator[Bars]]
    run = run_pandas if chosen.what == "pandas" else run_polars
    timeframes = chosen.timeframes.split(",")
    made = run(chosen.path, timeframes, chosen.threads)
    for timeframe, bars in zip(timeframes, made, strict=True):
        write_bars(chosen.to / timeframe / f"{chosen.path.stem}.bin", bars)


if __name__ == "__main__":
    main()
