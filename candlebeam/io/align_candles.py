"""From a candle file to an aligned file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from candlebeam.errors import CandlebeamError, UsageError
from candlebeam.formats.aligned.file import AlignedPaths
from candlebeam.formats.candles.source import CandleSource
from candlebeam.io.aligned_layout import GAPS
from candlebeam.io.aligned_writer import AlignedWriter
from candlebeam.model import Bars, Market, Timeframe
from candlebeam.outcome import EMPTY, UP_TO_DATE, BarsOutcome


@dataclass(frozen=True)
class AlignOptions:
    """How candles become aligned bars.

    Attributes:
        to: the root of the aligned files.
        gaps: what a candle without trades becomes: "forward" a bar at the close before it,
            "zero" one of zeros, "skip" nothing.
        by_market: has a folder for each collector and exchange under the root.
        force: makes everything again.
    """

    to: str
    gaps: str = "forward"
    by_market: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        if self.gaps not in GAPS:
            raise UsageError(f"gaps {self.gaps!r}: expected {', '.join(GAPS)}")

    def paths(self, market: Market, timeframe: Timeframe) -> AlignedPaths:
        """Where a market's bars go."""
        *folders, name = market.path.split("/")
        to = os.path.join(self.to, *folders) if self.by_market else self.to
        return AlignedPaths.of(to, str(timeframe), name)


def align_candles(path: str, options: AlignOptions) -> BarsOutcome:
    """Brings the aligned file of a candle file up to date.

    The last candle may still change, so it becomes the open bar.

    Args:
        path: the candle file.

    Raises:
        CandlebeamError: the candle file is damaged, or what is at the place of the aligned file is
            not to be gone on with.
    """
    source = _opened(path)
    outcome = BarsOutcome(path)
    if not len(source):
        outcome.status = EMPTY
        return outcome
    paths = options.paths(source.market, source.timeframe)
    settings = {"gaps": options.gaps}
    with AlignedWriter(
        paths,
        source=str(source.market),
        settings=settings,
        force=options.force,
        gaps=options.gaps,
    ) as writer:
        _check_history(writer, source)
        open_bar = None
        for piece in source.pieces(writer.in_pos // source.record_bytes):
            closed = source.closed - piece.begin
            writer.append(piece.bars.part(slice(0, closed)))
            if closed < len(piece.bars):
                open_bar = piece.bars.part(slice(closed, None))
        checksum = source.checksum(source.closed)
        writer.commit(source.closed * source.record_bytes, checksum, open_bar)
    outcome.notes = writer.notes
    if writer.written:
        outcome.bars, outcome.files = writer.bars, [paths.records]
    else:
        outcome.status = UP_TO_DATE
    return outcome


def _opened(path: str) -> CandleSource:
    try:
        return CandleSource(path)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        raise CandlebeamError(f"{place}{error.strerror or error}") from None


def _check_history(writer: AlignedWriter, source: CandleSource) -> None:
    """Has the writer start again where its bars are not those of the source any more."""
    if writer.foreign:
        _adopt(writer, source)
    elif writer.in_pos > source.closed * source.record_bytes:
        writer.restart(f"{source.path} has fewer candles than before")
    elif not writer.continues(source.checksum, source.record_bytes):
        writer.restart(f"{source.path} has other candles than before")


def _adopt(writer: AlignedWriter, source: CandleSource) -> None:
    assert writer.last is not None
    last_ts = int(writer.last.ts[0])
    end = min(source.place_of(last_ts + 1), source.closed)
    writer.adopt(_before(source, end), end * source.record_bytes, source.checksum(end))


def _before(source: CandleSource, end: int) -> Iterator[Bars]:
    for piece in source.pieces():
        if piece.begin >= end:
            return
        yield piece.bars.part(slice(0, end - piece.begin))
