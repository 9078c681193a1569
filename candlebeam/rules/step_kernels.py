"""The loops behind `rules.steps`, and what other loops need of it.

Values are scaled numbers as they are stored: a number times 1e8, in 64 bits without sign that the
loops see as int64. A negative one is 2**63 or more.
"""

from __future__ import annotations

import numpy as np

from candlebeam.kernels import callee, kernel
from candlebeam.model import Float64Array, Int64Array

SCALE = 100_000_000
#: From here on not every whole number is a float64.
EXACT_END = 1 << 53
#: Below this, what was truncated is at most one too low, and never too high.
LOW_END = 1 << 52

# Places in the state of a search.
EXPONENT = 0  #: the step so far is 10 to the power of it
#: 1 as long as every value is a multiple of ten.
PLAIN = 1
#: 1 once a value was seen that a truncating writer stores for no number at all.
NOT_TRUNCATED = 2
STATE_SIZE = 3

MAX_EXPONENT = 8
_STEPS = np.array([10.0**n for n in range(MAX_EXPONENT + 1)])
_SCALE = float(SCALE)
# Room for the fraction of a number that is EXACT_END / SCALE or more, as a float64 has it.
_FRACTION = 26
_FRACTION_SCALE = float(1 << _FRACTION)


@callee
def stored(number: int) -> int:
    """What a truncating writer stores for a number below EXACT_END, given times 1e8."""
    return int(float(number) / _SCALE * _SCALE)


@callee
def nearest_multiple(value: int, step: float, inverse: float) -> float:
    """The multiple of a step of at least 10 that is nearest to a value below EXACT_END.

    The product is off by at most a fifth, and a value by a tenth of its step. At step 1 it is the
    value itself.
    """
    return float(np.rint(float(value) * inverse)) * step


@callee
def holds(value: int, step: float, inverse: float) -> bool:
    """Whether a truncating writer stores the value for a multiple of the step."""
    return int(nearest_multiple(value, step, inverse) / _SCALE * _SCALE) == value


@callee
def has_preimage(value: int) -> bool:
    """Whether a truncating writer stores the value for any number of eight decimals."""
    if stored(value) == value or stored(value + 1) == value:
        return True
    return value >= LOW_END and stored(value - 1) == value


@callee
def only_preimage(value: int) -> int:
    """The one number for which a truncating writer stores the value; where it is not sure, itself.

    For a value that the writer keeps there may be another number, but nothing tells which it was.
    """
    if stored(value) == value:
        return value
    up = stored(value + 1) == value
    down = value >= LOW_END and stored(value - 1) == value
    if up != down:
        return value + 1 if up else value - 1
    return value


@callee
def next_exponent(value: int, exponent: int) -> int:
    """The greatest exponent, at most the given one, whose step the value allows; 0 always does."""
    while exponent > 0 and not holds(value, _STEPS[exponent], 1.0 / _STEPS[exponent]):
        exponent -= 1
    return exponent


@callee
def vote_unstepped(value: int, state: Int64Array) -> None:
    """Takes a value into account once the step is 1."""
    if value % 10 != 0:
        state[PLAIN] = 0
    if not has_preimage(value):
        state[NOT_TRUNCATED] = 1


@callee
def nearest_float(high: int) -> float:
    """The float64 that is nearest to a value / 1e8, for values from EXACT_END on.

    Dividing rounds twice. How far that is off shows in differences that fit in 64 bits though
    their terms do not.
    """
    exact = np.uint64(high)
    found = np.float64(exact) / _SCALE
    place = np.uint64(found * _FRACTION_SCALE)
    unit = np.int64((np.nextafter(found, np.inf) - found) * _FRACTION_SCALE)
    difference = np.int64(place * np.uint64(SCALE) - (exact << np.uint64(_FRACTION)))
    odd = (place // np.uint64(unit)) & np.uint64(1) == np.uint64(1)
    doubled = 2 * difference
    limit = unit * SCALE
    if doubled > limit or (doubled == limit and odd):
        return float(np.nextafter(found, -np.inf))
    if -doubled > limit or (-doubled == limit and odd):
        return float(np.nextafter(found, np.inf))
    return float(found)


@callee
def high_number(value: int, step: float) -> int:
    """The number behind a value from EXACT_END on: the multiple of the step that it was, if any.

    The writer is off by at most one unit in the last place of a float64 there.
    """
    if value < 0 or step < 10.0:
        return value
    unit = 1
    while value // unit >= EXACT_END:
        unit *= 2
    whole = int(step)
    if whole < 4 * unit:
        return value
    multiple = value // whole * whole
    if value - multiple > whole - (value - multiple):
        multiple += whole
    if multiple == value or multiple < EXACT_END:
        return value
    written = nearest_float(multiple) * _SCALE
    if written < 9.2e18 and int(written) == value:
        return multiple
    return value


@callee
def number(value: int, step: float, inverse: float) -> float:
    """The number behind a value, as the nearest float64.

    Args:
        step, inverse: a step and one over it; (1, 1) takes values as they stand, and (0, 0) the
            only number that a truncating writer stores so.
    """
    if value >> 53 == 0:
        if step != 0.0:
            return nearest_multiple(value, step, inverse) / _SCALE
        return float(only_preimage(value)) / _SCALE
    return nearest_float(high_number(value, step))


@kernel("void(int64[::1], int64[::1])")
def find_step(values: Int64Array, state: Int64Array) -> None:
    """Takes more values into account; `state` is [MAX_EXPONENT, 1, 0] at the start."""
    exponent = state[EXPONENT]
    step = _STEPS[exponent]
    inverse = 1.0 / step
    plain = state[PLAIN]
    for i in range(len(values)):
        value = values[i]
        if value <= 0 or value >= EXACT_END:
            continue
        if exponent > 0:
            if holds(value, step, inverse):
                plain &= int(nearest_multiple(value, step, inverse) == value)
                continue
            exponent = next_exponent(value, exponent)
            step = _STEPS[exponent]
            inverse = 1.0 / step
            if exponent > 0:
                plain &= int(nearest_multiple(value, step, inverse) == value)
                continue
        state[PLAIN] = plain
        vote_unstepped(value, state)
        plain = state[PLAIN]
    state[PLAIN] = plain
    state[EXPONENT] = exponent


@kernel("void(int64[::1], float64, int64[::1])")
def recover_values(values: Int64Array, step: float, out: Int64Array) -> None:
    """The numbers behind values, times 1e8; see `number` for the step."""
    inverse = 1.0 / step if step != 0.0 else 0.0
    for i in range(len(values)):
        value = values[i]
        if value >> 53 != 0:
            out[i] = high_number(value, step)
        elif step != 0.0:
            out[i] = int(nearest_multiple(value, step, inverse))
        else:
            out[i] = only_preimage(value)


@kernel("void(int64[::1], float64, float64[::1])")
def recover_numbers(values: Int64Array, step: float, out: Float64Array) -> None:
    """The numbers behind values, as the nearest float64 each; see `number` for the step."""
    inverse = 1.0 / step if step != 0.0 else 0.0
    for i in range(len(values)):
        out[i] = number(values[i], step, inverse)
