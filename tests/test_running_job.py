"""A job that an earlier command left in a cluster: when it keeps another run from its output."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from candlebeam.cluster.flink_master import FlinkMaster
from candlebeam.errors import CandlebeamError
from candlebeam.io.staging import Staging
from candlebeam.pipelines import running_job
from tests.loopback import RestServer, free_port, json_answer, rest_server
from tests.test_cluster_flink_master import JOB, job
from tests.test_cluster_job_record import RECORD


@pytest.fixture
def server() -> Iterator[RestServer]:
    with rest_server() as found:
        yield found


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    tmp_path.joinpath("staging").mkdir()
    return Staging(str(tmp_path / "staging"))


def note(staging: Staging, address: str) -> None:
    staging.write_job(replace(RECORD, master=address, job_id=JOB).encode())


def test_nothing_was_submitted(staging: Staging) -> None:
    assert running_job.refuse_while_running(staging, "out") == []


@pytest.mark.parametrize("state", ["RUNNING", "RESTARTING", "INITIALIZING"])
def test_job_that_goes_on_keeps_others_away(
    staging: Staging, server: RestServer, state: str
) -> None:
    note(staging, server.address)
    server.answers["GET /jobs/overview"] = json_answer({"jobs": [job("backfill", 1, state)]})
    with pytest.raises(CandlebeamError, match=r"out: job .* is writing here .*candlebeam attach"):
        running_job.refuse_while_running(staging, "out")


@pytest.mark.parametrize("state", ["FINISHED", "FAILED", "CANCELED"])
def test_job_that_has_ended_is_of_no_account(
    staging: Staging, server: RestServer, state: str
) -> None:
    note(staging, server.address)
    server.answers["GET /jobs/overview"] = json_answer({"jobs": [job("backfill", 1, state)]})
    assert running_job.refuse_while_running(staging, "out") == []


@pytest.mark.parametrize("state", ["FAILING", "CANCELLING"])
def test_job_whose_end_takes_long_is_noted(
    staging: Staging, server: RestServer, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_job, "_ENDING_SECONDS", 0.0)
    note(staging, server.address)
    server.answers["GET /jobs/overview"] = json_answer({"jobs": [job("backfill", 1, state)]})
    (told,) = running_job.refuse_while_running(staging, "out")
    assert told.endswith(f"is still ending ({state.lower()})")


def test_cluster_that_does_not_answer_is_noted(staging: Staging) -> None:
    note(staging, f"http://localhost:{free_port()}")
    (told,) = running_job.refuse_while_running(staging, "out")
    assert "cannot be asked for" in told


# Ending a job


def end(server: RestServer, *jobs: dict[str, Any]) -> tuple[str, list[str]]:
    """What is told of the job "backfill", and what was asked for."""
    server.answers["GET /jobs/overview"] = json_answer({"jobs": jobs})
    told = running_job.end_job(FlinkMaster(server.address), "backfill")
    return told, [request for request in server.requests if request.startswith("PATCH")]


@pytest.mark.parametrize("state", ["RUNNING", "RESTARTING", "INITIALIZING"])
def test_job_is_asked_to_end(server: RestServer, state: str) -> None:
    told, asked = end(server, job("other", 2, job_id="b"), job("backfill", 1, state))
    assert asked == [f"PATCH /jobs/{JOB}?mode=cancel"]
    assert told == f"the job {JOB} at http://{server.address} has not ended yet ({state.lower()})"


@pytest.mark.parametrize("state", ["FAILING", "CANCELLING"])
def test_job_that_is_ending_is_not_asked_again(server: RestServer, state: str) -> None:
    told, asked = end(server, job("backfill", 1, state))
    assert asked == []
    assert "has not ended yet" in told


def test_nothing_to_end(server: RestServer) -> None:
    assert end(server, job("other", 1)) == ("", [])
    assert end(server, job("backfill", 1, "CANCELED"), job("other", 1)) == ("", [])
