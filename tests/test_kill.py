"""A backfill that is killed at any moment and run again gives what an undisturbed one gives."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from random import Random

import pytest

from tests import oracle
from tests.agreement import assert_files_agree
from tests.archives import make_archive
from tests.command_line import COMMAND, PATIENCE, Workspace, contents, environment
from tests.deliveries import Delivery, make_delivery, sync
from tests.faults import NEVER, KillHost

#: As users run it, with threads that work at the same time.
THREADS = ("--shard_bytes", 400)
#: One worker, so that the nth call of a run is always the same one.
STEADY = ("--direct_num_workers", 1, "--direct_running_mode", "in_memory", "--shard_bytes", 400)
#: Kills of one run, spread evenly.
KILLS = 9


@pytest.fixture(scope="module")
def host() -> Iterator[KillHost]:
    with KillHost() as running:
        yield running


def finished_chunks(folder: Path) -> int:
    """Chunks that a killed run has left, whole."""
    return sum(
        path.is_file() and not path.name.startswith(".") for path in folder.rglob("chunks/*/*")
    )


def records_seen(out: Path) -> dict[str, bytes]:
    """What a reader gets of each market while nobody has cleaned up yet."""
    import candlebeam

    found = {}
    for path in sorted(out.rglob("*.json")):
        if any(part.startswith(".") for part in path.relative_to(out).parts):
            continue
        name = path.relative_to(out).as_posix().removesuffix(".json")
        found[name] = candlebeam.open_candles(path).records.tobytes()
    return found


def killed_runs(
    host: KillHost, work: Workspace, before: Path | None, *options: object
) -> Iterator[int]:
    """Runs that are killed at calls spread over all that a run makes, each from the state `before`.

    Yields after each kill.
    """
    arguments = work.backfill_arguments(*options)

    def start_over() -> None:
        shutil.rmtree(work.out, ignore_errors=True)
        if before is not None:
            shutil.copytree(before, work.out)

    start_over()
    assert host.run(arguments, NEVER) == 0
    calls = host.calls
    assert calls > 5 * KILLS
    for number in range(KILLS):
        start_over()
        # Threads race, so that a run may make a few calls less than another.
        assert host.run(arguments, 1 + number * (calls - 10) // KILLS) == -signal.SIGKILL
        yield number


def assert_goes_on(work: Workspace, old: dict[str, bytes], *options: object) -> int:
    """Readers see old or new candles; the next run ends well, and makes no chunk twice.

    Returns how many chunks were reused.
    """
    answers = oracle.backfill(work.archive)
    new = {
        answer.path.removesuffix(".bin"): answer.data
        for answer in answers.values()
        if answer.data is not None
    }
    for name, records in records_seen(work.out).items():
        assert records in (old.get(name), new[name]), name
    chunks = finished_chunks(work.folder)
    committed = records_seen(work.out).items() & new.items()
    outcome = work.backfill(*options).expect()
    assert_files_agree(work.out, answers)
    reused = int(outcome.totals["chunks_reused"])
    assert reused <= chunks
    if not committed:
        assert reused == chunks
    assert finished_chunks(work.folder) == 0
    return reused


@pytest.mark.parametrize("options", [STEADY, THREADS], ids=["one worker", "threads"])
def test_first_backfill(host: KillHost, tmp_path: Path, options: tuple[object, ...]) -> None:
    work = Workspace(tmp_path)
    make_archive(Random(1), listings=6, files=3, rows=20).write(work.archive)
    work.index().expect()
    kills = killed_runs(host, work, None, *options)
    assert sum(assert_goes_on(work, {}, *options) for _ in kills) > 0


def grown(work: Workspace, delivery: Delivery, *options: object) -> dict[str, bytes]:
    """Backfills a part of a delivery, then lets the rest arrive. Gives the candles of the part."""
    steps = delivery.steps(2)
    sync(work.archive, next(steps))
    work.run(*options)
    shutil.copytree(work.out, work.folder / "before")
    sync(work.archive, next(steps))
    work.index().expect()
    return contents(work.out)


@pytest.mark.parametrize(
    ("late", "regimes"),
    [
        (0.0, ("plain",)),
        (0.0, ("plain", "tiny", "huge", "noise", "limit")),
        (0.2, ("plain", "tiny")),
    ],
    ids=["appended", "other price scales", "late rows"],
)
def test_resumed_backfill(
    host: KillHost, tmp_path: Path, late: float, regimes: tuple[str, ...]
) -> None:
    work = Workspace(tmp_path)
    options = (*STEADY, "--late", "rebuild")
    old = grown(work, make_delivery(Random(4), regimes, late), *options)
    for _ in killed_runs(host, work, tmp_path / "before", *options):
        assert_goes_on(work, old, *options)


def test_killed_again_and_again(host: KillHost, tmp_path: Path) -> None:
    """Every run gets a little further than the one before, on what that one has left.

    Each cuts the work in another way, so chunks are left that no later run can use.
    """
    work = Workspace(tmp_path)
    make_archive(Random(2), listings=8, files=3, rows=20).write(work.archive)
    work.index().expect()
    kills = 0
    for at in count(20, 12):
        options = (*STEADY, "--shard_bytes", (1, 400, 10_000)[kills % 3])
        if host.run(work.backfill_arguments(*options), at) == 0:
            break
        kills += 1
    assert kills >= 3
    assert_files_agree(work.out, oracle.backfill(work.archive))


@pytest.fixture
def half_done(host: KillHost, tmp_path: Path) -> Workspace:
    """A backfill that was killed when it had finished some chunks and committed nothing."""
    work = Workspace(tmp_path)
    make_archive(Random(1), listings=6, files=3, rows=20).write(work.archive)
    work.index().expect()
    for at in count(10, 5):
        assert host.run(work.backfill_arguments(*STEADY), at) == -signal.SIGKILL
        if finished_chunks(tmp_path) >= 3:
            break
    assert records_seen(work.out) == {}
    return work


def test_chunks_of_files_that_have_changed_are_not_used(half_done: Workspace) -> None:
    left = finished_chunks(half_done.folder)
    for path in half_done.archive.rglob("20*"):
        if path.is_file():
            path.write_bytes(path.read_bytes() + b"\n")
    outcome = half_done.backfill(*STEADY).expect()
    assert outcome.totals["chunks_reused"] == 0
    assert left > 0
    assert_files_agree(half_done.out, oracle.backfill(half_done.archive))


def test_chunks_of_other_settings_are_not_used(half_done: Workspace) -> None:
    outcome = half_done.backfill(*STEADY, "--timeframe", "5m", "--no-corrections").expect()
    assert outcome.totals["chunks_reused"] == 0
    meaning = oracle.Settings(frozenset(), timeframe_ms=300_000)
    assert_files_agree(half_done.out, oracle.backfill(half_done.archive, meaning))


@pytest.mark.parametrize("harm", ["cut", "flip", "empty", "zeros"])
def test_chunks_that_are_damaged_are_made_again(half_done: Workspace, harm: str) -> None:
    """A power cut may leave them like that: they are not forced to disk."""
    rng = Random(harm)
    for path in half_done.out.rglob("chunks/*/[!.]*"):
        data = bytearray(path.read_bytes())
        if harm == "cut":
            del data[rng.randrange(len(data)) :]
        elif harm == "flip":
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        else:
            data = bytearray(0 if harm == "empty" else len(data))
        path.write_bytes(data)
    outcome = half_done.backfill(*STEADY).expect()
    assert outcome.totals["chunks_reused"] == 0
    assert_files_agree(half_done.out, oracle.backfill(half_done.archive))


@pytest.mark.parametrize("chunks", [1, 20, 60])
def test_process_that_is_killed_as_it_makes_progress(tmp_path: Path, chunks: int) -> None:
    """The command itself, with all its threads, killed once so many chunks are there."""
    work = Workspace(tmp_path)
    make_archive(Random(3), listings=40, files=4, rows=20).write(work.archive)
    work.index().expect()
    arguments = [str(part) for part in work.backfill_arguments("--shard_bytes", 1)]
    with subprocess.Popen(
        [*COMMAND, *arguments],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None and finished_chunks(tmp_path) < chunks:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.kill()
    left = finished_chunks(tmp_path)
    committed = len(records_seen(work.out)) if work.out.exists() else 0
    outcome = work.backfill("--shard_bytes", 1)
    assert outcome.code == 0, outcome.output
    assert_files_agree(work.out, oracle.backfill(work.archive))
    if process.returncode != 0 and not committed:
        assert outcome.totals["chunks_reused"] == left
