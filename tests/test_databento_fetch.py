"""`candlebeam databento fetch`: what is asked for, what is kept, and what is not asked again."""

from __future__ import annotations

import os
import pty
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlebeam.pipelines.databento.plan import FetchRequest, make_plan
from candlebeam.pipelines.databento.symbols import Named
from candlebeam.rules.months import NS_PER_DAY, Span, date_text
from tests.command_line import run_process
from tests.databento_runs import (
    DATA,
    FEBRUARY,
    JANUARY,
    MARCH,
    databento,
    delivered,
    fetch,
    fetch_arguments,
    files,
    hidden,
    place,
    serving,
    without_key,
)
from tests.databento_server import (
    DAY,
    GET_RANGE,
    Fault,
    Server,
    ns,
)

COST = "metadata.get_cost"
COUNT = "metadata.get_record_count"
REFUSAL = {"case": "no_entry", "message": "Not you.", "docs": None}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path) as found:
        yield found


# Ranges


def test_months_are_asked_for_whole_and_kept_as_delivered(server: Server) -> None:
    outcome = fetch("SPY", "2024-01", "2024-03").expect()
    assert server.ranges() == [
        ("SPY", "2024-01-01", "2024-02-01"),
        ("SPY", "2024-02-01", "2024-03-01"),
        ("SPY", "2024-03-01", "2024-04-01"),
    ]
    assert files() == {
        JANUARY + DATA: delivered("2024-01-01", "2024-02-01"),
        FEBRUARY + DATA: delivered("2024-02-01", "2024-03-01"),
        MARCH + DATA: delivered("2024-03-01", "2024-04-01"),
    }
    assert outcome.stdout.splitlines()[-1].startswith("3 files fetched (273 records, ")
    progress = [line.split(" in ")[0] for line in outcome.stderr.splitlines()]
    size = f"{len(delivered('2024-01-01', '2024-02-01')):,}"
    assert progress[0] == f"SPY 2024-01: 93 records, {size} bytes"
    assert len(progress) == 3


def test_the_last_second_of_a_month_is_in_its_file(server: Server) -> None:
    fetch("SPY", "2024-01-01", "2024-02-29", "--csv").expect()
    last = place(JANUARY + ".csv").read_text().splitlines()[-1]
    assert last.startswith("2024-01-31 23:59:59+00:00,")
    last = place(FEBRUARY + ".csv").read_text().splitlines()[-1]
    assert last.startswith("2024-02-29 23:59:59+00:00,")


@pytest.mark.parametrize(
    ("start", "end", "asked"),
    [
        ("2024-01-01", "2024-01-31", [("2024-01-01", "2024-02-01")]),
        ("2024-01", "2024-01-31", [("2024-01-01", "2024-02-01")]),
        ("2024-01-01", "2024-02-01T00:00", [("2024-01-01", "2024-02-01")]),
        ("2024-01-31", "2024-02-01", [("2024-01-31", "2024-02-01"), ("2024-02-01", "2024-02-02")]),
        ("2024-02-29", "2024-02-29", [("2024-02-29", "2024-03-01")]),
        ("2023-12-31T23:59:59", "2024-01-01T00:00:01",
         [("2023-12-31T23:59:59", "2024-01-01"), ("2024-01-01", "2024-01-01T00:00:01")]),
        ("2024-01-01T12:00:00.000000001", "2024-01-02T00:00-01:00",
         [("2024-01-01T12:00:00.000000001", "2024-01-02T01:00:00")]),
    ],
)  # fmt: skip
def test_ends_of_a_range_are_exact(
    server: Server, start: str, end: str, asked: list[tuple[str, str]]
) -> None:
    fetch("SPY", start, end).expect()
    assert server.ranges() == [("SPY", *each) for each in asked]


def test_an_end_on_the_first_of_a_month_takes_in_that_day_and_says_so(server: Server) -> None:
    outcome = fetch("SPY", "2024-01-01", "2024-02-01").expect()
    assert outcome.stderr.splitlines()[0] == (
        "candlebeam: --end 2024-02-01 takes in that day; for whole months, give the last of them"
    )


class _Recorder:
    """Stands for the API where only the plan is of interest."""

    def __init__(self, available: Span) -> None:
        self.span = available
        self.costs: list[Span] = []

    def available(self, _: str) -> object:
        from candlebeam.pipelines.databento.client import Availability

        return Availability(self.span, {})

    def resolve(self, _dataset: str, symbols: list[str], _stype: str, days: Span) -> object:
        from candlebeam.pipelines.databento.client import Interval, Resolution

        return Resolution({symbol: [Interval(days, "1")] for symbol in symbols}, (), ())

    def cost(self, query: object) -> float:
        self.costs.append(query.span)  # type: ignore[attr-defined]
        return 1.0


