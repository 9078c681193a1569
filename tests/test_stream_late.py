"""Trades that come too late for a stream: counted, kept, told, and brought in by a backfill."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from candlebeam.formats.candles.companion import read_companion
from tests.command_line import Workspace, run_here
from tests.direct_backfill import backfill
from tests.growing_archive import MINUTE, START, all_files
from tests.streamed import Stream

FOLDER = "RAM/btc/BINANCE/btcusdt"
MARKET = "RAM/BINANCE/btcusdt"


class Logs:
    """One market's logs and a stream of them."""

    def __init__(self, folder: Path) -> None:
        self.work = Workspace(folder)
        self.archive, self.out = self.work.archive, self.work.out
        self.archive.mkdir()
        self.stream = Stream(self.archive, self.out)

    def write(self, *trades: tuple[float, float], hour: int = 0) -> None:
        """Adds trades of (minutes after the start, price) to a log."""
        path = self.archive / FOLDER / f"2024-03-02-{hour:02}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a") as file:
            file.writelines(f"{START + round(at * MINUTE)} {price} 1 1\n" for at, price in trades)

    def poll(self, minutes: float | None = None) -> None:
        """Polls until nothing is new, at a time."""
        if minutes is not None:
            self.stream.clock.time_ms = START + round(minutes * MINUTE)
        while self.stream.poll():
            pass

    @property
    def late(self) -> list[dict[str, object]]:
        path = self.out / f"{MARKET}.late"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def late_trades(self) -> int:
        companion = read_companion(str(self.out / f"{MARKET}.json"))
        assert companion is not None
        assert companion.state is not None
        return companion.state.late_trades


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    return Logs(tmp_path)


def with_two_late(logs: Logs) -> None:
    logs.write((0, 10.0), (30, 11.0))
    logs.poll(31)
    # Of minute 0 and minute 19, ten minutes of lateness are over; of minute 21 they are not.
    logs.write((0.5, 12.5), (19.9, 13.5), (21, 14.0), (31, 15.0))
    logs.poll(32)


def test_they_are_counted_and_kept_in_a_file(logs: Logs) -> None:
    with_two_late(logs)
    assert logs.late_trades == 2
    path = f"{FOLDER}/2024-03-02-00"
    assert logs.late == [
        {"number": 1, "ts": START + 30_000, "price": 12.5, "size": 1.0, "buy": 1,
         "liquidation": 0, "path": path},
        {"number": 2, "ts": START + 1_194_000, "price": 13.5, "size": 1.0, "buy": 1,
         "liquidation": 0, "path": path},
    ]  # fmt: skip


def test_the_user_is_told_once_in_a_while_and_with_the_command(logs: Logs) -> None:
    with_two_late(logs)
    for minute in range(5):
        logs.write((minute, 1.0))
        logs.poll(33)
    late = logs.out / f"{MARKET}.late"
    assert logs.stream.said == [
        (
            f"{MARKET}: 2 trades came too late, see {late}: `candlebeam backfill --late rebuild`"
            " brings them in"
        )
    ]
    assert logs.late_trades == len(logs.late) == 7


def test_a_trade_within_the_lateness_changes_its_candle(logs: Logs) -> None:
    logs.write((0, 10.0), (10.5, 11.0))
    logs.poll(10.99)
    logs.write((0.5, 12.0))
    logs.poll(10.999)
    assert logs.late == []
    logs.poll(60)
    backfill(logs.archive, logs.work.folder / "fresh")
    assert all_files(logs.out) == all_files(logs.work.folder / "fresh")


def test_each_is_kept_once_even_after_a_restore(logs: Logs) -> None:
    logs.write((0, 10.0), (30, 11.0))
    logs.poll(31)
    checkpoints = [logs.stream.checkpoint()]
    for minute in range(3):
        logs.write((minute, 1.0), (31 + minute, 2.0))
        logs.poll(32 + minute)
        checkpoints.append(logs.stream.checkpoint())
    before = all_files(logs.out)
    assert len(logs.late) == 3
    for checkpoint in checkpoints:
        logs.stream.restore(checkpoint)
        logs.poll()
        assert all_files(logs.out) == before
    logs.stream.start()
    logs.stream.places, logs.stream.open = {}, {}
    logs.poll()
    assert all_files(logs.out) == before
    logs.write((3, 1.0))
    logs.poll()
    assert [trade["number"] for trade in logs.late] == [1, 2, 3, 4]


def test_lines_that_a_crash_left_of_no_commit_are_taken_back(logs: Logs) -> None:
    with_two_late(logs)
    checkpoint = logs.stream.checkpoint()
    path = logs.out / f"{MARKET}.late"
    path.write_bytes(path.read_bytes() + b'{"number": 3, "ts": 1}\n{"numb')
    logs.stream.restore(checkpoint)
    logs.write((32, 16.0))
    logs.poll(34)
    assert [trade["number"] for trade in logs.late] == [1, 2]


def test_backfill_with_rebuild_brings_them_in_and_removes_their_file(logs: Logs) -> None:
    with_two_late(logs)
    logs.work.index().expect()
    logs.work.backfill().expect()
    assert logs.late_trades == 2
    assert len(logs.late) == 2
    outcome = logs.work.backfill("--late", "rebuild").expect()
    assert outcome.markets[MARKET]["rebuilt"]
    assert logs.late_trades == 0
    assert not (logs.out / f"{MARKET}.late").exists()
    fresh = logs.work.folder / "fresh"
    run_here("backfill", "--db", logs.work.db, "--out", fresh).expect()
    made = {name: data for name, data in all_files(logs.out).items() if "lock" not in name}
    assert made == {n: data for n, data in all_files(fresh).items() if "lock" not in n}
    # And a stream goes on from there.
    logs.stream = Stream(logs.archive, logs.out)
    logs.write((35, 17.0))
    logs.poll(60)
    backfill(logs.archive, logs.work.folder / "again")
    again = all_files(logs.work.folder / "again")
    assert {name: all_files(logs.out)[name] for name in again} == again


def test_files_that_are_found_late_are_told(logs: Logs) -> None:
    logs.write((60, 10.0), (70, 11.0), hour=1)
    logs.poll(90)
    logs.write((1, 10.0), (2, 11.0), hour=0)
    logs.poll(91)
    assert logs.stream.said == [
        (
            f"{MARKET}: 1 of its files were found late, and not read: `candlebeam backfill --late"
            " rebuild` brings them in"
        )
    ]
