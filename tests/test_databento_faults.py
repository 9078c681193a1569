"""`candlebeam databento fetch` where something goes wrong: what is tried again, and what counts."""

from __future__ import annotations

import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from candlebeam.pipelines.lock import output_lock
from tests.command_line import run_process
from tests.databento_runs import (
    DATA,
    FEBRUARY,
    JANUARY,
    delivered,
    fetch,
    fetch_arguments,
    files,
    hidden,
    serving,
    unfinished,
    without_key,
)
from tests.databento_server import (
    GET_RANGE,
    Fault,
    Server,
    compressed,
)

COUNT = "metadata.get_record_count"
REFUSAL = {"case": "no_entry", "message": "Not you.", "docs": None}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path) as found:
        yield found


# Streams and answers


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("cut", [0, 10, 300, 2000])
def test_a_stream_that_is_cut_is_asked_for_again(server: Server, told: bool, cut: int) -> None:
    server.will(GET_RANGE, Fault(cut=cut, told=told), Fault(cut=cut, told=told))
    outcome = fetch("SPY").expect()
    assert files() == {JANUARY + DATA: delivered("2024-01-01", "2024-02-01")}
    assert outcome.stderr.count("; again in") == 2
    assert len(server.ranges()) == 3
    assert unfinished() == []


def test_a_stream_that_is_cut_always_never_counts(server: Server) -> None:
    server.will(GET_RANGE, *[Fault(cut=500)] * 3)
    options = ("--retries", "2", "--csv")
    outcome = fetch("SPY", "2024-01", "2024-02", *options).expect(1)
    assert sorted(files()) == [FEBRUARY + ".csv", FEBRUARY + DATA]
    assert outcome.stdout.splitlines()[-1].endswith("1 CSV file written, 1 failed")
    last = outcome.stderr.splitlines()[-1]
    assert last.startswith("candlebeam: SPY 2024-01-01 to 2024-02-01: the connection broke: ")
    assert last.endswith(" (after 3 attempts)")
    assert unfinished() == []
    fetch("SPY", "2024-01", "2024-02", *options).expect()
    assert len(files()) == 4


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html>busy</html>", compressed(b"timestamp,open\n"), compressed(b"DBN\x03"),
        delivered("2024-01-01", "2024-02-01") + b"and more",
    ],
)  # fmt: skip
def test_an_answer_that_is_no_data_is_asked_for_again(server: Server, body: bytes) -> None:
    server.will(GET_RANGE, Fault(body=body))
    outcome = fetch("SPY").expect()
    assert files() == {JANUARY + DATA: delivered("2024-01-01", "2024-02-01")}
    assert outcome.stderr.count("; again in") == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_is_busy_is_asked_again(server: Server, status: int) -> None:
    server.will(GET_RANGE, Fault(status, "busy", headers={"Retry-After": "0"}))
    outcome = fetch("SPY").expect()
    assert f"SPY 2024-01-01 to 2024-02-01: {status} busy; again in 0.0 s" in outcome.stderr


def test_a_stream_that_stops_is_asked_for_again(server: Server) -> None:
    never = threading.Event()
    server.will(GET_RANGE, Fault(hold=never))
    outcome = fetch("SPY", "2024-01", "2024-01", "--timeout", "0.3").expect()
    never.set()
    assert outcome.stderr.count("; again in") == 1
    assert files() == {JANUARY + DATA: delivered("2024-01-01", "2024-02-01")}


def test_a_slow_answer_is_waited_for(server: Server) -> None:
    soon = threading.Event()
    server.will(GET_RANGE, Fault(hold=soon))
    timer = threading.Timer(0.3, soon.set)
    timer.start()
    assert "again" not in fetch("SPY").expect().stderr
    timer.join()


@pytest.mark.parametrize("status", [400, 403, 404, 422])
def test_a_refusal_is_told_and_the_rest_goes_on(server: Server, status: int) -> None:
    server.will(GET_RANGE, Fault(status, REFUSAL))
    outcome = fetch("SPY", "2024-01", "2024-02").expect(1)
    assert list(files()) == [FEBRUARY + DATA]
    assert len(server.ranges()) == 2
    assert outcome.stderr.splitlines()[-1] == (
        f"candlebeam: SPY 2024-01-01 to 2024-02-01: {status} no_entry Not you."
    )


