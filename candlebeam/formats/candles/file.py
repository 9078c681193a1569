"""Candle files: 56-byte records of one market, with a JSON companion beside them.

`X.bin` holds one record a candle, little-endian, without a header, gaps included as zero bytes;
`X.json` says what they are. The companion is what counts: a `.bin` may be longer than it says
(a crash's leftover), never shorter. docs/formats.md has the layout in full.

A commit that has to change both files at once writes a journal first (`.X.journal`). Where one is
left behind by a crash, `open_candles` reads the files as the journal says they will be, and the
next backfill finishes it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from candlebeam.errors import FormatError, UsageError
from candlebeam.formats.candles.companion import (
    CandlePaths,
    Companion,
    Journal,
    read_bytes,
    read_companion,
    read_journal,
)
from candlebeam.formats.candles.records import RECORD_DTYPE
from candlebeam.model import VOLUME_SCALE
from candlebeam.rules.price_scale import PRICE_FIELDS, restore
from candlebeam.storage.paths import expect_local

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_COUNTS = ("buy_count", "sell_count")


@dataclass(frozen=True, eq=False)
class Candles:
    """The candles of one market, mapped from their file.

    Attributes:
        companion: what they are.
        records: record array of `RECORD_DTYPE`, one a candle from `companion.start_ts` on, gaps
            included as zeros. Mapped, read-only: touching it reads the file.
    """

    companion: Companion
    records: np.recarray[Any, Any]

    def __len__(self) -> int:
        return len(self.records)

    def times(self) -> np.ndarray[Any, np.dtype[np.datetime64]]:
        """The start of every candle, datetime64[ms] in UTC."""
        step = self.companion.timeframe.ms
        ts = self.companion.start_ts + np.arange(len(self), dtype=np.int64) * step
        return ts.view("datetime64[ms]")

    def between(self, start_ts: int | None, end_ts: int | None) -> slice:
        """The places of the candles that start at or after `start_ts` and before `end_ts`."""
        first, step = self.companion.start_ts, self.companion.timeframe.ms

        def place(ts: int) -> int:
            return min(max(-((first - ts) // step), 0), len(self))

        return slice(
            0 if start_ts is None else place(start_ts),
            len(self) if end_ts is None else place(end_ts),
        )

    def to_arrow(self, part: slice = slice(None)) -> pa.Table:
        """A pyarrow table with real prices and quote volumes; a candle without prices has nulls.

        Columns: time (timestamp[ms, UTC]), open, high, low, close, buy_volume, sell_volume,
        buy_liquidation, sell_liquidation (float64), buy_count, sell_count (uint32).
        """
        import pyarrow as pa

        records = self.records[part].view(RECORD_DTYPE, np.ndarray)
        priced = (records["buy_count"] | records["sell_count"] | records["high"].view("<u4")) != 0
        prices = restore(records, self.companion.scale)
        time = pa.array(self.times()[part].view(np.int64), pa.timestamp("ms", tz="UTC"))
        columns: dict[str, Any] = {"time": time}
        for place, name in enumerate(PRICE_FIELDS):
            columns[name] = pa.array(prices[:, place], mask=~priced)
        for name in RECORD_DTYPE.names[len(PRICE_FIELDS) :]:  # type: ignore[index]
            values = records[name]
            columns[name] = pa.array(
                np.ascontiguousarray(values) if name in _COUNTS else values / VOLUME_SCALE
            )
        return pa.table(columns)

    def to_pandas(self, part: slice = slice(None)) -> pd.DataFrame:
        """A DataFrame indexed by time (UTC), with the columns of `to_arrow`."""
        frame: pd.DataFrame = self.to_arrow(part).to_pandas().set_index("time")
        return frame


def open_candles(path: str | os.PathLike[str]) -> Candles:
    """Maps a candle file.

    Args:
        path: its `.bin` or its `.json`.

    Raises:
        FormatError: the companion is none, or the candles are shorter than it says.
        FileNotFoundError: one of the two is not there.
        UsageError: this is no path of a candle file of this machine.

    Example: `open_candles("out/RAM/BINANCE/btcusdt.bin").to_pandas()`
    """
    expect_local(os.fspath(path))
    stem, suffix = os.path.splitext(os.fspath(path))
    if suffix not in (".bin", ".json"):
        raise UsageError(f"{os.fspath(path)}: expected the .bin or the .json of a candle file")
    paths = CandlePaths(stem)
    found: Candles | FormatError | FileNotFoundError
    while True:
        state = read_bytes(paths.journal), read_bytes(paths.companion)
        try:
            found = _open_as_it_is(paths)
        except (FormatError, FileNotFoundError) as error:
            found = error
        # A commit changes one of these as well: if none has changed, what was read is of one piece.
        if state == (read_bytes(paths.journal), read_bytes(paths.companion)):
            break
    if isinstance(found, Exception):
        raise found
    return found


def _open_as_it_is(paths: CandlePaths) -> Candles:
    journal = read_journal(paths)
    companion = journal.companion if journal else read_companion(paths.companion)
    if companion is None:
        raise FileNotFoundError(
            f"{paths.companion}: no such file; a candle file needs its companion"
        )
    return Candles(companion, _map_records(paths, companion, journal))


def _open_records(paths: CandlePaths, journal: Journal | None) -> BinaryIO:
    if journal and journal.replaces:
        with contextlib.suppress(FileNotFoundError):
            return open(paths.replacement, "rb")
    return open(paths.records, "rb")


def _map_records(
    paths: CandlePaths, companion: Companion, journal: Journal | None
) -> np.recarray[Any, Any]:
    with _open_records(paths, journal) as file:
        size = os.fstat(file.fileno()).st_size
        if size < companion.size:
            expected = f"{companion.size} bytes, as its companion says"
            raise FormatError(file.name, expected, f"{size}")
        access = mmap.ACCESS_COPY if journal else mmap.ACCESS_READ
        mapped: Any = (
            mmap.mmap(file.fileno(), companion.size, access=access) if companion.size else b""
        )
    if journal and journal.tail:
        mapped[journal.tail_offset : journal.tail_offset + len(journal.tail)] = journal.tail
    records = np.frombuffer(mapped, RECORD_DTYPE)
    records.flags.writeable = False
    return records.view(np.recarray)
