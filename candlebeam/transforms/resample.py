"""Resampling as a Beam transform."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import apache_beam as beam
from apache_beam import pvalue

from candlebeam.errors import UsageError
from candlebeam.model import Bars, Timeframe
from candlebeam.rules.periods import Period, open_zone
from candlebeam.rules.resample import check_periods, resample

K = TypeVar("K")


class ResampleBars(beam.PTransform):
    """Makes bars of other periods of the bars of each element.

    In: a PCollection of (any key, `Bars`), each with all the bars, or trades, of its key. Out: a
    PCollection of ((that key, the period as text), `Bars`), one element a period; the last bar may
    not be over. Every element is resampled on its own: where the bars of a key come in several,
    their parts of a day, say, do not meet. Join them before.

    Args:
        periods: what to make, each once.
        tz: the IANA name of the zone whose midnights days, weeks and months begin at; None is UTC.
        timeframe: of the bars; None where they are trades, or nobody knows.

    Raises:
        UsageError: there is no such zone, or the bars cannot be put together to such a period.

    A bar that has some prices only, or ends after the one it belongs to, fails the pipeline.
    """

    def __init__(
        self,
        *,
        periods: Sequence[Period],
        tz: str | None = None,
        timeframe: Timeframe | None = None,
    ) -> None:
        super().__init__()
        open_zone(tz)
        check_periods(periods, timeframe)
        if not periods or len(set(periods)) < len(periods):
            raise UsageError("periods: expected one or more, each once")
        self._periods, self._tz, self._timeframe = tuple(periods), tz, timeframe

    def expand(self, bars: pvalue.PCollection) -> pvalue.PCollection:
        periods, tz, timeframe = self._periods, self._tz, self._timeframe

        def make(element: tuple[K, Bars]) -> Iterator[tuple[tuple[K, str], Bars]]:
            key, given = element
            for period, made in resample(given, periods, tz, timeframe=timeframe).items():
                yield (key, str(period)), made

        made_type = tuple[tuple[Any, str], Bars]
        return bars | "Resample" >> beam.FlatMap(make).with_output_types(made_type)
