from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from candlebeam.formats.candles.companion import CandlePaths, Companion, ResumeState
from candlebeam.model import Market, Timeframe
from candlebeam.plan import (
    MarketTask,
    PlannedMarket,
)
from candlebeam.rules.price_scale import PriceScale
from candlebeam.settings import CandleSettings
from tests.candle_pairs import companion_of, some_records, write_pair
from tests.planned_archive import FOLDER, HOUR, Archive, hours, read_hours, task_of
from tests.trade_batches import MARKET, MIDNIGHT, MINUTE


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    found = Archive(tmp_path)
    with found.catalog:
        yield found


# Resuming


def test_market_without_candles_is_made_from_all(archive: Archive) -> None:
    archive.add(*hours(0, 1))
    plan = archive.plan()
    assert read_hours(plan) == [["00"], ["01"]]
    assert not task_of(plan).rebuilt


def test_market_whose_last_input_has_not_changed_is_not_read(archive: Archive) -> None:
    archive.add(*hours(0, 1))
    archive.commit(*hours(1), covered=2)
    assert archive.plan() == PlannedMarket(MARKET, records=3)


def test_last_input_that_has_grown_is_read_again_alone(archive: Archive) -> None:
    archive.add(*hours(0, 1))
    companion = archive.commit(*hours(1), covered=2)
    (archive.root / FOLDER / hours(1)[0]).write_bytes(bytes(300))
    plan = archive.plan()
    task = task_of(plan)
    assert read_hours(plan) == [["01"]]
    assert plan.shards[0].files[0].seen == 50
    assert plan.shards[0].from_ts == companion.end_ts - MINUTE.ms
    assert Companion.decode(task.base, "x.json") == companion
    assert (task.covered, task.group_ordinal, task.rebuilt) == (2, 0, False)


def test_last_input_that_was_compressed_meanwhile_is_read_again(archive: Archive) -> None:
    archive.add(*hours(0, 1))
    archive.commit(*hours(1), covered=2)
    path = archive.root / FOLDER / hours(1)[0]
    path.rename(f"{path}.gz")
    assert read_hours(archive.plan()) == [["01"]]
    archive.add()
    assert read_hours(archive.plan()) == [["01"]]


def test_last_input_that_is_gone_has_nothing_new(archive: Archive) -> None:
    archive.add(*hours(0, 1))
    archive.commit(*hours(1), covered=2)
    (archive.root / FOLDER / hours(1)[0]).unlink()
    assert archive.plan() == PlannedMarket(MARKET, records=3)


def test_new_files_are_read_after_the_last_input(archive: Archive) -> None:
    archive.add(*hours(0, 1))
    archive.commit(*hours(1), covered=2)
    archive.add(*hours(2, 3, 4))
    plan = archive.plan()
    task = task_of(plan)
    assert read_hours(plan) == [["01", "02", "03"], ["04"]]
    assert [file.seen for file in plan.shards[0].files] == [50, 0, 0]
    assert (task.covered, task.late_files) == (5, 0)
    assert task.last_start_ts == MIDNIGHT + 4 * HOUR


def test_files_indexed_late_are_counted_and_left_out(archive: Archive) -> None:
    archive.add(*hours(1, 3))
    archive.commit(*hours(3), covered=2, hour=3)
    archive.add(*hours(0, 2))
    assert archive.plan() == PlannedMarket(MARKET, records=3, late_files=2)
    archive.add(*hours(4))
    plan = archive.plan()
    assert read_hours(plan) == [["03"], ["04"]]
    assert (task_of(plan).late_files, task_of(plan).covered) == (2, 3)


def test_late_files_make_the_market_again_if_that_is_asked_for(archive: Archive) -> None:
    archive.add(*hours(1))
    archive.commit(*hours(1))
    archive.add(*hours(0))
    plan = archive.plan(rebuild_late=True)
    task = task_of(plan)
    assert read_hours(plan) == [["00"], ["01"]]
    assert (task.base, task.rebuilt, task.covered) == (b"", True, 2)
    assert task.notes == ("1 inputs were indexed late; the market was made again",)


def test_file_of_the_last_start_is_new_if_it_sorts_behind_and_late_if_before(
    archive: Archive,
) -> None:
    archive.add("2024-03-01-01")
    archive.commit("2024-03-01-01")
    other = archive.root / "RAM" / "c" / "BINANCE" / "btcusdt"
    for bucket, late, read in (("c", 0, 2), ("a", 1, 2)):
        folder = other.parents[2] / bucket / "BINANCE" / "btcusdt"
        folder.mkdir(parents=True)
        (folder / "2024-03-01-01").touch()
        archive.catalog.index(str(archive.root))
        plan = archive.plan()
        assert task_of(plan).late_files == late
        assert [len(shard.files) for shard in plan.shards] == [read]


def test_skipped_input_that_comes_back_counts_as_late(archive: Archive) -> None:
    archive.add(*hours(0, 1))
    path = archive.root / FOLDER / hours(0)[0]
    path.unlink()
    archive.commit(*hours(1), covered=2, skipped=((str(archive.root), f"{FOLDER}/{path.name}"),))
    assert archive.plan().late_files == 0
    Path(f"{path}.gz").touch()
    assert archive.plan().late_files == 1


def test_archive_that_has_moved_is_known_by_its_paths(archive: Archive) -> None:
    archive.add(*hours(0, 1))
    archive.commit(*hours(1), covered=2)
    moved = Archive(archive.root.parent / "moved")
    moved.add(*hours(0, 1))
    moved.out = archive.out
    with moved.catalog:
        assert moved.plan() == PlannedMarket(MARKET, records=3)


