"""What all inputs of bars have in common: candle files, aligned files, CSV, Databento files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from candlebeam.model import Bars, Market, Timeframe


class Piece(NamedTuple):
    """Some bars of a source.

    Attributes:
        begin: the place of the first one in the source, from 0.
        bars: at most some 65,536; the arrays are the consumer's own.
    """

    begin: int
    bars: Bars


class BarSource(Protocol):
    """Bars of one instrument, ascending by time (trades: nearly so), read piece by piece.

    Attributes:
        path: the file; of several files, the first. For messages.
        market: whose bars they are. Collector and exchange are "" where the source has none.
        timeframe: their length; None where they are trades.
        record_bytes: a place times this is the offset in `path` in bytes; 1 where records have no
            fixed size, or stand in several files.
        closed: how many of the bars, from the front, will never change; None means all of them.
            A candle file's last candle may still change.
    """

    @property
    def path(self) -> str: ...
    @property
    def market(self) -> Market: ...
    @property
    def timeframe(self) -> Timeframe | None: ...
    @property
    def record_bytes(self) -> int: ...
    @property
    def closed(self) -> int | None: ...

    def pieces(self, begin: int = 0) -> Iterator[Piece]:
        """The bars from a place on, in order. Memory does not grow with their number.

        Raises:
            CandlebeamError: the source is damaged; names file, place, expected and found.
        """
        ...

    def checksum(self, end: int) -> int:
        """CRC-32 of what the source holds before place `end`: it changes when history does."""
        ...
