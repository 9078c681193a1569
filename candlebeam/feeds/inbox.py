"""What a session has received and nobody has taken yet: bounded, between two threads."""

from __future__ import annotations

import threading
from typing import NamedTuple

#: What an item is.
BEGIN, HEAD, TRADES, MAPPING, SYSTEM = range(5)


class Item(NamedTuple):
    """A part of what was received: one record, or records of trades one after the other."""

    kind: int
    data: bytes | bytearray


class Inbox:
    """Items in the order in which they came.

    Args:
        most_bytes: from so many on, `put` waits until some are taken.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._changed = threading.Condition()
        self._items: list[Item] = []
        self._bytes = 0
        self._taken = False
        self._closed = False
        self._ended = False
        self._waiting = False

    @property
    def full(self) -> bool:
        """Whether `put` is waiting for items to be taken."""
        return self._waiting

    def put(self, kind: int, data: bytes) -> None:
        """Adds an item, as soon as there is room; once closed, it is dropped."""
        with self._changed:
            if self._bytes >= self._most:
                self._waiting = True
                self._changed.wait_for(lambda: self._bytes < self._most or self._closed)
                self._waiting = False
            if self._closed:
                return
            last = self._items[-1] if self._items else None
            if kind == TRADES and last is not None and last.kind == TRADES:
                assert isinstance(last.data, bytearray)
                last.data.extend(data)
            else:
                self._items.append(Item(kind, bytearray(data) if kind == TRADES else data))
            self._bytes += len(data)
            self._changed.notify_all()

    def take(self, timeout_s: float) -> list[Item]:
        """All items, once there are any or the time is over; `done` is to be called then."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._items or self._closed or self._ended, max(timeout_s, 0)
            )
            items, self._items, self._bytes = self._items, [], 0
            self._taken = True
            self._changed.notify_all()
        return items

    def done(self) -> None:
        """What was taken has been worked through."""
        with self._changed:
            self._taken = False
            self._changed.notify_all()

    def wait_until_empty(self) -> bool:
        """Waits until all was taken and worked through; False if it was closed meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not (self._items or self._taken))
            return not self._closed

    def end(self) -> None:
        """Nothing more will be put: `take` does not wait any more."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def close(self) -> None:
        """Nothing is waited for any more, by anyone."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
