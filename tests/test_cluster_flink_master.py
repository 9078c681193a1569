"""A Flink master's REST API: what is read from it, and what is told when it is none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from candlebeam.cluster.flink_master import FlinkMaster, Job, MasterError, Slots
from candlebeam.errors import CandlebeamError, UsageError
from tests.loopback import (
    Answer,
    RestServer,
    free_port,
    json_answer,
    raw_server,
    rest_server,
    silent_server,
)

JOB = "3324917b1564a1d679960f04cf3f22c7"


def overview(**changed: Any) -> dict[str, Any]:
    """The overview of a cluster of Flink 1.19.3 that is ready."""
    return {
        "taskmanagers": 2,
        "slots-total": 4,
        "slots-available": 3,
        "jobs-running": 1,
        "jobs-finished": 0,
        "jobs-cancelled": 0,
        "jobs-failed": 0,
        "flink-version": "1.19.3",
        "flink-commit": "4105f8d",
        **changed,
    }


def job(name: str, start: int, state: str = "RUNNING", job_id: str = JOB) -> dict[str, Any]:
    return {
        "jid": job_id,
        "name": name,
        "start-time": start,
        "end-time": -1,
        "duration": 5,
        "state": state,
        "last-modification": start,
        "tasks": {"running": 1},
    }


@pytest.fixture
def server() -> Iterator[RestServer]:
    with rest_server() as found:
        found.answers["GET /overview"] = json_answer(overview())
        yield found


@pytest.fixture
def master(server: RestServer) -> FlinkMaster:
    return FlinkMaster(server.address)


# A cluster that is ready


def test_version_and_slots_are_told(master: FlinkMaster) -> None:
    assert master.version() == "1.19.3"
    assert master.slots() == Slots(total=4, free=3, task_managers=2)


def test_cluster_of_the_wanted_version_passes(master: FlinkMaster) -> None:
    master.check("1.19")
    master.check("1.19.1")


def test_newest_job_of_a_name_is_found(server: RestServer, master: FlinkMaster) -> None:
    server.answers["GET /jobs/overview"] = json_answer(
        {"jobs": [job("a", 5), job("a", 9, "CANCELED", "new"), job("a", 7), job("b", 99)]}
    )
    assert master.find_job("a") == Job("new", "a", "CANCELED", 9, -1)
    assert master.find_job("c") is None
    assert len(master.jobs()) == 4


def test_job_is_found_by_its_id(server: RestServer, master: FlinkMaster) -> None:
    server.answers["GET /jobs/overview"] = json_answer(
        {"jobs": [job("b", 4, job_id="other"), job("a", 5, "FAILED")]}
    )
    # What Flink tells there may be seconds old.
    server.answers[f"GET /jobs/{JOB}"] = json_answer(job("a", 5) | {"vertices": []})
    assert master.job(JOB) == Job(JOB, "a", "FAILED", 5, -1)
    assert master.job("0" * 32) is None


@pytest.mark.parametrize(
    ("state", "ended", "failed"),
    [
        ("RUNNING", False, False),
        ("INITIALIZING", False, False),
        ("RESTARTING", False, False),
        ("FAILING", False, False),
        ("SUSPENDED", False, False),
        ("FAILED", True, True),
        ("CANCELED", True, False),
        ("FINISHED", True, False),
    ],
)
def test_states_of_jobs(state: str, ended: bool, failed: bool) -> None:
    found = Job("id", "name", state, 0, 0)
    assert (found.ended, found.failed) == (ended, failed)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            {"root-exception": "java.lang.X: y\n\tat z", "exceptionHistory": {}},
            "java.lang.X: y\n\tat z",
        ),
        ({"root-exception": None, "exceptionHistory": {"entries": []}}, ""),
        (
            {
                "exceptionHistory": {
                    "entries": [
                        {
                            "exceptionName": "java.lang.X",
                            "stacktrace": "java.lang.X: new",
                            "timestamp": 9,
                        },
                        {
                            "exceptionName": "java.lang.X",
                            "stacktrace": "java.lang.X: old",
                            "timestamp": 5,
                        },
                    ],
                    "truncated": False,
                }
            },
            "java.lang.X: new",
        ),
        ({"exceptionHistory": {"entries": [{"exceptionName": "java.lang.X"}]}}, "java.lang.X"),
        ({}, ""),
        ({"exceptionHistory": [1]}, ""),
    ],
)
def test_reason_of_a_failure_is_told(
    server: RestServer, master: FlinkMaster, answer: dict[str, Any], expected: str
) -> None:
    server.answers[f"GET /jobs/{JOB}/exceptions"] = json_answer(answer)
    assert master.root_exception(JOB) == expected


def test_unknown_job_has_no_reason_and_no_restarts(master: FlinkMaster) -> None:
    assert master.root_exception(JOB) == ""
    assert master.restarts(JOB) == 0


@pytest.mark.parametrize(
    ("answer", "expected"),
    [([{"id": "numRestarts", "value": "3"}], 3), ([], 0), ([{"id": "numRestarts"}], 0), ({}, 0)],
)
def test_restarts_are_counted(
    server: RestServer, master: FlinkMaster, answer: Any, expected: int
) -> None:
    server.answers[f"GET /jobs/{JOB}/metrics?get=numRestarts"] = json_answer(answer)
    assert master.restarts(JOB) == expected


@pytest.mark.parametrize("status", [202, 404, 409])
def test_cancel_is_fine_with_a_job_that_has_ended(
    server: RestServer, master: FlinkMaster, status: int
) -> None:
    request = f"PATCH /jobs/{JOB}?mode=cancel"
    server.answers[request] = json_answer({"errors": ["it has ended"]}, status)
    master.cancel(JOB)
    assert server.requests == [request]


def test_cancel_that_the_master_refuses_is_an_error(
    server: RestServer, master: FlinkMaster
) -> None:
    server.answers[f"PATCH /jobs/{JOB}?mode=cancel"] = json_answer({"errors": ["a.B: no\nat"]}, 500)
    with pytest.raises(MasterError, match=r"with status 500: a\.B: no$"):
        master.cancel(JOB)


# A cluster that will not do


def test_other_version_is_told_with_the_option_that_helps(master: FlinkMaster) -> None:
    with pytest.raises(
        CandlebeamError,
        match=r"at http://\S+ runs Flink 1\.19\.3, the job server is for 1\.20: "
        r"use --flink_version=1\.19",
    ):
        master.check("1.20")


@pytest.mark.parametrize(
    ("changed", "missing"),
    [
        ({"taskmanagers": 0, "slots-total": 0, "slots-available": 0}, "no TaskManager: "),
        ({"slots-total": 0, "slots-available": 0}, "no slot on its TaskManagers: "),
    ],
)
def test_cluster_where_nothing_can_run_is_told(
    server: RestServer, master: FlinkMaster, changed: dict[str, int], missing: str
) -> None:
    server.answers["GET /overview"] = json_answer(overview(**changed))
    with pytest.raises(CandlebeamError, match=missing):
        master.check("1.19")


def test_cluster_whose_slots_are_all_taken_passes(server: RestServer, master: FlinkMaster) -> None:
    server.answers["GET /overview"] = json_answer(overview(**{"slots-available": 0}))
    master.check("1.19")


# No cluster


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (Answer(b"<html><title>Welcome</title></html>", kind="text/html"), "no JSON"),
        (Answer(b"<html>no</html>", 404, "text/html"), "status 404"),
        (Answer(b"", 503), "status 503"),
        (Answer(b"[1]"), "JSON that is no object"),
        (Answer(b"\xff\xfe"), "no JSON"),
        (Answer(b"[" * 100_000), "no JSON"),
        (json_answer({}), "no flink-version"),
        (json_answer({"flink-version": 3}), "no flink-version"),
        (json_answer({"flink-version": "1.19.3"}), "no numbers of slots"),
        (json_answer(overview(taskmanagers="two")), "no numbers of slots"),
    ],
)
def test_what_is_no_flink_master_is_told(
    server: RestServer, master: FlinkMaster, answer: Answer, found: str
) -> None:
    server.answers["GET /overview"] = answer
    with pytest.raises(
        MasterError, match=f"is no Flink master: /overview gave {found}.*; is the port"
    ):
        master.check("1.19")


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"jobs": 3},
        {"jobs": [3]},
        {"jobs": [{}]},
        {"jobs": [job("a", 5, state="<b>")]},
        {"jobs": [job("a", 5) | {"start-time": None}]},
    ],
)
def test_jobs_that_are_none_are_told(server: RestServer, master: FlinkMaster, answer: Any) -> None:
    server.answers["GET /jobs/overview"] = json_answer(answer)
    with pytest.raises(MasterError, match="is no Flink master: /jobs/overview gave "):
        master.find_job("a")


def test_error_of_the_master_is_told_in_its_first_line(
    server: RestServer, master: FlinkMaster
) -> None:
    server.answers["GET /overview"] = json_answer({"errors": ["a.B: no\n\tat c", "", " d"]}, 500)
    with pytest.raises(MasterError, match=r"answers /overview with status 500: a\.B: no; d$"):
        master.version()


ASKING = [
    lambda master: master.check("1.19"),
    lambda master: master.version(),
    lambda master: master.slots(),
    lambda master: master.find_job("a"),
    lambda master: master.job(JOB),
    lambda master: master.root_exception(JOB),
    lambda master: master.restarts(JOB),
    lambda master: master.cancel(JOB),
]


@pytest.mark.parametrize("ask", ASKING)
def test_nobody_there_is_told_by_every_method(ask: Any) -> None:
    master = FlinkMaster(f"127.0.0.1:{free_port()}")
    with pytest.raises(
        MasterError, match=r"no Flink master answers at http://127.*: connection refused; is the"
    ):
        ask(master)


@pytest.mark.parametrize("ask", ASKING)
def test_master_that_hangs_is_given_up_by_every_method(ask: Any) -> None:
    with (
        silent_server() as port,
        pytest.raises(MasterError, match=r": no answer within 0\.2 s; is"),
    ):
        ask(FlinkMaster(f"127.0.0.1:{port}", seconds=0.2))


def test_master_that_dribbles_is_given_up() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
    with (
        raw_server(head, *[b" "] * 1000, pause=0.05) as port,
        pytest.raises(MasterError, match=r"no answer within 0\.3 s"),
    ):
        FlinkMaster(f"127.0.0.1:{port}", seconds=0.3).version()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"", "the connection was closed without an answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", r"the answer is no HTTP \(BadStatusLine\)"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{", "no JSON"),
    ],
)
def test_what_speaks_no_http_is_told(said: bytes, reason: str) -> None:
    with raw_server(said) as port, pytest.raises(MasterError, match=reason):
        FlinkMaster(f"127.0.0.1:{port}").version()


def test_https_where_none_is_spoken_is_told(server: RestServer) -> None:
    with pytest.raises(MasterError, match=r"no Flink master answers at https://.*: no TLS \("):
        FlinkMaster(f"https://{server.address}").version()


def test_proxy_of_the_environment_is_not_asked(
    master: FlinkMaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    assert master.version() == "1.19.3"


# Addresses


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("host:8081", "http://host:8081"),
        ("host", "http://host:8081"),
        (" http://host:80/ ", "http://host:80"),
        ("https://host:8443/flink/", "https://host:8443/flink"),
        ("10.0.0.1:8081", "http://10.0.0.1:8081"),
        ("[::1]:8081", "http://[::1]:8081"),
    ],
)
def test_addresses_are_understood(address: str, url: str) -> None:
    assert FlinkMaster(address).url == url


@pytest.mark.parametrize(
    "address",
    [
        "",
        "[local]",
        "[auto]",
        "host:port",
        "host:99999",
        "spark://host:7077",
        "a b:1",
        "http://",
        "h?x=1",
    ],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="is no address of a Flink master: expected HOST:8081"):
        FlinkMaster(address)
