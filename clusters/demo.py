"""A backfill on a real Flink cluster of this machine, started for it and stopped in the end.

    python -m clusters.demo

One JobManager, two TaskManagers and a worker pool; the archive is the sample in examples/. What it
makes is in build/cluster-demo.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from clusters import jars
from clusters.errors import ClusterError
from clusters.flink import FlinkCluster

_PROJECT = Path(__file__).resolve().parent.parent
_FOLDER = Path("build", "cluster-demo")
_SHOWN = ("RAM/BINANCE/btcusdt.bin", "PI/KRAKEN/XBT-USDT.bin")


def main() -> int:
    """Runs the demo; the exit code is that of the command that failed, if one did."""
    # What ends this program ends the cluster first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    os.chdir(_PROJECT)
    shutil.rmtree(_FOLDER, ignore_errors=True)
    _FOLDER.mkdir(parents=True)
    try:
        return _demo()
    except subprocess.CalledProcessError as error:
        print(f"clusters.demo: it ended with code {error.returncode}", file=sys.stderr)
        return int(error.returncode)
    except ClusterError as error:
        print(f"clusters.demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("clusters.demo: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def _demo() -> int:
    print("Getting Flink and Beam's job server for it: minutes the first time", flush=True)
    job_server = jars.flink_job_server()
    cluster = FlinkCluster(_FOLDER / "flink", task_managers=2)
    try:
        with cluster:
            print(f"Flink {jars.flink_version()} is at http://{cluster.master}: one JobManager,")
            print(f"two TaskManagers with one slot each, and a worker pool at {cluster.pool}")
            _backfill(cluster, job_server)
    finally:
        cluster.assert_nothing_left()
    print("\nThe cluster is stopped.")
    return 0


def _backfill(cluster: FlinkCluster, job_server: Path) -> None:
    index, candles = _FOLDER / "index.sqlite", _FOLDER / "candles"
    _candlebeam("index", "examples/archive", "--db", index)
    _candlebeam(
        *("backfill", "--db", index, "--out", candles),
        *("--runner-config", "runner_configs/flink-cluster.yaml"),
        f"--flink_master={cluster.master}",
        f"--environment_config={cluster.pool}",
        f"--flink_job_server_jar={job_server}",
    )
    for name in _SHOWN:
        _candlebeam("show", candles / name, "--head", "10")


def _candlebeam(*arguments: object) -> None:
    words = [str(word) for word in arguments]
    print(f"\n$ candlebeam {shlex.join(words)}", flush=True)
    command = [sys.executable, "-m", "candlebeam", *words]
    process = subprocess.Popen(command)
    try:
        code = process.wait()
    except BaseException:
        # It got the terminal's Ctrl-C as well, and ends by itself; nobody sends it a SIGTERM.
        process.terminate()
        process.wait()
        raise
    if code != 0:
        raise subprocess.CalledProcessError(code, command)


if __name__ == "__main__":
    sys.exit(main())
