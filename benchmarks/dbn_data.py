"""Databento files of trades: made up, with the metadata encoded by Databento's own library."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import databento_dbn
import numpy as np
import zstandard

DATASET = "XNAS.ITCH"
START = date(2024, 3, 4)
#: As Databento's own files.
LEVEL = 3
TRADE_DTYPE = np.dtype(databento_dbn.TradeMsg._dtypes)

_NS_PER_DAY = 86_400 * 10**9
_PIECE = 1 << 20
_TICK = 10_000_000
_SESSION = (14 * 3600 + 30 * 60, 21 * 3600)
_SIDES = np.frombuffer(b"ABN", np.uint8)


@dataclass(frozen=True)
class Interval:
    """When a symbol is the instrument `symbol`; the library asks for these names."""

    start_date: date
    end_date: date
    symbol: str


@dataclass(frozen=True)
class Mapping:
    """The instruments of a symbol; the library asks for these names."""

    raw_symbol: str
    intervals: tuple[Interval, ...]


def day_start_ns(day: date) -> int:
    """Midnight of a day in UTC, in ns."""
    return (day - date(1970, 1, 1)).days * _NS_PER_DAY


def encode_head(
    mappings: tuple[Mapping, ...],
    *,
    days: int = 1,
    schema: str | None = "trades",
    version: int = 3,
    dataset: str = DATASET,
    stype_in: str | None = "raw_symbol",
    stype_out: str = "instrument_id",
    ts_out: bool = False,
    start_ns: int | None = None,
) -> bytes:
    """The head of a file, encoded by the library.

    It starts at `start_ns`; else at the first midnight, or without a schema nowhere.
    """
    start = day_start_ns(START)
    metadata: Any = databento_dbn.Metadata(
        dataset=dataset,
        start=start_ns or (start if schema else 0),
        end=start + days * _NS_PER_DAY if schema else None,
        stype_in=None if stype_in is None else databento_dbn.SType.from_str(stype_in),
        stype_out=databento_dbn.SType.from_str(stype_out),
        schema=None if schema is None else databento_dbn.Schema.from_str(schema),
        symbols=[mapping.raw_symbol for mapping in mappings],
        mappings=mappings,
        ts_out=ts_out,
        version=version,
    )
    return bytes(metadata.encode())


def symbol_name(number: int) -> str:
    """The raw symbol of an instrument of `write_dbn_trades`."""
    return f"SYM{number:05d}"


def write_dbn_trades(
    path: Path | str,
    records: int,
    instruments: int,
    seed: int,
    compressed: bool = True,
    days: int = 1,
) -> None:
    """Writes trades of several instruments, in the order in which they were received.

    Args:
        path: the file; an old one is replaced.
        records: how many trades.
        instruments: over how many instruments they are spread, the first ones trading most.
        seed: equal ones give equal files.
        compressed: whether it is zstd.
        days: over how many days; an instrument has another id on each.
    """
    mappings = tuple(
        Mapping(
            symbol_name(number),
            tuple(
                Interval(
                    START + timedelta(days=day),
                    START + timedelta(days=day + 1),
                    str(_instrument_id(number, day)),
                )
                for day in range(days)
            ),
        )
        for number in range(instruments)
    )
    rng = np.random.default_rng(seed)
    ticks = rng.integers(500, 40_000, instruments)
    weight = 1.0 / (1.0 + np.arange(instruments)) ** 0.7
    edges = np.cumsum(weight) / weight.sum()
    with Path(path).open("wb") as file:
        packer = zstandard.ZstdCompressor(LEVEL, threads=-1).compressobj() if compressed else None
        write = (lambda data: file.write(packer.compress(data))) if packer else file.write
        write(encode_head(mappings, days=days))
        done = 0
        for day in range(days):
            of_day = (day + 1) * records // days - done
            _write_day(write, rng, edges, ticks, day, of_day)
            done += of_day
        if packer:
            file.write(packer.flush())


def _instrument_id(number: int, day: int) -> int:
    return 1_000 + 7 * number + 100_003 * day


def _write_day(
    write: Any,
    rng: np.random.Generator,
    edges: np.ndarray[Any, Any],
    ticks: np.ndarray[Any, Any],
    day: int,
    records: int,
) -> None:
    begin, end = (day_start_ns(START) + day * _NS_PER_DAY + s * 10**9 for s in _SESSION)
    for first in range(0, records, _PIECE):
        count = min(_PIECE, records - first)
        low = begin + (end - begin) * first // records
        high = begin + (end - begin) * (first + count) // records
        # Several trades at once, as when one order takes several others.
        event = np.cumsum(rng.random(count) < 0.7)
        events = int(event[-1]) + 1
        received = np.sort(rng.integers(low, high, events))[event]
        number = np.searchsorted(edges, rng.random(events))[event]
        trades = np.zeros(count, TRADE_DTYPE)
        trades["length"] = TRADE_DTYPE.itemsize // 4
        trades["publisher_id"] = 2
        trades["instrument_id"] = 1_000 + 7 * number + 100_003 * day
        trades["ts_event"] = received - rng.integers(8_000, 200_000, events)[event]
        trades["price"] = _walk(rng, number, ticks) * _TICK
        trades["size"] = 1 + rng.geometric(0.02, count) // 2
        trades["action"] = b"T"
        side = np.searchsorted((0.47, 0.94), rng.random(events))[event]
        trades["side"] = _SIDES[side].view("S1")
        trades["ts_recv"] = received
        trades["ts_in_delta"] = rng.integers(8_000, 200_000, count)
        trades["sequence"] = np.arange(first, first + count)
        write(trades.tobytes())


def _walk(
    rng: np.random.Generator, number: np.ndarray[Any, Any], ticks: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """The prices of trades in ticks; where each instrument ends is put back into `ticks`."""
    order = np.argsort(number, kind="stable")
    step = rng.integers(-1, 2, len(number)) * (rng.random(len(number)) < 0.4)
    moved = np.cumsum(step[order])
    starts = np.flatnonzero(np.diff(number[order], prepend=-1))
    whose = number[order][starts]
    base = np.repeat(moved[starts] - step[order][starts], np.diff(starts, append=len(number)))
    walk = np.maximum(ticks[number[order]] + moved - base, 1)
    ends = np.append(starts[1:], len(number)) - 1
    ticks[whose] = walk[ends]
    prices: np.ndarray[Any, Any] = np.empty_like(walk)
    prices[order] = walk
    return prices


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--records", type=int, default=20_000_000)
    parser.add_argument("--instruments", type=int, default=5)
    parser.add_argument("--days", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plain", action="store_true")
    asked = parser.parse_args()
    begin = datetime.now(timezone.utc)
    write_dbn_trades(
        asked.path, asked.records, asked.instruments, asked.seed, not asked.plain, asked.days
    )
    size, taken = asked.path.stat().st_size, datetime.now(timezone.utc) - begin
    print(f"{asked.path}: {asked.records} trades, {size} bytes, {taken.total_seconds():.1f} s")


if __name__ == "__main__":
    _main()
