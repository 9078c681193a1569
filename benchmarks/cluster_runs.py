"""Backfills on Flink as they are timed: what is run, and what of a cluster's work is seen."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.benches import candlebeam
from benchmarks.measure import CommandFailed, busy_seconds, children, timed_environment
from benchmarks.process_watch import ProcessWatch, Usage, tree
from clusters import jars
from clusters.flink import FlinkCluster

CONFIGS = Path(__file__).resolve().parent.parent / "runner_configs"

PLAIN = "in process"
DIRECT = "in process, direct.yaml"
EMBEDDED = "embedded Flink, parallelism 2"
ONE_SLOT = "standalone Flink, 1 slot"
TWO_APART = "standalone Flink, 2 slots of two TaskManagers"
TWO_TOGETHER = "standalone Flink, 2 slots of one TaskManager"

DRIVER, JOB_SERVER = "driver", "job server"
JOB_MANAGER, TASK_MANAGER = "JobManager", "TaskManager"
POOL, WORKER = "worker pool", "worker"
KINDS = (DRIVER, JOB_SERVER, JOB_MANAGER, TASK_MANAGER, POOL, WORKER)


@dataclass(frozen=True)
class JobTimes:
    """Seconds from the start of the command until something of a job had happened.

    Attributes:
        submitted: the JobManager had the job.
        workers: the first step, and with it a worker, was through.
        staged: all chunks were there.
        committed: the job had ended.
    """

    submitted: float
    workers: float
    staged: float
    committed: float


@dataclass(frozen=True)
class ClusterRun:
    """One run of a backfill.

    Attributes:
        wall: seconds from start to end of the command.
        cpu: seconds of processor time of everything that worked for it.
        others: the share of the cores' time that other programs took meanwhile, 0 to 1.
        usage: by kind of process.
        job: how the job went; None without a cluster.
    """

    wall: float
    cpu: float
    others: float
    usage: Mapping[str, Usage] = field(default_factory=dict)
    job: JobTimes | None = None


@dataclass(frozen=True)
class Way:
    """A way to run the same backfill.

    Attributes:
        options: of the command.
        cluster: where it runs.
    """

    name: str
    options: tuple[str, ...] = ()
    cluster: FlinkCluster | None = None


def local_ways() -> list[Way]:
    """In process, and Flink beside it."""
    return [
        Way(PLAIN),
        Way(DIRECT, ("--runner-config", str(CONFIGS / "direct.yaml"))),
        Way(
            EMBEDDED,
            (
                *("--runner-config", str(CONFIGS / "flink-embedded.yaml")),
                f"--flink_job_server_jar={jars.flink_job_server()}",
                "--parallelism=2",
            ),
        ),
    ]


def cluster_ways(apart: FlinkCluster, together: FlinkCluster) -> list[Way]:
    """On clusters of two TaskManagers with a slot each, and of one with two slots."""
    return [
        _on(ONE_SLOT, apart, parallelism=1, workers=1),
        _on(TWO_APART, apart, parallelism=2, workers=1),
        _on(TWO_TOGETHER, together, parallelism=2, workers=2),
    ]


def _on(name: str, cluster: FlinkCluster, *, parallelism: int, workers: int) -> Way:
    options = (
        *("--runner-config", str(CONFIGS / "flink-cluster.yaml")),
        f"--flink_master={cluster.master}",
        f"--environment_config={cluster.pool}",
        f"--flink_job_server_jar={jars.flink_job_server()}",
        f"--parallelism={parallelism}",
        f"--sdk_worker_parallelism={workers}",
    )
    return Way(name, options, cluster)


def run_backfill(way: Way, database: Path, out: Path, *more: str) -> ClusterRun:
    """Runs a backfill into an output of its own.

    Raises:
        CommandFailed: it did not end with 0; the message has the end of what it wrote.
    """
    shutil.rmtree(out, ignore_errors=True)
    command = candlebeam("backfill", "--db", database, "--out", out, *way.options, *more)
    os.sync()  # What an earlier run left to be written is not this one's burden.
    with tempfile.TemporaryFile() as output:
        busy, clock, started = busy_seconds(), time.time(), time.perf_counter()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=timed_environment(),
        )
        watch = ProcessWatch(_kinds_of(process.pid, way.cluster))
        watch.start()
        try:
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        wall = time.perf_counter() - started
        busy = busy_seconds() - busy
        usage = watch.stop()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            tail = output.read()[-2_000:].decode(errors="replace").strip()
            ended = f"ended with {process.returncode}"
            raise CommandFailed(f"{shlex.join(command)} {ended}:\n{tail}")
    driver = usage.get(DRIVER, Usage())
    if JOB_SERVER not in usage:
        # What the system says of a process and its children is exact; looking at them is not.
        usage[DRIVER] = replace(driver, cpu=used.ru_utime + used.ru_stime)
    cpu = sum(one.cpu for one in usage.values())
    available = wall * len(os.sched_getaffinity(0))
    job = _job_times(way.cluster, clock) if way.cluster is not None else None
    return ClusterRun(wall, cpu, max(busy - cpu, 0.0) / available, usage, job)


def _kinds_of(driver: int, cluster: FlinkCluster | None) -> Callable[[], Mapping[int, str]]:
    fixed: dict[int, str] = {}
    pools: list[int] = []
    if cluster is not None:
        pools = _worker_pools(cluster)
        if cluster.job_manager is not None:
            fixed[cluster.job_manager.pid] = JOB_MANAGER
        fixed |= {process.pid: TASK_MANAGER for process in cluster.task_managers}

    def kinds() -> dict[int, str]:
        found = dict(fixed)
        for pid in tree(driver):
            found[pid] = JOB_SERVER if _read(pid, "comm") == "java" else DRIVER
        for pool in pools:
            found |= dict.fromkeys(tree(pool), WORKER)
            found[pool] = POOL
        return found

    return kinds


def _worker_pools(cluster: FlinkCluster) -> list[int]:
    """The process ids of a cluster's worker pools: children of this process."""
    logs = str(cluster.folder / "logs")
    return [pid for pid in children(os.getpid()) if logs in _read(pid, "cmdline").split("\0")]


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text().strip()
    except OSError:
        return ""


def _job_times(cluster: FlinkCluster, since: float) -> JobTimes:
    """How the latest job went; it has ended, but the JobManager may not have noted all of it."""
    deadline = time.monotonic() + 10
    while True:
        jobs = cluster.rest("/jobs/overview")["jobs"]
        latest = max(jobs, key=lambda job: int(job["start-time"]))
        job = cluster.rest(f"/jobs/{latest['jid']}")
        vertices = job["vertices"]
        ends = [job["end-time"], *(vertex["end-time"] for vertex in vertices)]
        if min(ends) > 0 or time.monotonic() > deadline:
            break
        time.sleep(0.1)

    def end_of(step: str) -> float:
        (found,) = (vertex for vertex in vertices if step in vertex["name"])
        return float(found["end-time"]) / 1000 - since

    return JobTimes(
        submitted=job["start-time"] / 1000 - since,
        workers=end_of("CheckWorkers}"),
        staged=end_of("ReadTrades"),
        committed=job["end-time"] / 1000 - since,
    )


def output_digest(out: Path) -> str:
    """Stands for all candle files and companions below an output root."""
    digest = hashlib.sha256()
    for path in sorted(out.rglob("*")):
        if path.suffix in (".bin", ".json") and path.is_file():
            digest.update(f"{path.relative_to(out)} {path.stat().st_size}\0".encode())
            with path.open("rb") as file:
                while piece := file.read(1 << 20):
                    digest.update(piece)
    return digest.hexdigest()
