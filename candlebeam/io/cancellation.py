"""Asking the work of one run in this process to stop.

Workers on other machines never see it; there the runner stops them.
"""

from __future__ import annotations

_cancelled: set[str] = set()


def cancel(run: str) -> None:
    """Asks; readers raise `errors.Cancelled` at their next window, and no market is begun any more.

    Args:
        run: the run's name, as its `FlowOptions` have it.
    """
    _cancelled.add(run)


def is_cancelled(run: str) -> bool:
    """Whether it was asked."""
    return run in _cancelled
