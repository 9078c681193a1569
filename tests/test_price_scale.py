from __future__ import annotations

import math
from decimal import ROUND_HALF_EVEN, Context, Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlebeam.errors import PriceScaleError, UsageError
from candlebeam.formats.candles.records import RECORD_DTYPE
from candlebeam.kernels import kernel
from candlebeam.model import BLOCK_DTYPE, Float64Array, Records
from candlebeam.rules.candles import empty_candles
from candlebeam.rules.price_kernels import POWERS_OF_TEN, decimals_needed
from candlebeam.rules.price_scale import (
    INT32_MAX,
    MAX_DECIMALS,
    MIN_DECIMALS,
    PRICE_FIELDS,
    PriceScale,
    PriceState,
    decimals_of,
    price_state,
    quantized_prices,
    restore,
)
from tests.trade_batches import MIDNIGHT

PRICES = (
    st.floats(5e-324, 1.7e308)
    | st.floats(1e-9, 1e9)
    | st.builds(
        lambda n, places: float(f"{n}e-{places}"), st.integers(1, 10**9), st.integers(0, 12)
    )
)
SCALES = [PriceScale(decimals) for decimals in range(-12, 25)]


def candles_at(*prices: float) -> Records:
    """Candles whose four prices are the same."""
    candles = empty_candles(MIDNIGHT, len(prices))
    for name in ("open", "high", "low", "close"):
        candles[name] = prices
    return candles


def stored_at(candles: Records, scale: PriceScale) -> tuple[Records, bool]:
    """The prices as they are stored, and whether they can be had back."""
    prices, exact = quantized_prices(candles, scale)
    stored = np.zeros(len(candles), RECORD_DTYPE)
    for place, name in enumerate(PRICE_FIELDS):
        stored[name] = prices[:, place]
    return stored, exact


# The decimals that a price asks for


def naive_decimals(price: float) -> int:
    nine = Context(prec=9, rounding=ROUND_HALF_EVEN).create_decimal(Decimal(price)).normalize()
    return -int(nine.as_tuple().exponent)


@pytest.mark.parametrize(
    ("price", "decimals"),
    [
        (100.10000000000001, 1),
        (100.1, 1),
        (5e-7, 7),
        (9.81e-8, 10),
        (1.23456789, 8),
        (1.234567891, 8),
        (0.1 + 0.2, 1),
        (1.0, 0),
        (70_000.0, -4),
        (123_456_789_012.0, -3),
        (999_999_999.5, -9),
        (5e-324, 332),
    ],
)
def test_decimals_of_a_price_at_nine_significant_digits(price: float, decimals: int) -> None:
    assert decimals_of(price) == decimals


@given(PRICES)
def test_decimals_are_those_of_the_exact_value_rounded_to_nine_digits(price: float) -> None:
    assert decimals_of(price) == naive_decimals(price)


@kernel("void(float64[:,::1],float64[::1],float64[::1],int64[::1])")
def _decimals_of_each(candles, powers, doubtful, found):  # type: ignore[no-untyped-def]
    for i in range(len(candles)):
        decimals, _, doubts = decimals_needed(candles[i : i + 1], powers, doubtful)
        found[i] = -1 if doubts > 0 else decimals


def made_up_prices(count: int) -> Float64Array:
    """Prices of every kind: any bits, few digits, many, noise in the last bits, near ties."""
    random = np.random.default_rng(20_240_301)
    digits = random.integers(1, 10 ** random.integers(1, 11, count))
    powers = 10.0 ** random.integers(-4, 14, count)
    short = digits / powers
    noisy = short * (1 + random.integers(-4, 5, count) * 2.0**-52)
    ties = (digits + 0.5) / powers
    off_ties = ties * (1 + random.integers(-3, 4, count) * 2.0**-52)
    wide = 10.0 ** random.uniform(-12, 12, count)
    bits = random.integers(1, 0x7FE0 << 48, count, np.int64).view(np.float64)
    return np.concatenate([short, noisy, ties, off_ties, wide, bits])


def test_kernel_agrees_on_millions_of_prices() -> None:
    prices = made_up_prices(200_000)
    candles = np.zeros((len(prices), len(BLOCK_DTYPE.names or ())))
    candles[:, 1:5] = prices[:, None]
    found = np.empty(len(prices), np.int64)
    _decimals_of_each(candles, POWERS_OF_TEN, np.empty(4), found)
    expected = np.array([decimals_of(price) for price in prices.tolist()]).clip(4, MAX_DECIMALS)
    told = found >= 0
    assert len(prices) == 1_200_000
    assert prices[told & (found != expected)].tolist() == []
    # What the kernel leaves open is asked of `decimals_of`: that must stay rare off the ties.
    assert told[:400_000].mean() > 0.99
    assert told[800_000:].mean() > 0.999