def test_two_last_inputs_are_not_taken_for_one_that_has_moved(archive: Archive) -> None:
    archive.add(*hours(1))
    companion = archive.commit(*hours(1), covered=2)
    assert companion.state is not None
    (seen,) = companion.state.inputs
    elsewhere = tuple(replace(seen, root=root) for root in ("/one", "/two"))
    archive.commit(*hours(1), covered=2, inputs=elsewhere[:1])
    assert archive.plan().error is None
    archive.commit(*hours(1), covered=2, inputs=elsewhere)
    assert "the input that the candles end with, is not in " in str(archive.plan().error)


def test_last_input_that_is_not_indexed_is_an_error(archive: Archive) -> None:
    archive.add(*hours(0, 1))
    archive.commit(*hours(1), covered=2)
    empty = Archive(archive.root.parent / "empty")
    empty.out = archive.out
    with empty.catalog:
        empty.add(*hours(0))
        plan = empty.plan()
    assert plan.task is None
    assert plan.error == (
        f"{FOLDER}/{hours(1)[0]}, the input that the candles end with, is not in"
        f" {empty.catalog.path}; add it, or use --force to make the market from what is there"
    )


# Candles that cannot be gone on from


def test_force_makes_the_market_from_all(archive: Archive) -> None:
    archive.add(*hours(0, 1))
    archive.commit(*hours(1), covered=2)
    plan = archive.plan(force=True)
    assert read_hours(plan) == [["00"], ["01"]]
    assert (task_of(plan).base, task_of(plan).rebuilt, task_of(plan).notes) == (b"", True, ())


@pytest.mark.parametrize(
    ("damage", "note"),
    [
        ("no companion", "btcusdt.bin has no companion; the market was made again"),
        ("no records", "btcusdt.bin is missing; the market was made again"),
        ("short records", "btcusdt.bin has 167 of 168 bytes; the market was made again"),
        ("bad companion", "expected JSON of a candle file"),
    ],
)
def test_damaged_pair_is_made_again_and_the_report_says_so(
    archive: Archive, damage: str, note: str
) -> None:
    archive.add(*hours(0, 1))
    archive.commit(*hours(1), covered=2)
    paths = CandlePaths.of(str(archive.out), MARKET)
    companion, records = Path(paths.companion), Path(paths.records)
    if damage == "no companion":
        companion.unlink()
    elif damage == "no records":
        records.unlink()
    elif damage == "short records":
        records.write_bytes(records.read_bytes()[:-1])
    else:
        companion.write_bytes(b"{")
    plan = archive.plan()
    assert read_hours(plan) == [["00"], ["01"]]
    assert task_of(plan).rebuilt
    (found,) = task_of(plan).notes
    assert note in found


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (CandleSettings(timeframe=Timeframe(300_000)), "timeframe 5m, not 1m"),
        (CandleSettings(liquidations="included"), "liquidations included, not separate"),
        (CandleSettings(corrections=()), "corrections none, not bitfinex-liquidation-side, okex"),
        (CandleSettings(price_scale=PriceScale(6)), "priceScale 1000000, not auto"),
    ],
)
def test_candles_made_with_other_settings_are_an_error(
    archive: Archive, settings: CandleSettings, words: str
) -> None:
    archive.add(*hours(0, 1))
    archive.commit(*hours(1), covered=2, settings=settings)
    plan = archive.plan()
    assert plan.task is None
    assert plan.error is not None
    assert f"made with other settings ({words}" in plan.error
    assert "--force" in plan.error


def test_candles_of_another_program_are_an_error(archive: Archive) -> None:
    archive.add(*hours(0, 1))
    write_pair(archive.out, companion_of(3, state=None), some_records(3))
    plan = archive.plan()
    assert plan.error is not None
    assert "was written by another program, or another version of this one; --force" in plan.error
    assert archive.plan(force=True).error is None


def test_candles_of_another_market_are_an_error(archive: Archive) -> None:
    archive.add(*hours(0, 1))
    companion = archive.commit(*hours(1), covered=2)
    other = replace(companion, market=Market("PI", "BINANCE", "btcusdt"))
    Path(CandlePaths.of(str(archive.out), MARKET).companion).write_bytes(other.encode())
    plan = archive.plan()
    assert plan.error is not None
    assert plan.error.endswith("belongs to PI/BINANCE/btcusdt, not to RAM/BINANCE/btcusdt")


def test_tail_behind_the_records_is_no_reason_to_make_them_again(archive: Archive) -> None:
    archive.add(*hours(0, 1))
    archive.commit(*hours(1), covered=2)
    with open(CandlePaths.of(str(archive.out), MARKET).records, "ab") as file:
        file.write(bytes(100))
    assert archive.plan() == PlannedMarket(MARKET, records=3)


def test_task_comes_back_from_its_json(archive: Archive) -> None:
    archive.add(*hours(0, 1))
    companion = archive.commit(*hours(1), covered=2)
    archive.add(*hours(2))
    task = task_of(archive.plan())
    assert Companion.decode(task.base, "x.json") == companion
    assert isinstance(companion.state, ResumeState)
    task = replace(task, notes=("a",), skipped=(("r", "p"),), late_files=3, rebuilt=True)
    assert MarketTask.from_json(json.loads(json.dumps(task.to_json()))) == task
