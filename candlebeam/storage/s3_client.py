"""Requests to S3: with whose keys, how often they are tried, and what their errors mean.

Beam's own files of S3 are not used: they ask four times to write an object and three times to read
one, wait for ten minutes where nobody answers, cannot write an empty object, and would put two
versions of an object together where it is replaced while it is read.
"""

from __future__ import annotations

import errno
import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

#: How often a request is tried that the store, or the way to it, fails.
ATTEMPTS = 8
#: For how long it is tried where nobody has ever answered: a wrong address is to be told soon.
FIRST_SECONDS = 2.0
#: The pause before a second attempt, at most; before each later one it is twice as long.
PAUSE_SECONDS = 0.25
_CONNECT_SECONDS = 5
#: How long the store may be silent, and where it has large parts to put together.
_READ_SECONDS, _LONG_READ_SECONDS = 20, 300
#: More than there are threads that ask.
_CONNECTIONS = 64
_BUSY = {"SlowDown", "RequestTimeout", "RequestLimitExceeded", "Throttling", "ThrottlingException"}
_NOT_DONE_HERE = 501


class Place(NamedTuple):
    """A bucket, and a key in it."""

    bucket: str
    key: str

    @classmethod
    def of(cls, path: str) -> Place:
        """The place that `s3://bucket/key` names."""
        return cls(*path.removeprefix("s3://").partition("/")[::2])


class _Settings(NamedTuple):
    """What clients are made of; None leaves it to the environment and the files of AWS."""

    process: int
    endpoint: str | None = None
    region: str | None = None
    key_id: str | None = None
    secret: str | None = None
    token: str | None = None
    use_ssl: bool = True
    verify: str | bool | None = None
    api_version: str | None = None


_clients: dict[tuple[_Settings, bool], Any] = {}
_answered: set[_Settings] = set()
_making = threading.Lock()


def ask(path: str, request: str, **arguments: Any) -> Any:
    """What a request gives; it is made again where that may help, and where it does no harm.

    Args:
        path: what it is about, for messages.
        request: a method of boto3's client.
        arguments: its own.

    Raises:
        OSError: with the path, and one line; `FileNotFoundError` where an object is not there.
    """
    with errors_of(path):
        settings = _settings()
        make = getattr(_client(settings, patient=False), request)
        attempt, begun = 1, time.monotonic()
        while True:
            try:
                answer = make(**arguments)
                break
            except Exception as error:
                if _said(error)[0]:
                    _answered.add(settings)
                if attempt == ATTEMPTS or not may_pass(error):
                    raise
                if settings not in _answered and time.monotonic() - begun > FIRST_SECONDS:
                    raise
            pause(attempt)
            attempt += 1
        _answered.add(settings)
        return answer


def transfer(path: str, request: str, *arguments: Any, **more: Any) -> None:
    """As `ask`, for what consists of many requests, each of which is made again by itself."""
    with errors_of(path):
        getattr(_client(_settings(), patient=True), request)(*arguments, **more)


def pause(attempt: int) -> None:
    """Waits before another attempt."""
    time.sleep(PAUSE_SECONDS * 2 ** (attempt - 1) * random.uniform(0.5, 1))


def may_pass(error: BaseException) -> bool:
    """Whether another attempt may help."""
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        status, code, _ = _said(error)
        return status == 429 or (status >= 500 and status != _NOT_DONE_HERE) or code in _BUSY
    if isinstance(error, exceptions.SSLError):
        return False
    return isinstance(
        error,
        exceptions.ConnectionError | exceptions.HTTPClientError | exceptions.IncompleteReadError,
    )


@contextmanager
def errors_of(path: str) -> Iterator[None]:
    """Has what goes wrong inside raised as an `OSError`."""
    try:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise OSError(errno.EIO, "s3:// wants boto3: install candlebeam[s3]", path) from None
    try:
        yield
    except (Boto3Error, BotoCoreError, ClientError, ValueError) as error:
        raise _as_os_error(path, error) from error


def _as_os_error(path: str, error: Exception) -> OSError:
    status, code, message = _said(error)
    # The answer to a HEAD has no body that could say more.
    is_look = getattr(error, "operation_name", "") == "HeadObject"
    if code == "NoSuchKey" or (is_look and status == 404):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    reason = " ".join(message.split()) or type(error).__name__
    if code == "PreconditionFailed":
        return OSError(errno.EIO, "it was replaced while it was read", path)
    if code:
        reason = f"{code}: {reason}"
    if status in (401, 403):
        return PermissionError(errno.EACCES, reason, path)
    return OSError(errno.EIO, reason, path)


def _said(error: BaseException) -> tuple[int, str, str]:
    """The status, the code and the message of an answer that is an error."""
    answer = getattr(error, "response", None) or {}
    said = answer.get("Error", {})
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return status, str(said.get("Code", "")), str(said.get("Message") or error)


def _client(settings: _Settings, *, patient: bool) -> Any:
    """The client of this process with these settings; it serves all threads.

    Args:
        patient: whether it makes requests again by itself.
    """
    with _making:
        found = _clients.get((settings, patient))
        if found is None:
            found = _clients[settings, patient] = _new_client(settings, patient)
        return found


def _new_client(settings: _Settings, patient: bool) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.session.Session().client(
        "s3",
        region_name=settings.region,
        api_version=settings.api_version,
        use_ssl=settings.use_ssl,
        verify=settings.verify,
        endpoint_url=settings.endpoint,
        aws_access_key_id=settings.key_id,
        aws_secret_access_key=settings.secret,
        aws_session_token=settings.token,
        config=Config(
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_LONG_READ_SECONDS if patient else _READ_SECONDS,
            max_pool_connections=_CONNECTIONS,
            retries={"total_max_attempts": ATTEMPTS if patient else 1, "mode": "standard"},
        ),
    )


def _settings() -> _Settings:
    """Beam's options, where they are known, as `storage.remote` finds them."""
    process = os.getpid()
    # Without Beam there are none; it is not imported to learn that.
    beam = sys.modules.get("apache_beam.io.filesystems")
    options = getattr(beam.FileSystems, "_pipeline_options", None) if beam is not None else None
    if options is None:
        return _Settings(process)
    from apache_beam.options.pipeline_options import S3Options

    given = options.view_as(S3Options)
    verify = given.s3_verify
    return _Settings(
        process,
        endpoint=given.s3_endpoint_url,
        region=given.s3_region_name,
        key_id=given.s3_access_key_id,
        secret=given.s3_secret_access_key,
        token=given.s3_session_token,
        use_ssl=not given.s3_disable_ssl,
        verify={"true": True, "false": False}.get(str(verify).lower(), verify),
        api_version=given.s3_api_version,
    )
