from __future__ import annotations

from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlebeam.rules.symbols import (
    BITGET_RENAME_TS,
    POLONIEX_FLIP_TS,
    SymbolEra,
    normalize_symbol,
    symbol_eras,
)

QUOTES = ("USDT", "USDC", "USD", "EUR")
BEFORE, AT = POLONIEX_FLIP_TS - 1, POLONIEX_FLIP_TS
LONG_AGO, FAR = 0, 4_102_444_800_000


def test_moments_are_those_of_the_rules() -> None:
    moments = [
        datetime(2021, 8, 18, 16, tzinfo=timezone.utc),
        datetime(2025, 11, 28, tzinfo=timezone.utc),
    ]
    expected = [int(moment.timestamp()) * 1000 for moment in moments]
    assert expected == [POLONIEX_FLIP_TS, BITGET_RENAME_TS]


@pytest.mark.parametrize("quote", QUOTES)
@pytest.mark.parametrize("ts", [LONG_AGO, BEFORE, AT, FAR])
def test_poloniex_pair_with_one_quote_is_base_first_whatever_the_date(quote: str, ts: int) -> None:
    assert normalize_symbol("POLONIEX", f"BTC_{quote}", ts) == f"BTC_{quote}"
    assert normalize_symbol("POLONIEX", f"{quote}_BTC", ts) == f"BTC_{quote}"


@pytest.mark.parametrize(
    "raw", ["BTC_ETH", "USDT_USDC", "USDC_USDT", "USD_EUR", "USDT_USDT", "BTC_BUSD"]
)
def test_poloniex_pair_of_two_or_no_quotes_flips_before_the_cut_alone(raw: str) -> None:
    flipped = "_".join(reversed(raw.split("_")))
    assert normalize_symbol("POLONIEX", raw, LONG_AGO) == flipped
    assert normalize_symbol("POLONIEX", raw, BEFORE) == flipped
    assert normalize_symbol("POLONIEX", raw, AT) == raw
    assert normalize_symbol("POLONIEX", raw, FAR) == raw


@pytest.mark.parametrize("raw", ["BTC", "BTCUSDT", "BTC_ETH_X", "USDT_BTC_X", "BTC-USDT", ""])
@pytest.mark.parametrize("ts", [LONG_AGO, BEFORE, AT])
def test_poloniex_name_that_is_no_pair_stays(raw: str, ts: int) -> None:
    assert normalize_symbol("POLONIEX", raw, ts) == raw


def test_poloniex_names_are_upper_cased_first() -> None:
    assert normalize_symbol("POLONIEX", "usdt_btc", AT) == "BTC_USDT"
    assert normalize_symbol("POLONIEX", "Btc_eth", BEFORE) == "ETH_BTC"
    assert normalize_symbol("POLONIEX", "xbt", BEFORE) == "XBT"


@pytest.mark.parametrize("suffix", ["_UMCBL", "_DMCBL", "_CMCBL"])
@pytest.mark.parametrize("ts", [LONG_AGO, BITGET_RENAME_TS - 1, BITGET_RENAME_TS, FAR])
def test_bitget_derivative_drops_its_suffix_whatever_the_date(suffix: str, ts: int) -> None:
    assert normalize_symbol("BITGET", f"BTCUSDT{suffix}", ts) == "BTCUSDT"
    assert normalize_symbol("BITGET", f"btcusdt{suffix.lower()}", ts) == "BTCUSDT"


@pytest.mark.parametrize("ts", [LONG_AGO, BITGET_RENAME_TS - 1, BITGET_RENAME_TS, FAR])
def test_bitget_spot_stays(ts: int) -> None:
    assert normalize_symbol("BITGET", "BTCUSDT-SPOT", ts) == "BTCUSDT-SPOT"
    assert normalize_symbol("BITGET", "btcusdt-spot", ts) == "BTCUSDT-SPOT"


def test_bitget_bare_symbol_is_spot_before_the_cut_and_a_derivative_from_then_on() -> None:
    assert normalize_symbol("BITGET", "BTCUSDT", LONG_AGO) == "BTCUSDT-SPOT"
    assert normalize_symbol("BITGET", "BTCUSDT", BITGET_RENAME_TS - 1) == "BTCUSDT-SPOT"
    assert normalize_symbol("BITGET", "BTCUSDT", BITGET_RENAME_TS) == "BTCUSDT"
    assert normalize_symbol("BITGET", "btcusdt", FAR) == "BTCUSDT"


@pytest.mark.parametrize("raw", ["BTC_UMCBL_X", "UMCBL", "BTC-SPOT-X", "BTCUMCBL", "BTC_UMCBL "])
def test_bitget_suffix_counts_at_the_end_alone(raw: str) -> None:
    assert normalize_symbol("BITGET", raw, BITGET_RENAME_TS - 1) == f"{raw}-SPOT"
    assert normalize_symbol("BITGET", raw, BITGET_RENAME_TS) == raw


@pytest.mark.parametrize("exchange", ["BINANCE", "poloniex", "BITGET2", "KRAKEN", ""])
@pytest.mark.parametrize("raw", ["btcusdt", "USDT_BTC", "BTCUSDT_UMCBL", "XBT/USD", "Ünïcode"])
def test_symbols_of_other_exchanges_stay_as_they_are(exchange: str, raw: str) -> None:
    assert symbol_eras(exchange, raw) == (SymbolEra(0, raw),)
    assert normalize_symbol(exchange, raw, BEFORE) == raw


def test_files_from_before_1970_belong_to_the_first_era() -> None:
    assert normalize_symbol("BITGET", "BTCUSDT", -1) == "BTCUSDT-SPOT"
    assert normalize_symbol("POLONIEX", "BTC_ETH", -(2**62)) == "ETH_BTC"


@given(
    st.sampled_from(["POLONIEX", "BITGET", "BINANCE"]),
    st.text(st.sampled_from("aBCUSDTEURMBL_-")),
    st.integers(-(2**50), 2**50),
)
def test_eras_say_the_same_as_the_rule_and_ascend_from_zero(
    exchange: str, raw: str, ts: int
) -> None:
    eras = symbol_eras(exchange, raw)
    starts = [era.from_ts for era in eras]
    assert starts[0] == 0
    assert starts == sorted(set(starts))
    means = [era.symbol for era in eras if era.from_ts <= max(ts, 0)][-1]
    assert normalize_symbol(exchange, raw, ts) == means


@given(st.sampled_from(["POLONIEX", "BINANCE"]), st.text(st.sampled_from("BCUSDTEURX_-")))
def test_names_of_today_stay_as_they_are(exchange: str, raw: str) -> None:
    """What a rule gives for the present, it leaves alone."""
    today = normalize_symbol(exchange, raw, FAR)
    assert normalize_symbol(exchange, today, FAR) == today
