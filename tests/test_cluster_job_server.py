"""A job server's process: it answers or says why not, and nothing of it is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from candlebeam.cluster import job_server
from candlebeam.cluster.java import MODULE_OPTIONS, Java
from candlebeam.cluster.job_server import JobServer, reason_in_log
from candlebeam.errors import CandlebeamError
from tests.command_line import PROJECT, environment
from tests.fake_programs import python_program, shell_program
from tests.loopback import free_port, silent_server

# Writes down what it was started with, and answers as a gRPC server does.
ANSWERING = """
import json, os, signal, socket, subprocess, sys
port = int(sys.argv[sys.argv.index("--job-port") + 1])
folder = os.path.dirname(os.path.abspath(sys.argv[0]))
BEFORE
listener = socket.create_server(("localhost", port))
with open(folder + "/started.tmp", "w") as file:
    json.dump({"pid": os.getpid(), "arguments": sys.argv[1:], "session": os.getsid(0)}, file)
os.rename(folder + "/started.tmp", folder + "/started")
print("it listens", flush=True)
while True:
    connection, _ = listener.accept()
    with connection:
        connection.recv(100)
        connection.sendall(bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
"""


class Fake:
    """A Java that is a script, with what is needed to have it run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "java"
        self.log = folder / "log"

    def answers(self, before: str = "") -> Fake:
        python_program(self.path, ANSWERING.replace("BEFORE", before))
        return self

    def does(self, script: str) -> Fake:
        shell_program(self.path, script)
        return self

    def server(self, *arguments: str, **options: Any) -> JobServer:
        options = {"starting_seconds": 30, "log": str(self.log), **options}
        return JobServer(Java(str(self.path), 17), "beam.jar", arguments, **options)

    def started(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "started").read_text())
        return found


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of temporary files, which must be empty again at the end."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def fake(tmp_path: Path, temporary: Path) -> Fake:
    (tmp_path / "fake").mkdir()
    return Fake(tmp_path / "fake")


