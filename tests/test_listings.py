"""Listing archives of few large files."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from candlebeam.errors import CandlebeamError, UsageError
from candlebeam.formats.dbn import reader as dbn
from candlebeam.formats.dbn.reader import DbnFile, SymbolInterval
from candlebeam.inventory import ListedInventory
from candlebeam.listings import list_agg2, list_dbn
from candlebeam.model import Market

DAY = 86_400_000
START = 1_704_067_200_000  # 2024-01-01
ES = Market("DATABENTO", "GLBX.MDP3", "ESH4")
NQ = Market("DATABENTO", "GLBX.MDP3", "NQH4")


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch) -> dict[str, DbnFile]:
    """What files say of themselves, by name; the files themselves are empty."""
    known: dict[str, DbnFile] = {}

    def describe(path: str) -> DbnFile:
        return known[Path(path).name]

    monkeypatch.setattr(dbn, "describe_dbn", describe)
    return known


def add(
    folder: Path,
    described: dict[str, DbnFile],
    name: str,
    first_day: int,
    end_day: int | None,
    schema: str | None = "trades",
    symbols: tuple[str, ...] = ("ESH4",),
) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"x" * 7)
    days = datetime.date(2024, 1, 1), datetime.date(2024, 2, 1)
    described[Path(name).name] = DbnFile(
        name,
        "GLBX.MDP3",
        schema,
        3,
        START + first_day * DAY,
        None if end_day is None else START + end_day * DAY,
        {i: (SymbolInterval(*days, symbol),) for i, symbol in enumerate(symbols)},
    )


def names(listed: ListedInventory, market: Market = ES) -> list[str]:
    return [file.path for file in listed.files(market, listed.markets()[market])]


def test_files_of_a_market_stand_in_order_of_time(
    tmp_path: Path, described: dict[str, DbnFile]
) -> None:
    add(tmp_path, described, "b.dbn.zst", 0, 1, symbols=("ESH4", "NQH4"))
    add(tmp_path, described, "deep/a.dbn", 1, 2)
    listed = list_dbn([str(tmp_path)])
    assert list(listed.markets()) == [ES, NQ]
    assert names(listed) == ["b.dbn.zst", "a.dbn"]
    assert names(listed, NQ) == ["b.dbn.zst"]
    found = listed.markets(symbol="ESH4")[ES]
    assert listed.files(ES, found, START + DAY) == found[1:]
    assert listed.count_before(ES, found, START + DAY) == 1
    assert listed.version(str(tmp_path / "b.dbn.zst")) == ("b.dbn.zst", 7)
    assert listed.version(str(tmp_path / "c.dbn.zst")) is None


def test_a_file_named_twice_is_one(tmp_path: Path, described: dict[str, DbnFile]) -> None:
    add(tmp_path, described, "a.dbn", 0, 1)
    (tmp_path / "link.dbn").symlink_to(tmp_path / "a.dbn")
    listed = list_dbn([str(tmp_path), str(tmp_path / "a.dbn")])
    assert names(listed) == ["a.dbn"]


def test_two_files_with_the_same_trades_fail_their_market_alone(
    tmp_path: Path, described: dict[str, DbnFile]
) -> None:
    add(tmp_path, described, "a.dbn", 0, 2, symbols=("ESH4", "NQH4"))
    add(tmp_path, described, "b.dbn", 1, 3)
    listed = list_dbn([str(tmp_path)])
    assert names(listed, NQ) == ["a.dbn"]
    with pytest.raises(
        CandlebeamError, match=r"a\.dbn and .*b\.dbn both hold trades at 2024-01-02"
    ):
        names(listed)


@pytest.mark.parametrize(
    ("schema", "other"), [("trades", "mbo"), ("tbbo", "mbp-1"), ("mbp-1", "mbo")]
)
def test_of_two_kinds_of_the_same_trades_the_plainer_is_read(
    tmp_path: Path, described: dict[str, DbnFile], schema: str, other: str
) -> None:
    add(tmp_path, described, "a.dbn", 0, 2, other)
    add(tmp_path, described, "b.dbn", 1, 3, schema)
    add(tmp_path, described, "c.dbn", 3, 4, other)
    listed = list_dbn([str(tmp_path)])
    assert names(listed) == ["b.dbn", "c.dbn"]
    (note,) = listed.notes
    assert note.endswith(f"a.dbn: left out where {tmp_path / 'b.dbn'} has the same trades")


def test_live_files_do_not_say_when_they_end(tmp_path: Path, described: dict[str, DbnFile]) -> None:
    add(tmp_path, described, "a.dbn", 0, None, None)
    add(tmp_path, described, "b.dbn", 1, None, None)
    assert names(list_dbn([str(tmp_path)])) == ["a.dbn", "b.dbn"]


def test_what_is_no_file_of_trades_is_told(tmp_path: Path, described: dict[str, DbnFile]) -> None:
    add(tmp_path, described, "bars.dbn", 0, 1, "ohlcv-1m")
    add(tmp_path, described, "status.dbn", 0, 1, "status")
    (tmp_path / "notes.txt").write_text("")
    listed = list_dbn([str(tmp_path)])
    assert listed.markets() == {}
    assert listed.notes == [
        "1 skipped, no Databento files: notes.txt",
        f"{tmp_path}/bars.dbn: ohlcv-1m records are no trades; `resample` and `export` read bars",
        f"{tmp_path}/status.dbn: status records are no trades",
    ]
    assert listed.problems == []


def test_a_file_without_instruments_is_told(tmp_path: Path, described: dict[str, DbnFile]) -> None:
    add(tmp_path, described, "a.dbn", 0, 1, symbols=())
    listed = list_dbn([str(tmp_path)])
    assert listed.markets() == {}
    (note,) = listed.notes
    assert note == f"{tmp_path}/a.dbn: it names no instrument, so none of its records can be read"


def test_a_damaged_head_is_a_problem_and_the_rest_goes_on(tmp_path: Path) -> None:
    (tmp_path / "a.dbn").write_bytes(b"no such thing")
    listed = list_dbn([str(tmp_path)])
    (problem,) = listed.problems
    assert problem.startswith(f"{tmp_path}/a.dbn")


def test_paths_that_are_not_there() -> None:
    with pytest.raises(UsageError, match="/nowhere: no such file or folder"):
        list_dbn(["/nowhere"])
    with pytest.raises(UsageError, match="/nowhere: expected a folder with an AGG2 archive"):
        list_agg2("/nowhere")
