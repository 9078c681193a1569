"""Files of bars that are well, for the tests that damage them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from candlebeam.formats.aligned.file import ALIGNED_DTYPE, AlignedPaths
from candlebeam.formats.aligned.state import AlignedIndex
from candlebeam.formats.candles.companion import CandlePaths, Companion
from candlebeam.formats.candles.records import RECORD_DTYPE
from candlebeam.model import BLOCK_DTYPE, Market, Records
from candlebeam.rules.price_scale import PriceScale, PriceState
from tests.candle_pairs import SCALE, STATE, companion_of, write_pair
from tests.trade_batches import MARKET, MIDNIGHT, MINUTE

COUNT = 20
LAST_DATE = 20240301


def good_records(count: int = COUNT) -> Records:
    """Candles without gaps, of which every rule holds; their volume is 2, 4, 6, ... in all."""
    records: Records = np.zeros(count, RECORD_DTYPE)
    records["open"] = 100_000 + np.arange(count)
    records["high"], records["low"] = records["open"] + 50, records["open"] - 50
    records["close"] = records["open"] + 10
    for side in ("buy", "sell"):
        records[f"{side}_volume"] = 1_000_000 * np.arange(1, count + 1)
        records[f"{side}_count"] = 3
    return records


def good_companion(
    records: Records, market: Market = MARKET, scale: PriceScale = SCALE
) -> Companion:
    """The companion of candles from midnight on, its state included."""
    companion = companion_of(len(records), scale, market=market)
    tail = np.zeros(1, BLOCK_DTYPE)
    tail["time"] = companion.end_ts - MINUTE.ms
    stored = int(records["high"][:-1].max())
    highest = stored / scale.power if scale.multiplies else stored * scale.power
    state = replace(STATE, tail=tail.tobytes(), prices=PriceState(4, highest), exact=True)
    return replace(companion, state=state)


def write_candles(folder: Path, records: Records, market: Market = MARKET) -> CandlePaths:
    """A candle file under an output root."""
    return write_pair(folder, good_companion(records, market), records)


#: ts, open, high, low, close, volume.
Bar = tuple[int, float, float, float, float, float]


def good_bars(count: int = COUNT, begin: int = MIDNIGHT, step: int = MINUTE.ms) -> list[Bar]:
    """The bars of `good_records`."""
    return [
        (begin + n * step, (p := 10 + n / 1e4), p + 0.005, p - 0.005, p + 0.001, 2.0 * (n + 1))
        for n in range(count)
    ]


def aligned_records(bars: Sequence[Bar]) -> Records:
    records: Records = np.zeros(len(bars), ALIGNED_DTYPE)
    for place, (ts, *values) in enumerate(bars):
        records[place] = (ts, values, 0)
    return records


def write_aligned(
    folder: Path, bars: Sequence[Bar], name: str = "btcusdt", timeframe: str = "1m"
) -> AlignedPaths:
    """An aligned file with its index; the last of the bars is the open one."""
    paths = AlignedPaths.of(str(folder), timeframe, name)
    Path(paths.index).parent.mkdir(parents=True, exist_ok=True)
    Path(paths.records).write_bytes(aligned_records(bars).tobytes())
    index = AlignedIndex(LAST_DATE, 56 * (len(bars) - 1), 64 * (len(bars) - 1))
    Path(paths.index).write_bytes(index.encode())
    return paths


def legacy_index(bars: int) -> bytes:
    """An index of 16 bytes for so many committed bars."""
    return struct.pack("<QQ", 56 * bars, 64 * bars)


def csv_text(bars: Sequence[Bar]) -> str:
    """Bars as rows of a CSV file, times in ms, with its header."""
    rows = [",".join(map(repr, bar)) for bar in bars]
    return "\n".join(["timestamp,open,high,low,close,volume", *rows, ""])


def write_csv(path: Path, bars: Sequence[Bar]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(csv_text(bars))
    return path
