"""The archives that are timed: made up, but of the sizes and shapes of real ones.

Each is built once, into a cache folder. What was built is written beside it (`NAME.json`), so that
every program that reads it can be held against what there is.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from benchmarks.agg2_data import Agg2Set
from benchmarks.cache import DataSet, ensure, scale
from benchmarks.candle_data import CandleSet
from benchmarks.dbn_set import DbnSet
from benchmarks.trade_log_data import BusySet, dense_markets, small_markets
from benchmarks.trade_log_data import TradeLogSet as Logs

_DENSE = Logs("dense", dense_markets(), 600, 30_667)
_SETS: tuple[DataSet, ...] = (
    _DENSE,
    Logs("small", small_markets(), 200, 120),
    Logs("dense-tiny", dense_markets(), 2, 100),
    BusySet("busy", 92_000_000),
    Logs("dense4", dense_markets(), 2_400, 30_667, base=_DENSE),
    Agg2Set("agg2", days=30, rows_per_day=2_000_000),
    Agg2Set("agg2-quarter", days=8, rows_per_day=2_000_000),
    Agg2Set("agg2-day", days=1, rows_per_day=20_000_000),
    Agg2Set("agg2-tiny", days=1, rows_per_day=100),
    DbnSet("dbn", records=20_000_000, instruments=1, days=20),
    DbnSet("dbn-few", records=20_000_000, instruments=5, days=20),
    DbnSet("dbn-quarter", records=5_000_000, instruments=1, days=5),
    DbnSet("dbn-tiny", records=100, instruments=1, days=1),
    CandleSet("candles", 10_000_000),
    CandleSet("candles-quarter", 2_500_000),
    CandleSet("candles-tiny", 100),
)
DATA_SETS = {data.name: data for data in _SETS}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.datasets", description=__doc__)
    parser.add_argument("names", nargs="+", choices=list(DATA_SETS), metavar="NAME")
    for name in parser.parse_args().names:
        data = DATA_SETS[name]
        built = ensure(data if scale() == 1 else data.scaled(scale()))
        print(f"{name}: {json.dumps(asdict(built))}")


if __name__ == "__main__":
    main()
