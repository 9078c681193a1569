"""Candles of shards on their way to chunks, in little memory.

Most shards give few candles. Those of a large file, or of a file with thousands of markets, can be
more than fit: then the largest are put aside on disk as they are, sorted, and merged at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import BinaryIO

import numpy as np

from candlebeam.io.merged_candles import CandleSource, MergedCandles, StoredCandles
from candlebeam.io.staging import Staging
from candlebeam.model import BLOCK_DTYPE, CandleBlock, FileOutcome, Market, Records, Timeframe
from candlebeam.rules.candles import CandleMerger

#: Candles that are held in memory, of all shards together: some 50 MB.
HELD_CANDLES = 1 << 19


class _Run:
    """A `CandleSource` of records that stand in a file from an offset (bytes) on."""

    def __init__(self, file: BinaryIO, offset: int, length: int) -> None:
        self._file, self._offset, self.length = file, offset, length

    def read(self, begin: int, end: int) -> Records:
        size = BLOCK_DTYPE.itemsize
        self._file.seek(self._offset + begin * size)
        return np.frombuffer(self._file.read((end - begin) * size), BLOCK_DTYPE)


class _Growing:
    """The candles of one shard so far: those in memory came last."""

    def __init__(self) -> None:
        self.merger = CandleMerger()
        self.timeframe = Timeframe(60_000)
        self._aside = ExitStack()
        self._file: BinaryIO | None = None
        self._runs: list[CandleSource] = []

    def put_aside(self, staging: Staging, market: Market) -> None:
        """Moves what is in memory to disk."""
        records = self.merger.records()
        if self._file is None:
            self._file = self._aside.enter_context(staging.scratch(market))
        offset = self._file.seek(0, 2)
        self._file.write(records.tobytes())
        self._runs.append(_Run(self._file, offset, len(records)))
        self.merger = CandleMerger()

    def pieces(self, market: Market) -> Iterator[Records]:
        """All of the candles, merged, strictly ascending by time."""
        last = self.merger.records()
        if not self._runs:
            yield last
            return
        sources = [*self._runs, StoredCandles(last)]
        for block in MergedCandles(market, self.timeframe, sources).spans():
            yield block.candles

    def close(self) -> None:
        self._aside.close()


class ChunkBuilder:
    """Builds the chunks of several shards at a time.

    Args:
        staging: where they go.
        held_candles: how many candles are held in memory.
    """

    def __init__(self, staging: Staging, held_candles: int = HELD_CANDLES) -> None:
        self._staging, self._most = staging, held_candles
        self._growing: dict[tuple[Market, str], _Growing] = {}
        # At most so many are in memory: candles of the same time count twice until they are merged.
        self._held = 0

    def add(self, market: Market, name: str, block: CandleBlock) -> None:
        """Takes the next candles of the shard `name`, in file order.

        Raises:
            RangeError: a volume does not fit in 64 bits.
            OSError: there is no room on disk.
        """
        growing = self._growing.setdefault((market, name), _Growing())
        growing.timeframe = block.timeframe
        growing.merger.add(block)
        self._held += len(block)
        if self._held > self._most:
            self._make_room()

    def _make_room(self) -> None:
        by_size = sorted(self._growing.items(), key=lambda item: -len(item[1].merger))
        self._held = 0
        for _, growing in by_size:
            growing.merger.finish()
            self._held += len(growing.merger)
        for (market, _), growing in by_size:
            if self._held <= self._most // 2:
                break
            self._held -= len(growing.merger)
            growing.put_aside(self._staging, market)

    def finish(self, market: Market, name: str, files: Sequence[FileOutcome]) -> None:
        """Puts the chunk of a shard in place; a shard without candles has one as well.

        Raises:
            RangeError, OSError: as for `add`.
        """
        growing = self._take(market, name)
        try:
            self._staging.write_chunk(market, name, files, growing.pieces(market))
        finally:
            growing.close()

    def drop(self, market: Market, name: str) -> None:
        """Forgets the candles of a shard, if there are any."""
        self._take(market, name).close()

    def _take(self, market: Market, name: str) -> _Growing:
        growing = self._growing.pop((market, name), None) or _Growing()
        self._held = max(self._held - len(growing.merger), 0)
        return growing