DAYS = st.integers(10_000, 20_000).map(lambda day: day * NS_PER_DAY)
MOMENTS = st.one_of(DAYS, st.integers(10_000 * NS_PER_DAY, 20_000 * NS_PER_DAY))


@given(MOMENTS, MOMENTS, MOMENTS, MOMENTS)
def test_what_is_asked_for_is_what_is_wanted_and_available_month_by_month(
    start: int, end: int, first: int, last: int
) -> None:
    wanted = Span(*sorted((start, end)))
    available = Span(*sorted((first, last)))
    both = Span(max(wanted.start, available.start), min(wanted.end, available.end))
    if not both or both.end - both.start > 2_000 * NS_PER_DAY:
        return
    api = _Recorder(available)
    request = FetchRequest("/no/such/folder", "D", "trades", (Named("S", "raw_symbol"),), wanted)
    plan = make_plan(api, request)  # type: ignore[arg-type]
    spans = [planned.span for planned in plan.fetch]
    assert (spans[0].start, spans[-1].end) == both
    assert all(one.end == other.start for one, other in pairwise(spans))
    assert all(date_text(one.end)[-2:] == "01" and one.end % DAY == 0 for one in spans[:-1])
    months = {(planned.file.month, date_text(planned.span.start)[:7]) for planned in plan.fetch}
    assert all(str(month) == text for month, text in months)
    assert len(months) == len(spans)
    assert api.costs == [both]


# What is available


def test_a_range_is_clipped_to_what_is_available_and_says_so(server: Server) -> None:
    server.begin = "2024-01-10T00:00:00.000000000Z"
    server.end = "2024-03-05T14:30:00.123456789Z"
    outcome = fetch("SPY", "2023-06", "2025-12")
    assert server.ranges() == [
        ("SPY", "2024-01-10", "2024-02-01"),
        ("SPY", "2024-02-01", "2024-03-01"),
        ("SPY", "2024-03-01", "2024-03-05T14:30:00.123456789"),
    ]
    end = "ends before 2024-03-05 14:30:00.123456789 for now; the rest is left out"
    assert outcome.expect().stderr.splitlines()[:2] == [
        "candlebeam: XNAS.ITCH ohlcv-1s begins at 2024-01-10; what is before it is left out",
        f"candlebeam: XNAS.ITCH ohlcv-1s {end}",
    ]


def test_a_schema_has_its_own_range(server: Server) -> None:
    fetch("SPY", "2018-12", "2019-01", schema="ohlcv-1d").expect()
    assert server.ranges() == [("SPY", "2019-01-01", "2019-02-01")]


def test_nothing_available_is_an_error(server: Server) -> None:
    outcome = fetch("SPY", "2029-01", "2029-02").expect(1)
    assert outcome.stderr == (
        "candlebeam: nothing of 2029-01-01 to 2029-03-01 is available:"
        " XNAS.ITCH ohlcv-1s has 2018-05-01 to 2024-06-20\n"
    )
    assert files() == {}


def test_a_month_without_data_is_a_file_without_records(server: Server) -> None:
    range_ = ("2024-01-01T01:00", "2024-01-01T02:00")
    outcome = fetch("SPY", *range_, "--csv").expect()
    assert "SPY 2024-01: 0 records" in outcome.stderr
    assert files()[JANUARY + ".csv"] == b"timestamp,open,high,low,close,volume\n"
    assert "1 already here" in fetch("SPY", *range_, "--csv").expect().stdout
    assert len(server.ranges()) == 1


def test_months_in_which_a_symbol_is_not_listed_are_left_out(server: Server) -> None:
    outcome = fetch("ESH4", "2023-10", "2024-05").expect()
    assert [each[1] for each in server.ranges()] == [
        "2023-12-01", "2024-01-01", "2024-02-01", "2024-03-01",
    ]  # fmt: skip
    assert outcome.stdout.endswith("4 months without the symbol\n")


def test_a_symbol_that_is_not_found_fails_and_the_rest_goes_on(server: Server) -> None:
    outcome = fetch("NOPE,SPY", "2024-01", "2024-01").expect(1)
    assert list(files()) == [JANUARY + DATA]
    assert outcome.stdout.splitlines()[-1].endswith(", 1 failed")
    assert outcome.stderr.splitlines()[-1] == (
        "candlebeam: NOPE: not found in XNAS.ITCH as raw_symbol, 2024-01-01 to 2024-02-01"
    )
    assert [each["symbols"] for each in server.asked(COST)] == ["SPY"]