def runs(pid: int) -> bool:
    """Whether a process is there, and no zombie whose parent has not looked yet."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    done = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()[:1] not in ("", "Z")


def soon(condition: Callable[[], bool]) -> bool:
    """Whether it comes true, given some time."""
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


# It answers


def test_server_that_answers_is_alive_until_the_end(fake: Fake) -> None:
    with fake.answers().server() as server:
        assert [server.alive] == [True]
        assert server.endpoint.startswith("localhost:")
        pid = fake.started()["pid"]
        assert runs(pid)
        assert soon(lambda: server.log_text() == "it listens\n")
        assert server.log_text(4) == "ens\n"
    assert not server.alive
    assert soon(lambda: not runs(pid))
    assert fake.log.read_text() == "it listens\n"


def test_java_gets_its_options_then_the_jar_then_its_arguments(fake: Fake, temporary: Path) -> None:
    with fake.answers().server("--flink-master", "[local]", properties=["-Xmx1g"]) as server:
        arguments = fake.started()["arguments"]
    place = arguments.index("-jar")
    options, jar, rest = arguments[:place], arguments[place + 1], arguments[place + 2 :]
    assert tuple(options[: len(MODULE_OPTIONS)]) == MODULE_OPTIONS
    assert options[-1] == "-Xmx1g"
    assert any(o.startswith(f"-Djava.io.tmpdir={temporary}/") for o in options)
    assert jar == "beam.jar"
    assert rest[:2] == ["--flink-master", "[local]"]
    values = dict(zip(rest[::2], rest[1::2], strict=True))
    assert values["--artifacts-dir"].startswith(f"{temporary}/")
    assert values["--job-port"] == server.endpoint.partition(":")[2]
    assert (values["--artifact-port"], values["--expansion-port"]) == ("0", "-1")


@pytest.mark.parametrize("given", [("--artifacts-dir", "/mine"), ("--artifacts-dir=/mine",)])
def test_artifacts_folder_that_is_given_stays(fake: Fake, given: tuple[str, ...]) -> None:
    with fake.answers().server(*given):
        arguments = fake.started()["arguments"]
    assert sum(a.startswith("--artifacts-dir") for a in arguments) == 1


def test_signals_of_the_terminal_do_not_reach_it(fake: Fake) -> None:
    with fake.answers().server():
        assert fake.started()["session"] != os.getsid(0)


def test_two_servers_run_beside_each_other(tmp_path: Path, temporary: Path) -> None:
    fakes = [Fake(tmp_path / name) for name in "ab"]
    with fakes[0].answers().server() as first, fakes[1].answers().server() as second:
        assert first.endpoint != second.endpoint
        assert first.alive
        assert second.alive


def test_port_that_was_taken_meanwhile_is_left_for_another(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    with silent_server() as taken:
        ports = iter([taken, free_port()])
        monkeypatch.setattr(job_server, "_free_port", lambda: next(ports))
        with fake.answers().server() as server:
            assert server.alive
            assert server.endpoint != f"localhost:{taken}"
    assert list(ports) == []


# It does not


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 0", "exit code 0 before it answered: it printed nothing"),
        ("echo one; echo two; exit 4", "exit code 4 before it answered: two"),
        ("kill -9 $$", "exit code 137 before it answered: it printed nothing"),
        (
            "echo 'Error: Unable to access jarfile beam.jar' >&2; exit 1",
            "exit code 1 before it answered: Error: Unable to access jarfile beam.jar",
        ),
        (
            "echo 'no main manifest attribute, in beam.jar' >&2; exit 1",
            "no main manifest attribute, in beam.jar",
        ),
    ],
)
def test_server_that_ends_says_why(fake: Fake, script: str, reason: str) -> None:
    with pytest.raises(CandlebeamError) as error, fake.does(script).server():
        pass
    assert reason in str(error.value)
    assert str(error.value).startswith("the job server (beam.jar) ended with exit code ")
    assert str(error.value).endswith(f"(its log is {fake.log})")


@pytest.mark.parametrize("path", ["/no/java", "/etc/passwd"])
def test_java_that_cannot_be_run_is_told(fake: Fake, path: str) -> None:
    server = JobServer(Java(path, 17), "beam.jar", [], log=str(fake.log))
    with pytest.raises(CandlebeamError, match=f"exit code 127 .*: cannot run {path}: "), server:
        pass


def test_server_that_hangs_is_given_up(fake: Fake) -> None:
    fake.does("echo $$ > $(dirname $0)/pid; echo 'it thinks'; exec sleep 100")
    with (
        pytest.raises(CandlebeamError, match=r"did not answer within 1 s: it thinks \(its log is"),
        fake.server(starting_seconds=1),
    ):
        pass
    assert soon(lambda: not runs(int((fake.folder / "pid").read_text())))


def test_what_speaks_no_grpc_is_no_answer(fake: Fake) -> None:
    source = ANSWERING.replace("bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))", "b'HTTP/1.1 400 Bad'")
    python_program(fake.path, source.replace("BEFORE", ""))
    with (
        pytest.raises(CandlebeamError, match="did not answer within 1 s: it listens"),
        fake.server(starting_seconds=1),
    ):
        pass


def test_ports_that_are_always_taken_are_told(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    with silent_server() as taken:
        monkeypatch.setattr(job_server, "_free_port", lambda: taken)
        with (
            pytest.raises(CandlebeamError, match=rf"exit code 1 .*: another .* took port {taken}$"),
            fake.answers().server(),
        ):
            pass


def test_log_that_cannot_be_written_is_told(fake: Fake) -> None:
    log = str(fake.folder / "missing" / "log")
    with (
        pytest.raises(CandlebeamError, match=f"cannot start the job server: {log}: No such file"),
        fake.answers().server(log=log),
    ):
        pass


def test_interrupted_start_leaves_nothing(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(port: int) -> bool:
        assert soon((fake.folder / "started").exists)
        raise KeyboardInterrupt

    monkeypatch.setattr(job_server, "_speaks_grpc", interrupted)
    with pytest.raises(KeyboardInterrupt), fake.answers().server():
        pass
    assert soon(lambda: not runs(fake.started()["pid"]))


# Its end


def test_server_that_dies_is_seen(fake: Fake) -> None:
    with fake.answers().server() as server:
        os.kill(fake.started()["pid"], signal.SIGKILL)
        assert soon(lambda: not server.alive)
    assert not server.alive


def test_server_that_does_not_end_when_told_is_killed(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_server, "_PATIENCE", 0.2)
    with fake.answers("signal.signal(signal.SIGTERM, signal.SIG_IGN)").server():
        pid = fake.started()["pid"]
    assert soon(lambda: not runs(pid))


@pytest.mark.parametrize("dies", [False, True])
def test_what_it_has_started_ends_with_it(fake: Fake, dies: bool) -> None:
    child = (
        "child = subprocess.Popen(['sh', '-c', 'trap \"\" TERM; sleep 100'])\n"
        "open(folder + '/child', 'w').write(str(child.pid))"
    )
    with fake.answers(child).server() as server:
        pid = int((fake.folder / "child").read_text())
        assert runs(pid)
        if dies:
            os.kill(fake.started()["pid"], signal.SIGKILL)
            assert soon(lambda: not server.alive)
            assert soon(lambda: not runs(pid))
    assert soon(lambda: not runs(pid))


def test_stopping_twice_is_stopping_once(fake: Fake) -> None:
    server = fake.answers().server()
    server.stop()
    server.start()
    server.stop()
    server.stop()
    assert not server.alive


def test_thread_that_starts_it_may_end(fake: Fake) -> None:
    server = fake.answers().server()
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    time.sleep(0.5)
    assert server.alive
    server.stop()


DRIVER = """
import sys, time
from candlebeam.cluster.java import Java
from candlebeam.cluster.job_server import JobServer
with JobServer(Java(sys.argv[1], 17), "beam.jar", [], log=sys.argv[2]) as server:
    print("ready", flush=True)
    time.sleep(100)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_server_ends_with_its_driver_however_that_ends(
    fake: Fake, temporary: Path, number: signal.Signals
) -> None:
    fake.answers()
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(fake.path), str(fake.log)],
        env=environment(TMPDIR=str(temporary)),
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == b"ready\n"
        assert len(list(temporary.iterdir())) == 1
        driver.send_signal(number)
    assert soon(lambda: not runs(fake.started()["pid"]))
    assert soon(lambda: not list(temporary.iterdir()))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs the kernel of Linux")
