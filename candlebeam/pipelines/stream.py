"""The stream: from an archive that grows, or a live session, to candle files without end."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING

from candlebeam.cluster.job_record import JobRecord
from candlebeam.errors import CandlebeamError, UsageError
from candlebeam.feeds.clock import Clock
from candlebeam.feeds.stream_errors import begin_stream, end_stream, is_ending, why_ended
from candlebeam.pipelines.backfill import clean_up, staging_of
from candlebeam.pipelines.lock import output_lock
from candlebeam.pipelines.quiet import without_warnings
from candlebeam.pipelines.running_job import record_of, refuse_while_running
from candlebeam.settings import CandleSettings
from candlebeam.storage import absolute, is_remote

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

    from candlebeam.cluster.flink_master import Job
    from candlebeam.feeds.databento_position import DatabentoSubscription
    from candlebeam.io.follow_databento import DatabentoOptions
    from candlebeam.io.follow_trade_logs import FollowOptions
    from candlebeam.pipelines.target import Target

_NEEDS_FLINK = (
    "a stream runs on Flink: use --runner-config runner_configs/flink-stream.yaml; where there is"
    " no Java, `candlebeam backfill --follow` stays up to date in process"
)


@dataclass(frozen=True)
class StreamRequest:
    """What to do.

    One of `roots` and `databento` says what to follow.

    Attributes:
        out: the output root.
        roots: archives of trade logs.
        databento: a subscription to Databento's live gateway.
        settings: what the candles are made of.
        lateness_ms: how long after the end of a candle its trades still count, of event time.
        idle_ms: event time after which a market that gives nothing is taken to be quiet.
        poll_s: how long to wait when nothing is new.
        walk_s: how often to look for new files.
        quiet_candles: writes candles without trades as time passes, not with the next one that has
            some.
        clock: tells event time.
        collector, exchange, symbol: filters; None takes all.
        staging: a folder for what is kept on the way; inside the output root by default.
        runner_config: a file with Beam options.
        beam_arguments: Beam options, which count more than those of the file.
        detach: returns once a Flink cluster has the job.
    """

    out: str
    roots: tuple[str, ...] = ()
    databento: DatabentoSubscription | None = None
    settings: CandleSettings = field(default_factory=CandleSettings)
    lateness_ms: int = 600_000
    idle_ms: int = 5_000
    poll_s: float = 0.2
    walk_s: float = 1.0
    quiet_candles: bool = False
    clock: Clock = Clock()
    collector: str | None = None
    exchange: str | None = None
    symbol: str | None = None
    staging: str | None = None
    runner_config: str | None = None
    beam_arguments: tuple[str, ...] = ()
    detach: bool = False

    def __post_init__(self) -> None:
        if bool(self.roots) == (self.databento is not None):
            raise UsageError("expected one of --root and --databento, to say what to follow")
        if self.databento is not None and (self.collector or self.exchange or self.symbol):
            raise UsageError("--collector, --exchange and --symbol: --databento has --symbols")
        if self.lateness_ms < 0 or self.idle_ms < 0:
            raise UsageError("--lateness and --idle: expected a time that is not below 0")


def run_stream(request: StreamRequest, say: Callable[[str], None] = print) -> JobRecord | None:
    """Follows archives until it is interrupted, or the job ends.

    Args:
        say: called with lines for the user.

    Returns:
        The job, if it was detached.

    Raises:
        CandlebeamError: it could not begin, or could not go on.
    """
    with without_warnings():
        from apache_beam.options.pipeline_options import StandardOptions

        from candlebeam.pipelines.beam_options import beam_options
        from candlebeam.pipelines.runner import find_target
    if not (request.beam_arguments or request.runner_config):
        raise UsageError(_NEEDS_FLINK)
    options = beam_options(list(request.beam_arguments), request.runner_config)
    target = find_target(options)
    if target is None or not target.is_flink:
        raise UsageError(_NEEDS_FLINK)
    if request.detach and target.master is None:
        raise UsageError("--detach is for a Flink cluster: expected a master")
    for root in request.roots if target.master is None else ():
        # Of a cluster its workers alone have to reach it.
        if not is_remote(root) and not os.path.isdir(root):
            raise UsageError(f"--root {root}: expected a folder with an archive, found none")
    options.view_as(StandardOptions).streaming = True
    if request.databento is not None and target.master is None:
        _check_databento()
    target.check(say)
    with output_lock(request.out, "stream"):
        return _Stream(request, options, target, say).run()


def _check_databento() -> None:
    """Puts the key where workers in this process look for it. Raises `CandlebeamError`."""
    from candlebeam.pipelines.databento.key import KEY_NAME, find_key

    if find_spec("databento") is None:
        raise CandlebeamError(
            "this needs the databento library: pip install 'candlebeam[databento]'"
        )
    os.environ[KEY_NAME] = find_key(os.environ, os.getcwd())


class _Stream:
    """One run."""

    def __init__(
        self,
        request: StreamRequest,
        options: PipelineOptions,
        target: Target,
        say: Callable[[str], None],
    ) -> None:
        self._request, self._options, self._target = request, options, target
        self._say = say
        self._run = uuid.uuid4().hex
        self._out = absolute(request.out)
        self._staging = staging_of(request.out, request.staging)
        self._job: JobRecord | None = None

    def run(self) -> JobRecord | None:
        from candlebeam.pipelines.runner import run_pipeline
        from candlebeam.pipelines.stream_flow import StreamOptions, build_stream

        request = self._request
        for note in refuse_while_running(self._staging, self._out):
            self._say(note)
        self._staging.begin(self._run)
        follow = self._follow()
        # Every task of the source ticks.
        flow = StreamOptions(
            follow,
            self._out,
            staging=self._staging.path,
            run=self._run,
            tick_ms=round(request.poll_s * 1000 * self._parallelism),
            elsewhere=self._target.master is not None,
            quiet_candles=request.quiet_candles,
        )
        begin_stream()
        try:
            run_pipeline(
                self._options,
                lambda pipeline: build_stream(pipeline, flow),
                target=self._target,
                name=f"candlebeam-stream-{self._run}",
                on_job=self._note_job,
                detach=request.detach,
                look=_look,
                say=self._say,
            )
        finally:
            if not (request.detach and self._job):
                # Whatever is left of it somewhere writes nothing from here on.
                clean_up(self._staging, ())
        return self._job if request.detach else None

    @property
    def _parallelism(self) -> int:
        from apache_beam.options.pipeline_options import FlinkRunnerOptions

        return max(int(self._options.view_as(FlinkRunnerOptions).parallelism or 1), 1)

    def _follow(self) -> FollowOptions | DatabentoOptions:
        request = self._request
        if request.databento is not None:
            return self._follow_databento(request.databento)
        from candlebeam.io.follow_trade_logs import FollowOptions

        return FollowOptions(
            roots=tuple(absolute(root) for root in request.roots),
            out=self._out,
            settings=request.settings,
            lateness_ms=request.lateness_ms,
            readers=self._parallelism,
            walk_s=request.walk_s,
            idle_ms=request.idle_ms,
            clock=request.clock,
            collector=request.collector,
            exchange=request.exchange,
            symbol=request.symbol,
            quiet_candles=request.quiet_candles,
        )

    def _follow_databento(self, subscription: DatabentoSubscription) -> DatabentoOptions:
        from candlebeam.io.follow_databento import DatabentoOptions
        from candlebeam.pipelines.databento.key import KEY_NAME

        request = self._request
        return DatabentoOptions(
            subscription=subscription,
            out=self._out,
            settings=request.settings,
            lateness_ms=request.lateness_ms,
            clock=request.clock,
            key_name=KEY_NAME,
            quiet_candles=request.quiet_candles,
        )

    def _note_job(self, job: Job) -> None:
        master = self._target.master
        assert master is not None
        self._job = record_of(self._run, master.url, job)
        self._staging.write_job(self._job.encode())


def _look() -> None:
    """Ends the job when a worker in this process says that it cannot go on.

    Or when it was asked to end and the exception of that got lost: see `io.cancellation`.
    """
    if is_ending():
        raise KeyboardInterrupt
    if reason := why_ended():
        end_stream()
        raise CandlebeamError(reason)
