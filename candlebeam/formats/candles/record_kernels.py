"""The loop that lays out candle records, compiled.

Records are written through two views of one array of `candle_records.RECORD_DTYPE`: int32 of shape
(records, 14) and int64 of shape (records, 7).
"""

from __future__ import annotations

from candlebeam.kernels import kernel
from candlebeam.model import BLOCK_DTYPE

_FIELD = {name: place for place, name in enumerate(BLOCK_DTYPE.names or ())}
_TIME = _FIELD["time"]
_VOLUMES, _COUNTS, _LIQUIDATIONS = (
    _FIELD["buy_volume"],
    _FIELD["buy_count"],
    _FIELD["buy_liquidation"],
)
_UINT32_MAX = 0xFFFFFFFF
# Places in a record: prices and counts in units of four bytes, volumes in units of eight.
_OUT_COUNTS, _OUT_VOLUMES, _OUT_LIQUIDATIONS = 8, 2, 5


@kernel("int64(int64[:,::1],int32[:,::1],int64,int32[:,::1],int64[:,::1])")
def lay_out_records(candles, prices, step, narrow, wide):  # type: ignore[no-untyped-def]
    """Puts candles at their places from the first one on; what is between them is left alone.

    Args:
        candles: int64 view of `BLOCK_DTYPE`, ascending by time.
        prices: open, high, low and close of each, as they are stored.
        step: ms of a candle.
        narrow, wide: the views of the records.

    Returns:
        The place of the first candle with a count above 32 bits, or -1.
    """
    for i in range(len(candles)):
        place = (candles[i, _TIME] - candles[0, _TIME]) // step
        for field in range(4):
            narrow[place, field] = prices[i, field]
        for side in range(2):
            trades = candles[i, _COUNTS + side]
            if trades > _UINT32_MAX:
                return i
            wide[place, _OUT_VOLUMES + side] = candles[i, _VOLUMES + side]
            wide[place, _OUT_LIQUIDATIONS + side] = candles[i, _LIQUIDATIONS + side]
        # Two counts of four bytes, the first of them lower: little-endian, as all of the file is.
        wide[place, _OUT_COUNTS // 2] = candles[i, _COUNTS] | (candles[i, _COUNTS + 1] << 32)
    return -1
