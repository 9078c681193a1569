"""The worker pool: what jobs get from it, and that nothing is left of it."""

from __future__ import annotations

import ast
import functools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from apache_beam.portability.api import beam_fn_api_pb2, endpoints_pb2

from candlebeam.worker import pool_messages
from tests.command_line import PATIENCE, PROJECT, contents, environment, run_here, run_process
from tests.worker_job import SIZE
from tests.worker_pools import (
    MODULE,
    Pool,
    Runner,
    is_reaped,
    job,
    pid_of,
    runs,
    wait_until,
    wait_until_gone,
)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with Pool(tmp_path_factory.mktemp("pool")) as found:
        yield found


@pytest.fixture
def own_pool(tmp_path: Path) -> Iterator[Pool]:
    """A pool that the test may kill, with small logs."""
    with Pool(tmp_path, "--log-megabytes=1") as found:
        yield found


def has_said(pool: Pool, line: str) -> bool:
    return line in pool.errors


def stops(pool: Pool, worker_id: str, pid: int) -> bool:
    assert pool.stop_worker(worker_id) == ""
    return is_reaped(pid)


def working(pool: Pool, path: Path) -> tuple[int, int]:
    """Waits until the job `stay` is at work: the processes of its worker and the worker's child."""
    wait_until(path.exists, "the worker works")
    worker, child = map(int, path.read_text().split())
    assert runs(worker)
    assert runs(child)
    return worker, child


# What jobs get


def test_output_options_and_the_interpreter_of_workers(pool: Pool, tmp_path: Path) -> None:
    told = tmp_path / "told"
    options = ["--s3_endpoint_url=http://localhost:9", "--parallelism=3", *pool.options]
    with job("tell", told, options) as running:
        output, _ = running.communicate(timeout=PATIENCE)
    assert running.returncode == 0, output
    known = json.loads(told.read_text())
    assert known["executable"] == sys.executable
    assert known["endpoint"] == "http://localhost:9"
    assert known["parallelism"] == 3
    assert known["environment"]["beam:option:s3_endpoint_url:v1"] == "http://localhost:9"
    (log,) = (log for log in pool.log_texts if "o" * SIZE in log)
    assert log.count("o" * SIZE + "\n") == log.count("e" * SIZE + "\n") == 1
    wait_until_gone(pid_of(log))
    assert pool.errors == ""


def test_backfill_on_workers_is_that_of_one_process(pool: Pool, tmp_path: Path) -> None:
    db, here, there = (tmp_path / name for name in ("db", "here", "there"))
    run_here("index", PROJECT / "examples/archive", "--db", db).expect()
    run_here("backfill", "--db", db, "--out", here).expect()
    run_process("backfill", "--db", db, "--out", there, *pool.options).expect()
    assert contents(here)
    assert contents(there) == contents(here)
    assert pool.errors == ""


# How workers start and end


def test_worker_gets_what_a_runner_tells_it_and_ends_with_its_work(pool: Pool) -> None:
    with Runner({"job_name": "a job"}) as runner:
        worker = pool.start("1-1", runner.endpoint)
        assert runner.connected.get(timeout=PATIENCE) == "1-1"
        assert worker.log.read_text().startswith("worker 1-1, process ")
        runner.end_workers()
        wait_until_gone(worker.pid)
    assert worker.log.read_text().endswith("worker 1-1 has ended\n")


def test_killed_worker_is_told_and_reaped_and_the_next_one_starts(pool: Pool) -> None:
    with Runner() as runner:
        for _ in range(2):
            worker = pool.start("2-1", runner.endpoint)
            os.kill(worker.pid, signal.SIGKILL)
            wait_until(functools.partial(is_reaped, worker.pid), "it is reaped")
            line = f"worker 2-1 (process {worker.pid}) was ended by signal 9\n"
            wait_until(functools.partial(has_said, pool, line), "the user is told")


def test_stopped_worker_has_ended_and_is_no_failure(pool: Pool) -> None:
    with Runner() as runner:
        worker = pool.start("3-1", runner.endpoint)
        assert pool.stop_worker("3-1") == ""
        assert is_reaped(worker.pid)
    assert str(worker.pid) not in pool.errors


def test_stopping_an_unknown_worker_does_nothing(pool: Pool) -> None:
    assert pool.stop_worker("no such worker") == ""


def test_worker_whose_name_two_jobs_gave_is_not_stopped_for_the_other(pool: Pool) -> None:
    with Runner() as one, Runner() as other:
        first, second = (pool.start("4-1", runner.endpoint) for runner in (one, other))
        assert pool.stop_worker("4-1") == ""
        assert runs(first.pid)
        assert runs(second.pid)
        one.end_workers()
        wait_until(functools.partial(is_reaped, first.pid), "the first one has ended")
        wait_until(functools.partial(stops, pool, "4-1", second.pid), "the second one is stopped")


def test_worker_that_cannot_start_is_an_error_of_the_runner(pool: Pool) -> None:
    with socket.socket() as nobody:
        nobody.bind(("localhost", 0))
        endpoint = f"localhost:{nobody.getsockname()[1]}"
        error = pool.start_worker("5-1", endpoint)
    assert error.startswith(f"the runner's provision service at {endpoint} does not answer: ")
    assert "UNAVAILABLE" in error
    log = next(pool.logs.glob("*-5-1-*.log"))
    assert error.endswith(f"(worker 5-1, log {log})")
    assert "Traceback" in log.read_text()


