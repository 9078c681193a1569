"""Logs that are damaged, replaced, gone or unreadable for a while, and disks that are full."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from candlebeam.io.live_commit import LiveCommit
from candlebeam.settings import CandleSettings
from tests.direct_backfill import backfill
from tests.failing_disk import FailingDisk
from tests.growing_archive import MINUTE, START, all_files
from tests.permissions import unprivileged_folder
from tests.streamed import Stream

FOLDER = "RAM/btc/BINANCE/btcusdt"
MARKET = "RAM/BINANCE/btcusdt"


def rows(*minutes: float) -> bytes:
    """Rows of trades at minutes after the start, each at a price of its own."""
    return b"".join(
        b"%d 1%05d 1 1\n" % (START + round(m * MINUTE), round(m * 100)) for m in minutes
    )


class Logs:
    """A market's logs and a stream of them; the clock stands a little behind the last trade."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root, self.out = folder, folder / "archive", folder / "out"
        self.log = self.root / FOLDER / "2024-03-02-00"
        self.gz = self.log.with_name("2024-03-02-00.gz")
        self.log.parent.mkdir(parents=True)
        self.stream = Stream(self.root, self.out)

    def poll(self, minutes: float) -> None:
        self.stream.clock.time_ms = START + round(minutes * MINUTE)
        for _ in range(9):
            self.stream.poll()

    def add(self, *minutes: float) -> None:
        with open(self.log, "ab") as file:
            file.write(rows(*minutes))
        self.poll(max(minutes))

    def assert_as_fresh(self) -> None:
        """Everything that is in the logs is in the candles, and nothing else."""
        self.poll(10_000)
        backfill(self.root, self.folder / "fresh")
        assert all_files(self.out) == all_files(self.folder / "fresh")

    @property
    def said(self) -> list[str]:
        return [line.replace(f"{self.folder}/", "") for line in self.stream.said]


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    found = Logs(tmp_path)
    found.add(0, 1, 2.5, 3.5)
    return found


GARBAGE = b"\x00garbage\n" * 40


@pytest.mark.parametrize(
    "garbage",
    [GARBAGE, b"", b"short", gzip.compress(GARBAGE)],
    ids=["text", "nothing", "short", "gzip"],
)
def test_log_that_is_replaced_by_garbage_is_set_aside_until_it_is_back(
    logs: Logs, garbage: bytes
) -> None:
    good = logs.log.read_bytes()
    logs.log.write_bytes(garbage)
    logs.poll(4)
    before = all_files(logs.out)
    logs.poll(9)
    # The clock does not count: what comes back would be late.
    assert all_files(logs.out) == before
    (line,) = logs.said
    path = f"archive/{FOLDER}/2024-03-02-00"
    assert line.startswith(f"{path}: it is another file: expected the {len(good)} bytes of text")
    assert line.endswith("; nothing of it is taken, until it is replaced")
    logs.log.write_bytes(good + rows(4, 5, 30))
    logs.poll(31)
    logs.assert_as_fresh()


def test_log_whose_name_goes_on_with_another_text_is_another_one(logs: Logs) -> None:
    good = logs.log.read_bytes()
    logs.log.write_bytes(good[:-9] + b"7" + good[-8:] + rows(4, 5))
    logs.poll(6)
    assert "found others" in logs.said[0]
    logs.log.write_bytes(good + rows(4.5))
    logs.poll(7)
    logs.assert_as_fresh()


def test_gzipped_log_that_is_damaged_is_read_again_when_it_is_replaced(logs: Logs) -> None:
    text = logs.log.read_bytes() + rows(4, 5, 6, 7)
    packed = gzip.compress(text, mtime=0)
    damaged = packed[:-8] + bytes(8)
    logs.gz.write_bytes(damaged)
    logs.log.unlink()
    logs.poll(8)
    (line,) = (line for line in logs.said if "gzip damaged" in line)
    assert line.endswith("; what is sound was taken, until it is replaced")
    count = len(logs.said)
    logs.poll(9)
    assert len(logs.said) == count
    # Of the same size, and noticed all the same.
    os.utime(logs.gz, ns=(1, 1))
    logs.gz.write_bytes(packed)
    logs.assert_as_fresh()


def test_gzipped_log_that_is_being_written_is_read_when_it_is_whole(logs: Logs) -> None:
    text = logs.log.read_bytes() + rows(4, 5, 6, 7)
    packed = gzip.compress(text, mtime=0)
    logs.log.unlink()
    for size in range(0, len(packed), 9):
        logs.gz.write_bytes(packed[:size])
        logs.poll(8)
    logs.gz.write_bytes(packed)
    logs.assert_as_fresh()


def test_log_that_cannot_be_read_for_a_while_is_tried_again() -> None:
    with unprivileged_folder() as folder:
        logs = Logs(folder)
        logs.add(0, 1, 2.5, 3.5)
        with open(logs.log, "ab") as file:
            file.write(rows(4, 5))
        logs.log.chmod(0)
        before = all_files(logs.out)
        logs.poll(90)
        assert all_files(logs.out) == before
        assert logs.said == [
            f"archive/{FOLDER}/2024-03-02-00: PermissionError: Permission denied; it is tried again"
        ]
        logs.log.chmod(0o644)
        logs.assert_as_fresh()


