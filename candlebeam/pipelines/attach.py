"""Waiting for a backfill that was detached, or whose driver has died: to its report."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

from candlebeam.cluster.flink_master import FlinkMaster, MasterError
from candlebeam.cluster.job_record import JobRecord
from candlebeam.cluster.problems import explain
from candlebeam.errors import CandlebeamError
from candlebeam.io.cancellation import cancellable, stop_if_cancelled
from candlebeam.outcome import AGAIN
from candlebeam.pipelines.backfill import clean_up, staging_of
from candlebeam.pipelines.lock import output_lock
from candlebeam.pipelines.progress import Progress, Work
from candlebeam.pipelines.report import Report
from candlebeam.pipelines.running_job import noted_job

_ASK_SECONDS = 1.0
#: How long a master may be silent.
_PATIENCE_SECONDS = 30.0


def run_attach(out: str, staging: str | None = None, progress: Progress | None = None) -> Report:
    """Waits until the job that writes an output has ended, and reports what it came to.

    Interrupted, it leaves the job alone.

    Args:
        out: the output root.
        staging: as the backfill had it.

    Raises:
        CandlebeamError: there is no such job, or its cluster does not answer.
    """
    folder = staging_of(out, staging)
    record = noted_job(folder)
    if record is None:
        raise CandlebeamError(f"{out}: no job of a cluster is writing here")
    started = time.monotonic()
    with output_lock(out, "attach"):
        work = Work(record.shards, record.bytes, record.markets)
        waiting = uuid.uuid4().hex
        with cancellable(waiting), (progress or Progress()).watching(folder, work):
            problem = _wait(record, lambda: stop_if_cancelled(waiting))
        outcomes = folder.outcomes()
        for outcome in outcomes:
            if outcome.status == AGAIN:
                outcome.fail("it has to be made again from all its inputs: run the backfill again")
        lost = record.markets - len(outcomes)
        if lost and not problem:
            problem = "the job has ended"
        if lost:
            problem += f"; {lost} of {record.markets} markets are not done: run the backfill again"
        clean_up(folder, outcomes)
    report = Report(outcomes, problems=[problem] if problem else [])
    report.seconds = time.monotonic() - started
    return report


def _wait(record: JobRecord, look: Callable[[], None]) -> str:
    """Waits for the end of a job; returns what went wrong with it, or "".

    What `look`, which is called again and again, raises ends the waiting.
    """
    master = FlinkMaster(record.master)
    heard = time.monotonic()
    while True:
        look()
        try:
            job = master.job(record.job_id)
        except MasterError:
            if time.monotonic() - heard > _PATIENCE_SECONDS:
                raise
            time.sleep(_ASK_SECONDS)
            continue
        heard = time.monotonic()
        if job is None:
            return f"{record.master} knows nothing of job {record.job_id} any more"
        if job.ended:
            reason = explain(master.root_exception(job.id)) if job.failed else ""
            return f"the job failed: {reason}" if reason else ""
        time.sleep(_ASK_SECONDS)
