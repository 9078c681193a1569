"""Recovering decimal numbers that a writer has truncated.

Some archives hold `int(float(text) * 1e8)` where `round` was meant: "0.29" became 28999999, since
0.29 * 1e8 is 28999999.999999996. What was meant shows in the other numbers of the day. Their step
is the greatest power of ten of which every number is a multiple, as far as such a writer keeps it;
each value that is no multiple is then the one next to it, and nothing is ever rounded on suspicion.

    step                 what becomes of a value
    10 to 10**8          the multiple of the step that the writer stored so
    1                    the only number of eight decimals that the writer stored so;
                         where there are two, the value itself
    as stored            itself

Values are taken as stored where all are multiples of ten, or where one of them is what a truncating
writer stores for no number at all: who wrote those did not truncate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from candlebeam.model import Float64Array, Int64Array
from candlebeam.rules import step_kernels as loops

#: Stored values are numbers times this.
SCALE = loops.SCALE


@dataclass(frozen=True)
class Step:
    """How the numbers behind stored values are found.

    Attributes:
        size: a power of ten from 1 to 10**8: numbers times 1e8 are multiples of it.
        truncated: whether the writer may have truncated.
    """

    size: int
    truncated: bool = True

    @property
    def factor(self) -> float:
        """The step as the kernels take it: see `step_kernels.number`."""
        return 0.0 if self.truncated and self.size == 1 else float(self.size)


#: Every value is the number that was meant.
AS_STORED = Step(1, truncated=False)


class StepFinder:
    """Finds the step of values that come piece by piece.

    Attributes:
        state: what the kernels know so far.
    """

    def __init__(self) -> None:
        self.state: Int64Array = np.array([loops.MAX_EXPONENT, 1, 0], np.int64)

    def add(self, values: npt.NDArray[Any]) -> None:
        """Takes more values into account: scaled numbers in 64 bits, with or without sign.

        Zeros say nothing; those from 2**53 on are not asked.
        """
        loops.find_step(_for_loops(values), self.state)

    @property
    def step(self) -> Step:
        """The step of all values so far."""
        return step_of(self.state)


def step_of(state: Int64Array) -> Step:
    """The step that the kernels have found."""
    exponent = int(state[loops.EXPONENT])
    if exponent:
        return Step(10**exponent)
    if state[loops.PLAIN] or state[loops.NOT_TRUNCATED]:
        return AS_STORED
    return Step(1)


def find_step(values: npt.NDArray[Any]) -> Step:
    """The step of a day's values.

    >>> find_step(np.array([28999999, 30000000, 31000000], np.uint64))
    Step(size=1000000, truncated=True)
    """
    finder = StepFinder()
    finder.add(values)
    return finder.step


def recover(values: npt.NDArray[Any], step: Step) -> npt.NDArray[np.uint64]:
    """The numbers behind stored values, times 1e8 and exact.

    >>> recover(np.array([28999999, 30000000], np.uint64), Step(1000000)).tolist()
    [29000000, 30000000]
    """
    found: Int64Array = np.empty(len(values), np.int64)
    loops.recover_values(_for_loops(values), step.factor, found)
    return found.view(np.uint64)


def recover_numbers(values: npt.NDArray[Any], step: Step) -> Float64Array:
    """The numbers behind stored values, as the nearest float64 each.

    >>> recover_numbers(np.array([28999999, 30000000], np.uint64), Step(1000000)).tolist()
    [0.29, 0.3]
    """
    found: Float64Array = np.empty(len(values))
    loops.recover_numbers(_for_loops(values), step.factor, found)
    return found


def _for_loops(values: npt.NDArray[Any]) -> Int64Array:
    if values.dtype.kind not in "iu" or values.dtype.itemsize != 8:
        raise ValueError(f"stored values: expected 64-bit integers, found {values.dtype}")
    found: Int64Array = np.require(values, requirements=["C", "A", "W"]).view(np.int64)
    return found
