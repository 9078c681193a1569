"""Runs that write aligned files, and what they have to come to."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from candlebeam.formats.aligned.file import AlignedIndex, AlignedPaths, open_aligned
from candlebeam.formats.aligned.state import read_aligned_journal, read_index, read_sidecar
from candlebeam.io.aligned_writer import AlignedWriter
from tests.aligned_bars import Bar, bars_from, encoded, filled, minutes

SOURCE = "RAM/BINANCE/btcusdt"
DAY = 20_240_301
#: What the source's own records are said to be long.
WIDTH = 10


def without_fsync() -> Iterator[None]:
    """For a fixture: what a test writes need not survive a power cut, and waiting for the disk
    takes most of the time.
    """
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(os, "fsync", lambda _: None)
        yield


@dataclass(frozen=True)
class Source:
    """Bars that can be read; the last one is open if `opens`."""

    rows: list[Bar]
    opens: bool = True
    name: str = SOURCE

    @property
    def closed(self) -> int:
        return max(len(self.rows) - 1, 0) if self.opens else len(self.rows)

    @property
    def open_row(self) -> list[Bar]:
        return self.rows[self.closed :]

    def checksum(self, end: int) -> int:
        return zlib.crc32(encoded(self.rows[:end])) if end <= len(self.rows) else -1


def write(
    paths: AlignedPaths, source: Source, gaps: str = "zero", *, force: bool = False, parts: int = 1
) -> AlignedWriter:
    """One run, as `align` makes it."""
    with AlignedWriter(
        paths, source=source.name, settings={"gaps": gaps}, force=force, gaps=gaps
    ) as writer:
        fewer = writer.in_pos > source.closed * WIDTH
        if fewer or not writer.continues(source.checksum, WIDTH):
            writer.restart("other bars")
        begin = writer.in_pos // WIDTH
        size = max((source.closed - begin) // parts, 1)
        for start in range(begin, source.closed, size):
            writer.append(bars_from(source.rows[start : min(start + size, source.closed)]))
        open_bar = bars_from(source.open_row) if source.open_row else None
        writer.commit(source.closed * WIDTH, source.checksum(source.closed), open_bar)
        return writer


@dataclass(frozen=True)
class State:
    """What is committed, and what is open behind it."""

    committed: bytes
    in_pos: int
    open_bar: bytes = b""


def state_of(source: Source, gaps: str = "zero") -> State:
    """What has to be there after a run."""
    closed = filled(source.rows[: source.closed], gaps)
    everything = filled(source.rows, gaps)
    return State(encoded(closed), source.closed * WIDTH, encoded(everything[len(closed) :]))


def seen(paths: AlignedPaths) -> State | None:
    """What a reader sees."""
    try:
        found = open_aligned(paths.records)
    except FileNotFoundError:
        return None
    journal = read_aligned_journal(paths)
    index = journal.index if journal else read_index(paths)
    if index is None:
        return None
    assert found.committed is not None
    return State(
        found.records[: found.committed].tobytes(),
        index.in_pos,
        b"" if found.open_bar is None else found.open_bar.tobytes(),
    )


def assert_settled(paths: AlignedPaths, expected: State) -> None:
    """All files say the same, and nothing else is there."""
    names = {"btcusdt.bin", "btcusdt.idx", "btcusdt.source.json"}
    folder = Path(paths.folder)
    assert {path.name for path in folder.rglob("*") if path.is_file()} == names
    assert Path(paths.records).read_bytes() == expected.committed + expected.open_bar
    index = read_index(paths)
    assert index is not None
    day = DAY if expected.committed else 0
    assert index == AlignedIndex(day, expected.in_pos, len(expected.committed))
    sidecar = read_sidecar(paths)
    assert sidecar is not None
    assert sidecar.state_of(index) is not None


OLD = Source(minutes(0, 5, 2))
OTHER = Source(minutes(0, 9, 3, seed=7))


def made(folder: Path, source: Source = OLD, gaps: str = "zero") -> AlignedPaths:
    """An aligned file of a source."""
    paths = AlignedPaths.of(str(folder), "1m", "btcusdt")
    write(paths, source, gaps)
    return paths


def without_open_bar(paths: AlignedPaths) -> None:
    os.truncate(paths.records, os.path.getsize(paths.records) - 64)
