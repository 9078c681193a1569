"""Telling the user that trades come too late, without a line for each of them."""

from __future__ import annotations

import time
from collections.abc import Callable

from candlebeam.formats.candles.companion import CandlePaths
from candlebeam.model import Market

#: A market is told of once in so many seconds.
_TELL_SECONDS = 600.0


class LateLines:
    """Counts trades that come too late, and tells of them once in a while, market by market.

    Args:
        out: the output root.
        say: called with a line for the user.
        cure: how to have them after all; "" if there is no way.
    """

    def __init__(self, out: str, say: Callable[[str], None], cure: str = "") -> None:
        self._out, self._say, self._cure = out, say, cure
        self._told: dict[Market, tuple[float, int]] = {}

    def count(self, market: Market, number: int) -> None:
        """Takes note of so many more."""
        now = time.monotonic()
        told_at, waiting = self._told.get(market, (-_TELL_SECONDS, 0))
        number += waiting
        if now - told_at < _TELL_SECONDS:
            self._told[market] = told_at, number
            return
        self._told[market] = now, 0
        trades = "1 trade" if number == 1 else f"{number} trades"
        cure = f": {self._cure}" if self._cure else ""
        late = CandlePaths.of(self._out, market).late
        self._say(f"{market}: {trades} came too late, see {late}{cure}")
