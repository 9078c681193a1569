"""Pipelines that Flink or Spark runs: handing them over, and waiting for their end.

Beam's job server, a Java process, translates a pipeline and submits it. Here it is started and
stopped; what could make it or the cluster hang is looked at before, and while a job runs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    DebugOptions,
    FlinkRunnerOptions,
    GoogleCloudOptions,
    JobServerOptions,
    PipelineOptions,
    PortableOptions,
    SparkRunnerOptions,
    StandardOptions,
)

from candlebeam.cluster.flink_master import FlinkMaster, Job, MasterError
from candlebeam.cluster.jars import job_server_jar
from candlebeam.cluster.java import Java, find_java
from candlebeam.cluster.job_server import JobServer
from candlebeam.cluster.problems import AGAIN, explain, is_hopeless, is_loss
from candlebeam.cluster.spark_master import check_spark_master
from candlebeam.errors import CandlebeamError, UsageError
from candlebeam.pipelines.beam_options import unknown_words
from candlebeam.pipelines.quiet import forget_lost_runners
from candlebeam.pipelines.runner_config import option_names

_FLINK, _SPARK = "FlinkRunner", "SparkRunner"
#: Flink's names for a cluster inside the job server.
_EMBEDDED = ("[local]", "[auto]")
_LOOK_SECONDS = 0.2
_ASK_SECONDS = 2.0
#: How long a master may be silent while a job runs.
_PATIENCE_SECONDS = 30.0
_CANCEL_SECONDS = 20.0
#: A stream that has run for so long had all that it needs.
_PROVED_SECONDS = 120.0
#: How long after its last word a job server may take to end.
_END_SECONDS = 3.0
#: How often a job that was lost is submitted again, and ms before that, where nothing else is said.
_RETRIES, _RETRY_MS = 3, 5000
_ENDED = ("DONE", "DRAINED", "FAILED", "CANCELLED")


class Target:
    """Flink or Spark, as the options name it.

    Args:
        options: of the pipeline. Flink's version, where it is not among them, is the cluster's.

    Attributes:
        master: the address of a Flink cluster; None where the job ends with this process.
    """

    def __init__(self, options: PipelineOptions) -> None:
        self.options = options
        runner = str(options.view_as(StandardOptions).runner).rpartition(".")[2]
        self.is_flink, self.is_spark = runner == _FLINK, runner == _SPARK
        self._flink = options.view_as(FlinkRunnerOptions)
        self._spark = options.view_as(SparkRunnerOptions)
        self._portable = options.view_as(PortableOptions)
        self._servers = options.view_as(JobServerOptions)
        self._version_given = "flink_version" in option_names(options._flags)
        self._jar = ""
        self._java: Java | None = None
        self.master: FlinkMaster | None = None
        if self.is_flink and self._flink.flink_master not in _EMBEDDED:
            self.master = FlinkMaster(self._flink.flink_master)

    def check(self, say: Callable[[str], None] | None = None) -> None:
        """Finds what is needed, and whether the cluster is there.

        Args:
            say: called with a line before something is downloaded.

        Raises:
            CandlebeamError: something is missing, or nobody answers.
        """
        self.check_master()
        if self._portable.job_endpoint or not (self.is_flink or self.is_spark):
            return
        if not self._uber_jar:
            self._java = find_java(self._servers.job_server_java_launcher)
        self._jar = job_server_jar(
            "flink" if self.is_flink else "spark",
            self._flink.flink_version if self.is_flink else self._spark.spark_version,
            given=self._flink.flink_job_server_jar
            if self.is_flink
            else self._spark.spark_job_server_jar,
            beam_version=beam.__version__,
            cache=self._servers.jar_cache_dir,
            say=say,
        )

    def check_master(self) -> None:
        """Whether the cluster is there and can run something. Raises `CandlebeamError`."""
        if self.master is not None:
            if not self._version_given:
                self._flink.flink_version = ".".join(self.master.version().split(".")[:2])
            self.master.check(self._flink.flink_version)
        elif self.is_spark:
            check_spark_master(self._spark.spark_master_url)

    @property
    def pool(self) -> str:
        """The address of the worker pool; "" where workers come from elsewhere."""
        if self._portable.environment_type != "EXTERNAL":
            return ""
        return self._portable.environment_config or ""

    @property
    def retries(self) -> tuple[int, float]:
        """How often what was lost is submitted again, and how long to wait before that (s)."""
        given = _values(self.options, "number_of_execution_retries", "execution_retry_delay")
        try:
            count, delay = (
                int(given["number_of_execution_retries"] or _RETRIES),
                int(given["execution_retry_delay"] or _RETRY_MS),
            )
        except ValueError as error:
            raise UsageError(f"execution retries and their delay: {error}") from None
        return max(count, 0), max(delay, 0) / 1000

    @property
    def _uber_jar(self) -> bool:
        if self.is_flink:
            return bool(self._flink.flink_submit_uber_jar) and self.master is not None
        return bool(self._spark.spark_submit_uber_jar)

    @contextmanager
    def serving(self) -> Iterator[JobServer | None]:
        """Has a job server running, if one is needed, and the options name it."""
        if self._java is None:
            # Beam submits the jar by itself, or the user runs a job server.
            if self._jar and self.is_flink:
                self._flink.flink_job_server_jar = self._jar
            elif self._jar:
                self._spark.spark_job_server_jar = self._jar
            yield None
            return
        name, master = (
            ("--flink-master", self._flink.flink_master)
            if self.is_flink
            else ("--spark-master-url", self._spark.spark_master_url)
        )
        if self.master is not None:
            master = self.master.url
        descriptor, log = tempfile.mkstemp(prefix="candlebeam-job-server-", suffix=".log")
        os.close(descriptor)
        arguments = [name, master]
        if self._servers.artifacts_dir:
            arguments += ["--artifacts-dir", self._servers.artifacts_dir]
        with (
            _kept_if_named(log),
            JobServer(
                self._java,
                self._jar,
                arguments,
                log=log,
                properties=self._servers.job_server_jvm_properties or (),
            ) as server,
        ):
            self._portable.job_endpoint = server.endpoint
            try:
                yield server
            finally:
                self._portable.job_endpoint = None


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
                _submit(target, build, server, own_name, on_job, detach, look)
                return
            except _Loss as loss:
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


class _Loss(CandlebeamError):
    """A part of the cluster was lost, and the job with it."""


def _submit(
    target: Target,
    build: Callable[[beam.Pipeline], object],
    server: JobServer | None,
    name: str,
    on_job: Callable[[Job], None] | None,
    detach: bool,
    look: Callable[[], None],
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
    watch = _Watch(target, result, server, name)
    try:
        watch.wait(on_job, detach, look)
    except BaseException:
        watch.cancel()
        raise
    finally:
        with contextlib.suppress(Exception):
            result._cleanup()


@contextmanager
def _kept_if_named(log: str) -> Iterator[None]:
    """A log is removed in the end, but where an error tells the user to read it."""
    named = False
    try:
        yield
    except CandlebeamError as error:
        named = log in str(error)
        raise
    finally:
        if not named:
            os.unlink(log)


def _values(options: PipelineOptions, *names: str) -> dict[str, str | None]:
    """What options are given as; None where they are not. For those that Beam's Python ignores."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in names:
        parser.add_argument(f"--{name}", nargs="?")
    return vars(parser.parse_known_args(options._flags)[0])


