from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from candlebeam.catalog import (
    SHOWN_STRAYS,
    Catalog,
    IndexSummary,
    parse_start,
)
from candlebeam.errors import UsageError
from candlebeam.inventory import ListedFile
from candlebeam.model import Market
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


# Names


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("2024-03-01", (MIDNIGHT, "")),
        ("2024-03-01-00", (MIDNIGHT, "")),
        ("2024-03-01-00.gz", (MIDNIGHT, ".gz")),
        ("2024-03-01-23.gz", (MIDNIGHT + 23 * HOUR, ".gz")),
        ("2024-02-29", (MIDNIGHT - 24 * HOUR, "")),
        ("1970-01-01", (0, "")),
        ("1969-12-31-23", (-HOUR, "")),
    ],
)
def test_file_name_is_its_start_in_utc(name: str, start: tuple[int, str]) -> None:
    assert parse_start(name) == start


@pytest.mark.parametrize(
    "name",
    [
        "", "2024-03-01-24", "2024-13-01", "2023-02-29", "2024-00-10", "0000-01-01", "24-03-01",
        "2024-03-01-0", "2024-03-01-000", "2024-03-01.GZ", "2024-03-01.gz.gz", "2024-03-01.zip",
        "2024-03-01.gz~", ".2024-03-01", "2024-03-01 ", "2024-03-01\n", "2024_03_01", "x2024-03-01",
        "2024-03-01-00.tmp", "\u0662024-03-01", "2024-03-0\u0661",
    ],
)  # fmt: skip
def test_other_names_are_no_files(name: str) -> None:
    assert parse_start(name) is None


# Indexing


def test_files_are_found_with_what_their_path_says(root: Path, catalog: Catalog) -> None:
    fill(root, f"{BTC}/2024-03-01-04.gz", f"{BTC}/2024-03-01-00", size=123)
    fill(root, "pi/b/kraken/XBT-USDT/2024-03-01")
    summary = catalog.index(str(root))
    assert summary == IndexSummary(added=3)
    markets = catalog.markets()
    assert list(markets) == [Market("PI", "KRAKEN", "XBT-USDT"), BTC_MARKET]
    assert catalog.files(BTC_MARKET, markets[BTC_MARKET]) == [
        ListedFile(MIDNIGHT, f"{BTC}/2024-03-01-00", str(root), "", 123),
        ListedFile(MIDNIGHT + 4 * HOUR, f"{BTC}/2024-03-01-04", str(root), ".gz", 123),
    ]


def test_indexing_again_adds_only_what_is_new(root: Path, catalog: Catalog) -> None:
    fill(root, f"{BTC}/2024-03-01-00", f"{BTC}/2024-03-01-01")
    assert catalog.index(str(root)) == IndexSummary(added=2)
    assert catalog.index(str(root)) == IndexSummary(known=2)
    fill(root, f"{BTC}/2024-03-01-02", "RAM/bucket/BINANCE/ethusdt/2024-03-01-02")
    assert catalog.index(str(root)) == IndexSummary(added=2, known=2)
    assert catalog.index(str(root)) == IndexSummary(known=4)


def test_catalog_is_append_only(root: Path, catalog: Catalog) -> None:
    """What has grown or gone keeps its row: it is looked at again when it is read."""
    fill(root, f"{BTC}/2024-03-01-00", f"{BTC}/2024-03-01-01")
    catalog.index(str(root))
    fill(root, f"{BTC}/2024-03-01-00", size=99)
    (root / BTC / "2024-03-01-01").unlink()
    assert catalog.index(str(root)) == IndexSummary(known=1)
    files = catalog.files(BTC_MARKET, catalog.markets()[BTC_MARKET])
    assert [file.size for file in files] == [10, 10]


def test_catalog_stays_when_it_is_opened_again(tmp_path: Path, root: Path) -> None:
    fill(root, f"{BTC}/2024-03-01-00")
    db = str(tmp_path / "db")
    with Catalog(db, create=True) as catalog:
        catalog.index(str(root))
    with Catalog(db, create=True) as catalog:
        assert catalog.index(str(root)) == IndexSummary(known=1)
    with Catalog(db) as catalog:
        assert all_files(catalog) == {str(BTC_MARKET): [f"{BTC}/2024-03-01-00"]}


