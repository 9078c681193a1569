"""A standalone Spark cluster on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from clusters import jars
from clusters.cluster import Cluster
from clusters.errors import ClusterError
from clusters.ports import free_ports, get_json

_MASTER = "org.apache.spark.deploy.master.Master"
_WORKER = "org.apache.spark.deploy.worker.Worker"
_HEAP = "512m"
# What Spark 3.5 opens to itself where it starts its own JVMs.
_OPENED = (
    "java.base/java.lang",
    "java.base/java.lang.invoke",
    "java.base/java.lang.reflect",
    "java.base/java.io",
    "java.base/java.net",
    "java.base/java.nio",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/sun.nio.ch",
    "java.base/sun.nio.cs",
    "java.base/sun.security.action",
    "java.base/sun.util.calendar",
)


class SparkCluster(Cluster):
    """A Master, Workers and a worker pool, from `with` to the end of it.

    Spark's Workers start an executor each for every job; what runs Python is the worker pool, one
    for all of them, as they are all on this machine. All of it listens on the loopback alone, at
    ports that the system chooses. The job server that submits is Spark's driver, which executors
    connect to: it has to be told to stay on the loopback as well (`driver_environment`).

    Args:
        folder: where logs (`logs/`, executors' too) and temporary files go; it need not exist.
        workers: how many Workers of Spark.
        cores: how many cores each of them offers.
        memory: how much memory each of them offers, as Spark writes it; an executor takes 1 GB of
            it where nothing else is said.
        worker_pools: whether there is a worker pool.
        java: the program that runs the JVMs.

    Raises:
        ClusterError: something did not start; the message has the last lines of its log.
    """

    #: What the environment of a job server needs for executors of this machine to find it.
    driver_environment: ClassVar[Mapping[str, str]] = {
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_LOCAL_HOSTNAME": "localhost",
    }

    def __init__(
        self,
        folder: Path,
        *,
        workers: int = 1,
        cores: int = 2,
        memory: str = "2g",
        worker_pools: bool = True,
        java: str = "java",
    ) -> None:
        super().__init__(folder, worker_pools)
        self.slots = workers * cores
        self.workers: list[subprocess.Popen[bytes]] = []
        self.master_process: subprocess.Popen[bytes] | None = None
        self._count = workers
        self._cores = cores
        self._memory = memory
        self._java = java
        self._port, self._page_port = 0, 0

    @property
    def master(self) -> str:
        """`spark://localhost:PORT`, as `--spark_master_url` wants it."""
        return f"spark://localhost:{self._port}"

    @property
    def page(self) -> str:
        """The address of the Master's web page."""
        return f"http://localhost:{self._page_port}"

    def pause_master(self) -> None:
        """Stops the Master where it is: it takes connections, and never answers."""
        self._running_master().send_signal(signal.SIGSTOP)

    def resume_master(self) -> None:
        """Lets a paused Master go on."""
        self._running_master().send_signal(signal.SIGCONT)

    def kill_master(self) -> None:
        """Ends the Master with SIGKILL."""
        self._processes.kill(self._running_master())
        self.master_process = None

    def kill_worker(self, index: int) -> None:
        """Ends a Worker of Spark with SIGKILL; its place in `workers` stays."""
        self._processes.kill(self.workers[index])

    def start_worker(self) -> int:
        """Starts one more Worker of Spark; it is registered when this returns.

        Returns:
            Its index in `workers`.
        """
        before = self.alive_workers()
        index = self._launch_worker()
        self._wait_for_workers(before + 1, index)
        return index

    def alive_workers(self) -> int:
        """How many Workers the Master says it has."""
        rows = get_json(f"{self.page}/json/", 10)["workers"]
        return sum(row["state"] == "ALIVE" for row in rows)

    def _start(self) -> None:
        home = self.folder / "home"
        for folder in (home, self.folder / "tmp"):
            folder.mkdir(parents=True, exist_ok=True)
        if not (home / "jars").is_symlink():
            (home / "jars").symlink_to(jars.spark_libraries()[0].parent)
        self._with_free_ports(self._start_master)
        self._processes.uses(self._port, self._page_port)
        indices = [self._launch_worker() for _ in range(self._count)]
        self._wait_for_workers(self._count, *indices)

    def _start_master(self) -> None:
        self._port, self._page_port = free_ports(2)
        where = ["--host", "localhost", "--port", str(self._port)]
        page = ["--webui-port", str(self._page_port)]
        self.master_process = self._start_jvm("master", [_MASTER, *where, *page])
        self._processes.wait_until(self._answers, "the Master answered", self.master_process)

    def _launch_worker(self) -> int:
        index = len(self.workers)
        offer = ["--cores", str(self._cores), "--memory", self._memory]
        where = ["--host", "localhost", "--webui-port", "0"]
        work = ["--work-dir", str(self.folder / "logs" / f"worker-{index}")]
        command = [_WORKER, self.master, *offer, *where, *work]
        self.workers.append(self._start_jvm(f"worker-{index}", command))
        return index

    def _start_jvm(self, name: str, entry: list[str]) -> subprocess.Popen[bytes]:
        home, temporary = self.folder / "home", self.folder / "tmp"
        command = [
            self._java,
            *(f"--add-opens={opened}=ALL-UNNAMED" for opened in _OPENED),
            f"-Xmx{_HEAP}",
            "-XX:-UsePerfData",
            f"-Djava.io.tmpdir={temporary}",
            # Ports of the loopback are all it has; a taken one must not become the next.
            "-Dspark.port.maxRetries=0",
            "-cp",
            os.path.join(home, "jars", "*"),
            *entry,
        ]
        env = {"SPARK_HOME": str(home), "SPARK_SCALA_VERSION": "2.12"}
        env["SPARK_LOCAL_DIRS"] = str(temporary)
        return self._processes.start(name, command, env={**env, **self.driver_environment})

    def _wait_for_workers(self, count: int, *indices: int) -> None:
        self._processes.wait_until(
            lambda: self.alive_workers() >= count,
            "the Workers were registered",
            self._running_master(),
            *(self.workers[index] for index in indices),
        )

    def _answers(self) -> bool:
        try:
            self.alive_workers()
        except OSError:
            return False
        return True

    def _running_master(self) -> subprocess.Popen[bytes]:
        if self.master_process is None:
            raise ClusterError("the Master does not run")
        return self.master_process
