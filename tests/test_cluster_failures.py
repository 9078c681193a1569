"""What keeps a run from a cluster is told in one line within seconds, and nothing is left of it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random

import pytest

from clusters import jars
from clusters.flink import FlinkCluster
from clusters.ports import free_ports
from clusters.process_table import descendants, marked
from tests import engines
from tests.archives import make_archive
from tests.command_line import Outcome, Workspace, contents, leftovers
from tests.drivers import Driver
from tests.fake_programs import shell_program
from tests.gates import Gates
from tests.test_cluster_faults import assert_error
from tests.worker_pools import wait_until

pytestmark = pytest.mark.cluster(minutes=3)
_MARK = "CANDLEBEAM_TEST_OF_FAILURES"
#: Far more than any of these takes, and less than what runners wait for by themselves.
_SECONDS = 240


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """An archive that is indexed and was made in process."""
    engines.need_clusters()
    found = Workspace(tmp_path_factory.mktemp("archive"))
    make_archive(Random(4), listings=2, files=2, rows=5).write(found.archive)
    found.index().expect()
    found.backfill()
    return found


@pytest.fixture(scope="module")
def flink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlinkCluster]:
    """One TaskManager."""
    engines.need_clusters()
    with FlinkCluster(tmp_path_factory.mktemp("flink"), task_managers=1, slots=2) as cluster:
        yield cluster
    cluster.assert_nothing_left()


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlinkCluster]:
    """A JobManager alone."""
    engines.need_clusters()
    folder = tmp_path_factory.mktemp("empty")
    with FlinkCluster(folder, task_managers=0, worker_pools=False) as cluster:
        yield cluster
    cluster.assert_nothing_left()


@pytest.fixture
def failing(work: Workspace, tmp_path: Path) -> Failing:
    return Failing(work, tmp_path)


class Failing:
    """Runs backfills that have to fail."""

    def __init__(self, work: Workspace, folder: Path) -> None:
        self.mine = Workspace(folder / "mine")
        self.mine.folder.mkdir()
        shutil.copy(work.db, self.mine.db)
        self._reference = work
        self._temporary = folder / "tmp"
        self._temporary.mkdir()
        self._value = uuid.uuid4().hex

    def driver(self, *options: object, env: Mapping[str, str] | None = None) -> Driver:
        mine = {"TMPDIR": str(self._temporary), _MARK: self._value, "JAVA_HOME": ""}
        return Driver.backfill(self.mine, *options, env={**mine, **(env or {})})

    def check(self, outcome: Outcome, pattern: str, code: int = 1) -> None:
        """It told the error in one line, and left nothing behind."""
        assert_error(outcome, pattern, code)
        # What was killed with the driver may need a moment to be gone.
        wait_until(lambda: not marked(f"{_MARK}={self._value}", ()), "its processes are gone")
        assert sorted(self._temporary.rglob("*")) == []
        if self.mine.out.exists():
            assert not contents(self.mine.out)
            expected = self._reference.backfill("--out", self.mine.out)
            assert contents(self.mine.out) == contents(self._reference.out), expected.output
            assert leftovers(self.mine.out) == []

    def fails(
        self,
        *options: object,
        told: str,
        code: int = 1,
        env: Mapping[str, str] | None = None,
    ) -> None:
        with self.driver(*options, env=env) as driver:
            self.check(driver.wait(_SECONDS), told, code)


def only_java(folder: Path) -> str:
    """A PATH with Java and nothing else."""
    folder.mkdir()
    java = shutil.which("java")
    assert java
    (folder / "java").symlink_to(java)
    return str(folder)


def test_no_java(failing: Failing, tmp_path: Path) -> None:
    failing.fails(
        *engines.embedded_flink(),
        env={"PATH": str(tmp_path)},
        told="found no Java: JAVA_HOME is not set and there is no java on PATH",
    )


def test_java_that_is_too_old(failing: Failing, tmp_path: Path) -> None:
    java = shell_program(tmp_path / "old" / "bin" / "java", "echo 'java version \"1.8.0_402\"' >&2")
    failing.fails(
        *engines.embedded_flink(),
        env={"JAVA_HOME": str(tmp_path / "old")},
        told=f"{re.escape(str(java))} is Java 8; Flink and Spark need Java 11 or newer",
    )


def test_wrong_java_home(failing: Failing, tmp_path: Path) -> None:
    failing.fails(
        *engines.local_spark(),
        env={"JAVA_HOME": str(tmp_path)},
        told=f"JAVA_HOME is {re.escape(str(tmp_path))}, but there is no ",
    )


def test_java_without_memory(failing: Failing) -> None:
    failing.fails(
        *engines.embedded_flink(),
        "--job_server_jvm_properties=-Xmx20m",
        told=".*(OutOfMemoryError|Java ran out of memory)",
    )


def test_jar_that_is_not_there(failing: Failing, tmp_path: Path) -> None:
    path = tmp_path / "none.jar"
    failing.fails(
        *engines.embedded_flink()[:-1],
        f"--flink_job_server_jar={path}",
        told=f"--flink_job_server_jar: {re.escape(str(path))} is not there",
    )


def test_jar_that_is_none(failing: Failing, tmp_path: Path) -> None:
    path = tmp_path / "text.jar"
    path.write_text("text")
    failing.fails(
        *engines.local_spark()[:-1],
        f"--spark_job_server_jar={path}",
        told=f"--spark_job_server_jar: {re.escape(str(path))} is no whole jar",
    )


def test_no_jar_and_none_to_be_had(failing: Failing, tmp_path: Path) -> None:
    (closed,) = free_ports(1)
    proxy = f"http://localhost:{closed}"
    failing.fails(
        *engines.embedded_flink()[:-1],
        f"--jar_cache_dir={tmp_path / 'cache'}",
        env={
            "PATH": only_java(tmp_path / "bin"),
            **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), proxy),
        },
        told=".*beam-runners-flink-1.19-job-server.*--flink_job_server_jar",
    )


def test_no_flink_master(failing: Failing) -> None:
    (closed,) = free_ports(1)
    failing.fails(
        *("--runner-config", engines.CONFIGS / "flink-cluster.yaml"),
        f"--flink_master=localhost:{closed}",
        told=f"no Flink master answers at http://localhost:{closed}: connection refused",
    )


def test_no_spark_master(failing: Failing) -> None:
    (closed,) = free_ports(1)
    failing.fails(
        *("--runner-config", engines.CONFIGS / "spark-cluster.yaml"),
        f"--spark_master_url=spark://localhost:{closed}",
        told=f"no Spark master answers at spark://localhost:{closed}",
    )


@contextlib.contextmanager
def web_page() -> Iterator[int]:
    """The port of a server that has pages, and is no Flink."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("localhost", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def test_something_else_than_flink(failing: Failing) -> None:
    with web_page() as port:
        failing.fails(
            *("--runner-config", engines.CONFIGS / "flink-cluster.yaml"),
            f"--flink_master=localhost:{port}",
            told=f"what answers at http://localhost:{port} is no Flink master",
        )


