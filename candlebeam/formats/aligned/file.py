"""Aligned OHLCV files: 64-byte records of one instrument, to be mapped as they are.

`{timeframe}/NAME.bin` holds one record a bar, little-endian, ascending, without a header;
`{timeframe}/index/NAME.idx` says how much of it is committed. One record may stand behind that:
the last bar, which may still change. docs/formats.md has the layout in full.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from candlebeam.errors import FormatError, UsageError
from candlebeam.formats.aligned.state import (
    AlignedIndex,
    AlignedJournal,
    AlignedPaths,
    read_aligned_journal,
    read_index,
)
from candlebeam.formats.bar_source import Piece
from candlebeam.formats.candles.companion import read_bytes
from candlebeam.formats.mapped import MappedBytes
from candlebeam.model import BAR_COLUMNS, Bars, Float64Array, Market, Records, Timeframe

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = [
    "ALIGNED_DTYPE",
    "AlignedBars",
    "AlignedIndex",
    "AlignedPaths",
    "AlignedSource",
    "bars_of",
    "open_aligned",
]

#: One bar as it is stored. `ts` is its start in ms; ohlcv are open, high, low, close and volume,
#: all zero where there was no trade. Source of the layout: the specification of aligned files.
ALIGNED_DTYPE = np.dtype([("ts", "<u8"), ("ohlcv", "<f8", (5,)), ("padding", "<u8", (2,))])
RECORD_BYTES = 64
PIECE_BARS = 65_536


class AlignedBars:
    """The bars of one file, mapped. A context manager.

    Attributes:
        path: the file.
        records: record array of `ALIGNED_DTYPE`, one a bar: those that are committed, then the open
            bar if there is one. Mapped, read-only: touching it reads the file.
        committed: how many of them will never change; None without an index.
        open_bar: a copy of the last bar, where it may still change; else None.
    """

    def __init__(self, path: str, records: Records, committed: int | None) -> None:
        self.path = path
        self.committed = committed
        self._records: Records | None = records
        closed = len(records) if committed is None else committed
        self.open_bar: np.void | None = records[closed].copy() if closed < len(records) else None

    def __enter__(self) -> AlignedBars:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the file.

        Arrays that were taken from it stay valid: nothing is unmapped under them. The mapping goes
        with the last of them, so there is no order to keep, and no BufferError.
        """
        self._records = None

    @property
    def records(self) -> Records:
        """See the class. Raises `ValueError` after `close`."""
        if self._records is None:
            raise ValueError(f"{self.path} is closed")
        return self._records

    @property
    def ohlcv(self) -> Float64Array:
        """Open, high, low, close and volume, shape (bars, 5). Mapped, read-only."""
        ohlcv: Float64Array = self.records["ohlcv"]
        return ohlcv

    def __len__(self) -> int:
        return len(self.records)

    def times(self) -> np.ndarray[Any, np.dtype[np.datetime64]]:
        """The start of every bar, datetime64[ms] in UTC. Mapped, read-only."""
        return self.records["ts"].view("datetime64[ms]")

    def to_arrow(self, part: slice = slice(None)) -> pa.Table:
        """A pyarrow table; a bar without trades has nulls for prices.

        Columns: time (timestamp[ms, UTC]), open, high, low, close, volume (float64).
        """
        import pyarrow as pa

        bars = bars_of(self.records[part])
        columns: dict[str, Any] = {"time": pa.array(bars.ts, pa.timestamp("ms", tz="UTC"))}
        for name in BAR_COLUMNS[1:]:
            columns[name] = pa.array(getattr(bars, name), from_pandas=name != "volume")
        return pa.table(columns)

    def to_pandas(self, part: slice = slice(None)) -> pd.DataFrame:
        """A DataFrame indexed by time (UTC), with the columns of `to_arrow`."""
        frame: pd.DataFrame = self.to_arrow(part).to_pandas().set_index("time")
        return frame


def open_aligned(path: str | os.PathLike[str]) -> AlignedBars:
    """Maps an aligned file.

    While a run writes behind what is committed, and if it has died doing so, what stands there does
    not count. Without an index, all records of the file do.

    Args:
        path: its `.bin`.

    Raises:
        FormatError: the file is shorter than its index says, or no whole number of records; or the
            index is none.
        FileNotFoundError: there is no such file.

    Example: `open_aligned("aligned/1m/btcusdt.bin").to_pandas()`
    """
    name = os.fspath(path)
    if name.endswith((".idx", ".json")):
        raise UsageError(f"{name}: expected the .bin of an aligned file")
    paths = AlignedPaths.beside(name)
    found: AlignedBars | FormatError | FileNotFoundError
    while True:
        state = _commit_state(paths)
        try:
            found = _open_as_it_is(name, paths)
        except (FormatError, FileNotFoundError) as error:
            found = error
        # A commit changes one of these as well: if none has changed, what was read is of one piece.
        if state == _commit_state(paths):
            break
    if isinstance(found, Exception):
        raise found
    return found


