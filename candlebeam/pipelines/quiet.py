"""Libraries that have opinions to tell."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from candlebeam.errors import CandlebeamError
from candlebeam.feeds.stream_errors import is_ending

_forgets = False


@contextmanager
def without_warnings() -> Iterator[None]:
    """Keeps what is logged below an error to itself: Beam's import warns of clients nobody uses."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)


def forget_lost_runners() -> None:
    """From now on, threads of Beam's workers in this process end silently when their runner does.

    Who waits for the job tells what that comes to.
    """
    import grpc

    global _forgets
    if _forgets:
        return
    _forgets = True
    logging.getLogger("apache_beam.runners.worker").setLevel(logging.CRITICAL)
    _print_no_known_traces()
    before = threading.excepthook

    def hook(ended: threading.ExceptHookArgs) -> None:
        if not (isinstance(ended.exc_value, grpc.RpcError) or is_ending()):
            before(ended)

    threading.excepthook = hook


def _print_no_known_traces() -> None:
    """Beam's workers print the traceback of whatever fails in them.

    What is told in a line is left out, what fails because a stream is being ended, and what was
    printed before: some runners try again without end.
    """
    from apache_beam.runners.worker import sdk_worker

    printed: set[str] = set()

    def shown(*words: Any, **options: Any) -> None:
        error = sys.exc_info()[1]
        if not (is_ending() or _is_known(error) or repr(error) in printed):
            printed.add(repr(error))
            print(*words, **options)

    vars(sdk_worker)["print"] = shown


def _is_known(error: BaseException | None) -> bool:
    """Whether an error is one that is told in a line; Beam may have made another of it."""
    while error is not None:
        if isinstance(error, (CandlebeamError, OSError)):
            return True
        error = error.__cause__ or error.__context__
    return False
