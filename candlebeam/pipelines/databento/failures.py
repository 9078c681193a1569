"""Requests that fail: why, whether another attempt may help, and when to make it."""

from __future__ import annotations

import email.utils
import math
import random
import time
from dataclasses import dataclass
from typing import Any

import requests
from databento.common.error import BentoHttpError

from candlebeam.errors import CandlebeamError, FormatError

#: The longest that a server may make us wait, in seconds.
LONGEST_WAIT = 900.0
#: No wait between attempts grows longer than this by itself, in seconds.
_LONGEST_BACKOFF = 60.0
_TOO_MANY, _TIMED_OUT, _UNAUTHORIZED, _PAYMENT = 429, 408, 401, 402
_LONGEST_MESSAGE = 500


class ApiError(CandlebeamError):
    """The API refused, or could not be reached.

    Attributes:
        status: of HTTP; None where no answer came.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.status)

    @property
    def hits_everything(self) -> bool:
        """Whether other requests will not fare better: a wrong key, or an unpaid bill."""
        return self.status in (_UNAUTHORIZED, _PAYMENT)


class NotWhole(CandlebeamError):
    """What was downloaded is not all of it; another attempt may be."""


@dataclass(frozen=True)
class Patience:
    """How long to try.

    Attributes:
        retries: how many more attempts follow a first that failed in a way that may pass.
        wait: seconds before the first of them; doubled before each one more, and scattered by up
            to a half, so that many clients do not come back at the same moment.
        timeout: seconds to wait for a connection, and for each next part of an answer.
    """

    retries: int = 5
    wait: float = 1.0
    timeout: float = 100.0

    def before(self, attempt: int) -> float:
        """Seconds to wait after an attempt failed; the first is 0."""
        doubled: float = self.wait * 2**attempt
        return min(doubled, _LONGEST_BACKOFF) * random.uniform(0.5, 1.5)


@dataclass(frozen=True)
class Failure:
    """Why a request failed.

    Attributes:
        message: in one line.
        status: of HTTP, if there was an answer.
        passing: whether the same request may be answered later.
        wait: for how many seconds the server asks.
    """

    message: str
    status: int | None = None
    passing: bool = True
    wait: float | None = None


def failure_of(error: Exception) -> Failure:
    """What an error of the library or of the network means."""
    if isinstance(error, BentoHttpError):
        status = int(error.http_status)
        passing = status >= 500 or status in (_TOO_MANY, _TIMED_OUT)
        message = f"{status} {one_line(error.message or error.http_body)}".rstrip()
        if status == _UNAUTHORIZED:
            message = f"the API does not accept the key: {message}"
        return Failure(message, status, passing, _retry_after(error.headers) if passing else None)
    if isinstance(error, requests.exceptions.Timeout):
        return Failure("no answer in time")
    if isinstance(error, requests.exceptions.SSLError):
        return Failure(f"no secure connection: {_reason(error)}", passing=False)
    if isinstance(error, requests.exceptions.JSONDecodeError):
        return Failure("an answer that is no JSON")
    if isinstance(error, requests.exceptions.ConnectionError):
        return Failure(f"no connection: {_reason(error)}")
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return Failure(f"the connection broke: {_reason(error)}")
    passing = not isinstance(error, ValueError) or isinstance(error, FormatError)
    return Failure(one_line(error), passing=passing)


def _reason(error: BaseException) -> str:
    """The innermost of the errors that led to one."""
    inner = error
    while (cause := inner.__cause__ or inner.__context__) is not None:
        inner = cause
    text = inner.strerror if isinstance(inner, OSError) else None
    return one_line(text or inner)


def _retry_after(headers: Any) -> float | None:
    """Seconds from a header that has them, or a date."""
    text = str(headers.get("Retry-After") or "")
    if not text:
        return None
    try:
        seconds = float(text)
        return None if math.isnan(seconds) else max(seconds, 0.0)
    except ValueError:
        pass
    try:
        return max(email.utils.parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except ValueError:
        return None


def one_line(text: object) -> str:
    """A text of any length and form as a part of a message."""
    return " ".join(str(text or "").split())[:_LONGEST_MESSAGE]
