"""The staging folder of a backfill: manifests, chunks and outcomes.

    {staging}/manifests/{number}      what to do: the plan, read by the workers
    {staging}/chunks/{market}/{name}  what has been done: finished shards
    {staging}/outcomes/{market}       what came of it: finished markets

A manifest is a run of zlib-compressed JSON records, markets and their shards, then an index of the
shards. So a worker reads a shard by its place, and the graph only carries names of manifests.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from candlebeam.errors import FormatError
from candlebeam.formats.chunk_file import (
    HEAD_BYTES,
    ChunkFile,
    ChunkHead,
    decode_head,
    open_chunk,
    write_chunk,
)
from candlebeam.io.durable import Written, placing, write_atomic
from candlebeam.model import FileOutcome, InputFile, Market, Records
from candlebeam.outcome import MarketOutcome
from candlebeam.plan import MarketTask, Shard
from candlebeam.settings import digest

#: A manifest is closed once it lists this many files.
MANIFEST_FILES = 20_000

_MAGIC = b"CBPLAN02"
_INDEX_ENTRY = struct.Struct("<IQIQI")
# Place and length of the index, its CRC-32, and the magic again.
_TRAILER = struct.Struct("<QII8s")


class ShardRef(NamedTuple):
    """Where a shard and its market's task stand in a manifest (bytes).

    Attributes:
        together: shards of other markets in the same file, which are best read along with this one.
    """

    manifest: str
    shard_offset: int
    shard_length: int
    task_offset: int
    task_length: int
    together: tuple[ShardRef, ...] = ()

    @property
    def each(self) -> list[ShardRef]:
        """This shard and those with it, one by one."""
        return [self._replace(together=()), *self.together]

    @classmethod
    def of_all(cls, refs: Sequence[ShardRef]) -> ShardRef:
        """One reference to several; the inverse of `each`."""
        return refs[0]._replace(together=tuple(refs[1:]))

    def to_values(self) -> list[Any]:
        """As plain JSON values; `from_values` is the inverse."""
        *place, together = self
        return [*place, [ref.to_values() for ref in together]]

    @classmethod
    def from_values(cls, values: list[Any]) -> ShardRef:
        """The inverse of `to_values`."""
        manifest, *place, together = values
        begin, length, task, task_length = place
        others = tuple(cls.from_values(ref) for ref in together)
        return cls(manifest, begin, length, task, task_length, others)


class ChunkRef(NamedTuple):
    """A chunk that is on disk, or why it could not be made.

    Attributes:
        shard: the shard it stands for.
        ordinal: that shard's place in its market.
        name: of the chunk.
        reused: whether an earlier run made it.
        error: why it is not there; "" if it is.
    """

    shard: ShardRef
    ordinal: int
    name: str
    reused: bool
    error: str = ""


@dataclass(frozen=True)
class Staging:
    """The staging folder at `path`."""

    path: str

    @property
    def _manifests(self) -> str:
        return os.path.join(self.path, "manifests")

    @property
    def _chunks(self) -> str:
        return os.path.join(self.path, "chunks")

    @property
    def _outcomes(self) -> str:
        return os.path.join(self.path, "outcomes")

    def prepare(self) -> None:
        """Makes the folders; the plan and the outcomes of an earlier run go, its chunks stay."""
        self.remove_plan()
        for folder in (self._manifests, self._outcomes, self._chunks):
            os.makedirs(folder, exist_ok=True)

    def remove_plan(self) -> None:
        """Removes the manifests and the outcomes of a run that has ended, and keeps chunks."""
        for folder in (self._manifests, self._outcomes):
            shutil.rmtree(folder, ignore_errors=True)

    def remove_if_empty(self) -> None:
        """Removes the folders that hold no chunk."""
        for folder in (self._chunks, self.path):
            with contextlib.suppress(OSError):
                os.rmdir(folder)

    # Manifests

    def write_plan(self) -> PlanWriter:
        """A plan to be filled and then closed."""
        return PlanWriter(self._manifests)

    # Chunks

    def _market_folder(self, market: Market) -> str:
        return os.path.join(self._chunks, digest(market)[:16])

    def chunk_path(self, market: Market, name: str) -> str:
        """Where a chunk stands."""
        return os.path.join(self._market_folder(market), name)

    def write_chunk(
        self,
        market: Market,
        name: str,
        files: Sequence[FileOutcome],
        candles: Records | Iterable[Records],
    ) -> None:
        """Puts a chunk in place. Not forced to disk: a torn one is found out by its checksum.

        `candles` are all records, or pieces of them in order.
        """
        path = self.chunk_path(market, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        pieces = [candles] if isinstance(candles, np.ndarray) else candles
        with placing(path, durable=False) as descriptor:
            write_chunk(Written(descriptor), files, pieces)

    @contextmanager
    def scratch(self, market: Market) -> Iterator[BinaryIO]:
        """A file for what does not fit in memory; it is gone when it is closed."""
        folder = self._market_folder(market)
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            yield file

    def open_chunk(self, market: Market, name: str) -> ChunkFile:
        """A chunk that is there and whole; see `formats.chunk_file.open_chunk`."""
        return open_chunk(self.chunk_path(market, name))

    def find_chunk(self, shard: Shard) -> bool:
        """Whether a whole chunk of this shard is there, made from the inputs as they are now."""
        try:
            chunk = self.open_chunk(shard.market, shard.name)
        except (FormatError, FileNotFoundError):
            return False
        if [file.path for file in chunk.files] != [file.path for file in shard.files]:
            return False
        for file in chunk.files:
            if file.read_path is None or file.error is not None:
                return False
            try:
                found = os.stat(file.read_path)
            except OSError:
                return False
            if (found.st_size, found.st_mtime_ns) != (file.size, file.mtime_ns):
                return False
        return True

    def remove_chunks(self, market: Market) -> None:
        """Removes all chunks of a market."""
        shutil.rmtree(self._market_folder(market), ignore_errors=True)

    def chunks(self, known: set[str]) -> Iterator[ChunkHead]:
        """The heads of chunks that are not in `known`, which learns them."""
        for folder in _listed(self._chunks):
            for name in _listed(os.path.join(self._chunks, folder)):
                if name in known or name.startswith("."):
                    continue
                path = os.path.join(self._chunks, folder, name)
                try:
                    with open(path, "rb") as file:
                        head = decode_head(file.read(HEAD_BYTES), path)
                except (OSError, FormatError):
                    continue
                known.add(name)
                yield head

    # Outcomes

    def _outcome_path(self, market: Market) -> str:
        return os.path.join(self._outcomes, digest(market))

    def write_outcome(self, market: Market, outcome: MarketOutcome) -> None:
        """Notes what became of a market."""
        write_atomic(self._outcome_path(market), outcome.encode(), durable=False)

    def read_outcome(self, market: Market) -> MarketOutcome | None:
        """What became of a market in this run; None if that is not known yet.

        Raises:
            FormatError: what stands there is damaged.
        """
        path = self._outcome_path(market)
        try:
            with open(path, "rb") as file:
                return MarketOutcome.decode(file.read())
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, RecursionError) as error:
            raise FormatError(path, "the outcome of a market", str(error)) from None

    def count_outcomes(self) -> int:
        """How many markets of this round are finished."""
        return sum(not name.startswith(".") for name in _listed(self._outcomes))


class PlanWriter:
    """Writes a plan: markets with their shards, over as many manifests as it takes."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._manifests: list[str] = []
        self._begin()

    def _begin(self) -> None:
        self._files = 0
        self._records = bytearray(_MAGIC)
        self._index: list[tuple[int, int, int, int, int]] = []
        self._units: dict[str, int] = {}

    def add(self, task: MarketTask, shards: tuple[Shard, ...]) -> None:
        """Adds a market; it stays in one manifest."""
        task_place = self._append(task.to_json())
        for shard in shards:
            values = {
                "market": shard.market,
                "ordinal": shard.ordinal,
                "from_ts": shard.from_ts,
                "name": shard.name,
                "files": shard.files,
                "source": shard.source,
                "shared": shard.shared,
            }
            unit = self._unit(shard)
            self._index.append((unit, *self._append(values), *task_place))
            self._files += len(shard.files)
        if self._files >= MANIFEST_FILES:
            self._end()

    def _unit(self, shard: Shard) -> int:
        """The number of the unit of work that a shard belongs to: one a shared file, else its own.

        A file that two manifests name is read once for each.
        """
        if not shard.shared:
            return len(self._index)
        return self._units.setdefault(shard.files[0].path, len(self._index))

    def _append(self, values: object) -> tuple[int, int]:
        data = zlib.compress(json.dumps(values, separators=(",", ":")).encode(), 1)
        place = len(self._records)
        self._records += data
        return place, len(data)

    def _end(self) -> None:
        index = b"".join(_INDEX_ENTRY.pack(*entry) for entry in self._index)
        trailer = _TRAILER.pack(len(self._records), len(self._index), zlib.crc32(index), _MAGIC)
        path = os.path.join(self._folder, f"{len(self._manifests):06d}")
        write_atomic(path, bytes(self._records) + index + trailer, durable=False)
        self._manifests.append(path)
        self._begin()

    def close(self) -> list[str]:
        """Ends the last manifest; gives the paths of all of them."""
        if self._index:
            self._end()
        return self._manifests


