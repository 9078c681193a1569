"""Pipelines for tests, on the runner that `backfill` takes by itself."""

from __future__ import annotations

from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.test_pipeline import TestPipeline


def pipeline() -> Any:
    """A `TestPipeline`: nothing is downloaded, and it runs as the `with` ends."""
    return TestPipeline(
        runner="FnApiRunner", options=PipelineOptions(["--direct_running_mode=in_memory"])
    )
