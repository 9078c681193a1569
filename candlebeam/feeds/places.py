"""How far the trade logs of a market have been read, and what goes with the trades of each read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from candlebeam.feeds.archive import LogFile
from candlebeam.rules.open_candles import Base, InputMark, LateTrade

#: Trades may come so much out of order without being late, ms.
DISORDER_MS = 250


@dataclass(frozen=True)
class LogPlace:
    """How far a trade log has been read.

    Attributes:
        log: which.
        covered: how many logs of its market there are up to it.
        name, size: the file that was read last, and its bytes then.
        used: bytes of the file that stand for what was read of it.
        text_bytes: bytes of its text up to the end of the last whole row that was read.
        check: what that text ends with.
        last_ts: the latest time of its trades, ms; 0 without any.
        is_whole: whether there is nothing more to come.
        is_sound: whether what was read last was neither damaged nor unreadable.
        is_told: whether a piece has told of it.
        seen: bytes of its text that the candles a stream goes on from were made of.
    """

    log: LogFile
    covered: int
    name: str = ""
    size: int = 0
    used: int = 0
    text_bytes: int = 0
    check: bytes = b""
    last_ts: int = 0
    is_whole: bool = False
    is_sound: bool = True
    is_told: bool = False
    seen: int = 0

    @property
    def is_read_again(self) -> bool:
        """Whether what it has given to the candles that are gone on from is not all read again."""
        return self.text_bytes < self.seen

    @property
    def reached_ts(self) -> int:
        """Up to where it has been read, ms."""
        return self.last_ts or self.log.start_ts

    def mark(self) -> InputMark:
        """What `rules.open_candles` has to know of it."""
        log = self.log
        return InputMark(
            log.start_ts,
            log.path,
            log.root,
            self.name,
            self.used,
            self.text_bytes,
            self.last_ts,
            self.covered,
        )


@dataclass(frozen=True)
class MarketPlace:
    """How far the logs of a market have been read.

    Attributes:
        logs: the latest, in file order, without any left out in between.
        from_ts: trades before it are in the candles that the stream goes on from, ms.
        watermark: up to where the market is complete, ms.
        told: the watermark that was told last.
        last_ts: the latest time of its trades, ms.
    """

    logs: tuple[LogPlace, ...] = ()
    from_ts: int = 0
    watermark: int = 0
    told: int = 0
    last_ts: int = 0

    def with_log(self, place: LogPlace) -> MarketPlace:
        """With another place of one of its logs."""
        return replace(
            self, logs=tuple(place if each.log == place.log else each for each in self.logs)
        )


class Piece(NamedTuple):
    """What goes with a batch of trades that was read: see `rules.open_candles.MarketUpdate`."""

    mark: InputMark
    watermark: int
    late: tuple[LateTrade, ...] = ()
    base: Base | None = None
