"""What is lost while a job runs on a Flink cluster is made up for: the same bytes in the end."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from clusters.flink import FlinkCluster
from clusters.ports import free_ports, listens
from tests import engines
from tests.command_line import (
    Outcome,
    Workspace,
    contents,
    environment,
    leftovers,
    run_process,
)
from tests.drivers import Driver
from tests.gates import Gates
from tests.worker_pools import MODULE, wait_until, wait_until_gone

pytestmark = pytest.mark.cluster(minutes=7)
#: Every file is a shard.
_SHARD_BYTES = 300
_SHARDS = ("--shard_bytes", _SHARD_BYTES)
_HOURS = 6
#: Chunks that a worker makes before it is held.
_MADE = 2
_MARKETS = {
    "RAM/2024/KRAKEN/XBT-USDT": 40.5,
    "RAM/2024/BYBIT/ethusdt": 2.25,
    "PI/2024/OKEX/pepe": 12.5,
}
#: How long a driver is patient with a master, and something for the end of it.
_PATIENCE_SECONDS = 30 + 60


def write_archive(root: Path, hours: range, more: float = 0) -> None:
    """Files of an hour and 40 trades each, at prices around those of the markets and `more`."""
    for number, (market, price) in enumerate(_MARKETS.items()):
        for hour in hours:
            start = 1_709_337_600_000 + hour * 3_600_000
            rows = [
                f"{start + n * 89_000 + number} {price + n % 7 / 100 + more:.7f} {n % 5}.5"
                f" {n % 2}\n"
                for n in range(40)
            ]
            path = root / market / f"2024-03-02-{hour:02}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(rows))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """An archive that is indexed and was made in process."""
    engines.need_clusters()
    found = Workspace(tmp_path_factory.mktemp("archive"))
    write_archive(found.archive, range(_HOURS))
    found.run(*_SHARDS)
    return found


@pytest.fixture(scope="module")
def gates(tmp_path_factory: pytest.TempPathFactory) -> Gates:
    return Gates(tmp_path_factory.mktemp("gates"))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, gates: Gates) -> Iterator[FlinkCluster]:
    """Two TaskManagers of one slot, with workers that can be held at gates."""
    engines.need_clusters()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in gates.environment.items():
            patch.setenv(name, value)
        found = FlinkCluster(tmp_path_factory.mktemp("flink"), task_managers=2, slots=1)
        with found:
            yield found
        found.assert_nothing_left()


@pytest.fixture
def flink(cluster: FlinkCluster, gates: Gates) -> Iterator[FlinkCluster]:
    """The cluster, whole and idle before and after the test."""
    yield cluster
    gates.open()
    if cluster.job_manager is None:
        cluster.start_job_manager()
    cluster.wait_for_task_managers()
    wait_until(lambda: not running_jobs(cluster), "no job runs")
    wait_until(lambda: not cluster.worker_processes(), "no worker runs")


@pytest.fixture
def mine(work: Workspace, tmp_path: Path) -> Workspace:
    """A workspace with the same archive, and nothing made."""
    found = Workspace(tmp_path)
    shutil.copy(work.db, found.db)
    return found


def running_jobs(cluster: FlinkCluster) -> list[str]:
    """The names of jobs that are not over."""
    over = ("FINISHED", "FAILED", "CANCELED")
    jobs = cluster.rest("/jobs/overview")["jobs"]
    return [job["name"] for job in jobs if job["state"] not in over]


def last_job(cluster: FlinkCluster) -> dict[str, object]:
    """The job that was started last."""
    jobs = cluster.rest("/jobs/overview")["jobs"]
    return dict(max(jobs, key=lambda job: job["start-time"]))


def on(cluster: FlinkCluster) -> list[object]:
    return [*engines.on_flink(cluster), *_SHARDS]


def companions_of(out: Path) -> dict[Path, bytes]:
    return {path.relative_to(out): path.read_bytes() for path in out.rglob("*.json")}


def assert_same(reference: Workspace, mine: Workspace) -> None:
    """The output is that of a run in process, and nothing else is there."""
    assert contents(mine.out) == contents(reference.out)
    assert companions_of(mine.out) == companions_of(reference.out)
    assert leftovers(mine.out) == []


def assert_well(work: Workspace, mine: Workspace, outcome: Outcome, *, reused: int = 0) -> None:
    """It ended well, with the same bytes, and reports at least so many chunks as reused."""
    outcome.expect()
    assert_same(work, mine)
    totals = outcome.totals
    assert totals["written"] == len(_MARKETS)
    assert totals["chunks_reused"] >= reused
    assert totals["chunks_reused"] + totals["chunks_made"] == len(_MARKETS) * _HOURS
    if reused:
        line = f"{totals['chunks_reused']} of {len(_MARKETS) * _HOURS} chunks were there"
        assert line in outcome.stdout


def assert_error(outcome: Outcome, pattern: str, code: int = 1) -> None:
    """It ended with one line of error."""
    outcome.expect(code)
    assert outcome.stdout == ""
    errors = [line for line in outcome.stderr.splitlines() if not is_progress(line)]
    assert len(errors) == 1, outcome.stderr
    assert re.search(f"^candlebeam: {pattern}", errors[0]), outcome.stderr


def is_progress(line: str) -> bool:
    return re.match(r"\d{4}-\d\d-\d\dT[\d:]{8}Z ", line) is not None


def interrupt(driver: Driver, number: int = signal.SIGINT) -> Outcome:
    """Ctrl-C, as the terminal sends it to all processes of a command."""
    os.killpg(driver.process.pid, number)
    return driver.wait()


def test_lost_worker(work: Workspace, mine: Workspace, flink: FlinkCluster, gates: Gates) -> None:
    """Meanwhile a second command is refused at once."""
    gates.close("chunks", _MADE)
    with Driver.backfill(mine, *on(flink)) as driver:
        lost = gates.wait("chunks")[0]
        assert lost in flink.worker_processes()
        second = run_process("backfill", "--db", mine.db, "--out", mine.out, *on(flink))
        assert_error(second, rf".*: another run is writing here \(process {driver.process.pid} on ")
        os.kill(lost, signal.SIGKILL)
        gates.open()
        assert_well(work, mine, driver.wait(), reused=_MADE)


def test_lost_task_manager(
    work: Workspace, mine: Workspace, flink: FlinkCluster, gates: Gates
) -> None:
    gates.close("chunks", _MADE)
    with Driver.backfill(mine, *on(flink)) as driver:
        gates.wait("chunks", 2)
        running = [i for i, one in enumerate(flink.task_managers) if one.poll() is None]
        flink.kill_task_manager(running[0])
        gates.open()
        flink.start_task_manager()
        assert_well(work, mine, driver.wait(), reused=_MADE)


@contextmanager
def worker_pool(port: int, logs: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A pool beside that of the cluster, which takes workers of its own."""
    command = [*MODULE, "--port", str(port), "--log-dir", str(logs)]
    with (logs / "pool.log").open("ab") as log:
        process = subprocess.Popen(command, env=environment(), stdout=log, stderr=log)
    try:
        wait_until(lambda: listens(port), "the pool listens")
        yield process
    finally:
        process.terminate()
        process.wait()


