"""One line for what Flink, Spark and Beam say of a failure: said by them, shortened."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlebeam.cluster.problems import explain, is_hopeless
from tests.command_line import PROJECT

SAMPLES = PROJECT / "tests/data/cluster_problems"
NO_PACKAGE = "a worker has no package candlebeam: install candlebeam "
NO_POOL = "no worker pool answers {}on the machine of a TaskManager or executor: start `python -m"
OURS = (
    "FormatError: RAM/a/BINANCE/btcusdt/2024-03-01.gz at byte 12: expected a gzip member, "
    "found b'hello'"
)
WORKER_DIED = "a worker died or was cut off (killed, or out of memory)"

#: What each is told as begins with, and whether there is no hope.
EXPECTED = {
    "flink-disk-full": ("a disk is full, on a worker's machine or where it writes: No sp", False),
    "flink-error-of-ours": (OURS, False),
    "flink-error-of-python": ("ValueError: the number 1 is not mine", False),
    "flink-few-slots": ("the cluster has too few free slots for the job: lower --para", False),
    "flink-few-slots-message": ("the cluster has too few free slots for the job: lower ", False),
    "flink-master-killed-message": ("the Flink master takes no connections (any more), or", False),
    "flink-no-package": (NO_PACKAGE, True),
    "flink-no-package-message": (NO_PACKAGE, True),
    "flink-no-package-to-unpickle": (NO_PACKAGE, True),
    "flink-no-pool": (NO_POOL.format("at localhost:50999 "), True),
    "flink-no-pool-message": (NO_POOL.format(""), True),
    "flink-task-manager-killed": ("a TaskManager was lost (killed, out of mem", False),
    "flink-task-manager-killed-message": ("a TaskManager was lost (killed, out of mem", False),
    "flink-worker-killed": (WORKER_DIED, False),
    "flink-worker-killed-message": (WORKER_DIED, False),
    "flink-worker-memory": ("a worker ran out of memory (MemoryError: Unable to alloc", False),
    "java-class-version": ("Java 17 was given classes for Java 21: use Java 21 or newer", True),
    "spark-error-of-ours": (OURS, False),
    "spark-no-master": ("the Spark master did not take the job, or has given it up", False),
    "spark-no-pool": (NO_POOL.format("at localhost:50999 "), True),
    "spark-worker-does-not-load": ("a worker began nothing within 3 minutes: as a rule", True),
    "spark-worker-killed": (WORKER_DIED, False),
}


def test_every_sample_is_expected() -> None:
    assert {path.stem for path in SAMPLES.iterdir()} == set(EXPECTED)


def test_pool_is_named_once_wherever_it_is_known() -> None:
    pool = "localhost:50999"
    for name in ("flink-no-pool", "flink-no-pool-message"):
        text = (SAMPLES / f"{name}.txt").read_text(encoding="utf-8")
        assert explain(text, pool).startswith(NO_POOL.format(f"at {pool} "))


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_what_was_really_said_is_told_in_one_line(name: str) -> None:
    text = (SAMPLES / f"{name}.txt").read_text(encoding="utf-8")
    line, hopeless = EXPECTED[name]
    assert explain(text).startswith(line)
    assert is_hopeless(text) is hopeless


@pytest.mark.parametrize(
    "name", sorted(name for name in EXPECTED if name.startswith("flink-error"))
)
def test_error_is_told_without_its_trace_and_its_step(name: str) -> None:
    text = (SAMPLES / f"{name}.txt").read_text(encoding="utf-8")
    assert explain(text) == EXPECTED[name][0]


TRACE = """Traceback (most recent call last):
  File "a.py", line 1, in f
    g()
{}
"""


@pytest.mark.parametrize(
    ("error", "line", "hopeless"),
    [
        ("ModuleNotFoundError: No module named 'numba'", "a worker has no package numba: ", True),
        (
            "ModuleNotFoundError: No module named 'candlebeam.io.later'",
            "a worker has another candlebeam, without candlebeam.io.later: ",
            True,
        ),
        (
            "ImportError: cannot import name 'Later' from 'candlebeam.model' (/a/b.py)",
            "a worker has another candlebeam, without candlebeam.model.Later: ",
            True,
        ),
        (
            "AttributeError: Can't get attribute 'Later' on <module 'candlebeam.model' from '/a'>",
            "a worker has another candlebeam, without candlebeam.model.Later: ",
            True,
        ),
        (
            "AttributeError: module 'candlebeam.model' has no attribute 'Later'",
            "a worker has another candlebeam, without candlebeam.model.Later: ",
            True,
        ),
        (
            (
                "candlebeam.errors.CandlebeamError: a worker has candlebeam 0.1.0, the driver "
                "0.2.0: install the same on both [while running 'SameVersion']"
            ),
            "a worker has candlebeam 0.1.0, the driver 0.2.0: install the same on both",
            True,
        ),
        ("ValueError: unsupported pickle protocol: 5", "a worker runs another version of P", True),
        ("SystemError: unknown opcode", "a worker runs another version of Python", True),
        (
            "TypeError: code expected at most 16 arguments, got 18",
            "a worker runs another version of Python",
            True,
        ),
        ("MemoryError", "a worker ran out of memory (MemoryError): ", False),
        (
            "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 8 GiB",
            "a worker ran",
            False,
        ),
        ("OSError: [Errno 28] No space left on device: '/x'", "a disk is full, on ", False),
        ("KeyboardInterrupt", "KeyboardInterrupt", False),
        ("a.b.Odd", "a.b.Odd", False),
        (
            "PermissionError: [Errno 13] Permission denied: '/x'",
            "PermissionError: [Errno 13] P",
            False,
        ),
    ],
)
def test_exceptions_of_workers(error: str, line: str, hopeless: bool) -> None:
    for text in (TRACE.format(error), "java.lang.RuntimeException: Error: " + TRACE.format(error)):
        assert explain(text).startswith(line)
        assert is_hopeless(text) is hopeless


@pytest.mark.parametrize(
    ("text", "line", "hopeless"),
    [
        (
            "java.lang.OutOfMemoryError: Java heap space\n\tat a.b",
            "Java ran out of memory (Java heap space): give TaskManagers or executors more",
            False,
        ),
        (
            "Caused by: java.lang.OutOfMemoryError",
            "Java ran out of memory (OutOfMemoryError)",
            False,
        ),
        (
            TRACE.format("ValueError: an older one")
            + "Terminating due to java.lang.OutOfMemoryError: Java heap space\n",
            "Java ran out of memory (Java heap space)",
            False,
        ),
        (
            (
                "java.io.InvalidClassException: org.apache.spark.rpc.RpcEndpointVerifier$"
                "CheckExistence; local class incompatible: stream classdesc serialVersionUID = 1, "
                "local class serialVersionUID = 2"
            ),
            "the cluster does not run the version that the job server is for (Spark 3.5 for",
            True,
        ),
        (
            'java.io.IOException: Cannot run program "docker": error=2, No such file or directory',
            "workers were to run in Docker containers, and there is no Docker: use --environment",
            True,
        ),
        (
            'java.io.IOException: Cannot run program "/opt/boot": error=13, Permission denied',
            "the machine of a TaskManager or executor cannot start a worker: /opt/boot: Permission",
            True,
        ),
        (
            "StatusRuntimeException: UNAVAILABLE: Unable to resolve host pool.invalid",
            NO_POOL.format("at pool.invalid "),
            True,
        ),
        (
            "java.util.concurrent.TimeoutException: Heartbeat of TaskManager with id a timed out.",
            "a TaskManager was lost",
            False,
        ),
        (
            (
                "ExecutorLostFailure (executor 0 exited caused by one of the running tasks) "
                "Reason: Remote RPC client disassociated."
            ),
            "a Spark executor was lost",
            False,
        ),
        (
            "Job aborted: Application has been killed. Reason: Master removed our application",
            "the Spark master ended the job: Master removed our application",
            False,
        ),
        (
            "org.apache.flink.runtime.RestClientException: [Internal server error.]\n\tat a",
            "the Flink master did not take the job, or does not tell of it any more: [Internal",
            False,
        ),
        ("java.io.IOException: No space left on device", "a disk is full on a machine", False),
    ],
)
def test_exceptions_of_java(text: str, line: str, hopeless: bool) -> None:
    assert explain(text).startswith(line)
    assert is_hopeless(text) is hopeless


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "it did not say why"),
        ("SLF4J: Failed\nWARNING: x\nPicked up y\n  \n", "it did not say why"),
        ("SLF4J: Failed\nit is over\nreally\n", "it is over"),
        ("a.b.XException: c.d.YError: it is\tover\n\tat z", "YError: it is over"),
        ("a.B$XException: over", "XException: over"),
        ("Pipeline x-1 failed in state FAILED: a.b.XException: over", "XException: over"),
        ("a.XException: out\n\tat b\nCaused by: c.YException: in\n\tat d\n", "YException: in"),
        (
            "a.XException: 1\nCaused by: a.YException: 2\n\tat d\nCaused by: a.ZException: 3: 4\n",
            "ZException: 3: 4",
        ),
        ("x" * 400, "x" * 299 + "…"),
        (TRACE.format("ValueError: one\ntwo\n\nthree"), "ValueError: one two"),
        (TRACE.format("ValueError: one\n\tat java"), "ValueError: one"),
        (TRACE.format("ValueError: one\nCaused by: x"), "ValueError: one"),
        (
            TRACE.format("a.b.E1: 1") + "\nDuring ...:\n\n" + TRACE.format("a.b.E2Error: 2"),
            "E2Error: 2",
        ),
        ("Traceback (most recent call last):", "it did not say why"),
        ("Traceback (most recent call last):\n  File", "it did not say why"),
    ],
)
def test_what_is_not_known_is_told_as_it_is(text: str, line: str) -> None:
    assert explain(text) == line
    assert not is_hopeless(text)


@given(
    st.text() | st.lists(st.sampled_from([*TRACE.splitlines(), "Caused by: ", "\tat x", "a: b"]))
)
def test_anything_gives_one_short_line(text: str | list[str]) -> None:
    line = explain(text if isinstance(text, str) else "\n".join(text))
    assert 0 < len(line) <= 300
    assert line.splitlines() == [line]
    assert line == line.strip()
