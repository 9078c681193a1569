"""Streams on real Flink: the bytes of a backfill, whatever happens on the way."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from candlebeam.cluster.flink_master import FlinkMaster
from clusters.flink import FlinkCluster
from clusters.flink_settings import RESTARTS
from tests import engines
from tests.command_line import Outcome, Workspace, contents
from tests.drivers import Driver
from tests.replays import Replay
from tests.test_cluster_faults import companions_of, running_jobs
from tests.worker_pools import wait_until as wait_for_long

pytestmark = pytest.mark.cluster(minutes=5)
#: A replayed minute at a time, and how long one takes.
_STEP_SECONDS = 0.03
_SECONDS = 240


@pytest.fixture(scope="module")
def flink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlinkCluster]:
    """Two TaskManagers; what is lost is made up for from checkpoints."""
    engines.need_clusters()
    folder = tmp_path_factory.mktemp("flink")
    options = {
        **RESTARTS,
        "state.checkpoints.dir": f"file://{folder}/checkpoints",
        "state.savepoints.dir": f"file://{folder}/savepoints",
    }
    with FlinkCluster(folder, task_managers=2, slots=1, options=options) as cluster:
        yield cluster
    cluster.assert_nothing_left()


@pytest.fixture
def work(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


@pytest.fixture
def replay(work: Workspace) -> Replay:
    work.archive.mkdir()
    return Replay(work.archive, work.folder / "clock")


def stream(work: Workspace, replay: Replay, *options: object) -> Driver:
    quick = ("--checkpointing_interval=1000", "--max_bundle_time_mills=50")
    return Driver.stream(work, "--clock", f"@{replay.clock}", *options, *quick)


def wait_until(holds: Callable[[], bool], what: str) -> None:
    wait_for_long(holds, what, _SECONDS)


def go_on(replay: Replay, minutes: int) -> None:
    for _ in range(minutes):
        replay.go_on()
        time.sleep(_STEP_SECONDS)


def begin(work: Workspace, replay: Replay, driver: Driver) -> None:
    """Some minutes, once the stream runs."""
    before = committed(work)
    go_on(replay, 40)

    def grows() -> bool:
        assert driver.process.poll() is None, driver.stderr
        return committed(work) > before

    wait_until(grows, "the stream writes candles")


def committed(work: Workspace) -> int:
    """Bytes of candles that are there."""
    return sum(map(len, contents(work.out).values())) if work.out.exists() else 0


def assert_equal_in_the_end(work: Workspace, replay: Replay, driver: Driver) -> None:
    """Once everything is written and its time has passed, the files are those of a backfill."""
    replay.finish()
    work.index().expect()
    batch = Workspace(work.folder / "batch")
    batch.folder.mkdir()
    work.backfill("--out", batch.out).expect()

    def is_equal() -> bool:
        assert driver.process.poll() is None, driver.stderr
        return (contents(work.out), companions_of(work.out)) == (
            contents(batch.out),
            companions_of(batch.out),
        )

    try:
        wait_until(is_equal, "the stream has made what a backfill makes")
    finally:
        outcome = interrupt(driver)
    assert (contents(work.out), companions_of(work.out)) == (
        contents(batch.out),
        companions_of(batch.out),
    ), outcome.output


def interrupt(driver: Driver) -> Outcome:
    """Ctrl-C, as the terminal sends it to all processes of a command."""
    if driver.process.poll() is None:
        os.killpg(driver.process.pid, signal.SIGINT)
    return driver.wait(_SECONDS)


def test_embedded(work: Workspace, replay: Replay) -> None:
    engines.need_clusters()
    with stream(work, replay, *engines.embedded_stream()) as driver:
        begin(work, replay, driver)
        go_on(replay, 100)
        assert_equal_in_the_end(work, replay, driver)


def test_stopped_and_started_and_backfilled_in_between(work: Workspace, replay: Replay) -> None:
    engines.need_clusters()
    with stream(work, replay, *engines.embedded_stream()) as driver:
        begin(work, replay, driver)
        interrupt(driver).expect(0)
    go_on(replay, 30)
    work.index().expect()
    work.backfill().expect()
    go_on(replay, 20)
    with stream(work, replay, *engines.embedded_stream()) as driver:
        begin(work, replay, driver)
        assert_equal_in_the_end(work, replay, driver)


def test_lost_worker(work: Workspace, replay: Replay, flink: FlinkCluster) -> None:
    with stream(work, replay, *engines.stream_on_flink(flink)) as driver:
        begin(work, replay, driver)
        os.kill(flink.worker_processes()[0], signal.SIGKILL)
        go_on(replay, 60)
        assert_equal_in_the_end(work, replay, driver)


def test_lost_task_manager(work: Workspace, replay: Replay, flink: FlinkCluster) -> None:
    with stream(work, replay, *engines.stream_on_flink(flink)) as driver:
        begin(work, replay, driver)
        running = [i for i, one in enumerate(flink.task_managers) if one.poll() is None]
        flink.kill_task_manager(running[0])
        flink.start_task_manager()
        go_on(replay, 60)
        assert_equal_in_the_end(work, replay, driver)


def stop_with_savepoint(flink: FlinkCluster) -> str:
    """Has the job end, and gives where it keeps what it knows."""
    (job,) = [job["jid"] for job in flink.rest("/jobs/overview")["jobs"] if is_running(job)]
    trigger = post(f"http://{flink.master}/jobs/{job}/stop", {"drain": False})["request-id"]
    status: dict[str, Any] = {}

    def is_done() -> bool:
        status.update(flink.rest(f"/jobs/{job}/savepoints/{trigger}"))
        return bool(status["status"]["id"] == "COMPLETED")

    wait_until(is_done, "the savepoint is there")
    return str(status["operation"]["location"])


def cancel(flink: FlinkCluster) -> str:
    """Kills the job, and gives its last checkpoint."""
    (job,) = [job["jid"] for job in flink.rest("/jobs/overview")["jobs"] if is_running(job)]

    def checkpoints() -> list[Path]:
        # What the master tells of them is some seconds old.
        found = (flink.folder / "checkpoints" / job).glob("chk-*/_metadata")
        return sorted((path.parent for path in found), key=lambda path: int(path.name[4:]))

    wait_until(lambda: bool(checkpoints()), "there is a checkpoint")
    FlinkMaster(flink.master).cancel(job)
    wait_until(lambda: not running_jobs(flink), "the job is over")
    return checkpoints()[-1].as_uri()


def is_running(job: Mapping[str, Any]) -> bool:
    return job["state"] not in ("FINISHED", "FAILED", "CANCELED")


def post(url: str, values: object) -> dict[str, Any]:
    request = urllib.request.Request(
        url, json.dumps(values).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return dict(json.load(answer))


@pytest.mark.parametrize("how", ["savepoint", "checkpoint"])
def test_resumed(work: Workspace, replay: Replay, flink: FlinkCluster, how: str) -> None:
    options = engines.stream_on_flink(flink)
    with stream(work, replay, *options) as driver:
        begin(work, replay, driver)
        place = stop_with_savepoint(flink) if how == "savepoint" else cancel(flink)
        driver.wait(_SECONDS)
    wait_until(lambda: not running_jobs(flink), "no job runs")
    go_on(replay, 45)
    with stream(work, replay, *options, f"--savepoint_path={place}") as driver:
        begin(work, replay, driver)
        assert_equal_in_the_end(work, replay, driver)