def test_server_ends_with_what_keeps_it(fake: Fake) -> None:
    with fake.answers().server() as server:
        java = fake.started()["pid"]
        keeper = int(Path(f"/proc/{java}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(keeper, signal.SIGKILL)
        assert soon(lambda: not server.alive)
        assert soon(lambda: not runs(java))


# What its log says

CHAIN = """usage
Exception in thread "main" java.lang.X: a
\tat b
Caused by: java.lang.Y: c
\tat d
Caused by: java.lang.Z: e
\t... 2 more
"""
OLD_JAVA = """Error: LinkageError occurred while loading main class X
\tjava.lang.UnsupportedClassVersionError: X has been compiled by a more recent version
"""
NO_CLASS = """Error: Could not find or load main class X
Caused by: java.lang.ClassNotFoundException: X
"""
BAD_OPTION = """Unrecognized VM option 'Nonsense'
Error: Could not create the Java Virtual Machine.
Error: A fatal exception has occurred. Program will exit.
"""
FULL = "Terminating due to java.lang.OutOfMemoryError: Java heap space"


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("", "it printed nothing"),
        ("SLF4J: Failed to load\nWARNING: Unknown\nPicked up X\n", "it printed nothing"),
        ("a\n\nb  c\nSLF4J: d\n", "b c"),
        (OLD_JAVA, OLD_JAVA.splitlines()[1].strip()),
        (NO_CLASS, NO_CLASS.splitlines()[0]),
        (FULL + "\nlast\n", FULL),
        (BAD_OPTION, BAD_OPTION.splitlines()[0]),
        (CHAIN, "Caused by: java.lang.Z: e"),
        (CHAIN.partition("Caused")[0], CHAIN.splitlines()[1]),
        ("x" * 1000, "x" * 299 + "…"),
    ],
)
def test_line_of_a_log_that_says_why(log: str, reason: str) -> None:
    assert reason_in_log(log) == reason
