"""The rows of a CSV file of bars, from bytes to columns, compiled.

A row is fields between commas, maybe in double quotes, with blanks around them that do not count.
"""

from __future__ import annotations

import numpy as np

from candlebeam.formats.csv.text import END_TS, FIRST_TS
from candlebeam.formats.decimal_numbers import NO_NUMBER, UNDECIDED, parse_number
from candlebeam.formats.text_lines import find_line_feed
from candlebeam.kernels import callee, kernel
from candlebeam.model import Uint8Array

# What stands in a column: these, or 1 to 5 for open, high, low, close and volume.
TIME = 0
VOLUME = 5
IGNORED = -1
CONSTANT = -2  #: the same text in every row

# Places in `control`.
POS = 0  #: the row to go on with; in and out
FILLED = 1  #: bars in the columns; in and out
LINE = 2  #: lines before POS; in and out
LAST = 3  #: the time of the last bar; in and out
NOTED = 4  #: numbers in `notes`; in and out
UNIT = 5  #: how many of a time's units are a second: 1 to 1e9 for numbers, 0 for dates
FIXED = 6  #: whether prices are whole numbers of 1e-9
STRICT = 7  #: whether a row must be a bar: later than the last, with all of its prices or none
FIELD = 8  #: out, for all that is wrong: which field, where it begins and ends
BEGIN = 9
END = 10
CONTROL_SIZE = 11

# What the kernel returns. From BAD_FIELDS on, something is wrong with the row at POS.
DONE = 0  #: all whole lines are read
COLUMNS_FULL = 1
NOTES_FULL = 2
BAD_FIELDS = 3  #: FIELD is how many there are
BAD_QUOTES = 4
BAD_TIME = 5
BAD_NUMBER = 6
BAD_CONSTANT = 7
BAD_ORDER = 8
BAD_BAR = 9  #: some prices, or prices without a volume

# Columns of `notes`: numbers to ask `float()` for.
NOTE_SLOT = 0
NOTE_NUMBER = 1
NOTE_BEGIN = 2
NOTE_END = 3
NOTE_COLUMNS = 4

_BLANK = 0x20
_TAB = 0x09
_CR = 0x0D
_COMMA = 0x2C
_QUOTE = 0x22
_ZERO = 0x30
_MAX = np.iinfo(np.int64).max
_EXACT = 1 << 53
_NANO = 1_000_000_000.0
_MONTH_DAYS = np.array([0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], np.int64)


@callee
def _whole(text: Uint8Array, begin: int, end: int) -> tuple[bool, int]:
    """Reads `-?[0-9]+`, the whole of text[begin:end]; False for what is none or beyond int64."""
    at = begin
    negative = at < end and text[at] == 0x2D
    if negative:
        at += 1
    if at == end:
        return False, 0
    value = 0
    while at < end:
        digit = np.int64(text[at]) - _ZERO
        if digit < 0 or digit > 9 or value > (_MAX - digit) // 10:
            return False, 0
        value = value * 10 + digit
        at += 1
    return True, -value if negative else value


@callee
def _digits(text: Uint8Array, begin: int, count: int) -> int:
    """The number that exactly so many digits write; a very negative one if one is no digit."""
    value = 0
    for at in range(begin, begin + count):
        digit = np.int64(text[at]) - _ZERO
        if digit < 0 or digit > 9:
            return -1_000_000
        value = value * 10 + digit
    return value


@callee
def _days(year: int, month: int, day: int) -> int:
    """Days from 1970-01-01 to a date."""
    # Years are taken to begin with March, so that a leap day is the last of one.
    shifted = year - 1 if month <= 2 else year
    era = shifted // 400
    in_era = shifted - era * 400
    in_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return era * 146_097 + in_era * 365 + in_era // 4 - in_era // 100 + in_year - 719_468


@callee
def _zone(text: Uint8Array, begin: int, end: int) -> tuple[bool, int]:
    """Reads `Z`, `+05`, `+0530`, `+05:30` or nothing: minutes ahead of UTC."""
    length = end - begin
    if length == 0 or (length == 1 and text[begin] == 0x5A):
        return True, 0
    if (text[begin] != 0x2B and text[begin] != 0x2D) or not (length == 3 or 5 <= length <= 6):
        return False, 0
    if length == 6 and text[begin + 3] != 0x3A:
        return False, 0
    hours = _digits(text, begin + 1, 2)
    minutes = _digits(text, end - 2, 2) if length > 3 else 0
    if not (0 <= hours < 24 and 0 <= minutes < 60):
        return False, 0
    ahead = hours * 60 + minutes
    return True, -ahead if text[begin] == 0x2D else ahead