def list_shards(manifest: str) -> list[ShardRef]:
    """The shards of a manifest, in order, those of one file together.

    Raises:
        FormatError: it is no manifest, or damaged.
    """
    with open(manifest, "rb") as file:
        data = file.read()
    if len(data) < _TRAILER.size or data[: len(_MAGIC)] != _MAGIC:
        raise FormatError(manifest, f"a manifest that begins with {_MAGIC!r}", repr(data[:8]))
    end = len(data) - _TRAILER.size
    offset, count, crc, magic = _TRAILER.unpack_from(data, end)
    index = data[offset:end]
    if magic != _MAGIC or len(index) != count * _INDEX_ENTRY.size or zlib.crc32(index) != crc:
        raise FormatError(manifest, "a whole manifest", "one that is cut off or damaged")
    units: dict[int, list[ShardRef]] = {}
    for unit, *place in _INDEX_ENTRY.iter_unpack(index):
        units.setdefault(unit, []).append(ShardRef(manifest, *place))
    return [ShardRef.of_all(refs) for refs in units.values()]


def read_shard(ref: ShardRef) -> Shard:
    """The shard at a place in a manifest."""
    values = _read_record(ref.manifest, ref.shard_offset, ref.shard_length)
    return Shard(
        market=Market(*values["market"]),  # type: ignore[misc]
        ordinal=values["ordinal"],  # type: ignore[arg-type]
        files=tuple(InputFile(*file) for file in values["files"]),  # type: ignore[attr-defined]
        from_ts=values["from_ts"],  # type: ignore[arg-type]
        name=values["name"],  # type: ignore[arg-type]
        source=values["source"],  # type: ignore[arg-type]
        shared=values["shared"],  # type: ignore[arg-type]
    )


def read_task(ref: ShardRef) -> MarketTask:
    """The task of the market that a shard belongs to."""
    return MarketTask.from_json(_read_record(ref.manifest, ref.task_offset, ref.task_length))


def _read_record(path: str, offset: int, length: int) -> dict[str, object]:
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            values = json.loads(zlib.decompress(file.read(length)))
    except (ValueError, OverflowError, zlib.error) as error:
        raise FormatError(path, "a record of a manifest", str(error), offset) from None
    if not isinstance(values, dict):
        raise FormatError(path, "a record of a manifest", type(values).__name__, offset)
    return values


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
