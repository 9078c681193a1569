"""The rows of a trade log that look as nearly all of them do, without a branch on their data.

Such a row has a 13-digit timestamp, single spaces, unsigned numbers of at most eight digits before
and eight behind the dot, a side, no liquidation, and a line feed, all within 64 bytes:

    1610064000278 39432.48 0.000263 0

Masks of 64 bytes tell where its numbers end; every row costs the same few dozen cycles.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from candlebeam.formats.decimal_numbers import Word
from candlebeam.kernels import Deferred, callee
from candlebeam.model import Float64Array, Int64Array, Uint8Array

#: Timestamps lie between these, in ms.
MIN_TS = 100_000_000_000
MAX_TS = 10_000_000_000_000
#: A quote volume times VOLUME_SCALE must lie below the limit, to fit into int64.
VOLUME_SCALE = 1e6
VOLUME_LIMIT = 2.0**63

_line_feeds: Any = Deferred("candlebeam.formats.byte_words", "line_feeds")
_spaces: Any = Deferred("candlebeam.formats.byte_words", "spaces")
_non_digits: Any = Deferred("candlebeam.formats.byte_words", "non_digits")
_dots: Any = Deferred("candlebeam.formats.byte_words", "dots")
_load_word: Any = Deferred("candlebeam.formats.byte_words", "load_word")
_six_numbers: Any = Deferred("candlebeam.formats.byte_words", "six_numbers")
_trailing_zeros: Any = Deferred("candlebeam.formats.byte_words", "trailing_zeros")

_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_ALL_ONES = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_TS_MASK = np.uint64((1 << 14) - 1)
_TS_END = np.uint64(1 << 13)
# By the length of a fraction, from -1 to 8.
_TENS = np.array([10 ** max(n, 0) for n in range(-1, 9)], np.int64)
_FLOAT_TENS = _TENS.astype(np.float64)


@callee
def _bit(place: int) -> Word:
    return _ONE << np.uint64(place & 63)


@callee
def _digits(text: Uint8Array, start: int, count: int) -> Word:
    """`count` digits at `start` as the last of eight; 0 to 8 of them, or less than none for 0."""
    # In two steps, as a shift by 64 does nothing.
    shift = np.uint64(32 - 4 * count)
    return _load_word(text, start) << shift << shift


@callee
def usual_rows(
    text: Uint8Array,
    pos: int,
    end: int,
    from_ts: int,
    seen: int,
    ts: Int64Array,
    price: Float64Array,
    size: Float64Array,
    buy: Uint8Array,
    liquidation: Uint8Array,
    slot: Word,
) -> tuple[int, Word, int, int]:
    """Reads rows of the usual shape, up to the first other one and behind a late one.

    All indices into arrays are unsigned, since numba tests signed ones for being negative.

    Args:
        seen: rows from here on (a place in `text`) are late if they are older than `from_ts`.
        slot: where in the columns to begin.

    Returns:
        The next row's place, the next slot, how many rows were read, and the ts of the last one of
        them if that is late, else 0.
    """
    capacity = np.uint64(len(ts))
    lines = 0
    while slot < capacity:
        # Places below are relative to pos, and 64 where there is none.
        space = _spaces(text, pos)
        no_digit = _non_digits(text, pos)
        row_end = _trailing_zeros(_line_feeds(text, pos))
        space2 = space & ~_TS_MASK
        price_end = _trailing_zeros(space2)
        size_end = _trailing_zeros(space2 & (space2 - _ONE))
        # The end of a number without dot counts as its dot, and its fraction is -1 digits long.
        price_dot = _trailing_zeros(no_digit & ~_TS_MASK)
        size_dot = _trailing_zeros(no_digit & ((_ALL_ONES - _ONE) << np.uint64(price_end & 63)))
        expected = _TS_END | _bit(price_end) | _bit(size_end) | _bit(price_dot) | _bit(size_dot)
        known = space | _dots(text, pos)
        in_row = _bit(row_end) - _ONE
        price_whole = price_dot - 14
        size_whole = size_dot - price_end - 1
        price_fraction = price_end - price_dot - 1
        size_fraction = size_end - size_dot - 1
        if not (
            (row_end == size_end + 2)
            & (pos + row_end < end)
            & ((((no_digit ^ expected) | (no_digit ^ known)) & in_row) == _ZERO)
            & ((space & _TS_MASK) == _TS_END)
            & ((((price_whole - 1) | (size_whole - 1)) & ~7) == 0)
            & (((8 - price_fraction) | (8 - size_fraction)) >= 0)
        ):
            break
        side = text[np.uint64(pos + size_end + 1)]
        ts1, ts2, price1, price2, size1, size2 = _six_numbers(
            _load_word(text, pos),
            _digits(text, pos + 8, 5),
            _digits(text, pos + 14, price_whole),
            _digits(text, pos + price_dot + 1, price_fraction),
            _digits(text, pos + price_end + 1, size_whole),
            _digits(text, pos + size_dot + 1, size_fraction),
        )
        price_tens = np.uint64(price_fraction + 1)
        size_tens = np.uint64(size_fraction + 1)
        row_ts = ts1 * 100_000 + ts2
        price_digits = price1 * _TENS[price_tens] + price2
        size_digits = size1 * _TENS[size_tens] + size2
        row_price = np.float64(price_digits) / _FLOAT_TENS[price_tens]
        row_size = np.float64(size_digits) / _FLOAT_TENS[size_tens]
        if not (
            (((price_digits | size_digits) >> 53) == 0)
            & (price_digits > 0)
            & (row_ts > MIN_TS)
            & ((side & 0xFE) == 0x30)
            & ((row_price * row_size) * VOLUME_SCALE < VOLUME_LIMIT)
        ):
            break
        start = pos
        pos += row_end + 1
        lines += 1
        ts[slot] = row_ts
        price[slot] = row_price
        size[slot] = row_size
        buy[slot] = side & 1
        liquidation[slot] = 0
        if row_ts >= from_ts:
            slot += _ONE
        elif start >= seen:
            return pos, slot, lines, row_ts
    return pos, slot, lines, 0
