"""Rows of a day, held in little memory until the steps of its numbers are known."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from candlebeam.formats.agg2 import held_kernels as loops
from candlebeam.model import Int64Array

HELD_ROW_BYTES = 8 * loops.HELD_WORDS


class Stretch(NamedTuple):
    """Rows that are held alike.

    Attributes:
        first: their first one's place in the day.
        words: as `held_kernels` has them.
        form: what is to be known to read them.
    """

    first: int
    words: Int64Array
    form: Int64Array


class HeldRows:
    """The rows of one day, as `survey_kernels.survey_rows` puts them in.

    Args:
        words: where they go.
    """

    def __init__(self, words: Int64Array) -> None:
        self.words = words
        self.state: Int64Array = np.zeros(loops.HOLDING_SIZE, np.int64)
        self.state[loops.STRETCHES] = 1
        self.forms: Int64Array = np.zeros((loops.MAX_STRETCHES, loops.STRETCH_SIZE), np.int64)
        self.forms[0] = loops.FIRST_STRETCH

    @property
    def whole(self) -> bool:
        """Whether all rows could be held; if not, what is held is of no use."""
        return bool(self.state[loops.HELD_ROWS] >= 0)

    def stretches(self) -> Iterator[Stretch]:
        """What is held, in its order."""
        forms = self.forms[: self.state[loops.STRETCHES]]
        firsts = [*forms[:, loops.FIRST_ROW].tolist(), int(self.state[loops.HELD_ROWS])]
        for form, first, end in zip(forms, firsts, firsts[1:], strict=False):
            words = self.words[loops.HELD_WORDS * first : loops.HELD_WORDS * end]
            yield Stretch(first, words, form)


class _Left(threading.local):
    words: Int64Array | None = None


_left = _Left()


def take_words(count: int) -> Int64Array:
    """Room for rows that are held: what an earlier reader of this thread has left, if that fits."""
    words, _left.words = _left.words, None
    return words if words is not None and len(words) == count else np.empty(count, np.int64)


def leave_words(words: Int64Array) -> None:
    """Leaves it to the next reader of this thread.

    New memory would cost 5 % of the time of each day, and 13 % without huge pages.
    """
    _left.words = words
