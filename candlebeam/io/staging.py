"""The staging folder of a backfill: manifests, chunks and outcomes.

    {staging}/manifests/{number}      what to do: the plan, read by the workers
    {staging}/chunks/{market}/{name}  what has been done: finished shards
    {staging}/outcomes/{market}       what came of it: finished markets
    {staging}/run                     the name of the run that may commit
    {staging}/job                     the job of a cluster that does the work
    {staging}/commits/{market}        locked while a market is committed

A manifest is a run of zlib-compressed records, markets and their shards, then an index of the
shards. So a worker reads a shard by its place, and the graph only carries names of manifests.
The record of a market is JSON. That of a shard is JSON as well, then a zero byte, the sizes of its
files (int64) and their paths, with zero bytes between them.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import struct
import tempfile
import uuid
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO, NamedTuple, TypeVar

import filelock
import numpy as np
from isal import isal_zlib

from candlebeam.errors import Cancelled, CandlebeamError, FormatError
from candlebeam.formats.chunk_file import (
    HEAD_BYTES,
    ChunkFile,
    ChunkHead,
    decode_head,
    open_chunk,
    write_chunk,
)
from candlebeam.model import FileOutcome, Market, Records
from candlebeam.outcome import MarketOutcome
from candlebeam.plan import MarketTask
from candlebeam.settings import digest
from candlebeam.shards import FileRun, Shard
from candlebeam.storage import Storage, storage_of
from candlebeam.storage.ahead import asked_ahead
from candlebeam.storage.durable import Written

A = TypeVar("A")
R = TypeVar("R")

#: A manifest is closed once it lists this many files.
MANIFEST_FILES = 20_000
#: How long a run waits for workers of an earlier one to end what they are committing.
_COMMIT_SECONDS = 60

_MAGIC = b"CBPLAN03"
_to_json = json.JSONEncoder(separators=(",", ":")).encode
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

    @property
    def _storage(self) -> Storage:
        return storage_of(self.path)

    @property
    def _commits(self) -> str:
        return os.path.join(self.path, "commits")

    @property
    def _run(self) -> str:
        return os.path.join(self.path, "run")

    def begin(self, run: str) -> None:
        """Has no other run commit any more; waits until what one is committing is done.

        Workers of a run whose driver or whose cluster has died may go on for a while.

        Raises:
            CandlebeamError: one is committing for too long.
        """
        self._storage.make_folder(self.path)
        self._storage.write(self._run, run.encode(), durable=False)
        if not self._storage.is_local:
            return
        for name in self._files(self._commits):
            lock = filelock.FileLock(os.path.join(self._commits, name))
            try:
                lock.acquire(timeout=_COMMIT_SECONDS)
            except filelock.Timeout:
                raise CandlebeamError(
                    f"{self.path}: a worker of an earlier run is still writing; try again later"
                ) from None
            self._storage.remove(os.path.join(self._commits, name))
            lock.release()

    @contextmanager
    def committing(self, market: Market, run: str) -> Iterator[None]:
        """Held while a market is committed, so that nobody else does it at the same time.

        `run` is the name of the run, or "" for none.

        Raises:
            Cancelled: another run has begun.
        """
        if not run:
            yield
            return
        # Before a folder is made where nobody would remove it.
        self._check_run(market, run)
        lock: AbstractContextManager[Any] = contextlib.nullcontext()
        if self._storage.is_local:
            os.makedirs(self._commits, exist_ok=True)
            lock = filelock.FileLock(os.path.join(self._commits, digest(market)))
        with lock:
            self._check_run(market, run)
            yield

    def _check_run(self, market: Market, run: str) -> None:
        current = b""
        with contextlib.suppress(FileNotFoundError):
            current = self._storage.read(self._run)
        if current != run.encode():
            raise Cancelled(f"{market}: another run has begun, or this one is over")

    def prepare(self) -> None:
        """Makes the folders; the plan and the outcomes of an earlier run go, its chunks stay."""
        self._remove_round()
        for folder in (self._manifests, self._outcomes, self._chunks):
            self._storage.make_folder(folder)

    def _remove_round(self) -> None:
        for folder in (self._manifests, self._outcomes):
            self._storage.remove_tree(folder)

    def remove_plan(self) -> None:
        """Removes all that is of a run that has ended, and keeps chunks."""
        self._remove_round()
        self._storage.remove_tree(self._commits)
        self._storage.remove(self._run)
        self._storage.remove(self._job)
        if self._storage.is_local:
            # What a crash has left of writing these two.
            for path in glob.glob(os.path.join(glob.escape(self.path), ".*.tmp")):
                self._storage.remove(path)

    def remove_if_empty(self) -> None:
        """Removes the folders that hold no chunk."""
        if self._storage.is_local:
            for folder in (self._chunks, self.path):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)

    # Manifests

    def write_plan(self) -> PlanWriter:
        """A plan to be filled and then closed. Its manifests have names of their own."""
        folder = os.path.join(self._manifests, uuid.uuid4().hex)
        self._storage.make_folder(folder)
        return PlanWriter(folder)

    # The job of a cluster

    @property
    def _job(self) -> str:
        return os.path.join(self.path, "job")

    def write_job(self, record: bytes) -> None:
        """Notes which job of a cluster does the work."""
        self._storage.write(self._job, record)

    def read_job(self) -> bytes | None:
        """What was noted; None if nothing."""
        try:
            return self._storage.read(self._job)
        except FileNotFoundError:
            return None

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
        self._storage.make_folder(os.path.dirname(path))
        pieces = [candles] if isinstance(candles, np.ndarray) else candles
        with self._storage.placing(path, durable=False) as descriptor:
            write_chunk(Written(descriptor), files, pieces)

    @contextmanager
    def scratch(self, market: Market) -> Iterator[BinaryIO]:
        """A file for what does not fit in memory; it is gone when it is closed."""
        folder = self._market_folder(market) if self._storage.is_local else None
        if folder is not None:
            os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            yield file

    @contextmanager
    def open_chunks(self, market: Market, names: Sequence[str]) -> Iterator[list[ChunkFile]]:
        """Chunks that are there and whole; see `formats.chunk_file.open_chunk`."""
        paths = [self.chunk_path(market, name) for name in names]
        with self._storage.fetched(paths) as local:
            yield [open_chunk(path) for path in local]

    def find_chunk(self, shard: Shard) -> bool:
        """Whether a whole chunk of this shard is there, made from the inputs as they are now."""
        try:
            with self.open_chunks(shard.market, [shard.name]) as (chunk,):
                pass
        except (FormatError, FileNotFoundError):
            return False
        if [file.path for file in chunk.files] != [file.path for file in shard.files]:
            return False
        for file in chunk.files:
            if file.read_path is None or file.error is not None:
                return False
            try:
                if storage_of(file.read_path).state(file.read_path) != (file.size, file.mtime_ns):
                    return False
            except OSError:
                return False
        return True

    def remove_chunks(self, *markets: Market) -> None:
        """Removes all chunks of markets."""
        folders = [self._market_folder(market) for market in markets]
        if not self._storage.is_local and len(markets) > 1:
            # To look for what is there costs less than to look at each place where it may be.
            there = {name.partition("/")[0] for name in self._files(self._chunks)}
            folders = [folder for folder in folders if os.path.basename(folder) in there]
        for folder in folders:
            self._storage.remove_tree(folder)

    def chunks(self, known: set[str]) -> Iterator[ChunkHead]:
        """The heads of chunks that are not in `known`, which learns them."""
        new = (name for name in self._files(self._chunks) if os.path.basename(name) not in known)
        with contextlib.closing(self._each(self._head, new)) as heads:
            for name, head in heads:
                if head is not None:
                    known.add(os.path.basename(name))
                    yield head

    def _head(self, name: str) -> tuple[str, ChunkHead | None]:
        path = os.path.join(self._chunks, name)
        try:
            return name, decode_head(self._storage.read(path, 0, HEAD_BYTES), path)
        except (OSError, FormatError):
            return name, None

    def _each(self, look: Callable[[A], R], items: Iterable[A]) -> Generator[R, None, None]:
        """What each item gives, in order; of a remote folder many are asked for at a time."""
        if self._storage.is_local:
            return (look(item) for item in items)
        return asked_ahead(look, items)

    def _files(self, folder: str) -> Iterator[str]:
        """The files below a folder that may be gone at any moment, as far as they are whole."""
        try:
            for path in self._storage.names(folder):
                if not os.path.basename(path).startswith("."):
                    yield path
        except OSError:
            return

    # Outcomes

    def _outcome_path(self, market: Market) -> str:
        return os.path.join(self._outcomes, digest(market))

    def write_outcome(self, market: Market, outcome: MarketOutcome) -> None:
        """Notes what became of a market."""
        self._storage.write(self._outcome_path(market), outcome.encode(), durable=False)

    def has_outcome(self, market: Market) -> bool:
        """Whether a market of this run is finished."""
        return self._storage.exists(self._outcome_path(market))

    def read_outcome(self, market: Market) -> MarketOutcome | None:
        """What became of a market in this run; None if that is not known yet.

        Raises:
            FormatError: what stands there is damaged.
        """
        path = self._outcome_path(market)
        try:
            return MarketOutcome.decode(self._storage.read(path))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, RecursionError) as error:
            raise FormatError(path, "the outcome of a market", str(error)) from None

    def read_outcomes(self, markets: Sequence[Market]) -> dict[Market, MarketOutcome | None]:
        """What became of several markets; raises as `read_outcome` does."""
        return dict(zip(markets, self._each(self.read_outcome, markets), strict=True))

    def outcomes(self) -> list[MarketOutcome]:
        """What became of all markets that are finished, sorted by name."""
        found = self._each(self._outcome, self._files(self._outcomes))
        return sorted(filter(None, found), key=lambda outcome: outcome.market)

    def _outcome(self, name: str) -> MarketOutcome | None:
        try:
            return MarketOutcome.decode(self._storage.read(os.path.join(self._outcomes, name)))
        except (OSError, ValueError, TypeError):
            return None

    def count_outcomes(self) -> int:
        """How many markets of this round are finished."""
        return sum(1 for _ in self._files(self._outcomes))


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
        task_place = self._append(_to_json(task.to_json()).encode())
        for shard in shards:
            unit = self._unit(shard)
            self._index.append((unit, *self._append(_encode_shard(shard)), *task_place))
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

    def _append(self, record: bytes) -> tuple[int, int]:
        data = isal_zlib.compress(record, isal_zlib.ISAL_BEST_SPEED)
        place = len(self._records)
        self._records += data
        return place, len(data)

    def _end(self) -> None:
        index = b"".join(_INDEX_ENTRY.pack(*entry) for entry in self._index)
        trailer = _TRAILER.pack(len(self._records), len(self._index), zlib.crc32(index), _MAGIC)
        path = os.path.join(self._folder, f"{len(self._manifests):06d}")
        storage_of(path).write(path, bytes(self._records) + index + trailer, durable=False)
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
    data = storage_of(manifest).read(manifest)
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
    return _read_record(ref.manifest, ref.shard_offset, ref.shard_length, _decode_shard)


def read_task(ref: ShardRef) -> MarketTask:
    """The task of the market that a shard belongs to."""
    return _read_record(ref.manifest, ref.task_offset, ref.task_length, _decode_task)


def _encode_shard(shard: Shard) -> bytes:
    files = FileRun.of(shard.files)
    values = {
        "market": shard.market,
        "ordinal": shard.ordinal,
        "from_ts": shard.from_ts,
        "name": shard.name,
        "files": len(files),
        "seen": files.seen if any(files.seen) else (),
        "source": shard.source,
        "shared": shard.shared,
    }
    sizes = np.array(files.sizes, "<i8").tobytes()
    return b"%s\0%s%s" % (_to_json(values).encode(), sizes, files.encode_paths())


def _decode_shard(record: bytes) -> Shard:
    head, _, rest = record.partition(b"\0")
    values = json.loads(head)
    count = values["files"]
    sizes = np.frombuffer(rest, "<i8", count).tolist()
    paths = FileRun.decode_paths(rest[8 * count :])
    if len(paths) != count:
        raise ValueError(f"{len(paths)} paths for {count} files")
    return Shard(
        market=Market(*values["market"]),
        ordinal=values["ordinal"],
        files=FileRun(paths, sizes, values["seen"]),
        from_ts=values["from_ts"],
        name=values["name"],
        source=values["source"],
        shared=values["shared"],
    )


def _decode_task(record: bytes) -> MarketTask:
    return MarketTask.from_json(json.loads(record))


def _read_record(path: str, offset: int, length: int, decode: Callable[[bytes], R]) -> R:
    try:
        return decode(zlib.decompress(_read(path, offset, length)))
    except (ValueError, KeyError, TypeError, OverflowError, zlib.error) as error:
        found = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise FormatError(path, "a record of a manifest", found, offset) from None


def _read(path: str, offset: int, length: int) -> bytes:
    """A part of a manifest. One elsewhere is fetched whole: a worker reads more of it soon."""
    storage = storage_of(path)
    if storage.is_local:
        return storage.read(path, offset, length)
    return _manifest(path)[offset : offset + length]


@lru_cache(maxsize=16)
def _manifest(path: str) -> bytes:
    return storage_of(path).read(path)
