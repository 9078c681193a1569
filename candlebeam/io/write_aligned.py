"""Candle files to aligned files, as a Beam sink."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import apache_beam as beam

from candlebeam.errors import CandlebeamError
from candlebeam.formats.candles.source import CandleSource
from candlebeam.io.align_candles import AlignOptions, align_candles
from candlebeam.io.attempt import attempt_one_a_place
from candlebeam.model import Market
from candlebeam.outcome import BarsOutcome


class WriteAligned(beam.PTransform):
    """Brings the aligned files of candle files up to date.

    In: a PCollection of paths of candle files, or of (`Market`, path). Out: a PCollection of
    `BarsOutcome`, one a path; what fails is said there, and the rest goes on. Paths that would give
    one file all fail.

    Args:
        to: the root of the aligned files. One run at a time may write there.
        gaps: what a candle without trades becomes: "forward", "zero" or "skip".
        by_market: has a folder for each collector and exchange under the root.
        force: makes everything again.

    Example: `paths | WriteAligned(to="aligned")`
    """

    def __init__(
        self, *, to: str, gaps: str = "forward", by_market: bool = False, force: bool = False
    ) -> None:
        super().__init__()
        self._options = AlignOptions(to, gaps, by_market, force)

    def expand(self, paths: beam.PCollection) -> beam.PCollection:
        place = partial(_placed, self._options)
        align = partial(_aligned, self._options)
        return (
            paths
            | "Place" >> beam.Map(place).with_output_types(tuple[str, str])
            | "OneWriterAPlace" >> beam.GroupByKey()
            | "Align" >> beam.FlatMap(align).with_output_types(BarsOutcome)
        )


def _placed(options: AlignOptions, found: str | tuple[Market, str]) -> tuple[str, str]:
    """Where the bars of a candle file go; to nowhere, if that cannot be told."""
    path = found if isinstance(found, str) else found[1]
    try:
        source = CandleSource(path)
    except (CandlebeamError, OSError):
        return f"{path}: unknown", path
    return options.paths(source.market, source.timeframe).records, path


def _aligned(options: AlignOptions, placed: tuple[str, Iterable[str]]) -> Iterator[BarsOutcome]:
    align = partial(align_candles, options=options)
    return attempt_one_a_place(align, placed, "; by_market keeps them apart")
