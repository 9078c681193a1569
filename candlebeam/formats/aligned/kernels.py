"""The loop that lays out aligned records, compiled.

Records are written through two views of one array of `aligned_file.ALIGNED_DTYPE`, both of shape
(records, 8): int64 and float64.
"""

from __future__ import annotations

import math

from candlebeam.kernels import kernel

#: How a bar without trades is written: all zero but for its time, at the close before it, not.
ZERO, FORWARD, SKIP = 0, 1, 2
#: The end of the year 9999 in ms.
LAST_TS = 253_402_300_799_999
_BARS = ",".join(["float64[::1]"] * 5)


@kernel(f"int64(int64[::1],{_BARS},int64,int64,float64[::1],int64[:,::1],float64[:,::1])")
def lay_out_bars(  # type: ignore[no-untyped-def]
    ts, opens, highs, lows, closes, volumes, gaps, last_ts, close, words, numbers
):
    """Puts bars into records, one after the other.

    Args:
        ts, opens, highs, lows, closes, volumes: the columns of the bars.
        gaps: ZERO, FORWARD or SKIP.
        last_ts: the time of the bar before the first; all later ones must be later.
        close: one number, the close before the first bar, NaN without any; becomes the last one.
        words, numbers: the views of the records.

    Returns:
        How many records there are; or, where bar i cannot be stored, -1 - i.
    """
    count = 0
    for i in range(len(ts)):
        if ts[i] <= last_ts or ts[i] < 0 or ts[i] > LAST_TS:
            return -1 - i
        last_ts = ts[i]
        # A sum is finite only if each of them is; if it is not, they are looked at one by one.
        total = opens[i] + highs[i] + lows[i] + closes[i] + volumes[i]
        if math.isfinite(total) or (
            math.isfinite(opens[i])
            and math.isfinite(highs[i])
            and math.isfinite(lows[i])
            and math.isfinite(closes[i])
            and math.isfinite(volumes[i])
        ):
            close[0] = closes[i]
            words[count, 0] = ts[i]
            numbers[count, 1] = opens[i]
            numbers[count, 2] = highs[i]
            numbers[count, 3] = lows[i]
            numbers[count, 4] = closes[i]
            numbers[count, 5] = volumes[i]
        else:
            if not (
                math.isnan(opens[i])
                and math.isnan(highs[i])
                and math.isnan(lows[i])
                and math.isnan(closes[i])
            ):
                return -1 - i
            if gaps == SKIP:
                continue
            price = 0.0
            if gaps == FORWARD and not math.isnan(close[0]):
                price = close[0]
            words[count, 0] = ts[i]
            for field in range(1, 5):
                numbers[count, field] = price
            numbers[count, 5] = 0.0
        words[count, 6] = 0
        words[count, 7] = 0
        count += 1
    return count
