"""From shards to their chunks, in one call: what the transforms do, for one process alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from candlebeam.formats.trade_log.rows import parse_rows
from candlebeam.inventory import TRADE_LOG
from candlebeam.io.chunk_builder import ChunkBuilder
from candlebeam.io.shard_reader import open_reader, write_shard_rejects
from candlebeam.io.staging import Staging
from candlebeam.rules.candle_kernels import fold_trades
from candlebeam.rules.candles import aggregate
from candlebeam.rules.corrections import correct_trades
from candlebeam.settings import CandleSettings
from candlebeam.shards import Shard


def load_kernels(source: str) -> None:
    """Loads the compiled loops that every chunk of an archive needs, or compiles them."""
    if source == TRADE_LOG:
        parse_rows.compiled()
    fold_trades.compiled()


def make_chunks(
    shards: Sequence[Shard],
    staging: Staging,
    settings: CandleSettings,
    rejects: str | None,
    cancelled: Callable[[], bool] | None = None,
) -> None:
    """Reads a shard, or several with the same file, and puts their chunks in place.

    Raises:
        Cancelled: `cancelled` said so.
        RangeError: a volume does not fit in 64 bits.
        OSError: a chunk or the rejected rows cannot be written.
    """
    reader = open_reader(
        shards, keep_rejects=rejects is not None, snap=settings.snap, cancelled=cancelled
    )
    builder = ChunkBuilder(staging)
    for place, batch in reader:
        block = aggregate(
            correct_trades(batch, settings.corrections),
            settings.timeframe,
            include_liquidations=settings.include_liquidations,
        )
        builder.add(shards[place].market, shards[place].name, block)
    for place, shard in enumerate(shards):
        write_shard_rejects(shards, place, reader, rejects)
        builder.finish(shard.market, shard.name, reader.outcomes(place))
