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

#: Where Beam's workers speak with their runner.
_CHANNELS = ("apache_beam.runners.worker.data_plane", "apache_beam.runners.worker.sdk_worker")

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
        if not (is_ending() or is_told_otherwise(error) or repr(error) in printed):
            printed.add(repr(error))
            print(*words, **options)

    vars(sdk_worker)["print"] = shown


def is_told_otherwise(error: BaseException | None) -> bool:
    """Whether an error in a worker is one that the user gets to know of in a line.

    That is so for those of this package and of the system, whatever Beam has made of them; and for
    what a worker runs into when its runner is gone: errors of gRPC, and of what Beam lays over it.
    """
    import grpc

    while error is not None:
        if isinstance(error, (CandlebeamError, OSError, grpc.RpcError)):
            return True
        if _module_of(error) in _CHANNELS:
            return True
        error = error.__cause__ or error.__context__
    return False


def _module_of(error: BaseException) -> str:
    """The module that has raised an error."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else str(trace.tb_frame.f_globals.get("__name__", ""))