@pytest.mark.parametrize("status", [401, 402])
def test_a_refusal_of_everything_ends_the_run(server: Server, status: int) -> None:
    server.will(GET_RANGE, Fault(), Fault(status, REFUSAL))
    outcome = fetch("SPY", "2024-01", "2024-05", "--csv").expect(1)
    assert sorted(files()) == [JANUARY + ".csv", JANUARY + DATA]
    assert len(server.ranges()) == 2
    assert outcome.stderr.splitlines()[-1] == "candlebeam: 3 files not tried any more"


def test_a_wrong_key_asks_for_nothing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABENTO_API_KEY", "db-another")
    outcome = fetch("SPY").expect(1)
    assert "the API does not accept the key: 401" in outcome.stderr
    assert len(server.requests) == 1


def test_data_of_something_else_is_not_taken(server: Server) -> None:
    server.always(GET_RANGE, Fault(body=delivered("2024-01-01", "2024-02-01", schema="trades")))
    outcome = fetch("SPY").expect(1)
    assert "expected a download of XNAS.ITCH ohlcv-1s, found XNAS.ITCH trades" in outcome.stderr
    assert len(server.ranges()) == 1
    assert files() == {}


# Record counts


def test_each_file_is_held_against_the_count_of_the_api(server: Server) -> None:
    fetch("SPY", "2024-01", "2024-02").expect()
    counted = [(each["start"], each["end"]) for each in server.asked(COUNT)]
    assert counted == [(each["start"], each["end"]) for each in server.asked(GET_RANGE)]


def test_a_file_with_fewer_records_does_not_count_and_is_not_lost(server: Server) -> None:
    server.counts = lambda count: count + 1
    outcome = fetch("SPY").expect(1)
    assert outcome.stderr.splitlines()[-1] == (
        "candlebeam: SPY 2024-01: expected 94 records, as the API counts them, found 93 in a"
        " download that is whole; with --no-count it is taken"
    )
    assert files() == {}
    assert unfinished() == []
    fetch("SPY", "2024-01", "2024-01", "--no-count", "--max-cost", "0").expect()
    assert len(server.ranges()) == 1
    assert files() == {JANUARY + DATA: delivered("2024-01-01", "2024-02-01")}
    assert not hidden(JANUARY, ".short").exists()


def test_a_file_with_fewer_records_gives_way_to_a_full_one(server: Server) -> None:
    server.counts = lambda count: count + 1
    fetch("SPY").expect(1)
    server.counts = lambda count: count
    fetch("SPY").expect()
    assert len(server.ranges()) == 2
    assert not hidden(JANUARY, ".short").exists()


def test_more_records_than_counted_are_no_harm(server: Server) -> None:
    server.counts = lambda count: count - 1
    fetch("SPY").expect()


@pytest.mark.parametrize(
    ("start", "end", "options"),
    [("2024-01-01", "2024-01-01T00:09", ()), ("2024-01", "2024-01", ("--no-count",))],
)
def test_counts_are_asked_for_where_they_hold(
    server: Server, start: str, end: str, options: tuple[str, ...]
) -> None:
    server.counts = lambda count: count + 1
    fetch("SPY", start, end, *options).expect()
    assert server.asked(COUNT) == []


def test_an_api_that_does_not_count_is_believed(server: Server) -> None:
    server.always(COUNT, Fault(404, "no such method"))
    fetch("SPY").expect()


# Disks and other runs


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_paid(server: Server) -> None:
    Path("out").write_text("a file")
    outcome = fetch("SPY").expect(1)
    assert "out" in outcome.stderr.splitlines()[-1]
    assert server.ranges() == []


def test_a_disk_that_takes_no_more_is_told_and_not_tried_again(server: Server) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    arguments = fetch_arguments("SPY", "2024-01", "2024-01")
    outcome = without_key(run_process("databento", *arguments, preexec_fn=limit)).expect(1)
    assert "SPY 2024-01: cannot write" in outcome.stderr
    assert "File too large" in outcome.stderr
    assert len(server.ranges()) == 1
    assert files() == {}
    assert unfinished() == []


def test_two_runs_do_not_write_to_one_place(server: Server) -> None:
    with output_lock("out/XNAS.ITCH/ohlcv-1s"):
        outcome = fetch("SPY").expect(1)
        fetch("SPY", "2024-01", "2024-01", schema="trades").expect()
    assert "is writing here" in outcome.stderr
    fetch("SPY").expect()
