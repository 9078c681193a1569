"""The key, the gateway, and requests that fail: what is tried again, and what is told."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from candlebeam.errors import UsageError
from candlebeam.pipelines.databento.client import Client, checked_gateway
from candlebeam.pipelines.databento.failures import ApiError, Patience
from tests.command_line import run_process
from tests.databento_runs import QUICK, databento, serving, without_key
from tests.databento_server import KEY, Fault, Server

LIST = "metadata.list_datasets"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path) as found:
        yield found


# The key


def test_ping_says_that_the_key_works(server: Server) -> None:
    assert databento("ping").expect().stdout == "the key works: 3 datasets\n"


def test_a_wrong_key_is_told_and_not_tried_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABENTO_API_KEY", "db-another")
    outcome = databento("ping").expect(1)
    assert outcome.stdout == ""
    assert "the API does not accept the key: 401 auth_authentication_failed" in outcome.stderr
    assert "db-another" not in outcome.output
    assert len(server.requests) == 1


@pytest.mark.parametrize("line", ["DATABENTO_API_KEY={}", "export DATABENTO_API_KEY='{}' # mine"])
def test_the_key_is_taken_from_env_file(
    server: Server, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.delenv("DATABENTO_API_KEY")
    Path(".env").write_text(line.format(KEY))
    databento("ping").expect()


def test_the_environment_counts_before_the_file(server: Server) -> None:
    Path(".env").write_text("DATABENTO_API_KEY=db-another")
    databento("ping").expect()


def test_an_empty_variable_is_none(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABENTO_API_KEY", " ")
    Path(".env").write_text(f"DATABENTO_API_KEY={KEY}")
    databento("ping").expect()


@pytest.mark.parametrize("text", ["", "OTHER=1\n", "DATABENTO_API_KEY=\n"])
def test_without_a_key_both_places_are_named(
    server: Server, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.delenv("DATABENTO_API_KEY")
    Path(".env").write_text(text)
    outcome = databento("datasets").expect(2)
    assert "DATABENTO_API_KEY in the environment" in outcome.stderr
    assert ".env of the working folder" in outcome.stderr
    assert server.requests == []


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('DATABENTO_API_KEY="db-secret', 1),
        ("DATABENTO_API_KEY=db-secret and more", 2),
        ("DATABENTO_API_KEY=db-secret:x", 2),
        ("DATABENTO_API_KEY=db-secret…", 2),
        ("DATABENTO_API_KEY='db-secret\t'x", 1),
    ],
)
def test_a_key_that_is_none_is_not_shown(
    server: Server, monkeypatch: pytest.MonkeyPatch, text: str, code: int
) -> None:
    monkeypatch.delenv("DATABENTO_API_KEY")
    Path(".env").write_text(text)
    outcome = databento("ping").expect(code)
    assert "secret" not in outcome.output
    assert ".env" in outcome.stderr
    assert server.requests == []


def test_the_placeholder_of_an_example_is_no_key(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABENTO_API_KEY", "YOUR_API_KEY")
    assert "the placeholder of an example" in databento("ping").expect(2).stderr


def test_env_that_is_no_file_is_named(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABENTO_API_KEY")
    Path(".env").mkdir()
    assert ".env: cannot be read for the key: Is a directory" in databento("ping").expect(2).stderr


@pytest.mark.parametrize("status", [200, 400, 401, 403, 422, 429, 500])
def test_a_key_that_the_server_repeats_is_not_shown(server: Server, status: int) -> None:
    detail = {"case": "x", "message": f"what is {KEY}?", "docs": ""}
    body = f'{{"message": "{KEY}"}}'.encode() if status == 200 else None
    server.always("metadata.get_dataset_range", Fault(status, detail, body=body))
    outcome = databento("symbols", "GLBX.MDP3", "ESH4", "--retries", "1", *QUICK).expect(1)
    assert "***" in outcome.stderr


def test_no_error_holds_the_key_in_its_chain(server: Server) -> None:
    server.always(LIST, Fault(500, f"what is {KEY}?"))
    client = Client(KEY, server.url, Patience(retries=0))
    with pytest.raises(ApiError) as caught:
        client.datasets()
    error: BaseException | None = caught.value
    while error is not None:
        assert KEY not in f"{error!r} {error}"
        error = error.__cause__ or error.__context__


def test_a_process_that_is_told_everything_shows_no_key(server: Server) -> None:
    server.will(LIST, Fault(429, "slower", headers={"Retry-After": "0"}), Fault(500, KEY))
    loud = {"PYTHONWARNINGS": "always", "PYTHONDEVMODE": "1", "PYTHONFAULTHANDLER": "1"}
    outcome = without_key(run_process("databento", "ping", *QUICK, env=loud))
    assert outcome.expect().stdout == "the key works: 3 datasets\n"


def test_a_missing_library_is_named(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "candlebeam.pipelines.databento.client", raising=False)
    monkeypatch.setitem(sys.modules, "databento", None)
    assert databento("ping").expect(1).stderr == (
        "candlebeam: this needs the databento library: pip install 'candlebeam[databento]'\n"
    )


# The gateway


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("hist.example.com", "https://hist.example.com"),
        ("https://hist.example.com:8443/api/", "https://hist.example.com:8443/api"),
        ("http://localhost:80", "http://localhost:80"),
        ("http://[::1]:80", "http://[::1]:80"),
    ],
)
def test_a_gateway_is_an_address(given: str, used: str) -> None:
    assert checked_gateway(given) == used


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("http://hist.example.com", "would send the key in clear"),
        ("http://127.0.0.1.example.com", "would send the key in clear"),
        ("ftp://127.0.0.1", "expected an address"),
        ("http://", "expected an address"),
        ("https://me:secret@example.com", "expected an address"),
        ("https://example.com:x", "expected an address"),
    ],
)
def test_a_gateway_that_is_none_is_refused(given: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        checked_gateway(given)


def test_https_and_no_gateway_go_through_the_client_as_it_is() -> None:
    assert Client(KEY, "https://hist.example.com")._api.gateway == "https://hist.example.com"
    assert str(Client(KEY)._api.gateway) == "https://hist.databento.com"


def test_gateway_is_an_option_too(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABENTO_GATEWAY", "http://127.0.0.1:1")
    databento("ping", "--gateway", server.url).expect()
    databento("ping", "--gateway", "http://example.com").expect(2)


# Requests that fail


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(server: Server, status: int) -> None:
    server.will(LIST, Fault(status, "busy"), Fault(status, "busy"))
    outcome = databento("ping", *QUICK).expect()
    assert outcome.stdout == "the key works: 3 datasets\n"
    lines = outcome.stderr.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"candlebeam: the datasets: {status} ") for line in lines)
    assert all("; again in 0.0 s" in line for line in lines)
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [400, 402, 403, 404, 422])
def test_what_will_not_pass_is_told_at_once(server: Server, status: int) -> None:
    detail = {"case": "no_entry", "message": "Not you.", "docs": "https://docs"}
    server.always(LIST, Fault(status, detail))
    outcome = databento("ping", *QUICK).expect(1)
    expected = f"the datasets: {status} no_entry Not you. documentation: https://docs"
    assert outcome.stderr == f"candlebeam: {expected}\n"
    assert len(server.requests) == 1


def test_attempts_end(server: Server) -> None:
    server.always(LIST, Fault(500, "busy"))
    outcome = databento("ping", "--retries", "2", *QUICK).expect(1)
    assert outcome.stderr.splitlines()[-1] == (
        "candlebeam: the datasets: 500 busy (after 3 attempts)"
    )
    assert len(server.requests) == 3


def test_a_wait_that_the_server_asks_for_is_kept(server: Server) -> None:
    server.will(LIST, Fault(429, "slower", headers={"Retry-After": "1"}))
    begin = time.monotonic()
    outcome = databento("ping", *QUICK).expect()
    assert time.monotonic() - begin >= 1.0
    assert "429 slower; again in 1.0 s" in outcome.stderr


def test_a_wait_that_the_server_asks_for_may_be_a_date(server: Server) -> None:
    past = "Wed, 21 Oct 2015 07:28:00 GMT"
    server.will(LIST, Fault(503, "slower", headers={"Retry-After": past}))
    server.will(LIST, Fault(503, "slower", headers={"Retry-After": "soon"}))
    server.will(LIST, Fault(503, "slower", headers={"Retry-After": "nan"}))
    databento("ping", *QUICK).expect()


def test_a_wait_that_is_too_long_is_not_waited(server: Server) -> None:
    server.will(LIST, Fault(429, "slower", headers={"Retry-After": "86400"}))
    outcome = databento("ping", *QUICK).expect(1)
    assert outcome.stderr == (
        "candlebeam: the datasets: 429 slower; it asks to come back in 86400 s only\n"
    )


def test_waits_double_and_are_scattered() -> None:
    patience = Patience(wait=1.0)
    for attempt, middle in enumerate((1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0)):
        waits = {patience.before(attempt) for _ in range(20)}
        assert len(waits) > 1
        assert all(0.5 * middle <= wait <= 1.5 * middle for wait in waits)


def test_no_answer_in_time_is_tried_again(server: Server) -> None:
    never = threading.Event()
    server.will(LIST, Fault(delay=never))
    outcome = databento("ping", "--timeout", "0.3", *QUICK).expect()
    never.set()
    assert "the datasets: no answer in time; again in" in outcome.stderr


def test_nobody_there_is_told_without_a_traceback(server: Server) -> None:
    gateway = "http://127.0.0.1:1"
    outcome = databento("ping", "--gateway", gateway, "--retries", "1", *QUICK).expect(1)
    assert outcome.stderr.splitlines()[-1] == (
        "candlebeam: the datasets: no connection: Connection refused (after 2 attempts)"
    )


def test_an_answer_that_is_no_json_is_tried_again(server: Server) -> None:
    server.will(LIST, Fault(body=b"<html>sign in</html>"))
    outcome = databento("ping", *QUICK).expect()
    assert "an answer that is no JSON; again in" in outcome.stderr


@pytest.mark.parametrize(
    ("endpoint", "body", "command"),
    [
        (LIST, b'{"a": 1}', ("datasets",)),
        ("metadata.get_dataset_range", b"[]", ("symbols", "D", "SPY")),
        ("metadata.get_dataset_range", b'{"start": "x"}', ("symbols", "D", "SPY")),
        ("metadata.get_dataset_range", b'{"start": "x", "end": "y"}', ("symbols", "D", "SPY")),
        ("metadata.list_unit_prices", b'[{"mode": "historical", "unit_prices": 1}]',
         ("schemas", "D")),
        ("metadata.list_unit_prices", b'{"a": 1}', ("schemas", "D")),
        ("symbology.resolve", b'{"result": []}', ("symbols", "D", "SPY", "--date", "2024-01-02")),
        ("symbology.resolve", b'{"result": {"SPY": [{"d0": "x"}]}}',
         ("symbols", "D", "SPY", "--date", "2024-01-02")),
    ],
)  # fmt: skip
def test_an_answer_of_another_form_is_told(
    server: Server, endpoint: str, body: bytes, command: tuple[str, ...]
) -> None:
    server.always(endpoint, Fault(body=body))
    outcome = databento(*command, "--retries", "0").expect(1)
    assert "an answer of unexpected form" in outcome.stderr


def test_an_error_of_another_form_is_told(server: Server) -> None:
    server.will(LIST, Fault(422, [{"loc": ["dataset"], "msg": "field required"}]))
    assert "422 [{'loc': ['dataset'], 'msg': 'field required'}]" in databento("ping").stderr
    server.will(LIST, Fault(400, None))
    assert databento("ping").expect(1).stderr.startswith("candlebeam: the datasets: 400 ")


def test_warnings_of_the_api_are_told(server: Server) -> None:
    warnings = '["DeprecationWarning: use another", "Warning: the data is degraded"]'
    server.will(LIST, Fault(headers={"X-Warning": warnings}))
    outcome = databento("ping").expect()
    assert outcome.stderr == (
        "candlebeam: Databento warns: use another\n"
        "candlebeam: Databento warns: the data is degraded\n"
    )


@pytest.mark.parametrize("option", ["--retry-wait", "--timeout"])
def test_an_option_that_is_no_number_is_refused(server: Server, option: str) -> None:
    databento("ping", option, "nan").expect(2)


# Tables


def test_datasets_are_listed_with_their_ranges(server: Server) -> None:
    server.end = "2024-06-20T14:30:00.000000000Z"
    assert databento("datasets").expect().stdout.splitlines() == [
        "dataset    what      from        before",
        "GLBX.MDP3  futures   2018-05-01  2024-06-20 14:30:00",
        "NEWX.NEW   -         2018-05-01  2024-06-20 14:30:00",
        "XNAS.ITCH  equities  2018-05-01  2024-06-20 14:30:00",
    ]


def test_a_dataset_that_the_key_may_not_have_does_not_hide_the_others(server: Server) -> None:
    detail = {"case": "license", "message": "None for it.", "docs": None}
    server.will("metadata.get_dataset_range", Fault(), Fault(403, detail))
    lines = databento("datasets").expect().stdout.splitlines()
    assert (
        lines[2]
        == "NEWX.NEW   -         -           the range of NEWX.NEW: 403 license None for it."
    )
    assert len(lines) == 4


def test_schemas_are_listed_with_ranges_and_prices(server: Server) -> None:
    assert databento("schemas", "XNAS.ITCH").expect().stdout.splitlines() == [
        "schema    from        before      USD/GB",
        "trades    2018-05-01  2024-06-20  28.00",
        "ohlcv-1s  2018-05-01  2024-06-20  280.00",
        "ohlcv-1d  2019-01-01  2024-06-20  -",
    ]
