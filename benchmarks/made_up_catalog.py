"""A catalog of millions of made-up files, of the shape of a real archive of 4 TB.

`market_sizes` is the shape, and `file_sizes` the sizes of a market's files: what plans, and what
simulates a schedule, is held against the same archive. There are no files behind the catalog.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta, timezone
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.cache import Built, ensure
from candlebeam.catalog import Catalog

FILES = 12_000_000
MARKETS = 12_000
BYTES = 4_000_000_000_000
ROOT = "/archive"
DATABASE = "index.sqlite"

HOUR_MS = 3_600_000
BEGIN = datetime(2017, 7, 1, tzinfo=timezone.utc)
HOURS = 8 * 365 * 24
"""From the first file of all to the last one."""

EXCHANGES = (
    "BINANCE", "BINANCE_FUTURES", "BINANCE_US", "BITFINEX", "BITGET", "BITMEX", "BITSTAMP", "BYBIT",
    "COINBASE", "CRYPTOCOM", "DERIBIT", "FTX", "GATEIO", "HUOBI", "KRAKEN", "KUCOIN", "MEXC",
    "OKEX", "PHEMEX", "POLONIEX",
)  # fmt: skip

_FILES_FALL = 0.8
"""The market of rank n has about n to the minus this times the files of the first."""
_BYTES_FALL = 0.45
"""Likewise the size of its files."""
_SPREAD = 0.9
"""The standard deviation of the logarithm of a file's size within its market."""
_SMALLEST = 64
_TWIN_EVERY = 700
"""One file in so many was found before it was compressed, and again afterwards."""


class MadeUpMarket(NamedTuple):
    """A raw symbol of an exchange: one market, or two where the name changed its meaning.

    Attributes:
        collector, bucket, exchange, symbol: the folder of its files.
        files: how many there are.
        hours: from one file to the next: 1, 4 or 24.
        first_hour: of the first file, in hours since `BEGIN`.
        mean_bytes: of a file.
        seed: of its files' sizes.
    """

    collector: str
    bucket: str
    exchange: str
    symbol: str
    files: int
    hours: int
    first_hour: int
    mean_bytes: float
    seed: int

    @property
    def folder(self) -> str:
        """Where its files are, relative to the root, with a slash at the end."""
        return f"{self.collector}/{self.bucket}/{self.exchange}/{self.symbol}/"


