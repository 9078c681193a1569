"""Float64 to its shortest decimal: the fewest digits that read back to the same number.

Among equally short ones the nearest is taken, as Python's `repr` does. Source: Giulietti 2020,
"The Schubfach way to render doubles": all numbers that read back to one float64 are an interval,
which is multiplied with the power of ten that lets it hold a whole number but at most one multiple
of ten.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from candlebeam.formats.decimal_numbers import Word
from candlebeam.kernels import Deferred, callee

_LEAST_POWER = -292
_GREATEST_POWER = 324


def _powers_of_ten() -> tuple[list[int], list[int]]:
    """The upper and lower 64 bits of each power of ten, scaled to 128 bits and rounded up.

    The proof of the algorithm wants every error in that direction.
    """
    upper, lower = [], []
    for power in range(_LEAST_POWER, _GREATEST_POWER + 1):
        # floor(log2(10^power)) is (1741647 * power) >> 19 in this range.
        shift = 127 - (1_741_647 * power >> 19)
        above = 10 ** max(power, 0) << max(shift, 0)
        below = 10 ** max(-power, 0) << max(-shift, 0)
        scaled = -(-above // below)
        upper.append(scaled >> 64)
        lower.append(scaled & 0xFFFF_FFFF_FFFF_FFFF)
    return upper, lower


_TEN_UPPER, _TEN_LOWER = (np.array(half, np.uint64) for half in _powers_of_ten())

_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_TWO = np.uint64(2)
_FOUR = np.uint64(4)
_TEN = np.uint64(10)
_FORTY = np.uint64(40)
_FRACTION_BITS = np.uint64(52)
_FRACTION = np.uint64((1 << 52) - 1)
_HIDDEN_BIT = np.uint64(1 << 52)
_EXPONENT = np.uint64(0x7FF)
_EIGHT_ZEROS = np.uint64(10**8)
_FOUR_ZEROS = np.uint64(10**4)
_TWO_ZEROS = np.uint64(10**2)

_high_product: Any = Deferred("candlebeam.formats.byte_words", "high_product")
_trailing_zeros: Any = Deferred("candlebeam.formats.byte_words", "trailing_zeros")


@callee
def _product(upper: Word, lower: Word, factor: Word) -> Word:
    """The upper 64 of the 192 bits of a product; odd if what is cut off is no zero."""
    carry = _high_product(lower, factor)
    middle = upper * factor + carry
    high = _high_product(upper, factor)
    if middle < carry:
        high = high + _ONE
    return high | _ONE if middle > _ONE else high


@callee
def _in_interval(bits: Word) -> tuple[Word, int]:
    """The shortest decimal of a finite number above 0, maybe with zeros at its end."""
    fraction = bits & _FRACTION
    biased = np.int64((bits >> _FRACTION_BITS) & _EXPONENT)
    if biased != 0:
        whole = fraction | _HIDDEN_BIT
        power = biased - 1075
    else:
        whole = fraction
        power = -1074
    if -52 <= power <= 0 and _trailing_zeros(whole) >= -power:
        return whole >> np.uint64(-power), 0
    # Just above a power of two, the next lower number is closer than the next higher one.
    closer = fraction == _ZERO and biased > 1
    odd = whole & _ONE
    below = _FOUR * whole - (_ONE if closer else _TWO)
    above = _FOUR * whole + _TWO
    # floor(log10(2^power)), or of three quarters of that.
    ten = (1_262_611 * power - (524_031 if closer else 0)) >> 22
    shift = np.uint64(power + ((1_741_647 * -ten) >> 19) + 1)
    upper = _TEN_UPPER[-ten - _LEAST_POWER]
    lower = _TEN_LOWER[-ten - _LEAST_POWER]
    least = _product(upper, lower, below << shift) + odd
    exact = _product(upper, lower, (_FOUR * whole) << shift)
    greatest = _product(upper, lower, above << shift) - odd
    digits = exact // _FOUR
    if digits >= _TEN:
        tens = digits // _TEN
        down = least <= _FORTY * tens
        up = _FORTY * tens + _FORTY <= greatest
        if down != up:
            return tens + (_ONE if up else _ZERO), ten + 1
    down = least <= _FOUR * digits
    up = _FOUR * digits + _FOUR <= greatest
    if down == up:
        middle = _FOUR * digits + _TWO
        up = exact > middle or (exact == middle and digits & _ONE == _ONE)
    return digits + (_ONE if up else _ZERO), ten


@callee
def shortest_decimal(bits: Word) -> tuple[Word, int]:
    """The shortest decimal of a finite float64 that is not below 0.

    Args:
        bits: the bytes of the number, as a uint64.

    Returns:
        At most 17 digits as a whole number that does not end in 0, and the power of ten it is
        multiplied with. 0 and 0 for 0.
    """
    if bits == _ZERO:
        return _ZERO, 0
    digits, power = _in_interval(bits)
    # A division by a number that the compiler knows is none.
    if digits % _EIGHT_ZEROS == _ZERO:
        digits //= _EIGHT_ZEROS
        power += 8
        if digits % _EIGHT_ZEROS == _ZERO:
            digits //= _EIGHT_ZEROS
            power += 8
    if digits % _FOUR_ZEROS == _ZERO:
        digits //= _FOUR_ZEROS
        power += 4
    if digits % _TWO_ZEROS == _ZERO:
        digits //= _TWO_ZEROS
        power += 2
    if digits % _TEN == _ZERO:
        digits //= _TEN
        power += 1
    return digits, power
