"""Bars as the bytes of aligned records."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np

from candlebeam.errors import CandlebeamError
from candlebeam.formats.aligned.file import ALIGNED_DTYPE
from candlebeam.formats.aligned.kernels import FORWARD, LAST_TS, SKIP, ZERO, lay_out_bars
from candlebeam.model import BAR_COLUMNS, Bars, Uint8Array, for_kernels

_WORDS = ALIGNED_DTYPE.itemsize // 8
#: How bars without trades are written: at the close before them, as zeros, or not at all.
GAPS = MappingProxyType({"forward": FORWARD, "zero": ZERO, "skip": SKIP})


class AlignedLayout:
    """Lays out bars one after the other.

    Args:
        source: whose bars they are, for messages.
        gaps: one of `GAPS`.
        last: the bar before the first, one row; None without any.

    Attributes:
        record_ts: the time of the last bar that became a record; -1 before there is one.
    """

    def __init__(self, source: str, gaps: str, last: Bars | None) -> None:
        self._source, self._gaps = source, GAPS[gaps]
        self._last_ts = self.record_ts = -1 if last is None else int(last.ts[0])
        self._close = np.array([np.nan if last is None else last.close[0]])
        self._buffer = np.empty(0, ALIGNED_DTYPE)

    def lay_out(self, bars: Bars) -> Uint8Array:
        """The bytes of the records; they are overwritten by the next ones.

        Raises:
            CandlebeamError: a bar is not later than the one before it, or is none.
        """
        if len(self._buffer) < len(bars):
            self._buffer = np.empty(len(bars), ALIGNED_DTYPE)
        words = self._buffer.view(np.int64).reshape(len(self._buffer), _WORDS)
        count = lay_out_bars(
            for_kernels(bars.ts),
            for_kernels(bars.open),
            for_kernels(bars.high),
            for_kernels(bars.low),
            for_kernels(bars.close),
            for_kernels(bars.volume),
            self._gaps,
            self._last_ts,
            self._close,
            words,
            words.view(np.float64),
        )
        if count < 0:
            self._refuse(bars, -1 - count)
        if len(bars):
            self._last_ts = int(bars.ts[-1])
        if count:
            self.record_ts = int(words[count - 1, 0])
        return words[:count].reshape(-1).view(np.uint8)

    def _refuse(self, bars: Bars, place: int) -> None:
        values = ", ".join(f"{name} {getattr(bars, name)[place]}" for name in BAR_COLUMNS)
        before = int(bars.ts[place - 1]) if place else self._last_ts
        later = "" if before < 0 else f" after {before}"
        raise CandlebeamError(
            f"{self._source}: expected a bar{later} up to {LAST_TS}, all of it numbers,"
            f" found {values}"
        )
