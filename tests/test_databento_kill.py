"""A download that ends anywhere leaves whole files, and the next run has the rest."""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from candlebeam.formats.dbn.whole import check_dbn
from tests.command_line import COMMAND, PATIENCE, environment
from tests.databento_runs import fetch, fetch_arguments, files, serving, unfinished
from tests.databento_server import GET_RANGE, KEY, Fault, Query, Server, ns
from tests.faults import KillHost

OPTIONS = ("SPY", "2024-01", "2024-02", "--csv")
JANUARY, FEBRUARY = "SPY/SPY_2024_01", "SPY/SPY_2024_02"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("kill")) as found:
        yield found


@pytest.fixture(scope="module")
def host(server: Server) -> Iterator[KillHost]:
    with KillHost() as found:
        yield found


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    server.requests.clear()
    return tmp_path


def delivered(start: str, end: str) -> bytes:
    return Query("XNAS.ITCH", "ohlcv-1s", "SPY", "raw_symbol", ns(start), ns(end)).dbn()


WHOLE = {
    f"{JANUARY}.dbn.zst": {
        delivered("2024-01-05", "2024-01-08"), delivered("2024-01-01", "2024-02-01")
    },
    f"{FEBRUARY}.dbn.zst": {delivered("2024-02-01", "2024-03-01")},
}  # fmt: skip


def prepare() -> bytes:
    """A part of January, with its CSV file, which is returned."""
    fetch("SPY", "2024-01-05", "2024-01-07", "--csv").expect()
    return files()[f"{JANUARY}.csv"]


def absolute(folder: Path, *arguments: str) -> tuple[object, ...]:
    """The arguments for a process that works elsewhere."""
    given = fetch_arguments(*arguments)
    given[given.index("out")] = folder / "out"
    return ("databento", *given)


def test_a_run_killed_at_any_call_leaves_whole_files_and_is_resumed(
    host: KillHost, folder: Path
) -> None:
    csv = prepare()
    shutil.copytree("out", "before")
    fetch(*OPTIONS).expect()
    expected = files()
    at = 0
    while True:
        at += 1
        shutil.rmtree("out")
        shutil.copytree("before", "out")
        code = host.run(absolute(folder, *OPTIONS), at)
        found = files()
        for name, data in found.items():
            if name.endswith(".csv"):
                assert data in (csv, expected[name]), f"{name} after call {at}"
            else:
                assert data in WHOLE[name], f"{name} after call {at}"
        fetch(*OPTIONS).expect()
        assert files() == expected, f"after call {at}"
        assert unfinished() == []
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert at > 20


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_ended_in_the_middle_of_a_stream_is_resumed(
    server: Server, folder: Path, number: signal.Signals
) -> None:
    never = threading.Event()
    server.will(GET_RANGE, Fault(), Fault(hold=never))
    process = subprocess.Popen(
        [*COMMAND, *map(str, absolute(folder, *OPTIONS))],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    part = folder / "out/XNAS.ITCH/ohlcv-1s/SPY/.SPY_2024_02.dbn.zst.part"
    deadline = time.monotonic() + PATIENCE
    while len(server.ranges()) < 2 or not part.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=PATIENCE)
    never.set()
    assert KEY not in stderr
    assert sorted(files()) == [f"{JANUARY}.csv", f"{JANUARY}.dbn.zst"]
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
        assert unfinished() == [part.name]
    else:
        assert process.returncode == 130
        assert stderr.splitlines()[-1] == "candlebeam: interrupted"
        assert unfinished() == []
    assert check_dbn(str(folder / "out/XNAS.ITCH/ohlcv-1s" / f"{JANUARY}.dbn.zst")).records == 93
    fetch(*OPTIONS).expect()
    assert files()[f"{FEBRUARY}.dbn.zst"] == delivered("2024-02-01", "2024-03-01")
    assert unfinished() == []
    assert [each[1] for each in server.ranges()] == ["2024-01-01", "2024-02-01", "2024-02-01"]
