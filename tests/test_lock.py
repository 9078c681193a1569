from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from candlebeam.errors import CandlebeamError, FormatError
from candlebeam.pipelines.lock import LOCK_NAME, output_lock
from tests.command_line import environment

_HOLD = """
import sys
from candlebeam.pipelines.lock import output_lock
with output_lock(sys.argv[1]):
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
            f" (process {process.pid} on {socket.gethostname()})"
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
