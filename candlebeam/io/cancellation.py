"""Asking the work in this process to stop.

Workers on other machines never see it; there the runner stops them.
"""

from __future__ import annotations

import threading

_asked = threading.Event()


def cancel() -> None:
    """Asks; readers raise `errors.Cancelled` at their next window."""
    _asked.set()


def cancelled() -> bool:
    """Whether it was asked."""
    return _asked.is_set()
