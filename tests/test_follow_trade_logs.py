"""The source of a stream as a DoFn: what it gives follows from its state alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from candlebeam.feeds.clock import Clock
from candlebeam.io.follow_trade_logs import FollowOptions, Places, _Follow, _share
from candlebeam.model import Market
from candlebeam.settings import CandleSettings

MARKETS = [Market("RAM", "BINANCE", name) for name in ("a", "b", "c", "d")]
START = 1_709_337_600_000


class Held:
    """A state of one key."""

    def __init__(self) -> None:
        self.value: Places | None = None

    def read(self) -> Places | None:
        return self.value

    def write(self, value: Places) -> None:
        self.value = value


def follow(root: Path, out: Path, **options: Any) -> _Follow:
    return _Follow(
        FollowOptions(
            (str(root),), str(out), CandleSettings(), 600_000, walk_s=0.0, clock=Clock(), **options
        )
    )


def write(root: Path, market: Market, text: str) -> None:
    path = root / "RAM/2024/BINANCE" / market.symbol / "2024-03-02-00"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(text)


def times(source: _Follow, state: Held, reader: str = "0") -> list[int]:
    """The times of the trades that it gives, told once."""
    given = list(source.process((reader, ""), state))
    return [ts for each in given for ts in each.value[1].ts.tolist()]


def test_each_reader_has_markets_of_its_own(tmp_path: Path) -> None:
    for number, market in enumerate(MARKETS):
        write(tmp_path / "in", market, f"{START + number} 1 1 1\n")
    source = follow(tmp_path / "in", tmp_path / "out", readers=2)
    given = [sorted(times(source, Held(), reader)) for reader in ("0", "1")]
    expected = [
        [START + n for n, market in enumerate(MARKETS) if _share(market, 2) == reader]
        for reader in (0, 1)
    ]
    assert given == expected
    assert all(given)


def test_filters_leave_markets_alone(tmp_path: Path) -> None:
    for market in MARKETS:
        write(tmp_path / "in", market, f"{START} 1 1 1\n")
    source = follow(tmp_path / "in", tmp_path / "out", symbol="b")
    state = Held()
    assert times(source, state) == [START]
    assert state.value is not None
    assert set(state.value) == {MARKETS[1]}


def test_what_was_read_is_not_read_again_but_where_a_checkpoint_is_older(tmp_path: Path) -> None:
    """A worker that lives on meets states that are older than what it remembers."""
    source, state = follow(tmp_path / "in", tmp_path / "out"), Held()
    write(tmp_path / "in", MARKETS[0], f"{START} 1 1 1\n")
    assert times(source, state) == [START]
    assert times(source, state) == []
    before = state.value
    write(tmp_path / "in", MARKETS[0], f"{START + 5} 1 1 1\n{START + 6} 1")
    assert times(source, state) == [START + 5]
    state.value = before
    assert times(source, state) == [START + 5]
    write(tmp_path / "in", MARKETS[0], " 1 1\n")
    assert times(source, state) == [START + 6]
    state.value = None
    assert times(source, state) == [START, START + 5, START + 6]