def test_cluster_of_another_version(failing: Failing, empty: FlinkCluster) -> None:
    failing.fails(
        *("--runner-config", engines.CONFIGS / "flink-cluster.yaml"),
        *(f"--flink_master={empty.master}", "--flink_version=1.20"),
        f"--flink_job_server_jar={jars.flink_job_server()}",
        told=f".*{empty.master} runs Flink 1.19.*, the job server is for 1.20: use --flink_version",
    )


def test_cluster_without_task_managers(failing: Failing, empty: FlinkCluster) -> None:
    failing.fails(
        *("--runner-config", engines.CONFIGS / "flink-cluster.yaml"),
        f"--flink_master={empty.master}",
        told=f".*{empty.master} has no TaskManager",
    )


def test_master_that_never_answers(failing: Failing, empty: FlinkCluster) -> None:
    empty.pause_job_manager()
    try:
        failing.fails(
            *("--runner-config", engines.CONFIGS / "flink-cluster.yaml"),
            f"--flink_master={empty.master}",
            told=f"no Flink master answers at http://{empty.master}: no answer within 5 s",
        )
    finally:
        empty.resume_job_manager()


@pytest.mark.parametrize("options", [[], ["embedded"]])
def test_detach_without_a_cluster(failing: Failing, options: list[str]) -> None:
    failing.fails(
        *(engines.embedded_flink() if options else []),
        "--detach",
        code=2,
        told="--detach is for a Flink cluster",
    )


