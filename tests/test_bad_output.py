"""Output that cannot be written: a clear error, nothing lost, and the next run goes on."""

from __future__ import annotations

import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from random import Random

import pytest

from tests import oracle
from tests.agreement import assert_files_agree
from tests.archives import make_archive
from tests.command_line import Outcome, Workspace, contents, run_here
from tests.deliveries import make_delivery, sync
from tests.faults import STOPPED, KillHost, failing_from
from tests.permissions import unprivileged_folder
from tests.test_kill import STEADY, records_seen

T0 = 1_709_337_600_000
FULL = "No space left on device"


def answers_of(work: Workspace) -> dict[str, bytes]:
    return {
        answer.path.removesuffix(".bin"): answer.data
        for answer in oracle.backfill(work.archive).values()
        if answer.data is not None
    }


def assert_clear(outcome: Outcome, reason: str) -> None:
    assert outcome.code == 1, outcome.output
    assert reason in outcome.output
    assert "Traceback" not in outcome.output


def assert_readers_see_old_or_new(work: Workspace, old: dict[str, bytes]) -> None:
    new = answers_of(work)
    for name, records in records_seen(work.out).items():
        assert records in (old.get(name), new[name]), name


def wide_market(work: Workspace, days: int = 30) -> Workspace:
    """A market with few trades and many candles."""
    path = work.archive / "RAM/btc/BINANCE/btcusdt/2024-03-02"
    path.parent.mkdir(parents=True)
    ends = (T0, T0 + days * 86_400_000)
    path.write_text("".join(f"{ts} 100.5 1 1\n" for ts in range(*ends, 60_000)))
    work.index().expect()
    return work


# --- a full disk ---------------------------------------------------------------------------------


def test_disk_that_gets_full_at_any_write(tmp_path: Path) -> None:
    work = Workspace(tmp_path)
    make_archive(Random(1), listings=6, files=3, rows=20).write(work.archive)
    work.index().expect()
    for number in count(1, 4):
        shutil.rmtree(work.out, ignore_errors=True)
        with failing_from(number) as failed:
            outcome = work.backfill(*STEADY)
        if not failed:
            break
        assert_clear(outcome, FULL)
        assert_readers_see_old_or_new(work, {})
        work.backfill(*STEADY).expect()
        assert_files_agree(work.out, oracle.backfill(work.archive))
    assert number > 12


@pytest.mark.parametrize("regimes", [("plain",), ("plain", "tiny", "huge")], ids=str)
def test_disk_that_gets_full_while_candles_are_added(
    tmp_path: Path, regimes: tuple[str, ...]
) -> None:
    work = Workspace(tmp_path)
    steps = make_delivery(Random(4), regimes).steps(2)
    sync(work.archive, next(steps))
    work.run(*STEADY)
    old = contents(work.out)
    shutil.copytree(work.out, tmp_path / "before")
    sync(work.archive, next(steps))
    work.index().expect()
    for number in count(1, 9):
        shutil.rmtree(work.out)
        shutil.copytree(tmp_path / "before", work.out)
        with failing_from(number) as failed:
            outcome = work.backfill(*STEADY)
        if not failed:
            break
        assert_clear(outcome, FULL)
        assert_readers_see_old_or_new(work, old)
        work.backfill(*STEADY).expect()
        assert_files_agree(work.out, oracle.backfill(work.archive))
    assert number > 12


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 700 kB, where one may be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.call(mount):
        pytest.skip("a file system can only be mounted by root")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_full_disk(tmp_path: Path, small_disk: Path) -> None:
    work = wide_market(Workspace(tmp_path))
    (tmp_path / "out").symlink_to(small_disk / "out")
    (small_disk / "out").mkdir()
    for options in ((), ("--staging", tmp_path / "staging")):
        outcome = work.backfill(*options)
        assert_clear(outcome, FULL)
        assert outcome.markets["RAM/BINANCE/btcusdt"]["status"] == "failed"
        assert records_seen(work.out) == {}
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    work.backfill().expect()
    assert_files_agree(work.out, oracle.backfill(work.archive))


def test_file_that_may_not_grow(tmp_path: Path) -> None:
    """The command itself, with a limit on the size of files."""
    work = wide_market(Workspace(tmp_path))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    outcome = work.backfill_process(preexec_fn=limit)
    assert_clear(outcome, "File too large")
    assert records_seen(work.out) == {}
    work.backfill().expect()
    assert_files_agree(work.out, oracle.backfill(work.archive))


