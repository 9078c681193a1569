"""Libraries that have opinions to tell."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

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
    before = threading.excepthook

    def hook(ended: threading.ExceptHookArgs) -> None:
        if not isinstance(ended.exc_value, grpc.RpcError):
            before(ended)

    threading.excepthook = hook
