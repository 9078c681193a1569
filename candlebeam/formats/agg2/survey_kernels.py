"""The first look at the rows of a day: the steps of its numbers, ids out of order, and holding.

All in one pass, since taking rows apart costs as much as any of it.
"""

from __future__ import annotations

import numpy as np

from candlebeam.formats.agg2.held_kernels import (
    COUNT_SHIFT,
    HELD_ROWS,
    HELD_WORDS,
    MAKER_SHIFT,
    NUMBER_BITS,
    OFF_BIAS,
    OFF_BITS,
    ORIGIN,
    PRICE_EXPONENT,
    REASON_SHIFT,
    SIZE_BITS,
    SIZE_EXPONENT,
    STRETCHES,
    TIME_BITS,
    UNITS,
    begin_stretch,
    held_numbers,
)
from candlebeam.formats.agg2.kernels import (
    COUNT_MASK,
    FLAG_SHIFT,
    NO_REASON,
    SIDE_MASK,
    TS_SHIFT,
    WORDS,
    first_failure,
    maker_of,
    time_of,
)
from candlebeam.kernels import callee, kernel
from candlebeam.model import Int64Array
from candlebeam.rules.step_kernels import (
    EXACT_END,
    EXPONENT,
    MAX_EXPONENT,
    NOT_TRUNCATED,
    PLAIN,
    STATE_SIZE,
    holds,
    nearest_multiple,
    next_exponent,
    vote_unstepped,
)

# Places in the state of a survey, behind the two searches for steps.
PRICE_STATE = 0
SIZE_STATE = STATE_SIZE
HIGHEST_ID = 2 * STATE_SIZE  #: of the rows so far; 0 at the start
SURVEY_SIZE = 2 * STATE_SIZE + 1

_STEPS = np.array([10.0**n for n in range(MAX_EXPONENT + 1)])


@callee
def _end(search: Int64Array) -> int:
    """The values from 1 up to below this have a say; none do once that is settled."""
    return 0 if search[EXPONENT] == 0 and search[NOT_TRUNCATED] != 0 else EXACT_END


@callee
def _vote(value: int, search: Int64Array) -> None:
    """Takes a value into account that the step so far does not explain, or that has none."""
    search[EXPONENT] = next_exponent(value, search[EXPONENT])
    if search[EXPONENT] > 0:
        step = _STEPS[search[EXPONENT]]
        if nearest_multiple(value, step, 1.0 / step) != value:
            search[PLAIN] = 0
    else:
        vote_unstepped(value, search)


