"""One worker, as a runner starts it that has no pool (`--environment_type=PROCESS`)."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_provision_api_pb2, beam_runner_api_pb2

from candlebeam.errors import CandlebeamError
from candlebeam.worker.provision import environment_of, options_json, staged_files
from tests.command_line import PATIENCE, environment
from tests.worker_pools import Runner

BOOT = (sys.executable, "-m", "candlebeam.worker.boot")


@contextmanager
def booted(logs: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A worker's process; it is killed at the end."""
    process = subprocess.Popen(
        [*BOOT, *arguments],
        env=environment(CANDLEBEAM_WORKER_LOGS=str(logs)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def only_log(folder: Path) -> str:
    (log,) = folder.iterdir()
    return log.read_text()


def test_worker_needs_but_its_name_and_where_to_ask(tmp_path: Path) -> None:
    with Runner({"s3_region_name": "nowhere-1"}, tells_endpoints=True) as runner:
        arguments = ("--id=1-1", f"--provision_endpoint={runner.endpoint}", "--later_option=7")
        with booted(tmp_path, *arguments) as process:
            assert runner.asked.get(timeout=PATIENCE) == "1-1"
            assert runner.connected.get(timeout=PATIENCE) == "1-1"
            runner.end_workers()
            output, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output) == (0, "")
    log = only_log(tmp_path)
    assert log.startswith(f"worker 1-1, process {process.pid}, Python ")
    assert "'s3_region_name': 'nowhere-1'" in log
    assert log.endswith("worker 1-1 has ended\n")


def test_worker_ends_when_its_runner_goes_away(tmp_path: Path) -> None:
    with Runner(tells_endpoints=True) as runner:
        arguments = ("--id=1-1", f"--provision_endpoint={runner.endpoint}")
        with booted(tmp_path, *arguments) as process:
            runner.connected.get(timeout=PATIENCE)
            runner.vanish()
            output, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output) == (0, "")
    assert "worker 1-1 has lost its runner: " in only_log(tmp_path)


def test_terminated_worker_ends(tmp_path: Path) -> None:
    with Runner(tells_endpoints=True) as runner:
        arguments = ("--id=1-1", f"--provision_endpoint={runner.endpoint}")
        with booted(tmp_path, *arguments) as process:
            runner.connected.get(timeout=PATIENCE)
            process.terminate()
            assert process.wait(PATIENCE) == -signal.SIGTERM


def test_runner_that_does_not_answer_is_a_failure(tmp_path: Path) -> None:
    with booted(tmp_path, "--id=1-1", "--provision_endpoint=localhost:1") as process:
        output, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output) == (1, "")
    assert "the runner's provision service at localhost:1 does not answer" in only_log(tmp_path)


def test_folder_for_logs_that_cannot_be_written_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    arguments = ("--id=1-1", "--provision_endpoint=localhost:1")
    with booted(tmp_path / "file" / "logs", *arguments) as process:
        output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert output.startswith("candlebeam-boot: no logs can be written to ")
    assert output.count("\n") == 1


def test_missing_argument_is_wrong_usage(tmp_path: Path) -> None:
    with booted(tmp_path, "--id=1-1") as process:
        output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert "--provision_endpoint" in output


# What a worker makes of what it is told


def given(**changes: str) -> argparse.Namespace:
    endpoints = dict.fromkeys(("control", "logging", "artifact", "status"), "")
    values = {f"{name}_endpoint": value for name, value in endpoints.items()}
    return argparse.Namespace(
        **{**values, "provision_endpoint": "p:1", "semi_persist_dir": "", **changes}
    )


def provision(**values: Any) -> Any:
    return beam_provision_api_pb2.ProvisionInfo(**values)


def test_runner_counts_more_than_arguments() -> None:
    info = provision(
        runner_capabilities=["one", "two"], metadata={"job_id": "7", "job_name": "n", "other": "o"}
    )
    info.control_endpoint.url = "c:1"
    info.status_endpoint.url = "s:1"
    info.pipeline_options.update({"a": "b"})
    found = environment_of(info, given(control_endpoint="c:2", logging_endpoint="l:2"))
    assert {name: value.strip() for name, value in found.items()} == {
        "PIPELINE_OPTIONS": '{"a": "b"}',
        "RUNNER_CAPABILITIES": "one two",
        "CONTROL_API_SERVICE_DESCRIPTOR": 'url: "c:1"',
        "LOGGING_API_SERVICE_DESCRIPTOR": 'url: "l:2"',
        "STATUS_API_SERVICE_DESCRIPTOR": 'url: "s:1"',
        "JOB_ID": "7",
        "JOB_NAME": "n",
    }


def test_folder_of_staged_files_is_handed_on() -> None:
    found = environment_of(provision(), given(control_endpoint="c:1", semi_persist_dir="/d"))
    assert found["SEMI_PERSISTENT_DIRECTORY"] == "/d"


def test_worker_without_a_control_endpoint_is_an_error() -> None:
    with pytest.raises(CandlebeamError, match="no control endpoint: expected one from p:1 or as"):
        environment_of(provision(), given())


def test_whole_numbers_of_options_stay_whole() -> None:
    options = {"n": 3, "big": 2**53, "half": 0.5, "flag": True, "none": None, "list": [1, {"m": 2}]}
    info = provision()
    info.pipeline_options.update(options)
    text = options_json(info.pipeline_options)
    assert json.loads(text) == options
    assert text.count(".") == 1


def test_staged_files_are_told_but_for_what_every_job_stages() -> None:
    def staged(name: str, role: str = common_urns.artifact_roles.STAGING_TO.urn) -> Any:
        payload = beam_runner_api_pb2.ArtifactStagingToRolePayload(staged_name=name)
        return beam_runner_api_pb2.ArtifactInformation(
            role_urn=role, role_payload=payload.SerializeToString()
        )

    usual = "submission_environment_dependencies.txt"
    info = provision(dependencies=[staged(usual), staged("workflow.tar.gz"), staged("x", "other")])
    assert staged_files(info) == ["workflow.tar.gz"]
