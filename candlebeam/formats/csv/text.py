"""Bars to the text of a CSV file, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

from candlebeam.errors import RangeError
from candlebeam.formats.shortest_decimals import shortest_decimal
from candlebeam.kernels import callee, kernel
from candlebeam.model import BAR_COLUMNS, MS_PER_DAY, Bars, Float64Array, Uint8Array
from candlebeam.rules.bar_gaps import without_gaps

#: The first line of every file.
HEADER = b"timestamp,open,high,low,close,volume\n"
#: From 0001-01-01 to before 10000-01-01: what four digits of a year can tell, in ms.
FIRST_TS = -62_135_596_800_000
END_TS = 253_402_300_800_000

_NUMBERS = BAR_COLUMNS[1:]
#: Bars that are laid out at a time.
_RUN = 1 << 16

_SECONDS = 25  # bytes of 2024-01-01 00:00:00+00:00
_MILLISECONDS = 29
_SIGN = np.uint64(1 << 63)
_MAGNITUDE = np.uint64((1 << 63) - 1)
_INFINITY = np.uint64(0x7FF << 52)
_ZERO = np.uint64(0)
_TEN = np.uint64(10)
_DIGIT = np.uint64(0x30)
_NO_NUMBER = 1 << 32
# Days of the months of a leap year before each month, where it begins with March.
_MONTH_STARTS = np.array([0, 31, 61, 92, 122, 153, 184, 214, 245, 275, 306, 337], np.int64)


def encode_csv(
    bars: Bars,
    decimals: int | None = None,
    *,
    keep_gaps: bool = True,
    header: bool = True,
    milliseconds: bool = False,
) -> bytes:
    """The text of a CSV file; `csv_bars.CsvBars` reads it back to the same bars.

    Times are in UTC. Prices and volumes are the shortest decimals that read back to the same
    float64, without exponents; what is NaN is an empty field.

    Args:
        decimals: the fewest decimals of a price. Prices that need more have more.
        keep_gaps: whether bars without any price get a row of empty fields, or none.
        header: whether the text begins with `HEADER`.
        milliseconds: whether times have them even if all of them are whole seconds.

    Raises:
        RangeError: a number is infinite, or a time lies outside of the years 1 to 9999.

    >>> bars = Bars(np.array([1704067200000]), *np.array([[4.5], [5.0], [4.0], [4e-7], [0.1]]))
    >>> print(encode_csv(bars).decode(), end="")
    timestamp,open,high,low,close,volume
    2024-01-01 00:00:00+00:00,4.5,5,4,0.0000004,0.1
    """
    if not keep_gaps:
        bars = without_gaps(bars)
    if len(bars) and not FIRST_TS <= int(bars.ts.min()) <= int(bars.ts.max()) < END_TS:
        outside = bars.ts[(bars.ts < FIRST_TS) | (bars.ts >= END_TS)]
        raise RangeError(f"time {outside[0]} ms: expected one in the years 1 to 9999")
    milliseconds = milliseconds or bool((bars.ts % 1_000).any())
    runs = [
        _lines(bars.part(slice(begin, begin + _RUN)), decimals or 0, milliseconds)
        for begin in range(0, len(bars), _RUN)
    ]
    return b"".join([HEADER if header else b"", *runs])


def _lines(bars: Bars, decimals: int, milliseconds: bool) -> bytes:
    numbers: Float64Array = np.stack([getattr(bars, name) for name in _NUMBERS], axis=1)
    places = np.empty((3, *numbers.shape), np.int64)
    size = measure(numbers.view(np.uint64), decimals, places)
    if size < 0:
        row, column = divmod(-size - 1, len(_NUMBERS))
        moment = np.datetime64(int(bars.ts[row]), "ms")
        raise RangeError(
            f"{_NUMBERS[column]} of the bar at {moment}Z: expected a finite number,"
            f" found {float(numbers[row, column])!r}"
        )
    # A line is its time, its numbers, a comma before each of these and a line feed.
    stamp = _MILLISECONDS if milliseconds else _SECONDS
    line = stamp + len(_NUMBERS) + 1
    text = np.empty(len(bars) * line + size, np.uint8)
    lay_out(np.ascontiguousarray(bars.ts), numbers.view(np.uint64), places, stamp, decimals, text)
    return text.tobytes()


@callee
def _digit_count(digits: Any) -> int:
    count = 1
    while digits >= _TEN:
        digits = digits // _TEN
        count += 1
    return count


@kernel("int64(uint64[:,::1],int64,int64[:,:,::1])")
def measure(numbers, decimals, places):  # type: ignore[no-untyped-def]
    """The bytes that numbers take as text, and their shortest decimals.

    Args:
        numbers: the bits of open, high, low, close and volume of each bar.
        decimals: the fewest that a price has.
        places: [0] becomes the digits of each as a whole number, [1] the power of ten, [2] how
            many digits there are.

    Returns:
        The sum of all lengths; or, where a number is infinite, its place from the front as
        `-place - 1`.
    """
    size = 0
    for row in range(len(numbers)):
        for column in range(numbers.shape[1]):
            bits = numbers[row, column] & _MAGNITUDE
            if bits >= _INFINITY:
                if bits == _INFINITY:
                    return -(row * numbers.shape[1] + column) - 1
                places[0, row, column] = 0
                places[1, row, column] = _NO_NUMBER
                continue
            digits, power = shortest_decimal(bits)
            places[0, row, column] = np.int64(digits)
            places[1, row, column] = power
            count = _digit_count(digits)
            places[2, row, column] = count
            fewest = decimals if column < 4 else 0
            behind = max(-power, fewest)
            size += max(count + power, 1) + (behind + 1 if behind > 0 else 0)
            if numbers[row, column] & _SIGN != _ZERO:
                size += 1
    return size


@callee
def _put_digits(text: Uint8Array, end: int, number: Any, count: int) -> None:
    """Writes the last `count` digits of a number before `end`."""
    rest = np.uint64(number)
    for at in range(end - 1, end - count - 1, -1):
        text[np.uint64(at)] = _DIGIT + rest % _TEN
        rest //= _TEN


@callee
def _put_number(text: Uint8Array, at: int, digits: Any, power: int, count: int, fewest: int) -> int:
    """Writes digits * 10^power with at least `fewest` decimals; returns its end."""
    behind = max(-power, fewest)
    before = max(count + power, 1)
    if behind <= 0:
        _put_digits(text, at + count, digits, count)
        for place in range(at + count, at + before):
            text[np.uint64(place)] = 0x30
        return at + before
    dot = at + before
    end = dot + 1 + behind
    whole = min(max(count + power, 0), count)
    last = dot + 1
    if whole < count:
        # All digits in one run that ends where they end; then those before the dot step over it.
        last -= power
        _put_digits(text, last, digits, count)
        for place in range(whole):
            text[np.uint64(at + place)] = text[np.uint64(at + place + 1)]
        for place in range(dot + 1, last - count):
            text[np.uint64(place)] = 0x30
    else:
        _put_digits(text, at + count, digits, count)
        for place in range(at + count, dot):
            text[np.uint64(place)] = 0x30
    if whole == 0:
        text[np.uint64(at)] = 0x30
    text[np.uint64(dot)] = 0x2E
    for place in range(last, end):
        text[np.uint64(place)] = 0x30
    return end


@callee
def _put_date(text: Uint8Array, at: int, day: int) -> None:
    """Writes the date of a day since 1970 as 2024-01-01."""
    # Years are taken to begin with March, so that a leap day is the last of one.
    shifted = day + 719_468
    era = shifted // 146_097
    in_era = shifted - era * 146_097
    year = (in_era - in_era // 1_460 + in_era // 36_524 - in_era // 146_096) // 365
    in_year = in_era - (365 * year + year // 4 - year // 100)
    month = 11
    while _MONTH_STARTS[month] > in_year:
        month -= 1
    year += era * 400
    if month >= 10:
        year += 1
    _put_digits(text, at + 4, year, 4)
    text[at + 4] = 0x2D
    _put_digits(text, at + 7, (month + 2) % 12 + 1, 2)
    text[at + 7] = 0x2D
    _put_digits(text, at + 10, in_year - _MONTH_STARTS[month] + 1, 2)


@callee
def _put_time(text: Uint8Array, at: int, ms: int, stamp: int) -> None:
    """Writes a time of the day as ` 00:00:00+00:00`, or with milliseconds, `stamp` bytes long."""
    text[at] = 0x20
    seconds = ms // 1_000
    _put_digits(text, at + 3, seconds // 3_600, 2)
    text[at + 3] = 0x3A
    _put_digits(text, at + 6, seconds // 60 % 60, 2)
    text[at + 6] = 0x3A
    _put_digits(text, at + 9, seconds % 60, 2)
    if stamp == _MILLISECONDS:
        text[at + 9] = 0x2E
        _put_digits(text, at + 13, ms % 1_000, 3)
    zone = at + stamp - 16
    text[zone] = 0x2B
    for place in range(1, 6):
        text[zone + place] = 0x3A if place == 3 else 0x30


@kernel("void(int64[::1],uint64[:,::1],int64[:,:,::1],int64,int64,uint8[::1])")
def lay_out(times, numbers, places, stamp, decimals, text):  # type: ignore[no-untyped-def]
    """Writes the lines of bars.

    Args:
        times: of each bar, in ms.
        numbers: the bits of its numbers.
        places: their digits, from `measure`.
        stamp: bytes of a time.
        decimals: the fewest that a price has.
        text: where to; exactly as long as the lines.
    """
    at = date = last_day = 0
    for row in range(len(times)):
        day = times[row] // MS_PER_DAY
        if row > 0 and day == last_day:
            for place in range(10):
                text[at + place] = text[date + place]
        else:
            _put_date(text, at, day)
        date = at
        last_day = day
        _put_time(text, at + 10, times[row] - day * MS_PER_DAY, stamp)
        at += stamp
        for column in range(numbers.shape[1]):
            text[at] = 0x2C
            at += 1
            if places[1, row, column] == _NO_NUMBER:
                continue
            if numbers[row, column] & _SIGN != _ZERO:
                text[at] = 0x2D
                at += 1
            fewest = decimals if column < 4 else 0
            digits, power, count = (
                places[0, row, column],
                places[1, row, column],
                places[2, row, column],
            )
            at = _put_number(text, at, digits, power, count, fewest)
        text[at] = 0x0A
        at += 1
