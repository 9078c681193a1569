"""Rows of Binance's files, and what a reader gets of the archives that are made of them."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from random import Random

import numpy as np
import pytest

from candlebeam.formats.agg2.reader import AGG2_ROW_DTYPE, Agg2Reader, list_days
from candlebeam.model import FileOutcome, InputFile, Market, Records
from tests.agg2_blobs import AggRow
from tests.trade_batches import rows_of

MARKET = Market("QUANTDEV", "BINANCE_FUTURES", "BTCUSDT")
#: 2024-01-05.
START = 1_704_412_800_000
DAY_MS = 86_400_000
FUTURES = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker"
#: A trade as a reader gives it, without its id: ts, price, size, buy, count.
Trade = tuple[int, float, float, int, int]


@dataclass(frozen=True)
class Line:
    """A row of a CSV file."""

    trade_id: int
    price: str
    quantity: str
    first: int
    last: int
    ts: int
    maker: bool

    @property
    def text(self) -> str:
        fields = (self.trade_id, self.price, self.quantity, self.first, self.last, self.ts)
        return ",".join(map(str, [*fields, "true" if self.maker else "false"]))

    @property
    def trade(self) -> Trade:
        count = min(self.last - self.first + 1, 65_535)
        return (self.ts, float(self.price), float(self.quantity), int(not self.maker), count)

    @property
    def record(self) -> tuple[object, ...]:
        px, qty = (int(Decimal(text) * 10**8) for text in (self.price, self.quantity))
        count = self.trade[-1]
        maker = int(self.maker)
        return (self.trade_id, px, qty, self.first, count, maker, self.ts, 1 - maker, b"")


def day_lines(day: int, count: int = 30, first: int | None = None, seed: int = 1) -> list[Line]:
    """Rows of a day counted from 2024-01-05, by id."""
    random = Random(100 * day + seed)
    ids = range(1_000 * day if first is None else first, 10**9)
    times = sorted(random.randrange(DAY_MS) for _ in range(count))
    return [
        Line(
            trade_id,
            f"{random.randrange(1, 10**7) / 100:.2f}",
            f"{random.randrange(10**5) / 1000:.3f}",
            10 * trade_id,
            10 * trade_id + random.randrange(5),
            START + day * DAY_MS + ts,
            random.random() < 0.5,
        )
        for trade_id, ts in zip(ids, times, strict=False)
    ]


def records(lines: list[Line]) -> Records:
    return np.array([line.record for line in lines], AGG2_ROW_DTYPE)


def write_csv(folder: Path, name: str, lines: list[Line], *more: str) -> Path:
    text = "\n".join([FUTURES, *(line.text for line in lines), *more, ""])
    path = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    if name.endswith(".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name.replace(".zip", ".csv"), text)
    else:
        path.write_text(text)
    return path


def truncated_rows(lines: list[Line]) -> list[AggRow]:
    """Rows as the writer makes them that truncates."""
    return [
        AggRow(
            line.trade_id,
            int(float(line.price) * 1e8),
            int(float(line.quantity) * 1e8),
            line.first,
            line.trade[-1],
            int(line.maker),
            line.ts,
        )
        for line in lines
    ]


def read(out: Path, symbol: str = "BTCUSDT") -> tuple[dict[str, list[Trade]], list[FileOutcome]]:
    """The trades of each day that is listed, and what became of the days."""
    found: dict[str, list[Trade]] = {}
    outcomes = []
    for day in list_days(str(out), symbol, on_problem=pytest.fail):
        reader = Agg2Reader(MARKET, [InputFile(f"{out}/{day.path}")])
        found[day.path.removeprefix(f"{symbol}/")] = [
            (row.ts, row.price, row.size, row.buy, row.trades)
            for batch in reader
            for row in rows_of(batch)
        ]
        outcomes += reader.outcomes
    return found, outcomes


def trades(lines: list[Line]) -> list[Trade]:
    return [line.trade for line in lines]


def assert_whole(out: Path, days: dict[str, list[Line]]) -> None:
    found, outcomes = read(out)
    assert found == {day: trades(lines) for day, lines in days.items()}
    for outcome in outcomes:
        assert (outcome.damage, outcome.error, outcome.notes) == (None, None, ())


def files_of(out: Path) -> dict[str, bytes]:
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and not path.name.startswith(".candlebeam")
    }


def seen(out: Path) -> dict[str, list[Trade]]:
    """The days that a reader gets whole, whatever else an index says."""
    found = {}
    for day in list_days(str(out)):
        reader = Agg2Reader(MARKET, [InputFile(f"{out}/{day.path}")])
        batches = list(reader)
        outcome = reader.outcomes[0]
        if outcome.text_bytes:
            assert outcome.damage is None or "index.quantdev" in outcome.damage
            found[day.path.removeprefix("BTCUSDT/")] = [
                (row.ts, row.price, row.size, row.buy, row.trades)
                for batch in batches
                for row in rows_of(batch)
            ]
    return found
