"""Merging chunks span by span: one market's candles in order, without holding them all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from candlebeam.model import BLOCK_DTYPE, CandleBlock, Market, Records, Timeframe
from candlebeam.rules.candles import merge

#: Candles of one span: sixteen blocks of 4,096 records.
SPAN_CANDLES = 16 * 4096
_READ_CANDLES = 1 << 14


class CandleSource(Protocol):
    """Candles that can be read by place: `length` records, strictly ascending by time."""

    @property
    def length(self) -> int: ...

    def read(self, begin: int, end: int) -> Records:
        """The records of `BLOCK_DTYPE` from place `begin` to before `end`."""
        ...


class StoredCandles:
    """A `CandleSource` of records in memory."""

    def __init__(self, records: Records) -> None:
        self._records = records

    @property
    def length(self) -> int:
        return len(self._records)

    def read(self, begin: int, end: int) -> Records:
        return self._records[begin:end]


class CandlesAfter:
    """A `CandleSource` of another's candles, without a first one that is not after a moment.

    Args:
        source: whose second candle, if there is one, is after it.
        ts: the moment, ms.
    """

    def __init__(self, source: CandleSource, ts: int) -> None:
        self._source = source
        self._left_out = int((source.read(0, min(1, source.length))["time"] <= ts).sum())
        self.length = source.length - self._left_out

    def read(self, begin: int, end: int) -> Records:
        return self._source.read(begin + self._left_out, end + self._left_out)


class MergedCandles:
    """The candles of several sources of one market, merged in the order of the sources.

    Args:
        market, timeframe: of all of them.
        sources: in file order; they may overlap in time.

    Attributes:
        start_ts, end_ts: start of the first candle and end of the last; both 0 without any.
    """

    def __init__(
        self, market: Market, timeframe: Timeframe, sources: Sequence[CandleSource]
    ) -> None:
        self._market, self._timeframe = market, timeframe
        self._sources = [source for source in sources if source.length]
        ends = [int(s.read(s.length - 1, s.length)["time"][0]) for s in self._sources]
        self._starts = [int(s.read(0, 1)["time"][0]) for s in self._sources]
        self.start_ts = min(self._starts, default=0)
        self.end_ts = max(ends) + timeframe.ms if ends else 0

    def __bool__(self) -> bool:
        return bool(self._sources)

    def spans(self) -> Iterator[CandleBlock]:
        """Blocks of candles in order, each within `SPAN_CANDLES` candles of time; none is empty."""
        length = SPAN_CANDLES * self._timeframe.ms
        streams = [
            _Stream(source, start)
            for source, start in zip(self._sources, self._starts, strict=True)
        ]
        while streams:
            begin = min(stream.next_ts for stream in streams)
            # Spans stand at whole multiples from the start, so that a span is written at one place.
            begin -= (begin - self.start_ts) % length
            parts = [
                stream.take(begin + length) for stream in streams if stream.next_ts < begin + length
            ]
            streams = [stream for stream in streams if not stream.done]
            yield merge([CandleBlock(self._market, self._timeframe, part) for part in parts])


class _Stream:
    """One source, read from front to end."""

    def __init__(self, source: CandleSource, next_ts: int) -> None:
        self._source = source
        self._place = 0
        self._buffer: Records = np.empty(0, BLOCK_DTYPE)
        self.next_ts = next_ts

    @property
    def done(self) -> bool:
        return not len(self._buffer) and self._place == self._source.length

    def take(self, until_ts: int) -> Records:
        """The candles before `until_ts`."""
        parts = []
        while not self.done:
            if not len(self._buffer):
                end = min(self._place + _READ_CANDLES, self._source.length)
                self._buffer, self._place = self._source.read(self._place, end), end
            cut = int(np.searchsorted(self._buffer["time"], until_ts))
            parts.append(self._buffer[:cut])
            self._buffer = self._buffer[cut:]
            if len(self._buffer):
                self.next_ts = int(self._buffer["time"][0])
                break
        return np.concatenate(parts)
