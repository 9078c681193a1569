"""An archive of one market with its catalog, its candles and its plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from candlebeam.catalog import Catalog
from candlebeam.formats.candles.companion import Companion, InputState
from candlebeam.plan import (
    MarketTask,
    PlannedMarket,
    PlanOptions,
    plan_market,
)
from candlebeam.settings import CandleSettings
from tests.candle_pairs import STATE, companion_of, some_records, write_pair
from tests.trade_batches import MARKET, MIDNIGHT

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
        state = replace(STATE, inputs=tuple(inputs), covered=covered)
        state = replace(state, **changes)  # type: ignore[arg-type]
        companion = replace(
            companion_of(3, state=state), last_input_start_ts=MIDNIGHT + hour * HOUR
        )
        write_pair(self.out, companion, some_records(3))
        return companion


def hours(*numbers: int) -> list[str]:
    return [f"2024-03-01-{number:02d}" for number in numbers]


def read_hours(plan: PlannedMarket) -> list[list[str]]:
    """The files of every shard, as the last digits of their names."""
    return [[Path(file.path).name[11:] for file in shard.files] for shard in plan.shards]


def task_of(plan: PlannedMarket) -> MarketTask:
    assert plan.error is None
    assert plan.task is not None
    return plan.task
