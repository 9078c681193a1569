"""The logs of workers: everything is in them, and they stay small and few."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from candlebeam.errors import CandlebeamError
from candlebeam.worker.worker_log import KEPT, default_folder, make_folder, remove_old
from tests.command_line import PATIENCE, environment

_START = """
import os, subprocess, sys
from candlebeam.worker.worker_log import LogSettings, WorkerLog
log = WorkerLog(LogSettings(sys.argv[1], 1000), "id/1 a")
"""


def run(folder: Path, code: str) -> str:
    """Runs code in a process that has a log: what it says all the same."""
    done = subprocess.run(
        [sys.executable, "-c", _START + code, str(folder)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.stdout + done.stderr


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_output_of_a_process_and_its_children_goes_to_its_log(tmp_path: Path) -> None:
    said = run(
        tmp_path / "logs",
        "print('out')\n"
        "print('err \\udcff', file=sys.stderr)\n"
        "subprocess.run(['echo', 'child'])\n"
        "os.write(1, b'raw\\n')\n"
        "1 / 0\n",
    )
    assert said == ""
    (log,) = (tmp_path / "logs").iterdir()
    text = log.read_text()
    assert text.startswith("out\nerr \\udcff\nchild\nraw\nTraceback")
    assert "ZeroDivisionError" in text
    assert "-id-1-a-" in log.name
    assert log.stat().st_mode & 0o777 == 0o600


def test_what_is_printed_is_there_when_the_process_is_killed(tmp_path: Path) -> None:
    run(tmp_path, "print('last words')\nos.kill(os.getpid(), 9)\n")
    (log,) = tmp_path.iterdir()
    assert log.read_text() == "last words\n"


def test_full_log_begins_anew_and_keeps_the_one_before(tmp_path: Path) -> None:
    said = run(
        tmp_path,
        "for i in range(5):\n"
        "    print(i, 'x' * 1200)\n"
        "    log.rotate()\n"
        "print('the end')\n"
        "log.rotate()\n"
        "print('really')\n",
    )
    assert said == ""
    now, before = sorted(tmp_path.iterdir())
    assert before.name == f"{now.name}.1"
    assert before.read_text() == f"4 {'x' * 1200}\n"
    assert now.read_text() == "the end\nreally\n"


def test_log_of_a_folder_that_is_gone_stays_small(tmp_path: Path) -> None:
    said = run(
        tmp_path / "logs",
        "import shutil\n"
        "shutil.rmtree(sys.argv[1])\n"
        "print('x' * 2000)\n"
        "log.rotate()\n"
        "sizes = [os.fstat(1).st_size]\n"
        "print('y')\n"
        "open(sys.argv[1] + '.sizes', 'w').write(str([*sizes, os.fstat(2).st_size]))\n",
    )
    assert said == ""
    assert (tmp_path / "logs.sizes").read_text() == "[0, 2]"


def test_last_logs_of_ended_workers_are_kept_and_all_of_those_that_run(tmp_path: Path) -> None:
    logs = [tmp_path / f"20240301T0000{n:02d}Z-1-1-7.log" for n in range(KEPT + 10)]
    for path in logs:
        path.touch()
        Path(f"{path}.1").touch()
    others = ["notes.log", "20240301T000000Z-1-1-x.log", "20240301T000000Z-1-1-7.log.bak"]
    for name in others:
        (tmp_path / name).touch()
    with logs[3].open("rb") as running:
        fcntl.flock(running, fcntl.LOCK_EX)
        remove_old(str(tmp_path))
        kept = [logs[3].name, *(path.name for path in logs[10:])]
    assert names(tmp_path) == sorted([*kept, *(f"{name}.1" for name in kept), *others])


def test_new_worker_removes_old_logs(tmp_path: Path) -> None:
    for n in range(KEPT + 5):
        (tmp_path / f"20240301T0000{n:02d}Z-1-1-7.log").touch()
    assert run(tmp_path, "") == ""
    assert len(names(tmp_path)) == KEPT + 1


def test_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = str(tmp_path / "file" / "logs")
    with pytest.raises(CandlebeamError, match=f"no logs can be written to {folder}: NotADirect"):
        make_folder(folder)


def test_default_folder_is_the_one_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CANDLEBEAM_WORKER_LOGS", raising=False)
    assert default_folder().endswith(f"candlebeam-workers-{os.getuid()}")
    monkeypatch.setenv("CANDLEBEAM_WORKER_LOGS", "/some/where")
    assert default_folder() == "/some/where"
