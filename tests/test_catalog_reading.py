from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from candlebeam.catalog import (
    Catalog,
    IndexSummary,
    SymbolRange,
)
from candlebeam.errors import CandlebeamError
from candlebeam.model import Market
from candlebeam.rules.symbols import BITGET_RENAME_TS, POLONIEX_FLIP_TS
from tests.archive_folders import all_files, fill

HOUR = 3_600_000
MIDNIGHT = 1_709_251_200_000  # 2024-03-01
BTC = "RAM/bucket/BINANCE/btcusdt"
BTC_MARKET = Market("RAM", "BINANCE", "btcusdt")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog(str(tmp_path / "index.sqlite"), create=True) as found:
        yield found


# Markets and their files


def test_file_and_its_twin_are_one_input_and_the_plain_one_is_read(
    root: Path, catalog: Catalog
) -> None:
    fill(root, f"{BTC}/2024-03-01-00", f"{BTC}/2024-03-01-01.gz", f"{BTC}/2024-03-01-02")
    fill(root, f"{BTC}/2024-03-01-00.gz", f"{BTC}/2024-03-01-02.gz", size=5)
    assert catalog.index(str(root)).added == 5
    ranges = catalog.markets()[BTC_MARKET]
    files = catalog.files(BTC_MARKET, ranges)
    assert [(file.ext, file.size) for file in files] == [("", 10), (".gz", 10), ("", 10)]
    assert catalog.count_before(BTC_MARKET, ranges, MIDNIGHT + 2 * HOUR) == 2
    assert catalog.count_before(BTC_MARKET, ranges, MIDNIGHT + 9 * HOUR) == 3
    assert catalog.count_before(BTC_MARKET, ranges, MIDNIGHT) == 0


def test_daily_file_and_the_file_of_its_first_hour_are_two(root: Path, catalog: Catalog) -> None:
    fill(root, f"{BTC}/2024-03-01", f"{BTC}/2024-03-01-00")
    catalog.index(str(root))
    assert all_files(catalog)[str(BTC_MARKET)] == [f"{BTC}/2024-03-01", f"{BTC}/2024-03-01-00"]


def test_files_come_by_start_then_path(root: Path, catalog: Catalog) -> None:
    fill(root, "RAM/z/POLONIEX/BTC_USDT/2022-01-01-00", "RAM/a/POLONIEX/USDT_BTC/2022-01-01-04")
    fill(root, "RAM/a/POLONIEX/usdt_btc/2022-01-01-00", "RAM/a/POLONIEX/BTC_USDT/2022-01-01-04")
    catalog.index(str(root))
    assert all_files(catalog) == {
        "RAM/POLONIEX/BTC_USDT": [
            "RAM/a/POLONIEX/usdt_btc/2022-01-01-00",
            "RAM/z/POLONIEX/BTC_USDT/2022-01-01-00",
            "RAM/a/POLONIEX/BTC_USDT/2022-01-01-04",
            "RAM/a/POLONIEX/USDT_BTC/2022-01-01-04",
        ]
    }


def test_files_from_a_moment_on(root: Path, catalog: Catalog) -> None:
    fill(root, *(f"{BTC}/2024-03-01-{hour:02d}" for hour in range(5)))
    catalog.index(str(root))
    ranges = catalog.markets()[BTC_MARKET]
    for from_ts, expected in ((MIDNIGHT + 2 * HOUR, 3), (MIDNIGHT + 2 * HOUR + 1, 2), (0, 5)):
        assert len(catalog.files(BTC_MARKET, ranges, from_ts)) == expected


