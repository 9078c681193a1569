"""Flink and Spark as the options name them: what is needed to reach them, found before a job is."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    JobServerOptions,
    PipelineOptions,
    PortableOptions,
    SparkRunnerOptions,
    StandardOptions,
)

from candlebeam.cluster.flink_master import FlinkMaster
from candlebeam.cluster.jars import job_server_jar
from candlebeam.cluster.java import Java, find_java
from candlebeam.cluster.job_server import JobServer
from candlebeam.cluster.spark_master import check_spark_master
from candlebeam.errors import CandlebeamError, UsageError
from candlebeam.pipelines.runner_config import option_names

_FLINK, _SPARK = "FlinkRunner", "SparkRunner"
#: Flink's names for a cluster inside the job server.
_EMBEDDED = ("[local]", "[auto]")
#: How often a job that was lost is submitted again, and ms before that, where nothing else is said.
_RETRIES, _RETRY_MS = 3, 5000


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
