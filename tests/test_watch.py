"""Ending a job that a run has submitted: until its master says that it has ended."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from candlebeam.cluster.flink_master import FlinkMaster
from candlebeam.pipelines import watch
from candlebeam.pipelines.watch import Watch
from tests.loopback import RestServer, free_port, json_answer, rest_server
from tests.test_cluster_flink_master import JOB, job

CANCEL = f"PATCH /jobs/{JOB}?mode=cancel"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(watch, "_LATE_SECONDS", 0.1)
    monkeypatch.setattr(watch, "_CANCEL_SECONDS", 60.0)


@pytest.fixture
def server() -> Iterator[RestServer]:
    with rest_server() as found:
        found.answers[CANCEL] = json_answer({})
        yield found


class Result:
    """What a job server tells of a job: `state`, or the error instead."""

    _message_stream = ()

    def __init__(self, state: str | Exception) -> None:
        self._state = state
        self.looks = self.cancelled = 0

    @property
    def state(self) -> str:
        self.looks += 1
        if isinstance(self._state, Exception):
            raise self._state
        return self._state

    def cancel(self) -> None:
        self.cancelled += 1
        self._state = "CANCELLED"


def watching(address: str | None, result: Any) -> Watch:
    master = FlinkMaster(address, seconds=1) if address else None
    target: Any = SimpleNamespace(master=master)
    return Watch(target, result, None, "backfill")


def tell(server: RestServer, *jobs: dict[str, Any]) -> None:
    server.answers["GET /jobs/overview"] = json_answer({"jobs": jobs})


class ThatEnds(Result):
    """The job of a cluster that ends a little after it was asked to."""

    def __init__(self, server: RestServer) -> None:
        super().__init__("CANCELLED")
        self._server = server

    @property
    def state(self) -> str:
        if self._server.requests.count("GET /jobs/overview") > 5:
            assert CANCEL in self._server.requests
            tell(self._server, job("backfill", 1, "CANCELED"))
        return super().state


def test_job_is_waited_for_where_it_runs(server: RestServer) -> None:
    """The job server says at once that it is over."""
    tell(server, job("backfill", 1))
    result = ThatEnds(server)
    assert watching(server.address, result).cancel() == ""
    assert result.looks > 5


def test_job_that_does_not_end_is_told(server: RestServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_CANCEL_SECONDS", 0.3)
    tell(server, job("backfill", 1, "CANCELLING"))
    told = watching(server.address, Result("CANCELLED")).cancel()
    assert told == (
        f"the job {JOB} at http://{server.address} has not ended yet (cancelling);"
        " it may go on: end it there before the next run"
    )


def test_master_that_is_gone_is_not_waited_for() -> None:
    result = Result("FAILED")
    told = watching(f"localhost:{free_port()}", result).cancel()
    assert told.startswith("the job backfill could not be ended: no Flink master answers at ")
    assert told.endswith("; it may go on: end it there before the next run")
    assert result.cancelled == 0


def test_job_that_never_came_to_its_cluster(server: RestServer) -> None:
    tell(server)
    result = Result("RUNNING")
    assert watching(server.address, result).cancel() == ""
    assert result.cancelled == 1


@pytest.mark.parametrize("state", ["RUNNING", RuntimeError("gone")], ids=["runs", "server gone"])
def test_job_inside_the_job_server(state: str | Exception) -> None:
    result = Result(state)
    assert watching(None, result).cancel() == ""
    assert result.cancelled == (state == "RUNNING")