def test_symbols_that_cannot_be_resolved_are_asked_for_all_the_same(server: Server) -> None:
    server.always("symbology.resolve", Fault(422, REFUSAL))
    fetch("SPY").expect()
    outcome = fetch("NOPE").expect(1)
    assert "422 symbology_invalid_symbol None of the symbols could be resolved" in outcome.stderr


# Symbols


def test_symbols_are_asked_for_by_the_type_that_their_form_tells(server: Server) -> None:
    fetch("spy, ES.V.0,es.fut,SPY", "2024-03", "2024-03").expect()
    asked = [(each["symbols"], each["stype_in"]) for each in server.asked(GET_RANGE)]
    assert asked == [("SPY", "raw_symbol"), ("ES.v.0", "continuous"), ("ES.FUT", "parent")]
    assert files() == {
        "SPY/SPY_2024_03.dbn.zst": delivered("2024-03-01", "2024-04-01"),
        "ES.v.0/ES.v.0_2024_03.dbn.zst": delivered(
            "2024-03-01", "2024-04-01", "ES.v.0", stype="continuous"
        ),
        "ES.FUT/ES.FUT_2024_03.dbn.zst": delivered(
            "2024-03-01", "2024-04-01", "ES.FUT", stype="parent"
        ),
    }


def test_no_symbol_leads_out_of_the_folder(server: Server) -> None:
    fetch("../../EVIL,BTC/USD", "2024-01", "2024-01", "--csv").expect()
    evil = "%2E%2E%2F%2E%2E%2FEVIL"
    assert sorted(files()) == [
        f"{evil}/{evil}_2024_01.csv", f"{evil}/{evil}_2024_01{DATA}",
        "BTC%2FUSD/BTC%2FUSD_2024_01.csv", f"BTC%2FUSD/BTC%2FUSD_2024_01{DATA}",
    ]  # fmt: skip
    assert sorted(path.name for path in Path("out/XNAS.ITCH/ohlcv-1s").iterdir()) == sorted(
        [evil, "BTC%2FUSD", ".candlebeam.lock"]
    )
    assert os.listdir() == ["out"]


def test_all_symbols_are_one_file(server: Server) -> None:
    fetch("ALL_SYMBOLS", "2024-01", "2024-01", "--csv").expect()
    text = files()["ALL_SYMBOLS/ALL_SYMBOLS_2024_01.csv"].decode()
    names = {line.rsplit(",", 1)[1] for line in text.splitlines()[1:]}
    assert names == {"SPY", "QQQ", "BTC/USD", "../../EVIL", "ESH4", "ESM4"}
    assert "1 already here" in fetch("ALL_SYMBOLS").expect().stdout
    hidden("ALL_SYMBOLS/ALL_SYMBOLS_2024_01").unlink()
    assert "1 already here" in fetch("ALL_SYMBOLS").expect().stdout


# What it costs


def test_costs_are_shown_before(server: Server) -> None:
    outcome = fetch("SPY,QQQ", "2024-01", "2024-02").expect()
    assert outcome.stdout.splitlines()[:4] == [
        "symbol  files  from        before      USD",
        "SPY     2      2024-01-01  2024-03-01  0.18",
        "QQQ     2      2024-01-01  2024-03-01  0.18",
        "total   4                              0.36",
    ]
    first = [request.endpoint for request in server.requests].index(GET_RANGE)
    assert max(i for i, r in enumerate(server.requests) if r.endpoint == COST) < first
    assert len(server.asked(COST)) == 2


def test_nothing_is_fetched_over_the_most_that_it_may_cost(server: Server) -> None:
    outcome = fetch("SPY,QQQ", "2024-01", "2024-02", "--max-cost", "0.35").expect(1)
    assert outcome.stderr == (
        "candlebeam: 4 files would cost $0.36, more than --max-cost $0.35: nothing was fetched\n"
    )
    assert server.ranges() == []
    assert not Path("out").exists()


def test_the_most_that_it_may_cost_may_be_spent(server: Server) -> None:
    server.price = 0.1 / 93  # three of these are not 0.3 in float64
    options = ("--max-cost", "0.3")
    fetch("SPY,QQQ,BTC/USD", "2024-01", "2024-01", *options).expect()
    assert len(server.ranges()) == 3