def market_sizes(
    files: int = FILES, markets: int = MARKETS, size: int = BYTES, seed: int = 1
) -> list[MadeUpMarket]:
    """The markets of a made-up archive, the largest first. Always the same for the same arguments.

    The n-th market has about n^-0.8 times the files of the first, up to 70,080 (8 years of hours),
    and files of n^-0.45 times the size; both vary by a log-normal factor. The largest have a file
    an hour, most one in four hours, the smallest one a day. Two thirds go on to the end of the
    archive, the others were delisted earlier. Altogether there are exactly so many files, and the
    sizes that `file_sizes` gives come to about `size` bytes.
    """
    random = np.random.default_rng(seed)
    rank = np.arange(1, markets + 1)
    weight = rank**-_FILES_FALL * np.exp(random.normal(0, 0.6, markets))
    hours = np.where(rank <= markets // 40, 1, np.where(rank <= markets * 9 // 10, 4, 24))
    counts = _shares(weight, files, HOURS // hours)
    mean = rank**-_BYTES_FALL * np.exp(random.normal(0, 0.5, markets)) * hours**0.5
    mean *= size / (mean * counts).sum()
    room = HOURS // hours - counts
    lag = np.where(random.random(markets) < 2 / 3, 0, random.random(markets) * room).astype(int)
    place = random.permutation(markets) % len(EXCHANGES)
    found = []
    for n in range(markets):
        exchange = EXCHANGES[place[n]]
        found.append(
            MadeUpMarket(
                "PI" if n % 5 == 4 else "RAM",
                f"bucket-{n % 3}",
                exchange,
                _symbol(exchange, n),
                int(counts[n]),
                int(hours[n]),
                int((room[n] - lag[n]) * hours[n]),
                float(mean[n]),
                seed * markets + n,
            )
        )
    return found


def file_sizes(market: MadeUpMarket) -> npt.NDArray[np.int64]:
    """Bytes of a market's files, the oldest first: log-normal, and growing threefold over time."""
    random = np.random.default_rng(market.seed)
    growth = np.linspace(0.5, 1.5, market.files)
    factor = np.exp(random.normal(-(_SPREAD**2) / 2, _SPREAD, market.files))
    sizes: npt.NDArray[np.int64] = (market.mean_bytes * growth * factor).astype(np.int64)
    return np.maximum(sizes, _SMALLEST)


def _shares(
    weight: npt.NDArray[np.floating[Any]], total: int, most: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Whole numbers in proportion to weights, from 1 to `most` each, that come to `total`."""
    low, high = 0.0, float(total) / weight.min()
    for _ in range(100):
        scale = (low + high) / 2
        shares = np.clip((weight * scale).astype(np.int64), 1, most)
        low, high = (scale, high) if shares.sum() <= total else (low, scale)
    shares = np.clip((weight * low).astype(np.int64), 1, most)
    for place in np.flatnonzero(shares < most)[: total - shares.sum()]:
        shares[place] += 1
    if shares.sum() != total:
        raise ValueError(f"{total} files do not go into {len(weight)} markets")
    return shares


def _symbol(exchange: str, number: int) -> str:
    """A name as the exchange writes its own."""
    letters = "".join(chr(97 + number // 26**n % 26) for n in range(4))
    if exchange == "POLONIEX":
        return f"USDT_{letters.upper()}" if number % 2 else f"{letters.upper()}_BTC"
    if exchange == "BITGET":
        return f"{letters.upper()}USDT" + ("_UMCBL" if number % 2 else "")
    if exchange in ("COINBASE", "OKEX", "KUCOIN"):
        return f"{letters.upper()}-USDT"
    return f"{letters}usdt"


@dataclass(frozen=True)
class CatalogSet:
    """A catalog of so many rows, as a `benchmarks.cache.DataSet`."""

    name: str = "catalog"
    files: int = FILES
    markets: int = MARKETS
    bytes: int = BYTES
    base: None = None

    def scaled(self, scale: float) -> CatalogSet:
        """With fewer files and markets, of the same sizes."""
        return replace(
            self,
            files=max(round(self.files * scale), 1),
            markets=max(round(self.markets * scale), 1),
            bytes=max(round(self.bytes * scale), 1),
        )

    def build(self, root: Path) -> Built:
        """Make it in an empty folder."""
        markets = market_sizes(self.files, self.markets, self.bytes)
        size = write_catalog(str(root / DATABASE), markets)
        return Built(files=self.files, packed_bytes=size)


def write_catalog(path: str, markets: Sequence[MadeUpMarket], root: str = ROOT) -> int:
    """Makes a catalog with the files of these markets; returns the bytes of them all.

    The index on the rows is taken away first and made at the end, which is quicker.
    """
    Catalog(path, create=True).__exit__()
    total = 0
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        indexes = database.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        ).fetchall()
        for name, _ in indexes:
            database.execute(f"DROP INDEX {name}")
        database.execute("BEGIN")
        database.execute("INSERT INTO roots VALUES (1, ?)", (root,))
        names = _names()
        for market in sorted(markets, key=lambda each: each.folder):
            sizes = file_sizes(market)
            total += int(sizes.sum())
            rows = _rows(market, names, sizes)
            database.executemany("INSERT INTO files VALUES (1, ?, ?, ?, ?, ?, ?, ?)", rows)
        for _, statement in indexes:
            database.execute(statement)
        database.execute("COMMIT")
    return total


def _names() -> list[str]:
    return [f"{BEGIN + timedelta(hours=n):%Y-%m-%d-%H}" for n in range(HOURS)]


def _rows(
    market: MadeUpMarket, names: Sequence[str], sizes: npt.NDArray[np.int64]
) -> Iterator[tuple[str, str, str, str, int, str, int]]:
    """The rows of a market. Some of its last files are not compressed yet, if it is still traded.

    A file that was found both before and after takes the place of two.
    """
    hours = range(market.first_hour, market.first_hour + market.files * market.hours, market.hours)
    extensions = [".gz"] * market.files
    places = list(hours)
    for place in range(market.seed % _TWIN_EVERY, market.files - 1, _TWIN_EVERY):
        extensions[place], places[place + 1] = "", places[place]
    if places[-1] + market.hours >= HOURS:
        extensions[-1] = ""
    begin = int(BEGIN.timestamp()) * 1000
    cut = -3 if market.hours == 24 else None
    return zip(
        [market.folder + names[p][:cut] + ext for p, ext in zip(places, extensions, strict=True)],
        repeat(market.collector),
        repeat(market.exchange),
        repeat(market.symbol),
        [begin + place * HOUR_MS for place in places],
        extensions,
        sizes.tolist(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.made_up_catalog")
    parser.add_argument("--files", type=int, default=FILES)
    chosen = catalog_set(parser.parse_args().files)
    print(f"{chosen.name}: {json.dumps(asdict(ensure(chosen)))}")


def catalog_set(files: int = FILES) -> CatalogSet:
    """The catalog of so many files, in proportion."""
    whole = CatalogSet()
    return (
        whole if files == FILES else replace(whole.scaled(files / FILES), name=f"catalog-{files}")
    )


if __name__ == "__main__":
    main()
