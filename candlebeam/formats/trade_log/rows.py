"""The rows of a trade log, from bytes to columns: one loop over the text of many files.

The loop reads a row of the usual shape (13-digit timestamp, single spaces, plain numbers) straight
from 64-byte masks of where its digits end, without a branch that depends on the data. Any other
row goes the long way round, under the full rules.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from candlebeam.formats.decimal_numbers import (
    NO_NUMBER,
    PARSED,
    UNDECIDED,
    parse_number,
)
from candlebeam.formats.text_lines import find_line_feed
from candlebeam.formats.trade_log.usual_rows import (
    MAX_TS,
    MIN_TS,
    VOLUME_LIMIT,
    VOLUME_SCALE,
    usual_rows,
)
from candlebeam.kernels import Deferred, callee, kernel
from candlebeam.model import Float64Array, Int64Array, Uint8Array

#: Why a row is rejected, in the order of the checks; a row's first failure counts.
REASONS = ("length", "fields", "timestamp", "price", "size", "side", "liquidation", "volume")
(
    LENGTH,
    FIELDS,
    TIMESTAMP,
    PRICE,
    SIZE,
    SIDE,
    LIQUIDATION,
    VOLUME,
) = range(len(REASONS))

#: Bytes of the longest row, without its line feed (but with a CR before that).
MAX_ROW = 1 << 20
# Columns of `texts`: one row of int64 a file whose text, or a part of it, is in the buffer.
POS = 0  #: where the first row that is not yet read begins in the buffer
END = 1  #: where the file's text in the buffer ends
SCANNED = 2  #: up to here no line feed was found
BASE = 3  #: a place in the buffer plus this is the place in the file's text
LINES = 4  #: rows seen so far
TAIL = 5  #: what to do with a row without line feed: one of the TAIL constants
SEEN = 6  #: place in the text up to which rows are known to an earlier run
SKIPPING = 7  #: inside a row that is too long: one of the SKIP constants
TRADES = 8
LATE = 9
FIRST_LATE = 10
TEXT_BYTES = 11  #: place in the text behind the last line feed
REJECTED = 12  #: the first of the counts by reason
TEXT_COLUMNS = REJECTED + len(REASONS)

TAIL_WAITS = 0  # more text may come
TAIL_IS_ROW = 1  # the text is complete
TAIL_IS_TORN = 2  # the text was cut off: what follows the last line feed is nothing

SKIP_NONE = 0
SKIP_BLANK = 1  # only blanks so far
SKIP_ROW = 2
SKIP_BLANK_CR = 3  # only blanks and then one CR, which may belong to the line end

# Places in `control`.
TEXT = 0  #: which text is being read; in and out
FILLED = 1  #: trades in the columns; in and out
NOTED = 2  #: rows in `rejects`; in and out
NUMBER_START = 3  #: out, for ASK_NUMBER: where the number stands
NUMBER_END = 4
NUMBER_FIELD = 5  #: 0 timestamp, 1 price, 2 size
CONTROL_SIZE = 6

# What the kernel returns.
DONE = 0  #: all texts are read as far as they go
COLUMNS_FULL = 1
REJECTS_FULL = 2
ASK_NUMBER = 3  #: put float() of the number into `answers` and its start into `answered`, go on
LONG_ROW = 4  #: the row at POS is too long for the buffer: take what is wanted of it, go on

# Columns of `rejects`.
REJECT_TEXT = 0
REJECT_LINE = 1  #: counted from 1
REJECT_REASON = 2
REJECT_START = 3  #: in the buffer; -1 for a row that has gone through it
REJECT_END = 4
REJECT_COLUMNS = 5

_blanks: Any = Deferred("candlebeam.formats.byte_words", "blanks")
_trailing_zeros: Any = Deferred("candlebeam.formats.byte_words", "trailing_zeros")

_ALL_ONES = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_NO_WORD = np.uint64(0)
_NO_REASON = -1
_ASK = -2


@callee
def _number(
    text: Uint8Array,
    start: int,
    end: int,
    field: int,
    control: Int64Array,
    answered: Int64Array,
    answers: Float64Array,
) -> tuple[int, float]:
    verdict, value = parse_number(text, start, end)
    if verdict == UNDECIDED:
        if answered[field] == start:
            return PARSED, answers[field]
        control[NUMBER_START] = start
        control[NUMBER_END] = end
        control[NUMBER_FIELD] = field
    return verdict, value


@callee
def _any_row(
    text: Uint8Array,
    start: int,
    end: int,
    control: Int64Array,
    answered: Int64Array,
    answers: Float64Array,
) -> tuple[int, Any, float, float, Any, Any]:
    """A row that is not blank, without its line end: (reason, ts, price, size, buy, liquidation).

    The reason is _NO_REASON for a trade and _ASK where a number needs `float()`.
    """
    # Blanks of the first 64 bytes; the end of a short row is as good as one.
    blank = _blanks(text, start)
    short = end - start < 64
    if short:
        blank |= _ALL_ONES << np.uint64(end - start)
    fields = 0
    s0 = e0 = s1 = e1 = s2 = e2 = s3 = e3 = s4 = e4 = 0
    at = start
    while True:
        if short:
            others = ~blank & (_ALL_ONES << np.uint64(at - start))
            if others == _NO_WORD:
                break
            place = _trailing_zeros(others)
            begin = start + place
            at = start + _trailing_zeros(blank & (_ALL_ONES << np.uint64(place)))
        else:
            while at < end and (text[at] == 0x20 or text[at] == 0x09):
                at += 1
            if at == end:
                break
            begin = at
            while at < end and text[at] != 0x20 and text[at] != 0x09:
                at += 1
        if fields == 0:
            s0, e0 = begin, at
        elif fields == 1:
            s1, e1 = begin, at
        elif fields == 2:
            s2, e2 = begin, at
        elif fields == 3:
            s3, e3 = begin, at
        elif fields == 4:
            s4, e4 = begin, at
        else:
            return FIELDS, 0, 0.0, 0.0, 0, 0
        fields += 1
    if fields < 4:
        return FIELDS, 0, 0.0, 0.0, 0, 0
    verdict, time = _number(text, s0, e0, 0, control, answered, answers)
    if verdict == UNDECIDED:
        return _ASK, 0, 0.0, 0.0, 0, 0
    time = np.floor(time)
    if verdict == NO_NUMBER or not MIN_TS < time < MAX_TS:
        return TIMESTAMP, 0, 0.0, 0.0, 0, 0
    verdict, price = _number(text, s1, e1, 1, control, answered, answers)
    if verdict == UNDECIDED:
        return _ASK, 0, 0.0, 0.0, 0, 0
    if verdict == NO_NUMBER or not 0.0 < price < np.inf:
        return PRICE, 0, 0.0, 0.0, 0, 0
    verdict, size = _number(text, s2, e2, 2, control, answered, answers)
    if verdict == UNDECIDED:
        return _ASK, 0, 0.0, 0.0, 0, 0
    if verdict == NO_NUMBER or not 0.0 <= size < np.inf:
        return SIZE, 0, 0.0, 0.0, 0, 0
    if e3 - s3 != 1 or (text[s3] != 0x30 and text[s3] != 0x31):
        return SIDE, 0, 0.0, 0.0, 0, 0
    liquidation = 0
    if fields == 5:
        if e4 - s4 != 1 or (text[s4] != 0x30 and text[s4] != 0x31):
            return LIQUIDATION, 0, 0.0, 0.0, 0, 0
        liquidation = text[s4] & 1
    # A volume this great is whole, so rounding does not change it.
    if not (price * size) * VOLUME_SCALE < VOLUME_LIMIT:
        return VOLUME, 0, 0.0, 0.0, 0, 0
    return _NO_REASON, np.int64(time), price, size, np.int64(text[s3] & 1), np.int64(liquidation)


@callee
def _skip_state(text: Uint8Array, start: int, end: int, state: int) -> int:
    """The state of skipping a row after text[start:end] of it, which holds no line feed."""
    at = start
    while at < end and state != SKIP_ROW:
        if state == SKIP_BLANK_CR:
            state = SKIP_ROW
        elif text[at] == 0x0D:
            state = SKIP_BLANK_CR
        elif text[at] != 0x20 and text[at] != 0x09:
            state = SKIP_ROW
        at += 1
    return state


@kernel(
    "int64(uint8[::1], int64[:, ::1], int64, int64, int64[::1], float64[::1], float64[::1],"
    " uint8[::1], uint8[::1], int64[:, ::1], int64[::1], int64[::1], float64[::1])"
)
def parse_rows(
    text: Uint8Array,
    texts: Int64Array,
    text_count: int,
    from_ts: int,
    ts: Int64Array,
    price: Float64Array,
    size: Float64Array,
    buy: Uint8Array,
    liquidation: Uint8Array,
    rejects: Int64Array,
    control: Int64Array,
    answered: Int64Array,
    answers: Float64Array,
) -> int:
    """Reads the rows of several texts into columns, as far as both reach.

    Args:
        text: the buffer, with `WORD_PAD` readable bytes behind the last text.
        texts: one row of TEXT_COLUMNS a text; updated.
        text_count: how many of these count.
        from_ts: rows older than this (ms) are not kept, and are late where they are new.
        ts, price, size, buy, liquidation: the columns to fill from control[FILLED] on.
        rejects: rejected rows are noted here from control[NOTED] on; of length 0 to only count.
        control: CONTROL_SIZE values; set all to 0 at the start, and TEXT to 0 for new texts.
        answered, answers: three values each, for ASK_NUMBER; `answered` is -1 at the start.

    Returns:
        DONE, or why it stopped: see the constants. Called again, it goes on from there.
    """
    capacity = len(ts)
    keep_rejects = len(rejects)
    filled = control[FILLED]
    noted = control[NOTED]
    status = DONE
    index = control[TEXT]
    while index < text_count and status == DONE:
        pos = texts[index, POS]
        end = texts[index, END]
        base = texts[index, BASE]
        seen = texts[index, SEEN]
        tail = texts[index, TAIL]
        lines = texts[index, LINES]
        skipping = texts[index, SKIPPING]
        # What is left of a row that is skipped must not be taken for a row.
        usual_end = end if skipping == SKIP_NONE else 0
        before = filled
        torn_at = -1
        if pos + base == 0 and skipping == SKIP_NONE:
            if end - pos < 3 and tail == TAIL_WAITS:
                index += 1
                continue
            if (
                end - pos >= 3
                and text[pos] == 0xEF
                and text[pos + 1] == 0xBB
                and text[pos + 2] == 0xBF
            ):
                pos += 3
        while True:
            if filled == capacity:
                status = COLUMNS_FULL
                break
            pos, slot, new_lines, late_ts = usual_rows(
                text, pos, usual_end, from_ts, seen - base, ts, price, size, buy, liquidation,
                np.uint64(filled),
            )  # fmt: skip
            filled = np.int64(slot)
            lines += new_lines
            if late_ts != 0:
                texts[index, LATE] += 1
                texts[index, FIRST_LATE] = min(texts[index, FIRST_LATE], late_ts)
            if filled == capacity or late_ts != 0:
                continue
            stop = find_line_feed(text, max(pos, texts[index, SCANNED]), end)
            whole = stop < end
            if not whole:
                if tail == TAIL_IS_TORN:
                    torn_at = pos
                    pos = end
                    break
                if tail == TAIL_WAITS:
                    texts[index, SCANNED] = end
                    if skipping != SKIP_NONE:
                        texts[index, SKIPPING] = _skip_state(text, pos, end, skipping)
                        torn_at = pos
                        pos = end
                    elif end - pos > MAX_ROW:
                        # Entered with the row still there, so that the caller sees its start.
                        texts[index, SKIPPING] = SKIP_BLANK
                        status = LONG_ROW
                    break
                if pos == end and skipping == SKIP_NONE:
                    break
            reason = _NO_REASON
            if skipping != SKIP_NONE:
                skipping = _skip_state(text, pos, stop, skipping)
                if skipping == SKIP_ROW:
                    reason = LENGTH
                start = -1
                row_stop = -1
            else:
                start = pos
                row_stop = stop
                if row_stop > pos and text[row_stop - 1] == 0x0D:
                    row_stop -= 1
                blank = True
                for at in range(pos, row_stop):
                    if text[at] != 0x20 and text[at] != 0x09:
                        blank = False
                        break
                if not blank and stop - pos > MAX_ROW:
                    reason = LENGTH
                elif not blank:
                    reason, row_ts, row_price, row_size, row_buy, row_liquidation = _any_row(
                        text, pos, row_stop, control, answered, answers
                    )
                    if reason == _ASK:
                        status = ASK_NUMBER
                        break
                    answered[0] = answered[1] = answered[2] = -1
                    if reason == _NO_REASON:
                        if row_ts >= from_ts:
                            ts[filled] = row_ts
                            price[filled] = row_price
                            size[filled] = row_size
                            buy[filled] = row_buy
                            liquidation[filled] = row_liquidation
                            filled += 1
                        elif pos + base >= seen:
                            texts[index, LATE] += 1
                            texts[index, FIRST_LATE] = min(texts[index, FIRST_LATE], row_ts)
            if reason >= 0:
                if keep_rejects > 0:
                    if noted == keep_rejects:
                        status = REJECTS_FULL
                        break
                    rejects[noted, REJECT_TEXT] = index
                    rejects[noted, REJECT_LINE] = lines + 1
                    rejects[noted, REJECT_REASON] = reason
                    rejects[noted, REJECT_START] = start
                    rejects[noted, REJECT_END] = row_stop
                    noted += 1
                texts[index, REJECTED + reason] += 1
            if skipping != SKIP_NONE:
                skipping = texts[index, SKIPPING] = SKIP_NONE
                usual_end = end
            lines += 1
            if not whole:
                torn_at = pos
                pos = end
                break
            pos = stop + 1
        rows_end = pos if torn_at < 0 else torn_at
        if rows_end > texts[index, POS] and text[rows_end - 1] == 0x0A:
            texts[index, TEXT_BYTES] = rows_end + base
        texts[index, POS] = pos
        texts[index, LINES] = lines
        texts[index, TRADES] += filled - before
        if status == DONE:
            index += 1
    control[TEXT] = index
    control[FILLED] = filled
    control[NOTED] = noted
    return status
