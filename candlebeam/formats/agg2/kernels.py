"""The rows of a day blob, from records to columns, compiled.

Rows are seen as six int64 words each: trade id, price, quantity, first id, and two words that hold
count, flags, time and side at places that depend on the format.
"""

from __future__ import annotations

import numpy as np

from candlebeam.formats.trade_log.usual_rows import MAX_TS, MIN_TS, VOLUME_LIMIT, VOLUME_SCALE
from candlebeam.kernels import callee, kernel
from candlebeam.model import Float64Array, Int64Array, Uint8Array
from candlebeam.rules.step_kernels import number

WORDS = 6

#: Why a row is rejected, in the order of the checks; a row's first failure counts.
REASONS = ("timestamp", "price", "side", "volume", "duplicate")
TIMESTAMP, PRICE, SIDE, VOLUME, DUPLICATE = range(len(REASONS))

# A layout says where in the last two words things stand.
COUNT_MASK = 0  #: of the count in the fifth word; all of its bits mean that many or more
FLAG_SHIFT = 1  #: of the flags in the fifth word
TS_SHIFT = 2  #: of the low bits of the time in the fifth word
SIDE_MASK = 3  #: of the side behind the time in the sixth word; 0 where there is none
LAYOUT_SIZE = 4

# Places in `control`.
ROW = 0  #: the next row of the piece; in and out
FILLED = 1  #: trades in the columns; in and out
NOTED = 2  #: rows in `rejects`; in and out
CONTROL_SIZE = 3

# Places in `totals`, which are added to.
TRADES = 0
LATE = 1
FIRST_LATE = 2
SATURATED = 3  #: trades whose count is that many or more
REJECTED = 4  #: the first of the counts by reason
TOTALS_SIZE = REJECTED + len(REASONS)

# What `take_rows` returns.
DONE = 0
COLUMNS_FULL = 1
REJECTS_FULL = 2

# Columns of `rejects`.
REJECT_ROW = 0  #: in the piece
REJECT_REASON = 1
REJECT_COLUMNS = 2

#: Times between these are in microseconds.
MIN_MICROSECONDS = MIN_TS * 1000
MAX_MICROSECONDS = MAX_TS * 1000

#: Of a row that is a trade, as far as it tells by itself.
NO_REASON = -1


@callee
def time_of(fifth: int, sixth: int, shift: int) -> int:
    """The time in ms, whatever its unit was."""
    low = (fifth >> shift) & ((1 << (64 - shift)) - 1)
    ts = low | sixth << (64 - shift)
    if MIN_MICROSECONDS < ts < MAX_MICROSECONDS:
        ts //= 1000
    return ts


@callee
def maker_of(fifth: int, shift: int) -> int:
    """1 where the buyer was the maker, which makes it a sell; else 0."""
    return (fifth >> shift) & 1


@callee
def first_failure(ts: int, price: int, maker: int, side: int, mask: int) -> int:
    """Why a row is no trade by what it says, before its numbers are known."""
    if not MIN_TS < ts < MAX_TS:
        return TIMESTAMP
    if price == 0:
        return PRICE
    if (side ^ (1 - maker)) & mask != 0:
        return SIDE
    return NO_REASON


@kernel(
    "int64(int64[::1], int64[::1], float64, float64, uint8[::1], int64, int64,"
    " int64[::1], float64[::1], float64[::1], uint8[::1], int64[::1],"
    " int64[:, ::1], int64[::1], int64[::1])"
)
def take_rows(
    words: Int64Array,
    layout: Int64Array,
    price_step: float,
    size_step: float,
    repeated: Uint8Array,
    from_ts: int,
    known: int,
    ts: Int64Array,
    price: Float64Array,
    size: Float64Array,
    buy: Uint8Array,
    count: Int64Array,
    rejects: Int64Array,
    control: Int64Array,
    totals: Int64Array,
) -> int:
    """Reads rows into columns, as far as those reach.

    Args:
        words: whole rows, from control[ROW] on.
        price_step, size_step: as `step_kernels.number` takes them.
        repeated: 1 for each row that an earlier one equals; of length 0 if there is none.
        from_ts: rows older than this (ms) are not kept, and are late from row `known` on.
        ts, price, size, buy, count: the columns to fill from control[FILLED] on.
        rejects: rejected rows are noted here from control[NOTED] on; of length 0 to only count.

    Returns:
        DONE, or why it stopped. Called again, it goes on from there.
    """
    count_mask = layout[COUNT_MASK]
    flag_shift = layout[FLAG_SHIFT]
    ts_shift = layout[TS_SHIFT]
    side_shift = 64 - ts_shift
    side_mask = layout[SIDE_MASK]
    price_inverse = 1.0 / price_step if price_step != 0.0 else 0.0
    size_inverse = 1.0 / size_step if size_step != 0.0 else 0.0
    keep_rejects = len(rejects)
    capacity = np.uint64(len(ts))
    one = np.uint64(1)
    filled = np.uint64(control[FILLED])
    before = filled
    noted = control[NOTED]
    saturated = 0
    rows = len(words) // WORDS
    stop = rows
    status = DONE
    for row in range(control[ROW], rows):
        if filled == capacity:
            status = COLUMNS_FULL
            stop = row
            break
        at = WORDS * row
        raw_price, fifth, sixth = words[at + 1], words[at + 4], words[at + 5]
        row_ts = time_of(fifth, sixth, ts_shift)
        maker = maker_of(fifth, flag_shift)
        reason = first_failure(row_ts, raw_price, maker, sixth >> side_shift, side_mask)
        row_price = number(raw_price, price_step, price_inverse)
        row_size = number(words[at + 2], size_step, size_inverse)
        if reason == NO_REASON:
            if not (row_price * row_size) * VOLUME_SCALE < VOLUME_LIMIT:
                reason = VOLUME
            elif len(repeated) > 0 and repeated[row] != 0:
                reason = DUPLICATE
        if reason >= 0:
            if keep_rejects > 0:
                if noted == keep_rejects:
                    status = REJECTS_FULL
                    stop = row
                    break
                rejects[noted, REJECT_ROW] = row
                rejects[noted, REJECT_REASON] = reason
                noted += 1
            totals[REJECTED + reason] += 1
            continue
        trades = fifth & count_mask
        ts[filled] = row_ts
        price[filled] = row_price
        size[filled] = row_size
        buy[filled] = 1 - maker
        count[filled] = trades
        if row_ts >= from_ts:
            filled += one
            saturated += int(trades == count_mask)
        elif row >= known:
            totals[LATE] += 1
            totals[FIRST_LATE] = min(totals[FIRST_LATE], row_ts)
    control[ROW] = stop
    control[FILLED] = np.int64(filled)
    control[NOTED] = noted
    totals[TRADES] += np.int64(filled - before)
    totals[SATURATED] += saturated
    return status
