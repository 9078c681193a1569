"""Flink and Spark for tests: real ones, on this machine, or a reason why there are none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

from clusters import jars
from clusters.flink import FlinkCluster
from clusters.spark import SparkCluster
from tests.command_line import PROJECT

CONFIGS = PROJECT / "runner_configs"
#: What starts one worker, for a pipeline whose workers are processes of a TaskManager.
BOOT = f"{sys.executable} -m candlebeam.worker.boot"
#: Set by who does not accept that these tests are skipped.
REQUIRED = "CANDLEBEAM_CLUSTERS"


@lru_cache
def why_not() -> str:
    """Why no cluster can be started here; "" where it can."""
    for program, option in (("java", "-version"), ("mvn", "-version")):
        if not shutil.which(program):
            return f"tests with real clusters need Java and Maven: found no {program}"
        done = subprocess.run([program, option], capture_output=True, check=False)
        if done.returncode:
            return f"tests with real clusters need Java and Maven: {program} does not run"
    return ""


def need_clusters() -> None:
    """Skips the test where there is no Java; fails it where that was forbidden."""
    reason = why_not()
    if reason and os.environ.get(REQUIRED) == "required":
        pytest.fail(f"{reason}, and {REQUIRED}=required forbids to skip them")
    if reason:
        pytest.skip(reason)


def embedded_flink() -> list[object]:
    """Options that run a pipeline on Flink inside its job server."""
    return [
        *("--runner-config", CONFIGS / "flink-embedded.yaml"),
        f"--flink_job_server_jar={jars.flink_job_server()}",
    ]


def embedded_stream() -> list[object]:
    """Options that run a stream on Flink inside its job server."""
    return [
        *("--runner-config", CONFIGS / "flink-stream.yaml"),
        f"--flink_job_server_jar={jars.flink_job_server()}",
    ]


def stream_on_flink(cluster: FlinkCluster) -> list[object]:
    """Options that submit a stream to a cluster."""
    return [
        *embedded_stream(),
        f"--flink_master={cluster.master}",
        "--environment_type=EXTERNAL",
        f"--environment_config={cluster.pool}",
    ]


def on_flink(cluster: FlinkCluster) -> list[object]:
    """Options that submit a pipeline to a cluster."""
    return [
        *("--runner-config", CONFIGS / "flink-cluster.yaml"),
        f"--flink_master={cluster.master}",
        f"--environment_config={cluster.pool}",
        f"--flink_job_server_jar={jars.flink_job_server()}",
    ]


def local_spark() -> list[object]:
    """Options that run a pipeline on Spark inside its job server."""
    return [
        *("--runner-config", CONFIGS / "spark-local.yaml"),
        f"--spark_job_server_jar={jars.spark_job_server()}",
    ]


def on_spark(cluster: SparkCluster) -> list[object]:
    """Options that submit a pipeline to a cluster."""
    return [
        *("--runner-config", CONFIGS / "spark-cluster.yaml"),
        f"--spark_master_url={cluster.master}",
        f"--environment_config={cluster.pool}",
        f"--spark_job_server_jar={jars.spark_job_server()}",
    ]


def flink_cluster(folder: Path) -> Iterator[FlinkCluster]:
    """Two TaskManagers of two slots; nothing of it is left at the end."""
    need_clusters()
    with FlinkCluster(folder, task_managers=2, slots=2) as cluster:
        yield cluster
    cluster.assert_nothing_left()


def spark_cluster(folder: Path) -> Iterator[SparkCluster]:
    """Two workers of two cores; nothing of it is left at the end."""
    need_clusters()
    with SparkCluster(folder, workers=2, cores=2) as cluster:
        yield cluster
    cluster.assert_nothing_left()