def _commit_state(paths: AlignedPaths) -> tuple[bytes | None, bytes | None, bool]:
    return read_bytes(paths.journal), read_bytes(paths.index), os.path.exists(paths.writing)


def _open_as_it_is(name: str, paths: AlignedPaths) -> AlignedBars:
    journal = read_aligned_journal(paths)
    index = journal.index if journal else read_index(paths)
    writing = journal is None and os.path.exists(paths.writing)
    records = _map_records(name, paths, journal, index, writing)
    if index is None:
        return AlignedBars(name, records, None)
    committed = index.out_pos // RECORD_BYTES
    if len(records) > committed and committed:
        # Only what goes on from the committed bars is the open one.
        later = records["ts"][committed] > records["ts"][committed - 1]
        records = records if later else records[:committed]
    return AlignedBars(name, records, committed)


def _map_records(
    name: str,
    paths: AlignedPaths,
    journal: AlignedJournal | None,
    index: AlignedIndex | None,
    writing: bool,
) -> Records:
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open(paths.replacement if journal else name, "rb"))
        except FileNotFoundError:
            if journal is None:
                raise
            file = stack.enter_context(open(name, "rb"))
        size = os.fstat(file.fileno()).st_size
        check_size(name, size, index, writing)
        length = size
        if index is not None:
            length = min(size, index.out_pos + (0 if writing else RECORD_BYTES))
        mapped: Any = mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ) if length else b""
    return np.frombuffer(mapped, ALIGNED_DTYPE)


def check_size(path: str, size: int, index: AlignedIndex | None, torn: bool = False) -> None:
    """Raises `FormatError` for a file that cannot be what its index says.

    Args:
        torn: whether it may end within a record, behind what is committed.
    """
    if index is not None and size < index.out_pos:
        raise FormatError(path, f"{index.out_pos} bytes, as its index says", f"{size}")
    if index is not None and index.out_pos % RECORD_BYTES:
        raise FormatError(
            path, f"an index of whole records of {RECORD_BYTES} bytes", f"{index.out_pos} bytes"
        )
    if size % RECORD_BYTES and not torn:
        raise FormatError(path, f"a multiple of {RECORD_BYTES} bytes", f"{size}")


def bars_of(records: Records) -> Bars:
    """Bars of stored records, as arrays of their own; where all five values are 0 it is a gap."""
    prices: Float64Array = records["ohlcv"]
    columns = [prices[:, place].copy() for place in range(prices.shape[1])]
    gaps = columns[0] == 0
    if gaps.any():
        for column in columns[1:]:
            gaps &= column == 0
        for column in columns[:-1]:
            column[gaps] = np.nan
    return Bars(records["ts"].astype(np.int64), *columns)


class AlignedSource:
    """The bars of an aligned file as a `BarSource`, in the order of the file.

    The market has only a symbol: the name of the file. The timeframe is the name of the folder;
    where that is none of up to a day, it is the least distance between the first bars, or None.

    Raises:
        FormatError, FileNotFoundError: see `open_aligned`.
    """

    record_bytes = RECORD_BYTES

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._bars = open_aligned(path)
        self.path = self._bars.path
        self.market = Market("", "", AlignedPaths.beside(self.path).name)
        self.closed = self._bars.committed
        self.timeframe = self._timeframe()

    def pieces(self, begin: int = 0) -> Iterator[Piece]:
        """See `BarSource`."""
        records = self._bars.records
        mapped = MappedBytes(records)
        for start in range(begin, len(records), PIECE_BARS):
            part = records[start : start + PIECE_BARS]
            bars = bars_of(part)
            wrong = bars.ts < 0
            if wrong.any():
                place = start + int(np.argmax(wrong))
                raise FormatError(
                    self.path,
                    "a time in ms",
                    str(int(records["ts"][place])),
                    place * RECORD_BYTES,
                )
            yield Piece(start, bars)
            mapped.let_go((start + len(part)) * RECORD_BYTES)

    def checksum(self, end: int) -> int:
        """See `BarSource`."""
        return MappedBytes(self._bars.records).checksum(end * RECORD_BYTES)

    def _timeframe(self) -> Timeframe | None:
        folder = os.path.basename(os.path.dirname(os.path.abspath(self.path)))
        with contextlib.suppress(UsageError):
            return Timeframe.parse(folder)
        distances = np.diff(self._bars.records["ts"][:PIECE_BARS].astype(np.int64))
        with contextlib.suppress(UsageError):
            return Timeframe(int(distances.min()) if len(distances) else 0)
        return None
