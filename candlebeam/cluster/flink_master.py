"""A Flink cluster's REST API: what it is, what it has, what its jobs do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from candlebeam.cluster.rest import MasterError, NoSuchThing, Rest
from candlebeam.errors import CandlebeamError, UsageError

__all__ = ["FlinkMaster", "Job", "MasterError", "Slots"]

_ENDED = {"FINISHED", "FAILED", "CANCELED"}
_STATE = re.compile(r"[A-Z]+")
_DEFAULT_PORT = 8081


class Slots(NamedTuple):
    """What a cluster can run at once."""

    total: int
    free: int
    task_managers: int


@dataclass(frozen=True)
class Job:
    """A job as the master tells of it; times are ms since 1970, `ended_at` -1 while it runs."""

    id: str
    name: str
    state: str
    started_at: int
    ended_at: int

    @property
    def ended(self) -> bool:
        """Whether it is over for good, well or not."""
        return self.state in _ENDED

    @property
    def failed(self) -> bool:
        """Whether it is over for good, and neither finished nor was cancelled."""
        return self.state == "FAILED"


class FlinkMaster:
    """The master (JobManager) of a standalone cluster.

    Args:
        address: `HOST:PORT` of its REST API, or `http://HOST:PORT`, or `https://…`.
        seconds: how long it may take to answer.

    Raises:
        UsageError: the address is none. All methods raise `MasterError` when it cannot be asked.
    """

    def __init__(self, address: str, *, seconds: float = 5) -> None:
        self.url = _master_url(address)
        self._rest = Rest(self.url, "Flink master", seconds)

    def version(self) -> str:
        """The version of Flink that the cluster runs: "1.19.3"."""
        return self._version(self._overview())

    def check(self, wanted: str) -> None:
        """Makes sure that the cluster can run a job of Flink version `wanted`: "1.19".

        Raises:
            CandlebeamError: nobody answers, or no Flink; another version; no TaskManager.
        """
        overview = self._overview()
        runs = self._version(overview)
        minor = ".".join(runs.split(".")[:2])
        if minor != ".".join(wanted.split(".")[:2]):
            raise CandlebeamError(
                f"the cluster at {self.url} runs Flink {runs}, the job server is for {wanted}: "
                f"use --flink_version={minor}, or a cluster of Flink {wanted}"
            )
        slots = self._slots(overview)
        if slots.task_managers == 0 or slots.total == 0:
            missing = "TaskManager" if slots.task_managers == 0 else "slot on its TaskManagers"
            raise CandlebeamError(
                f"the cluster at {self.url} has no {missing}: nothing could run there; start one, "
                "and look into its log if it does not register"
            )

    def slots(self) -> Slots:
        """The slots of the cluster now."""
        return self._slots(self._overview())

    def jobs(self) -> list[Job]:
        """All jobs that the master remembers."""
        found = self._rest.get("/jobs/overview").get("jobs")
        if not isinstance(found, list):
            raise self._rest.not_this("/jobs/overview", "no list of jobs")
        return [self._job("/jobs/overview", values) for values in found]

    def find_job(self, name: str) -> Job | None:
        """The newest job of a name."""
        named = [job for job in self.jobs() if job.name == name]
        return max(named, key=lambda job: job.started_at, default=None)

    def job(self, job_id: str) -> Job | None:
        """A job; None if the master knows none of this id (any more)."""
        # Flink keeps what it tells at /jobs/ID for seconds: a job that has ended may run there.
        return next((job for job in self.jobs() if job.id == job_id), None)

    def root_exception(self, job_id: str) -> str:
        """Why a job failed, or last restarted: the whole stack trace; "" if it did neither."""
        path = f"/jobs/{quote(job_id, safe='')}/exceptions"
        try:
            answer = self._rest.get(path)
        except NoSuchThing:
            return ""
        if root := answer.get("root-exception"):
            return str(root)
        # Flink 2 has the history alone, the newest first.
        history = answer.get("exceptionHistory")
        entries = history.get("entries") if isinstance(history, dict) else None
        if isinstance(entries, list) and entries and isinstance(entries[0], dict):
            return str(entries[0].get("stacktrace") or entries[0].get("exceptionName") or "")
        return ""

    def restarts(self, job_id: str) -> int:
        """How often a running job was started anew; 0 where the master does not (yet) say."""
        path = f"/jobs/{quote(job_id, safe='')}/metrics?get=numRestarts"
        try:
            found = self._rest.get_any(path)
        except NoSuchThing:
            return 0
        try:
            return int(float(found[0]["value"]))
        except (LookupError, TypeError, ValueError):
            return 0

    def cancel(self, job_id: str) -> None:
        """Asks for the end of a job; nothing happens if it has ended, or is not known."""
        # 404: not known, or ended and forgotten. 409: it has ended.
        path = f"/jobs/{quote(job_id, safe='')}?mode=cancel"
        self._rest.patch(path, accepted=(404, 409))

    def _overview(self) -> dict[str, Any]:
        return self._rest.get("/overview")

    def _version(self, overview: dict[str, Any]) -> str:
        version = overview.get("flink-version")
        if not isinstance(version, str) or not version:
            raise self._rest.not_this("/overview", "no flink-version")
        return version

    def _slots(self, overview: dict[str, Any]) -> Slots:
        values = [overview.get(n) for n in ("slots-total", "slots-available", "taskmanagers")]
        total, free, task_managers = (v if isinstance(v, int) else None for v in values)
        if total is None or free is None or task_managers is None:
            raise self._rest.not_this("/overview", "no numbers of slots and TaskManagers")
        return Slots(total, free, task_managers)

    def _job(self, path: str, values: Any) -> Job:
        try:
            job = Job(
                id=str(values["jid"]),
                name=str(values["name"]),
                state=str(values["state"]),
                started_at=int(values["start-time"]),
                ended_at=int(values.get("end-time", -1)),
            )
        except (LookupError, TypeError, ValueError, AttributeError):
            raise self._rest.not_this(path, "no job") from None
        if not _STATE.fullmatch(job.state):
            raise self._rest.not_this(path, f"the job state {job.state!r}")
        return job


def _master_url(address: str) -> str:
    """`http://HOST:PORT` of what the user wrote."""
    text = address.strip()
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        port = parts.port or _DEFAULT_PORT
    except ValueError:
        raise _no_address(address) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise _no_address(address)
    if not re.fullmatch(r"[\w.\-]+|[0-9a-f:.]+", parts.hostname):
        raise _no_address(address)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port}{parts.path.rstrip('/')}"


def _no_address(address: str) -> UsageError:
    return UsageError(f"{address!r} is no address of a Flink master: expected HOST:{_DEFAULT_PORT}")
