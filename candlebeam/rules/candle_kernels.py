"""The loops behind `rules.candles`, compiled.

Candles come in as two views of one array of `BLOCK_DTYPE`, int64 and float64, each of shape
(candles, 13). Sums are checked: two volumes whose sum wraps around show it by a negative sum.
"""

from __future__ import annotations

import math

from candlebeam.kernels import callee, kernel
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


@callee
def _fold_candle(  # type: ignore[no-untyped-def]
    ts, price, size, buy, liquidation, count, step,
    include_liquidations, counted, i, ints, floats, candle
):  # fmt: skip
    """Adds trades from `i` on to a candle, as long as they belong to it.

    Returns (the place of the first that does not, whether a volume did not fit). The candle is kept
    in registers meanwhile: through memory it takes three times as long.
    """
    begin = ints[candle, _TIME]
    end = begin + step
    opened, closed = floats[candle, _OPEN], floats[candle, _CLOSE]
    high, low = floats[candle, _HIGH], floats[candle, _LOW]
    first, last = ints[candle, _FIRST], ints[candle, _LAST]
    sell_volume, buy_volume = ints[candle, _VOLUME + 1], ints[candle, _VOLUME]
    sell_count, buy_count = ints[candle, _COUNT + 1], ints[candle, _COUNT]
    # Sums of values that are not negative: once one wraps around, its sign bit shows in `wrapped`.
    wrapped = 0
    failed = False
    stop = len(ts)
    # A place from `range` is known not to be negative, which saves a test for each array.
    for place in range(i, len(ts)):
        t = ts[place]
        if t < begin or t >= end:
            stop = place
            break
        p = price[place]
        exact = (p * size[place]) * 1e6
        if not exact < _INT64_END:
            failed = True
            stop = place
            break
        # Arithmetic in place of branches: sides and fractions are as good as random.
        volume = int(exact)
        volume += int(exact - volume >= 0.5)
        bought = int(buy[place])
        forced = liquidation[place] != 0
        if forced:
            field = _LIQUIDATION + 1 - bought
            ints[candle, field] += volume
            wrapped |= ints[candle, field]
        if not forced or include_liquidations:
            if t < first:
                first = t
                opened = p
            if t >= last:
                last = t
                closed = p
            if p > high:
                high = p
            if p < low:
                low = p
            trades = count[place] if counted else 1
            bought_volume = volume * bought
            buy_volume += bought_volume
            sell_volume += volume - bought_volume
            wrapped |= buy_volume | sell_volume
            bought_trades = trades * bought
            buy_count += bought_trades
            sell_count += trades - bought_trades
    floats[candle, _OPEN], floats[candle, _CLOSE] = opened, closed
    floats[candle, _HIGH], floats[candle, _LOW] = high, low
    ints[candle, _FIRST], ints[candle, _LAST] = first, last
    ints[candle, _VOLUME + 1], ints[candle, _VOLUME] = sell_volume, buy_volume
    ints[candle, _COUNT + 1], ints[candle, _COUNT] = sell_count, buy_count
    return stop, failed or wrapped < 0


@kernel(
    "UniTuple(int64,2)(int64[::1],float64[::1],float64[::1],uint8[::1],uint8[::1],int64[::1],"
    "int64,boolean,int64,int64[:,::1],float64[:,::1],int64)"
)
def fold_trades(  # type: ignore[no-untyped-def]
    ts, price, size, buy, liquidation, count, step, include_liquidations, i, ints, floats, used
):
    """Folds trades from `i` on into candles, one a run of trades of the same candle.

    Returns (the place in the trades it came to, candles used). It stops early where `ints` has no
    room for another candle, so that where it goes on a candle begins; and with (OVERFLOW, place of
    the candle) where a volume does not fit.
    """
    total = len(ts)
    room = len(ints)
    counted = len(count) > 0
    while i < total:
        if used == room:
            return i, used
        ints[used, _TIME] = ts[i] - ts[i] % step
        floats[used, _OPEN] = 0.0
        floats[used, _HIGH] = -math.inf
        floats[used, _LOW] = math.inf
        floats[used, _CLOSE] = 0.0
        ints[used, _FIRST] = _NO_FIRST
        ints[used, _LAST] = _NO_LAST
        for field in range(_VOLUME, _SUMS_END):
            ints[used, field] = 0
        i, failed = _fold_candle(
            ts,
            price,
            size,
            buy,
            liquidation,
            count,
            step,
            include_liquidations,
            counted,
            i,
            ints,
            floats,
            used,
        )
        if failed:
            return OVERFLOW, used
        used += 1
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
