"""Corrections as a Beam transform."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import apache_beam as beam
from apache_beam import pvalue

from candlebeam.model import TradeBatch
from candlebeam.rules.corrections import CORRECTIONS, check_corrections, correct_trades

K = TypeVar("K")


class CorrectTrades(beam.PTransform):
    """Puts right what is known to be wrong in recorded trades.

    In and out: a PCollection of (any key, `TradeBatch`); keys and order stay.

    Args:
        corrections: names of `rules.corrections.CORRECTIONS`; all of them by default.
    """

    def __init__(self, *, corrections: Iterable[str] = tuple(CORRECTIONS)) -> None:
        super().__init__()
        self._names = check_corrections(corrections)

    def expand(self, trades: pvalue.PCollection) -> pvalue.PCollection:
        names = self._names

        def correct(element: tuple[K, TradeBatch]) -> tuple[K, TradeBatch]:
            key, batch = element
            return key, correct_trades(batch, names)

        return trades | "Correct" >> beam.Map(correct).with_output_types(trades.element_type or Any)
