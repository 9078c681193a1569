"""A second thread for what need not be waited for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec

P = ParamSpec("P")


class Background:
    """Makes calls in a thread of its own, one after the other.

    What a call raises is raised by a later `call`, or by `wait`.

    Args:
        most: how many calls may wait for their turn.
    """

    def __init__(self, most: int = 16) -> None:
        self._most = most
        self._thread = ThreadPoolExecutor(1)
        self._calls: deque[Future[Any]] = deque()

    def close(self) -> None:
        """Leaves out what has not begun; what has is waited for."""
        self._thread.shutdown(cancel_futures=True)

    def call(self, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Has a function called, in its turn."""
        while len(self._calls) >= self._most or (self._calls and self._calls[0].done()):
            self._calls.popleft().result()
        self._calls.append(self._thread.submit(function, *args, **kwargs))

    def wait(self) -> None:
        """Waits for all calls."""
        while self._calls:
            self._calls.popleft().result()