def test_lost_worker_pool(
    work: Workspace, mine: Workspace, flink: FlinkCluster, gates: Gates, tmp_path: Path
) -> None:
    """Told not to try again, the run ends at once; the next goes on from there."""
    (port,) = free_ports(1)
    options = [*on(flink), f"--environment_config=localhost:{port}"]
    gates.close("chunks", _MADE)
    with worker_pool(port, tmp_path) as pool:
        again = "--number_of_execution_retries=0"
        with Driver.backfill(mine, *options, again) as driver:
            held = gates.wait("chunks")
            pool.kill()
            assert_error(driver.wait(), "the job failed: a worker died or was cut off")
        wait_until_gone(*held)
    gates.open()
    with worker_pool(port, tmp_path), Driver.backfill(mine, *options) as driver:
        assert_well(work, mine, driver.wait(), reused=_MADE)


def test_lost_job_manager(
    work: Workspace, mine: Workspace, flink: FlinkCluster, gates: Gates
) -> None:
    gates.close("chunks", _MADE)
    with Driver.backfill(mine, *on(flink)) as driver:
        gates.wait("chunks")
        killed_at = time.monotonic()
        flink.kill_job_manager()
        outcome = driver.wait()
        assert time.monotonic() - killed_at < _PATIENCE_SECONDS
    assert_error(outcome, "no Flink master answers at .*: connection refused.*run this again")
    flink.start_job_manager()
    flink.wait_for_task_managers()
    with Driver.attach(mine) as attached:
        forgotten = attached.wait().expect(1)
    assert "knows nothing of job" in forgotten.stderr
    assert "run the backfill again" in forgotten.stderr
    gates.open()
    with Driver.backfill(mine, *on(flink)) as driver:
        assert_well(work, mine, driver.wait(), reused=_MADE)


