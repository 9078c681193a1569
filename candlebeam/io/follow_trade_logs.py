"""An unbounded source: the trades that the logs of a growing archive are added to."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import coders, pvalue
from apache_beam.transforms import userstate
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp

from candlebeam.feeds.archive import GrowingArchive
from candlebeam.feeds.clock import Clock
from candlebeam.feeds.places import MarketPlace, Piece
from candlebeam.feeds.stream_errors import told_errors
from candlebeam.feeds.trade_logs import LogFollower
from candlebeam.model import Market, TradeBatch
from candlebeam.settings import CandleSettings

_LOG = logging.getLogger("candlebeam")
#: How long one call reads at most, s: a checkpoint waits for it.
_READ_SECONDS = 0.5

Places = dict[Market, MarketPlace]


class FollowOptions(NamedTuple):
    """How to follow an archive.

    Attributes:
        roots: the archive's folders.
        out: the output root, whose candles are gone on from.
        settings: what the candles are made of.
        lateness_ms: how long after the end of a candle its trades still count.
        readers: how many read at the same time, each some of the markets.
        walk_s: how often to look for new files.
        idle_ms: event time after which a market that gives nothing is quiet.
        clock: tells event time.
        collector, exchange, symbol: filters; None takes all.
        quiet_candles: whether the end of every candle is told, also of one without trades.
    """

    roots: tuple[str, ...]
    out: str
    settings: CandleSettings
    lateness_ms: int
    readers: int = 1
    walk_s: float = 1.0
    idle_ms: int = 5000
    clock: Clock = Clock()
    collector: str | None = None
    exchange: str | None = None
    symbol: str | None = None
    quiet_candles: bool = False

    def wants(self, market: Market) -> bool:
        """Whether the filters take a market."""
        return (
            (not self.collector or market.collector == self.collector.upper())
            and (not self.exchange or market.exchange == self.exchange.upper())
            and (not self.symbol or market.symbol == self.symbol)
        )


class FollowTradeLogs(beam.PTransform):
    """Reads what trade logs grow by, whenever it is told to.

    In: a PCollection of (`str`, any): the number of a reader ("0", "1", ...) as the key, again and
    again; each time it reads what is there. Out: a PCollection of (`feeds.places.Piece`,
    `TradeBatch`), timestamped with the market's watermark. The pieces of a market come in the order
    in which `transforms.live.CloseCandles` needs them.

    How far a reader has read each market is its state, and so in the runner's checkpoints. (A
    splittable DoFn that puts off the rest of its work would be the other way. Of every rest Flink
    keeps something for good: at five a second that came to 13 kB each, or 5 GB a day.)
    """

    def __init__(self, options: FollowOptions) -> None:
        super().__init__()
        self._options = options

    def expand(self, readers: pvalue.PCollection) -> pvalue.PCollection:
        return readers | "Follow" >> beam.ParDo(_Follow(self._options)).with_output_types(
            tuple[Piece, TradeBatch]
        )


class _Follow(beam.DoFn):
    PLACES = userstate.ReadModifyWriteStateSpec("places", coders.PickleCoder())

    def __init__(self, options: FollowOptions) -> None:
        super().__init__()
        self._options = options
        self._followers: dict[str, LogFollower] = {}
        # Where each has got to, as long as that is known.
        self._left: dict[str, Places] = {}

    def process(
        self, element: tuple[str, Any], state: Any = beam.DoFn.StateParam(PLACES)
    ) -> Iterator[TimestampedValue]:
        reader, _ = element
        places: Places = dict(state.read() or {})
        if self._left.pop(reader, None) != places:
            # The first time, or a checkpoint has brought back an earlier place.
            self._followers.pop(reader, None)
        before = dict(places)
        with told_errors("the logs cannot be read"):
            for _, piece, trades in self._follower(reader).poll(places, _READ_SECONDS):
                yield TimestampedValue((piece, trades), timestamp_of(piece.watermark))
        if places != before:
            state.write(places)
        self._left[reader] = places

    def _follower(self, reader: str) -> LogFollower:
        if reader not in self._followers:
            options = self._options
            self._followers[reader] = LogFollower(
                GrowingArchive(options.roots, options.walk_s, _LOG.warning),
                options.out,
                options.settings,
                lateness_ms=options.lateness_ms,
                clock=options.clock,
                idle_ms=options.idle_ms,
                is_ours=lambda market: (
                    options.wants(market) and _share(market, options.readers) == int(reader)
                ),
                say=_LOG.warning,
                quiet_candles=options.quiet_candles,
            )
        return self._followers[reader]


def _share(market: Market, readers: int) -> int:
    """Which reader a market belongs to."""
    return zlib.crc32(str(market).encode()) % readers


def timestamp_of(ms: int) -> Timestamp:
    """The time of what a market has given up to a watermark."""
    return Timestamp(micros=max(ms, 0) * 1000)
