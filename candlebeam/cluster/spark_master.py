"""Whether a Spark master can be reached."""

from __future__ import annotations

import re
import socket

from candlebeam.cluster.connections import why_not
from candlebeam.errors import CandlebeamError, UsageError

_LOCAL = re.compile(r"local(\[(\d+|\*)(,\s*\d+)?\])?")
_STANDALONE = re.compile(r"spark://([^/@?#]+)")
_HOST_AND_PORT = re.compile(r"(\[[0-9a-fA-F:]+\]|[^:\[\]\s]+):(\d{1,5})")
_UNCHECKED = re.compile(r"yarn|(k8s|mesos)://\S+")
_FORMS = "expected local[*], local[4], spark://HOST:7077, yarn or k8s://…"


def check_spark_master(url: str, *, seconds: float = 5) -> None:
    """Knocks at the masters of a standalone cluster; at least one must take the connection.

    Args:
        url: of Spark's forms. What runs here, and what YARN or Kubernetes start, is not asked.
        seconds: how long to wait for each.

    Raises:
        UsageError: it is none of Spark's forms.
        CandlebeamError: nobody answers.
    """
    if _LOCAL.fullmatch(url) or _UNCHECKED.fullmatch(url):
        return
    standalone = _STANDALONE.fullmatch(url)
    if not standalone:
        raise UsageError(f"{url!r} is no Spark master: {_FORMS}")
    reasons = []
    for place in standalone[1].split(","):
        reason = _no_answer(url, place, seconds)
        if not reason:
            return
        reasons.append(f"{place}: {reason}")
    raise CandlebeamError(
        f"no Spark master answers at {url} ({'; '.join(reasons)}): is the cluster started, "
        "is the port that of the master (7077), not of its web page?"
    )


def _no_answer(url: str, place: str, seconds: float) -> str:
    """Why there is no connection to a place; "" if there is one."""
    found = _HOST_AND_PORT.fullmatch(place)
    if not found or int(found[2]) > 65535:
        raise UsageError(f"{url!r} is no Spark master, for {place!r} is no HOST:PORT: {_FORMS}")
    try:
        socket.create_connection((found[1].strip("[]"), int(found[2])), seconds).close()
    except OSError as error:
        return why_not(error, seconds)
    return ""
