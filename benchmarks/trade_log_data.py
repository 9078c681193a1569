"""The trade logs that are timed: made up, but of the sizes and shapes of real ones.

Each is built with two processes. A random walk of prices, varied sizes, from fixed seeds.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import numpy as np
from isal import isal_zlib

from benchmarks.cache import VERSION, Built, read_built
from benchmarks.trade_log_text import WIDEST_ROW, write_rows

MINUTE_MS = 60_000
FILE_HOURS = 4
FILE_MS = FILE_HOURS * 3_600_000
START = datetime(2023, 1, 1, tzinfo=timezone.utc)

BUSY_START = datetime(2024, 3, 1, tzinfo=timezone.utc)
BUSY_BLOCKS = 100


@dataclass(frozen=True)
class MarketShape:
    """A made-up market: where its files lie, and what its numbers look like."""

    folder: str
    price: float
    price_decimals: int
    size_decimals: int
    typical_size: float


@dataclass(frozen=True)
class TradeLogSet:
    """Markets times files, every file of four hours."""

    name: str
    markets: tuple[MarketShape, ...]
    files_per_market: int
    trades_per_file: int
    base: TradeLogSet | None = None
    """The data set whose files this one begins with: they are linked, not made again."""

    def scaled(self, scale: float) -> TradeLogSet:
        """With fewer files, of the same length."""
        base = self.base.scaled(scale) if self.base else None
        return replace(self, files_per_market=_share(self.files_per_market, scale), base=base)

    def build(self, root: Path) -> Built:
        """Make it in an empty folder."""
        return _build_grid(self, root)

    def file(self, root: Path, market: int, index: int) -> Path:
        """Where the file `index` of a market lies under a root."""
        start = START + timedelta(hours=FILE_HOURS * index)
        return root / self.markets[market].folder / f"{start:%Y-%m-%d-%H}.gz"


@dataclass(frozen=True)
class BusySet:
    """One market, one day, one gzip member of so many trades."""

    name: str
    trades: int
    base: None = None

    def scaled(self, scale: float) -> BusySet:
        """With fewer trades, but some in every minute."""
        return replace(self, trades=max(_share(self.trades, scale), 100_000))

    def build(self, root: Path) -> Built:
        """Make it in an empty folder."""
        return _build_busy(self, root)


def _share(count: int, scale: float) -> int:
    return max(round(count * scale), 1)


def dense_markets() -> tuple[MarketShape, ...]:
    """Five markets."""
    return (
        MarketShape("RAM/btc/BINANCE/btcusdt", 39_432.48, 2, 6, 0.02),
        MarketShape("RAM/eth/COINBASE/ETH-USD", 2_312.07, 2, 6, 0.3),
        MarketShape("RAM/sol/BYBIT/SOLUSDT", 101.25, 2, 3, 12.0),
        MarketShape("PI/btc/KRAKEN/XBT-USD", 39_431.2, 1, 6, 0.01),
        MarketShape("PI/ltc/BITSTAMP/ltcusd", 71.43, 2, 4, 3.0),
    )


def small_markets() -> tuple[MarketShape, ...]:
    """Two hundred markets; every tenth trades around a millionth, some of it written as 9.81e-7."""
    exchanges = ("BINANCE", "BYBIT", "COINBASE", "KRAKEN")
    shapes = []
    for number in range(200):
        collector = "RAM" if number % 3 else "PI"
        folder = f"{collector}/alt/{exchanges[number % 4]}/coin{number:03d}usdt"
        if number % 10 == 7:
            shapes.append(MarketShape(folder, 9.9e-7, 10, 0, 4_000_000.0))
        else:
            decimals = 1 + number % 5
            shapes.append(MarketShape(folder, 3_000.0 / 10 ** (decimals - 1), decimals, 3, 25.0))
    return tuple(shapes)


def _text(
    rng: np.random.Generator,
    shape: MarketShape,
    ticks: int,
    start_ms: int,
    span_ms: int,
    trades: int,
) -> tuple[memoryview, int, int]:
    """Rows of a random walk that begins at `ticks`.

    A fifth of the rows share time, price and side with the row before, as when one order takes
    several others. The answer is the text, how many minutes hold a trade, and the last price in
    ticks.
    """
    event = np.cumsum(rng.random(trades) < 0.8)
    events = int(event[-1]) + 1
    when = np.sort(rng.integers(start_ms, start_ms + span_ms, events))
    step = rng.integers(-2, 3, events) * (rng.random(events) < 0.5)
    walk = np.maximum(ticks + np.cumsum(step), 1)
    unit = 10**shape.size_decimals
    size = np.exp(rng.normal(0.0, 1.6, trades)) * (shape.typical_size * unit)
    size = np.maximum(size.astype(np.int64), 1)
    coarse = max(int(shape.typical_size * unit) // 2, 1)
    size = np.where(rng.random(trades) < 0.2, (size // coarse + 1) * coarse, size)
    buy = (rng.random(events) < 0.5)[event]
    liquidation = rng.random(trades) < 0.0005
    ts = when[event]
    out = np.empty(trades * WIDEST_ROW, np.uint8)
    length = write_rows(
        out,
        ts,
        walk[event],
        shape.price_decimals,
        size,
        shape.size_decimals,
        buy,
        liquidation,
    )
    minutes = ts[~liquidation] // MINUTE_MS
    count = int(np.count_nonzero(np.diff(minutes))) + 1 if minutes.size else 0
    return out[:length].data, count, int(walk[-1])


def _gzip(text: memoryview) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    return packer.compress(text) + packer.flush()


def _build_files(data: TradeLogSet, root: Path, market: int, first: int, last: int) -> Built:
    """Make the files [first, last) of one market; the walk goes on from file to file."""
    shape = data.markets[market]
    middle = round(shape.price * 10**shape.price_decimals)
    # Each run of files starts near the market's usual price, whoever makes it and in which order.
    ticks = middle + int(np.random.default_rng([VERSION, market, first]).integers(0, 200))
    total = Built()
    for index in range(first, last):
        path = data.file(root, market, index)
        start_ms = int((START + timedelta(hours=FILE_HOURS * index)).timestamp()) * 1000
        rng = np.random.default_rng([VERSION, market, index, 1])
        text, minutes, ticks = _text(rng, shape, ticks, start_ms, FILE_MS, data.trades_per_file)
        packed = _gzip(text)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(packed)
        total += Built(1, data.trades_per_file, minutes, len(text), len(packed))
    return total


def _link_files(data: TradeLogSet, root: Path, source: Path, count: int) -> None:
    for market in range(len(data.markets)):
        for index in range(count):
            path = data.file(root, market, index)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.hardlink_to(data.file(source, market, index))


def _build_grid(data: TradeLogSet, root: Path) -> Built:
    first, total = 0, Built()
    if data.base:
        total = read_built(data.base.name) or total
        first = data.base.files_per_market
        _link_files(data, root, root.parent / data.base.name, first)
    run = 100
    work = [
        (market, start, min(start + run, data.files_per_market))
        for start in range(first, data.files_per_market, run)
        for market in range(len(data.markets))
    ]
    with ProcessPoolExecutor(2) as pool:
        for done, part in enumerate(pool.map(partial(_build_run, data, root), work), start=1):
            total += part
            print(f"\r{data.name}: {100 * done // len(work):3d} %", end="", file=sys.stderr)
    print(file=sys.stderr)
    return total


def _build_run(data: TradeLogSet, root: Path, run: tuple[int, int, int]) -> Built:
    return _build_files(data, root, *run)


def _busy_blocks(shape: MarketShape, trades: int) -> Iterator[memoryview]:
    day_ms = 86_400_000
    span = day_ms // BUSY_BLOCKS
    start_ms = int(BUSY_START.timestamp()) * 1000
    ticks = round(shape.price * 10**shape.price_decimals)
    for block in range(BUSY_BLOCKS):
        rng = np.random.default_rng([VERSION, 1_000, block])
        count = trades * (block + 1) // BUSY_BLOCKS - trades * block // BUSY_BLOCKS
        text, _, ticks = _text(rng, shape, ticks, start_ms + block * span, span, count)
        yield text


def _build_busy(data: BusySet, root: Path) -> Built:
    shape = dense_markets()[0]
    path = root / shape.folder / f"{BUSY_START:%Y-%m-%d}.gz"
    path.parent.mkdir(parents=True)
    packer = isal_zlib.compressobj(2, isal_zlib.DEFLATED, 31)
    text_bytes = 0
    with path.open("wb") as out:
        for text in _busy_blocks(shape, data.trades):
            out.write(packer.compress(text))
            text_bytes += len(text)
        out.write(packer.flush())
    return Built(1, data.trades, 24 * 60, text_bytes, path.stat().st_size)