def test_unknown_option(failing: Failing) -> None:
    failing.fails(
        *engines.embedded_flink(),
        "--nonsense=1",
        code=2,
        told="--nonsense=1 is no option of Candlebeam, Beam or the runner",
    )


def test_no_worker_pool(failing: Failing, flink: FlinkCluster) -> None:
    (closed,) = free_ports(1)
    failing.fails(
        *engines.on_flink(flink),
        f"--environment_config=localhost:{closed}",
        told=f".*no worker pool answers at localhost:{closed}",
    )


@contextlib.contextmanager
def bare_pool(folder: Path, package: Mapping[str, str]) -> Iterator[str]:
    """The address of a worker pool of Beam's own.

    Args:
        package: what its workers find as `candlebeam`: files by name.
    """
    for name, text in package.items():
        path = folder / "candlebeam" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (port,) = free_ports(1)
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with (folder / "pool.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main"),
                f"--service_port={port}",
            ],
            env={**os.environ, "PATH": programs, "PYTHONPATH": str(folder)},
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_until(lambda: _listens(port), "the pool listens")
        yield f"localhost:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("localhost", port), 1):
        return True
    return False


_WITHOUT = {
    "__init__.py": "raise ModuleNotFoundError(\"No module named 'candlebeam'\", name='candlebeam')"
}
_OTHER = {"__init__.py": "", "version.py": "__version__ = '0.0.1'\n"}


@pytest.fixture
def where(request: pytest.FixtureRequest) -> list[object]:
    """Options of a runner with workers that are not ours."""
    if request.param == "cluster":
        return engines.on_flink(request.getfixturevalue("flink"))
    found = engines.local_spark() if request.param == "spark" else engines.embedded_flink()
    return [*found, "--environment_type=EXTERNAL"]


@pytest.mark.parametrize("where", ["cluster", "embedded", "spark"], indirect=True)
def test_workers_without_the_package(failing: Failing, where: list[object], tmp_path: Path) -> None:
    with bare_pool(tmp_path / "pool", _WITHOUT) as pool:
        failing.fails(
            *where,
            f"--environment_config={pool}",
            told=".*a worker has no package candlebeam: install candlebeam ",
        )


@pytest.mark.parametrize("where", ["cluster"], indirect=True)
def test_workers_of_another_version(failing: Failing, where: list[object], tmp_path: Path) -> None:
    with bare_pool(tmp_path / "pool", _OTHER) as pool:
        failing.fails(
            *where,
            f"--environment_config={pool}",
            told=r".*a worker has candlebeam 0\.0\.1, the driver .*: install the same on both",
        )


def test_job_server_that_dies(failing: Failing, tmp_path: Path) -> None:
    (tmp_path / "gates").mkdir()
    gates = Gates(tmp_path / "gates")
    gates.close("chunks")
    with failing.driver(*engines.embedded_flink(), env=gates.environment) as driver:
        gates.wait("chunks")
        (java,) = (pid for pid in descendants(driver.process.pid) if _is_java(pid))
        os.kill(java, signal.SIGKILL)
        failing.check(driver.wait(_SECONDS), "the job server has ended")


def _is_java(pid: int) -> bool:
    done = subprocess.run(
        ["ps", "-o", "comm=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return done.stdout.strip().endswith("java")
