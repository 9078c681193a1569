"""Pipelines for tests, on the runner that `backfill` takes by itself."""

from __future__ import annotations

from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from candlebeam.errors import CandlebeamError
from candlebeam.model import CandleBlock, TradeBatch
from tests.trade_batches import rows_of


def pipeline() -> Any:
    """A `TestPipeline`: nothing is downloaded, and it runs as the `with` ends."""
    return TestPipeline(
        runner="FnApiRunner", options=PipelineOptions(["--direct_running_mode=in_memory"])
    )


def comparable(value: Any) -> Any:
    """Batches and blocks, wherever they stand, as values that compare with `==`."""
    if isinstance(value, TradeBatch):
        return value.market, rows_of(value), value.count is not None
    if isinstance(value, CandleBlock):
        return value.market, value.timeframe, value.candles.tobytes()
    if isinstance(value, CandlebeamError):
        return type(value), str(value)
    if type(value) is tuple:
        return tuple(comparable(part) for part in value)
    return value


def assert_makes(transform: Any, elements: list[Any], expected: list[Any]) -> None:
    """The transform makes the expected elements of these, in whatever order."""
    with pipeline() as running:
        # As one element first, so that all come in one bundle and in this order.
        made = running | beam.Create([elements]) | beam.FlatMap(list) | transform
        assert_that(
            made | "Comparable" >> beam.Map(comparable),
            equal_to([comparable(element) for element in expected]),
        )
