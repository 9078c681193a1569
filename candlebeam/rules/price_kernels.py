"""The loops behind `rules.price_scale`, compiled.

Candles come in as a float64 view of `BLOCK_DTYPE`, of shape (candles, 13).
"""

from __future__ import annotations

import math

import numpy as np

from candlebeam.kernels import kernel
from candlebeam.model import BLOCK_DTYPE

_FIELD = {name: place for place, name in enumerate(BLOCK_DTYPE.names or ())}
_OPEN, _HIGH = _FIELD["open"], _FIELD["high"]
_INT32_MAX = 2147483647.0
_MAX_DECIMALS = 308
_NINE_DIGITS = 1e9

#: 1e0 to 1e308, for `decimals_needed`.
POWERS_OF_TEN = np.array([float(f"1e{power}") for power in range(_MAX_DECIMALS + 1)])


@kernel("Tuple((int64,float64,int64))(float64[:,::1],float64[::1],float64[::1])")
def decimals_needed(candles, powers, doubtful):  # type: ignore[no-untyped-def]
    """The most decimals of any price rounded to nine significant digits, and the highest price.

    Candles without prices have a high of -inf. Prices that stand so close to a tie that float64
    cannot tell are left out and put into `doubtful`; the third result is how many there were, which
    may be more than it holds.
    """
    decimals = 4
    highest = 0.0
    doubts = 0
    for i in range(len(candles)):
        high = candles[i, _HIGH]
        if high == -math.inf:
            continue
        highest = max(highest, high)
        for field in range(_OPEN, _OPEN + 4):
            price = candles[i, field]
            scaled = price * powers[decimals]
            # At or above nine digits, everything that counts stands before the last decimal kept.
            if scaled >= _NINE_DIGITS:
                continue
            if abs(scaled - math.floor(scaled + 0.5)) < 0.49e-9 * scaled:
                continue
            # The last of nine digits stands at this decimal.
            last = 8 - int(math.floor(math.log10(price)))
            needed = decimals
            doubt = False
            while needed < last and needed < _MAX_DECIMALS:
                scaled = price * powers[needed]
                off = abs(scaled - math.floor(scaled + 0.5))
                half_digit = 0.5 * 10.0 ** float(needed - last)
                if abs(off / half_digit - 1.0) < 1e-5:
                    doubt = True
                    break
                if off < half_digit:
                    break
                needed += 1
            if doubt:
                if doubts < len(doubtful):
                    doubtful[doubts] = price
                doubts += 1
            else:
                decimals = needed
    return decimals, highest, doubts


@kernel("void(float64[:,::1],float64,boolean,int32[:,::1],int64[::1])")
def quantize_prices(candles, power, multiply, prices, notes):  # type: ignore[no-untyped-def]
    """Open, high, low and close at a scale, rounded half up; zeros where there are no prices.

    `notes[0]` becomes the place of the first candle with a price that the inverse does not give
    back, `notes[1]` that of the first whose high does not fit in int32: nothing more is written.
    """
    for i in range(len(candles)):
        high = candles[i, _HIGH]
        if high == -math.inf:
            continue
        for place in (1, 0, 2, 3):
            price = candles[i, _OPEN + place]
            scaled = price * power if multiply else price / power
            whole = math.floor(scaled)
            if scaled - whole >= 0.5:
                whole += 1.0
            if not whole <= _INT32_MAX:
                notes[1] = i
                return
            prices[i, place] = int(whole)
            if (whole / power if multiply else whole * power) != price:
                notes[0] = min(notes[0], i)
