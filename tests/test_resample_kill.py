"""`candlebeam resample` that is killed, or meets a full disk, and is run again."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from candlebeam.formats.candles.source import CandleSource
from candlebeam.model import Records
from tests.aligned_bars import (
    rows_of,
)
from tests.aligned_runs import without_fsync
from tests.faults import NEVER, KillHost, failing_from
from tests.resample_runs import (
    PERIODS,
    WANTED,
    assert_made,
    contents,
    expected,
    gappy,
    made_of,
    put,
    resampled,
)

_no_power_cuts = pytest.fixture(scope="module", autouse=True)(without_fsync)


@pytest.fixture(scope="module")
def host() -> Iterator[KillHost]:
    with KillHost() as running:
        yield running


def assert_readable(folder: Path, records: Records, before: int) -> None:
    """Readers see what was committed before or what is now."""
    (piece,) = CandleSource(put(folder / "whole", records).records).pieces()
    states = []
    for count in (before, len(records)):
        part = piece.bars.part(slice(count))
        states.append(
            {p: expected(part, p, None, int(part.ts[-1])) for p in PERIODS} if count else {}
        )
    for period in PERIODS:
        try:
            closed, opened = made_of(folder, str(period))
        except FileNotFoundError:
            assert not before
            continue
        assert closed in [rows_of(state[period][0]) for state in states if state]
        assert opened in [[], *(rows_of(state[period][1]) for state in states if state)]


@pytest.mark.parametrize("before", [0, 700])
def test_killed_at_any_call(host: KillHost, tmp_path: Path, before: int) -> None:
    records = gappy(1_500)
    arguments = ("resample", tmp_path / "out", "--to", tmp_path / "to", "--timeframes", WANTED)
    ended = None
    for at in range(1, 400, 11):
        shutil.rmtree(tmp_path / "to", ignore_errors=True)
        if before:
            put(tmp_path / "out", records[:before])
            resampled(tmp_path).expect()
        paths = put(tmp_path / "out", records)
        ended = host.run(arguments, at)
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
        if at % 2:
            assert_readable(tmp_path, records, before)
        resampled(tmp_path).expect()
        assert_made(tmp_path, paths.records)
    assert ended == 0
    assert at > 60


def test_killed_again_and_again(host: KillHost, tmp_path: Path) -> None:
    records = gappy(6_000)
    arguments = ("resample", tmp_path / "out", "--to", tmp_path / "to", "--timeframes", WANTED)
    rng = Random(5)
    for count in range(50, 6_000, 250):
        paths = put(tmp_path / "out", records[:count])
        assert host.run(arguments, rng.randrange(1, 90)) in (0, -signal.SIGKILL)
    paths = put(tmp_path / "out", records)
    assert host.run(arguments, NEVER) == 0
    assert_made(tmp_path, paths.records)


def test_csv_that_is_killed_has_whole_files(host: KillHost, tmp_path: Path) -> None:
    put(tmp_path / "out", gappy(3_000))
    resampled(tmp_path, "--format", "csv", wanted="5m,1h").expect()
    whole = contents(tmp_path / "to")
    arguments = ("resample", tmp_path / "out", "--to", tmp_path / "to", "--timeframes", "5m,1h")
    for at in range(1, 100):
        shutil.rmtree(tmp_path / "to", ignore_errors=True)
        if host.run((*arguments, "--format", "csv"), at) == 0:
            break
        assert contents(tmp_path / "to").items() <= whole.items()
    assert at > 10
    assert contents(tmp_path / "to") == whole


def test_full_disk_fails_and_leaves_what_was_there(tmp_path: Path) -> None:
    records = gappy(9_000)
    put(tmp_path / "out", records[:5_000])
    resampled(tmp_path).expect()
    before = {period: made_of(tmp_path, str(period))[0] for period in PERIODS}
    paths = put(tmp_path / "out", records)
    with failing_from(1):
        failed = resampled(tmp_path).expect(1)
    assert "No space left on device" in failed.stderr
    assert {period: made_of(tmp_path, str(period))[0] for period in PERIODS} == before
    resampled(tmp_path).expect()
    assert_made(tmp_path, paths.records)
