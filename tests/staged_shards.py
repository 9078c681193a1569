"""Shards of literal rows with their files, their manifest and their staging folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from candlebeam.io.staging import ShardRef, Staging, list_shards
from candlebeam.model import FileOutcome, InputFile, Market
from candlebeam.plan import MarketTask
from candlebeam.shards import Shard
from tests.trade_batches import MARKET, MIDNIGHT, Row


def text_of(rows: Sequence[Row]) -> bytes:
    """The rows as a trade log has them."""
    lines = [
        f"{row.ts} {row.price!r} {row.size!r} {row.buy}{' 1' * row.liquidation}\n" for row in rows
    ]
    return "".join(lines).encode()


def write_shards(
    folder: Path, parts: Sequence[Sequence[bytes]], market: Market = MARKET
) -> tuple[MarketTask, tuple[Shard, ...]]:
    """A market whose shards have files of these texts, as a fresh run would plan it."""
    shards = []
    for ordinal, texts in enumerate(parts):
        files = []
        for number, text in enumerate(texts):
            path = folder / market.symbol / f"{ordinal}-{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text)
            files.append(InputFile(str(path), len(text)))
        shards.append(Shard(market, ordinal, tuple(files), None, f"{market.symbol}-{ordinal}"))
    task = MarketTask(
        market=market,
        shards=len(shards),
        last_start_ts=MIDNIGHT,
        group_ordinal=len(shards) - 1,
        group=tuple((str(folder), Path(file.path).name) for file in shards[-1].files),
        covered=sum(len(shard.files) for shard in shards),
    )
    return task, tuple(shards)


def write_manifest(
    staging: Staging, *markets: tuple[MarketTask, tuple[Shard, ...]]
) -> tuple[str, list[ShardRef]]:
    """The one manifest of these markets, and the shards in it."""
    staging.prepare()
    writer = staging.write_plan()
    for task, shards in markets:
        writer.add(task, shards)
    (manifest,) = writer.close()
    return manifest, list_shards(manifest)


def outcomes_of(shard: Shard) -> list[FileOutcome]:
    """Its files as a reader would have seen them."""
    found = []
    for file in shard.files:
        stat = Path(file.path).stat()
        found.append(FileOutcome(file.path, file.path, stat.st_size, stat.st_mtime_ns))
    return found