@callee
def _date(text: Uint8Array, begin: int, end: int) -> tuple[bool, int]:
    """Reads `2024-01-31[( |T)00:00[:00[.0 to 9 digits]][zone]]` as ms; UTC without a zone."""
    if end - begin < 10 or text[begin + 4] != 0x2D or text[begin + 7] != 0x2D:
        return False, 0
    year = _digits(text, begin, 4)
    month = _digits(text, begin + 5, 2)
    day = _digits(text, begin + 8, 2)
    if year < 1 or month < 1 or month > 12 or day < 1 or day > _MONTH_DAYS[month]:
        return False, 0
    if month == 2 and day == 29 and (year % 4 != 0 or (year % 100 == 0 and year % 400 != 0)):
        return False, 0
    ms = _days(year, month, day) * 86_400_000
    at = begin + 10
    if at == end:
        return True, ms
    if end - at < 6 or (text[at] != _BLANK and text[at] != 0x54) or text[at + 3] != 0x3A:
        return False, 0
    hours = _digits(text, at + 1, 2)
    minutes = _digits(text, at + 4, 2)
    seconds = 0
    at += 6
    if end - at >= 3 and text[at] == 0x3A:
        seconds = _digits(text, at + 1, 2)
        at += 3
        if at < end and text[at] == 0x2E:
            count = 0
            unit = 100
            at += 1
            while at < end and _ZERO <= text[at] <= 0x39:
                # Finer than a millisecond nothing but zeros can be told.
                if unit == 0 and text[at] != _ZERO:
                    return False, 0
                ms += (np.int64(text[at]) - _ZERO) * unit
                unit //= 10
                count += 1
                at += 1
            if count < 1 or count > 9:
                return False, 0
    if not (0 <= hours < 24 and 0 <= minutes < 60 and 0 <= seconds < 60):
        return False, 0
    known, ahead = _zone(text, at, end)
    return known, ms + ((hours * 60 + minutes - ahead) * 60 + seconds) * 1_000


@callee
def _time(text: Uint8Array, begin: int, end: int, unit: int) -> tuple[bool, int]:
    """A time in ms; False where it is none, not of whole ms, or not of the years 1 to 9999."""
    if unit == 0:
        known, ms = _date(text, begin, end)
    else:
        known, ms = _whole(text, begin, end)
        if unit == 1:
            known = known and -_MAX // 1_000 < ms < _MAX // 1_000
            ms = ms * 1_000 if known else 0
        elif unit > 1_000:
            parts = unit // 1_000
            known = known and ms % parts == 0
            ms //= parts
    return known and FIRST_TS <= ms < END_TS, ms


@callee
def _is_empty(text: Uint8Array, begin: int, end: int) -> bool:
    """Whether a field is empty, or says `nan` or `null`."""
    if begin == end:
        return True
    # Letters differ from their capitals in one bit.
    first = text[begin] | 0x20
    if first != 0x6E or end - begin < 3 or end - begin > 4:
        return False
    second = text[begin + 1] | 0x20
    third = text[begin + 2] | 0x20
    if end - begin == 3:
        return bool(second == 0x61 and third == 0x6E)
    return bool(second == 0x75 and third == 0x6C and text[begin + 3] | 0x20 == 0x6C)


@callee
def _number(text: Uint8Array, begin: int, end: int, fixed: bool) -> tuple[int, float]:
    """A number, NaN for an empty field; the verdicts are those of `parse_number`."""
    if _is_empty(text, begin, end):
        return 0, np.nan
    if not fixed:
        verdict, value = parse_number(text, begin, end)
        if np.isinf(value):
            return NO_NUMBER, 0.0
        return verdict, value
    known, whole = _whole(text, begin, end)
    if not known:
        return NO_NUMBER, 0.0
    # The greatest int64 stands for a price that is undefined.
    if whole == _MAX:
        return 0, np.nan
    if abs(whole) > _EXACT:
        return UNDECIDED, 0.0
    return 0, whole / _NANO


