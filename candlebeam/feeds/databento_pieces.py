"""From what Databento's live gateway sends to pieces of a stream, market by market."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from urllib.parse import unquote

from candlebeam.errors import CandlebeamError
from candlebeam.feeds.databento_position import DatabentoSubscription, FeedBatch, FeedPosition, Gap
from candlebeam.feeds.going_on import (
    base_of,
    checked_state,
    chosen_trades,
    no_trades,
)
from candlebeam.feeds.late_lines import LateLines
from candlebeam.feeds.places import DISORDER_MS, Piece
from candlebeam.formats.candles.companion import (
    SESSION_NAME,
    SESSION_ROOT,
    CandlePaths,
    Companion,
    read_companion,
)
from candlebeam.formats.candles.stored import last_candle
from candlebeam.formats.dbn.metadata import COLLECTOR
from candlebeam.model import Market, TradeBatch
from candlebeam.rules.contracts import ALL_SYMBOLS, CONTINUOUS, RAW_SYMBOL
from candlebeam.rules.months import NS_PER_DAY, time_text
from candlebeam.rules.open_candles import Base, InputMark, LateTrade
from candlebeam.settings import CandleSettings
from candlebeam.storage import storage_of

_NS_PER_MS = 1_000_000
#: How far back it can be begun: a little less than the gateway replays, ms.
_REACH_MS = NS_PER_DAY // _NS_PER_MS - 60_000
#: How much earlier than the last candle it is begun, ms.
_BEFORE_MS = 600_000


@dataclass(frozen=True)
class LivePlace:
    """How far a market has come.

    Attributes:
        told: the watermark that was told last, ms.
        last_ts: the latest time of its trades, ms.
        from_ts: trades before it are in the candles that the stream goes on from, ms.
        last_ns: the latest time of its trades that were handed out, ns.
        refused: why it is not followed; "" if it is.
    """

    told: int = 0
    last_ts: int = 0
    from_ts: int = 0
    last_ns: int = 0
    refused: str = ""


class LivePieces:
    """Makes pieces of what a feed hands out.

    Args:
        subscription: what to.
        out: the output root, whose candles are gone on from.
        settings: what the candles are made of.
        lateness_ms: how long after the end of a candle its trades still count.
        say: called with a line for the user.
        quiet_candles: whether the end of every candle is told, also of one without trades.

    The watermark of every market is the feed's, less some disorder. A market's candles are gone on
    from by replaying the last of them from its start; where the replay does not reach back so far,
    that candle stays as it is stored.
    """

    def __init__(
        self,
        subscription: DatabentoSubscription,
        out: str,
        settings: CandleSettings,
        *,
        lateness_ms: int,
        say: Callable[[str], None],
        quiet_candles: bool = False,
    ) -> None:
        self._quiet_candles = quiet_candles
        self._subscription, self._out, self._settings = subscription, out, settings
        self._lateness_ms, self._say = lateness_ms, say
        self._step = settings.timeframe.ms
        self._path = f"{subscription.dataset}/{subscription.schema}"
        self._late = LateLines(out, say)

    def begin(self, now_ns: int) -> FeedPosition | None:
        """From where a feed has to hand out trades that is to go on from the candles there are.

        That is some minutes before the last candle of the market that is behind most, but for those
        that ended longer ago than the gateway replays. The minutes are for trades of which nobody
        said who bought, which those before them tell, and for a market whose first candle was about
        to be written when the stream was lost. None means now: there are no candles.
        """
        starts = [each.end_ts - each.timeframe.ms for each in self._companions()]
        if not starts:
            return None
        now_ms = now_ns // _NS_PER_MS
        reach = now_ms - _REACH_MS
        begin = min((start for start in starts if start >= reach), default=reach)
        return FeedPosition.at(max(min(begin, now_ms) - _BEFORE_MS, reach) * _NS_PER_MS)

    def take(
        self,
        batches: Sequence[FeedBatch],
        watermark_ns: int | None,
        places: dict[Market, LivePlace],
        begun_ns: int,
        gaps: Sequence[Gap],
    ) -> Iterator[tuple[Piece, TradeBatch]]:
        """The pieces that something handed out comes to, and those by which candles close.

        Args:
            batches: at most one a market.
            watermark_ns: of the feed.
            places: how far each market has come; brought up to date.
            begun_ns: from when on the feed has handed out all trades.
            gaps: but for these.

        Raises:
            OSError: candles to go on from cannot be read.
        """
        watermark = 0 if watermark_ns is None else watermark_ns // _NS_PER_MS - DISORDER_MS
        for batch in batches:
            market = batch.market
            place, base = places.get(market), None
            if place is None:
                place, base = self._begin(batch, begun_ns, gaps)
            places[market] = place
            if place.refused:
                continue
            trades, late = self._in_time(batch.trades, place)
            is_told = bool(len(trades) or late or base is not None)
            place = replace(
                place,
                told=max(place.told, watermark) if is_told else place.told,
                last_ts=max(place.last_ts, batch.last_ts_ns // _NS_PER_MS),
                last_ns=max(place.last_ns, batch.last_ts_ns),
            )
            places[market] = place
            if late:
                self._late.count(market, len(late))
            if is_told:
                yield Piece(self._mark(place), place.told, late, base), trades
        for market, place in list(places.items()):
            end = watermark - watermark % self._step
            if not self._quiet_candles:
                end = min(end, place.last_ts - place.last_ts % self._step + self._step)
            if place.told < end and not place.refused:
                # A candle closes by it.
                places[market] = replace(place, told=watermark)
                yield Piece(self._mark(place), watermark), no_trades(market)

    def _mark(self, place: LivePlace) -> InputMark:
        # One input, that has neither beginning nor end: how far it is read is a time.
        return InputMark(
            0, self._path, SESSION_ROOT, SESSION_NAME, 0, place.last_ns, place.last_ts, 1
        )

    def _begin(
        self, batch: FeedBatch, begun_ns: int, gaps: Sequence[Gap]
    ) -> tuple[LivePlace, Base | None]:
        """Where to begin with a market: behind the candles that are there."""
        market = batch.market
        paths = CandlePaths.of(self._out, market)
        try:
            companion = read_companion(paths.companion)
            if companion is None:
                return LivePlace(), None
            state = checked_state(companion, paths, market, self._settings)
            companion = companion.traded
        except CandlebeamError as error:
            self._say(f"{market} is not followed: {error}")
            return LivePlace(refused=str(error)), None
        last_ts, end_ts = companion.end_ts - companion.timeframe.ms, companion.end_ts
        last_ns, end_ns = last_ts * _NS_PER_MS, end_ts * _NS_PER_MS
        missed = [gap for gap in gaps if gap.from_ns < end_ns and gap.to_ns > last_ns]
        if begun_ns <= last_ns and not missed:
            place = LivePlace(last_ts, last_ts, last_ts)
            return place, base_of(companion, paths, state, b"")
        if begun_ns > end_ns and not any(gap.from_ns <= end_ns for gap in missed):
            first_ns = int(batch.trades.ts.min()) * _NS_PER_MS
            command = self._subscription.fetch_command(end_ns, first_ns)
            self._say(
                f"{market}: trades from {time_text(end_ns)} to {time_text(first_ns)} may be"
                " missing: its candles end earlier than what is replayed; to download them:"
                f" {command}"
            )
        place = LivePlace(last_ts, last_ts, end_ts)
        return place, base_of(companion, paths, state, last_candle(companion, paths))

    def _in_time(
        self, trades: TradeBatch, place: LivePlace
    ) -> tuple[TradeBatch, tuple[LateTrade, ...]]:
        """The trades that count, and those that have come too late for that."""
        # The end of a candle plus the lateness is at most the watermark.
        settled = place.told - self._lateness_ms - self._step
        settled_ts = max(place.from_ts, settled - settled % self._step + self._step)
        if int(trades.ts.min()) >= settled_ts:
            return trades, ()
        kept = chosen_trades(trades, trades.ts >= settled_ts)
        gone = chosen_trades(trades, (trades.ts < settled_ts) & (trades.ts >= place.from_ts))
        columns = (gone.ts, gone.price, gone.size, gone.buy, gone.liquidation)
        return kept, tuple(
            LateTrade(ts, price, size, buy, liquidation, self._path)
            for ts, price, size, buy, liquidation in zip(
                *(column.tolist() for column in columns), strict=True
            )
        )

    def _companions(self) -> Iterator[Companion]:
        """Those of markets that the subscription may give trades of."""
        subscription = self._subscription
        if subscription.stype in (RAW_SYMBOL, CONTINUOUS) and ALL_SYMBOLS not in (
            subscription.requested
        ):
            symbols = list(subscription.requested)
        else:
            symbols = self._known_symbols()
        for symbol in symbols:
            paths = CandlePaths.of(self._out, Market(COLLECTOR, subscription.dataset, symbol))
            try:
                companion = read_companion(paths.companion)
            except CandlebeamError:
                continue  # told when the market's first trade comes
            if companion is not None and companion.state is not None:
                yield companion.traded

    def _known_symbols(self) -> list[str]:
        """Those of the dataset that have candles."""
        stem = CandlePaths.of(self._out, Market(COLLECTOR, self._subscription.dataset, "_")).stem
        folder = stem.rpartition("/")[0]
        names = storage_of(folder).names(folder)
        return sorted(
            unquote(name.removesuffix(".json"))
            for name in names
            if name.endswith(".json") and not name.startswith(".") and "/" not in name
        )
