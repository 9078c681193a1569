"""`candlebeam databento symbols`: what symbols stand for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command_line import Outcome
from tests.databento_runs import QUICK, databento, serving
from tests.databento_server import Fault, Server

RESOLVE = "symbology.resolve"
MARCH = ("--start", "2024-03-10", "--end", "2024-03-20")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path) as found:
        yield found


def symbols(*arguments: str) -> Outcome:
    return databento("symbols", "GLBX.MDP3", *arguments, *QUICK)


def rows(outcome: Outcome) -> list[list[str]]:
    """The cells of the table, without its head."""
    lines = outcome.stdout.splitlines()
    assert lines[0].split() == ["symbol", "type", "from", "before", "instrument", "raw", "symbol"]
    return [cells for line in lines[1:] if len(cells := line.split()) == 6 and ":" not in cells[0]]


def test_a_raw_symbol_stands_for_its_instrument(server: Server) -> None:
    outcome = symbols("esm4", "--date", "2024-04-01").expect()
    assert rows(outcome) == [["ESM4", "raw_symbol", "2024-04-01", "2024-04-02", "5602", "ESM4"]]
    assert "ESM4: if a future: ES for June of a year that ends in 4" in outcome.stdout
    assert server.asked(RESOLVE)[0] == {
        "dataset": "GLBX.MDP3", "symbols": "ESM4", "stype_in": "raw_symbol",
        "stype_out": "instrument_id", "start_date": "2024-04-01", "end_date": "2024-04-02",
    }  # fmt: skip


def test_a_continuous_contract_stands_for_one_after_the_other(server: Server) -> None:
    outcome = symbols("ES.v.0", *MARCH).expect()
    assert rows(outcome) == [
        ["ES.v.0", "continuous", "2024-03-10", "2024-03-16", "17077", "ESH4"],
        ["ES.v.0", "continuous", "2024-03-16", "2024-03-21", "5602", "ESM4"],
    ]


def test_a_parent_stands_for_all_of_its_root(server: Server) -> None:
    outcome = symbols("ES.FUT", *MARCH).expect()
    assert rows(outcome) == [
        ["ES.FUT", "parent", "2024-03-10", "2024-03-16", "17077", "ESH4"],
        ["ES.FUT", "parent", "2024-03-10", "2024-03-21", "5602", "ESM4"],
    ]


def test_an_instrument_stands_for_its_raw_symbol(server: Server) -> None:
    outcome = symbols("5602", "--date", "2024-04-01").expect()
    assert rows(outcome) == [["5602", "instrument_id", "2024-04-01", "2024-04-02", "5602", "ESM4"]]


def test_a_symbol_of_a_part_of_the_time_is_told(server: Server) -> None:
    outcome = symbols("ESH4", "ESM4", *MARCH).expect()
    assert "ESH4: in a part of the time only" in outcome.stdout.splitlines()
    assert "ESM4: in a part of the time only" not in outcome.stdout


def test_a_root_is_told_with_the_forms_of_its_contracts(server: Server) -> None:
    outcome = symbols("ES", "--date", "2024-04-01").expect(1)
    assert [row[0] for row in rows(outcome)] == ["ES.FUT", "ES.c.0", "ES.v.0", "ES.n.0"]
    assert {row[5] for row in rows(outcome)} == {"ESM4"}
    assert "ES is a root; ask for one of its contracts" in outcome.stdout
    assert outcome.stderr == (
        "candlebeam: ES: not found in GLBX.MDP3 as raw_symbol, 2024-04-01 to 2024-04-02\n"
    )


def test_a_root_whose_forms_are_refused_is_just_not_found(server: Server) -> None:
    detail = {"case": "symbology_invalid_request", "message": "Not here.", "docs": None}
    server.will(RESOLVE, Fault(), *[Fault(422, detail)] * 4)
    outcome = symbols("ES", "--date", "2024-04-01").expect(1)
    assert outcome.stdout == ""
    assert "ES: not found" in outcome.stderr


def test_what_is_not_found_does_not_hide_the_rest(server: Server) -> None:
    outcome = symbols("NO-SUCH", "ESM4", "ES.c.0", *MARCH).expect(1)
    assert [row[0] for row in rows(outcome)] == ["ESM4", "ES.c.0", "ES.c.0"]
    assert outcome.stderr.splitlines() == [
        "candlebeam: NO-SUCH: not found in GLBX.MDP3 as raw_symbol, 2024-03-10 to 2024-03-21"
    ]


def test_a_symbol_that_is_refused_does_not_take_the_others_with_it(server: Server) -> None:
    detail = {"case": "symbology_invalid_symbol", "message": "What is X Y?", "docs": None}
    server.will(RESOLVE, Fault(422, detail), Fault(422, detail), Fault())
    outcome = symbols("X Y", "ESM4", *MARCH).expect(1)
    assert [row[0] for row in rows(outcome)] == ["ESM4"]
    assert outcome.stderr == (
        "candlebeam: the symbols X Y: 422 symbology_invalid_symbol What is X Y?\n"
    )


def test_symbols_of_one_type_are_asked_together(server: Server) -> None:
    symbols("ESM4", "ESH4", "esm4", "ES.c.0", *MARCH).expect()
    asked = [(each["stype_in"], each["symbols"]) for each in server.asked(RESOLVE)]
    assert asked[:2] == [("raw_symbol", "ESM4,ESH4"), ("continuous", "ES.c.0")]


def test_a_given_type_counts_more_than_the_form(server: Server) -> None:
    symbols("5602", "--stype-in", "raw_symbol", "--date", "2024-04-01").expect(1)
    assert server.asked(RESOLVE)[0]["stype_in"] == "raw_symbol"


def test_without_a_date_it_is_the_last_whole_day(server: Server) -> None:
    server.end = "2024-06-20T14:30:00.000000000Z"
    outcome = symbols("ESM4").expect()
    assert rows(outcome)[0][2:4] == ["2024-06-19", "2024-06-20"]


def test_names_that_do_not_come_leave_the_numbers(server: Server) -> None:
    server.will(RESOLVE, Fault(), Fault(403, "no"))
    outcome = symbols("ES.c.0", "--date", "2024-04-01").expect()
    assert rows(outcome) == [["ES.c.0", "continuous", "2024-04-01", "2024-04-02", "5602", "-"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--date", "2024-01-01", "--start", "2024-01-01"), "expected one way to choose"),
        (("--start", "2024-01-01"), "expected both or neither"),
        (("--start", "2024-02-01", "--end", "2024-01-01"), "expected an end after the start"),
        (("--date", "today"), "expected a month, a day or a time"),
        (("--stype-in", "raw"), "expected one of instrument_id, raw_symbol"),
    ],
)
def test_wrong_usage_is_told(server: Server, options: tuple[str, ...], message: str) -> None:
    assert message in symbols("ESM4", *options).expect(2).stderr
    assert server.requests == []


@pytest.mark.parametrize("symbol", ["", " ", "A,B", "A\nB"])
def test_what_is_no_symbol_is_refused(server: Server, symbol: str) -> None:
    assert "symbol" in symbols(symbol).expect(2).stderr
    assert server.requests == []
