"""The last candle of a market as it is stored, where what it was made of cannot be read again."""

from __future__ import annotations

import numpy as np

from candlebeam.formats.candles.companion import CandlePaths, Companion
from candlebeam.formats.candles.records import RECORD_DTYPE
from candlebeam.rules.candles import empty_candles
from candlebeam.rules.price_scale import PRICE_FIELDS, restore
from candlebeam.storage import storage_of


def last_candle(companion: Companion, paths: CandlePaths) -> bytes:
    """The last candle with trades as it is stored, as a record of `BLOCK_DTYPE`."""
    companion = companion.traded
    size, step = RECORD_DTYPE.itemsize, companion.timeframe.ms
    data = storage_of(paths.records).read(paths.records, companion.size - size, size)
    stored = np.frombuffer(data, RECORD_DTYPE)
    start_ts = companion.end_ts - step
    candle = empty_candles(start_ts, 1, companion.timeframe)
    if stored["high"][0]:
        for name, price in zip(PRICE_FIELDS, restore(stored, companion.scale)[0], strict=True):
            candle[name] = price
        candle["first_ts"], candle["last_ts"] = start_ts, start_ts + step - 1
    for name in RECORD_DTYPE.names[len(PRICE_FIELDS) :]:  # type: ignore[index]
        candle[name] = stored[name]
    return candle.tobytes()
