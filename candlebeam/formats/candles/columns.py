"""The loop that reads candle records into columns of bars, compiled.

Records come in as two views of one read-only array of `candle_records.RECORD_DTYPE`: int32 of shape
(records, 14) and int64 of shape (records, 7).
"""

from __future__ import annotations

import math

from candlebeam.kernels import kernel

#: Two of these add up to what float64 holds exactly.
_HALF_EXACT = 1 << 52
# Places in a record: prices and counts in units of four bytes, volumes in units of eight.
_HIGH, _COUNTS, _VOLUMES = 1, 8, 2
_NARROW = "Array(int32, 2, 'C', readonly=True)"
_WIDE = "Array(int64, 2, 'C', readonly=True)"


@kernel(f"void({_NARROW},{_WIDE},float64,boolean,int64,float64[:,::1])")
def read_columns(narrow, wide, power, multiplies, volume_scale, columns):  # type: ignore[no-untyped-def]
    """Prices and quote volume of candles; one without trades has NaN for prices, and no volume.

    Args:
        narrow, wide: the views of the records.
        power, multiplies: how prices were stored, as in `PriceScale`.
        volume_scale: what volumes were multiplied with.
        columns: takes open, high, low, close and volume, shape (5, records).
    """
    for i in range(len(narrow)):
        if narrow[i, _HIGH] == 0 and narrow[i, _COUNTS] == 0 and narrow[i, _COUNTS + 1] == 0:
            for field in range(4):
                columns[field, i] = math.nan
            columns[4, i] = 0.0
            continue
        for field in range(4):
            price = float(narrow[i, field])
            columns[field, i] = price / power if multiplies else price * power
        buys, sells = wide[i, _VOLUMES], wide[i, _VOLUMES + 1]
        if -_HALF_EXACT <= buys <= _HALF_EXACT and -_HALF_EXACT <= sells <= _HALF_EXACT:
            columns[4, i] = float(buys + sells) / float(volume_scale)
            continue
        # Wholes and rest are exact apart, and the rest has bits enough for their sum to be rounded
        # as if it were exact.
        whole = buys // volume_scale + sells // volume_scale
        rest = buys % volume_scale + sells % volume_scale
        if rest >= volume_scale:
            whole, rest = whole + 1, rest - volume_scale
        columns[4, i] = float(whole) + float(rest) / float(volume_scale)
