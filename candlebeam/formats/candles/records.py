"""Candle records: 56 bytes a candle, little-endian, gaps as zero bytes."""

from __future__ import annotations

import numpy as np

from candlebeam.errors import RangeError
from candlebeam.formats.candles.record_kernels import lay_out_records
from candlebeam.model import CandleBlock, Records, for_kernels
from candlebeam.rules.price_scale import PriceScale, quantized_prices

#: One candle as it is stored. Prices are times the companion's priceScale, volumes are quote
#: volumes times its volumeScale. Source of the layout: the aggr-binaries specification.
RECORD_DTYPE = np.dtype(
    [
        ("open", "<i4"),
        ("high", "<i4"),
        ("low", "<i4"),
        ("close", "<i4"),
        ("buy_volume", "<i8"),
        ("sell_volume", "<i8"),
        ("buy_count", "<u4"),
        ("sell_count", "<u4"),
        ("buy_liquidation", "<i8"),
        ("sell_liquidation", "<i8"),
    ]
)


def encode_candles(
    block: CandleBlock, scale: PriceScale, closed: int | None = None
) -> tuple[Records, bool]:
    """The records of a block from its first candle to its last, gaps as zeros.

    Args:
        closed: how many of its candles count for the second result; all by default.

    Returns:
        Records of `RECORD_DTYPE`, and whether every price of the closed candles can be had back
        from them.

    Raises:
        PriceScaleError: a price does not fit in int32 at the scale.
        RangeError: a trade count does not fit in 32 bits.
    """
    candles = block.candles
    if not len(candles):
        return np.zeros(0, RECORD_DTYPE), True
    span = int(candles["time"][-1] - candles["time"][0])
    records = np.zeros(span // block.timeframe.ms + 1, RECORD_DTYPE)
    prices, exact = quantized_prices(candles, scale, closed)
    too_many = lay_out_records(
        for_kernels(np.ascontiguousarray(candles).view(np.int64)).reshape(len(candles), -1),
        prices,
        block.timeframe.ms,
        records.view(np.int32).reshape(len(records), -1),
        records.view(np.int64).reshape(len(records), -1),
    )
    if too_many >= 0:
        moment = np.datetime64(int(candles["time"][too_many]), "ms")
        raise RangeError(f"{block.market}: the trade count at {moment}Z does not fit in 32 bits")
    return records, exact