# --- output that may not be written --------------------------------------------------------------


@pytest.fixture
def guarded() -> Iterator[Workspace]:
    """A workspace of a user who is not root, with a few markets, not yet backfilled."""
    with unprivileged_folder() as folder:
        work = Workspace(folder)
        make_archive(Random(1), listings=6, files=3, rows=20).write(work.archive)
        work.index().expect()
        yield work


def test_output_that_is_read_only(guarded: Workspace) -> None:
    guarded.out.mkdir(mode=0o500)
    outcome = guarded.backfill()
    assert_clear(outcome, "Permission denied")
    assert str(guarded.out) in outcome.output
    guarded.out.chmod(0o700)
    guarded.backfill().expect()
    assert_files_agree(guarded.out, oracle.backfill(guarded.archive))


def test_finished_output_that_is_read_only(guarded: Workspace) -> None:
    guarded.backfill().expect()
    before = contents(guarded.out)
    for folder in (guarded.out, *guarded.out.rglob("*")):
        if folder.is_dir():
            folder.chmod(0o500)
    assert_clear(guarded.backfill("--force"), "Permission denied")
    assert contents(guarded.out) == before


def test_folder_of_a_market_that_is_read_only_fails_its_markets_alone(guarded: Workspace) -> None:
    answers = oracle.backfill(guarded.archive)
    chosen = next(answer for answer in answers.values() if answer.data is not None)
    folder = guarded.out / Path(chosen.path).parent
    folder.mkdir(parents=True)
    folder.chmod(0o500)
    outcome = guarded.backfill()
    assert_clear(outcome, "Permission denied")
    failed = {name for name, row in outcome.markets.items() if row["status"] == "failed"}
    prefix = "/".join(chosen.market[:2]) + "/"
    assert failed == {n for n, a in answers.items() if n.startswith(prefix) and a.data}
    assert str(folder) in outcome.output
    folder.chmod(0o700)
    outcome = guarded.backfill().expect()
    assert outcome.totals["chunks_made"] == sum(a.data is None for a in answers.values())
    assert_files_agree(guarded.out, answers)


@pytest.mark.parametrize("option", ["--staging", "--rejects", "--report"])
def test_side_folder_that_is_read_only(guarded: Workspace, option: str) -> None:
    folder = guarded.folder / "read-only"
    folder.mkdir(mode=0o500)
    outcome = run_here(
        "backfill", "--db", guarded.db, "--out", guarded.out, option, folder / "inside"
    )
    assert outcome.code in (1, 2), outcome.output
    assert str(folder) in outcome.output
    assert "Traceback" not in outcome.output


@pytest.mark.parametrize("option", ["--out", "--staging", "--rejects"])
def test_file_where_a_folder_is_expected(tmp_path: Path, option: str) -> None:
    work = Workspace(tmp_path)
    make_archive(Random(1)).write(work.archive)
    work.index().expect()
    file = tmp_path / "file"
    file.write_bytes(b"precious")
    arguments = {"--db": work.db, "--out": work.out, option: file}
    outcome = run_here("backfill", *(part for pair in arguments.items() for part in pair))
    assert outcome.code in (1, 2), outcome.output
    assert str(file) in outcome.output
    assert "Traceback" not in outcome.output
    assert file.read_bytes() == b"precious"


# --- two writers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 12, 40])
def test_second_writer_is_refused(tmp_path: Path, at: int) -> None:
    work = Workspace(tmp_path)
    make_archive(Random(1), listings=6, files=3, rows=20).write(work.archive)
    work.index().expect()
    with KillHost() as host:
        # Counting starts before the lock is taken: its own file is the first that is opened.
        stopped = host.run(work.backfill_arguments(*STEADY), at + 3, signal.SIGSTOP)
        assert stopped == STOPPED
        other = Workspace(tmp_path)
        outcome = other.backfill()
        assert_clear(outcome, str(work.out))
        assert "another" in outcome.output
        market = ("--collector", "RAM", "--exchange", "BINANCE", "--symbol", "btcusdt")
        assert run_here("clear", "--out", work.out, *market).code == 1
        assert host.go_on() == 0
    assert_files_agree(work.out, oracle.backfill(work.archive))
    other.backfill().expect()
