"""Companions and pairs of candle files as literals, for the tests of their format and commits."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from candlebeam.formats.candles.companion import CandlePaths, Companion, InputState, ResumeState
from candlebeam.formats.candles.records import RECORD_DTYPE
from candlebeam.model import BLOCK_DTYPE, Market, Records
from candlebeam.rules.price_scale import PriceScale, PriceState
from candlebeam.settings import CandleSettings
from tests.growing_archive import all_files
from tests.trade_batches import MARKET, MIDNIGHT, MINUTE

SCALE = PriceScale(4)
STATE = ResumeState(
    settings=CandleSettings(),
    inputs=(InputState("/archive", "RAM/b/BINANCE/btcusdt/2024-03-01-00", "2024-03-01-00", 9, 5),),
    covered=3,
    tail=np.zeros(1, BLOCK_DTYPE).tobytes(),
    prices=PriceState(6, 61_234.5),
    exact=False,
)


def companion_of(
    records: int,
    scale: PriceScale = SCALE,
    state: ResumeState | None = STATE,
    market: Market = MARKET,
) -> Companion:
    """The companion of so many candles from midnight on."""
    return Companion(
        market=market,
        timeframe=MINUTE,
        start_ts=MIDNIGHT,
        end_ts=MIDNIGHT + records * MINUTE.ms,
        scale=scale,
        records=records,
        last_input_start_ts=MIDNIGHT,
        state=state,
    )


def some_records(count: int, seed: int = 1) -> Records:
    """Records without gaps, all different."""
    random = np.random.default_rng(seed)
    records = np.zeros(count, RECORD_DTYPE)
    for name in RECORD_DTYPE.names or ():
        records[name] = random.integers(1, 1 << 30, count)
    return records


def write_pair(folder: Path, companion: Companion, records: Records) -> CandlePaths:
    """The pair, written without any ceremony."""
    paths = CandlePaths.of(str(folder), companion.market)
    Path(paths.stem).parent.mkdir(parents=True, exist_ok=True)
    Path(paths.records).write_bytes(records.tobytes())
    Path(paths.companion).write_bytes(companion.encode())
    return paths


def traded_files(folder: Path) -> dict[str, bytes]:
    """Every file under a folder, as it is without the quiet candles at the end, which are zeros."""
    files = all_files(folder)
    for name in [name for name in files if name.endswith(".json")]:
        companion = Companion.decode(files[name], name)
        records = name.removesuffix(".json") + ".bin"
        assert len(files[records]) == companion.size
        traded = companion.traded
        assert not any(files[records][traded.size :])
        files[name], files[records] = traded.encode(), files[records][: traded.size]
    return files
