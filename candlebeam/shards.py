"""Shards: runs of one market's files, cut by size and named. The units of work of a backfill."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, repeat
from typing import overload

from candlebeam.inventory import TRADE_LOG
from candlebeam.model import InputFile, Market
from candlebeam.settings import CandleSettings, digest

#: Part of the name of every chunk: to be raised when what is in a chunk changes.
CHUNK_VERSION = 2


class FileRun(Sequence[InputFile]):
    """Files in order, kept as columns, since a plan has millions of them.

    A sequence of `InputFile`, which are made when they are asked for. It equals every sequence of
    the same files.

    Args:
        paths, sizes, seen: of the files, as `InputFile` has them; without `seen` all are 0.
    """

    __slots__ = ("paths", "seen", "sizes")

    def __init__(
        self, paths: Sequence[str], sizes: Sequence[int], seen: Sequence[int] = ()
    ) -> None:
        self.paths, self.sizes, self.seen = paths, sizes, seen

    @classmethod
    def of(cls, files: Sequence[InputFile]) -> FileRun:
        """Any files as columns."""
        if isinstance(files, FileRun):
            return files
        return cls([f.path for f in files], [f.size for f in files], [f.seen for f in files])

    @property
    def total(self) -> int:
        """The bytes of all of them."""
        return sum(self.sizes)

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, place: int) -> InputFile: ...
    @overload
    def __getitem__(self, place: slice) -> FileRun: ...
    def __getitem__(self, place: int | slice) -> InputFile | FileRun:
        if isinstance(place, slice):
            return FileRun(self.paths[place], self.sizes[place], self.seen[place])
        seen = self.seen[place] if self.seen else 0
        return InputFile(self.paths[place], self.sizes[place], seen)

    def __iter__(self) -> Iterator[InputFile]:
        return map(InputFile, self.paths, self.sizes, self.seen or repeat(0))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FileRun | tuple | list):
            return NotImplemented
        return tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"FileRun{tuple(self)!r}"

    def encode_paths(self) -> bytes:
        """The paths with a zero byte between them, which no path can hold.

        >>> FileRun(["/a/b", "/a/c"], [1, 2]).encode_paths()
        b'/a/b\\x00/a/c'
        """
        return "\0".join(self.paths).encode("utf-8", "surrogatepass")

    @staticmethod
    def decode_paths(data: bytes) -> list[str]:
        """The inverse of `encode_paths`; raises `UnicodeDecodeError` where they are no text."""
        return data.decode("utf-8", "surrogatepass").split("\0")


@dataclass(frozen=True)
class Shard:
    """A run of one market's files, in order: the unit of work.

    Attributes:
        market: whose files.
        ordinal: its place among the market's shards, from 0.
        files: what to read, in file order.
        from_ts: trades older than this are left out (ms); None to keep all.
        name: the name of its chunk: stands for all that its bytes depend on, but for what is in the
            files, which the chunk itself notes by size and time.
        source: the kind of its files (`inventory.Inventory.source`).
        shared: whether its one file holds other markets as well; shards of the same file are read
            together.
    """

    market: Market
    ordinal: int
    files: Sequence[InputFile]
    from_ts: int | None
    name: str
    source: str = TRADE_LOG
    shared: bool = False

    @property
    def bytes(self) -> int:
        """The size of its files when they were found."""
        return FileRun.of(self.files).total


def cut(files: FileRun, shard_bytes: int) -> list[FileRun]:
    """Runs of files of at most `shard_bytes` together, or of one file that is larger."""
    runs = []
    ends = list(accumulate(files.sizes, initial=0))
    begin = 0
    while begin < len(files):
        end = max(bisect_right(ends, ends[begin] + shard_bytes, begin) - 1, begin + 1)
        runs.append(files[begin:end])
        begin = end
    return runs


def chunk_names(
    runs: Sequence[FileRun],
    *,
    source: str,
    market: Market,
    from_ts: int | None,
    settings: CandleSettings,
    rejects: str,
) -> Iterator[str]:
    """The names of the chunks of a market's runs, in order; see `Shard` for what they stand for."""
    common = digest(
        CHUNK_VERSION,
        source,
        market,
        from_ts,
        [settings.timeframe.ms, settings.corrections, settings.liquidations, settings.snap],
        rejects,
    )
    for ordinal, run in enumerate(runs):
        seen = [(place, seen) for place, seen in enumerate(run.seen) if seen]
        name = hashlib.blake2b(f"{common} {ordinal} {seen}\0".encode(), digest_size=16)
        name.update(run.encode_paths())
        yield name.hexdigest()
