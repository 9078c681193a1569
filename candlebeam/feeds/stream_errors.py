"""What goes wrong in a stream, told to the user: a runner would try again and say nothing."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from candlebeam.errors import CandlebeamError

_LOG = logging.getLogger("candlebeam")
#: The same line is told again after so many seconds.
_TELL_AGAIN_SECONDS = 600.0

_lock = threading.Lock()
_told: dict[str, float] = {}
_ended: str | None = None
_ending = False


class StreamEndedError(CandlebeamError):
    """It cannot go on, however often it is tried."""


@contextmanager
def told_errors(what: str) -> Iterator[None]:
    """Tells an error that leaves it in the log, once in a while, and lets it go on its way.

    Args:
        what: is being done, as a sentence begins: "the logs cannot be read".

    `StreamEndedError` is noted instead, for who waits for the stream in this process: see
    `why_ended`.
    """
    global _ended
    try:
        yield
    except StreamEndedError as error:
        _ended = str(error)
        raise
    except Exception as error:
        if not _ending and not _is_of_the_runner(error):
            reason = str(error) if isinstance(error, CandlebeamError) else _with_type(error)
            _tell_once(f"{what}: {reason}; it is tried again from the last checkpoint")
        raise


def why_ended() -> str | None:
    """Why a stream in this process cannot go on; None if none has said so."""
    return _ended


def begin_stream() -> None:
    """Forgets what was told of an earlier stream in this process."""
    global _ended, _ending
    with _lock:
        _ended, _ending = None, False
        _told.clear()


def end_stream() -> None:
    """From now on nothing is told: workers lose their runner, which is no error."""
    global _ending
    _ending = True


def is_ending() -> bool:
    """Whether the stream of this process is being ended."""
    return _ending


def _tell_once(line: str) -> None:
    now = time.monotonic()
    with _lock:
        if now - _told.get(line, -_TELL_AGAIN_SECONDS) < _TELL_AGAIN_SECONDS:
            return
        _told[line] = now
    _LOG.error("%s", line)


def _with_type(error: Exception) -> str:
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def _is_of_the_runner(error: Exception) -> bool:
    """Whether it only says that the runner has gone away, for a reason of its own."""
    return any(kind.__module__.partition(".")[0] == "grpc" for kind in type(error).__mro__)
