"""Holds a cluster open, to try it: `python -m clusters flink` or `python -m clusters spark`."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import threading
from pathlib import Path

from clusters import jars
from clusters.cluster import Cluster
from clusters.errors import ClusterError
from clusters.flink import FlinkCluster
from clusters.spark import SparkCluster


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m clusters",
        description="Start a standalone cluster on this machine, and stop it on Ctrl-C. What it is "
        "made of is got through Maven the first time.",
    )
    parser.add_argument("engine", choices=["flink", "spark"])
    parser.add_argument(
        "--machines",
        type=_count,
        default=2,
        metavar="N",
        help="TaskManagers of Flink, or Workers of Spark [default: 2]",
    )
    parser.add_argument(
        "--slots",
        type=_count,
        default=1,
        metavar="N",
        help="slots of each TaskManager, or cores of each Worker [default: 1]",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        help="where settings and logs go, to be kept [default: one that is removed in the end]",
    )
    given = parser.parse_args()
    asked_to_end = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked_to_end.set())
    try:
        with tempfile.TemporaryDirectory(prefix="candlebeam-cluster-") as temporary:
            _hold(given, given.folder or Path(temporary), asked_to_end)
    except ClusterError as error:
        print(f"clusters: {error}", file=sys.stderr)
        return 1
    return 0


def _hold(given: argparse.Namespace, folder: Path, asked_to_end: threading.Event) -> None:
    if given.engine == "flink":
        jar, version = jars.flink_job_server(), jars.flink_version()
        with FlinkCluster(folder, task_managers=given.machines, slots=given.slots) as flink:
            options = ["--runner=FlinkRunner", f"--flink_master={flink.master}"]
            options += [f"--flink_version={version.rpartition('.')[0]}"]
            options += [f"--parallelism={flink.slots}", f"--flink_job_server_jar={jar}"]
            print(f"Flink {version}, its page at http://{flink.master}")
            _wait(flink, options, asked_to_end)
    else:
        jar, version = jars.spark_job_server(), jars.spark_version()
        with SparkCluster(folder, workers=given.machines, cores=given.slots) as spark:
            options = ["--runner=SparkRunner", f"--spark_master_url={spark.master}"]
            options += [f"--spark_job_server_jar={jar}"]
            print(f"Spark {version}, its page at {spark.page}")
            _wait(spark, options, asked_to_end)


def _wait(cluster: Cluster, options: list[str], asked_to_end: threading.Event) -> None:
    options += ["--environment_type=EXTERNAL", f"--environment_config={cluster.pool}"]
    print(f"logs in {cluster.folder / 'logs'}")
    print("candlebeam backfill --db ... --out ... \\\n  " + " \\\n  ".join(options))
    print("Ctrl-C stops it", flush=True)
    asked_to_end.wait()


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
