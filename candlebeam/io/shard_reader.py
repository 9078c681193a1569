"""The readers of shards: the one place that knows which archive is read by what."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from candlebeam.formats.trade_log.reader import FileRejects, TradeLogReader
from candlebeam.inventory import AGG2, DBN, TRADE_LOG
from candlebeam.io.rejects import write_rejects
from candlebeam.model import FileOutcome, TradeBatch
from candlebeam.shards import Shard


class _FilesReader(Protocol):
    """What reads the files of one market; see `formats.trade_log.reader.TradeLogReader`."""

    outcomes: list[FileOutcome]
    rejects: list[FileRejects]

    def __iter__(self) -> Iterator[TradeBatch]: ...


class ShardReader(Protocol):
    """Reads shards that belong together. Iterate it once, to the end.

    Iterating gives (the place of the shard among those given, `TradeBatch`); the batches of a shard
    in file order.
    """

    def __iter__(self) -> Iterator[tuple[int, TradeBatch]]: ...

    def outcomes(self, place: int) -> Sequence[FileOutcome]:
        """How the files of a shard went, in order."""
        ...

    def rejects(self, place: int) -> Sequence[FileRejects]:
        """Its rejected rows, if they are kept."""
        ...


def open_reader(
    shards: Sequence[Shard],
    *,
    keep_rejects: bool = False,
    snap: bool = True,
    cancelled: Callable[[], bool] | None = None,
) -> ShardReader:
    """The reader of one shard, or of several with the same file (`plan.Shard.shared`).

    Args:
        keep_rejects: whether rows that are rejected are kept.
        snap: whether numbers that the archive's writer has cut off are recovered.
        cancelled: asked now and then; once it says True, iterating raises `errors.Cancelled`.
    """
    first = shards[0]
    if first.source == DBN:
        from candlebeam.io.dbn_shards import DbnShards

        return DbnShards(shards, keep_rejects=keep_rejects, cancelled=cancelled)
    if len(shards) != 1:
        raise ValueError(f"{len(shards)} shards of {first.source} files: expected one")
    return _OneShard(_files_reader(first, keep_rejects, snap, cancelled))


def _files_reader(
    shard: Shard, keep_rejects: bool, snap: bool, cancelled: Callable[[], bool] | None
) -> _FilesReader:
    if shard.source == AGG2:
        from candlebeam.formats.agg2.reader import Agg2Reader

        return Agg2Reader(
            shard.market,
            shard.files,
            from_ts=shard.from_ts,
            keep_rejects=keep_rejects,
            snap=snap,
            cancelled=cancelled,
        )
    if shard.source != TRADE_LOG:
        raise ValueError(f"no reader of {shard.source} files")
    return TradeLogReader(
        shard.market,
        shard.files,
        from_ts=shard.from_ts,
        keep_rejects=keep_rejects,
        cancelled=cancelled,
    )


class _OneShard:
    def __init__(self, reader: _FilesReader) -> None:
        self._reader = reader

    def __iter__(self) -> Iterator[tuple[int, TradeBatch]]:
        for batch in self._reader:
            yield 0, batch

    def outcomes(self, place: int) -> Sequence[FileOutcome]:
        return self._reader.outcomes

    def rejects(self, place: int) -> Sequence[FileRejects]:
        return self._reader.rejects


def write_shard_rejects(
    shards: Sequence[Shard], place: int, reader: ShardReader, folder: str | None
) -> None:
    """Writes what the reader has rejected of a shard to a folder, if there is one."""
    if folder is not None:
        for path, rows in reader.rejects(place):
            write_rejects(folder, shards[place].market, path, rows)
