"""What a submitted job is known by to those who come later: who watches, cancels or takes over."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, TypeAlias

from candlebeam.errors import FormatError

#: `bytes` has another meaning among the fields.
_Data: TypeAlias = bytes

_EXPECTED = "the record of a submitted job"


@dataclass(frozen=True)
class JobRecord:
    """A job that was submitted.

    Attributes:
        run: the run's own id.
        runner: "FlinkRunner" or "SparkRunner".
        master: its address, as it was given.
        job_name: by which the master lists it.
        job_id: the master's own id; "" where it was not told.
        host: the machine that submitted it.
        pid: the process that did.
        started: when, ISO 8601 in UTC.
        shards: how many there are to make.
        bytes: of all input files.
        markets: how many there are.
        version: of Candlebeam.
    """

    run: str
    runner: str
    master: str
    job_name: str
    job_id: str
    host: str
    pid: int
    started: str
    shards: int
    bytes: int
    markets: int
    version: str

    def encode(self) -> _Data:
        """One JSON object on one line."""
        return json.dumps(asdict(self), sort_keys=True).encode() + b"\n"

    @classmethod
    def decode(cls, data: _Data, path: str = "job record") -> JobRecord:
        """The record in bytes that `encode` made; fields that a later version adds are left out.

        Args:
            path: where they are from, for the message.

        Raises:
            FormatError: they are none.
        """
        try:
            values = json.loads(data)
        except (ValueError, RecursionError):
            raise FormatError(path, _EXPECTED, "no JSON") from None
        if not isinstance(values, dict):
            raise FormatError(path, _EXPECTED, "JSON that is no object")
        return cls(**{field.name: _checked(path, field.name, values) for field in fields(cls)})


_NUMBERS = {"pid", "shards", "bytes", "markets"}


def _checked(path: str, name: str, values: dict[str, Any]) -> Any:
    if name not in values:
        raise FormatError(path, _EXPECTED, f"no {name}")
    value = values[name]
    if name in _NUMBERS:
        good = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        wanted = "a number of 0 or more"
    else:
        good = isinstance(value, str)
        wanted = "text"
    if name == "started" and good:
        good, wanted = _is_utc(value), "a time in UTC"
    if not good:
        raise FormatError(path, f"{wanted} as {name}", repr(value)[:80])
    return value


def _is_utc(text: str) -> bool:
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return False
    offset = moment.utcoffset()
    return offset is not None and not offset
