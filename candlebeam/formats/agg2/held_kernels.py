"""Rows of a day as they are held in memory until the steps of its numbers are known: 16 bytes each.

    first word    price and quantity: each a multiple of a power of ten, and what it is off by
    second word   time in 28 bits, reason of rejection in 3, maker in 1, count in 32

A stored value is `multiple * 10**exponent + off`, off being from -2 to 1, so none is changed. The
exponents, how many bits the quantity has, and where time begins are those of a stretch of rows; a
row that they do not suit begins a new stretch.
"""

from __future__ import annotations

import numpy as np

from candlebeam.formats.agg2.kernels import (
    COLUMNS_FULL,
    DONE,
    DUPLICATE,
    FILLED,
    FIRST_LATE,
    LATE,
    NO_REASON,
    REJECTED,
    ROW,
    SATURATED,
    TRADES,
    VOLUME,
)
from candlebeam.formats.trade_log.usual_rows import VOLUME_LIMIT, VOLUME_SCALE
from candlebeam.kernels import callee, kernel
from candlebeam.model import Float64Array, Int64Array, Uint8Array
from candlebeam.rules.step_kernels import EXACT_END, MAX_EXPONENT, SCALE, number

HELD_WORDS = 2
#: Stretches that a day can have; if it needs more, it is not held.
MAX_STRETCHES = 64

# Columns of `stretches`.
FIRST_ROW = 0  #: in the day
PRICE_EXPONENT = 1
SIZE_EXPONENT = 2
SIZE_BITS = 3  #: of the first word; the other NUMBER_BITS are the price's
ORIGIN = 4  #: ms; the times are at it or behind
STRETCH_SIZE = 5
#: A day's first stretch: of what is rejected before the first trade.
FIRST_STRETCH = (0, MAX_EXPONENT, MAX_EXPONENT, 31, 0)

# Places in the state of holding.
HELD_ROWS = 0  #: -1 if the day cannot be held
STRETCHES = 1  #: at least one
GREATEST_PRICE = 2  #: of the rows that have begun a stretch
GREATEST_SIZE = 3
HOLDING_SIZE = 4

# In the first word.
NUMBER_BITS = 63  #: so that it is never negative
OFF_BITS = 2  #: of price and quantity each, the lowest ones
OFF_BIAS = 2
_VALUE_BITS = 62
# In the second word.
TIME_BITS = 28
REASON_SHIFT = 28  #: a reason stands as one more than it is
MAKER_SHIFT = 31
COUNT_SHIFT = 32

#: Powers of ten.
UNITS = np.array([10**n for n in range(MAX_EXPONENT + 1)], np.int64)

_OFF_MASK = (1 << OFF_BITS) - 1
_TIME_MASK = (1 << TIME_BITS) - 1
_REASON_MASK = 7
_COUNT_MASK = (1 << 32) - 1
_SCALE = float(SCALE)


@callee
def _multiple(value: int, exponent: int) -> int:
    """How many times the power of ten is in the multiple of it from which a value is off."""
    unit = int(UNITS[exponent])
    return (value + OFF_BIAS) // unit if exponent > 0 else value


@callee
def _exponent(value: int, exponent: int) -> int:
    """The greatest exponent, at most the given one, at which a value is off by no more than fits.

    At 0 every value is a multiple.
    """
    while True:
        off = value - _multiple(value, exponent) * UNITS[exponent] + OFF_BIAS
        if off >> OFF_BITS == 0:
            return exponent
        exponent -= 1


@callee
def _bits(value: int, exponent: int) -> int:
    """Bits that no value up to this one exceeds when it is held."""
    multiple = value // UNITS[exponent] + 1
    bits = OFF_BITS
    while multiple != 0:
        multiple >>= 1
        bits += 1
    return bits


@callee
def begin_stretch(
    row: int, price: int, size: int, ts: int, state: Int64Array, stretches: Int64Array
) -> bool:
    """Begins a stretch with a row; False if that cannot be held with what came before."""
    count = state[STRETCHES]
    if count == MAX_STRETCHES or (price | size) >> _VALUE_BITS != 0:
        return False
    before, found = stretches[count - 1], stretches[count]
    state[GREATEST_PRICE] = max(state[GREATEST_PRICE], price)
    state[GREATEST_SIZE] = max(state[GREATEST_SIZE], size)
    price_exponent = _exponent(price, before[PRICE_EXPONENT])
    size_exponent = _exponent(size, before[SIZE_EXPONENT])
    price_bits = _bits(state[GREATEST_PRICE], price_exponent)
    size_bits = _bits(state[GREATEST_SIZE], size_exponent)
    spare = NUMBER_BITS - price_bits - size_bits
    if spare < 0:
        return False
    found[PRICE_EXPONENT], found[SIZE_EXPONENT] = price_exponent, size_exponent
    found[FIRST_ROW] = row
    found[SIZE_BITS] = size_bits + spare // 2
    found[ORIGIN] = before[ORIGIN]
    if (ts - before[ORIGIN]) >> TIME_BITS != 0:
        found[ORIGIN] = ts - (1 << (TIME_BITS - 1))
    state[STRETCHES] = count + 1
    return True