@given(st.lists(PRICES, max_size=30))
def test_state_of_candles_is_that_of_their_prices(prices: list[float]) -> None:
    state = price_state(candles_at(*prices))
    asked = [min(decimals_of(price), MAX_DECIMALS) for price in prices]
    assert state == PriceState(max([MIN_DECIMALS, *asked]), max(prices, default=0.0))


@given(st.lists(PRICES, max_size=12), st.integers(0, 12))
def test_state_of_parts_joined_is_that_of_the_whole(prices: list[float], cut: int) -> None:
    parts = price_state(candles_at(*prices[:cut])), price_state(candles_at(*prices[cut:]))
    assert parts[0].joined(parts[1]) == price_state(candles_at(*prices))


@pytest.mark.parametrize("field", ["open", "high", "low", "close"])
def test_every_one_of_the_four_prices_counts(field: str) -> None:
    candles = candles_at(2.0)
    candles[field] = 2.0000001
    assert price_state(candles).decimals == 7


def test_more_prices_near_a_tie_than_there_is_room_for_first() -> None:
    """Nine digits end in the middle of the tenth: float64 arithmetic cannot tell, text can."""
    ties = [1.000000005 + n * 1e-8 for n in range(1000)]
    assert price_state(candles_at(*ties)).decimals == max(map(decimals_of, ties)) == 8


def test_candles_without_prices_ask_for_nothing() -> None:
    assert price_state(empty_candles(MIDNIGHT, 3)) == PriceState()
    assert PriceState().scale() == PriceScale(MIN_DECIMALS)


@pytest.mark.parametrize(
    ("decimals", "highest"), [(3, 1.0), (309, 1.0), (4, math.inf), (4, math.nan), (4, -1.0)]
)
def test_impossible_states_are_refused(decimals: int, highest: float) -> None:
    with pytest.raises(ValueError, match=f"prices of {decimals} decimals up to {highest}"):
        PriceState(decimals, highest)


# The scale


@given(st.lists(PRICES, min_size=1, max_size=10))
def test_scale_is_the_least_that_holds_nine_digits_or_the_greatest_that_fits(
    prices: list[float],
) -> None:
    scale = price_state(candles_at(*prices)).scale()
    asked = max([MIN_DECIMALS, *(min(decimals_of(price), MAX_DECIMALS) for price in prices)])
    assert all(scale.holds(price) for price in prices)
    assert scale.decimals <= asked
    if scale.decimals < asked:
        assert not PriceScale(scale.decimals + 1).holds(max(prices))


@pytest.mark.parametrize(
    ("prices", "scale"),
    [
        ([61_234.5], 10_000),
        ([214_748.3647], 10_000),
        ([214_748.3648], 1_000),
        ([2.5e-5, 3.125e-5], 10**8),
        ([9.81e-8], 10**10),
        ([100.10000000000001], 10_000),
        ([2147483647.0], 1),
        ([2147483648.0], 0.1),
        ([1e12], 0.001),
        ([21.47483647, 1e-8], 10**8),
        ([21.47483648, 1e-8], 10**7),
    ],
)
def test_scale_of_such_prices(prices: list[float], scale: float) -> None:
    assert price_state(candles_at(*prices)).scale().value == scale


@pytest.mark.parametrize("scale", SCALES, ids=lambda scale: f"1e{scale.decimals}")
def test_int32_limit_at_every_scale(scale: PriceScale) -> None:
    """The last price that fits is stored as the largest int32; the next float64 is refused."""
    edge = Decimal("2147483647.5").scaleb(-scale.decimals)
    fits = float(edge)
    while scale.holds(fits):
        fits = math.nextafter(fits, math.inf)
    while not scale.holds(fits):
        fits = math.nextafter(fits, 0)
    stored, _ = stored_at(candles_at(fits), scale)
    assert stored["high"].tolist() == stored["low"].tolist() == [INT32_MAX]
    above = math.nextafter(fits, math.inf)
    assert abs(Decimal(above) / edge - 1) < Decimal("1e-15")
    with pytest.raises(PriceScaleError, match="does not fit in 32 bits"):
        stored_at(candles_at(above), scale)


@pytest.mark.parametrize("value", [10_000, 1, 0.1, 1e-12, 10**22, 1e300, "10000", "1e4"])
def test_power_of_ten_parses(value: float | int | str) -> None:
    assert float(PriceScale.parse(value).value) == float(value)