def test_only_what_is_still_to_be_fetched_costs(server: Server) -> None:
    fetch("SPY", "2024-02", "2024-02").expect()
    server.requests.clear()
    outcome = fetch("SPY", "2024-01", "2024-03", "--max-cost", "0.2").expect()
    spans = [(each["start"], each["end"]) for each in server.asked(COST)]
    assert spans == [
        (str(ns("2024-01-01")), str(ns("2024-02-01"))),
        (str(ns("2024-03-01")), str(ns("2024-04-01"))),
    ]
    assert "total   2                              0.19" in outcome.stdout


@pytest.mark.parametrize("most", ["nan", "-1", "much"])
def test_a_most_that_is_no_sum_is_refused(server: Server, most: str) -> None:
    fetch("SPY", "2024-01", "2024-01", "--max-cost", most).expect(2)
    assert server.requests == []


@pytest.mark.parametrize("cost", [b"NaN", b"-1", b"null", b'"much"'])
def test_a_cost_that_is_no_sum_is_not_spent(server: Server, cost: bytes) -> None:
    server.will(COST, Fault(body=cost))
    outcome = fetch("SPY,QQQ").expect(1)
    assert "the cost of SPY 2024-01-01 to 2024-02-01: an answer of unexpected" in outcome.stderr
    assert [each[0] for each in server.ranges()] == ["QQQ"]


def test_a_terminal_is_asked_before_it_costs_something(server: Server) -> None:
    terminal, end = pty.openpty()
    try:
        os.write(terminal, b"n\n")
        refused = run_process("databento", *fetch_arguments("SPY", "2024-01", "2024-01"), stdin=end)
        assert "Fetch? [y/N]" in without_key(refused).expect(1).stderr
        assert server.ranges() == []
        arguments = fetch_arguments("SPY", "2024-01", "2024-01", "--yes")
        run_process("databento", *arguments, stdin=end).expect()
    finally:
        os.close(terminal)
        os.close(end)
    assert len(server.ranges()) == 1


# Again


def test_what_is_there_is_not_asked_for_again(server: Server) -> None:
    fetch("SPY", "2024-01", "2024-02").expect()
    before, requests = files(), len(server.requests)
    outcome = fetch("SPY", "2024-01", "2024-02").expect()
    assert outcome.stdout == "0 files fetched, 2 already here\n"
    again = {request.endpoint for request in server.requests[requests:]}
    assert again == {"metadata.get_dataset_range", "symbology.resolve"}
    assert files() == before


def test_a_part_of_what_is_there_is_not_asked_for_again(server: Server) -> None:
    fetch("SPY", "2024-01", "2024-01").expect()
    fetch("SPY", "2024-01-05", "2024-01-07T12:00").expect()
    assert len(server.ranges()) == 1


def test_a_month_that_was_not_over_is_fetched_again_when_there_is_more(server: Server) -> None:
    server.end = "2024-01-20T12:00:00.000000000Z"
    fetch("SPY", "2024-01", "2024-03").expect()
    fetch("SPY", "2024-01", "2024-03").expect()
    assert server.ranges() == [("SPY", "2024-01-01", "2024-01-20T12:00:00")]
    server.end = "2024-03-01T00:00:00.000000000Z"
    fetch("SPY", "2024-01", "2024-02").expect()
    assert server.ranges()[1:] == [
        ("SPY", "2024-01-01", "2024-02-01"),
        ("SPY", "2024-02-01", "2024-03-01"),
    ]
    assert files()[JANUARY + DATA] == delivered("2024-01-01", "2024-02-01")
    assert "2 already here" in fetch("SPY", "2024-01", "2024-02").stdout


def test_a_file_never_loses_days_that_it_had(server: Server) -> None:
    fetch("SPY", "2024-01-10", "2024-01-12").expect()
    fetch("SPY", "2024-01-02", "2024-01-03").expect()
    assert server.ranges()[1:] == [("SPY", "2024-01-02", "2024-01-13")]
    assert files()[JANUARY + DATA] == delivered("2024-01-02", "2024-01-13")


def test_a_file_without_its_note_is_read_and_counts(server: Server) -> None:
    path = place(JANUARY + DATA)
    path.parent.mkdir(parents=True)
    path.write_bytes(delivered("2024-01-01", "2024-02-01"))
    assert "1 already here" in fetch("SPY").expect().stdout
    assert server.ranges() == []
    assert hidden(JANUARY).exists()


def test_a_file_without_its_note_counts_for_what_it_says_it_has(server: Server) -> None:
    path = place(JANUARY + DATA)
    path.parent.mkdir(parents=True)
    path.write_bytes(delivered("2024-01-01", "2024-01-15"))
    fetch("SPY").expect()
    assert server.ranges() == [("SPY", "2024-01-01", "2024-02-01")]


