"""Following growing trade logs: what they have grown by, market by market, and how far they are."""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from enum import Enum
from itertools import islice
from typing import NamedTuple

from candlebeam.errors import CandlebeamError
from candlebeam.feeds.archive import GrowingArchive, LogFile
from candlebeam.feeds.clock import Clock
from candlebeam.feeds.going_on import base_of, checked_state, chosen_trades, no_trades
from candlebeam.feeds.late_lines import LateLines
from candlebeam.feeds.places import DISORDER_MS, LogPlace, MarketPlace, Piece
from candlebeam.formats.candles.companion import CandlePaths, read_companion
from candlebeam.formats.trade_log.growing import Growth, read_growth
from candlebeam.model import Market, TradeBatch
from candlebeam.rules.open_candles import Base, LateTrade
from candlebeam.settings import CandleSettings
from candlebeam.storage import storage_of

#: Bytes of text that are read of a log at once.
READ_BYTES = 2 << 20
#: The logs of so many starts are looked at for growth.
_WATCHED_STARTS = 3
_BRING_IN = "`candlebeam backfill --late rebuild` brings them in"


#: A piece of a market, with its trades.
_Found = tuple[Market, Piece, TradeBatch]


class _Version(NamedTuple):
    """What a log is at a moment: the name of its file, bytes and time of change (ns)."""

    name: str
    size: int
    mtime_ns: int


class _State(Enum):
    """What is to be done with a log."""

    READ = "it has grown, or has not been read"
    DONE = "it has been read"
    DAMAGED = "what can be had of it was read, until it is replaced"
    GONE = "nothing of it can be read for now"


