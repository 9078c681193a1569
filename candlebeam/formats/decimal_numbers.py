"""Decimal text to the nearest float64, bit for bit what Python's `float()` gives.

Three ways, from fast to slow: one exact division or product where both operands are exact
(Clinger 1990); the product with a 128-bit power of five (Lemire 2021, "Number parsing at a
gigabyte per second"); and where even that leaves two neighbours open, the verdict UNDECIDED, upon
which the caller asks `float()`.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from candlebeam.kernels import Deferred, callee
from candlebeam.model import Uint8Array

#: A np.uint64. numpy's own types do not know what numba makes of the arithmetic.
Word: TypeAlias = Any

#: Bytes that must be readable behind the last one of a text; what they hold does not matter.
WORD_PAD = 64

#: Verdicts of `parse_number`.
PARSED = 0
NO_NUMBER = 1
UNDECIDED = 2

_LEAST_POWER = -342
_GREATEST_POWER = 308


def _powers_of_five() -> tuple[list[int], list[int]]:
    """The upper and lower 64 bits of 5^q for q from -342 to 308, scaled to 128 bits.

    Truncated for q >= 0, rounded up below, as the proof of the algorithm wants it.
    """
    upper, lower = [], []
    for q in range(_LEAST_POWER, _GREATEST_POWER + 1):
        power = 5 ** abs(q)
        bits = power.bit_length()
        if q >= 0:
            scaled = power << (128 - bits) if bits <= 128 else power >> (bits - 128)
        else:
            # For small powers the quotient itself is normalized; the others are cut to 128 bits.
            ceiling = (power - 1).bit_length()
            shift = ceiling + 127 if q >= -27 else 2 * ceiling + 128
            scaled = (1 << shift) // power + 1
            scaled >>= max(scaled.bit_length() - 128, 0)
        upper.append(scaled >> 64)
        lower.append(scaled & 0xFFFF_FFFF_FFFF_FFFF)
    return upper, lower


_FIVE_UPPER, _FIVE_LOWER = (np.array(half, np.uint64) for half in _powers_of_five())
#: 10^0 to 10^22: the powers of ten that float64 holds exactly.
EXACT_TENS = np.array([10.0**n for n in range(23)])
#: The greatest integer up to which float64 holds every one.
EXACT_INTEGER = 1 << 53

_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_TEN = np.uint64(10)
_TENS = np.array([10**n for n in range(20)], np.uint64)
_ALL_ONES = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_GUARD_BITS = np.uint64(0x1FF)
_FRACTION = np.uint64((1 << 52) - 1)
_HIDDEN_BIT = np.uint64(1 << 52)
_CARRIED = np.uint64(1 << 53)
_INFINITY = np.uint64(0x7FF << 52)
_DIGIT_LOW = np.uint64(0x0F0F_0F0F_0F0F_0F0F)
_PAIR_LOW = np.uint64(0x00FF_00FF_00FF_00FF)
_FOUR_LOW = np.uint64(0x0000_FFFF_0000_FFFF)
_PAIRS = np.uint64(10 * 2**8 + 1)
_FOURS = np.uint64(100 * 2**16 + 1)
_EIGHTS = np.uint64(10_000 * 2**32 + 1)
_MAX_DIGITS = 19
_MAX_EXPONENT = 1_000_000_000

_high_product: Any = Deferred("candlebeam.formats.byte_words", "high_product")
_leading_zeros: Any = Deferred("candlebeam.formats.byte_words", "leading_zeros")
_load_word: Any = Deferred("candlebeam.formats.byte_words", "load_word")
_non_digits: Any = Deferred("candlebeam.formats.byte_words", "non_digits")
_trailing_zeros: Any = Deferred("candlebeam.formats.byte_words", "trailing_zeros")
_as_float: Any = Deferred("candlebeam.formats.byte_words", "as_float")


@callee
def _nearest(mantissa: Word, power: int) -> Word:
    """The bits of the float64 nearest to mantissa * 10^power; all ones where that is undecided."""
    if mantissa == _ZERO or power < _LEAST_POWER:
        return _ZERO
    if power > _GREATEST_POWER:
        return _INFINITY
    shift = _leading_zeros(mantissa)
    factor = mantissa << np.uint64(shift)
    five_upper = _FIVE_UPPER[power - _LEAST_POWER]
    upper = _high_product(factor, five_upper)
    lower = factor * five_upper
    if upper & _GUARD_BITS == _GUARD_BITS:
        carry = _high_product(factor, _FIVE_LOWER[power - _LEAST_POWER])
        lower = lower + carry
        if carry > lower:
            upper = upper + _ONE
    if lower == _ALL_ONES and (power < -27 or power > 55):
        return _ALL_ONES
    top = upper >> np.uint64(63)
    drop = top + np.uint64(9)
    rounded = upper >> drop
    # floor(log2(10^power)) is (217706 * power) >> 16 in this range.
    exponent = ((217706 * power) >> 16) + 63 + np.int64(top) - shift + 1023
    if exponent <= 0:
        return _ALL_ONES
    if (
        lower <= _ONE
        and -4 <= power <= 23
        and rounded & np.uint64(3) == _ONE
        and rounded << drop == upper
    ):
        # Exactly half way: to even, which is down.
        rounded = rounded & ~_ONE
    rounded = (rounded + (rounded & _ONE)) >> _ONE
    if rounded >= _CARRIED:
        rounded = _HIDDEN_BIT
        exponent += 1
    if exponent >= 0x7FF:
        return _INFINITY
    return (rounded & _FRACTION) | (np.uint64(exponent) << np.uint64(52))


@callee
def _eight_digits(word: Word) -> Word:
    """The number that eight ASCII digits write, the first as the lowest byte; NUL counts as 0."""
    word = ((word & _DIGIT_LOW) * _PAIRS) >> np.uint64(8)
    word = ((word & _PAIR_LOW) * _FOURS) >> np.uint64(16)
    return ((word & _FOUR_LOW) * _EIGHTS) >> np.uint64(32)


@callee
def _short_mantissa(text: Uint8Array, start: int, count: int) -> Word:
    """The number that `count` digits write, at most _MAX_DIGITS of them."""
    value = _ZERO
    while count > 8:
        value = value * _TENS[8] + _eight_digits(_load_word(text, start))
        start += 8
        count -= 8
    # In two steps, as a shift by 64 does nothing.
    shift = np.uint64(32 - 4 * count)
    return value * _TENS[np.uint64(count)] + _eight_digits(
        _load_word(text, start) << shift << shift
    )


@callee
def _long_mantissa(text: Uint8Array, start: int, end: int) -> tuple[Word, int, bool]:
    """Digits and at most one dot: (mantissa, power of ten, whether digits other than 0 are cut)."""
    mantissa = _ZERO
    digits = 0  # in the mantissa, without leading zeros
    power = 0
    cut = False
    in_fraction = False
    for at in range(start, end):
        digit = np.int64(text[at]) - 0x30
        if digit < 0:
            in_fraction = True
        elif digits < _MAX_DIGITS:
            mantissa = mantissa * _TEN + np.uint64(digit)
            if mantissa != _ZERO:
                digits += 1
            if in_fraction:
                power -= 1
        else:
            if digit != 0:
                cut = True
            if not in_fraction:
                power += 1
    return mantissa, power, cut


@callee
def _digits_end(text: Uint8Array, start: int, end: int) -> int:
    """Where the run of digits at `start` ends, in text[start:end]."""
    at = start
    while at < end:
        others = _non_digits(text, at)
        if others != _ZERO:
            place: int = min(at + _trailing_zeros(others), end)
            return place
        at += 64
    return end


@callee
def parse_number(text: Uint8Array, start: int, end: int) -> tuple[int, float]:
    """Reads `[+-]?([0-9]+\\.?[0-9]*|\\.[0-9]+)([eE][+-]?[0-9]+)?`, the whole of text[start:end].

    Returns:
        PARSED and the float64; else NO_NUMBER or UNDECIDED (ask `float()`), and 0.0.
    """
    at = start
    negative = False
    if at < end and (text[at] == 0x2B or text[at] == 0x2D):
        negative = text[at] == 0x2D
        at += 1
    begin = at
    at = _digits_end(text, at, end)
    whole = at - begin
    fraction = 0
    if at < end and text[at] == 0x2E:
        stop = _digits_end(text, at + 1, end)
        fraction = stop - at - 1
        at = stop
    if whole + fraction == 0:
        return NO_NUMBER, 0.0
    cut = False
    if whole + fraction <= _MAX_DIGITS:
        mantissa = _short_mantissa(text, begin, whole)
        if fraction > 0:
            mantissa = mantissa * _TENS[np.uint64(fraction)] + _short_mantissa(
                text, at - fraction, fraction
            )
        power = -fraction
    else:
        mantissa, power, cut = _long_mantissa(text, begin, at)
    if at < end:
        if text[at] != 0x65 and text[at] != 0x45:
            return NO_NUMBER, 0.0
        at += 1
        down = False
        if at < end and (text[at] == 0x2B or text[at] == 0x2D):
            down = text[at] == 0x2D
            at += 1
        if at == end:
            return NO_NUMBER, 0.0
        exponent = 0
        while at < end:
            digit = np.int64(text[at]) - 0x30
            if digit < 0 or digit > 9:
                return NO_NUMBER, 0.0
            # No row is long enough to bring a mantissa back from beyond this.
            exponent = min(exponent * 10 + int(digit), _MAX_EXPONENT)
            at += 1
        power += -exponent if down else exponent
    value = 0.0
    if mantissa != _ZERO:
        if np.int64(mantissa >> np.uint64(53)) == 0 and -22 <= power <= 22 and not cut:
            value = np.float64(np.int64(mantissa))
            value = value * EXACT_TENS[power] if power >= 0 else value / EXACT_TENS[-power]
        else:
            bits = _nearest(mantissa, power)
            if bits == _ALL_ONES or (cut and _nearest(mantissa + _ONE, power) != bits):
                return UNDECIDED, 0.0
            value = _as_float(bits)
    return PARSED, -value if negative else value
