"""What a program made of a data set, in a few numbers, so that only equal work is compared."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.bar_peers import BAR_DTYPE, COLUMNS


@dataclass(frozen=True)
class Content:
    """Candles that hold a trade which is no liquidation, and sums over them."""

    candles: int
    trades: int
    high: float
    low: float
    volume: float


def of_candle_files(out: Path) -> Content:
    """The content of a folder of candle files."""
    from candlebeam import open_candles

    candles = trades = 0
    high = low = volume = 0.0
    for path in sorted(out.glob("*/*/*.bin")):
        market = open_candles(path)
        records = np.asarray(market.records)
        count = records["buy_count"].astype(np.int64) + records["sell_count"]
        traded = records[count > 0]
        about = json.loads(path.with_suffix(".json").read_text())
        candles += len(traded)
        trades += int(count.sum())
        high += float(traded["high"].sum(dtype=np.int64)) / about["priceScale"]
        low += float(traded["low"].sum(dtype=np.int64)) / about["priceScale"]
        sums = (traded[name].sum(dtype=np.int64) for name in ("buy_volume", "sell_volume"))
        volume += float(sum(sums)) / about["volumeScale"]
    return Content(candles, trades, high, low, volume)


def of_parquet(out: Path) -> Content:
    """The content of a folder of Parquet files made by a peer."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    columns = ["high", "low", "buy_volume", "sell_volume", "buy_count", "sell_count"]
    candles = 0
    sums = dict.fromkeys(columns, 0.0)
    for path in sorted(out.glob("*.parquet")):
        table = pq.read_table(path, columns=columns)
        candles += table.num_rows
        for name in columns:
            sums[name] += pc.sum(table[name]).as_py() or 0
    return Content(
        candles,
        int(sums["buy_count"] + sums["sell_count"]),
        sums["high"],
        sums["low"],
        sums["buy_volume"] + sums["sell_volume"],
    )


def of_bars(out: Path) -> dict[str, float]:
    """The content of a folder of aligned files, by timeframe: the bars with a volume."""
    content: dict[str, float] = {}
    for path in sorted(out.glob("*/*.bin")):
        bars = np.memmap(path, BAR_DTYPE, "r")
        traded = bars[bars["ohlcv"][:, -1] > 0]
        timeframe = path.parent.name
        content[f"{timeframe} bars"] = len(traded)
        content[f"{timeframe} starts"] = int((traded["ts"] // 60_000).sum())
        for place, name in enumerate(COLUMNS):
            content[f"{timeframe} {name}"] = float(traded["ohlcv"][:, place].sum())
    return content


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.outputs", description=__doc__)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    content: dict[str, float]
    if any(out.glob("*/*.bin")):
        content = of_bars(out)
    else:
        read = of_parquet if any(out.glob("*.parquet")) else of_candle_files
        content = asdict(read(out))
    print(json.dumps(content))


if __name__ == "__main__":
    main()
