"""Price scales: the power of ten at which a market's prices are stored in int32.

A price at a scale is `round_half_up(price * scale)`, in float64; at a scale below 1 the price is
divided by 10, 100, ... instead, since 0.1 is no float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from candlebeam.errors import PriceScaleError, UsageError
from candlebeam.model import BLOCK_DTYPE, Float64Array, Int32Array, Records, for_kernels
from candlebeam.rules.price_kernels import POWERS_OF_TEN, decimals_needed, quantize_prices

PRICE_FIELDS = ("open", "high", "low", "close")
INT32_MAX = 2_147_483_647
MIN_DECIMALS = 4
#: Prices of a market are told apart to this many significant digits.
SIGNIFICANT_DIGITS = 9
#: A price that asks for more decimals than float64 has powers of ten is held as well as can be.
MAX_DECIMALS = len(POWERS_OF_TEN) - 1


@dataclass(frozen=True)
class PriceScale:
    """A power of ten.

    >>> PriceScale(4).value
    10000
    >>> PriceScale(-1).value
    0.1
    """

    decimals: int

    @classmethod
    def parse(cls, value: float | int | str) -> PriceScale:
        """The scale of a value such as 10000; `UsageError` for what is no power of ten."""
        try:
            number = float(value)
            decimals = round(math.log10(number)) if 0 < number < math.inf else None
        except (ValueError, OverflowError):
            decimals = None
        if decimals is None or decimals < -MAX_DECIMALS or float(f"1e{decimals}") != number:
            raise UsageError(
                f"price scale {value!r}: expected auto or a power of ten, such as 10000"
            )
        return cls(decimals)

    @property
    def value(self) -> int | float:
        """The number that a price is multiplied with."""
        return 10**self.decimals if self.decimals >= 0 else float(f"1e{self.decimals}")

    def holds(self, price: float) -> bool:
        """Whether int32 can hold the price at this scale."""
        scaled = price * self.power if self.multiplies else price / self.power
        # round_half_up(scaled) <= INT32_MAX, without rounding
        return scaled < INT32_MAX + 0.5

    @property
    def power(self) -> float:
        """The power of ten that a price is multiplied with, or divided by (see `multiplies`)."""
        return float(POWERS_OF_TEN[abs(self.decimals)])

    @property
    def multiplies(self) -> bool:
        """Whether a price is multiplied with `power` (a scale of 1 or more), or divided by it."""
        return self.decimals >= 0


@dataclass(frozen=True)
class PriceState:
    """What has to be known of a market's prices to choose their scale.

    Attributes:
        decimals: the most decimals that a price asks for, to nine significant digits.
        highest: the highest price; 0 without any.

    Raises:
        ValueError: these are no prices' state.
    """

    decimals: int = MIN_DECIMALS
    highest: float = 0.0

    def __post_init__(self) -> None:
        if not (MIN_DECIMALS <= self.decimals <= MAX_DECIMALS and 0 <= self.highest < math.inf):
            raise ValueError(f"prices of {self.decimals} decimals up to {self.highest!r}")

    def joined(self, other: PriceState) -> PriceState:
        """The state of both together."""
        return PriceState(max(self.decimals, other.decimals), max(self.highest, other.highest))

    def scale(self) -> PriceScale:
        """The least power of ten that holds every price; or the greatest that int32 can hold."""
        decimals = self.decimals
        while not PriceScale(decimals).holds(self.highest):
            decimals -= 1
        return PriceScale(decimals)


def price_state(candles: Records) -> PriceState:
    """The state of the prices of candles (`BLOCK_DTYPE`); those without prices are passed over."""
    doubtful = np.empty(64, np.float64)
    while True:
        decimals, highest, doubts = decimals_needed(_floats(candles), POWERS_OF_TEN, doubtful)
        if doubts <= len(doubtful):
            break
        doubtful = np.empty(doubts, np.float64)
    for price in doubtful[:doubts].tolist():
        decimals = max(decimals, min(decimals_of(price), MAX_DECIMALS))
    return PriceState(int(decimals), float(highest))


def decimals_of(price: float) -> int:
    """The decimals that a price has when it is rounded to nine significant digits.

    >>> decimals_of(100.10000000000001), decimals_of(5e-7), decimals_of(123456789012.0)
    (1, 7, -3)
    """
    digits, _, exponent = f"{price:.{SIGNIFICANT_DIGITS - 1}e}".partition("e")
    return len(digits.rstrip("0").rstrip(".").replace(".", "")) - 1 - int(exponent)


def quantized_prices(
    candles: Records, scale: PriceScale, closed: int | None = None
) -> tuple[Int32Array, bool]:
    """Open, high, low and close of candles (`BLOCK_DTYPE`) at a scale.

    Args:
        closed: how many of the candles count for the second result; all by default.

    Returns:
        The prices, of shape (candles, 4), zeros where there are none; and whether every price of
        the closed candles can be had back from them (see `restore`).

    Raises:
        PriceScaleError: a price does not fit; names it and the time of its candle.
    """
    # What the kernel notes: the first candle with a price that cannot be had back, or that does
    # not fit.
    notes = np.full(2, len(candles), np.int64)
    prices = np.zeros((len(candles), len(PRICE_FIELDS)), np.int32)
    quantize_prices(_floats(candles), scale.power, scale.multiplies, prices, notes)
    if notes[1] < len(candles):
        candle = candles[int(notes[1])]
        moment = np.datetime64(int(candle["time"]), "ms")
        raise PriceScaleError(
            f"price {float(candle['high'])!r} at {moment}Z does not fit in"
            f" 32 bits at price scale {scale.value}"
        )
    return prices, bool(notes[0] >= (len(candles) if closed is None else closed))


def restore(stored: Records, scale: PriceScale) -> Float64Array:
    """Prices of stored candles, shape (candles, 4): the nearest float64 to stored / scale."""
    prices = np.stack([stored[name] for name in PRICE_FIELDS], axis=1).astype(np.float64)
    return prices / scale.power if scale.multiplies else prices * scale.power


def decimals_kept(stored: Int32Array, scale: PriceScale) -> int:
    """The least decimals of a scale that prices can be had back from, if they can from this one.

    Args:
        stored: prices at `scale`; zeros are none.

    >>> decimals_kept(np.array([1500, 0, 2000], np.int32), PriceScale(4))
    2
    """
    decimals = scale.decimals
    rest = stored[stored != 0]
    if not len(rest):
        return -MAX_DECIMALS
    while decimals > -MAX_DECIMALS and not (rest % 10).any():
        rest = rest // 10
        decimals -= 1
    return decimals


def _floats(candles: Records) -> Float64Array:
    floats = for_kernels(np.ascontiguousarray(candles).view(np.float64))
    return floats.reshape(len(candles), len(BLOCK_DTYPE.names or ()))
