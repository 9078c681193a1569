"""A job of Flink or Spark while it runs: waiting for its end, and ending it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

from apache_beam.options.pipeline_options import StandardOptions

from candlebeam.cluster.flink_master import FlinkMaster, Job, MasterError
from candlebeam.cluster.job_server import JobServer
from candlebeam.cluster.problems import explain, is_hopeless, is_loss
from candlebeam.errors import CandlebeamError
from candlebeam.pipelines.running_job import end_job
from candlebeam.pipelines.target import Target

_LOOK_SECONDS = 0.2
_ASK_SECONDS = 2.0
#: How long a master may be silent while a job runs.
_PATIENCE_SECONDS = 30.0
_CANCEL_SECONDS = 20.0
#: How long what was being submitted may take to be known to the master.
_LATE_SECONDS = 2.0
#: A stream that has run for so long had all that it needs.
_PROVED_SECONDS = 120.0
#: How long after its last word a job server may take to end.
_END_SECONDS = 3.0
_ENDED = ("DONE", "DRAINED", "FAILED", "CANCELLED")


class JobLostError(CandlebeamError):
    """A part of the cluster was lost, and the job with it."""


class Watch:
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
            failed = JobLostError if is_loss(reason) else CandlebeamError
            raise failed(f"the job failed: {explain(reason, self._target.pool)}")

    def _state(self) -> str:
        try:
            return str(self._result.state)
        except Exception as error:
            raise end_of(self._server, error) or CandlebeamError(
                f"the job server does not answer: {explain(said(error))}"
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

    def cancel(self) -> str:
        """Asks for the end of the job and waits for it, but not for long, or for a lost master.

        Returns:
            What to tell if it may go on; "" if it has ended.
        """
        if self._lost:
            return ""
        now = time.monotonic()
        deadline, late = now + _CANCEL_SECONDS, now + _LATE_SECONDS
        master, asked = self._target.master, False
        while True:
            running = silent = ""
            try:
                running = "" if master is None else end_job(master, self._name)
            except MasterError as error:
                silent = f"the job {self._name} could not be ended: {error}"
            over = True
            # The job server may be gone, and with it what runs inside of it.
            with contextlib.suppress(Exception):
                over = str(self._result.state) in _ENDED
                if not (over or running or asked):
                    self._result.cancel()
                    asked = True
            now = time.monotonic()
            is_late = now > (late if over and not running else deadline)
            if is_late and (running or silent):
                return f"{running or silent}; it may go on: end it there before the next run"
            if is_late or (over and not running and not silent and self._is_known):
                return ""
            time.sleep(_LOOK_SECONDS)

    @property
    def _is_known(self) -> bool:
        """Whether the job is where it should be; to a cluster it may still be on its way."""
        return self._target.master is None or self._job is not None


def end_of(server: JobServer | None, error: Exception) -> CandlebeamError | None:
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


def said(error: Exception) -> str:
    """What an error says; of one of gRPC, whose text has many lines, the details alone."""
    import grpc

    if isinstance(error, grpc.Call):
        return f"{error.code().name}: {error.details()}"
    return str(error)
