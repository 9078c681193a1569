"""Windowing trades into candles, and filling gaps, as Beam transforms."""

from __future__ import annotations

from typing import Any, TypeVar

import apache_beam as beam
from apache_beam import pvalue

from candlebeam.errors import CandlebeamError, RangeError
from candlebeam.model import CandleBlock, Timeframe, TradeBatch
from candlebeam.rules.candles import aggregate, fill_gaps

K = TypeVar("K")


class TradesToCandles(beam.PTransform):
    """Puts the trades of each batch into candles.

    In: a PCollection of (any key, `TradeBatch`). Out: a PCollection of (that key, `CandleBlock`),
    one block a batch. Blocks of one market can be merged in file order (`rules.candles.merge`);
    how its trades were cut into batches then does not matter.

    Args:
        timeframe: the length of a candle.
        include_liquidations: counts liquidations in prices, volumes and counts as well.
        errors_as_values: gives the error in place of the block where a volume does not fit in 64
            bits; else it is raised.
    """

    def __init__(
        self,
        *,
        timeframe: Timeframe,
        include_liquidations: bool = False,
        errors_as_values: bool = False,
    ) -> None:
        super().__init__()
        self._timeframe = timeframe
        self._include_liquidations = include_liquidations
        self._errors_as_values = errors_as_values

    def expand(self, trades: pvalue.PCollection) -> pvalue.PCollection:
        timeframe, include = self._timeframe, self._include_liquidations
        errors_as_values = self._errors_as_values

        def window(element: tuple[K, TradeBatch]) -> tuple[K, CandleBlock | CandlebeamError]:
            key, batch = element
            try:
                return key, aggregate(batch, timeframe, include_liquidations=include)
            except RangeError as error:
                if errors_as_values:
                    return key, error
                raise

        return trades | "WindowIntoCandles" >> beam.Map(window).with_output_types(tuple[Any, Any])


class FillGaps(beam.PTransform):
    """Adds an empty candle for every one that is missing within each block.

    In and out: a PCollection of (any key, `CandleBlock`).
    """

    def expand(self, candles: pvalue.PCollection) -> pvalue.PCollection:
        def fill(element: tuple[K, CandleBlock]) -> tuple[K, CandleBlock]:
            key, block = element
            return key, fill_gaps(block)

        return candles | "Fill" >> beam.Map(fill).with_output_types(tuple[Any, CandleBlock])
