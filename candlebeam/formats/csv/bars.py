"""CSV files of bars: one instrument a file, or a month of one in each of several.

    timestamp,open,high,low,close,volume
    2024-01-01 00:00:00+00:00,4.5,5,4,4.5,120.25

What is read is wider than what is written: columns in any order and case, others among them; times
as dates or as numbers since 1970; and the CSV files of Databento. docs/formats.md has the rules.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from candlebeam.errors import UsageError
from candlebeam.formats.bar_source import Piece
from candlebeam.formats.csv.names import CsvName, csv_path, is_open_bar
from candlebeam.formats.csv.reader import BLOCK, CsvHead, CsvReader
from candlebeam.formats.csv.text import encode_csv
from candlebeam.formats.visible_files import visible_files
from candlebeam.model import BAR_COLUMNS, MS_PER_DAY, Int64Array, Market, Timeframe
from candlebeam.rules.periods import Period

__all__ = ["CsvBars", "CsvName", "csv_path", "encode_csv", "open_csv"]

_NO_TIME = np.iinfo(np.int64).min


def open_csv(
    path: str, *, symbol: str | None = None, timeframe: Timeframe | None = None, strict: bool = True
) -> list[CsvBars]:
    """The bars of a CSV file, or of all of them under a folder.

    The month files of one symbol and timeframe in one folder are one source, in order of month.
    Names that begin with a dot are passed over, and open bars (`csv_names.open_bar_path`). The
    other arguments are those of `CsvBars`.

    Raises:
        FileNotFoundError: there is no such file or folder.
    """
    if not os.path.isdir(path):
        if not os.path.exists(path):
            raise FileNotFoundError(2, "no such file", path)
        return [CsvBars((path,), symbol=symbol, named_timeframe=timeframe, strict=strict)]
    groups: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for file in visible_files(path):
        if not file.lower().endswith(".csv") or is_open_bar(file):
            continue
        folder, name = os.path.split(file)
        found = CsvName.of(name)
        # A file without a month is a group of its own.
        whole = name if found.month is None else ""
        key = (folder, found.symbol, str(found.period or ""), whole)
        groups.setdefault(key, []).append((found.month or "", file))
    return [
        CsvBars(
            tuple(file for _, file in sorted(files)),
            symbol=symbol,
            named_timeframe=timeframe,
            strict=strict,
        )
        for files in groups.values()
    ]


@dataclass(frozen=True)
class CsvBars:
    """The bars of one instrument in CSV files; a `BarSource`.

    Attributes:
        paths: the files, in order of time.
        symbol: whose bars; by default what the files or their names say.
        named_timeframe: the length of the bars; by default what the files or their names say, or
            else the greatest common divisor of the steps between the times of the first bars.
        strict: whether a row that is no bar, or not later than the one before it, raises
            `FormatError`. Else it is given as it is, with NaN for each number that is not there.
            What cannot be read at all raises either way.
    """

    paths: tuple[str, ...]
    symbol: str | None = field(default=None, kw_only=True)
    named_timeframe: Timeframe | None = field(default=None, kw_only=True)
    strict: bool = field(default=True, kw_only=True)
    record_bytes: int = field(default=1, init=False)
    closed: int | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if not self.paths:
            raise ValueError("no files")

    @property
    def path(self) -> str:
        """The first file."""
        return self.paths[0]

    @cached_property
    def _first(self) -> CsvHead:
        with open(self.path, "rb") as file:
            return CsvHead.read(self.path, file.read(BLOCK))

    @cached_property
    def market(self) -> Market:
        """The symbol, without collector and exchange."""
        if self.symbol is not None:
            return Market("", "", self.symbol)
        return Market("", "", self._first.symbol or CsvName.of(self.path).symbol)

    @property
    def period(self) -> Period | None:
        """The length of the bars that the names of the files say."""
        return CsvName.of(self.path).period

    @cached_property
    def timeframe(self) -> Timeframe | None:
        """See `named_timeframe`; None where it cannot be told, and for weeks and months."""
        known = self.named_timeframe or self._first.timeframe
        if known is None and self.period is not None:
            return Timeframe(self.period.ms) if self.period.ms <= MS_PER_DAY else None
        return known or self._inferred_timeframe()

    def _inferred_timeframe(self) -> Timeframe | None:
        times: Int64Array = np.empty(0, np.int64)
        for piece in self.pieces():
            times = np.concatenate([times, piece.bars.ts])
            if len(times) > 1:
                break
        step = int(np.gcd.reduce(np.diff(times), initial=0))
        with contextlib.suppress(UsageError):
            return Timeframe(step)
        return None

    def pieces(self, begin: int = 0) -> Iterator[Piece]:
        """The bars from a place on; see `BarSource`.

        Raises:
            FormatError: a row is no bar; names file, place and line.
        """
        place = 0
        last = _NO_TIME
        for path in self.paths:
            reader = CsvReader(path, last, self.strict)
            for bars in reader:
                skipped = min(max(begin - place, 0), len(bars))
                if skipped < len(bars):
                    yield Piece(place + skipped, bars.part(slice(skipped, None)))
                place += len(bars)
            last = reader.last

    def checksum(self, end: int) -> int:
        """CRC-32 of the times and numbers before a place, however they are written."""
        crc = 0
        for begin, bars in self.pieces():
            if begin >= end:
                break
            part = bars.part(slice(0, end - begin))
            columns = [getattr(part, name).view(np.int64) for name in BAR_COLUMNS]
            crc = zlib.crc32(np.stack(columns, axis=1).data, crc)
        return crc
