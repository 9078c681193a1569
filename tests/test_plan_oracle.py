"""The plan held against a naive reading of the rules, on made-up rows of a catalog."""

from __future__ import annotations

import pickle
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from candlebeam.catalog import Catalog, parse_start
from candlebeam.model import InputFile, Market
from candlebeam.plan import PlannedMarket, PlanOptions, plan_market
from candlebeam.rules.symbols import normalize_symbol
from candlebeam.settings import CandleSettings
from candlebeam.shards import FileRun, cut

#: One lies in the other, as roots may.
ROOTS = ("/archive", "/archive/RAM", "/")
NAMES = (
    "2021-08-18", "2021-08-18-00", "2021-08-18-15", "2021-08-18-16", "2021-08-19",
    "2021-08-19-00", "2021-08-19-04", "2025-11-27-23", "2025-11-28", "2025-11-28-00",
)  # fmt: skip
SYMBOLS = (
    ("POLONIEX", "BTC_ETH"),
    ("POLONIEX", "ETH_BTC"),
    ("BITGET", "BTCUSDT"),
    ("BITGET", "BTCUSDT_UMCBL"),
    ("BITGET", "btcusdt-SPOT"),
    ("BINANCE", "btc\u00fcsdt"),
    ("BINANCE", "btc"),
)


class Row(NamedTuple):
    """A file as it is indexed."""

    root: str
    folder: str
    exchange: str
    symbol: str
    name: str
    ext: str
    size: int

    @property
    def path(self) -> str:
        return f"{self.folder}/{self.exchange}/{self.symbol}/{self.name}"

    @property
    def start_ts(self) -> int:
        found = parse_start(self.name)
        assert found is not None
        return found[0]

    @property
    def market(self) -> Market:
        symbol = normalize_symbol(self.exchange.upper(), self.symbol, self.start_ts)
        return Market(self.folder.split("/")[0].upper(), self.exchange.upper(), symbol)

    @property
    def full_path(self) -> str:
        return f"{self.root.rstrip('/')}/{self.path}{self.ext}"


ROWS = st.lists(
    st.builds(
        lambda root, folder, market, name, ext, size: Row(
            root, folder, market[0], market[1], name, ext, size
        ),
        st.sampled_from(ROOTS),
        st.sampled_from(["RAM/a", "RAM/b", "ram/a", "PI/a"]),
        st.sampled_from(SYMBOLS),
        st.sampled_from(NAMES),
        st.sampled_from(["", ".gz"]),
        st.integers(0, 300),
    ),
    min_size=1,
    max_size=60,
    unique_by=lambda row: row.full_path,
)


def write_rows(path: Path, rows: Sequence[Row]) -> str:
    Catalog(str(path), create=True).__exit__()
    roots = list(dict.fromkeys(row.root for row in rows))
    with closing(sqlite3.connect(path)) as database, database:
        database.executemany("INSERT INTO roots VALUES (?, ?)", enumerate(roots))
        database.executemany(
            "INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    roots.index(row.root), row.path + row.ext, row.market.collector,
                    row.market.exchange, row.symbol, row.start_ts, row.ext, row.size,
                )
                for row in rows
            ],
        )  # fmt: skip
    return str(path)


def expected_files(rows: Sequence[Row], market: Market) -> list[Row]:
    """The inputs of a market, in file order."""
    ours = [row for row in rows if row.market == market]
    whole = {(row.root, row.path) for row in ours if not row.ext}
    once = [row for row in ours if not row.ext or (row.root, row.path) not in whole]
    return sorted(once, key=lambda row: (row.start_ts, row.path, row.root))


def expected_cut(rows: Sequence[Row], shard_bytes: int) -> list[list[InputFile]]:
    runs: list[list[InputFile]] = []
    size = 0
    for row in rows:
        if not runs or size + row.size > shard_bytes:
            runs.append([])
            size = 0
        runs[-1].append(InputFile(row.full_path, row.size))
        size += row.size
    return runs


def plan_all(database: str, shard_bytes: int) -> dict[Market, PlannedMarket]:
    options = PlanOptions("/nothing/there", CandleSettings(), shard_bytes)
    with Catalog(database) as catalog:
        return {
            market: plan_market(catalog, market, ranges, options)
            for market, ranges in catalog.markets().items()
        }


