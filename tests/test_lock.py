from __future__ import annotations

import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from candlebeam.errors import CandlebeamError, FormatError
from candlebeam.pipelines import lock
from candlebeam.pipelines.lock import LOCK_NAME, Holder, lock_holder, output_lock
from candlebeam.storage import FileState
from tests.command_line import environment

_HOLD = """
import sys
from candlebeam.pipelines.lock import output_lock
with output_lock(sys.argv[1], "follow"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process(out: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock until its standard input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(out)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


def take(out: Path) -> None:
    with output_lock(str(out)):
        pass


def test_second_writer_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        message = (
            f"{tmp_path}: another run is writing here"
            f" (process {process.pid} on {socket.gethostname()}, follow)"
        )
        with pytest.raises(CandlebeamError, match=f"^{re.escape(message)}$"):
            take(tmp_path)
        process.communicate()
        assert process.returncode == 0
    take(tmp_path)


def test_lock_of_a_process_that_is_killed_is_free(tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    take(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [LOCK_NAME]


def test_second_writer_of_the_same_process_is_refused(tmp_path: Path) -> None:
    with output_lock(str(tmp_path)):
        with pytest.raises(CandlebeamError, match=f"\\(process {os.getpid()} on "):
            take(tmp_path)
        with pytest.raises(CandlebeamError, match="another run is writing here"):
            take(tmp_path)


def test_other_output_roots_are_free(tmp_path: Path) -> None:
    with output_lock(str(tmp_path / "one")):
        take(tmp_path / "other")


def test_root_is_made_and_only_the_lock_stays_in_it(tmp_path: Path) -> None:
    take(tmp_path / "a" / "b")
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == [LOCK_NAME]


@pytest.mark.parametrize(
    "error", [ValueError("x"), KeyboardInterrupt(), FormatError("a", "b", "c")]
)
def test_lock_is_free_after_an_error_which_passes_through(
    tmp_path: Path, error: BaseException
) -> None:
    with pytest.raises(type(error)) as raised, output_lock(str(tmp_path)):
        raise error
    assert raised.value is error
    take(tmp_path)


def test_root_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(CandlebeamError, match=f"^cannot write {out}: "):
            take(out)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff", b"3"])
def test_holder_that_makes_no_sense_is_not_shown(tmp_path: Path, content: bytes) -> None:
    with output_lock(str(tmp_path)):
        (holder,) = (path for path in tmp_path.iterdir() if path.name != LOCK_NAME)
        holder.write_bytes(content)
        with pytest.raises(CandlebeamError, match=r"another run is writing here$"):
            take(tmp_path)


# Who holds it


def test_holder_is_told_what_it_does(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    assert lock_holder(out) is None
    with output_lock(out):
        expected = Holder(os.getpid(), socket.gethostname(), "backfill")
        assert lock_holder(out) == expected
        assert str(expected) == f"process {os.getpid()} on {socket.gethostname()}, backfill"
    assert lock_holder(out) is None
    with another_process(tmp_path / "out") as process:
        assert lock_holder(out) == Holder(process.pid, socket.gethostname(), "follow")
        process.send_signal(signal.SIGKILL)
        process.wait()
        # What it said of itself is still there, but it holds nothing.
        assert lock_holder(out) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b"\xff", b"3", b'{"pid": "x", "host": 1}', b'{"pid": 1}'],
)
def test_holder_that_makes_no_sense_is_nobody_known(tmp_path: Path, content: bytes) -> None:
    with output_lock(str(tmp_path)):
        (holder,) = (path for path in tmp_path.iterdir() if path.name != LOCK_NAME)
        holder.write_bytes(content)
        assert lock_holder(str(tmp_path)) == Holder()
        assert str(Holder()) == Holder().bracketed == ""


def test_holder_of_an_earlier_version_says_not_what_it_does(tmp_path: Path) -> None:
    with output_lock(str(tmp_path)):
        (holder,) = (path for path in tmp_path.iterdir() if path.name != LOCK_NAME)
        holder.write_text('{"pid": 7, "host": "db1"}')
        assert lock_holder(str(tmp_path)) == Holder(7, "db1")
        with pytest.raises(CandlebeamError, match=r"writing here \(process 7 on db1\)$"):
            take(tmp_path)


def test_looking_makes_nothing(tmp_path: Path) -> None:
    assert lock_holder(str(tmp_path)) is None
    assert lock_holder(str(tmp_path / "none")) is None
    assert list(tmp_path.iterdir()) == []


def test_writer_is_not_kept_out_by_who_only_looks(tmp_path: Path) -> None:
    """A share of the lock is held for a moment when somebody looks: a writer comes right then."""
    take(tmp_path)
    descriptor = os.open(tmp_path / LOCK_NAME, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        let_go = threading.Timer(0.05, fcntl.flock, (descriptor, fcntl.LOCK_UN))
        let_go.start()
        take(tmp_path)
        let_go.join()
    finally:
        os.close(descriptor)


def test_many_who_look_keep_no_writer_out(tmp_path: Path) -> None:
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.002):
            lock_holder(str(tmp_path))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(50):
            take(tmp_path)
    finally:
        ended.set()
        thread.join()


class _Elsewhere:
    """As much of a remote storage as looking at a lock needs."""

    is_local = False

    def __init__(self, data: bytes | None, age: float) -> None:
        self._data, self._age = data, age

    def state(self, path: str) -> FileState:
        return FileState(len(self.read(path)), time.time_ns() - round(self._age * 1e9))

    def read(self, path: str) -> bytes:
        assert path == f"s3://bucket/out/{LOCK_NAME}"
        if self._data is None:
            raise FileNotFoundError(2, "No such file", path)
        return self._data


def test_remote_lock_is_told_by_its_age(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(data: bytes | None, age: float) -> Holder | None:
        monkeypatch.setattr(lock, "storage_of", lambda _: _Elsewhere(data, age))
        return lock_holder("s3://bucket/out")

    data = b'{"mark": "x", "pid": 7, "host": "db1", "what": "stream"}'
    assert look(None, 0) is None
    assert look(data, lock.LEASE_SECONDS + 5) is None
    holder = look(data, 20)
    assert holder is not None
    assert str(holder) == "process 7 on db1, stream, 20 s ago"
    assert str(look(data, -20)) == "process 7 on db1, stream, 0 s ago"
    nobody_known = look(b"", 20)
    assert nobody_known is not None
    assert nobody_known.bracketed == ""