@pytest.mark.parametrize("decimals", range(-MAX_DECIMALS, MAX_DECIMALS + 1, 7))
def test_value_parses_to_its_scale(decimals: int) -> None:
    scale = PriceScale(decimals)
    assert PriceScale.parse(scale.value) == scale
    assert PriceScale.parse(str(scale.value)) == scale


@pytest.mark.parametrize(
    "value",
    [0, -10, 20, 0.5, 9999.999, "", "ten", "auto", math.inf, math.nan, 1e-320, 5e-324, 10**400],
)
def test_what_is_no_power_of_ten_is_refused(value: float | int | str) -> None:
    with pytest.raises(UsageError, match=r"price scale .*: expected auto or a power of ten"):
        PriceScale.parse(value)


# Stored prices


@given(st.lists(PRICES, max_size=10), st.sampled_from(SCALES))
def test_price_is_rounded_half_up_and_exact_says_whether_it_can_be_had_back(
    prices: list[float], scale: PriceScale
) -> None:
    prices = [price for price in prices if scale.holds(price)]
    candles = candles_at(*prices)
    stored, exact = stored_at(candles, scale)
    for price, value in zip(prices, stored["close"].tolist(), strict=True):
        scaled = price * scale.power if scale.multiplies else price / scale.power
        assert value == math.floor(scaled) + (scaled - math.floor(scaled) >= 0.5)
    had_back = restore(stored, scale)
    assert had_back.shape == (len(prices), 4)
    assert exact == (had_back.tolist() == [[price] * 4 for price in prices])


@given(st.integers(0, INT32_MAX), st.sampled_from(SCALES))
def test_restored_price_is_the_nearest_to_its_decimal_and_stores_the_same_again(
    value: int, scale: PriceScale
) -> None:
    stored = np.zeros(1, RECORD_DTYPE)
    for name in ("open", "high", "low", "close"):
        stored[name] = value
    price = float(restore(stored, scale)[0, 0])
    if scale.decimals <= 22:
        assert price == float(Decimal(value).scaleb(-scale.decimals))
    again, exact = stored_at(candles_at(price), scale)
    assert again["low"].tolist() == [value]
    assert exact


@pytest.mark.parametrize("field", ["open", "high", "low", "close"])
def test_one_price_that_is_rounded_is_enough_not_to_be_exact(field: str) -> None:
    candles = candles_at(2.0, 2.0, 2.0)
    candles[field][1] = 2.00001
    if field != "high":
        candles["high"] = 2.1
    assert stored_at(candles, PriceScale(4))[1] is False
    assert stored_at(candles, PriceScale(5))[1] is True


@pytest.mark.parametrize(("closed", "exact"), [(0, True), (1, True), (2, False), (3, False)])
def test_prices_that_are_not_closed_do_not_count_as_exact_or_not(closed: int, exact: bool) -> None:
    candles = candles_at(2.0, 2.00001, 2.0)
    assert quantized_prices(candles, PriceScale(4), closed)[1] is exact


@pytest.mark.parametrize(
    ("price", "value", "exact"),
    [
        (25.0, 3, False),
        (24.999, 2, False),
        (30.0, 3, True),
        (4.9, 0, False),
        (21474836474.0, INT32_MAX, False),
    ],
)
def test_scale_below_one_divides(price: float, value: int, exact: bool) -> None:
    stored, was_exact = stored_at(candles_at(price), PriceScale(-1))
    assert (stored["open"].tolist(), was_exact) == ([value], exact)


def test_candles_without_prices_store_zeros_and_are_exact() -> None:
    candles = empty_candles(MIDNIGHT, 2)
    stored, exact = stored_at(candles, PriceScale(4))
    assert exact
    assert not stored.view(np.uint8).any()


def test_price_that_does_not_fit_a_forced_scale_is_named_with_its_time() -> None:
    candles = candles_at(1.0, 214_748.36475, 1e300)
    with pytest.raises(
        PriceScaleError,
        match=r"^price 214748\.36475 at 2024-03-01T00:01:00\.000Z does not fit in 32 bits"
        r" at price scale 10000$",
    ):
        stored_at(candles, PriceScale.parse(10_000))


def test_candles_need_neither_be_writeable_nor_aligned_nor_contiguous() -> None:
    candles = candles_at(1.5, 2.25, 3.125)
    expected = stored_at(candles, PriceScale(4))[0].tolist()
    odd = np.frombuffer(b"-" + candles.tobytes(), BLOCK_DTYPE, offset=1)
    for same in (odd, np.repeat(candles, 2)[::2]):
        assert price_state(same) == price_state(candles)
        assert stored_at(same, PriceScale(4))[0].tolist() == expected
