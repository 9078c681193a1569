"""Processes that read before Beam is there: the pipeline relies on them for nothing."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from candlebeam.io import early_workers as early
from candlebeam.io.cancellation import cancel
from candlebeam.io.make_chunk import make_chunks
from candlebeam.io.staging import Staging, list_shards, read_shard
from candlebeam.model import InputFile, Market
from candlebeam.plan import MarketTask
from candlebeam.settings import CandleSettings
from candlebeam.shards import Shard

MARKET = Market("RAM", "BINANCE", "btcusdt")
SHARDS = 4


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    folder = Staging(str(tmp_path / "staging"))
    folder.prepare()
    return folder


@pytest.fixture
def manifests(tmp_path: Path, staging: Staging) -> list[str]:
    shards = []
    for number in range(SHARDS):
        file = tmp_path / f"2021-01-0{number + 1}"
        file.write_text(f"{1609459200000 + number * 86_400_000} 100.5 2 1\n")
        inputs = (InputFile(str(file), file.stat().st_size),)
        shards.append(Shard(MARKET, number, inputs, None, f"chunk-{number}"))
    task = MarketTask(MARKET, SHARDS, 0, SHARDS - 1, (("/", "2021-01-04"),), SHARDS)
    plan = staging.write_plan()
    plan.add(task, tuple(shards))
    return plan.close()


def _workers(run: str, manifests: list[str], staging: Staging) -> early.EarlyWorkers:
    return early.EarlyWorkers(run, manifests, staging, CandleSettings(), None)


def _shards(manifests: list[str]) -> list[Shard]:
    return [read_shard(ref) for manifest in manifests for ref in list_shards(manifest)]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the workers start though other tests may have left threads of Beam behind."""
    monkeypatch.setattr(early, "_can_fork", lambda: True)


def test_workers_make_every_chunk(manifests: list[str], staging: Staging) -> None:
    workers = _workers("all", manifests, staging)
    with early.working_early(workers, "all", 2):
        assert early.early_workers("all") is workers
        assert all(workers.has_made(shard) for shard in _shards(manifests))
    assert early.early_workers("all") is None
    assert all(staging.find_chunk(shard) for shard in _shards(manifests))


def test_a_chunk_of_an_earlier_run_does_not_count_as_made(
    manifests: list[str], staging: Staging
) -> None:
    first, *others = _shards(manifests)
    make_chunks([first], staging, CandleSettings(), None)
    workers = _workers("found", manifests, staging)
    with early.working_early(workers, "found", 1):
        assert not workers.has_made(first)
        assert all(workers.has_made(shard) for shard in others)
    assert staging.find_chunk(first)


def test_without_workers_nobody_waits(manifests: list[str], staging: Staging) -> None:
    workers = _workers("none", manifests, staging)
    with early.working_early(workers, "none", 0):
        assert not any(workers.has_made(shard) for shard in _shards(manifests))


def test_a_process_with_several_threads_does_not_fork(
    manifests: list[str], staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    ended = threading.Event()
    other = threading.Thread(target=ended.wait)
    other.start()
    try:
        workers = _workers("threads", manifests, staging)
        with early.working_early(workers, "threads", 2):
            assert not any(workers.has_made(shard) for shard in _shards(manifests))
    finally:
        ended.set()
        other.join()


def test_a_worker_that_dies_is_not_waited_for(
    manifests: list[str], staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(early, "make_chunks", die)
    workers = _workers("killed", manifests, staging)
    with early.working_early(workers, "killed", 2):
        assert not any(workers.has_made(shard) for shard in _shards(manifests))


def test_a_chunk_that_cannot_be_made_is_left_to_the_pipeline(
    manifests: list[str], staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(early, "make_chunks", fail)
    workers = _workers("full", manifests, staging)
    with early.working_early(workers, "full", 2):
        assert not any(workers.has_made(shard) for shard in _shards(manifests))


def test_asking_waits_for_a_worker_that_is_at_it(
    manifests: list[str], staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, told = os.pipe()

    def wait_until_told(_: set[int]) -> None:
        assert os.read(go_on, 1) == b"!"

    monkeypatch.setattr(early, "_close_all_but", wait_until_told)
    workers = _workers("slow", manifests, staging)
    first = _shards(manifests)[0]
    with early.working_early(workers, "slow", 1):
        made: list[bool] = []
        asker = threading.Thread(target=lambda: made.append(workers.has_made(first)))
        asker.start()
        assert not made
        os.write(told, b"!")
        asker.join(60)
        assert made == [True]
    os.close(go_on)
    os.close(told)


def test_leaving_ends_workers_that_are_at_it(
    manifests: list[str], staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never_end(*_: object) -> None:
        signal.pause()

    monkeypatch.setattr(early, "make_chunks", never_end)
    workers = _workers("endless", manifests, staging)
    with early.working_early(workers, "endless", 2):
        pass
    assert not any(staging.find_chunk(shard) for shard in _shards(manifests))
    for worker in workers._workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker.pid, 0)


def test_a_cancelled_run_begins_nothing(manifests: list[str], staging: Staging) -> None:
    cancel("cancelled")
    workers = _workers("cancelled", manifests, staging)
    with early.working_early(workers, "cancelled", 2):
        assert not any(workers.has_made(shard) for shard in _shards(manifests))
    assert not any(staging.find_chunk(shard) for shard in _shards(manifests))
