"""Pipelines that Flink or Spark runs: handing them over, and waiting for their end.

Beam's job server, a Java process, translates a pipeline and submits it. Here it is started and
stopped; what could make it or the cluster hang is looked at before, and while a job runs.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    PipelineOptions,
)

from candlebeam.cluster.flink_master import Job
from candlebeam.cluster.job_server import JobServer
from candlebeam.cluster.problems import AGAIN, explain
from candlebeam.errors import CandlebeamError, UsageError
from candlebeam.pipelines.beam_options import unknown_words
from candlebeam.pipelines.quiet import forget_lost_runners
from candlebeam.pipelines.runner_config import option_names
from candlebeam.pipelines.target import Target
from candlebeam.pipelines.watch import JobLostError, Watch, end_of, said

_ASK_SECONDS = 2.0
#: How long a cluster may take to be able to run something again.
_PATIENCE_SECONDS = 30.0
#: How long a job server may take to tell what it can do.
_DESCRIBE_SECONDS = 20.0


def run_submitted(
    target: Target,
    build: Callable[[beam.Pipeline], object],
    *,
    name: str,
    on_job: Callable[[Job], None] | None = None,
    detach: bool = False,
    look: Callable[[], None] = lambda: None,
    say: Callable[[str], None] = print,
) -> None:
    """Builds a pipeline, has it run, and waits for its end.

    Args:
        target: checked.
        name: of the job; nothing else has it.
        on_job: called once a Flink cluster has the job.
        detach: returns then.
        look: called again and again while it runs; what it raises ends the job.
        say: called with a line when it is submitted again.

    What was lost with a worker or a machine is made up for: the pipeline is submitted again, as
    often as `Target.retries` says, and finds the chunks that are there.

    Raises:
        CandlebeamError: it failed; in one line why.
    """
    options = target.options
    # It would start pip to list what is installed here, which no worker looks at.
    options.view_as(DebugOptions).add_experiment("disable_logging_submission_environment")
    forget_lost_runners()
    retries, delay = target.retries
    with target.serving() as server, _own_temporary_folder():
        if server is not None:
            _check_options(options, server)
        for attempt in range(retries + 1):
            # One that has failed may still be known to the cluster.
            own_name = name if attempt == 0 else f"{name}-{attempt + 1}"
            try:
                _submit(target, build, server, own_name, on_job, detach, look, say)
                return
            except JobLostError as loss:
                if attempt == retries:
                    raise
                say(f"{str(loss).removesuffix(f'; {AGAIN}')}; it is submitted again")
            time.sleep(delay)
            _wait_for(target)


def _wait_for(target: Target) -> None:
    """Waits until a cluster can run something, for a while."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            target.check_master()
            return
        except CandlebeamError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_ASK_SECONDS)


def _submit(
    target: Target,
    build: Callable[[beam.Pipeline], object],
    server: JobServer | None,
    name: str,
    on_job: Callable[[Job], None] | None,
    detach: bool,
    look: Callable[[], None],
    say: Callable[[str], None],
) -> None:
    """Submits a pipeline and waits for its end; see `run_submitted`."""
    options = target.options
    options.view_as(GoogleCloudOptions).job_name = name
    try:
        pipeline = beam.Pipeline(options=options)
        build(pipeline)
        result: Any = pipeline.run()
    except (ValueError, CandlebeamError) as error:
        raise UsageError(" ".join(str(error).split())) from error
    except Exception as error:  # Beam and gRPC have errors of their own
        raise _failure(error, server) from error
    watch = Watch(target, result, server, name)
    try:
        watch.wait(on_job, detach, look)
    except BaseException:
        if problem := watch.cancel():
            say(problem)
        raise
    finally:
        with contextlib.suppress(Exception):
            result._cleanup()


def _check_options(options: PipelineOptions, server: JobServer) -> None:
    """Refuses options that neither Beam's Python nor the job server knows.

    Beam would leave them out, and say so in its log alone.
    """
    import grpc
    from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

    with grpc.insecure_channel(server.endpoint) as channel:
        found = beam_job_api_pb2_grpc.JobServiceStub(channel).DescribePipelineOptions(
            beam_job_api_pb2.DescribePipelineOptionsRequest(), timeout=_DESCRIBE_SECONDS
        )
    known = {option.name for option in found.options}
    for word in unknown_words(options._flags):
        if option_names([word]) - known:
            raise UsageError(f"{word} is no option of Candlebeam, Beam or the runner")


@contextmanager
def _own_temporary_folder() -> Iterator[None]:
    """What Beam leaves in the folder of temporary files is removed."""
    folder, before = tempfile.mkdtemp(prefix="candlebeam-submit-"), tempfile.tempdir
    tempfile.tempdir = folder
    try:
        yield
    finally:
        tempfile.tempdir = before
        shutil.rmtree(folder, ignore_errors=True)


def _failure(error: Exception, server: JobServer | None) -> CandlebeamError:
    """What to tell of a job that could not be submitted."""
    ended = end_of(server, error)
    return ended or CandlebeamError(f"the job could not be submitted: {explain(said(error))}")
