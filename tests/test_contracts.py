"""Forms of symbols at Databento."""

from __future__ import annotations

import pytest
from databento.common.parsing import symbols_list_to_list
from databento_dbn import SType

from candlebeam.rules.contracts import (
    describe,
    forms_of_root,
    guess_stype,
    names_several,
    requested_form,
)


@pytest.mark.parametrize(
    ("symbol", "stype"),
    [
        ("SPY", "raw_symbol"),
        ("ESH4", "raw_symbol"),
        ("ESH4-ESM4", "raw_symbol"),
        ("BRK.B", "raw_symbol"),
        ("SPY   240621C00500000", "raw_symbol"),
        ("ALL_SYMBOLS", "raw_symbol"),
        ("FUT.ES", "raw_symbol"),
        ("ES.c", "raw_symbol"),
        ("ES.x.0", "raw_symbol"),
        ("ES.FUT", "parent"),
        ("es.opt", "parent"),
        ("6E.FUT", "parent"),
        ("ES.c.0", "continuous"),
        ("ES.V.12", "continuous"),
        ("es.n.1", "continuous"),
        ("5602", "instrument_id"),
    ],
)
def test_form_of_a_symbol_tells_its_type(symbol: str, stype: str) -> None:
    assert guess_stype(symbol) == stype


@pytest.mark.parametrize("symbol", ["spy", " ESH4 ", "es.FUT", "ES.V.0", "es.c.10", "btc/usd", "5"])
def test_symbols_are_named_as_the_library_asks_for_them(symbol: str) -> None:
    stype = guess_stype(symbol.strip())
    asked = symbols_list_to_list([symbol.strip()], SType.from_str(stype))
    assert [requested_form(symbol, stype)] == asked


def test_forms_are_explained() -> None:
    assert describe("ES.c.0", "continuous") == "ES, 1st by expiry, counted from the next to expire"
    assert str(describe("ES.n.1", "continuous")).startswith("ES, 2nd by open interest")
    assert str(describe("ES.v.11", "continuous")).startswith("ES, 12th by volume")
    assert str(describe("ES.v.20", "continuous")).startswith("ES, 21st by volume")
    assert describe("CL.OPT", "parent") == "all options of CL"
    assert describe("6EZ24", "raw_symbol") == (
        "if a future: 6E for December of a year that ends in 24"
    )
    assert describe("AAPL", "raw_symbol") is None
    assert describe("ESH4", "instrument_id") is None


def test_only_what_can_be_a_root_has_forms() -> None:
    assert [form.stype for form in forms_of_root("6E")] == ["parent", *["continuous"] * 3]
    assert forms_of_root("BRK.B") == []
    assert forms_of_root("ESH4-ESM4") == []


def test_parents_and_all_symbols_name_several_instruments() -> None:
    assert names_several("ES.FUT", "parent")
    assert names_several("ALL_SYMBOLS", "raw_symbol")
    assert not names_several("ES.c.0", "continuous")
