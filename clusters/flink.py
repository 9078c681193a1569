"""A standalone Flink cluster on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clusters import jars
from clusters.cluster import Cluster
from clusters.errors import ClusterError
from clusters.flink_settings import (
    JAVA_OPENS,
    JOB_MANAGER_HEAP,
    LOGGING,
    TASK_MANAGER_SIZES,
    cluster_settings,
    task_manager_java,
)
from clusters.ports import free_ports, get_json

_JOB_MANAGER = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
_TASK_MANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
_SECONDS_TO_COME_BACK = 40


class FlinkCluster(Cluster):
    """A JobManager, TaskManagers and a worker pool, from `with` to the end of it.

    All of it listens on the loopback alone, at ports that the system chooses. A pipeline names one
    address for the workers of all TaskManagers, each of which takes that for its own machine; as
    all of them are this machine, one pool serves them all.

    Args:
        folder: where settings, logs (`logs/`) and temporary files go; it need not exist.
        task_managers: how many TaskManagers.
        slots: how many slots each of them has.
        worker_pools: whether there is a worker pool.
        java: the program that runs the JVMs.
        options: settings of Flink, beside or instead of those that are made here; with `RESTARTS`
            of `clusters.flink_settings` jobs survive the loss of workers and TaskManagers.

    Raises:
        ClusterError: something did not start; the message has the last lines of its log.
    """

    def __init__(
        self,
        folder: Path,
        *,
        task_managers: int = 2,
        slots: int = 1,
        worker_pools: bool = True,
        java: str = "java",
        options: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(folder, worker_pools)
        self.slots = task_managers * slots
        self.task_managers: list[subprocess.Popen[bytes]] = []
        self.job_manager: subprocess.Popen[bytes] | None = None
        self._count = task_managers
        self._slots_each = slots
        self._java = java
        self._options = dict(options or {})
        self._rest_port, self._rpc_port = 0, 0

    @property
    def master(self) -> str:
        """`localhost:PORT` of the JobManager, as `--flink_master` wants it."""
        return f"localhost:{self._rest_port}"

    def start_job_manager(self) -> None:
        """Starts the JobManager, at the ports it had before; it answers when this returns."""
        self.job_manager = self._start_jvm(
            "jobmanager", [f"-Xmx{JOB_MANAGER_HEAP}", f"-Xms{JOB_MANAGER_HEAP}"], _JOB_MANAGER, {}
        )
        self._processes.wait_until(self._answers, "the JobManager answered", self.job_manager)

    def kill_job_manager(self) -> None:
        """Ends the JobManager with SIGKILL. TaskManagers look for it until it is started again."""
        self._processes.kill(self._running_job_manager())
        self.job_manager = None

    def pause_job_manager(self) -> None:
        """Stops the JobManager where it is: it takes connections, and never answers."""
        self._running_job_manager().send_signal(signal.SIGSTOP)

    def resume_job_manager(self) -> None:
        """Lets a paused JobManager go on."""
        self._running_job_manager().send_signal(signal.SIGCONT)

    def start_task_manager(self) -> int:
        """Starts one more TaskManager; it is registered when this returns.

        Returns:
            Its index in `task_managers`.
        """
        index = self._launch_task_manager()
        self._wait_for_task_managers({index})
        return index

    def kill_task_manager(self, index: int) -> None:
        """Ends a TaskManager with SIGKILL; its place in `task_managers` stays."""
        self._processes.kill(self.task_managers[index])

    def wait_for_task_managers(self) -> None:
        """Waits until every TaskManager that runs is registered: after the JobManager's restart.

        They find a JobManager that is back within seconds, but not always. One that has not is
        replaced, as whatever looks after a cluster's processes would do.
        """
        running = {index for index, one in enumerate(self.task_managers) if one.poll() is None}
        try:
            self._wait_for_task_managers(running, seconds=_SECONDS_TO_COME_BACK)
        except ClusterError:
            registered = self.registered_task_managers()
            lost = [index for index in running if f"taskmanager-{index}" not in registered]
            for index in lost:
                self.kill_task_manager(index)
            self._wait_for_task_managers({self._launch_task_manager() for _ in lost})

    def registered_task_managers(self) -> list[str]:
        """The names (`taskmanager-0`, ...) of those that the JobManager knows, sorted."""
        return sorted(row["id"] for row in self.rest("/taskmanagers")["taskmanagers"])

    def rest(self, path: str, *, timeout: float = 10) -> dict[str, Any]:
        """What the JobManager answers to a GET, as `rest("/jobs/overview")`.

        Raises:
            OSError: it does not answer, or with an error.
        """
        return get_json(f"http://{self.master}{path}", timeout)

    def _start(self) -> None:
        classpath = os.pathsep.join(map(str, jars.flink_libraries()))
        self._base = [self._java, *JAVA_OPENS, "-cp", classpath, "-XX:-UsePerfData"]
        self._base += [f"-Djava.io.tmpdir={self.folder / 'tmp'}"]
        self._base += [f"-Dlog4j.configurationFile={self.folder / 'conf' / 'log4j.properties'}"]
        for name in ("conf", "tmp", "uploads"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._with_free_ports(self._start_somewhere)
        self._processes.uses(self._rest_port, self._rpc_port)
        self._wait_for_task_managers({self._launch_task_manager() for _ in range(self._count)})

    def _start_somewhere(self) -> None:
        self._write_settings()
        self.start_job_manager()

    def _write_settings(self) -> None:
        self._rest_port, self._rpc_port = free_ports(2)
        settings = {
            **cluster_settings(self.folder, self._rest_port, self._rpc_port, self._slots_each),
            **self._options,
        }
        lines = [f"{key}: {json.dumps(value)}\n" for key, value in settings.items()]
        (self.folder / "conf" / "config.yaml").write_text("".join(lines))
        (self.folder / "conf" / "log4j.properties").write_text(LOGGING)

    def _launch_task_manager(self) -> int:
        index = len(self.task_managers)
        sizes = {**TASK_MANAGER_SIZES, "taskmanager.cpu.cores": f"{self._slots_each}.0"}
        sizes |= {key: self._options[key] for key in sizes.keys() & self._options.keys()}
        name = f"taskmanager-{index}"
        process = self._start_jvm(
            name,
            task_manager_java(sizes),
            _TASK_MANAGER,
            {**sizes, "taskmanager.resource-id": name},
        )
        self.task_managers.append(process)
        return index

    def _start_jvm(
        self, name: str, java_options: list[str], entry: str, settings: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        given = [word for key, value in settings.items() for word in ("-D", f"{key}={value}")]
        conf = ["--configDir", str(self.folder / "conf")]
        return self._processes.start(name, [*self._base, *java_options, entry, *conf, *given])

    def _wait_for_task_managers(self, indices: set[int], *, seconds: float = 90) -> None:
        names = {f"taskmanager-{index}" for index in indices}
        self._processes.wait_until(
            lambda: names <= set(self.registered_task_managers()),
            "the TaskManagers were registered",
            self._running_job_manager(),
            *(self.task_managers[index] for index in indices),
            seconds=seconds,
        )

    def _answers(self) -> bool:
        try:
            self.rest("/overview", timeout=2)
        except OSError:
            return False
        return True

    def _running_job_manager(self) -> subprocess.Popen[bytes]:
        if self.job_manager is None:
            raise ClusterError("the JobManager does not run")
        return self.job_manager
