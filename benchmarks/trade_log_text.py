"""Trade-log rows from columns, as a collector written in JavaScript prints them."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

WIDEST_ROW = 80
"""No row that `write_rows` makes is longer, in bytes."""


@numba.njit(nogil=True, cache=True)
def _write_integer(out: npt.NDArray[np.uint8], at: int, value: int) -> int:
    digits = 1
    power = 10
    while value >= power:
        digits += 1
        power *= 10
    for place in range(at + digits - 1, at - 1, -1):
        out[place] = 48 + value % 10
        value //= 10
    return at + digits


@numba.njit(nogil=True, cache=True)
def _write_decimal(out: npt.NDArray[np.uint8], at: int, value: int, decimals: int) -> int:
    """Write value / 10**decimals as JavaScript does: no trailing zeros, exponents under 1e-6."""
    if value == 0:
        out[at] = 48
        return at + 1
    while decimals > 0 and value % 10 == 0:
        value //= 10
        decimals -= 1
    digits = 1
    power = 10
    while value >= power:
        digits += 1
        power *= 10
    exponent = digits - 1 - decimals
    if exponent < -6:
        power //= 10
        out[at] = 48 + value // power
        at += 1
        if digits > 1:
            out[at] = 46
            at += 1
            rest = value % power
            for place in range(at + digits - 2, at - 1, -1):
                out[place] = 48 + rest % 10
                rest //= 10
            at += digits - 1
        out[at] = 101
        out[at + 1] = 45
        return int(_write_integer(out, at + 2, -exponent))
    scale = 10**decimals
    at = _write_integer(out, at, value // scale)
    if decimals > 0:
        out[at] = 46
        rest = value % scale
        for place in range(at + decimals, at, -1):
            out[place] = 48 + rest % 10
            rest //= 10
        at += decimals + 1
    return at


@numba.njit(nogil=True, cache=True)
def write_rows(
    out: npt.NDArray[np.uint8],
    ts: npt.NDArray[np.int64],
    price: npt.NDArray[np.int64],
    price_decimals: int,
    size: npt.NDArray[np.int64],
    size_decimals: int,
    buy: npt.NDArray[np.bool_],
    liquidation: npt.NDArray[np.bool_],
) -> int:
    """Write `ts price size side [liq]` rows into `out`; the answer is how many bytes they take.

    Prices and sizes are integers, in units of 10**-decimals; `out` has to hold `WIDEST_ROW` bytes
    a row.
    """
    at = 0
    for row in range(ts.size):
        at = _write_integer(out, at, ts[row])
        out[at] = 32
        at = _write_decimal(out, at + 1, price[row], price_decimals)
        out[at] = 32
        at = _write_decimal(out, at + 1, size[row], size_decimals)
        out[at] = 32
        out[at + 1] = 49 if buy[row] else 48
        at += 2
        if liquidation[row]:
            out[at] = 32
            out[at + 1] = 49
            at += 2
        out[at] = 10
        at += 1
    return at
