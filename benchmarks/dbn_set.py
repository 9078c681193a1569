"""Databento files that are timed: one file of trades over some days."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.cache import VERSION, Built
from benchmarks.candle_sums import candle_sums
from benchmarks.dbn_data import TRADE_DTYPE, write_dbn_trades

FILE_NAME = "trades.dbn.zst"
_MINUTE_NS = 60 * 10**9


@dataclass(frozen=True)
class DbnSet:
    """Trades of some instruments, each with another id on each day."""

    name: str
    records: int
    instruments: int
    days: int
    base: None = None

    def scaled(self, scale: float) -> DbnSet:
        """With fewer trades."""
        records = max(round(self.records * scale), min(self.records, 100 * self.days))
        return replace(self, records=records)

    def build(self, root: Path) -> Built:
        """Make it in an empty folder."""
        path = root / FILE_NAME
        write_dbn_trades(path, self.records, self.instruments, VERSION, days=self.days)
        raw = self.records * TRADE_DTYPE.itemsize
        built = Built(1, self.records, bytes=raw, packed_bytes=path.stat().st_size)
        for trades in _whole_minutes(path):
            minute = (trades["ts_recv"] // _MINUTE_NS).astype(np.int64)
            candle = trades["instrument_id"].astype(np.int64) << 32 | minute
            order = np.argsort(candle, kind="stable")
            price = trades["price"][order] / 1e9
            built += candle_sums(candle[order], price, trades["size"][order].astype(np.float64))
        return built


def _whole_minutes(path: Path) -> Iterator[npt.NDArray[Any]]:
    """The trades of a file in pieces that end where a minute does."""
    import databento

    kept = np.empty(0, TRADE_DTYPE)
    for part in databento.DBNStore.from_file(path).to_ndarray(count=1 << 20):
        piece = np.concatenate([kept, part])
        minute = piece["ts_recv"] // _MINUTE_NS
        end = int(np.searchsorted(minute, minute[-1]))
        yield piece[:end]
        kept = piece[end:]
    yield kept
