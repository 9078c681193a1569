"""Day blobs made and read by the plainest means, as the oracle of the tests."""

from __future__ import annotations

import hashlib
import math
import struct
import zlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import NamedTuple

import zstandard

from candlebeam.formats.agg2.reader import Agg2Reader
from candlebeam.model import FileOutcome, InputFile, TradeBatch
from tests.trade_batches import MARKET, MIDNIGHT, rows_of

CENTS = 1_000_000
#: The day of MIDNIGHT.
YEAR, MONTH, DAY = 2024, 3, 1


class AggRow(NamedTuple):
    """A row of a day blob, as it is stored. `side` counts in AGG2 alone."""

    trade_id: int
    px: int
    qty: int = 100_000_000
    first_id: int = 0
    trades: int = 1
    flags: int = 0
    ts: int = MIDNIGHT
    side: int | None = None

    def pack(self, magic: bytes = b"AGG2") -> bytes:
        start = (self.trade_id, self.px, self.qty, self.first_id, self.trades, self.flags, self.ts)
        if magic == b"AGG3":
            return struct.pack("<QQQQIHq2x", *start)
        side = 1 - (self.flags & 1) if self.side is None else self.side
        return struct.pack("<QQQQHHqB3x", *start, side)


def blob(
    rows: Sequence[AggRow],
    day: int = DAY,
    *,
    magic: bytes = b"AGG2",
    version: int = 1,
    row_count: int | None = None,
    padding: bytes = b"",
) -> bytes:
    """A day, uncompressed."""
    times = [row.ts for row in rows] or [0]
    head = (magic, version, day, 0, len(rows) if row_count is None else row_count)
    header = struct.pack("<4sBBHQqq16s", *head, min(times), max(times), padding)
    return header + b"".join(row.pack(magic) for row in rows)


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


class MonthFolder:
    """A month folder under `base`, written row by row."""

    def __init__(
        self, base: Path, symbol: str = "BTCUSDT", year: int = YEAR, month: int = MONTH
    ) -> None:
        self.path = base / symbol / f"{year:04d}" / f"{month:02d}"
        self.path.mkdir(parents=True, exist_ok=True)
        self.data = self.path / "data.quantdev"
        self.index = self.path / "index.quantdev"
        self.data.touch()
        self.index.touch()

    def add(self, compressed: bytes, day: int = DAY, *, length: int | None = None) -> int:
        """Adds bytes to the data and a row to the index; gives their offset."""
        offset = self.data.stat().st_size
        with self.data.open("ab") as data, self.index.open("ab") as index:
            data.write(compressed)
            index.write(
                struct.pack("<HQQ", day, offset, len(compressed) if length is None else length)
            )
        return offset

    def add_rows(self, rows: Sequence[AggRow], day: int = DAY) -> int:
        return self.add(zstd(blob(rows, day)), day)

    def add_checked(self, raws: Sequence[tuple[int, bytes]], *, compress: str = "zstd") -> None:
        """Days as AGG3 has them: an index with a checksum a row."""
        rows = []
        for day, raw in raws:
            compressed = zstd(raw) if compress == "zstd" else zlib.compress(raw)
            digest = int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")
            rows.append((day, self.data.stat().st_size, len(compressed), digest))
            with self.data.open("ab") as data:
                data.write(compressed)
        packed = b"".join(struct.pack("<HQQQ", *row) for row in rows)
        self.index.write_bytes(struct.pack("<4sIQ", b"QIDX", 1, len(rows)) + packed)

    def file(self, day: int = DAY, seen: int = 0) -> InputFile:
        return InputFile(f"{self.path}/{day:02d}", 0, seen)


class NaiveTrade(NamedTuple):
    """A trade as the rules have it."""

    ts: int
    price: float
    size: float
    buy: int
    liquidation: int
    trades: int


def naive_trades(
    raw: bytes, numbers: dict[tuple[str, int], int] | None = None
) -> tuple[list[NaiveTrade], list[tuple[int, str]]]:
    """The trades of a blob, and (line, reason) of the rows that are none.

    Args:
        raw: of an AGG2 blob.
        numbers: what ("px" or "qty", value) stands for, where it is not the value itself.
    """
    found, rejected = [], []
    seen = set()
    for line, at in enumerate(range(48, len(raw), 48), start=1):
        row = raw[at : at + 48]
        trade_id, px, qty, _, count, flags, ts, side = struct.unpack("<QQQQHHqB3x", row)
        again = row in seen
        seen.add(row)
        if 10**14 < ts < 10**16:
            ts //= 1000
        price = float(Fraction((numbers or {}).get(("px", px), px), 10**8))
        size = float(Fraction((numbers or {}).get(("qty", qty), qty), 10**8))
        maker = flags & 1
        if not 10**11 < ts < 10**13:
            rejected.append((line, "timestamp"))
        elif px == 0:
            rejected.append((line, "price"))
        elif side != 1 - maker:
            rejected.append((line, "side"))
        elif not math.isfinite(price * size) or not price * size * 1e6 < 2**63:
            rejected.append((line, "volume"))
        elif again and trade_id:
            rejected.append((line, "duplicate"))
        else:
            found.append(NaiveTrade(ts, price, size, 1 - maker, 0, count))
    return found, rejected


def trades_of(batches: list[TradeBatch]) -> list[NaiveTrade]:
    return [NaiveTrade(*row) for batch in batches for row in rows_of(batch)]


def read(*files: InputFile, **options: object) -> tuple[list[NaiveTrade], list[FileOutcome]]:
    reader = Agg2Reader(MARKET, files, **options)  # type: ignore[arg-type]
    trades = trades_of(list(reader))
    return trades, reader.outcomes


def read_day(month: MonthFolder, **options: object) -> tuple[list[NaiveTrade], FileOutcome]:
    trades, outcomes = read(month.file(), **options)
    assert len(outcomes) == 1
    return trades, outcomes[0]


def some_rows(count: int, seed: int = 1, first: int = 100) -> list[AggRow]:
    """Sound rows of rising ids."""
    random = Random(seed)
    return [
        AggRow(
            first + i,
            random.randrange(1, 10**7) * CENTS,
            random.randrange(10**6) * 100_000,
            first_id=3 * i,
            trades=random.randrange(100),
            flags=random.randrange(2),
            ts=MIDNIGHT + random.randrange(86_400_000),
        )
        for i in range(count)
    ]


def expected(rows: list[AggRow]) -> list[NaiveTrade]:
    return naive_trades(blob(rows))[0]