@kernel(
    "int64(int64[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64[:, ::1])"
)
def survey_rows(
    words: Int64Array,
    layout: Int64Array,
    state: Int64Array,
    late_ids: Int64Array,
    held: Int64Array,
    holding: Int64Array,
    stretches: Int64Array,
) -> int:
    """Finds the steps of prices and quantities, and trade ids that are out of order; holds rows.

    Only rows that can be trades have a say about steps.

    Args:
        words: whole rows, the next ones of a day.
        state: SURVEY_SIZE values; updated.
        late_ids: takes the ids other than 0 that are not above all before them; as long as there
            are rows.
        held, holding, stretches: the rows of the day that are held so far, and what is known of
            them; these are put behind them. If that cannot be done, holding[HELD_ROWS] is -1 from
            then on.

    Returns:
        How many ids it took.
    """
    flag_shift = layout[FLAG_SHIFT]
    ts_shift = layout[TS_SHIFT]
    side_shift = 64 - ts_shift
    side_mask = layout[SIDE_MASK]
    count_mask = layout[COUNT_MASK]
    rows = len(words) // WORDS
    prices = state[PRICE_STATE : PRICE_STATE + STATE_SIZE]
    sizes = state[SIZE_STATE : SIZE_STATE + STATE_SIZE]
    price_step, size_step = _STEPS[prices[EXPONENT]], _STEPS[sizes[EXPONENT]]
    price_inverse, size_inverse = 1.0 / price_step, 1.0 / size_step
    price_plain, size_plain = prices[PLAIN], sizes[PLAIN]
    price_end, size_end = _end(prices), _end(sizes)
    highest = np.uint64(state[HIGHEST_ID])
    late = 0
    first = holding[HELD_ROWS]
    holds_rows = first >= 0 and HELD_WORDS * (first + rows) <= len(held)
    stretch = stretches[holding[STRETCHES] - 1]
    price_unit, size_unit = UNITS[stretch[PRICE_EXPONENT]], UNITS[stretch[SIZE_EXPONENT]]
    price_part, size_part = 1.0 / float(price_unit), 1.0 / float(size_unit)
    size_bits, origin = stretch[SIZE_BITS], stretch[ORIGIN]
    for row in range(rows):
        at, to = WORDS * row, HELD_WORDS * (first + row)
        trade_id = np.uint64(words[at])
        if trade_id > highest:
            highest = trade_id
        elif trade_id != np.uint64(0):
            late_ids[late] = words[at]
            late += 1
        price, size, fifth, sixth = words[at + 1], words[at + 2], words[at + 4], words[at + 5]
        ts = time_of(fifth, sixth, ts_shift)
        maker = maker_of(fifth, flag_shift)
        reason = first_failure(ts, price, maker, sixth >> side_shift, side_mask)
        if reason != NO_REASON:
            if holds_rows:
                held[to] = 0
                held[to + 1] = (reason + 1) << REASON_SHIFT
            continue
        if 0 < price < price_end:
            if price_step > 1.0 and holds(price, price_step, price_inverse):
                price_plain &= int(nearest_multiple(price, price_step, price_inverse) == price)
            else:
                prices[PLAIN] = price_plain
                _vote(price, prices)
                price_plain, price_end = prices[PLAIN], _end(prices)
                price_step = _STEPS[prices[EXPONENT]]
                price_inverse = 1.0 / price_step
        if 0 < size < size_end:
            if size_step > 1.0 and holds(size, size_step, size_inverse):
                size_plain &= int(nearest_multiple(size, size_step, size_inverse) == size)
            else:
                sizes[PLAIN] = size_plain
                _vote(size, sizes)
                size_plain, size_end = sizes[PLAIN], _end(sizes)
                size_step = _STEPS[sizes[EXPONENT]]
                size_inverse = 1.0 / size_step
        if not holds_rows:
            continue
        # What `held_numbers` does, for numbers as they usually are.
        price_multiple = int(np.rint(float(price) * price_part))
        size_multiple = int(np.rint(float(size) * size_part))
        price_off = price - price_multiple * price_unit + OFF_BIAS
        size_off = size - size_multiple * size_unit + OFF_BIAS
        unfit = (
            (price | size) >> 53
            | (price_off | size_off) >> OFF_BITS
            | price_multiple >> (NUMBER_BITS - OFF_BITS - size_bits)
            | size_multiple >> (size_bits - OFF_BITS)
            | (ts - origin) >> TIME_BITS
        )
        numbers = (price_multiple << OFF_BITS | price_off) << size_bits
        numbers |= size_multiple << OFF_BITS | size_off
        if unfit != 0:
            numbers = held_numbers(price, size, ts, stretch)
            if numbers < 0:
                if not begin_stretch(first + row, price, size, ts, holding, stretches):
                    holds_rows = False
                    continue
                stretch = stretches[holding[STRETCHES] - 1]
                price_unit = UNITS[stretch[PRICE_EXPONENT]]
                size_unit = UNITS[stretch[SIZE_EXPONENT]]
                price_part, size_part = 1.0 / float(price_unit), 1.0 / float(size_unit)
                size_bits, origin = stretch[SIZE_BITS], stretch[ORIGIN]
                numbers = held_numbers(price, size, ts, stretch)
        held[to] = numbers
        trades = (fifth & count_mask) << COUNT_SHIFT
        held[to + 1] = trades | maker << MAKER_SHIFT | (ts - origin)
    prices[PLAIN], sizes[PLAIN] = price_plain, size_plain
    state[HIGHEST_ID] = np.int64(highest)
    holding[HELD_ROWS] = first + rows if holds_rows else -1
    return late
