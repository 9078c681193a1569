from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlebeam.errors import FormatError
from candlebeam.formats.candles.companion import (
    CandlePaths,
    Companion,
    InputState,
    Journal,
    ResumeState,
    read_companion,
    read_journal,
)
from candlebeam.model import BLOCK_DTYPE, Market, Timeframe
from candlebeam.rules.corrections import CORRECTIONS
from candlebeam.rules.price_scale import PriceScale, PriceState
from candlebeam.settings import CandleSettings
from tests.candle_pairs import STATE, companion_of, some_records
from tests.trade_batches import MARKET, MIDNIGHT

INFINITY, NOT_A_NUMBER = float("inf"), float("nan")


# Companions

SETTINGS = st.builds(
    CandleSettings,
    timeframe=st.sampled_from([Timeframe(1000), Timeframe(60_000), Timeframe(86_400_000)]),
    corrections=st.lists(st.sampled_from(list(CORRECTIONS)), unique=True).map(tuple),
    liquidations=st.sampled_from(["separate", "included"]),
    price_scale=st.none() | st.builds(PriceScale, st.integers(-20, 20)),
)
INPUTS = st.builds(
    InputState, st.text(), st.text(), st.text(), st.integers(0, 2**50), st.integers(0, 2**50)
)
STATES = st.builds(
    ResumeState,
    settings=SETTINGS,
    inputs=st.lists(INPUTS, min_size=1, max_size=3).map(tuple),
    covered=st.integers(3, 2**40),
    tail=st.just(b"") | st.binary(min_size=BLOCK_DTYPE.itemsize, max_size=BLOCK_DTYPE.itemsize),
    prices=st.builds(PriceState, st.integers(4, 308), st.floats(0, 1e300)),
    exact=st.booleans(),
)


@given(STATES, st.builds(Market, st.text(), st.text(), st.text()), st.integers(1, 2**30))
def test_companion_round_trip(state: ResumeState, market: Market, records: int) -> None:
    companion = companion_of(records, PriceScale(state.prices.decimals), state, market)
    assert Companion.decode(companion.encode(), "x.json") == companion


def test_companion_has_the_fields_of_the_specification() -> None:
    values = json.loads(companion_of(3).encode())
    assert values.pop("candlebeam")["version"] == 1
    assert values == {
        "collector": "RAM",
        "exchange": "BINANCE",
        "symbol": "btcusdt",
        "timeframe": "1m",
        "timeframeMs": 60_000,
        "startTs": MIDNIGHT,
        "endTs": MIDNIGHT + 180_000,
        "priceScale": 10_000,
        "volumeScale": 1_000_000,
        "records": 3,
        "lastInputStartTs": MIDNIGHT,
    }


def test_companion_of_another_program_is_read_without_a_state() -> None:
    values = companion_of(3).to_json()
    del values["candlebeam"], values["collector"]
    found = Companion.decode(json.dumps(values).encode(), "x.json")
    assert found == replace(companion_of(3, state=None), market=MARKET._replace(collector=""))


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_state_of_another_version_is_passed_over(version: object) -> None:
    values = companion_of(3).to_json()
    values["candlebeam"] = {"version": version, "what": "ever"}
    assert Companion.decode(json.dumps(values).encode(), "x.json") == companion_of(3, state=None)


def test_companion_that_is_cut_anywhere_is_an_error_that_names_it() -> None:
    data = companion_of(3).encode()
    assert data.endswith(b"}\n")
    for length in range(len(data) - 1):
        with pytest.raises(FormatError, match=r"^out/x\.json: expected JSON of a candle file"):
            Companion.decode(data[:length], "out/x.json")


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 100, b"null", b"3", b'"x"', b"[]", b"{}", b"\xff\xfe", b"{" * 9, b"[" * 200_000],
    ids=lambda data: repr(data[:12]),
)
def test_what_is_no_companion_is_an_error_that_names_it(data: bytes) -> None:
    with pytest.raises(FormatError, match=r"^out/x\.json: expected .* of a candle file, found "):
        Companion.decode(data, "out/x.json")


def damaged(values: dict[str, Any], place: str, value: object) -> bytes:
    """The JSON with another value at a place such as `candlebeam.settings.timeframe`."""
    *folders, name = place.split(".")
    inner = values
    for folder in folders:
        inner = inner[folder]
    if value is ...:
        del inner[name]
    else:
        inner[name] = value
    return json.dumps(values).encode()


REQUIRED = [
    "exchange", "symbol", "timeframe", "startTs", "endTs", "priceScale", "volumeScale", "records",
    "lastInputStartTs", *(f"candlebeam.{name}" for name in STATE.to_json() if name != "version"),
    *(f"candlebeam.settings.{name}" for name in CandleSettings().to_json()),
]  # fmt: skip
WRONG: list[object] = [
    ..., None, [], {}, "", "x", -1, 1.5, INFINITY, NOT_A_NUMBER, 10**30, [[]], [1], {"a": 1},
]  # fmt: skip
#: Values that are as good as others there.
FINE: dict[str, list[object]] = {
    "exchange": ["", "x"],
    "symbol": ["", "x"],
    "priceScale": [10**30],
    "lastInputStartTs": [-1],
    "candlebeam.skippedFiles": [[], {}, ""],
    "candlebeam.tail": [""],
    "candlebeam.highestPrice": [1.5, 10**30],
    # Whatever is not true is taken for "not exact", which costs work and loses nothing.
    "candlebeam.pricesExact": WRONG[1:],
    "candlebeam.settings.corrections": [[], {}, ""],
    "candlebeam.settings.priceScale": [10**30],
}


