"""An unbounded source: trades as Databento's live gateway sends them."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import coders, pvalue
from apache_beam.transforms import userstate
from apache_beam.transforms.window import TimestampedValue

from candlebeam.errors import CandlebeamError
from candlebeam.feeds.clock import Clock
from candlebeam.feeds.databento_live import (
    DatabentoFeed,
    DatabentoSubscription,
    FeedOptions,
    FeedPosition,
)
from candlebeam.feeds.databento_pieces import LivePieces, LivePlace
from candlebeam.feeds.places import Piece
from candlebeam.feeds.stream_errors import StreamEndedError, told_errors
from candlebeam.io.follow_trade_logs import timestamp_of
from candlebeam.model import Market, TradeBatch
from candlebeam.settings import CandleSettings

_LOG = logging.getLogger("candlebeam")
_NS_PER_MS = 1_000_000


class DatabentoOptions(NamedTuple):
    """How to follow a subscription. Has no key in it.

    Attributes:
        subscription: what to.
        out: the output root, whose candles are gone on from.
        settings: what the candles are made of.
        lateness_ms: how long after the end of a candle its trades still count.
        clock: tells event time.
        key_name: the variable that has the key, in the environment of the workers.
        quiet_candles: whether the end of every candle is told, also of one without trades.
    """

    subscription: DatabentoSubscription
    out: str
    settings: CandleSettings
    lateness_ms: int
    clock: Clock = Clock()
    key_name: str = "DATABENTO_API_KEY"
    quiet_candles: bool = False

    @property
    def readers(self) -> int:
        """How many read at the same time: one, for it is one session."""
        return 1


class FollowDatabento(beam.PTransform):
    """Hands out what the gateway has sent, whenever it is told to.

    In: a PCollection of (`str`, any), with one key, again and again. Out: a PCollection of
    (`feeds.places.Piece`, `TradeBatch`), timestamped with the market's watermark. The pieces
    of a market come in the order in which `transforms.live.CloseCandles` needs them.

    The session stays open from one element to the next. How far it has come is state, and so in the
    runner's checkpoints: a worker that takes over has the gateway replay what came since.

    A gateway that is gone is waited for. One that refuses the key or the subscription ends the
    stream: `stream_errors.StreamEndedError`.
    """

    def __init__(self, options: DatabentoOptions) -> None:
        super().__init__()
        self._options = options

    def expand(self, ticks: pvalue.PCollection) -> pvalue.PCollection:
        return ticks | "Follow" >> beam.ParDo(_Follow(self._options)).with_output_types(
            tuple[Piece, TradeBatch]
        )


class _Known(NamedTuple):
    """What has been handed out.

    Attributes:
        position: of the feed.
        begun_ns: from when on it has handed out all trades.
        places: of the markets.
    """

    position: FeedPosition
    begun_ns: int
    places: dict[Market, LivePlace]


class _Follow(beam.DoFn):
    KNOWN = userstate.ReadModifyWriteStateSpec("known", coders.PickleCoder())

    def __init__(self, options: DatabentoOptions) -> None:
        super().__init__()
        self._options = options

    def setup(self) -> None:
        options = self._options
        self._pieces = LivePieces(
            options.subscription,
            options.out,
            options.settings,
            lateness_ms=options.lateness_ms,
            say=_LOG.warning,
            quiet_candles=options.quiet_candles,
        )
        _FEEDS.use(options)

    def teardown(self) -> None:
        _FEEDS.leave(self._options)

    def process(
        self, element: tuple[str, Any], state: Any = beam.DoFn.StateParam(KNOWN)
    ) -> Iterator[TimestampedValue]:
        before: _Known | None = state.read()
        with told_errors(f"{self._options.subscription.dataset} is not followed"):
            after, pieces = self._poll(before)
        for piece, trades in pieces:
            yield TimestampedValue((piece, trades), timestamp_of(piece.watermark))
        if after != before:
            state.write(after)

    def _poll(self, before: _Known | None) -> tuple[_Known, list[tuple[Piece, TradeBatch]]]:
        if before is None:
            begun_ns = self._now_ns()
            # A moment, not whenever the session begins: a checkpoint may be older than that.
            start = self._pieces.begin(begun_ns) or FeedPosition.at(begun_ns)
            if start.from_ms is not None:
                begun_ns = start.from_ms * _NS_PER_MS
            feed = _FEEDS.begun(self._options, start)
        else:
            begun_ns = before.begun_ns
            feed = _FEEDS.at(self._options, before.position)
        try:
            batches = feed.poll(0)
            position = feed.position
        except CandlebeamError as error:
            _FEEDS.close(self._options)
            raise StreamEndedError(str(error)) from None
        places = {} if before is None else dict(before.places)
        pieces = list(self._pieces.take(batches, feed.watermark_ns, places, begun_ns, feed.gaps))
        return _Known(position, begun_ns, places), pieces

    def _now_ns(self) -> int:
        return self._options.clock.now() * _NS_PER_MS


class _Feeds:
    """The feeds of this process: a worker may have several instances of the DoFn for one of them,
    and a bundle that is tried again may come to another one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: Counter[DatabentoOptions] = Counter()
        self._feeds: dict[DatabentoOptions, DatabentoFeed] = {}

    def use(self, options: DatabentoOptions) -> None:
        """Somebody begins to use a feed."""
        with self._lock:
            self._users[options] += 1

    def leave(self, options: DatabentoOptions) -> None:
        """Somebody does not use it any more; the last one closes it."""
        with self._lock:
            self._users[options] -= 1
            is_last = self._users[options] <= 0
        if is_last:
            self.close(options)

    def close(self, options: DatabentoOptions) -> None:
        """Closes a feed, if it is open."""
        with self._lock:
            feed = self._feeds.pop(options, None)
        if feed is not None:
            feed.close()

    def at(self, options: DatabentoOptions, position: FeedPosition) -> DatabentoFeed:
        """The feed, if it stands at a position; else another one that does."""
        feed = self._feeds.get(options)
        if feed is not None and _stands_at(feed, position):
            return feed
        return self.begun(options, position)

    def begun(self, options: DatabentoOptions, start: FeedPosition) -> DatabentoFeed:
        """A feed that is begun anew."""
        self.close(options)
        feed = self._opened(options, start)
        with self._lock:
            self._feeds[options] = feed
        return feed

    @staticmethod
    def _opened(options: DatabentoOptions, start: FeedPosition) -> DatabentoFeed:
        key = os.environ.get(options.key_name, "").strip()
        if not key:
            raise StreamEndedError(
                f"no key: set {options.key_name} in the environment of the workers"
            )
        clock = options.clock
        feed = DatabentoFeed(
            options.subscription,
            key,
            start,
            _LOG.warning,
            FeedOptions(now_ns=lambda: clock.now() * _NS_PER_MS),
        )
        feed.__enter__()
        return feed


def _stands_at(feed: DatabentoFeed, position: FeedPosition) -> bool:
    try:
        return feed.position == position
    except CandlebeamError:
        return False


_FEEDS = _Feeds()