def _check_options(options: PipelineOptions, server: JobServer) -> None:
    """Refuses options that neither Beam's Python nor the job server knows.

    Beam would leave them out, and say so in its log alone.
    """
    import grpc
    from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

    with grpc.insecure_channel(server.endpoint) as channel:
        found = beam_job_api_pb2_grpc.JobServiceStub(channel).DescribePipelineOptions(
            beam_job_api_pb2.DescribePipelineOptionsRequest(), timeout=_CANCEL_SECONDS
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
    ended = _end_of(server, error)
    return ended or CandlebeamError(f"the job could not be submitted: {explain(_said(error))}")


def _end_of(server: JobServer | None, error: Exception) -> CandlebeamError | None:
    """What to tell if a job server has ended, or is about to, which an error may be a sign of."""
    import grpc

    lost = isinstance(error, grpc.RpcError)
    deadline = time.monotonic() + (_END_SECONDS if lost else 0)
    while server is not None:
        if not server.alive:
            return CandlebeamError(f"the job server has ended: {explain(server.log_text())}")
        if time.monotonic() > deadline:
            break
        time.sleep(_LOOK_SECONDS)
    return None


def _said(error: Exception) -> str:
    """What an error says; of one of gRPC, whose text has many lines, the details alone."""
    import grpc

    if isinstance(error, grpc.Call):
        return f"{error.code().name}: {error.details()}"
    return str(error)


class _Watch:
    """A job that runs."""

    def __init__(self, target: Target, result: Any, server: JobServer | None, name: str) -> None:
        self._target, self._result = target, result
        self._server, self._name = server, name
        self._errors: list[str] = []
        self._job: Job | None = None
        self._silent_since: float | None = None
        self._ask_at = 0.0
        self._lost = False
        self._begun = time.monotonic()
        threading.Thread(target=self._read_messages, daemon=True).start()

    def _read_messages(self) -> None:
        from apache_beam.portability.api import beam_job_api_pb2

        error = beam_job_api_pb2.JobMessage.JOB_MESSAGE_ERROR
        # It ends with an error of gRPC where the server goes away.
        with contextlib.suppress(Exception):
            for message in self._result._message_stream or ():
                found = message.message_response
                if message.HasField("message_response") and found.importance == error:
                    self._errors.append(found.message_text)

    def wait(
        self, on_job: Callable[[Job], None] | None, detach: bool, look: Callable[[], None]
    ) -> None:
        """Until the job has ended, or, to `detach`, until the cluster has it.

        Raises:
            CandlebeamError: it has failed, or cannot succeed any more; why.
        """
        known = False
        while True:
            state = self._state()
            if self._target.master is not None:
                self._ask_master(self._target.master)
                if self._job is not None and not known:
                    known = True
                    if on_job is not None:
                        on_job(self._job)
                if detach and self._job is not None and self._job.state != "INITIALIZING":
                    return
            look()
            if state in _ENDED:
                break
            time.sleep(_LOOK_SECONDS)
        if state == "CANCELLED":
            raise CandlebeamError("the job was cancelled")
        if state not in ("DONE", "DRAINED"):
            reason = self._reason(state)
            failed = _Loss if is_loss(reason) else CandlebeamError
            raise failed(f"the job failed: {explain(reason, self._target.pool)}")

    def _state(self) -> str:
        try:
            return str(self._result.state)
        except Exception as error:
            raise _end_of(self._server, error) or CandlebeamError(
                f"the job server does not answer: {explain(_said(error))}"
            ) from error

    def _ask_master(self, master: FlinkMaster) -> None:
        """Looks at the job where it runs: the job server does not tell of all that happens."""
        now = time.monotonic()
        if now < self._ask_at:
            return
        self._ask_at = now + _ASK_SECONDS
        try:
            if self._job is None or self._job.state == "INITIALIZING":
                self._ask_at = now + _LOOK_SECONDS
                self._job = master.find_job(self._name)
            reason = master.root_exception(self._job.id) if self._job is not None else ""
            self._silent_since = None
        except MasterError as error:
            self._silent_since = self._silent_since or now
            silent = time.monotonic() - self._silent_since
            if silent > _PATIENCE_SECONDS:
                self._lost = True
                raise CandlebeamError(
                    f"{error}; it was silent for {silent:.0f} s while the job ran: when it is back,"
                    " run this again to go on from what is done, or `candlebeam attach` if the job"
                    " has gone on"
                ) from None
            return
        if reason and is_hopeless(reason) and not self._has_proved_itself():
            raise CandlebeamError(f"the job cannot go on: {explain(reason, self._target.pool)}")

    def _has_proved_itself(self) -> bool:
        """Whether it is a stream that has run for a while: what it loses then may come back."""
        is_stream = self._target.options.view_as(StandardOptions).streaming
        return bool(is_stream) and time.monotonic() - self._begun > _PROVED_SECONDS

    def _reason(self, state: str) -> str:
        if self._target.master is not None and self._job is not None:
            with contextlib.suppress(MasterError):
                if reason := self._target.master.root_exception(self._job.id):
                    return reason
        # The last messages may still be on their way.
        for _ in range(20):
            if self._errors:
                return self._errors[-1]
            time.sleep(_LOOK_SECONDS / 2)
        said = self._server.log_text() if self._server is not None else ""
        return said or f"it ended as {state} and nobody said why"

    def cancel(self) -> None:
        """Asks for the end of the job and waits for it, but not for long, or for a lost master."""
        if self._lost:
            return
        master = self._target.master
        with contextlib.suppress(Exception):
            if master is not None and self._job is None:
                self._job = master.find_job(self._name)
            if master is not None and self._job is not None:
                master.cancel(self._job.id)
            else:
                self._result.cancel()
        deadline = time.monotonic() + _CANCEL_SECONDS
        with contextlib.suppress(Exception):
            while time.monotonic() < deadline and str(self._result.state) not in _ENDED:
                time.sleep(_LOOK_SECONDS)
