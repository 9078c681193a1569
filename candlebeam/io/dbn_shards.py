"""Shards of one Databento file, one a market, read in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from candlebeam.formats.dbn.reader import DbnReader, WantedMarket
from candlebeam.formats.trade_log.reader import FileRejects
from candlebeam.model import FileOutcome, Market, TradeBatch
from candlebeam.shards import Shard


class DbnShards:
    """A `ShardReader` of shards that all have the same Databento file, and no other.

    Trades of instruments that the file has no symbol for belong to no market. They are counted as
    rejected by the first of the shards, as "symbol".

    Args:
        shards: one a market.
        keep_rejects: whether records that are rejected are kept.
        cancelled: asked now and then; once it says True, iterating raises `errors.Cancelled`.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        *,
        keep_rejects: bool = False,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        (path,) = {file.path for shard in shards for file in shard.files}
        wanted = {
            shard.market.symbol: WantedMarket(shard.market, shard.from_ts, shard.files[0].seen)
            for shard in shards
        }
        self._path = path
        self._places: dict[Market, int] = {
            shard.market: place for place, shard in enumerate(shards)
        }
        self._markets = [shard.market for shard in shards]
        self._reader = DbnReader(path, wanted, keep_rejects=keep_rejects, cancelled=cancelled)

    def __iter__(self) -> Iterator[tuple[int, TradeBatch]]:
        for batch in self._reader:
            yield self._places[batch.market], batch

    def outcomes(self, place: int) -> Sequence[FileOutcome]:
        """How the file went for a shard's market."""
        outcome = self._reader.outcomes[self._markets[place]]
        if place == 0 and self._reader.unmapped:
            rejected = (("symbol", self._reader.unmapped), *outcome.rejected)
            outcome = replace(outcome, rejected=rejected)
        return [outcome]

    def rejects(self, place: int) -> Sequence[FileRejects]:
        """The rejected records of a shard's market, if they are kept."""
        kept = self._reader.rejects
        rows = list(kept.get(None, ())) if place == 0 else []
        rows += kept.get(self._markets[place], ())
        return [FileRejects(self._path, rows)] if rows else []