@callee
def _code(value: int, exponent: int) -> int:
    """A number as it is held, whatever it takes; -1 if it is off by more than fits."""
    multiple = _multiple(value, exponent)
    off = int(value - multiple * UNITS[exponent] + OFF_BIAS)
    if value < 0 or off >> OFF_BITS != 0 or multiple >> (NUMBER_BITS - OFF_BITS) != 0:
        return -1
    return multiple << OFF_BITS | off


@callee
def held_numbers(price: int, size: int, ts: int, stretch: Int64Array) -> int:
    """The first word of a row; -1 if it does not suit the stretch."""
    price_code = _code(price, stretch[PRICE_EXPONENT])
    size_code = _code(size, stretch[SIZE_EXPONENT])
    size_bits = int(stretch[SIZE_BITS])
    unfit = price_code >> (NUMBER_BITS - size_bits) | size_code >> size_bits
    if unfit | (ts - stretch[ORIGIN]) >> TIME_BITS != 0:
        return -1
    return price_code << size_bits | size_code


@callee
def _value(code: int, step: int) -> int:
    """The stored value behind a number as it is held."""
    return (code >> OFF_BITS) * step + (code & _OFF_MASK) - OFF_BIAS


@callee
def _direct_end(step: int, found: float) -> int:
    """Below this, multiples of a step are the numbers that were meant, the day's step being found.

    Its numbers are multiples of it then, of which every stored value is next to the right one.
    """
    return EXACT_END // step if 10.0 <= found <= float(step) else 0


@kernel(
    "int64(int64[::1], int64[::1], float64, float64, uint8[::1], int64, int64, int64,"
    " int64[::1], float64[::1], float64[::1], uint8[::1], int64[::1], int64[::1], int64[::1])"
)
def take_held(
    held: Int64Array,
    stretch: Int64Array,
    price_step: float,
    size_step: float,
    repeated: Uint8Array,
    most: int,
    from_ts: int,
    known: int,
    ts: Int64Array,
    price: Float64Array,
    size: Float64Array,
    buy: Uint8Array,
    count: Int64Array,
    control: Int64Array,
    totals: Int64Array,
) -> int:
    """Reads the rows of a stretch into columns, as `kernels.take_rows` does rows as they were.

    Args:
        held, stretch: its rows, from control[ROW] on, and what is to be known of them.
        most: the count that stands for that many or more.

    Returns:
        DONE, or COLUMNS_FULL. Called again, it goes on from there.
    """
    price_unit, size_unit = UNITS[stretch[PRICE_EXPONENT]], UNITS[stretch[SIZE_EXPONENT]]
    price_scale, size_scale = float(price_unit), float(size_unit)
    price_end = _direct_end(price_unit, price_step)
    size_end = _direct_end(size_unit, size_step)
    price_inverse = 1.0 / price_step if price_step != 0.0 else 0.0
    size_inverse = 1.0 / size_step if size_step != 0.0 else 0.0
    size_bits = stretch[SIZE_BITS]
    size_mask = (1 << size_bits) - 1
    origin = stretch[ORIGIN]
    capacity = np.uint64(len(ts))
    one = np.uint64(1)
    filled = np.uint64(control[FILLED])
    before = filled
    saturated = 0
    rows = len(held) // HELD_WORDS
    stop = rows
    status = DONE
    for row in range(control[ROW], rows):
        if filled == capacity:
            status = COLUMNS_FULL
            stop = row
            break
        numbers, rest = held[HELD_WORDS * row], held[HELD_WORDS * row + 1]
        reason = (rest >> REASON_SHIFT & _REASON_MASK) - 1
        price_code, size_code = numbers >> size_bits, numbers & size_mask
        if price_code >> OFF_BITS < price_end:
            row_price = float(price_code >> OFF_BITS) * price_scale / _SCALE
        else:
            row_price = number(_value(price_code, price_unit), price_step, price_inverse)
        if size_code >> OFF_BITS < size_end:
            row_size = float(size_code >> OFF_BITS) * size_scale / _SCALE
        else:
            row_size = number(_value(size_code, size_unit), size_step, size_inverse)
        if reason == NO_REASON:
            if not (row_price * row_size) * VOLUME_SCALE < VOLUME_LIMIT:
                reason = VOLUME
            elif len(repeated) > 0 and repeated[row] != 0:
                reason = DUPLICATE
        if reason != NO_REASON:
            totals[REJECTED + reason] += 1
            continue
        row_ts = origin + (rest & _TIME_MASK)
        trades = rest >> COUNT_SHIFT & _COUNT_MASK
        ts[filled] = row_ts
        price[filled] = row_price
        size[filled] = row_size
        buy[filled] = 1 - (rest >> MAKER_SHIFT & 1)
        count[filled] = trades
        if row_ts >= from_ts:
            filled += one
            saturated += int(trades == most)
        elif row >= known:
            totals[LATE] += 1
            totals[FIRST_LATE] = min(totals[FIRST_LATE], row_ts)
    control[ROW] = stop
    control[FILLED] = np.int64(filled)
    totals[TRADES] += np.int64(filled - before)
    totals[SATURATED] += saturated
    return status
