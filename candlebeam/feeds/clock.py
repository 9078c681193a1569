"""What time it is for a stream: the real one, or one that goes faster, to replay what is past."""

from __future__ import annotations

import math
import time
from typing import NamedTuple


class Clock(NamedTuple):
    """Event time as a function of the machine's clock.

    Attributes:
        event_ms: event time (ms since 1970) at the moment `wall_s`.
        wall_s: seconds since 1970.
        speed: ms of event time in a millisecond.
        path: a file that tells event time instead (ms since 1970, as text), which whoever replays
            an archive keeps.

    >>> Clock(1_000_000, 50.0, 60.0).at(51.0)
    1060000
    """

    event_ms: int = 0
    wall_s: float = 0.0
    speed: float = 1.0
    path: str = ""

    def at(self, wall_s: float) -> int:
        """Event time at a moment, ms."""
        return self.event_ms + int((wall_s - self.wall_s) * 1000 * self.speed)

    def now(self) -> int:
        """Event time now, ms."""
        if self.path:
            with open(self.path, encoding="ascii") as file:
                return int(file.read())
        return self.at(time.time())

    def passed(self, seconds: float) -> float:
        """How much of event time may have passed in some seconds, ms."""
        return math.inf if self.path else seconds * 1000 * self.speed