def test_options_that_beam_cannot_take_are_an_error_of_the_runner(pool: Pool) -> None:
    with Runner({"max_cache_memory_usage_mb": "many"}) as runner:
        error = pool.start_worker("6-1", runner.endpoint)
    log = next(pool.logs.glob("*-6-1-*.log"))
    assert error.endswith(f"(worker 6-1, log {log})")
    assert "max_cache_memory_usage_mb" in log.read_text()


def test_worker_that_is_killed_while_it_starts_is_an_error_of_the_runner(own_pool: Pool) -> None:
    with socket.create_server(("localhost", 0)) as silent:
        # It takes connections and says nothing.
        endpoint = f"localhost:{silent.getsockname()[1]}"
        with ThreadPoolExecutor(1) as background:
            answer = background.submit(own_pool.start_worker, "7-1", endpoint)
            wait_until(lambda: bool(own_pool.log_texts and own_pool.log_texts[0]), "it starts")
            pid = pid_of(own_pool.log_texts[0])
            os.kill(pid, signal.SIGKILL)
            assert answer.result(PATIENCE) == (
                f"worker 7-1 (process {pid}) was ended by signal 9 before it was connected "
                f"(logs in {own_pool.logs})"
            )


# Nothing is left


def test_workers_and_their_children_end_with_the_pool(own_pool: Pool, tmp_path: Path) -> None:
    with job("stay", tmp_path / "pids", own_pool.options):
        pids = working(own_pool, tmp_path / "pids")
        assert own_pool.end(signal.SIGTERM) == 0
        wait_until_gone(*pids)
    assert own_pool.errors == ""


def test_interrupted_pool_ends_its_workers_too(own_pool: Pool) -> None:
    with Runner() as runner:
        worker = own_pool.start("1-1", runner.endpoint)
        assert own_pool.end(signal.SIGINT) == 0
        assert is_reaped(worker.pid)
    assert own_pool.errors == ""


def test_workers_end_when_the_pool_is_killed(own_pool: Pool) -> None:
    with Runner() as runner:
        pids = [own_pool.start(name, runner.endpoint).pid for name in ("1-1", "2-1")]
        assert own_pool.end(signal.SIGKILL) == -signal.SIGKILL
        wait_until_gone(*pids)


def test_worker_ends_when_its_runner_is_killed_at_work(own_pool: Pool, tmp_path: Path) -> None:
    with job("stay", tmp_path / "pids", own_pool.options) as running:
        pids = working(own_pool, tmp_path / "pids")
        wait_until(lambda: bool([*own_pool.logs.glob("*.log.1")]), "the log begins anew")
        running.kill()
        wait_until_gone(*pids)
    assert own_pool.process.poll() is None
    assert "has lost its runner: UNAVAILABLE" in own_pool.log_texts[0]
    with Runner() as runner:
        assert runs(own_pool.start("1-1", runner.endpoint).pid)


# The command


def refusal(*arguments: object) -> str:
    """What a pool says that does not start."""
    done = subprocess.run(
        [*MODULE, *map(str, arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    return done.stderr


def test_pool_says_where_it_serves_and_where_its_workers_log(pool: Pool) -> None:
    assert pool.line == f"worker pool at port {pool.port}; workers log to {pool.logs}\n"


def test_taken_port_is_an_error(pool: Pool, tmp_path: Path) -> None:
    words = refusal("--port", pool.port, "--log-dir", tmp_path)
    assert words == (
        f"candlebeam: cannot listen at port {pool.port} of localhost: "
        "OSError: Address already in use\n"
    )


def test_unknown_host_is_an_error(tmp_path: Path) -> None:
    words = refusal("--host", "no such host", "--log-dir", tmp_path)
    assert words.startswith("candlebeam: cannot listen at no such host: gaierror: ")
    assert words.count("\n") == 1


def test_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "logs"
    words = refusal("--port", 0, "--log-dir", folder)
    assert words == (
        f"candlebeam: no logs can be written to {folder}: NotADirectoryError: Not a directory\n"
    )


def test_help_is_there_at_once() -> None:
    code = (
        "import sys; sys.argv = ['worker', '--help']\n"
        "from candlebeam.worker.__main__ import main\n"
        "main(standalone_mode=False)\n"
        "print(sorted(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    *help_lines, modules = done.stdout.splitlines()
    assert any("--environment_type=EXTERNAL" in line for line in help_lines)
    loaded = {name.split(".")[0] for name in ast.literal_eval(modules)}
    assert "candlebeam" in loaded
    assert not loaded & {"apache_beam", "grpc", "numba", "numpy"}


def test_messages_are_those_of_beam() -> None:
    pairs = [
        (getattr(pool_messages, name), getattr(beam_fn_api_pb2, name))
        for name in (
            *("StartWorkerRequest", "StartWorkerResponse"),
            *("StopWorkerRequest", "StopWorkerResponse"),
        )
    ]
    start = pool_messages.StartWorkerRequest
    endpoint = start.DESCRIPTOR.fields_by_name["control_endpoint"].message_type._concrete_class
    for ours, theirs in [*pairs, (endpoint, endpoints_pb2.ApiServiceDescriptor)]:
        for field in ours.DESCRIPTOR.fields:
            same = theirs.DESCRIPTOR.fields_by_name[field.name]
            assert (field.number, field.type) == (same.number, same.type), field.name
    service = beam_fn_api_pb2.DESCRIPTOR.services_by_name["BeamFnExternalWorkerPool"]
    assert service.full_name == pool_messages.SERVICE
    assert [method.name for method in service.methods] == ["StartWorker", "StopWorker"]
