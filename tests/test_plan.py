from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from candlebeam.model import InputFile, Market, Timeframe
from candlebeam.plan import (
    DEFAULT_SHARD_BYTES,
    plan_market,
)
from candlebeam.rules.price_scale import PriceScale
from candlebeam.settings import CandleSettings
from tests.planned_archive import FOLDER, Archive, hours, read_hours, task_of
from tests.trade_batches import MARKET, MIDNIGHT


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    found = Archive(tmp_path)
    with found.catalog:
        yield found


# Cutting into shards


@pytest.mark.parametrize(
    ("shard_bytes", "shards"),
    [
        (1, [["00"], ["01"], ["02"], ["03"], ["04"]]),
        (99, [["00"], ["01"], ["02"], ["03"], ["04"]]),
        (199, [["00"], ["01"], ["02"], ["03"], ["04"]]),
        (200, [["00", "01"], ["02", "03"], ["04"]]),
        (300, [["00", "01", "02"], ["03"], ["04"]]),
        (10**9, [["00", "01", "02", "03"], ["04"]]),
    ],
)
def test_files_are_cut_by_size_and_those_of_the_last_start_stand_apart(
    archive: Archive, shard_bytes: int, shards: list[list[str]]
) -> None:
    archive.add(*hours(0, 1, 2, 3, 4))
    plan = archive.plan(shard_bytes=shard_bytes)
    assert read_hours(plan) == shards
    assert task_of(plan).group_ordinal == len(shards) - 1
    assert [shard.ordinal for shard in plan.shards] == list(range(len(shards)))
    assert all(shard.from_ts is None for shard in plan.shards)


def test_file_larger_than_a_shard_is_a_shard_of_its_own(archive: Archive) -> None:
    archive.add(*hours(0, 2, 3, 4, 9), size=10)
    archive.add(*hours(1), size=5000)
    plan = archive.plan(shard_bytes=100)
    assert read_hours(plan) == [["00"], ["01"], ["02", "03", "04"], ["09"]]
    assert [shard.bytes for shard in plan.shards] == [10, 5000, 30, 10]


def test_all_inputs_of_the_last_start_are_the_group(archive: Archive) -> None:
    archive.add("2024-02-29", "2024-03-01", "2024-03-01-00.gz", "2024-02-29-01")
    task = task_of(archive.plan())
    assert task.last_start_ts == MIDNIGHT
    assert task.group == (
        (str(archive.root), f"{FOLDER}/2024-03-01"),
        (str(archive.root), f"{FOLDER}/2024-03-01-00"),
    )
    assert (task.shards, task.group_ordinal, task.covered) == (2, 1, 4)
    assert (task.base, task.notes, task.late_files, task.rebuilt) == (b"", (), 0, False)


def test_single_file_is_one_shard(archive: Archive) -> None:
    archive.add(*hours(0))
    plan = archive.plan()
    assert plan.shards[0].files == (InputFile(str(archive.root / FOLDER / hours(0)[0]), 100),)
    assert task_of(plan).group_ordinal == 0


@settings(max_examples=30)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=24), st.integers(1, 900))
def test_every_file_is_read_once_and_in_order_whatever_the_size_of_shards(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], shard_bytes: int
) -> None:
    archive = Archive(tmp_path_factory.mktemp("cut"))
    with archive.catalog:
        archive.add_sized(dict(zip(hours(*range(len(sizes))), sizes, strict=True)))
        plan = archive.plan(shard_bytes=shard_bytes)
    assert [name for shard in read_hours(plan) for name in shard] == [
        f"{hour:02d}" for hour in range(len(sizes))
    ]
    assert all(len(shard.files) == 1 or shard.bytes <= shard_bytes for shard in plan.shards)


# Names of chunks


def test_chunks_of_the_same_work_have_the_same_names(archive: Archive) -> None:
    archive.add(*hours(0, 1, 2))
    names = archive.names()
    assert names == archive.names()
    assert len(set(names)) == 2
    assert all(len(name) == 32 for name in names)


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": CandleSettings(timeframe=Timeframe(1000))},
        {"settings": CandleSettings(corrections=())},
        {"settings": CandleSettings(liquidations="included")},
        {"rejects": "/somewhere"},
        {"shard_bytes": 100},
    ],
    ids="-".join,
)
def test_names_change_with_what_a_chunk_depends_on(
    archive: Archive, changes: dict[str, object]
) -> None:
    archive.add(*hours(0, 1, 2))
    assert not set(archive.names()[:1]) & set(archive.names(**changes)[:1])


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": CandleSettings(price_scale=PriceScale(6))},
        {"out": "/another"},
        {"force": True},
        {"rebuild_late": True},
        {"shard_bytes": DEFAULT_SHARD_BYTES + 1},
    ],
    ids="-".join,
)
def test_names_stay_when_a_chunk_would_be_the_same(
    archive: Archive, changes: dict[str, object]
) -> None:
    archive.add(*hours(0, 1, 2))
    assert archive.names(**changes) == archive.names()


def test_names_of_other_shards_stay_when_files_are_added_at_the_end(archive: Archive) -> None:
    archive.add(*hours(0, 1, 2, 3))
    before = archive.names(shard_bytes=200)
    archive.add(*hours(4, 5))
    after = archive.names(shard_bytes=200)
    assert after[0] == before[0]
    assert len(after) == 4


def test_names_change_with_files_their_order_and_their_market(archive: Archive) -> None:
    archive.add(*hours(0, 1, 2))
    before = archive.names()
    archive.add("2024-02-28")
    assert not set(archive.names()[:1]) & set(before)
    other = Market("RAM", "BINANCE", "other")
    found = plan_market(
        archive.catalog, other, archive.catalog.markets()[MARKET], archive.options()
    )
    assert not set(archive.names()) & {shard.name for shard in found.shards}


def test_names_of_a_resumed_run_change_with_what_has_been_seen(archive: Archive) -> None:
    archive.add(*hours(0, 1, 2))
    fresh = archive.names()
    archive.commit(*hours(1), covered=2)
    resumed = archive.names()
    assert not set(resumed) & set(fresh)
    (archive.root / FOLDER / hours(1)[0]).write_bytes(bytes(300))
    assert archive.names() == resumed
    archive.commit(*hours(1), covered=2)
    assert archive.names()[0] != resumed[0]
