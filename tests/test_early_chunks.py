"""Threads that read before Beam is there share the work with the pipeline, and lose nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from candlebeam.io import early_chunks as early
from candlebeam.io.cancellation import cancel
from candlebeam.io.make_chunk import make_chunk
from candlebeam.io.staging import Staging, list_shards, read_shard
from candlebeam.model import InputFile, Market
from candlebeam.plan import MarketTask, Shard
from candlebeam.settings import CandleSettings

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


def _chunks(run: str, manifests: list[str], staging: Staging) -> early.EarlyChunks:
    return early.EarlyChunks(run, manifests, staging, CandleSettings(), None)


def _shards(manifests: list[str]) -> list[Shard]:
    return [read_shard(ref) for manifest in manifests for ref in list_shards(manifest)]


def test_threads_make_every_chunk(manifests: list[str], staging: Staging) -> None:
    chunks = _chunks("all", manifests, staging)
    with early.working_early(chunks, "all", threads=2):
        assert early.early_chunks("all") is chunks
        wait_for(lambda: all(staging.find_chunk(shard) for shard in _shards(manifests)))
        assert all(chunks.has_made(shard) for shard in _shards(manifests))
    assert early.early_chunks("all") is None


def test_a_chunk_of_an_earlier_run_does_not_count_as_made(
    manifests: list[str], staging: Staging
) -> None:
    first, *others = _shards(manifests)
    make_chunk(first, staging, CandleSettings(), None)
    chunks = _chunks("found", manifests, staging)
    with early.working_early(chunks, "found", threads=1):
        assert not chunks.has_made(first)
        assert all(chunks.has_made(shard) for shard in others)
    assert staging.find_chunk(first)


def test_without_threads_nobody_waits(manifests: list[str], staging: Staging) -> None:
    chunks = _chunks("none", manifests, staging)
    with early.working_early(chunks, "none", threads=0):
        assert not any(chunks.has_made(shard) for shard in _shards(manifests))


def test_a_thread_that_ends_is_not_waited_for(
    manifests: list[str], staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(early, "read_shard", fail)
    chunks = _chunks("gone", manifests, staging)
    with early.working_early(chunks, "gone", threads=2):
        assert not any(chunks.has_made(shard) for shard in _shards(manifests))


def test_a_chunk_that_cannot_be_made_is_left_to_the_pipeline(
    manifests: list[str], staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(early, "make_chunk", fail)
    chunks = _chunks("full", manifests, staging)
    with early.working_early(chunks, "full", threads=2):
        assert not any(chunks.has_made(shard) for shard in _shards(manifests))


def test_asking_waits_for_a_thread_that_is_at_it(
    manifests: list[str], staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def make_slowly(shard: Shard, *rest: object) -> None:
        begun.set()
        assert go_on.wait(60)
        make_chunk(shard, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(early, "make_chunk", make_slowly)
    chunks = _chunks("slow", manifests, staging)
    first = _shards(manifests)[0]
    with early.working_early(chunks, "slow", threads=1):
        assert begun.wait(60)
        taken: list[bool] = []
        taker = threading.Thread(target=lambda: taken.append(chunks.has_made(first)))
        taker.start()
        assert not taken
        go_on.set()
        taker.join(60)
        assert taken == [True]
        assert staging.find_chunk(first)


def test_a_cancelled_run_begins_nothing_and_waits_for_nothing(
    manifests: list[str], staging: Staging
) -> None:
    cancel("cancelled")
    chunks = _chunks("cancelled", manifests, staging)
    with early.working_early(chunks, "cancelled", threads=2):
        assert not any(chunks.has_made(shard) for shard in _shards(manifests))
    assert not any(staging.find_chunk(shard) for shard in _shards(manifests))


def wait_for(condition: Callable[[], bool]) -> None:
    """Returns once the condition holds."""

    pause = threading.Event()
    for _ in range(6000):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it never came")
