"""Writes trade logs as collectors do, at a rate, with the times of a clock: a program of its own.

    python -m benchmarks.live_feeder ROOT --markets 100 --rate 200000 --seconds 120

Each market's rows go to the file of the hour, which is compressed when the next one has begun. A
row is of the usual form and 40 bytes, or a few less.
"""

from __future__ import annotations

import argparse
import gzip
import os
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
SLICE_SECONDS = 0.1
_DIGITS = 13
_HOUR_MS = 3_600_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--markets", type=int, default=100)
    parser.add_argument("--rate", type=float, default=200_000, help="rows a second, of all markets")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clock", type=float, nargs=3, metavar=("EVENT_MS", "WALL_S", "SPEED"))
    options = parser.parse_args()
    feed(options.root, options.markets, options.rate, options.seconds, options.clock)


def feed(
    root: Path, markets: int, rate: float, seconds: float, clock: list[float] | None = None
) -> None:
    """Writes for some seconds. Where it falls behind its rate it raises `RuntimeError`."""
    event_ms, wall_s, speed = clock or (0.0, 0.0, 1.0)
    begun = time.time()
    written = np.zeros(markets, np.int64)
    last = int(event_ms + (begun - wall_s) * 1000 * speed)
    rows = _rows(int(rate / markets * (SLICE_SECONDS * 4)) + 16)
    hours: dict[int, Path] = {}
    number = 0
    while (now := time.time()) < begun + seconds:
        event = int(event_ms + (now - wall_s) * 1000 * speed)
        for market in range(markets):
            due = int(rate / markets * (now - begun + market / markets * SLICE_SECONDS))
            count = min(due - int(written[market]), len(rows))
            if count <= 0:
                continue
            written[market] += count
            times = np.linspace(last, event, count, endpoint=False).astype(np.int64)
            path = _path(root, market, event)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.write(_text(rows[:count], times))
            if hours.get(market, path) != path:
                _pack(hours[market])
            hours[market] = path
        last = event
        number += 1
        time.sleep(max(0.0, begun + number * SLICE_SECONDS - time.time()))
    # What is left of the last slice is of no account where it goes on for long.
    if seconds > 5 and written.sum() < 0.98 * rate * seconds:
        raise RuntimeError(f"{written.sum():,} rows were written of {rate * seconds:,.0f}")
    print(int(written.sum()))


def _path(root: Path, market: int, event_ms: int) -> Path:
    hour = datetime.fromtimestamp(event_ms // 1000, timezone.utc)
    return root / f"RAM/2024/BINANCE/m{market:04}usdt/{hour:%Y-%m-%d-%H}"


def _pack(path: Path) -> None:
    packed = path.with_name(path.name + ".gz")
    packed.write_bytes(gzip.compress(path.read_bytes(), 1))
    os.unlink(path)


def _rows(count: int) -> Bytes:
    """Rows of one length, whose times are still to be filled in."""
    random = np.random.default_rng(1)
    prices = 40_000 + np.cumsum(random.integers(-3, 4, count)) / 100
    sizes = random.integers(1, 9_999, count)
    text = b"".join(
        b"0000000000000 %08.2f 0.%04d %d\n" % (price, size, side)
        for price, size, side in zip(prices, sizes, random.integers(0, 2, count), strict=True)
    )
    rows: Bytes = np.frombuffer(text, np.uint8).reshape(count, -1).copy()
    return rows


def _text(rows: Bytes, times: object) -> bytes:
    left = np.asarray(times, np.int64).copy()
    for column in range(_DIGITS - 1, -1, -1):
        left, digit = np.divmod(left, 10)
        rows[:, column] = digit + ord("0")
    return rows.tobytes()


if __name__ == "__main__":
    main()
