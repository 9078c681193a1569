"""Candle files to Parquet, CSV or Arrow files, as a Beam sink."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import apache_beam as beam

from candlebeam.errors import CandlebeamError
from candlebeam.io.attempt import attempt_one_a_place
from candlebeam.io.export_bars import KEEP, ExportItem, ExportOptions, export_bars
from candlebeam.outcome import BarsOutcome


class WriteTables(beam.PTransform):
    """Brings the Parquet, CSV or Arrow files of candle files up to date.

    In: a PCollection of paths of candle files. Out: a PCollection of `BarsOutcome`, one a path;
    what fails is said there, and the rest goes on. Paths that would give the same files all fail.

    Args:
        to: the root of the files. One run at a time may write there.
        form: "parquet", "csv" or "arrow".
        gaps: whether candles without trades "keep" their rows, or "skip".
        by_market, by_timeframe: for CSV, has a folder for each collector and exchange, and for
            each timeframe.
        force: makes everything again.

    Example: `paths | WriteTables(to="tables")`
    """

    def __init__(
        self,
        *,
        to: str,
        form: str = "parquet",
        gaps: str = KEEP,
        by_market: bool = False,
        by_timeframe: bool = False,
        force: bool = False,
    ) -> None:
        super().__init__()
        self._options = ExportOptions(to, form, gaps, by_market, by_timeframe, force)

    def expand(self, paths: beam.PCollection) -> beam.PCollection:
        place = partial(_placed, self._options)
        export = partial(_exported, self._options)
        return (
            paths
            | "Place" >> beam.Map(place).with_output_types(tuple[str, str])
            | "OneWriterAPlace" >> beam.GroupByKey()
            | "Export" >> beam.FlatMap(export).with_output_types(BarsOutcome)
        )


def _placed(options: ExportOptions, path: str) -> tuple[str, str]:
    """Where the bars of a candle file go; to nowhere, if that cannot be told."""
    try:
        return ExportItem.of_candles(path).place(options).state, path
    except (CandlebeamError, OSError):
        return f"{path}: unknown", path


def _exported(options: ExportOptions, placed: tuple[str, Iterable[str]]) -> Iterator[BarsOutcome]:
    def export(path: str) -> BarsOutcome:
        return export_bars(ExportItem.of_candles(path), options)

    return attempt_one_a_place(export, placed)
