"""Databento files as sources of bars: ohlcv records as they are, and trades as bars of one each.

A price that is undefined makes a bar a gap, and leaves a trade out; both count as rejected. Prices
of zero and less are good. Where several venues publish bars of one instrument, Databento keeps one
record a venue: they come one after the other with the same time.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from candlebeam.errors import FormatError
from candlebeam.formats.bar_source import Piece
from candlebeam.formats.dbn.metadata import DbnFile
from candlebeam.formats.dbn.records import Choice, DbnRecords, describe_dbn
from candlebeam.model import Bars, Market, Timeframe

_PIECE_ROWS = 1 << 16
_READ = 1 << 20


class DbnBars:
    """The bars, or the trades, of one instrument of a Databento file: a `BarSource`.

    Every reading goes through the whole file; `iterate_dbn_bars` gives all instruments in one.

    Args:
        head: what the file says of itself.
        symbol: the instrument's.

    Attributes:
        path, market, timeframe, record_bytes, closed: see `BarSource`.
        rejected: rows that are no bars or trades, by reason, after the last reading to the end.
        unmapped: rows of the file that belong to no symbol at all, likewise.
    """

    record_bytes = 1
    closed: int | None = None

    def __init__(self, head: DbnFile, symbol: str) -> None:
        self.path = head.path
        self.market: Market = head.market(symbol)
        self.timeframe: Timeframe | None = head.timeframe
        self.rejected: tuple[tuple[str, int], ...] = ()
        self.unmapped = 0
        self._symbol = symbol

    def pieces(self, begin: int = 0) -> Iterator[Piece]:
        """See `BarSource.pieces`; damage is raised behind everything that stands before it."""
        records = _records(self.path, lambda symbol: symbol == self._symbol)
        place = 0
        for number in records:
            bars = records.take_bars(number)
            skipped = min(max(begin - place, 0), len(bars))
            place += len(bars)
            if skipped < len(bars):
                yield Piece(place - len(bars) + skipped, bars.part(slice(skipped, None)))
        self.rejected = records.rejected(0) if records.keys else ()
        self.unmapped = records.unmapped
        _check_whole(records)

    def checksum(self, end: int) -> int:
        """CRC-32 of the whole file, whatever `end` is."""
        crc = 0
        with Path(self.path).open("rb") as file:
            while data := file.read(_READ):
                crc = zlib.crc32(data, crc)
        return crc


def open_dbn_bars(path: str) -> list[DbnBars]:
    """The bars or trades of all instruments of a file, by symbol.

    Raises:
        FormatError: the file is damaged or no Databento file, has neither trades nor bars, or no
            symbols.
        CandlebeamError: the library is not installed.
        OSError: it cannot be opened.
    """
    head = describe_dbn(path)
    if not head.has_trades and head.timeframe is None:
        raise FormatError(path, "records of trades or bars", f"schema {head.schema}")
    if not head.symbols:
        raise FormatError(path, "symbols of its instruments", "none")
    return [DbnBars(head, symbol) for symbol in head.symbols]


def iterate_dbn_bars(path: str) -> Iterator[tuple[Market, Bars]]:
    """The bars or trades of all instruments of a file in one reading, those of each in file order.

    Raises:
        FormatError: as `open_dbn_bars`; or it is damaged, or has rows of instruments without
            symbol, raised behind everything else that the file has.
    """
    records = _records(path, lambda symbol: True)
    for number in records:
        yield records.keys[number], records.take_bars(number)
    _check_whole(records)
    if records.unmapped:
        raise FormatError(
            path, "symbols of its instruments", f"{records.unmapped} records without any"
        )


def _records(path: str, wanted: Callable[[str], bool]) -> DbnRecords:
    return DbnRecords(
        path,
        lambda head, symbol: (head.market(symbol), Choice()) if wanted(symbol) else None,
        any_price=True,
        bars=True,
        batch_rows=_PIECE_ROWS,
    )


def _check_whole(records: DbnRecords) -> None:
    if records.damage is not None:
        raise FormatError(records.path, "a whole file", records.damage)