@pytest.mark.parametrize("note", ["gone", "damaged", "stale"])
def test_a_file_that_is_not_whole_is_fetched_again(server: Server, note: str) -> None:
    fetch("SPY").expect()
    path = place(JANUARY + DATA)
    path.write_bytes(path.read_bytes()[:-5])
    if note == "gone":
        hidden(JANUARY).unlink()
    elif note == "damaged":
        hidden(JANUARY).write_bytes(b"{")
    outcome = fetch("SPY").expect()
    assert outcome.stderr.startswith(f"candlebeam: {path}: expected a ")
    assert "cut off: its zstd frame at byte 0" in outcome.stderr
    assert "; it is fetched again" in outcome.stderr
    assert path.read_bytes() == delivered("2024-01-01", "2024-02-01")


def test_verify_reads_files_to_their_end(server: Server) -> None:
    fetch("SPY", "2024-01", "2024-02").expect()
    path = place(JANUARY + DATA)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    assert "2 already here" in fetch("SPY", "2024-01", "2024-02").expect().stdout
    fetch("SPY", "2024-01", "2024-02", "--verify").expect()
    assert server.ranges()[2:] == [("SPY", "2024-01-01", "2024-02-01")]
    assert path.read_bytes() == delivered("2024-01-01", "2024-02-01")
    assert "2 already here" in fetch("SPY", "2024-01", "2024-02", "--verify").expect().stdout


@pytest.mark.parametrize("known", [True, False])
def test_a_file_of_another_request_is_not_overwritten(server: Server, known: bool) -> None:
    other = delivered("2024-01-01", "2024-02-01", "QQQ")
    if known:
        fetch("5602", "2024-01", "2024-01", "--stype-in", "instrument_id").expect()
        symbol, options = "5602", ("--stype-in", "raw_symbol")
        server.always("symbology.resolve", Fault(422, REFUSAL))
    else:
        path = place(JANUARY + DATA)
        path.parent.mkdir(parents=True)
        path.write_bytes(other)
        symbol, options = "SPY", ("--stype-in", "raw_symbol")
    before, asked = files(), len(server.ranges())
    outcome = fetch(symbol, "2024-01", "2024-01", *options).expect(1)
    assert "move it away, or fetch to another folder" in outcome.stderr
    assert files() == before
    assert len(server.ranges()) == asked


def test_a_file_with_a_limit_is_not_overwritten(server: Server) -> None:
    real = Path(__file__).parent / "data/dbn/XNAS.ITCH.ohlcv-1s.dbn.zst"
    path = place("NVDA/NVDA_2020_12" + DATA)
    path.parent.mkdir(parents=True)
    path.write_bytes(real.read_bytes())
    server.always("symbology.resolve", Fault(422, REFUSAL))
    outcome = fetch("NVDA", "2020-12", "2020-12").expect(1)
    assert "found a request for 4 records" in outcome.stderr
    assert path.read_bytes() == real.read_bytes()


# Usage


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("SPY", "2024-02", "2024-01"), "expected an end after the start"),
        (("SPY", "2024-01-02T00:00", "2024-01-02T00:00"), "expected an end after the start"),
        (("SPY", "January", "2024-01"), "expected a month, a day or a time"),
        (("SPY,,QQQ", "2024-01", "2024-01"), "symbols: expected some text for each"),
        (("SPY", "2024-01", "2024-01", "--stype-in", "raw"), "--stype-in raw: expected one of"),
        (("SPY", "2024-01", "2024-01", "--retries", "-1"), "Invalid value for '--retries'"),
    ],
)
def test_wrong_usage_is_told(server: Server, arguments: tuple[str, ...], message: str) -> None:
    assert message in fetch(*arguments).expect(2).stderr
    assert server.requests == []


def test_a_schema_that_is_none_is_refused(server: Server) -> None:
    outcome = fetch("SPY", schema="bars").expect(2)
    assert "--schema bars: expected one of mbo, mbp-1" in outcome.stderr


def test_a_dataset_that_is_none_is_told(server: Server) -> None:
    server.always("metadata.get_dataset_range", Fault(422, REFUSAL))
    outcome = fetch("SPY").expect(1)
    assert outcome.stderr == "candlebeam: the range of XNAS.ITCH: 422 no_entry Not you.\n"


def test_help_tells_where_ranges_end() -> None:
    text = " ".join(databento("fetch", "--help").expect().stdout.split())
    assert "2024-03 and 2024-03-31 end at the same moment" in text
