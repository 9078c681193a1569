"""Asking for several things at the same time, of storages where each answer is waited for."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

#: Requests that wait for an answer at the same time.
AT_ONCE = 32


def asked_ahead(
    ask: Callable[[T], R],
    items: Iterable[T],
    *,
    at_once: int = AT_ONCE,
    size: Callable[[T], int] | None = None,
    most: int = 0,
    drop: Callable[[R], None] | None = None,
) -> Generator[R, None, None]:
    """Gives `ask(item)` for each item, in order, while the next ones are asked for in threads.

    Args:
        ask: may be called by several threads; what it raises is raised in its turn.
        at_once: how many are asked for, or held, at the same time.
        size: of what an item gives, in bytes.
        most: bytes that are asked for, or held, at the same time; one item may be larger.
        drop: called with what was asked for and is not wanted any more.
    """
    waiting: deque[tuple[Future[R], int]] = deque()
    held = 0
    with ThreadPoolExecutor(at_once, "ahead") as pool:
        try:
            for item in items:
                bytes_of = size(item) if size is not None else 0
                while waiting and (len(waiting) == at_once or held + bytes_of > most > 0):
                    future, less = waiting.popleft()
                    held -= less
                    yield future.result()
                waiting.append((pool.submit(ask, item), bytes_of))
                held += bytes_of
            while waiting:
                yield waiting.popleft()[0].result()
        finally:
            for future, _ in waiting:
                if not future.cancel() and drop is not None:
                    with contextlib.suppress(Exception):
                        drop(future.result())
