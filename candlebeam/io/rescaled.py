"""Candles that are stored already, at another price scale."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from candlebeam.formats.candles.companion import CandlePaths, Companion
from candlebeam.formats.candles.records import RECORD_DTYPE, encode_candles
from candlebeam.io.merged_candles import SPAN_CANDLES
from candlebeam.model import CandleBlock, Records
from candlebeam.rules.candles import empty_candles
from candlebeam.rules.price_scale import PRICE_FIELDS, PriceScale, restore
from candlebeam.storage import storage_of


def rescaled(
    paths: CandlePaths, old: Companion, count: int, scale: PriceScale
) -> Iterator[tuple[int, Records, bool]]:
    """The first candles of a file at another scale.

    Args:
        old: what the file is; each of its prices can be had back (`ResumeState.exact`).
        count: how many candles.

    Yields:
        The place of a piece, its records, and whether their prices can be had back again.
    """
    with storage_of(paths.stem).fetched([paths.records]) as (path,), open(path, "rb") as file:
        for place in range(0, count, SPAN_CANDLES):
            length = min(SPAN_CANDLES, count - place)
            stored = np.fromfile(file, RECORD_DTYPE, length)
            prices = restore(stored, old.scale)
            start_ts = old.start_ts + place * old.timeframe.ms
            candles = empty_candles(start_ts, length, old.timeframe)
            for column, name in enumerate(PRICE_FIELDS):
                candles[name] = prices[:, column]
            candles["high"][stored["high"] == 0] = -np.inf
            block = CandleBlock(old.market, old.timeframe, candles)
            records, exact = encode_candles(block, scale)
            for name in RECORD_DTYPE.names[len(PRICE_FIELDS) :]:  # type: ignore[index]
                records[name] = stored[name]
            yield place, records, exact
