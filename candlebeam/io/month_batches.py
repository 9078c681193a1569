"""Bars month by month, in the batches that an export writes."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from isal import isal_zlib

from candlebeam.errors import FormatError
from candlebeam.formats.bar_source import BarSource
from candlebeam.formats.candles.file import Candles
from candlebeam.formats.candles.records import RECORD_DTYPE
from candlebeam.formats.mapped import MappedBytes
from candlebeam.formats.tables.tables import (
    GROUP_ROWS,
    bar_schema,
    bar_table,
    candle_schema,
    candle_table,
)
from candlebeam.model import BAR_COLUMNS, Bars, Int64Array

if TYPE_CHECKING:
    import pyarrow as pa


class CandleBatch(NamedTuple):
    """Some candles of a file, of one month."""

    candles: Candles
    part: slice

    def checksum(self, before: int) -> int:
        """CRC-32 of what has been read of the month so far, these candles included."""
        companion = self.candles.companion
        if not before:
            first = companion.start_ts + self.part.start * companion.timeframe.ms
            said = f"{first} {companion.timeframe.ms} {companion.scale.decimals}"
            before = isal_zlib.crc32(said.encode())
        records = self.candles.records[self.part].view(RECORD_DTYPE, np.ndarray)
        return isal_zlib.crc32(records.view(np.uint8), before)

    def table(self, keep_gaps: bool) -> pa.Table:
        """See `candle_table`."""
        return candle_table(self.candles, self.part, keep_gaps=keep_gaps)


class BarBatch(NamedTuple):
    """Some bars of one month."""

    bars: Bars

    def checksum(self, before: int) -> int:
        """CRC-32 of what has been read of the month so far, these bars included."""
        columns = [getattr(self.bars, name).view(np.int64) for name in BAR_COLUMNS]
        return isal_zlib.crc32(np.stack(columns, axis=1), before)

    def table(self, keep_gaps: bool) -> pa.Table:
        """See `bar_table`."""
        return bar_table(self.bars, keep_gaps=keep_gaps)


Batch = CandleBatch | BarBatch


class MonthBatches(Protocol):
    """What an export reads.

    Attributes:
        whole: whether it is all of the market's history, so that other months are none of it.
    """

    @property
    def whole(self) -> bool: ...

    def schema(self) -> pa.Schema:
        """The columns of the batches' tables."""
        ...

    def read(self, wanted: Container[str] | None = None) -> Iterator[tuple[str, Batch]]:
        """The batches of these months (all by default), each with its month, in order of time."""
        ...


def checksums(source: MonthBatches) -> dict[str, int]:
    """CRC-32 of every month, in order."""
    found: dict[str, int] = {}
    for month, batch in source.read():
        found[month] = batch.checksum(found.get(month, 0))
    return found


class CandleMonths:
    """The candles of a candle file, with all that it says of them."""

    whole = True

    def __init__(self, candles: Candles) -> None:
        self._candles = candles

    def schema(self) -> pa.Schema:
        """See `MonthBatches`."""
        return candle_schema()

    def read(self, wanted: Container[str] | None = None) -> Iterator[tuple[str, Batch]]:
        """See `MonthBatches`."""
        candles = self._candles
        companion = candles.companion
        if not len(candles):
            return
        mapped = MappedBytes(candles.records)
        first, last = _months(np.array([companion.start_ts, companion.end_ts - 1]))
        for number in range(first, last + 1):
            chosen = candles.between(_start_of(number), _start_of(number + 1))
            month = _month_text(number)
            if wanted is not None and month not in wanted:
                continue
            for begin in range(chosen.start, chosen.stop, GROUP_ROWS):
                part = slice(begin, min(begin + GROUP_ROWS, chosen.stop))
                yield month, CandleBatch(candles, part)
                mapped.let_go(part.stop * RECORD_DTYPE.itemsize)


class BarMonths:
    """The bars of one or several sources of one instrument, one after the other.

    Args:
        sources: in any order; what is without bars is passed over.
        whole: see `MonthBatches`.
    """

    def __init__(self, sources: Sequence[BarSource], *, whole: bool = False) -> None:
        self.whole = whole
        self._sources = sources
        self._ordered: list[BarSource] | None = None
        # Where each month begins: the number of the source, and the place in it.
        self._starts: dict[str, tuple[int, int]] = {}

    def schema(self) -> pa.Schema:
        """See `MonthBatches`."""
        return bar_schema()

    def read(self, wanted: Container[str] | None = None) -> Iterator[tuple[str, Batch]]:
        """See `MonthBatches`.

        Raises:
            FormatError: times do not ascend, within a file or from one to the next.
        """
        sources = self._in_order()
        number, begin = 0, 0
        if wanted is not None and self._starts:
            starts = [start for month, start in self._starts.items() if month in wanted]
            if not starts:
                return
            number, begin = min(starts)
        last: int | None = None
        for place in range(number, len(sources)):
            source = sources[place]
            for piece in source.pieces(begin):
                if not len(piece.bars):
                    continue
                self._check_order(place, piece.begin, piece.bars.ts, last)
                last = int(piece.bars.ts[-1])
                for month, part in _split(piece.bars.ts):
                    self._starts.setdefault(month, (place, piece.begin + part.start))
                    if wanted is None or month in wanted:
                        yield month, BarBatch(piece.bars.part(part))
            begin = 0

    def _in_order(self) -> list[BarSource]:
        if self._ordered is None:
            if len(self._sources) == 1:
                return list(self._sources)
            first = [(_first_ts(source), source) for source in self._sources]
            known = [(ts, source.path, source) for ts, source in first if ts is not None]
            self._ordered = [source for _, _, source in sorted(known, key=lambda each: each[:2])]
        return self._ordered

    def _check_order(self, number: int, begin: int, times: Int64Array, last: int | None) -> None:
        before = np.concatenate([times[:1] if last is None else [last], times[:-1]])
        wrong = np.flatnonzero(times < before)
        if not len(wrong):
            return
        at = int(wrong[0])
        source = self._in_order()[number]
        after = _moment(int(before[at]))
        if begin == 0 and at == 0 and number:
            after += f", which stands in {self._in_order()[number - 1].path}"
        offset = (begin + at) * source.record_bytes if source.record_bytes > 1 else None
        raise FormatError(source.path, f"a bar after {after}", _moment(int(times[at])), offset)


def _first_ts(source: BarSource) -> int | None:
    return next((int(piece.bars.ts[0]) for piece in source.pieces()), None)


def _months(times: Int64Array) -> list[int]:
    """The months of times, counted from January 1970."""
    months: list[int] = times.view("datetime64[ms]").astype("datetime64[M]").view(np.int64).tolist()
    return months


def _split(times: Int64Array) -> Iterator[tuple[str, slice]]:
    """The months of ascending times, and which of them are in each."""
    if not len(times):
        return
    first, last = _months(times[[0, -1]])
    begin = 0
    for number in range(first, last + 1):
        end = len(times)
        if number < last:
            end = int(np.searchsorted(times, _start_of(number + 1)))
        if end > begin:
            yield _month_text(number), slice(begin, end)
        begin = end


def _start_of(month: int) -> int:
    return int(np.datetime64(month, "M").astype("datetime64[ms]").astype(np.int64))


def _month_text(month: int) -> str:
    return str(np.datetime64(month, "M"))


def _moment(ts: int) -> str:
    return f"{np.datetime64(ts, 'ms')}Z"
