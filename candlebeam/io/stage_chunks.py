"""The checkpoint: candle blocks of a shard to its chunk on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam
from apache_beam import pvalue

from candlebeam.errors import CandlebeamError
from candlebeam.io.chunk_builder import ChunkBuilder
from candlebeam.io.read_trades import ShardPart
from candlebeam.io.staging import ChunkRef, Staging
from candlebeam.model import CandleBlock, FileOutcome, Market
from candlebeam.storage.durable import cannot_write


class StageChunks(beam.PTransform):
    """Merges the candles of each shard and puts them on disk as a chunk.

    In: a PCollection of (`ShardPart`, `CandleBlock` or `CandlebeamError`); the parts of a shard
    come in order and in one bundle, as `ReadTrades` gives them. Out: a PCollection of
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


@dataclass
class _Open:
    """A shard of which not all parts have come."""

    parts: int = 0
    error: str = ""


class _StageChunkFn(beam.DoFn):
    def __init__(self, staging: Staging) -> None:
        self._staging = staging
        self._open: dict[str, _Open] = {}
        self._builder = ChunkBuilder(staging)

    def start_bundle(self) -> None:
        self._open = {}
        self._builder = ChunkBuilder(self._staging)

    def process(
        self, element: tuple[ShardPart, CandleBlock | CandlebeamError]
    ) -> Iterator[tuple[Market, ChunkRef]]:
        part, candles = element
        shard = self._open.setdefault(part.name, _Open())
        if part.part != shard.parts:
            raise RuntimeError(
                f"{part.market}: part {part.part} of a shard came where part {shard.parts} was"
                " expected; the runner must not split reading from staging"
            )
        shard.parts += 1
        shard.error = shard.error or part.error
        try:
            if isinstance(candles, CandlebeamError):
                raise candles
            self._builder.add(part.market, part.name, candles)
        except CandlebeamError as error:
            shard.error = shard.error or str(error)
        except OSError as error:
            shard.error = shard.error or cannot_write(error, self._staging.path)
        if part.files is None:
            return
        del self._open[part.name]
        failure = shard.error or self._write(part, part.files)
        self._builder.drop(part.market, part.name)
        chunk = ChunkRef(part.shard, part.ordinal, part.name, reused=False, error=failure)
        yield part.market, chunk

    def _write(self, part: ShardPart, files: Sequence[FileOutcome]) -> str:
        """Writes the chunk; returns why it could not be."""
        try:
            self._builder.finish(part.market, part.name, files)
        except CandlebeamError as error:
            return str(error)
        except OSError as error:
            return cannot_write(error, self._staging.path)
        return ""
