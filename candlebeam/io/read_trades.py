"""Sources: from the manifests of a plan to trade batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
from apache_beam import coders, pvalue

from candlebeam.io.cancellation import is_cancelled
from candlebeam.io.coders import CandleBlockCoder  # noqa: F401  registers all coders
from candlebeam.io.early_workers import early_workers
from candlebeam.io.shard_reader import open_reader, write_shard_rejects
from candlebeam.io.staging import ChunkRef, ShardRef, Staging, list_shards, read_shard
from candlebeam.model import FileOutcome, Market, TradeBatch
from candlebeam.shards import Shard
from candlebeam.storage.durable import cannot_write


class ShardPart(NamedTuple):
    """The key of what is made from a shard: where it belongs, and whether it is all.

    Attributes:
        shard, market, ordinal, name: the shard's.
        part: counts the parts of a shard from 0.
        files: how its files went, in the last part; None in the others.
        error: why the shard cannot be staged all the same, in the last part; else "".
    """

    shard: ShardRef
    market: Market
    ordinal: int
    name: str
    part: int
    files: tuple[FileOutcome, ...] | None = None
    error: str = ""


class ShardPartCoder(coders.Coder):
    """`ShardPart`, pickled: it crosses a stage only where a runner does not fuse the reading."""

    def __init__(self) -> None:
        self._coder = coders.PickleCoder()

    def encode(self, value: ShardPart) -> bytes:
        return self._coder.encode(value)  # type: ignore[no-any-return]

    def decode(self, encoded: bytes) -> ShardPart:
        return self._coder.decode(encoded)  # type: ignore[no-any-return]

    def is_deterministic(self) -> bool:
        return True


coders.registry.register_coder(ShardPart, ShardPartCoder)


class ListShards(beam.PTransform):
    """Paths of manifests to the shards in them, spread over the workers.

    In: a PCollection of `str`. Out: a PCollection of `ShardRef`.
    """

    def expand(self, manifests: pvalue.PCollection) -> pvalue.PCollection:
        return (
            manifests
            | "ReadManifests" >> beam.FlatMap(list_shards).with_output_types(ShardRef)
            | "SpreadShards" >> beam.Reshuffle()
        )


class FindStaged(beam.PTransform):
    """Tells shards that an earlier run has finished from those that are to be read.

    In: a PCollection of `ShardRef`. Out: two PCollections, `to_read` of `ShardRef` and `staged` of
    (`Market`, `ChunkRef`).

    Args:
        staging: the staging folder.
        run: the run's name, to know of chunks that were made early (`io.early_workers`).
    """

    def __init__(self, *, staging: str, run: str = "") -> None:
        super().__init__()
        self._staging, self._run = Staging(staging), run

    def expand(self, shards: pvalue.PCollection) -> Any:
        look = beam.ParDo(_FindStagedFn(self._staging, self._run))
        found = shards | "LookForChunks" >> look.with_outputs("staged", main="to_read")
        # Types of tagged outputs cannot be declared otherwise; without them keys are pickled.
        found.to_read.element_type = ShardRef
        found.staged.element_type = tuple[Market, ChunkRef]
        return found


class _FindStagedFn(beam.DoFn):
    def __init__(self, staging: Staging, run: str) -> None:
        self._staging, self._run = staging, run

    def process(self, refs: ShardRef) -> Iterator[Any]:
        early = early_workers(self._run)
        to_read = []
        for ref in refs.each:
            shard = read_shard(ref)
            made_early = early is not None and early.has_made(shard)
            if made_early or self._staging.find_chunk(shard) or self._is_done(shard):
                found = ChunkRef(ref, shard.ordinal, shard.name, reused=not made_early)
                yield pvalue.TaggedOutput("staged", (shard.market, found))
            else:
                to_read.append(ref)
        if to_read:
            yield ShardRef.of_all(to_read)

    def _is_done(self, shard: Shard) -> bool:
        """Whether the market is finished already: then a runner does this work once more."""
        return bool(self._run) and self._staging.has_outcome(shard.market)


class ReadTrades(beam.PTransform):
    """Reads the files of shards, whatever archive they are of.

    In: a PCollection of `ShardRef`. Out: a PCollection of (`ShardPart`, `TradeBatch`), the batches
    of a shard in file order, those of shards in the same file mixed. The last part of a shard has
    no trades but says how its files went; what could not be read stands there and stops nothing.

    Args:
        rejects: a folder to keep rejected rows in; None not to keep them.
        snap: whether numbers that an archive's writer has cut off are recovered (`rules.steps`).
        run: the name by which the run can be cancelled (`io.cancellation`).
    """

    def __init__(self, *, rejects: str | None = None, snap: bool = True, run: str = "") -> None:
        super().__init__()
        self._rejects, self._snap, self._run = rejects, snap, run

    def expand(self, shards: pvalue.PCollection) -> pvalue.PCollection:
        read = beam.ParDo(_ReadShardsFn(self._rejects, self._snap, self._run))
        return shards | "ReadShards" >> read.with_output_types(tuple[ShardPart, TradeBatch])


class _ReadShardsFn(beam.DoFn):
    def __init__(self, rejects: str | None, snap: bool, run: str) -> None:
        self._rejects, self._snap, self._run = rejects, snap, run

    def process(self, refs: ShardRef) -> Iterator[tuple[ShardPart, TradeBatch]]:
        shards = [read_shard(ref) for ref in refs.each]
        reader = open_reader(
            shards,
            keep_rejects=self._rejects is not None,
            snap=self._snap,
            cancelled=lambda: is_cancelled(self._run),
        )
        parts = [
            ShardPart(ref, shard.market, shard.ordinal, shard.name, 0)
            for ref, shard in zip(refs.each, shards, strict=True)
        ]
        for place, batch in reader:
            part = parts[place]
            yield part, batch
            parts[place] = part._replace(part=part.part + 1)
        for place, part in enumerate(parts):
            error = ""
            try:
                write_shard_rejects(shards, place, reader, self._rejects)
            except OSError as failure:
                error = cannot_write(failure, self._rejects or "")
            files = tuple(reader.outcomes(place))
            yield part._replace(files=files, error=error), _no_trades(part.market)


def _no_trades(market: Market) -> TradeBatch:
    return TradeBatch(
        market,
        np.empty(0, np.int64),
        np.empty(0, np.float64),
        np.empty(0, np.float64),
        np.empty(0, np.uint8),
        np.empty(0, np.uint8),
    )
