"""Asking for several things at the same time: in order, bounded, and nothing is left open."""

from __future__ import annotations

import gzip
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from candlebeam.errors import Cancelled
from candlebeam.formats.trade_log import reader
from candlebeam.formats.trade_log.reader import TradeLogReader
from candlebeam.model import InputFile
from candlebeam.storage.ahead import asked_ahead
from tests.object_store import Fault, ObjectStore, Request, forget_clients, object_store
from tests.trade_batches import MARKET


class Asked:
    """Answers with what it is asked; counts what is asked for and not taken yet."""

    def __init__(self) -> None:
        self.open: set[int] = set()
        self.most = 0
        self.lock = threading.Lock()

    def __call__(self, item: int) -> int:
        with self.lock:
            self.open.add(item)
            self.most = max(self.most, len(self.open))
        time.sleep(0.001 * (item % 3))
        if item == 13:
            raise OSError("no such luck")
        return item


def test_answers_come_in_order() -> None:
    asked = Asked()
    for item in asked_ahead(asked, iter(range(14, 100)), at_once=8):
        asked.open.discard(item)
    assert asked.open == set()
    assert 1 < asked.most <= 9  # eight, and the one that was just handed out
    assert list(asked_ahead(asked, [], at_once=8)) == []


def test_errors_come_in_their_turn() -> None:
    answers = asked_ahead(Asked(), range(20), at_once=8)
    assert [next(answers) for _ in range(13)] == list(range(13))
    with pytest.raises(OSError, match="no such luck"):
        next(answers)


def test_size_bounds_what_is_held() -> None:
    asked = Asked()
    for item in asked_ahead(asked, range(10), at_once=8, size=lambda _: 10, most=30):
        asked.open.discard(item)
    assert asked.most <= 4
    asked = Asked()
    for item in asked_ahead(asked, range(10), at_once=8, size=lambda _: 10, most=5):
        asked.open.discard(item)
    assert asked.most <= 2


def test_what_is_not_wanted_any_more_is_dropped() -> None:
    asked = Asked()
    dropped: list[int] = []
    answers = asked_ahead(asked, range(10), at_once=4, drop=dropped.append)
    assert next(answers) == 0
    answers.close()
    assert sorted([0, *dropped]) == sorted(asked.open)


# Trade logs


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    with object_store() as running:
        yield running


@pytest.fixture
def store(server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    yield server
    forget_clients()


def put_files(store: ObjectStore, folder: Path, count: int) -> tuple[str, list[str]]:
    """Files on this machine and on S3: good, packed, empty, damaged, not there."""
    bucket, names = store.bucket(), []
    for number in range(count):
        row = b"%d 1.5 2 1\n" % (1_704_067_200_000 + number)
        packed = gzip.compress(row * (number + 1))
        kinds = {0: row, 1: packed, 2: b"", 3: packed[:-9], 4: None}
        data = kinds[number % 5]
        name = f"{number:03d}" + ".gz" * (number % 5 in (1, 3))
        names.append(name)
        if data is not None:
            (folder / name).write_bytes(data)
            store.put(f"{bucket}/{name}", data)
    return bucket, names


def open_descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def test_remote_files_give_what_local_ones_give(store: ObjectStore, tmp_path: Path) -> None:
    bucket, names = put_files(store, tmp_path, 45)
    local = TradeLogReader(MARKET, [InputFile(str(tmp_path / name)) for name in names])
    remote = TradeLogReader(MARKET, [InputFile(f"{bucket}/{name}", 50) for name in names])
    before = open_descriptors()
    expected = [batch.ts.tolist() for batch in local]
    assert [batch.ts.tolist() for batch in remote] == expected
    for ours, theirs in zip(remote.outcomes, local.outcomes, strict=True):
        assert ours.path.replace(bucket, str(tmp_path)) == theirs.path
        same = ("size", "text_bytes", "trades", "damage", "error")
        assert [getattr(ours, n) for n in same] == [getattr(theirs, n) for n in same]
    forget_clients()
    assert open_descriptors() <= before


def test_remote_files_are_fetched_while_others_are_read(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_FETCHED_AT_ONCE", 4)
    bucket, names = put_files(store, tmp_path, 10)
    waiting = threading.Barrier(4)

    def wait(request: Request, number: int) -> Fault | None:
        if request.kind == "GET" and number <= 4:
            waiting.wait(60)  # it breaks unless four are under way together
        return None

    with store.failing(wait):
        list(TradeLogReader(MARKET, [InputFile(f"{bucket}/{name}") for name in names]))
    assert not waiting.broken


def test_reading_that_is_cancelled_leaves_nothing_open(store: ObjectStore, tmp_path: Path) -> None:
    bucket, names = put_files(store, tmp_path, 30)
    left = iter([False] * 5)
    before = open_descriptors()
    files = [InputFile(f"{bucket}/{name}") for name in names]
    with pytest.raises(Cancelled):
        list(TradeLogReader(MARKET, files, cancelled=lambda: next(left, True)))
    forget_clients()
    assert open_descriptors() <= before