@settings(max_examples=60)
@given(ROWS, st.integers(1, 900), st.randoms(use_true_random=False))
def test_plan_is_that_of_a_naive_reading_whatever_the_order_of_indexing(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], shard_bytes: int, random: Random
) -> None:
    folder = tmp_path_factory.mktemp("plan")
    plans = plan_all(write_rows(folder / "db", rows), shard_bytes)
    assert list(plans) == sorted({row.market for row in rows})
    for market, plan in plans.items():
        files = expected_files(rows, market)
        last = [row for row in files if row.start_ts == files[-1].start_ts]
        before = expected_cut(files[: -len(last)], shard_bytes)
        runs = before + expected_cut(last, shard_bytes)
        assert [list(shard.files) for shard in plan.shards] == runs
        assert [shard.ordinal for shard in plan.shards] == list(range(len(runs)))
        task = plan.task
        assert task is not None
        assert task.group == tuple((row.root, row.path) for row in last)
        assert (task.group_ordinal, task.covered) == (len(before), len(files))
    names = [shard.name for plan in plans.values() for shard in plan.shards]
    assert len(set(names)) == len(names)
    random.shuffle(rows)
    assert plan_all(write_rows(folder / "again", rows), shard_bytes) == plans


@settings(max_examples=60)
@given(ROWS, st.integers(0, len(NAMES) - 1))
def test_files_from_and_before_a_moment_are_those_of_a_naive_reading(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], place: int
) -> None:
    moment = Row("", "", "", "", NAMES[place], "", 0).start_ts
    with Catalog(write_rows(tmp_path_factory.mktemp("plan") / "db", rows)) as catalog:
        for market, ranges in catalog.markets().items():
            files = expected_files(rows, market)
            later = [row.full_path for row in files if row.start_ts >= moment]
            found = catalog.files(market, ranges, moment)
            assert [file.full_path for file in found] == later
            assert catalog.count_before(market, ranges, moment) == len(files) - len(later)
            every = [file.full_path for file in catalog.files(market, ranges)]
            assert every == [row.full_path for row in files]
            assert catalog.inputs(market, ranges).paths == every


def test_files_that_were_indexed_meanwhile_are_seen(tmp_path: Path) -> None:
    with Catalog(str(tmp_path / "db"), create=True) as catalog:
        for bucket in ("one", "two"):
            folder = tmp_path / "archive" / "RAM" / bucket / "BINANCE" / "btc"
            folder.mkdir(parents=True)
            (folder / "2024-03-01").touch()
            catalog.index(str(tmp_path / "archive"))
            ((market, ranges),) = catalog.markets().items()
        assert len(catalog.inputs(market, ranges).paths) == 2
        (folder / "2024-03-02").touch()
        (folder.parents[2] / "three" / "BINANCE" / "btc").mkdir(parents=True)
        (folder.parents[2] / "three" / "BINANCE" / "btc" / "2024-03-01").touch()
        catalog.index(str(tmp_path / "archive"))
        assert len(catalog.inputs(market, ranges).paths) == 4


# Files as columns

FILES = st.lists(
    st.builds(InputFile, st.text(st.characters(exclude_characters="\0")), st.integers(0, 2**62)),
    max_size=5,
)


@given(FILES, st.slices(5))
def test_run_of_files_is_a_sequence_of_them(files: list[InputFile], part: slice) -> None:
    run = FileRun.of(files)
    assert FileRun.of(run) is run
    assert list(run) == files
    assert [run[place] for place in range(len(run))] == files
    assert run[part] == tuple(files[part])
    assert run == tuple(files)
    assert hash(run) == hash(tuple(files))
    assert pickle.loads(pickle.dumps(run)) == run  # noqa: S301
    assert run.total == sum(file.size for file in files)
    if files:
        assert FileRun.decode_paths(run.encode_paths()) == [file.path for file in files]


def test_runs_with_and_without_what_has_been_seen_are_told_apart() -> None:
    files = [InputFile("a", 1, 0), InputFile("b", 2, 3)]
    assert FileRun(["a", "b"], [1, 2], [0, 3]) == files
    assert FileRun(["a", "b"], [1, 2]) != files
    assert FileRun(["a", "b"], [1, 2]) == FileRun(["a", "b"], [1, 2], [0, 0])
    assert FileRun(["a"], [1]) != "a"


def test_files_without_bytes_go_with_others_but_not_behind_a_file_that_is_too_large() -> None:
    assert list(map(len, cut(FileRun(list("abcde"), [0, 0, 9, 0, 0]), 5))) == [2, 1, 2]
    assert list(map(len, cut(FileRun(list("abc"), [5, 0, 0]), 5))) == [3]
    assert cut(FileRun([], []), 5) == []