@pytest.mark.parametrize("place", REQUIRED)
@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_wrong_value_anywhere_is_an_error_that_names_the_file(place: str, value: object) -> None:
    data = damaged(companion_of(3).to_json(), place, value)
    if value in FINE.get(place, []):
        state = Companion.decode(data, "x.json").state
        assert state is not None
        assert state.exact is False
    else:
        with pytest.raises(FormatError, match=r"^out/x\.json: expected the companion of a candle"):
            Companion.decode(data, "out/x.json")


@pytest.mark.parametrize(
    ("place", "value", "found"),
    [
        ("records", 4, f"4 records from {MIDNIGHT} to {MIDNIGHT + 180_000}"),
        ("endTs", MIDNIGHT, f"3 records from {MIDNIGHT} to {MIDNIGHT}"),
        ("volumeScale", 1000, "volumeScale 1000, not 1000000"),
        ("priceScale", 3, "price scale 3: expected auto or a power of ten"),
        ("priceScale", 1e-320, "price scale 1e-320"),
        ("timeframe", "7m", "timeframe 7m: expected a divisor of a day"),
        ("startTs", True, "True for a whole number"),
        ("exchange", ["BINANCE"], r"\['BINANCE'\] for a text"),
        ("symbol", ..., "no 'symbol'"),
        ("candlebeam.tail", "AAAA", "a tail of 3 bytes, not 104"),
        ("candlebeam.tail", "?", "(Only |Non-)base64"),
        ("candlebeam.inputs", [], "a state without inputs"),
        ("candlebeam.coveredFiles", 0, "0 files covered, 1 of them last"),
        ("candlebeam.inputs", [["a", "b", "c", 1]], "not enough values"),
        ("candlebeam.inputs", [["a", "b", "c", 1, "2"]], "'2' for a whole number"),
        ("candlebeam.inputs", [[1, "b", "c", 1, 2]], "1 for a text"),
        ("candlebeam.priceDecimals", 400, "prices of 400 decimals up to 61234.5"),
        ("candlebeam.highestPrice", INFINITY, "prices of 6 decimals up to inf"),
        ("candlebeam.settings.corrections", ["x"], "correction 'x': expected one of"),
        ("candlebeam.settings.liquidations", "x", "liquidations 'x': expected separate or inc"),
    ],
)
def test_error_says_what_was_found(place: str, value: object, found: str) -> None:
    data = damaged(companion_of(3).to_json(), place, value)
    with pytest.raises(
        FormatError, match=f"expected the companion of a candle file, found {found}"
    ):
        Companion.decode(data, "x.json")


def test_negative_records_are_no_records() -> None:
    values = companion_of(3).to_json() | {"records": -1, "endTs": MIDNIGHT - 60_000}
    with pytest.raises(FormatError, match="found -1 records from"):
        Companion.decode(json.dumps(values).encode(), "x.json")


@given(st.integers(0, 10**6), st.integers(0, 255))
def test_companion_with_any_byte_changed_reads_or_is_a_format_error(place: int, byte: int) -> None:
    data = bytearray(companion_of(3).encode())
    data[place % len(data)] = byte
    with contextlib.suppress(FormatError):
        Companion.decode(bytes(data), "x.json")


def test_missing_companion_and_journal_are_none(tmp_path: Path) -> None:
    assert read_companion(str(tmp_path / "x.json")) is None
    assert read_journal(CandlePaths(str(tmp_path / "x"))) is None


# Journals

JOURNALS = [
    Journal(companion_of(3), replaces=True),
    Journal(companion_of(3), some_records(1).tobytes(), 56),
]


@pytest.mark.parametrize("journal", JOURNALS, ids=["replaces", "tail"])
def test_journal_round_trip(journal: Journal) -> None:
    assert Journal.decode(journal.encode(), "x.journal") == journal


@pytest.mark.parametrize("journal", JOURNALS, ids=["replaces", "tail"])
def test_journal_that_is_cut_anywhere_is_an_error_that_names_it(journal: Journal) -> None:
    data = journal.encode()
    for length in range(len(data)):
        with pytest.raises(FormatError, match=r"^out/x\.journal: expected a commit journal"):
            Journal.decode(data[:length], "out/x.journal")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("tail", "?"), ("tail", None), ("tailOffset", -1), ("tailOffset", 10**9),
        ("tailOffset", 120), ("tailOffset", "56"), ("tailOffset", ...), ("replaces", ...),
        ("companion", None), ("companion", ...), ("companion.records", 2),
    ],
)  # fmt: skip
def test_damaged_journal_is_an_error_that_names_it(place: str, value: object) -> None:
    data = damaged(json.loads(JOURNALS[1].encode()), place, value)
    with pytest.raises(FormatError, match=r"^out/x\.journal: expected "):
        Journal.decode(data, "out/x.journal")


@pytest.mark.parametrize(
    "data", [b"", b"null", b"[1]", b"{}", b"[" * 200_000], ids=lambda data: repr(data[:12])
)
def test_what_is_no_journal_is_an_error_that_names_it(data: bytes) -> None:
    with pytest.raises(FormatError, match=r"^out/x\.journal: expected a commit journal"):
        Journal.decode(data, "out/x.journal")
