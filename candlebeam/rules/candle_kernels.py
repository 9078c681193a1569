"""The loops behind `rules.candles`, compiled.

Candles come in as two views of one array of `BLOCK_DTYPE`, int64 and float64, each of shape
(candles, 13). Sums are checked: two volumes whose sum wraps around show it by a negative sum.
"""

from __future__ import annotations

import math

from candlebeam.kernels import kernel
from candlebeam.model import BLOCK_DTYPE, NO_FIRST, NO_LAST

#: What `fold_trades` returns as the place it came to when a volume did not fit in int64.
OVERFLOW = -1

_FIELD = {name: place for place, name in enumerate(BLOCK_DTYPE.names or ())}
_TIME, _OPEN, _HIGH, _LOW, _CLOSE = (_FIELD[n] for n in ("time", "open", "high", "low", "close"))
_FIRST, _LAST = _FIELD["first_ts"], _FIELD["last_ts"]
#: Places of (buy, sell); the one of a side is the first plus one less the side.
_VOLUME, _COUNT, _LIQUIDATION = (
    _FIELD["buy_volume"],
    _FIELD["buy_count"],
    _FIELD["buy_liquidation"],
)
_SUMS_END = len(_FIELD)
_NO_FIRST, _NO_LAST = int(NO_FIRST), int(NO_LAST)
_INT64_END = 2.0**63


@kernel(
    "UniTuple(int64,2)(int64[::1],float64[::1],float64[::1],uint8[::1],uint8[::1],int64[::1],"
    "int64,boolean,int64,int64[:,::1],float64[:,::1],int64)"
)
def fold_trades(  # type: ignore[no-untyped-def]
    ts, price, size, buy, liquidation, count, step, include_liquidations, i, ints, floats, used
):
    """Folds trades from `i` on into candles, one a run of trades of the same candle.

    Returns (the place in the trades it came to, candles used). It stops early where `ints` has no
    room for another candle; with (OVERFLOW, place of the candle) where a volume does not fit.
    """
    total = len(ts)
    room = len(ints)
    counted = len(count) > 0
    current = used - 1
    begin = ints[current, _TIME] if used > 0 else 0
    end = begin + step if used > 0 else -1
    while i < total:
        t = ts[i]
        if t < begin or t >= end:
            if used == room:
                return i, used
            current = used
            used += 1
            begin = t - t % step
            end = begin + step
            ints[current, _TIME] = begin
            floats[current, _OPEN] = 0.0
            floats[current, _HIGH] = -math.inf
            floats[current, _LOW] = math.inf
            floats[current, _CLOSE] = 0.0
            ints[current, _FIRST] = _NO_FIRST
            ints[current, _LAST] = _NO_LAST
            for field in range(_VOLUME, _SUMS_END):
                ints[current, field] = 0
        p = price[i]
        exact = (p * size[i]) * 1e6
        whole = math.floor(exact)
        if exact - whole >= 0.5:
            whole += 1.0
        if not whole < _INT64_END:
            return OVERFLOW, current
        volume = int(whole)
        side = 1 - buy[i]
        forced = liquidation[i] != 0
        if forced:
            total_forced = ints[current, _LIQUIDATION + side] + volume
            if total_forced < 0:
                return OVERFLOW, current
            ints[current, _LIQUIDATION + side] = total_forced
        if not forced or include_liquidations:
            if t < ints[current, _FIRST]:
                ints[current, _FIRST] = t
                floats[current, _OPEN] = p
            if t >= ints[current, _LAST]:
                ints[current, _LAST] = t
                floats[current, _CLOSE] = p
            if p > floats[current, _HIGH]:
                floats[current, _HIGH] = p
            if p < floats[current, _LOW]:
                floats[current, _LOW] = p
            total_volume = ints[current, _VOLUME + side] + volume
            if total_volume < 0:
                return OVERFLOW, current
            ints[current, _VOLUME + side] = total_volume
            ints[current, _COUNT + side] += count[i] if counted else 1
        i += 1
    return i, used


@kernel("int64(int64[:,::1],float64[:,::1])")
def fold_candles(ints, floats):  # type: ignore[no-untyped-def]
    """Merges candles of the same time, which stand together in file order, in place.

    Returns how many are left, at the front; or -1 less the place of a candle whose sum overflows.
    """
    if len(ints) == 0:
        return 0
    kept = 0
    for i in range(1, len(ints)):
        if ints[i, _TIME] != ints[kept, _TIME]:
            kept += 1
            if kept != i:
                for field in range(_SUMS_END):
                    ints[kept, field] = ints[i, field]
            continue
        if ints[i, _FIRST] < ints[kept, _FIRST]:
            ints[kept, _FIRST] = ints[i, _FIRST]
            floats[kept, _OPEN] = floats[i, _OPEN]
        if ints[i, _LAST] >= ints[kept, _LAST] and ints[i, _LAST] != _NO_LAST:
            ints[kept, _LAST] = ints[i, _LAST]
            floats[kept, _CLOSE] = floats[i, _CLOSE]
        floats[kept, _HIGH] = max(floats[kept, _HIGH], floats[i, _HIGH])
        floats[kept, _LOW] = min(floats[kept, _LOW], floats[i, _LOW])
        for field in range(_VOLUME, _SUMS_END):
            total = ints[kept, field] + ints[i, field]
            if total < 0:
                return -1 - kept
            ints[kept, field] = total
    return kept + 1
