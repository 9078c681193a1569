"""From a shard to its chunk, in one call: what the transforms do, for one process alone."""

from __future__ import annotations

from collections.abc import Callable

from candlebeam.formats.trade_log import TradeLogReader
from candlebeam.formats.trade_rows import parse_rows
from candlebeam.io.rejects import write_rejects
from candlebeam.io.staging import Staging
from candlebeam.plan import Shard
from candlebeam.rules.candle_kernels import fold_trades
from candlebeam.rules.candles import CandleMerger, aggregate, empty_candles
from candlebeam.rules.corrections import correct_trades
from candlebeam.settings import CandleSettings


def load_kernels() -> None:
    """Loads the compiled loops that every chunk needs, or compiles them."""
    for kernel in (parse_rows, fold_trades):
        kernel.compiled()


def open_reader(
    shard: Shard, rejects: str | None, cancelled: Callable[[], bool] | None = None
) -> TradeLogReader:
    """The reader of a shard; rejected rows go to the folder `rejects`, if there is one."""
    return TradeLogReader(
        shard.market,
        shard.files,
        from_ts=shard.from_ts,
        keep_rejects=rejects is not None,
        cancelled=cancelled,
    )


def keep_rejects(shard: Shard, reader: TradeLogReader, rejects: str | None) -> None:
    """Writes what the reader has rejected to the folder `rejects`, if there is one."""
    if rejects is not None:
        for path, rows in reader.rejects:
            write_rejects(rejects, shard.market, path, rows)


def make_chunk(
    shard: Shard,
    staging: Staging,
    settings: CandleSettings,
    rejects: str | None,
    cancelled: Callable[[], bool] | None = None,
) -> None:
    """Reads a shard and puts its chunk in place.

    Raises:
        Cancelled: `cancelled` said so.
        RangeError: a volume does not fit in 64 bits.
        OSError: the chunk or the rejected rows cannot be written.
    """
    reader = open_reader(shard, rejects, cancelled)
    merger = CandleMerger()
    for batch in reader:
        corrected = correct_trades(batch, settings.corrections)
        merger.add(
            aggregate(
                corrected, settings.timeframe, include_liquidations=settings.include_liquidations
            )
        )
    keep_rejects(shard, reader, rejects)
    block = merger.finish()
    candles = empty_candles() if block is None else block.candles
    staging.write_chunk(shard.market, shard.name, reader.outcomes, candles)