def test_job_manager_that_stops_answering(
    work: Workspace, mine: Workspace, flink: FlinkCluster, gates: Gates
) -> None:
    gates.close("chunks", _MADE)
    with Driver.backfill(mine, *on(flink)) as driver:
        gates.wait("chunks")
        paused_at = time.monotonic()
        flink.pause_job_manager()
        try:
            outcome = driver.wait()
            assert time.monotonic() - paused_at < _PATIENCE_SECONDS
        finally:
            flink.resume_job_manager()
    assert_error(outcome, "no Flink master answers at .*: no answer within .*candlebeam attach")
    # TaskManagers give up the work of a master that they have not heard of for so long.
    wait_until(lambda: not running_jobs(flink), "the job is given up")
    flink.wait_for_task_managers()
    gates.open()
    with Driver.backfill(mine, *on(flink)) as driver:
        assert_well(work, mine, driver.wait(), reused=_MADE)


def test_driver_killed(work: Workspace, mine: Workspace, flink: FlinkCluster, gates: Gates) -> None:
    gates.close("chunks", _MADE)
    with Driver.backfill(mine, *on(flink)) as driver:
        gates.wait("chunks")
        driver.process.kill()
        driver.process.wait()
    with Driver.backfill(mine, *on(flink)) as second:
        assert_error(second.wait(), ".*: job .* is writing here .*candlebeam attach --out")
    assert running_jobs(flink)
    gates.open()
    with Driver.attach(mine) as attached:
        assert_well(work, mine, attached.wait())


def test_detached(work: Workspace, mine: Workspace, flink: FlinkCluster, gates: Gates) -> None:
    """The job goes on without a driver; Ctrl-C while it is waited for leaves it alone."""
    gates.close("chunks", _MADE)
    with Driver.backfill(mine, *on(flink), "--detach") as driver:
        submitted = driver.wait().expect()
    job = last_job(flink)
    assert f"{len(_MARKETS) * _HOURS} shards of 3 markets" in submitted.stdout
    assert f"go on as job {job['jid']} at http://{flink.master}" in submitted.stdout
    assert submitted.report["job"]["job_id"] == job["jid"]
    gates.wait("chunks")
    with Driver.backfill(mine, *on(flink)) as second:
        assert_error(second.wait(), f".*: job {job['jid']} at .* is writing here")
    with Driver.attach(mine) as attached:
        wait_until(lambda: "18 shards of 3 markets" in attached.stderr, "it waits for the job")
        assert_error(interrupt(attached), "interrupted", 130)
    assert last_job(flink)["state"] == "RUNNING"
    gates.open()
    with Driver.attach(mine) as attached:
        assert_well(work, mine, attached.wait())
    with Driver.attach(mine) as attached:
        assert_error(attached.wait(), ".*: no job of a cluster is writing here")