class LogFollower:
    """Reads what the trade logs of an archive grow by.

    Args:
        archive: the logs there are.
        out: the output root, whose candles are gone on from.
        settings: what the candles are made of.
        lateness_ms: how long after the end of a candle its trades still count.
        clock: tells event time.
        idle_ms: event time after which a market that gives nothing is taken to be quiet.
        is_ours: which markets to follow.
        say: called with a line for the user.
        quiet_candles: whether the end of every candle is told, also of one without trades.

    A market's watermark is where its logs have been read to, or the clock's time less `idle_ms`
    where all of them are read and give nothing. It does not pass a log that is still to be read,
    nor the start of one that was not opened; and the clock does not count while the latest log
    cannot be read: what it holds would come too late.

    Trades within the lateness are never late. Those beyond it are, as a rule; but it depends on
    what was read before them, so one may count after a restore that had not counted before it.
    Rows are not found that come to a log when three later starts have been opened, and logs that
    come to stand before those that are looked at; the latter are told.
    """

    def __init__(
        self,
        archive: GrowingArchive,
        out: str,
        settings: CandleSettings,
        *,
        lateness_ms: int,
        clock: Clock,
        idle_ms: int,
        is_ours: Callable[[Market], bool],
        say: Callable[[str], None],
        quiet_candles: bool = False,
    ) -> None:
        self._quiet_candles = quiet_candles
        self._archive, self._out, self._settings = archive, out, settings
        self._lateness_ms, self._clock, self._idle_ms = lateness_ms, clock, idle_ms
        self._is_ours, self._say = is_ours, say
        self._step = settings.timeframe.ms
        self._said: dict[object, str] = {}
        self._grown_at: dict[Market, float] = {}
        self._ordered: dict[Market, list[LogFile]] = {}
        self._markets: list[Market] = []
        self._known_markets = 0
        self._first: Market | None = None
        self._late = LateLines(out, say, _BRING_IN)
        #: There was more to read than was read at once.
        self._cut: set[LogFile] = set()
        #: What logs were when they were found to be damaged.
        self._damaged: dict[LogFile, tuple[_Version | None, _State]] = {}
        #: What could not be read, in the poll that goes on.
        self._failed: set[LogFile] = set()

    def poll(self, places: dict[Market, MarketPlace], seconds: float) -> Iterator[_Found]:
        """Reads what is there, a piece of each market in turn, for some seconds at most.

        Args:
            places: how far each market has been read; brought up to date before each piece is
                given, with that piece and none that follows, and in the end.

        The pieces of a market come in the order in which its candles have to take them.
        """
        self._archive.refresh()
        self._failed.clear()
        deadline = time.monotonic() + seconds
        waiting = self._in_turn()
        while waiting:
            unread = []
            for market in waiting:
                if time.monotonic() > deadline:
                    self._first = market
                    return
                try:
                    more = yield from self._read(market, places)
                except (CandlebeamError, OSError) as error:
                    self._tell(market, f"{market} is not followed for now: {error}")
                    continue
                self._said.pop(market, None)
                if more:
                    unread.append(market)
            waiting = unread
        self._first = None

    def _in_turn(self) -> list[Market]:
        """The markets to follow, from the one on that the last poll did not come to."""
        if len(self._archive.markets) != self._known_markets:
            self._known_markets = len(self._archive.markets)
            self._markets = [each for each in sorted(self._archive.markets) if self._is_ours(each)]
        place = 0 if self._first is None else bisect_left(self._markets, self._first)
        return self._markets[place:] + self._markets[:place]

    def _read(
        self, market: Market, places: dict[Market, MarketPlace]
    ) -> Generator[_Found, None, bool]:
        """One piece of a market, if there is one; returns whether there may be more."""
        base = None
        place = places.get(market)
        if place is None:
            place, base = self._begin(market)
        states = {each.log: self._look(each) for each in place.logs}
        ready = [each for each in place.logs if states[each.log] is _State.READ]
        place = self._opened(market, place, ready)
        if not place.logs:
            return False
        untold = next((each for each in place.logs if not each.is_told), None)
        if untold is not None:
            place = replace(place.with_log(replace(untold, is_told=True)), told=place.watermark)
            places[market] = place
            yield market, Piece(untold.mark(), place.watermark, base=base), no_trades(market)
            return True
        if not ready:
            yield from self._settled(market, place, states, places)
            return False
        # The one that is behind goes first.
        log = min(ready, key=lambda each: each.reached_ts)
        growth = self._growth(market, log)
        trades, late = self._in_time(growth, log, place)
        now_at = self._advanced(log, growth)
        place = place.with_log(now_at)
        place = replace(place, last_ts=max(place.last_ts, now_at.last_ts))
        unread = [each for each in ready if each is not log]
        unread += [now_at] if growth.is_cut else []
        behind = self._unopened(market, place)
        place = replace(place, watermark=self._reached(place, unread, behind))
        if now_at == log:
            # Whatever it is, it is not asked for again at once.
            self._failed.add(log.log)
        else:
            self._grown_at[market] = time.monotonic()
            places[market] = replace(place, told=place.watermark)
            if late:
                self._late.count(market, len(late))
            given = trades if trades is not None else no_trades(market)
            yield market, Piece(now_at.mark(), place.watermark, late), given
        # What could not be read is passed over then.
        return bool(unread or behind or growth.outcome.error)

    def _settled(
        self,
        market: Market,
        place: MarketPlace,
        states: dict[LogFile, _State],
        places: dict[Market, MarketPlace],
    ) -> Iterator[_Found]:
        """What there is to say of a market of which everything is read."""
        quiet = self._quiet_until(market, place, states)
        watermark = max(self._reached(place, [], []), quiet)
        if watermark == place.watermark:
            return
        place = replace(place, watermark=watermark)
        end = watermark - watermark % self._step
        if not self._quiet_candles:
            end = min(end, place.last_ts - place.last_ts % self._step + self._step)
        if place.last_ts and place.told < end:
            # A candle closes by it.
            place = replace(place, told=watermark)
            places[market] = place
            yield market, Piece(place.logs[-1].mark(), watermark), no_trades(market)
        else:
            places[market] = place

    # What is there

    def _begin(self, market: Market) -> tuple[MarketPlace, Base | None]:
        """Where to begin with a market: behind the candles that are there."""
        paths = CandlePaths.of(self._out, market)
        companion = read_companion(paths.companion)
        if companion is None:
            return MarketPlace(), None
        state = checked_state(companion, paths, market, self._settings)
        base = base_of(companion, paths, state, state.tail)
        found = [self._find(market, seen.root, seen.path) for seen in state.inputs]
        logs = sorted(
            (
                LogPlace(log, 0, seen=seen.text_bytes)
                for log, seen in zip(found, state.inputs, strict=True)
            ),
            key=lambda each: each.log,
        )
        first = state.covered - len(logs) + 1
        last_ts = base.end_ts - companion.timeframe.ms
        place = MarketPlace(
            logs=tuple(replace(each, covered=number) for number, each in enumerate(logs, first)),
            from_ts=last_ts,
            watermark=last_ts,
            last_ts=last_ts,
        )
        return place, base

    def _find(self, market: Market, root: str, path: str) -> LogFile:
        """An input of the candles that are gone on from; of an archive that may have moved."""
        known = [log for log in self._archive.markets[market] if log.path == path]
        found = [log for log in known if log.root == root] or known
        if len(found) != 1:
            raise CandlebeamError(
                f"{path}, the input that its candles end with, is not under {root}"
            )
        return found[0]

    def _in_order(self, market: Market, place: MarketPlace) -> list[LogFile]:
        """All logs of a market."""
        logs = self._archive.markets[market]
        if len(self._ordered.get(market, ())) != len(logs):
            self._ordered[market] = sorted(logs)
            if place.logs:
                first = place.logs[0]
                missed = bisect_left(self._ordered[market], first.log) + 1 - first.covered
                if missed > 0:
                    what = f"{market}: {missed} of its files were found late, and not read"
                    self._tell((market, "missed"), f"{what}: {_BRING_IN}")
        return self._ordered[market]

    def _unopened(self, market: Market, place: MarketPlace) -> list[LogFile]:
        """Logs that were not opened: those among the ones that are looked at, or else of the next
        start."""
        logs = self._in_order(market, place)
        known = {each.log for each in place.logs}
        begin = bisect_left(logs, LogFile(place.logs[0].log.start_ts, "", "")) if known else 0
        last_ts = place.logs[-1].log.start_ts if known else -1
        found: list[LogFile] = []
        for log in islice(logs, begin, None):
            if log in known:
                continue
            if found and log.start_ts > max(found[0].start_ts, last_ts):
                break
            if self._version(log) is not None:
                found.append(log)
        return found

    def _opened(self, market: Market, place: MarketPlace, ready: list[LogPlace]) -> MarketPlace:
        """With logs that are opened now: those of the next start once the others are read."""
        unopened = self._unopened(market, place)
        if not unopened:
            return place
        if not place.logs:
            new = [LogPlace(log, 0) for log in unopened]
            covered = 1
            place = replace(place, watermark=unopened[0].start_ts - DISORDER_MS)
        else:
            up_to = place.logs[-1].log.start_ts
            if not ready:
                up_to = max(up_to, unopened[-1].start_ts)
            new = [
                LogPlace(log, 0) for log in unopened if log.start_ts <= max(up_to, place.last_ts)
            ]
            covered = min(each.covered for each in place.logs)
        logs = sorted((*place.logs, *new), key=lambda each: each.log)
        logs = [
            each if each.covered == number else replace(each, covered=number, is_told=False)
            for number, each in enumerate(logs, covered)
        ]
        starts = sorted({each.log.start_ts for each in logs})
        oldest = min([*starts[-_WATCHED_STARTS:], *(each.log.start_ts for each in ready)])
        return replace(place, logs=tuple(each for each in logs if each.log.start_ts >= oldest))

    @staticmethod
    def _version(log: LogFile) -> _Version | None:
        """What a log is now; None if it is not there, or cannot be looked at."""
        path = os.path.join(log.root, log.path)
        for candidate in (path, path + ".gz"):
            try:
                found = storage_of(candidate).state(candidate)
            except OSError:
                continue
            return _Version(os.path.basename(candidate), found.size, found.mtime_ns)
        return None

    def _look(self, place: LogPlace) -> _State:
        log = place.log
        if log in self._failed:
            return _State.GONE
        if place.is_whole and not place.is_read_again:
            return _State.DONE
        version = self._version(log)
        if version is None:
            if place.is_read_again:
                self._tell(log, f"{os.path.join(log.root, log.path)}: its market waits for it")
            return _State.GONE
        found, state = self._damaged.get(log, (None, _State.DONE))
        if found == version:
            return state
        if (
            log in self._cut
            or place.is_read_again
            or not place.is_sound
            or version[:2] != (place.name, place.size)
        ):
            return _State.READ
        return _State.DONE

    # What it gives

    def _growth(self, market: Market, place: LogPlace) -> Growth:
        log = place.log
        path = os.path.join(log.root, log.path)
        version = self._version(log)
        growth = read_growth(
            market,
            path,
            place.text_bytes,
            most=READ_BYTES,
            check=place.check,
            limit=place.seen if place.is_read_again else None,
        )
        outcome = growth.outcome
        (self._cut.add if growth.is_cut else self._cut.discard)(log)
        self._damaged.pop(log, None)
        where = outcome.read_path or path
        if outcome.error:
            self._failed.add(log)
            self._tell(log, f"{where}: {outcome.error}; it is tried again")
        elif outcome.damage:
            is_lost = growth.is_other or growth.text_bytes < place.seen
            self._damaged[log] = version, _State.GONE if is_lost else _State.DAMAGED
            then = "nothing of it is taken" if growth.is_other else "what is sound was taken"
            self._tell(log, f"{where}: {outcome.damage}; {then}, until it is replaced")
        elif growth.text_bytes < place.seen and not growth.is_cut:
            self._damaged[log] = version, _State.GONE
            self._tell(
                log,
                f"{where}: {growth.text_bytes} bytes of text, its candles were made of"
                f" {place.seen}; its market waits until it is replaced",
            )
        else:
            self._said.pop(log, None)
        if any(count for _, count in outcome.rejected):
            reasons = ", ".join(f"{count} {reason}" for reason, count in outcome.rejected)
            self._say(f"{where}: rows that are no trades: {reasons}")
        return growth

    @staticmethod
    def _advanced(place: LogPlace, growth: Growth) -> LogPlace:
        outcome = growth.outcome
        is_sound = not (outcome.error or outcome.damage)
        if outcome.read_path is None or (not is_sound and not outcome.text_bytes):
            return replace(place, is_sound=is_sound)
        last_ts = place.last_ts
        if growth.trades is not None:
            last_ts = max(last_ts, int(growth.trades.ts.max()))
        return replace(
            place,
            name=os.path.basename(outcome.read_path),
            size=outcome.size,
            used=growth.used,
            text_bytes=growth.text_bytes,
            check=growth.check,
            last_ts=last_ts,
            is_whole=growth.is_whole,
            is_sound=is_sound,
        )

    def _in_time(
        self, growth: Growth, log: LogPlace, place: MarketPlace
    ) -> tuple[TradeBatch | None, tuple[LateTrade, ...]]:
        """The trades that count, and those that have come too late for that."""
        trades = growth.trades
        if trades is None:
            return None, ()
        # The end of a candle plus the lateness is at most the watermark.
        settled = place.watermark - self._lateness_ms - self._step
        settled_ts = max(place.from_ts, settled - settled % self._step + self._step)
        if int(trades.ts.min()) >= settled_ts:
            return trades, ()
        late = trades.ts < settled_ts
        kept = chosen_trades(trades, ~late)
        if log.is_read_again:
            # They are in the candles that were gone on from.
            return kept, ()
        gone = chosen_trades(trades, late)
        columns = (gone.ts, gone.price, gone.size, gone.buy, gone.liquidation)
        return kept, tuple(
            LateTrade(ts, price, size, buy, liquidation, log.log.path)
            for ts, price, size, buy, liquidation in zip(
                *(column.tolist() for column in columns), strict=True
            )
        )

    # Watermarks

    def _reached(self, place: MarketPlace, unread: list[LogPlace], behind: list[LogFile]) -> int:
        """Up to where the logs have been read: nothing is expected before it any more, ms."""
        if any(each.is_read_again for each in place.logs):
            return place.watermark
        ends = [place.last_ts, *(each.reached_ts for each in unread)]
        ends += [each.start_ts for each in behind]
        return max(place.watermark, min(ends) - DISORDER_MS)

    def _quiet_until(
        self, market: Market, place: MarketPlace, states: dict[LogFile, _State]
    ) -> int:
        """What the clock says of a market that gives nothing, ms; 0 if it does not count."""
        idle = (time.monotonic() - self._grown_at.setdefault(market, 0.0)) * 1000
        if idle * self._clock.speed < self._idle_ms:
            return 0
        if any(each.is_read_again for each in place.logs):
            return 0
        last = [each for each in place.logs if each.log.start_ts == place.logs[-1].log.start_ts]
        if any(states.get(each.log) is _State.GONE for each in last):
            return 0
        if all(each.is_whole and self._version(each.log) is None for each in last):
            return 0
        return self._clock.now() - self._idle_ms

    # What is said

    def _tell(self, what: object, line: str) -> None:
        """Says a line once for as long as it stays the same."""
        if self._said.get(what) != line:
            self._said[what] = line
            self._say(line)
