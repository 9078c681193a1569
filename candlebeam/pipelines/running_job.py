"""Jobs that go on in a cluster after the process that submitted them has ended."""

from __future__ import annotations

import os
import socket
import time
from datetime import datetime, timezone

from candlebeam.cluster.flink_master import FlinkMaster, Job, MasterError
from candlebeam.cluster.job_record import JobRecord
from candlebeam.errors import CandlebeamError, FormatError
from candlebeam.io.staging import Staging
from candlebeam.version import __version__

#: States of a job that was cancelled, or has failed, while its tasks are being ended.
_ENDING = ("CANCELLING", "FAILING")
_ENDING_SECONDS = 30.0
_LOOK_SECONDS = 0.5


def record_of(
    run: str, master: str, job: Job, *, shards: int = 0, size: int = 0, markets: int = 0
) -> JobRecord:
    """What is noted of a job that this process has submitted.

    Args:
        run: the name of the run.
        master: the address of its cluster.
        shards, size, markets: what it has to do; `size` in bytes of inputs.
    """
    return JobRecord(
        run=run,
        runner="FlinkRunner",
        master=master,
        job_name=job.name,
        job_id=job.id,
        host=socket.gethostname(),
        pid=os.getpid(),
        started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        shards=shards,
        bytes=size,
        markets=markets,
        version=__version__,
    )


def noted_job(staging: Staging) -> JobRecord | None:
    """The job that was submitted last for an output, if its end was not seen."""
    data = staging.read_job()
    if data is None:
        return None
    try:
        return JobRecord.decode(data)
    except (FormatError, ValueError):
        return None


def job_of(record: JobRecord) -> Job | None:
    """The job as its cluster tells of it; None if it does not know it. Raises `MasterError`."""
    return FlinkMaster(record.master).job(record.job_id)


def _settled(record: JobRecord) -> Job | None:
    """`job_of`, once a job that is about to end has ended; as a rule it does not take long."""
    deadline = time.monotonic() + _ENDING_SECONDS
    while True:
        job = job_of(record)
        if job is None or job.state not in _ENDING or time.monotonic() > deadline:
            return job
        time.sleep(_LOOK_SECONDS)


def end_job(master: FlinkMaster, name: str) -> str:
    """Asks for the end of a job of this name, if one runs; to be called again until it has ended.

    Returns:
        "" once it has ended, or where there is none; else what is known of it.

    Raises:
        MasterError: the master does not answer.
    """
    job = master.find_job(name)
    if job is None or job.ended:
        return ""
    if job.state not in _ENDING:
        master.cancel(job.id)
    return f"the job {job.id} at {master.url} has not ended yet ({job.state.lower()})"


def refuse_while_running(staging: Staging, out: str) -> list[str]:
    """Makes sure that no job of an earlier command still writes an output.

    Returns:
        Notes for the report. A cluster that does not answer is one, and a job that does not come
        to its end is another: whatever is left over of it commits nothing once another run has
        begun (`io.staging.Staging.begin`).

    Raises:
        CandlebeamError: a job runs.
    """
    record = noted_job(staging)
    if record is None:
        return []
    name = f"job {record.job_id} at {record.master}"
    try:
        job = _settled(record)
    except MasterError as error:
        return [f"{name}, which was submitted before, cannot be asked for ({error})"]
    if job is None or job.ended:
        return []
    if job.state in _ENDING:
        return [f"{name}, which was submitted before, is still ending ({job.state.lower()})"]
    raise CandlebeamError(
        f"{out}: {name} is writing here (submitted {record.started} on {record.host}):"
        f" `candlebeam attach --out {out}` waits for its end"
    )
