"""A stream without Beam: the follower, the open candles and the commit, one after the other."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

from candlebeam.errors import CandlebeamError
from candlebeam.feeds.archive import GrowingArchive
from candlebeam.feeds.clock import Clock
from candlebeam.feeds.places import MarketPlace
from candlebeam.feeds.trade_logs import LogFollower
from candlebeam.io.live_commit import LiveCommit
from candlebeam.model import Market
from candlebeam.rules.candles import aggregate
from candlebeam.rules.corrections import correct_trades
from candlebeam.rules.open_candles import MarketUpdate, OpenCandles
from candlebeam.settings import CandleSettings


class SetClock(Clock):
    """A clock that is put forward by hand; idle time passes at once."""

    time_ms = 0

    def now(self) -> int:
        return self.time_ms


class Stream:
    """What `candlebeam stream` does, step by step, in one thread.

    Args:
        root, out: the archive and the output.
        lateness_ms, idle_ms, settings, quiet_candles: as those of a stream.

    Attributes:
        clock: event time; `time_ms` is what it says.
        said: lines for the user.
        given_up: markets that are not written any more, and why.
    """

    def __init__(
        self,
        root: Path,
        out: Path,
        *,
        lateness_ms: int = 600_000,
        idle_ms: int = 0,
        settings: CandleSettings | None = None,
        quiet_candles: bool = False,
    ) -> None:
        self.said: list[str] = []
        self.given_up: dict[Market, str] = {}
        self.places: dict[Market, MarketPlace] = {}
        self.open: dict[Market, OpenCandles] = {}
        self._settings = settings or CandleSettings()
        self._lateness_ms, self._idle_ms = lateness_ms, idle_ms
        self._root, self._out = root, out
        self._quiet_candles = quiet_candles
        self.clock = SetClock(speed=1e12)
        self.start()

    def start(self) -> None:
        """Has everything but the checkpoint made anew, as in a worker that was just started."""
        self._follower = LogFollower(
            GrowingArchive((str(self._root),), 0.0, self.said.append),
            str(self._out),
            self._settings,
            lateness_ms=self._lateness_ms,
            clock=self.clock,
            idle_ms=self._idle_ms,
            is_ours=lambda market: True,
            say=self.said.append,
            quiet_candles=self._quiet_candles,
        )
        self._follower._archive._next = 0.0
        self._commit = LiveCommit(str(self._out), self._settings, quiet_candles=self._quiet_candles)

    def checkpoint(self) -> bytes:
        return pickle.dumps((self.places, self.open))

    def restore(self, checkpoint: bytes) -> None:
        self.places, self.open = pickle.loads(checkpoint)  # noqa: S301  it has just been made
        self.start()

    def poll(self, fault: Callable[[], None] = lambda: None) -> int:
        """Takes what is there; how many pieces that was."""
        count = 0
        self._follower._archive._next = 0.0
        for market, piece, trades in self._follower.poll(self.places, 20):
            count += 1
            trades = correct_trades(trades, self._settings.corrections)
            block = aggregate(trades, self._settings.timeframe)
            candles = self.open.get(market)
            if candles is None:
                candles = self.open[market] = OpenCandles(
                    market,
                    self._settings.timeframe,
                    self._lateness_ms,
                    self._settings.price_scale,
                    quiet=self._quiet_candles,
                )
            candles.add(MarketUpdate(block, piece.mark, piece.watermark, piece.late, piece.base))
            update = candles.close()
            if update is not None:
                fault()
                try:
                    self._commit(update)
                except CandlebeamError as error:
                    self.given_up.setdefault(market, str(error))
        return count
