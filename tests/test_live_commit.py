"""Commits of a stream: what is on disk after any update, any failure and any kill."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from candlebeam.errors import CandlebeamError
from candlebeam.formats.candles.companion import read_companion
from candlebeam.formats.candles.file import open_candles
from candlebeam.io import commit_live
from candlebeam.io.live_commit import LiveCommit
from candlebeam.io.staging import Staging
from candlebeam.model import Market
from candlebeam.rules.open_candles import CandleUpdate
from candlebeam.rules.price_scale import PriceScale
from candlebeam.settings import CandleSettings
from tests.direct_backfill import backfill
from tests.failing_disk import FailingDisk
from tests.growing_archive import MINUTE, START, all_files
from tests.streamed import Stream
from tests.trade_batches import MARKET

FOLDER = "RAM/btc/BINANCE/btcusdt"
STEM = "RAM/BINANCE/btcusdt"
SETTINGS = CandleSettings()

#: What is added to the log, as (minute, price) of trades, and the minute of the clock after that.
STEPS: dict[str, tuple[list[tuple[float, float]], float]] = {
    "first": ([(0.5, 10.0), (1.5, 11.0), (2.5, 12.0)], 2.9),
    "grown": ([(3.5, 10.5)], 4.1),
    "a late one and a new one": ([(1.7, 44.0), (5.5, 10.5)], 6.1),
    "a late one alone": ([(4.2, 9.0)], 6.2),
    "an earlier start": ([(-1.5, 9.5)], 6.3),
    "a finer scale": ([(7.5, 0.0000125)], 8.2),
    "quiet for long": ([(30.5, 3.0)], 31.1),
    "a coarser scale": ([(31.5, 3000000.0)], 33.1),
    "too late": ([(2.5, 3.0), (4.5, 5.0)], 33.2),
    "too late again": ([(5.5, 3.0), (34.5, 4.0)], 35.2),
    "nothing but a row that is none": ([(-999999999999, 0.0)], 35.3),
}


@dataclass(frozen=True)
class Step:
    """An update, and the files before and after it."""

    update: CandleUpdate
    before: dict[str, bytes]
    after: dict[str, bytes]


class _Recorder(LiveCommit):
    def __init__(self, out: Path) -> None:
        super().__init__(str(out), SETTINGS)
        self.out = out
        self.steps: list[Step] = []

    def __call__(self, update: CandleUpdate) -> bool:
        before = all_files(self.out)
        done = super().__call__(update)
        self.steps.append(Step(update, before, all_files(self.out)))
        return done


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Step]:
    folder = tmp_path_factory.mktemp("steps")
    stream = Stream(folder / "archive", folder / "out")
    log = folder / "archive" / FOLDER / "2024-03-02-00"
    log.parent.mkdir(parents=True)
    recorder = stream._commit = _Recorder(folder / "out")
    found = {}
    for name, (trades, minute) in STEPS.items():
        with open(log, "a") as file:
            file.writelines(f"{START + round(at * MINUTE)} {price} 1 1\n" for at, price in trades)
        stream.clock.time_ms = START + round(minute * MINUTE)
        count = len(recorder.steps)
        while stream.poll():
            pass
        assert len(recorder.steps) > count, name
        found[name] = recorder.steps[-1]
        assert stream.given_up == {}
    return found


@pytest.fixture(params=STEPS)
def step(request: pytest.FixtureRequest, steps: dict[str, Step]) -> Step:
    return steps[request.param]


def prepare(folder: Path, files: dict[str, bytes]) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def seen(out: Path) -> tuple[object, bytes] | None:
    """What a reader sees."""
    try:
        found = open_candles(out / f"{STEM}.bin")
    except FileNotFoundError:
        return None
    return found.companion, found.records.tobytes()


def test_updates_are_of_all_kinds(steps: dict[str, Step]) -> None:
    def companion(name: str) -> dict[str, bytes]:
        return steps[name].after

    assert companion("grown") != companion("a late one alone")
    assert b'"priceScale": 10000,' in companion("grown")[f"{STEM}.json"]
    assert b'"priceScale": 10000000,' in companion("a finer scale")[f"{STEM}.json"]
    assert b'"priceScale": 100,' in companion("a coarser scale")[f"{STEM}.json"]
    assert companion("too late again")[f"{STEM}.late"].count(b"\n") == 3


def test_update_that_is_given_again_changes_nothing(step: Step, tmp_path: Path) -> None:
    out = prepare(tmp_path / "out", step.before)
    commit = LiveCommit(str(out), SETTINGS)
    for _ in range(2):
        assert commit(step.update)
        assert all_files(out) == step.after


def test_older_update_changes_nothing(steps: dict[str, Step], tmp_path: Path) -> None:
    last = steps["nothing but a row that is none"]
    out = prepare(tmp_path / "out", last.after)
    for name, step in steps.items():
        done = LiveCommit(str(out), SETTINGS)(step.update)
        assert done == (step is last), name
        assert all_files(out) == last.after


@pytest.mark.parametrize("kill", [False, True], ids=["fails", "is killed"])
def test_commit_that_ends_at_any_call_leaves_the_old_pair_or_the_new(
    step: Step, tmp_path: Path, kill: bool
) -> None:
    old = seen(prepare(tmp_path / "old", step.before))
    new = seen(prepare(tmp_path / "new", step.after))
    number = 0
    for number in range(1, 100):
        out = prepare(tmp_path / "out", step.before)
        commit = LiveCommit(str(out), SETTINGS)
        with FailingDisk(number, kill=kill) as disk:
            commit(step.update)
        if not disk.failed:
            break
        assert seen(out) in (old, new), disk.calls
        # The same writer tries again after an error; after a kill there is another one.
        if kill:
            commit = LiveCommit(str(out), SETTINGS)
        assert commit(step.update), disk.calls
        assert all_files(out) == step.after, disk.calls
    assert number > 3


def test_commit_that_fails_does_not_bring_back_older_candles(
    steps: dict[str, Step], tmp_path: Path
) -> None:
    """A journal that was decided but not carried out is not left to a later recovery."""
    first, second = steps["a late one and a new one"], steps["a late one alone"]
    for number in range(1, 100):
        out = prepare(tmp_path / "out", first.before)
        commit = LiveCommit(str(out), SETTINGS)
        with FailingDisk(number) as disk:
            commit(first.update)
        commit(second.update)
        assert all_files(out) == second.after
        LiveCommit(str(out), SETTINGS)(second.update)
        assert all_files(out) == second.after
        if not disk.failed:
            break


# Files that are not the stream's


def refused(out: Path, update: CandleUpdate, settings: CandleSettings = SETTINGS) -> str:
    before = all_files(out)
    with pytest.raises(CandlebeamError) as error:
        LiveCommit(str(out), settings)(update)
    assert all_files(out) == before
    return str(error.value).replace(f"{out}/", "")


def test_files_of_another_program_are_left_alone(steps: dict[str, Step], tmp_path: Path) -> None:
    step = steps["grown"]
    out = prepare(tmp_path / "out", step.before)
    companion = read_companion(str(out / f"{STEM}.json"))
    assert companion is not None
    (out / f"{STEM}.json").write_bytes(replace(companion, state=None).encode())
    assert refused(out, step.update) == (
        f"{STEM}.json was written by another program, or another version of this one"
    )


def test_files_of_other_settings_are_left_alone(steps: dict[str, Step], tmp_path: Path) -> None:
    step = steps["grown"]
    out = prepare(tmp_path / "out", step.before)
    settings = CandleSettings(liquidations="included")
    assert "was made with other settings" in refused(out, step.update, settings)


def test_files_that_are_gone_are_not_begun_in_the_middle(
    steps: dict[str, Step], tmp_path: Path
) -> None:
    step = steps["too late"]
    assert refused(prepare(tmp_path / "out", {}), step.update) == (
        f"{STEM}.json is gone: start the stream again"
    )


def test_files_that_were_cut_are_left_to_a_backfill(steps: dict[str, Step], tmp_path: Path) -> None:
    step = steps["grown"]
    out = prepare(tmp_path / "out", step.before)
    (out / f"{STEM}.bin").write_bytes(b"x" * 60)
    assert "has 60 of 168 bytes" in refused(out, step.update)


def test_update_that_leaves_candles_out_is_refused(steps: dict[str, Step], tmp_path: Path) -> None:
    out = prepare(tmp_path / "out", steps["grown"].after)
    message = refused(out, steps["too late again"].update)
    assert "is not the one that the stream went on from" in message


def test_rounded_prices_are_not_rounded_again(tmp_path: Path) -> None:
    """A new scale for candles whose prices are rounded already is left to a backfill."""
    stream = Stream(tmp_path / "archive", tmp_path / "out")
    log = tmp_path / "archive" / FOLDER / "2024-03-02-00"
    log.parent.mkdir(parents=True)
    log.write_text(f"{START} 100.10000000000001 1 1\n{START + 30 * MINUTE} 1 1 1\n")
    stream.clock.time_ms = START + 40 * MINUTE
    while stream.poll():
        pass
    with open(log, "a") as file:
        file.write(f"{START + 40 * MINUTE} 0.0000125 1 1\n")
    stream.clock.time_ms = START + 50 * MINUTE
    while stream.poll():
        pass
    (reason,) = stream.given_up.values()
    assert reason == (
        f"{tmp_path / 'out' / STEM}.bin: new prices need price scale 10000000, the candles have"
        " 10000 and prices that are rounded at it: stop the stream, and `candlebeam backfill`"
        " makes the market again"
    )
    backfill(tmp_path / "archive", tmp_path / "out")
    backfill(tmp_path / "archive", tmp_path / "fresh")
    assert all_files(tmp_path / "out") == all_files(tmp_path / "fresh")


def test_scale_that_was_asked_for_and_does_not_fit_is_told(tmp_path: Path) -> None:
    settings = CandleSettings(price_scale=PriceScale(8))
    stream = Stream(tmp_path / "archive", tmp_path / "out", settings=settings)
    log = tmp_path / "archive" / FOLDER / "2024-03-02-00"
    log.parent.mkdir(parents=True)
    log.write_text(f"{START} 100 1 1\n{START + 5 * MINUTE} 1 1 1\n")
    stream.clock.time_ms = START + 40 * MINUTE
    with pytest.raises(CandlebeamError, match=r"price 100\.0 at 2024-03-02T00:00:00\.000Z does"):
        stream.poll()


# The sink


def test_full_disk_is_waited_for_and_told_once(
    steps: dict[str, Step],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    step = steps["a late one and a new one"]
    out = prepare(tmp_path / "out", step.before)
    monkeypatch.setattr(commit_live, "_RETRY_SECONDS", 0)
    sink = commit_live._Commit(str(out), SETTINGS)
    sink.setup()
    monkeypatch.setattr(commit_live, "_patiently", _filling_up(commit_live._patiently))
    with caplog.at_level(logging.WARNING, "candlebeam"):
        given = list(sink.process((MARKET, step.update)))
    assert given == [(MARKET, step.update.end_ts)]
    assert all_files(out) == step.after
    first, last = (record.getMessage() for record in caplog.records)
    assert first.startswith(f"{MARKET} cannot be written: [Errno 28]")
    assert last == f"{MARKET} is written again"


def test_stream_that_another_run_has_taken_over_from_writes_nothing(
    steps: dict[str, Step], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    step = steps["a late one and a new one"]
    out = prepare(tmp_path / "out", step.before)
    before = all_files(out)
    staging = Staging(str(tmp_path / "staging"))
    sink = commit_live._Commit(str(out), SETTINGS, staging.path, "first")
    sink.setup()
    staging.begin("second")
    with caplog.at_level(logging.WARNING, "candlebeam"):
        assert list(sink.process((MARKET, step.update))) == []
    assert all_files(out) == before
    (told,) = (record.getMessage() for record in caplog.records)
    assert "another run has begun" in told
    staging.begin("first")
    assert list(sink.process((MARKET, step.update))) == [(MARKET, step.update.end_ts)]
    assert all_files(out) == step.after


def _filling_up(patiently: Callable[[Callable[[], bool], Market], bool]) -> object:
    """Tries whose first ones end on a full disk, each a call later."""

    def patient(commit: Callable[[], bool], market: Market) -> bool:
        tries = 0

        def trying() -> bool:
            nonlocal tries
            tries += 1
            if tries > 5:
                return commit()
            with FailingDisk(tries):
                commit()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        return patiently(trying, market)

    return patient


def test_market_that_is_not_the_streams_is_told_once_and_left_alone(
    steps: dict[str, Step], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink = commit_live._Commit(str(tmp_path), SETTINGS)
    sink.setup()
    with caplog.at_level(logging.ERROR, "candlebeam"):
        for _ in range(3):
            assert list(sink.process((MARKET, steps["too late"].update))) == []
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{MARKET} is not written any more: {tmp_path / STEM}.json is gone: start the stream again"
    )