def test_log_that_is_gone_for_a_while(logs: Logs) -> None:
    away = logs.log.with_name("away")
    logs.log.rename(away)
    before = all_files(logs.out)
    logs.poll(90)
    assert all_files(logs.out) == before
    away.rename(logs.log)
    with open(logs.log, "ab") as file:
        file.write(rows(5, 6, 88))
    logs.assert_as_fresh()


def test_root_that_is_gone_for_a_while(logs: Logs) -> None:
    away = logs.folder / "away"
    logs.root.rename(away)
    before = all_files(logs.out)
    logs.poll(90)
    assert all_files(logs.out) == before
    assert logs.said == [
        "archive: expected a folder with an archive, found none; it is tried again"
    ]
    away.rename(logs.root)
    with open(logs.log, "ab") as file:
        file.write(rows(5, 6, 88))
    logs.assert_as_fresh()


def test_logs_of_a_handover_are_waited_for(logs: Logs) -> None:
    """The last candle is made again of them: without them nothing can be."""
    good = logs.log.read_bytes()
    logs.poll(9)
    before = all_files(logs.out)
    for broken in (None, good[:30], good[:-3], GARBAGE):
        if broken is None:
            logs.log.unlink()
        else:
            logs.log.write_bytes(broken)
        logs.stream = Stream(logs.root, logs.out)
        (logs.log.with_name("2024-03-02-01")).write_bytes(rows(61, 62))
        logs.poll(9_000)
        assert all_files(logs.out) == before, broken
        assert logs.said != []
    logs.log.write_bytes(good)
    logs.stream = Stream(logs.root, logs.out)
    logs.assert_as_fresh()


def test_input_that_is_not_in_the_archive_is_told(logs: Logs) -> None:
    logs.poll(9)
    logs.log.rename(logs.log.with_name("2024-03-02-05"))
    logs.stream = Stream(logs.root, logs.out)
    logs.poll(9)
    assert logs.said == [
        (
            f"{MARKET} is not followed for now: {FOLDER}/2024-03-02-00, the input that its candles"
            " end with, is not under archive"
        )
    ]


def test_archive_that_has_moved_is_gone_on_from(logs: Logs) -> None:
    logs.poll(9)
    moved = logs.folder / "moved"
    logs.root.rename(moved)
    logs.root, logs.log = moved, moved / FOLDER / "2024-03-02-00"
    logs.stream = Stream(moved, logs.out)
    logs.add(10, 11)
    logs.assert_as_fresh()


def test_candles_of_other_settings_are_not_gone_on_from(logs: Logs) -> None:
    logs.poll(9)
    before = all_files(logs.out)
    settings = CandleSettings(liquidations="included")
    logs.stream = Stream(logs.root, logs.out, settings=settings)
    logs.add(10, 11)
    assert all_files(logs.out) == before
    (line,) = logs.said
    assert line.startswith(
        f"{MARKET} is not followed for now: out/{MARKET}.bin was made with other"
    )


def test_long_row_without_an_end_is_waited_for_in_little_memory(logs: Logs) -> None:
    with open(logs.log, "ab") as file:
        file.truncate(logs.log.stat().st_size + (5 << 20))
    logs.poll(4)
    with open(logs.log, "ab") as file:
        file.write(b"\n" + rows(5, 6))
    logs.assert_as_fresh()
    assert "rows that are no trades: 1 length" in logs.said[-1]


def test_disk_that_is_full_for_a_while_loses_nothing(logs: Logs) -> None:
    with open(logs.log, "ab") as file:
        file.write(rows(1.2, 7, 8))
    checkpoint = logs.stream.checkpoint()
    number = 0
    for number in range(1, 60):
        logs.stream.restore(checkpoint)
        logs.stream.clock.time_ms = START + 9 * MINUTE
        with FailingDisk(number) as disk:
            logs.stream.poll()
        if not disk.failed:
            break
    assert number > 5
    logs.assert_as_fresh()


@pytest.mark.parametrize("bytes_read", [100, 1000])
def test_pieces_of_any_size_give_the_same(
    logs: Logs, monkeypatch: pytest.MonkeyPatch, bytes_read: int
) -> None:
    monkeypatch.setattr("candlebeam.feeds.trade_logs.READ_BYTES", bytes_read)
    with open(logs.log, "ab") as file:
        file.write(rows(*(4 + n / 7 for n in range(300))))
    logs.gz.with_name("2024-03-02-01.gz").write_bytes(
        gzip.compress(rows(*(60 + n / 11 for n in range(900))).removesuffix(b"\n"))
    )
    logs.assert_as_fresh()


def test_one_commit_a_candle_is_enough(logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = []
    call = LiveCommit.__call__

    def counted(self: LiveCommit, update: object) -> bool:
        commits.append(update)
        return call(self, update)  # type: ignore[arg-type]

    monkeypatch.setattr(LiveCommit, "__call__", counted)
    for second in range(600):
        logs.add(4 + second / 60)
    assert 10 <= len(commits) <= 12


def test_companion_that_is_damaged_stops_its_market_alone(logs: Logs) -> None:
    logs.poll(9)
    (logs.out / f"{MARKET}.json").write_bytes(b"{")
    other = logs.root / "RAM/btc/BINANCE/ethusdt/2024-03-02-00"
    other.parent.mkdir(parents=True)
    other.write_bytes(rows(1, 2, 3))
    logs.stream = Stream(logs.root, logs.out)
    logs.poll(30)
    assert "is not followed for now" in logs.said[0]
    assert (logs.out / "RAM/BINANCE/ethusdt.json").exists()
