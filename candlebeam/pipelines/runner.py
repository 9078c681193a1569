"""Running a Beam pipeline: in process, or where another runner has it run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from candlebeam.errors import UsageError
from candlebeam.pipelines.beam_options import has_job_server

if TYPE_CHECKING:
    from candlebeam.cluster.flink_master import Job
    from candlebeam.pipelines.target import Target


def find_target(options: PipelineOptions) -> Target | None:
    """Flink or Spark, or another runner with a job server; None for a run without one."""
    if not has_job_server(options):
        return None
    from candlebeam.pipelines.target import Target

    return Target(options)


def run_pipeline(
    options: PipelineOptions,
    build: Callable[[beam.Pipeline], object],
    *,
    target: Target | None = None,
    name: str = "candlebeam",
    on_job: Callable[[Job], None] | None = None,
    detach: bool = False,
    look: Callable[[], None] = lambda: None,
    say: Callable[[str], None] = print,
) -> None:
    """Builds a pipeline, runs it and waits for its end.

    Args:
        target: what `find_target` gives for the options, once it was checked.
        name, on_job, detach, look, say: see `submitted.run_submitted`; for Flink and Spark alone.
    """
    if target is not None:
        from candlebeam.pipelines.submitted import run_submitted

        run_submitted(target, build, name=name, on_job=on_job, detach=detach, look=look, say=say)
        return
    try:
        pipeline = beam.Pipeline(options=options)
    except ValueError as error:
        # A runner that Beam does not know, or options that do not go together.
        raise UsageError(" ".join(str(error).split())) from error
    build(pipeline)
    pipeline.run().wait_until_finish()