def test_one_raw_name_can_be_two_markets_over_time(root: Path, catalog: Catalog) -> None:
    fill(root, *(f"RAM/b/BITGET/BTCUSDT/2025-11-{day}" for day in (26, 27, 28, 29)))
    fill(root, "RAM/b/BITGET/BTCUSDT_UMCBL/2025-11-01")
    fill(root, "RAM/b/POLONIEX/BTC_ETH/2021-08-18-15", "RAM/b/POLONIEX/BTC_ETH/2021-08-18-16")
    catalog.index(str(root))
    assert all_files(catalog) == {
        "RAM/BITGET/BTCUSDT": [
            "RAM/b/BITGET/BTCUSDT_UMCBL/2025-11-01",
            "RAM/b/BITGET/BTCUSDT/2025-11-28",
            "RAM/b/BITGET/BTCUSDT/2025-11-29",
        ],
        "RAM/BITGET/BTCUSDT-SPOT": [
            "RAM/b/BITGET/BTCUSDT/2025-11-26",
            "RAM/b/BITGET/BTCUSDT/2025-11-27",
        ],
        "RAM/POLONIEX/BTC_ETH": ["RAM/b/POLONIEX/BTC_ETH/2021-08-18-16"],
        "RAM/POLONIEX/ETH_BTC": ["RAM/b/POLONIEX/BTC_ETH/2021-08-18-15"],
    }
    spot = catalog.markets()[Market("RAM", "BITGET", "BTCUSDT-SPOT")]
    assert spot == [SymbolRange("BTCUSDT", -(1 << 62), BITGET_RENAME_TS)]
    assert POLONIEX_FLIP_TS in {
        r.from_ts for r in catalog.markets()[Market("RAM", "POLONIEX", "BTC_ETH")]
    }


def test_meaning_of_a_name_without_a_file_is_no_market(root: Path, catalog: Catalog) -> None:
    fill(root, "RAM/b/BITGET/BTCUSDT/2025-11-28")
    catalog.index(str(root))
    assert list(catalog.markets()) == [Market("RAM", "BITGET", "BTCUSDT")]


OF_RAM = ["RAM/BINANCE/BTCUSDT", "RAM/BINANCE/btcusdt", "RAM/POLONIEX/BTC_USDT"]


@pytest.mark.parametrize(
    ("filters", "markets"),
    [
        ({}, ["PI/POLONIEX/BTC_USDT", *OF_RAM]),
        ({"collector": "ram"}, OF_RAM),
        ({"exchange": "Poloniex"}, ["PI/POLONIEX/BTC_USDT", "RAM/POLONIEX/BTC_USDT"]),
        ({"symbol": "btcusdt"}, ["RAM/BINANCE/btcusdt"]),
        ({"symbol": "BTC_USDT"}, ["PI/POLONIEX/BTC_USDT", "RAM/POLONIEX/BTC_USDT"]),
        ({"symbol": "USDT_BTC"}, ["RAM/POLONIEX/BTC_USDT"]),
        ({"collector": "PI", "exchange": "BINANCE"}, []),
        ({"collector": "RA"}, []),
        ({"symbol": "%"}, []),
    ],
)  # fmt: skip
def test_filters(root: Path, catalog: Catalog, filters: dict[str, str], markets: list[str]) -> None:
    fill(root, f"{BTC}/2024-03-01", "RAM/bucket/BINANCE/BTCUSDT/2024-03-01")
    fill(root, "ram/b/poloniex/USDT_BTC/2024-03-01", "PI/b/POLONIEX/BTC_USDT/2024-03-01")
    catalog.index(str(root))
    assert [str(market) for market in catalog.markets(**filters)] == markets


def test_symbol_filter_takes_all_files_of_its_market(root: Path, catalog: Catalog) -> None:
    fill(root, "RAM/b/POLONIEX/USDT_BTC/2024-03-01", "RAM/b/POLONIEX/BTC_USDT/2024-03-02")
    catalog.index(str(root))
    for symbol in ("USDT_BTC", "BTC_USDT"):
        ((market, ranges),) = catalog.markets(symbol=symbol).items()
        assert len(catalog.files(market, ranges)) == 2


