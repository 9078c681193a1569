"""The checkpoint: candle blocks of a shard to its chunk on disk."""

from __future__ import annotations

from collections.abc import Iterator

import apache_beam as beam
from apache_beam import pvalue

from candlebeam.errors import CandlebeamError
from candlebeam.io.durable import cannot_write
from candlebeam.io.read_trades import ShardPart
from candlebeam.io.staging import ChunkRef, Staging
from candlebeam.model import CandleBlock, Market
from candlebeam.rules.candles import CandleMerger, empty_candles


class StageChunks(beam.PTransform):
    """Merges the candles of each shard and puts them on disk as a chunk.

    In: a PCollection of (`ShardPart`, `CandleBlock` or `CandlebeamError`); the parts of a shard
    come one after the other, in one bundle, as `ReadTrades` gives them. Out: a PCollection of
    (`Market`, `ChunkRef`). A chunk that cannot be made is a `ChunkRef` with an error.

    Writing a chunk twice does no harm: its name and its bytes are the same, and it appears at once.

    Args:
        staging: the staging folder.
    """

    def __init__(self, *, staging: str) -> None:
        super().__init__()
        self._staging = Staging(staging)

    def expand(self, candles: pvalue.PCollection) -> pvalue.PCollection:
        write = beam.ParDo(_StageChunkFn(self._staging))
        return candles | "WriteChunks" >> write.with_output_types(tuple[Market, ChunkRef])


class _StageChunkFn(beam.DoFn):
    def __init__(self, staging: Staging) -> None:
        self._staging = staging
        self._parts = 0
        self._merger = CandleMerger()
        self._error = ""

    def start_bundle(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._parts, self._merger, self._error = 0, CandleMerger(), ""

    def process(
        self, element: tuple[ShardPart, CandleBlock | CandlebeamError]
    ) -> Iterator[tuple[Market, ChunkRef]]:
        part, candles = element
        if part.part != self._parts:
            raise RuntimeError(
                f"{part.market}: part {part.part} of a shard came where part {self._parts} was"
                " expected; the runner must not split reading from staging"
            )
        self._parts += 1
        self._error = self._error or part.error
        try:
            if isinstance(candles, CandlebeamError):
                raise candles
            self._merger.add(candles)
        except CandlebeamError as error:
            self._error = self._error or str(error)
        if part.files is None:
            return
        if not self._error:
            self._error = self._write(part)
        chunk = ChunkRef(part.shard, part.ordinal, part.name, reused=False, error=self._error)
        self._begin()
        yield part.market, chunk

    def _write(self, part: ShardPart) -> str:
        """Writes the chunk; returns why it could not be."""
        assert part.files is not None
        try:
            block = self._merger.finish()
            candles = empty_candles() if block is None else block.candles
            self._staging.write_chunk(part.market, part.name, part.files, candles)
        except CandlebeamError as error:
            return str(error)
        except OSError as error:
            return cannot_write(error, self._staging.path)
        return ""
