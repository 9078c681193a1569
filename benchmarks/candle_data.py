"""A candle file of one market: minutes over many years, some of them without trades."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.cache import VERSION, Built
from candlebeam.formats.candles.companion import CandlePaths, Companion
from candlebeam.formats.candles.records import RECORD_DTYPE
from candlebeam.model import VOLUME_SCALE, Market, Timeframe
from candlebeam.rules.price_scale import PriceScale

MARKET = Market("RAM", "BINANCE", "btcusdt")
START = datetime(2005, 1, 3, tzinfo=timezone.utc)
_MINUTE = Timeframe.parse("1m")
_SCALE = PriceScale(4)
_CENT = _SCALE.value // 100
#: Of the walk, in cents.
_LOWEST, _WIDTH = 100_000, 8_000_000
_BLOCK = 500_000


@dataclass(frozen=True)
class CandleSet:
    """So many minutes of a market."""

    name: str
    candles: int
    base: None = None

    def scaled(self, scale: float) -> CandleSet:
        """With fewer of them."""
        return replace(self, candles=max(round(self.candles * scale), min(self.candles, 100)))

    def build(self, root: Path) -> Built:
        """Make it in an empty folder."""
        paths = CandlePaths.of(str(root), MARKET)
        records = Path(paths.records)
        records.parent.mkdir(parents=True)
        start_ts = int(START.timestamp()) * 1000
        cents = 4_000_000
        built = Built()
        with records.open("wb") as file:
            for begin in range(0, self.candles, _BLOCK):
                rng = np.random.default_rng([VERSION, 4, begin])
                count = min(_BLOCK, self.candles - begin)
                block, cents = _minutes(rng, count, cents, begin + count == self.candles)
                file.write(block.tobytes())
                built += _sums(block, start_ts // _MINUTE.ms + begin)
        end_ts = start_ts + self.candles * _MINUTE.ms
        about = Companion(
            MARKET, _MINUTE, start_ts, end_ts, _SCALE, self.candles, end_ts - _MINUTE.ms
        )
        Path(paths.companion).write_bytes(about.encode())
        return built + Built(files=1, rows=self.candles, bytes=records.stat().st_size)


def _minutes(
    rng: np.random.Generator, count: int, cents: int, is_last: bool
) -> tuple[npt.NDArray[Any], int]:
    """Candles of a random walk that begins at a price; the last price is returned as well."""
    close = cents + np.cumsum(rng.integers(-400, 401, count))
    # The walk turns back at either end of what int32 can hold.
    close = _LOWEST + _WIDTH - np.abs((close - _LOWEST) % (2 * _WIDTH) - _WIDTH)
    opened = np.append(cents, close[:-1]) + rng.integers(-3, 4, count)
    top = np.maximum(opened, close) + rng.integers(0, 200, count)
    bottom = np.minimum(opened, close) - rng.integers(0, 200, count)
    block = np.zeros(count, RECORD_DTYPE)
    for name, price in zip(
        ("open", "high", "low", "close"), (opened, top, bottom, close), strict=True
    ):
        block[name] = price * _CENT
    for side in ("buy", "sell"):
        block[f"{side}_volume"] = np.exp(rng.normal(25.0, 1.5, count)).astype(np.int64) + 1
        block[f"{side}_count"] = rng.geometric(0.004, count)
    liquidated = rng.random(count) < 0.01
    block["sell_liquidation"][liquidated] = rng.integers(1, 10**10, int(liquidated.sum()))
    quiet = rng.random(count) < 0.02
    for begin in rng.integers(0, count, count // 100_000):
        quiet[begin : begin + int(rng.integers(2, 300))] = True
    quiet[0] = False
    if is_last:
        quiet[-1] = False
    block[quiet] = np.zeros((), RECORD_DTYPE)
    return block, int(close[-1])


def _sums(block: npt.NDArray[Any], first_minute: int) -> Built:
    """What an aligned file of these candles comes to, by the names of `outputs`."""
    places = np.flatnonzero(block["buy_count"])
    traded = block[places]
    sums: dict[str, float] = {
        "1m bars": len(traded),
        "1m starts": int((places + first_minute).sum()),
    }
    for name in ("open", "high", "low", "close"):
        sums[f"1m {name}"] = int(traded[name].sum(dtype=np.int64)) / _SCALE.value
    volumes = (int(traded[f"{side}_volume"].sum()) for side in ("buy", "sell"))
    sums["1m volume"] = sum(volumes) / VOLUME_SCALE
    return Built(candles=len(traded), sums=sums)
