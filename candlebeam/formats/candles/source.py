"""Candle files as a source of bars."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from candlebeam.formats.bar_source import Piece
from candlebeam.formats.candles.columns import read_columns
from candlebeam.formats.candles.companion import CandlePaths
from candlebeam.formats.candles.file import open_candles
from candlebeam.formats.candles.records import RECORD_DTYPE
from candlebeam.formats.mapped import MappedBytes
from candlebeam.model import BAR_COLUMNS, VOLUME_SCALE, Bars

PIECE_BARS = 65_536


class CandleSource:
    """The candles of a candle file as a `BarSource`: real prices, and quote volume.

    A candle without trades is a gap, also where there were liquidations.

    Args:
        path: its `.bin` or its `.json`.

    Raises:
        FormatError, FileNotFoundError: see `open_candles`.
    """

    record_bytes = RECORD_DTYPE.itemsize

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._candles = open_candles(path)
        companion = self._candles.companion
        self.path = CandlePaths(os.path.splitext(os.fspath(path))[0]).records
        self.market = companion.market
        self.timeframe = companion.timeframe
        self.closed = max(len(self._candles) - 1, 0)

    def __len__(self) -> int:
        return len(self._candles)

    def place_of(self, ts: int) -> int:
        """The place of the first candle that starts at or after a time."""
        return int(self._candles.between(ts, None).start)

    def pieces(self, begin: int = 0) -> Iterator[Piece]:
        """See `BarSource`."""
        companion = self._candles.companion
        records = self._candles.records.view(RECORD_DTYPE, np.ndarray)
        mapped = MappedBytes(records)
        for start in range(begin, len(records), PIECE_BARS):
            part = records[start : start + PIECE_BARS]
            columns = np.empty((len(BAR_COLUMNS) - 1, len(part)))
            read_columns(
                part.view(np.int32).reshape(len(part), -1),
                part.view(np.int64).reshape(len(part), -1),
                companion.scale.power,
                companion.scale.multiplies,
                VOLUME_SCALE,
                columns,
            )
            step = companion.timeframe.ms
            ts = companion.start_ts + np.arange(start, start + len(part), dtype=np.int64) * step
            yield Piece(start, Bars(ts, *columns))
            mapped.let_go((start + len(part)) * self.record_bytes)

    def checksum(self, end: int) -> int:
        """See `BarSource`."""
        return MappedBytes(self._candles.records).checksum(end * self.record_bytes)