SYMBOLS = st.text(st.sampled_from("abAB_%' -./\u00fc"), min_size=1, max_size=4).filter(
    lambda text: "/" not in text and text not in (".", "..")
)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from(["A", "B"]), SYMBOLS), min_size=1, max_size=9))
def test_every_file_belongs_to_exactly_one_market(
    tmp_path_factory: pytest.TempPathFactory, folders: list[tuple[str, str]]
) -> None:
    root = tmp_path_factory.mktemp("archive")
    paths = {f"RAM/b/{exchange}/{symbol}/2024-03-01" for exchange, symbol in folders}
    fill(root, *paths)
    with Catalog(str(root / "db"), create=True) as catalog:
        assert catalog.index(str(root)).added == len(paths)
        assert catalog.index(str(root)).known == len(paths)
        found = all_files(catalog)
    assert sorted(path for files in found.values() for path in files) == sorted(paths)
    assert set(found) == {f"RAM/{exchange}/{symbol}" for exchange, symbol in folders}


# What is no catalog


def test_missing_catalog_says_how_to_make_one(tmp_path: Path) -> None:
    path = str(tmp_path / "db")
    with pytest.raises(
        CandlebeamError, match=f"{path}: no such catalog; make one with `candlebeam"
    ):
        Catalog(path)
    assert not os.path.exists(path)


@pytest.mark.parametrize("create", [False, True])
def test_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, create: bool) -> None:
    path = tmp_path / "db"
    path.write_bytes(b"time,price\n" * 1000)
    with pytest.raises(CandlebeamError, match="db: expected a catalog, found: file is not a data"):
        Catalog(str(path), create=create)
    assert path.read_bytes() == b"time,price\n" * 1000


@pytest.mark.parametrize("version", [0, 7])
@pytest.mark.parametrize("create", [False, True])
def test_database_of_another_program_is_refused_and_left_alone(
    tmp_path: Path, version: int, create: bool
) -> None:
    path = tmp_path / "db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE files (name TEXT)")
        db.execute(f"PRAGMA user_version = {version}")
    db.close()
    before = path.read_bytes()
    with pytest.raises(CandlebeamError, match=r"db: expected a catalog.*, found"):
        Catalog(str(path), create=create)
    assert path.read_bytes() == before


def test_empty_file_becomes_a_catalog_only_when_one_is_to_be_made(tmp_path: Path) -> None:
    path = tmp_path / "db"
    path.touch()
    with pytest.raises(CandlebeamError, match="expected a catalog of version 1, found version 0"):
        Catalog(str(path))
    with Catalog(str(path), create=True) as catalog:
        assert catalog.markets() == {}


@pytest.mark.parametrize("name", ["folder", "missing/db"])
def test_catalog_that_cannot_be_made_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(CandlebeamError, match=f"{name}: unable to open database file"):
        Catalog(str(tmp_path / name), create=True)


def test_damaged_database_is_an_error_that_names_it(tmp_path: Path, root: Path) -> None:
    path = tmp_path / "db"
    fill(root, *(f"RAM/b/A/m{n}/2024-03-01" for n in range(300)))
    with Catalog(str(path), create=True) as catalog:
        catalog.index(str(root))
    data = bytearray(path.read_bytes())
    page = int.from_bytes(data[16:18], "big")
    assert len(data) > 5 * page
    for place in range(3 * page, len(data)):
        data[place] ^= 0x55
    path.write_bytes(bytes(data))
    with Catalog(str(path)) as catalog:
        market, ranges = Market("RAM", "A", "m1"), [SymbolRange("m1", 0, 1 << 62)]
        with pytest.raises(CandlebeamError, match=r"db: .*malformed"):
            catalog.markets()
        with pytest.raises(CandlebeamError, match=r"db: .*malformed"):
            catalog.files(market, ranges)
        with pytest.raises(CandlebeamError, match=r"db: .*malformed"):
            catalog.count_before(market, ranges, 1 << 62)
        with pytest.raises(CandlebeamError, match=r"db: .*malformed"):
            catalog.index(str(root))


def test_database_that_is_locked_is_an_error_and_nothing_is_added(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(root, f"{BTC}/2024-03-01")
    path = str(tmp_path / "db")
    original = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: original(*a, **{**k, "timeout": 0}))
    with Catalog(path, create=True) as catalog:
        other = original(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(CandlebeamError, match="db: database is locked"):
            catalog.index(str(root))
        other.close()
        assert catalog.index(str(root)) == IndexSummary(added=1)
