"""Asking the work of runs in this process to stop.

Workers on other machines never see it; there the runner stops them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_running: set[str] = set()
_cancelled: set[str] = set()


@contextmanager
def cancellable(run: str) -> Iterator[None]:
    """While it is open, `cancel_all` means this run too. An error that leaves it cancels it."""
    _running.add(run)
    try:
        yield
    except BaseException:
        cancel(run)
        raise
    finally:
        _running.discard(run)


def cancel(run: str) -> None:
    """Asks; readers raise `errors.Cancelled` at their next window, and no market is begun any more.

    Args:
        run: the run's name, as its `FlowOptions` have it.
    """
    _cancelled.add(run)


def cancel_all() -> None:
    """Asks every run that is going on. Can be called from a signal handler."""
    _cancelled.update(_running)


def is_cancelled(run: str) -> bool:
    """Whether it was asked."""
    return run in _cancelled


def stop_if_cancelled(run: str) -> None:
    """Raises KeyboardInterrupt if it was asked; for loops that wait for something else.

    The exception of a Ctrl-C gets lost where Python runs code whose errors it drops: when a
    connection that is let go of is closed, say.
    """
    if is_cancelled(run):
        raise KeyboardInterrupt
