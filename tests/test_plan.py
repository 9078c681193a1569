from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from candlebeam.catalog import Catalog
from candlebeam.formats.candle_file import CandlePaths, Companion, InputState, ResumeState
from candlebeam.model import InputFile, Market, Timeframe
from candlebeam.plan import (
    DEFAULT_SHARD_BYTES,
    MarketTask,
    PlannedMarket,
    PlanOptions,
    plan_market,
)
from candlebeam.rules.price_scale import PriceScale
from candlebeam.settings import CandleSettings
from tests.candle_pairs import STATE, companion_of, some_records, write_pair
from tests.trade_batches import MARKET, MIDNIGHT, MINUTE

FOLDER = "RAM/b/BINANCE/btcusdt"
HOUR = 3_600_000


class Archive:
    """Files of one market, indexed, and an output root."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.root = folder / "archive"
        self.out = folder / "out"
        self.catalog = Catalog(str(folder / "db"), create=True)

    def add(self, *names: str, size: int = 100) -> None:
        self.add_sized(dict.fromkeys(names, size))

    def add_sized(self, sizes: Mapping[str, int]) -> None:
        folder = self.root / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        for name, size in sizes.items():
            (folder / name).write_bytes(bytes(size))
        self.catalog.index(str(self.root))

    def options(self, **changes: object) -> PlanOptions:
        return replace(PlanOptions(str(self.out), CandleSettings()), **changes)  # type: ignore[arg-type]

    def plan(self, **changes: object) -> PlannedMarket:
        ranges = self.catalog.markets()[MARKET]
        return plan_market(self.catalog, MARKET, ranges, self.options(**changes))

    def names(self, **changes: object) -> list[str]:
        """The names of the chunks of a fresh plan."""
        return [shard.name for shard in self.plan(**changes).shards]

    def commit(self, *names: str, covered: int = 1, hour: int = 1, **changes: object) -> Companion:
        """Candles of three minutes that end with these files, as a run would have left them."""
        inputs = []
        for name in names:
            size = (self.root / FOLDER / name).stat().st_size
            path = f"{FOLDER}/{name.removesuffix('.gz')}"
            inputs.append(InputState(str(self.root), path, name, size, size // 2))
        state = replace(
            STATE,
            inputs=tuple(inputs),
            covered=covered,
            **changes,  # type: ignore[arg-type]
        )
        companion = replace(
            companion_of(3, state=state), last_input_start_ts=MIDNIGHT + hour * HOUR
        )
        write_pair(self.out, companion, some_records(3))
        return companion


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    found = Archive(tmp_path)
    with found.catalog:
        yield found


def hours(*numbers: int) -> list[str]:
    return [f"2024-03-01-{number:02d}" for number in numbers]


def read_hours(plan: PlannedMarket) -> list[list[str]]:
    """The files of every shard, as the last digits of their names."""
    return [[Path(file.path).name[11:] for file in shard.files] for shard in plan.shards]


def task_of(plan: PlannedMarket) -> MarketTask:
    assert plan.error is None
    assert plan.task is not None
    return plan.task


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
        f"{FOLDER}/{hours(1)[0]}, the input that the candles end with, is not in the catalog;"
        " index it, or use --force to make the market from what is there"
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