def test_interrupted(work: Workspace, mine: Workspace, flink: FlinkCluster, gates: Gates) -> None:
    """Ctrl-C, then SIGTERM, then to the end; chunks are told of as they are made."""
    told = "interrupted; run it again to go on from here"
    for number, made in ((signal.SIGINT, 1), (signal.SIGTERM, 2)):
        gates.close("chunks", 1)
        with Driver.backfill(mine, *on(flink)) as driver:
            held = gates.wait("chunks")
            wait_until(
                lambda driver=driver, made=made: shards_told(driver.stderr) >= made,  # type: ignore[misc]
                "progress is told",
            )
            assert_error(interrupt(driver, number), told, 130)
        assert last_job(flink)["state"] == "CANCELED"
        wait_until_gone(*held)
        gates.open()
    with Driver.backfill(mine, *on(flink)) as driver:
        assert_well(work, mine, driver.wait(), reused=2)


def shards_told(stderr: str) -> int:
    """The shards that are done by the last line of progress."""
    found = re.findall(r"^\S+Z (\d+)/18 shards", stderr, re.MULTILINE)
    return int(found[-1]) if found else 0


def test_embedded_flink_interrupted(work: Workspace, mine: Workspace, tmp_path: Path) -> None:
    (tmp_path / "gates").mkdir()
    gates = Gates(tmp_path / "gates")
    gates.close("chunks", _MADE)
    options = [*engines.embedded_flink(), *_SHARDS]
    with Driver.backfill(mine, *options, env=gates.environment) as driver:
        gates.wait("chunks")
        assert_error(interrupt(driver), "interrupted; run it again to go on from here", 130)
    gates.open()
    with Driver.backfill(mine, *options) as driver:
        assert_well(work, mine, driver.wait(), reused=_MADE)


def test_workers_lost_while_they_commit(flink: FlinkCluster, gates: Gates, tmp_path: Path) -> None:
    """One before it writes candles, one before it can say that it has: with a new price scale."""
    reference, mine = Workspace(tmp_path / "reference"), Workspace(tmp_path / "mine")
    for one in (reference, mine):
        one.folder.mkdir()
    write_archive(reference.archive, range(3))
    reference.run(*_SHARDS)
    shutil.copytree(reference.out, mine.out)
    write_archive(reference.archive, range(3, _HOURS), more=1.3e-6)
    reference.index().expect()
    shutil.copy(reference.db, mine.db)
    before = scales(reference.out)
    reference.backfill(*_SHARDS).expect()
    assert all(scales(reference.out)[market] > scale for market, scale in before.items())
    gates.close("candles")
    gates.close("outcome")
    with Driver.backfill(mine, *on(flink)) as driver:
        lost = gates.wait("candles")[0]
        os.kill(lost, signal.SIGKILL)
        gates.open("candles")
        # It may end by itself just then, since its job has lost the other one.
        with suppress(ProcessLookupError):
            os.kill(gates.wait("outcome")[0], signal.SIGKILL)
        gates.open()
        driver.wait().expect()
    assert_same(reference, mine)


def scales(out: Path) -> dict[Path, int]:
    return {path: json.loads(data)["priceScale"] for path, data in companions_of(out).items()}


def test_worker_of_an_earlier_run_changes_nothing(
    work: Workspace, mine: Workspace, flink: FlinkCluster, gates: Gates
) -> None:
    """Its TaskManagers are cut off from the master and go on when another run has ended."""
    gates.close("commit")
    with Driver.backfill(mine, *on(flink)) as driver:
        old = gates.wait("commit")[0]
        for one in flink.task_managers:
            one.send_signal(signal.SIGSTOP)
        driver.process.kill()
        driver.process.wait()
    try:
        cancel(flink, str(last_job(flink)["jid"]))
        wait_until(lambda: not running_jobs(flink), "the job is given up")
        assert_well(work, mine, mine.backfill(*_SHARDS), reused=len(_MARKETS) * _HOURS)
        shutil.copytree(mine.out, mine.folder / "before")
        gates.open()
        assert "another run has begun" in gates.what_came_of_commits(old)
        assert files_below(mine.out) == files_below(mine.folder / "before")
    finally:
        for one in flink.task_managers:
            if one.poll() is None:
                one.send_signal(signal.SIGCONT)


def cancel(cluster: FlinkCluster, job: str) -> None:
    from candlebeam.cluster.flink_master import FlinkMaster

    FlinkMaster(cluster.master).cancel(job)


def files_below(folder: Path) -> dict[Path, bytes]:
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
