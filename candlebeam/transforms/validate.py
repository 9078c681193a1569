"""Checks of bars as a Beam transform."""

from __future__ import annotations

from typing import Any, TypeVar

import apache_beam as beam
from apache_beam import pvalue

from candlebeam.model import Bars, Timeframe
from candlebeam.rules.checks import KEPT_PLACES, Finding, check_bars

K = TypeVar("K")


class ValidateBars(beam.PTransform):
    """Checks the bars of each element by themselves.

    In: a PCollection of (any key, `Bars`). Out: a PCollection of (that key, list of `Finding`), the
    list empty where all is well. Places are counted from the front of each element.

    Args:
        timeframe: the length of a bar; None where they are trades.
        any_price: whether prices can be zero or negative.
        keep: how many places of each check are kept.
    """

    def __init__(
        self,
        *,
        timeframe: Timeframe | None,
        any_price: bool = False,
        keep: int = KEPT_PLACES,
    ) -> None:
        super().__init__()
        if keep < 0:
            raise ValueError(f"keep {keep}: expected at least 0")
        self._timeframe, self._any_price, self._keep = timeframe, any_price, keep

    def expand(self, bars: pvalue.PCollection) -> pvalue.PCollection:
        timeframe, any_price, keep = self._timeframe, self._any_price, self._keep

        def check(element: tuple[K, Bars]) -> tuple[K, list[Finding]]:
            key, part = element
            return key, check_bars(part, timeframe, any_price=any_price, keep=keep)

        return bars | "Check" >> beam.Map(check).with_output_types(tuple[Any, list[Finding]])