def test_order_of_discovery_does_not_matter(tmp_path: Path, root: Path) -> None:
    names = [f"{BTC}/2024-03-01-{hour:02d}" for hour in range(9)]
    found = []
    for number, order in enumerate((names, names[::-1], names[::2] + names[1::2])):
        with Catalog(str(tmp_path / f"db{number}"), create=True) as catalog:
            for name in order:
                fill(root / str(number), name)
                catalog.index(str(root / str(number)))
            found.append(all_files(catalog))
    assert found == [{str(BTC_MARKET): names}] * 3


def test_other_spelling_of_a_root_is_the_same_root(
    tmp_path: Path, root: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(root, f"{BTC}/2024-03-01-00")
    catalog.index(str(root))
    (tmp_path / "link").symlink_to(root)
    monkeypatch.chdir(tmp_path)
    for spelling in (f"{root}/", f"{root}/../archive", "archive", "./archive/.", "link"):
        assert catalog.index(spelling) == IndexSummary(known=1)


def test_two_roots_are_two_inventories(tmp_path: Path, catalog: Catalog) -> None:
    for name in ("one", "two"):
        fill(tmp_path / name, f"{BTC}/2024-03-01-00")
        assert catalog.index(str(tmp_path / name)) == IndexSummary(added=1)
    files = catalog.files(BTC_MARKET, catalog.markets()[BTC_MARKET])
    assert [Path(file.root).name for file in files] == ["one", "two"]


def test_market_with_a_name_that_begins_as_another_is_another(root: Path, catalog: Catalog) -> None:
    fill(root, f"{BTC}/2024-03-01-00", f"{BTC}0/2024-03-01-00", f"{BTC} x/2024-03-01-00")
    catalog.index(str(root))
    assert catalog.index(str(root)) == IndexSummary(known=3)


@pytest.mark.parametrize(
    ("subtrees", "markets"),
    [
        (["RAM"], ["RAM/A/x", "RAM/A/y", "RAM/B/x"]),
        (["RAM/b"], ["RAM/A/x", "RAM/A/y", "RAM/B/x"]),
        (["RAM/b/A"], ["RAM/A/x", "RAM/A/y"]),
        (["RAM/b/A/x"], ["RAM/A/x"]),
        (["RAM/b/A/x", "PI/b/A"], ["PI/A/x", "RAM/A/x"]),
        (["RAM/b/A", "RAM/b/A/x"], ["RAM/A/x", "RAM/A/y"]),
        (["./RAM/b/../b/A/"], ["RAM/A/x", "RAM/A/y"]),
        (["."], ["PI/A/x", "RAM/A/x", "RAM/A/y", "RAM/B/x"]),
    ],
)
def test_include_walks_these_folders_alone(
    root: Path, catalog: Catalog, subtrees: list[str], markets: list[str]
) -> None:
    for folder in ("RAM/b/A/x", "RAM/b/A/y", "RAM/b/B/x", "PI/b/A/x"):
        fill(root, f"{folder}/2024-03-01")
    catalog.index(str(root), subtrees)
    assert sorted(all_files(catalog)) == markets
    summary = catalog.index(str(root))
    assert summary.added == 4 - len(markets)


@pytest.mark.parametrize(
    ("subtree", "message"),
    [
        ("..", "--include ..: expected a folder under"),
        ("/", "--include /: expected a folder under"),
        ("../archive-2", "expected a folder under"),
        ("NOPE", "--include NOPE: no such folder under"),
        (f"{BTC}/2024-03-01", "no such folder under"),
        (f"{BTC}/deep", "deeper than collector/bucket/exchange/symbol"),
    ],
)
def test_include_of_something_else_is_wrong_usage(
    root: Path, catalog: Catalog, subtree: str, message: str
) -> None:
    fill(root, f"{BTC}/2024-03-01", f"{BTC}/deep/2024-03-01")
    (root.parent / "archive-2").mkdir()
    with pytest.raises(UsageError, match=message):
        catalog.index(str(root), [subtree])


@pytest.mark.parametrize("name", ["missing", "file"])
def test_root_that_is_no_folder_is_wrong_usage(tmp_path: Path, catalog: Catalog, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=f"{name}: expected a folder with an archive, found none"):
        catalog.index(str(tmp_path / name))


def test_strays_are_counted_and_the_first_are_shown(root: Path, catalog: Catalog) -> None:
    strays = [
        "README", "RAM/notes.txt", "RAM/bucket/x.gz", "RAM/bucket/BINANCE/2024-03-01",
        f"{BTC}/2024-03-01.tmp", f"{BTC}/.2024-03-01", f"{BTC}/2024-02-30", f"{BTC}/a.gz",
    ]  # fmt: skip
    fill(root, *strays, f"{BTC}/2024-03-01", f"{BTC}/deep/2024-03-01")
    (root / BTC / "2024-03-02").mkdir()
    (root / BTC / "2024-03-03").symlink_to("nowhere")
    summary = catalog.index(str(root))
    assert (summary.added, summary.skipped) == (1, len(strays) + 3)
    assert len(summary.strays) == SHOWN_STRAYS
    assert summary.strays[0] == "RAM/bucket/BINANCE/2024-03-01"
    assert summary.unreadable == []
    assert all_files(catalog) == {str(BTC_MARKET): [f"{BTC}/2024-03-01"]}


def test_linked_files_and_folders_are_followed(
    tmp_path: Path, root: Path, catalog: Catalog
) -> None:
    fill(tmp_path / "elsewhere", "x/2024-03-01", "2024-03-02", size=7)
    fill(root, f"{BTC}/2024-03-01")
    (root / "RAM/bucket/BINANCE/linked").symlink_to(tmp_path / "elsewhere/x")
    (root / BTC / "2024-03-02").symlink_to(tmp_path / "elsewhere/2024-03-02")
    assert catalog.index(str(root)).added == 3
    files = catalog.files(BTC_MARKET, catalog.markets()[BTC_MARKET])
    assert [file.size for file in files] == [10, 7]


def test_link_to_a_folder_that_it_stands_in_is_skipped(root: Path, catalog: Catalog) -> None:
    fill(root, f"{BTC}/2024-03-01")
    (root / "RAM/loop").symlink_to(root)
    (root / "RAM/bucket/self").symlink_to(".")
    (root / "RAM/bucket/BINANCE/up").symlink_to("../..")
    summary = catalog.index(str(root))
    assert (summary.added, summary.skipped) == (1, 3)
    assert sorted(summary.strays) == ["RAM/bucket/BINANCE/up", "RAM/bucket/self", "RAM/loop"]


def test_links_that_lead_to_each_other_end(root: Path, catalog: Catalog) -> None:
    fill(root, f"{BTC}/2024-03-01", "PI/b/A/x/2024-03-01")
    (root / "RAM/bucket/to-pi").symlink_to(root / "PI")
    (root / "PI/b/to-ram").symlink_to(root / "RAM")
    (root / "PI/b/A/round").symlink_to("round")
    summary = catalog.index(str(root))
    assert summary.added == 2
    assert all_files(catalog).keys() == {"RAM/BINANCE/btcusdt", "PI/A/x"}


@pytest.mark.parametrize("place", ["RAM/b\udcff", f"{BTC}\udce9", f"{BTC}/2024-03-01\udcff"])
def test_names_that_are_no_text_are_skipped(root: Path, catalog: Catalog, place: str) -> None:
    fill(root, f"{BTC}/2024-03-01")
    stray = root / place
    if not place.endswith("01\udcff"):
        stray /= "BINANCE/x/2024-03-01" if place.startswith("RAM/b\udcff") else "2024-03-01"
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.touch()
    for _ in range(2):
        summary = catalog.index(str(root))
        assert summary.skipped == 1
    assert list(all_files(catalog)) == [str(BTC_MARKET)]


@pytest.mark.parametrize("folder", [BTC, "RAM/bucket"])
def test_folder_that_cannot_be_read_is_told_and_the_others_are_indexed(
    root: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    fill(root, f"{BTC}/2024-03-01", "PI/b/A/x/2024-03-01")
    original = os.scandir

    def scandir(path: str) -> Any:
        if os.path.normpath(path) == str(root / folder):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    summary = catalog.index(str(root))
    assert (summary.added, summary.skipped) == (1, 1)
    (problem,) = summary.unreadable
    assert problem.startswith(f"{root}/{folder}")
    assert problem.endswith(": Permission denied")
