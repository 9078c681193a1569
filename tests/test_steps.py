"""Truncated numbers are recovered, as far as what was stored tells them apart."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlebeam.rules.steps import (
    AS_STORED,
    Step,
    StepFinder,
    find_step,
    recover,
    recover_numbers,
)

END = 1 << 53
#: Bounds of numbers times 1e8: from 1e-8 to 9e7.
MAGNITUDES = (10, 10**3, 10**6, 10**9, 10**12, 10**14, 10**15, END)


def text_of(number: int) -> str:
    """A number times 1e8 as an exchange writes it."""
    return f"{Decimal(number).scaleb(-8):f}"


def truncated(number: int) -> int:
    """What the writer that truncates makes of a number, given times 1e8."""
    return int(float(text_of(number)) * 100_000_000)


def preimages(value: int) -> list[int]:
    """The numbers for which that writer stores the value."""
    return [number for number in (value - 1, value, value + 1) if truncated(number) == value]


def naive_step(values: Sequence[int]) -> Step:
    """The step by its definition."""
    asked = [value for value in values if 0 < value < END]
    for exponent in range(8, 0, -1):
        unit = 10**exponent
        nearest = [(value + unit // 2) // unit * unit for value in asked]
        if all(truncated(n) == v for n, v in zip(nearest, asked, strict=True)):
            return Step(unit)
    if all(value % 10 == 0 for value in asked) or not all(map(preimages, asked)):
        return AS_STORED
    return Step(1)


def array(values: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.array(values, np.uint64)


@st.composite
def days(draw: st.DrawFn, decimals: st.SearchStrategy[int]) -> list[int]:
    """The numbers of a day times 1e8, all with so many decimals; some of them are 0."""
    unit = 10 ** (8 - draw(decimals))
    bound = draw(st.sampled_from([m for m in MAGNITUDES if m > unit]))
    some = st.integers(0, (bound - 1) // unit).map(lambda n: n * unit)
    return draw(st.lists(some, min_size=1, max_size=20))


@given(days(st.integers(0, 7)))
def test_every_number_of_up_to_seven_decimals_is_recovered(numbers: list[int]) -> None:
    stored = array([truncated(number) for number in numbers])
    assert recover(stored, find_step(stored)).tolist() == numbers


@pytest.mark.parametrize("rows", [1, 2, 7, 5_000])
@pytest.mark.parametrize("decimals", range(8))
def test_whole_days_of_each_decimal_count_are_recovered(decimals: int, rows: int) -> None:
    random = Random(decimals * 10_000 + rows)
    unit = 10 ** (8 - decimals)
    lost = 0
    for bound in MAGNITUDES:
        if bound <= unit:
            continue
        numbers = [random.randrange(1, bound // unit + 1) * unit % END for _ in range(rows)]
        stored = array([truncated(number) for number in numbers])
        lost += int((stored != array(numbers)).sum())
        assert recover(stored, find_step(stored)).tolist() == numbers
    # These days do need recovering.
    assert lost > rows // 20 or decimals == 0 or rows < 10


@pytest.mark.parametrize("bound", [10**5, 10**9, 10**13, 10**15, END])
def test_of_eight_decimals_what_is_certain_is_recovered(bound: int) -> None:
    random = Random(bound)
    numbers = [random.randrange(1, bound) for _ in range(3_000)]
    stored = [truncated(number) for number in numbers]
    step = find_step(array(stored))
    assert step == Step(1)
    certain = restored = 0
    for number, value, found in zip(
        numbers, stored, recover(array(stored), step).tolist(), strict=True
    ):
        possible = preimages(value)
        assert number in possible
        if len(possible) == 1:
            assert found == number
            certain += 1
            restored += found != value
        else:
            assert found == value
    assert 0 < restored < certain < len(numbers)


@given(days(st.integers(0, 7)))
def test_numbers_that_were_stored_exactly_stay(numbers: list[int]) -> None:
    stored = array(numbers)
    assert recover(stored, find_step(stored)).tolist() == numbers


def test_a_day_of_eight_decimals_that_no_truncating_writer_stores_stays() -> None:
    random = Random(8)
    numbers = [random.randrange(1, 10**6) for _ in range(200)]
    assert not all(map(preimages, numbers))
    assert find_step(array(numbers)) == AS_STORED
    assert recover(array(numbers), AS_STORED).tolist() == numbers


@given(
    st.lists(
        st.integers(0, 2**64 - 1)
        | st.integers(0, 10**6)
        | days(st.integers(0, 8)).map(lambda numbers: truncated(numbers[0])),
        max_size=8,
    )
)
def test_any_values_have_the_step_of_the_definition(values: list[int]) -> None:
    assert find_step(array(values)) == naive_step(values)


@given(days(st.integers(0, 8)), st.integers(0, 20))
def test_the_step_is_the_same_however_the_values_come(numbers: list[int], cut: int) -> None:
    stored = array([truncated(number) for number in numbers])
    finder = StepFinder()
    finder.add(stored[:cut])
    finder.add(stored[cut:])
    assert finder.step == find_step(stored) == find_step(stored[::-1])


def test_zeros_and_values_that_no_float_tells_apart_have_no_say() -> None:
    assert find_step(array([])) == find_step(array([0, 0])) == Step(10**8)
    assert find_step(array([0, 28_999_999, END + 1, 2**64 - 1])) == Step(10**6)


def test_one_number_of_more_decimals_makes_the_step_smaller_for_all() -> None:
    cents = [truncated(number * 10**6) for number in range(1, 100)]
    assert find_step(array(cents)) == Step(10**6)
    assert find_step(array([*cents, 1_001_000])) == Step(1_000)
    assert find_step(array([*cents, 1_000_001])) == Step(1)


@given(st.integers(0, 2**64 - 1) | st.integers(END - 9, END + 9))
def test_values_as_stored_become_the_nearest_float(value: int) -> None:
    found = recover_numbers(array([value]), AS_STORED).tolist()
    assert found == [float(Fraction(value, 10**8))]


@given(days(st.integers(0, 7)))
def test_recovered_numbers_are_what_their_texts_say(numbers: list[int]) -> None:
    stored = array([truncated(number) for number in numbers])
    found = recover_numbers(stored, find_step(stored)).tolist()
    assert found == [float(text_of(number)) for number in numbers]


@given(st.integers(1, 8).flatmap(lambda k: st.tuples(st.just(k), st.integers(0, 2**63 // 10**k))))
def test_high_numbers_are_recovered_where_the_step_leaves_one_choice(
    case: tuple[int, int],
) -> None:
    exponent, multiple = case
    number = multiple * 10**exponent + END // 10**exponent * 10**exponent
    value = truncated(number)
    if value >= 2**63:
        return
    spacing = 2 ** max(0, value.bit_length() - 53)
    found = int(recover(array([value]), Step(10**exponent))[0])
    assert found == (number if 10**exponent >= 4 * spacing else value)


def test_high_numbers_that_are_no_float_stay() -> None:
    assert recover(array([END + 11, 2**64 - 1]), Step(10**8)).tolist() == [END + 11, 2**64 - 1]


def test_other_types_of_values_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 64-bit integers, found float64"):
        find_step(np.zeros(2))
    with pytest.raises(ValueError, match="expected 64-bit integers, found uint16"):
        recover(np.zeros(2, np.uint16), AS_STORED)