@kernel(
    "int64(uint8[::1],int64,int64[::1],uint8[::1],int64[::1],float64[:,::1],int64[:,::1],int64[::1])"
)
def read_rows(text, end, columns, constant, times, numbers, notes, control):  # type: ignore[no-untyped-def]
    """Reads whole lines into columns, as far as both reach.

    Args:
        text: the buffer, with `WORD_PAD` readable bytes behind `end`.
        end: where what is to be read ends: behind a line feed, but for the last line of a file.
        columns: what stands in each column of the file.
        constant: the text of the CONSTANT column.
        times: the times of bars, in ms.
        numbers: their open, high, low, close and volume, NaN where there is none.
        notes: numbers that are left to the caller.
        control: CONTROL_SIZE values.

    Returns:
        DONE, or why it stopped: see the constants. Called again, it goes on from there.
    """
    pos = control[POS]
    filled = control[FILLED]
    noted = control[NOTED]
    line = control[LINE]
    last = control[LAST]
    unit = control[UNIT]
    strict = control[STRICT] != 0
    status = DONE
    while pos < end:
        stop = find_line_feed(text, pos, end)
        row_end = stop
        if row_end > pos and text[row_end - 1] == _CR:
            row_end -= 1
        at = pos
        while at < row_end and (text[at] == _BLANK or text[at] == _TAB):
            at += 1
        if at == row_end:
            line += 1
            pos = min(stop + 1, end)
            continue
        if filled == len(times):
            status = COLUMNS_FULL
            break
        if noted + 5 > len(notes):
            status = NOTES_FULL
            break
        before = noted
        time = 0
        prices = 0
        field = 0
        at = pos
        while True:
            while at < row_end and (text[at] == _BLANK or text[at] == _TAB):
                at += 1
            if at < row_end and text[at] == _QUOTE:
                begin = at + 1
                at = begin
                while at < row_end:
                    if text[at] == _QUOTE:
                        # Two quotes stand for one.
                        if at + 1 == row_end or text[at + 1] != _QUOTE:
                            break
                        at += 1
                    at += 1
                field_end = at
                at += 1
                while at < row_end and (text[at] == _BLANK or text[at] == _TAB):
                    at += 1
                if field_end >= row_end or (at < row_end and text[at] != _COMMA):
                    status = BAD_QUOTES
            else:
                begin = at
                while at < row_end and text[at] != _COMMA:
                    at += 1
                field_end = at
                while field_end > begin and (
                    text[field_end - 1] == _BLANK or text[field_end - 1] == _TAB
                ):
                    field_end -= 1
            column = columns[field] if field < len(columns) else IGNORED
            if status != DONE:
                pass
            elif column == TIME:
                known, time = _time(text, begin, field_end, unit)
                if not known:
                    status = BAD_TIME
            elif column > TIME:
                fixed = control[FIXED] != 0 and column != VOLUME
                verdict, number = _number(text, begin, field_end, fixed)
                if verdict == NO_NUMBER:
                    status = BAD_NUMBER
                elif verdict == UNDECIDED:
                    notes[noted, NOTE_SLOT] = filled
                    notes[noted, NOTE_NUMBER] = column - 1
                    notes[noted, NOTE_BEGIN] = begin
                    notes[noted, NOTE_END] = field_end
                    noted += 1
                numbers[column - 1, filled] = number
                if column != VOLUME and not np.isnan(number):
                    prices += 1
            elif column == CONSTANT:
                same = field_end - begin == len(constant)
                if same:
                    for place in range(len(constant)):
                        same = same and text[begin + place] == constant[place]
                if not same:
                    status = BAD_CONSTANT
            if status != DONE:
                control[FIELD] = field
                control[BEGIN] = begin
                control[END] = field_end
                break
            field += 1
            if at >= row_end:
                break
            at += 1
        if status == DONE and field != len(columns):
            status = BAD_FIELDS
            control[FIELD] = field
        if status == DONE and prices == 0 and np.isnan(numbers[VOLUME - 1, filled]):
            numbers[VOLUME - 1, filled] = 0.0
        if status == DONE and strict:
            if time <= last:
                status = BAD_ORDER
                control[FIELD] = time
            elif prices % 4 != 0 or np.isnan(numbers[VOLUME - 1, filled]):
                status = BAD_BAR
                control[FIELD] = prices
        if status != DONE:
            noted = before
            control[END] = control[END] if status < BAD_ORDER and status != BAD_FIELDS else row_end
            break
        times[filled] = time
        last = time
        filled += 1
        line += 1
        pos = min(stop + 1, end)
    control[POS] = pos
    control[FILLED] = filled
    control[NOTED] = noted
    control[LINE] = line
    control[LAST] = last
    return status
