from __future__ import annotations

import copy
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlebeam.errors import (
    CandlebeamError,
    FormatError,
    PriceScaleError,
    RangeError,
    UsageError,
)
from candlebeam.model import BLOCK_DTYPE, MS_PER_DAY, CandleBlock, Market, Timeframe
from tests.trade_batches import MARKET, MINUTE, batch

PARTS = st.text(st.sampled_from("ab./\\%\0\x1f\x7f2EF é") | st.characters(), max_size=6)


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("btcusdt", "btcusdt"),
        ("BTC-USD.P", "BTC-USD.P"),
        ("A/B", "A%2FB"),
        ("A\\B", "A%5CB"),
        ("100%", "100%25"),
        ("a\0b\nc\x7f", "a%00b%0Ac%7F"),
        ("", ""),
        (".", "%2E"),
        ("..", "%2E%2E"),
        (".hidden.bin", "%2Ehidden%2Ebin"),
        ("ünï:* é", "ünï:* é"),
    ],
)
def test_path_of_a_market_encodes_what_a_file_name_cannot_hold(symbol: str, name: str) -> None:
    assert Market("RAM", "X", symbol).path == f"RAM/X/{name}"


@given(st.tuples(PARTS, PARTS, PARTS))
def test_path_of_a_market_never_leaves_its_folder_nor_hides(parts: tuple[str, str, str]) -> None:
    found = Market(*parts).path.split("/")
    assert len(found) == 3
    assert not any(part.startswith(".") or "\\" in part or "\0" in part for part in found)


@given(st.tuples(PARTS, PARTS, PARTS), st.tuples(PARTS, PARTS, PARTS))
def test_two_markets_never_share_a_path(
    one: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    assert (Market(*one).path == Market(*other).path) == (one == other)


def test_market_sorts_and_prints_by_its_parts() -> None:
    markets = [Market("RAM", "B", "x"), Market("PI", "Z", "x"), Market("RAM", "A", "y")]
    assert [str(market) for market in sorted(markets)] == ["PI/Z/x", "RAM/A/y", "RAM/B/x"]


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1s", 1_000),
        ("30s", 30_000),
        ("1m", 60_000),
        ("90m", 5_400_000),
        ("4h", 14_400_000),
        ("1d", MS_PER_DAY),
        ("86400s", MS_PER_DAY),
    ],
)
def test_timeframe_parses(text: str, ms: int) -> None:
    assert Timeframe.parse(text).ms == ms


@pytest.mark.parametrize("seconds", [n for n in range(1, 86_401) if 86_400 % n == 0])
def test_timeframe_prints_what_parses_to_itself(seconds: int) -> None:
    timeframe = Timeframe(seconds * 1000)
    assert Timeframe.parse(str(timeframe)) == timeframe


@pytest.mark.parametrize(
    ("ms", "name"), [(60_000, "1m"), (5_400_000, "90m"), (MS_PER_DAY, "1d"), (90_000, "90s")]
)
def test_timeframe_prints_in_its_largest_unit(ms: int, name: str) -> None:
    assert str(Timeframe(ms)) == name


@pytest.mark.parametrize(
    "text", ["", "m", "1", "0m", "01m", "-1m", "1.5m", "1 m", "1M", "1w", "1m ", "1m\n", "\uff11m"]
)
def test_timeframe_refuses_other_words(text: str) -> None:
    with pytest.raises(UsageError, match=r"timeframe '.*': expected a number and s, m, h or d"):
        Timeframe.parse(text)


@pytest.mark.parametrize("text", ["7m", "7s", "2d", "25h", "5h", "99999999d"])
def test_timeframe_refuses_what_does_not_divide_a_day(text: str) -> None:
    with pytest.raises(
        UsageError, match=f"^timeframe {text}: expected a divisor of a day, from 1s"
    ):
        Timeframe.parse(text)


@pytest.mark.parametrize("ms", [0, -60_000, 1, 500, 1_500, 2 * MS_PER_DAY])
def test_timeframe_refuses_such_lengths(ms: int) -> None:
    with pytest.raises(UsageError, match=f"timeframe of {ms} ms"):
        Timeframe(ms)


def test_trade_batch_refuses_columns_of_other_lengths() -> None:
    trades = batch([(1, 2.0), (2, 2.0)])
    with pytest.raises(
        ValueError, match=r"column size: expected 2 values of float64, found \(1,\)"
    ):
        replace(trades, size=trades.size[:1])


def test_trade_batch_refuses_columns_of_other_types() -> None:
    trades = batch([(1, 2.0), (2, 2.0)])
    with pytest.raises(ValueError, match=r"column buy: expected 2 values of uint8, found .* bool"):
        replace(trades, buy=trades.buy.astype(bool))
    with pytest.raises(ValueError, match="column count: expected 2 values of int64"):
        replace(trades, count=np.ones(2, np.int32))
    with pytest.raises(ValueError, match="column ts: expected 2 values of int64"):
        replace(trades, ts=np.zeros((2, 2), np.int64))


def test_trade_batch_and_candle_block_tell_their_length_and_stay_as_they_are() -> None:
    trades = batch([(1, 2.0), (2, 2.0)])
    block = CandleBlock(MARKET, MINUTE, np.zeros(3, BLOCK_DTYPE))
    assert (len(trades), len(block)) == (2, 3)
    with pytest.raises(FrozenInstanceError):
        trades.market = MARKET  # type: ignore[misc]


def test_candle_block_refuses_other_records() -> None:
    with pytest.raises(ValueError, match="expected records of BLOCK_DTYPE, found float64"):
        CandleBlock(MARKET, MINUTE, np.zeros(3))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected records of BLOCK_DTYPE"):
        CandleBlock(MARKET, MINUTE, np.zeros((1, 1), BLOCK_DTYPE))


def test_block_record_is_thirteen_little_endian_words() -> None:
    assert BLOCK_DTYPE.itemsize == 13 * 8
    assert {BLOCK_DTYPE[name].str for name in BLOCK_DTYPE.names or ()} == {"<i8", "<f8"}


def test_errors_share_a_base_and_are_what_python_would_raise() -> None:
    for error in (UsageError, FormatError, PriceScaleError, RangeError):
        assert issubclass(error, CandlebeamError)
    assert issubclass(FormatError, ValueError)
    assert issubclass(PriceScaleError, ValueError)
    assert issubclass(RangeError, OverflowError)


def test_format_error_names_place_expected_and_found() -> None:
    assert str(FormatError("a.bin", "56 bytes", "3")) == "a.bin: expected 56 bytes, found 3"
    assert str(FormatError("a.bin", "x", "y", 7)) == "a.bin at byte 7: expected x, found y"


def test_format_error_crosses_processes() -> None:
    error = copy.copy(FormatError("a.bin", "x", "y", 7))
    assert (error.path, error.expected, error.found, error.offset) == ("a.bin", "x", "y", 7)
    assert str(error) == "a.bin at byte 7: expected x, found y"
