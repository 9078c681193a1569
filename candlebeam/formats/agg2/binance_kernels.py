"""The rows of Binance's aggTrades files, from text to the words of AGG2 rows, compiled.

A row of the usual shape has plain digits, no quotes and no spaces. At any other row the loop stops,
and `binance_trades` reads it by the full rules.
"""

from __future__ import annotations

from candlebeam.formats.agg2.kernels import MAX_MICROSECONDS, MIN_MICROSECONDS, WORDS
from candlebeam.formats.trade_log.usual_rows import MAX_TS, MIN_TS
from candlebeam.kernels import callee, kernel
from candlebeam.model import Int64Array, Uint8Array

#: What a column can be.
FIELDS = ("id", "price", "quantity", "first id", "last id", "time", "maker")
ID, PRICE, QUANTITY, FIRST, LAST, TIME, MAKER = range(len(FIELDS))
#: A column that does not count.
IGNORED = -1

# Places in `control`.
POS = 0  #: where the next row begins; in and out
LINES = 1  #: line ends passed; in and out
FILLED = 2  #: rows in `words`; in and out
CONTROL_SIZE = 3

# What the kernel returns.
TEXT_USED = 0  #: no whole line is left
ROWS_FULL = 1
OTHER_ROW = 2  #: the row at POS is not of the usual shape

_COMMA, _LF, _CR, _DOT = 0x2C, 0x0A, 0x0D, 0x2E
#: Digits that surely fit in 63 bits; before the dot, times 1e8.
_DIGITS, _WHOLE_DIGITS = 18, 10
_DECIMALS = 8
_BAD = -1


@callee
def _whole(text: Uint8Array, start: int, end: int) -> int:
    """The number that the digits make; _BAD if there is anything else, or too many of them."""
    if start == end or end - start > _DIGITS:
        return _BAD
    value = 0
    for at in range(start, end):
        digit = int(text[at]) - 0x30
        if digit < 0 or digit > 9:
            return _BAD
        value = value * 10 + digit
    return value


@callee
def _scaled(text: Uint8Array, start: int, end: int) -> int:
    """A plain decimal number times 1e8; _BAD if it is none, or not exact, or too great."""
    dot = start
    while dot < end and text[dot] != _DOT:
        dot += 1
    if dot == start or dot - start > _WHOLE_DIGITS:
        return _BAD
    value = _whole(text, start, dot)
    if value < 0:
        return _BAD
    for place in range(_DECIMALS):
        at = dot + 1 + place
        digit = int(text[at]) - 0x30 if at < end else 0
        if digit < 0 or digit > 9:
            return _BAD
        value = value * 10 + digit
    for at in range(dot + 1 + _DECIMALS, end):
        if text[at] != 0x30:
            return _BAD
    return value


@callee
def _truth(text: Uint8Array, start: int, end: int) -> int:
    """1 for true, True, TRUE or 1; 0 for false, False, FALSE or 0; else _BAD."""
    if start == end:
        return _BAD
    first = int(text[start]) | 0x20
    if end - start == 1:
        return first & 1 if text[start] == 0x30 or text[start] == 0x31 else _BAD
    if end - start == 4 and first == 0x74:
        same = text[start + 1] | 0x20 == 0x72 and text[start + 2] | 0x20 == 0x75
        return 1 if same and text[start + 3] | 0x20 == 0x65 else _BAD
    if end - start == 5 and first == 0x66:
        same = text[start + 1] | 0x20 == 0x61 and text[start + 2] | 0x20 == 0x6C
        same = same and text[start + 3] | 0x20 == 0x73
        return 0 if same and text[start + 4] | 0x20 == 0x65 else _BAD
    return _BAD


@kernel("int64(uint8[::1], int64, int64[::1], int64[::1], int64[::1])")
def read_rows(
    text: Uint8Array, end: int, columns: Int64Array, words: Int64Array, control: Int64Array
) -> int:
    """Reads rows of the usual shape.

    Args:
        text: lines, from control[POS] to `end`.
        columns: what each column is: a place in FIELDS, or IGNORED.
        words: the rows to fill from control[FILLED] on, six words each.

    Returns:
        Why it stopped. Called again, it goes on from there.
    """
    count = len(columns)
    pos = control[POS]
    lines = control[LINES]
    filled = control[FILLED]
    capacity = len(words) // WORDS
    status = TEXT_USED
    while pos < end:
        if filled == capacity:
            status = ROWS_FULL
            break
        trade_id = price = quantity = first = last = ts = maker = 0
        at = pos
        bad = False
        column = 0
        while True:
            start = at
            while at < end and text[at] != _COMMA and text[at] != _LF:
                at += 1
            if at == end:
                break
            stop = at
            ends = text[at] == _LF
            if ends and stop > start and text[stop - 1] == _CR:
                stop -= 1
            if column < count:
                field = columns[column]
                value = 0
                if field == PRICE:
                    value = price = _scaled(text, start, stop)
                elif field == QUANTITY:
                    value = quantity = _scaled(text, start, stop)
                elif field == MAKER:
                    value = maker = _truth(text, start, stop)
                elif field >= 0:
                    value = _whole(text, start, stop)
                    if field == ID:
                        trade_id = value
                    elif field == FIRST:
                        first = value
                    elif field == LAST:
                        last = value
                    else:
                        ts = value
                bad |= value < 0
            column += 1
            at += 1
            if ends:
                break
        if at == end and text[end - 1] != _LF:
            break  # the line goes on behind the text
        if MIN_MICROSECONDS < ts < MAX_MICROSECONDS:
            ts //= 1000
        trades = last - first + 1
        if bad or column != count or price == 0 or trades < 0 or not MIN_TS < ts < MAX_TS:
            status = OTHER_ROW
            break
        word = WORDS * filled
        words[word] = trade_id
        words[word + 1] = price
        words[word + 2] = quantity
        words[word + 3] = first
        words[word + 4] = min(trades, 0xFFFF) | maker << 16 | ts << 32
        words[word + 5] = ts >> 32 | (1 - maker) << 32
        filled += 1
        lines += 1
        pos = at
    control[POS] = pos
    control[LINES] = lines
    control[FILLED] = filled
    return status
