"""Trades from Databento's live gateway: reconnected when it is cut off, none lost, none twice.

Records are read as those of a file of the same session are (`formats.dbn.live`): a trade's time is
`ts_recv`, its market the symbol that the gateway's mappings tell. What a replay brings again is
told by what was handed out (`feeds.handed_out`).

Source of what the gateway does: Databento's documentation of its live API. It replays the last 24
hours, by `ts_event`; it says when a replay has caught up, and sends a heartbeat when it has nothing
else to send for a while; it does not follow the rolls of continuous contracts in a session.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from candlebeam.errors import CandlebeamError
from candlebeam.feeds.databento_position import (
    ASKED,
    CONTRACT,
    DatabentoSubscription,
    FeedBatch,
    FeedOptions,
    FeedPosition,
    Gap,
)
from candlebeam.feeds.databento_session import (
    AGED_OUT,
    CLOSED,
    REFUSED,
    Ending,
    Session,
    Wish,
    read_system,
)
from candlebeam.feeds.handed_out import Ledger, Repeats, Rows, handed_of, row_dtype
from candlebeam.feeds.inbox import BEGIN, HEAD, MAPPING, SYSTEM, TRADES, Inbox
from candlebeam.formats.dbn.layout import SCHEMA_TYPES
from candlebeam.formats.dbn.live import LiveRecords
from candlebeam.formats.dbn.metadata import databento_dbn
from candlebeam.model import Market, TradeBatch
from candlebeam.rules.contracts import CONTINUOUS
from candlebeam.rules.months import NS_PER_DAY, NS_PER_SECOND, time_text
from candlebeam.rules.tick_test import TickState

__all__ = [
    "ASKED",
    "CONTRACT",
    "DatabentoFeed",
    "DatabentoSubscription",
    "FeedBatch",
    "FeedOptions",
    "FeedPosition",
    "Gap",
]

_NS_PER_MS = 1_000_000
#: How far back a gateway replays.
_REACH_NS = NS_PER_DAY
_UNDEFINED = np.uint64(2**64 - 1)
_USUAL = FeedOptions()


class DatabentoFeed:
    """A subscription as long as it is wanted; use it as a context, and `poll` it from one thread.

    Args:
        subscription: what to.
        key: from `pipelines.databento.key.find_key`; never shown.
        start: from where: a position of an earlier feed; a time in ns, from which on trades are
            handed out by their own time, `ts_recv`; None for now.
        log: is called with a sentence when there is something to know; from several threads.
        options: see there.

    Attributes:
        gaps: ranges of time of which trades may be missing. Each was told by `log`, with the
            command that downloads it.
        sessions: how many connections brought records.
    """

    def __init__(
        self,
        subscription: DatabentoSubscription,
        key: str,
        start: FeedPosition | int | None = None,
        log: Callable[[str], None] = lambda _: None,
        options: FeedOptions = _USUAL,
    ) -> None:
        overlap_ns = int(options.overlap_s * NS_PER_SECOND)
        if isinstance(start, int):
            start = FeedPosition.at(start, overlap_ns)
        begun = start or FeedPosition()
        self.gaps: list[Gap] = []
        self.sessions = 0
        self._subscription, self._key, self._options = subscription, key, options
        self._tell = log
        self._record_type = SCHEMA_TYPES[subscription.schema][0]
        self._rows_dtype = row_dtype(subscription.schema)
        self._mapping_dtype = np.dtype(databento_dbn().SymbolMappingMsg._dtypes)
        ticks = {symbol: TickState(price, side) for symbol, price, side in begun.ticks}
        self._records = LiveRecords(subscription.dataset, ticks, begun.from_ms)
        self._from_ms = begun.from_ms
        self._ledger = Ledger(overlap_ns, begun.start_ns, begun.handed)
        self._watermark_ns = begun.watermark_ns
        self._order = begun.order
        # Of continuous contracts.
        self._rolls = subscription.stype == CONTINUOUS
        self._instruments = dict.fromkeys(begun.instruments)
        self._first_ns: dict[int, int] = {}
        self._instrument_of: dict[str, int] = {}
        # Of the session whose records are being taken.
        self._asked_from: int | None = None
        self._repeats = Repeats()
        self._caught_up = False
        self._session_ns: int | None = None
        self._known: set[int] = set()
        self._doubt: tuple[int, str] | None = None
        self._over = False
        self._next_day_ns = 0
        # Between the threads.
        self._inbox = Inbox(options.most_bytes)
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._failure: BaseException | None = None
        self._broken = False
        self._thread = threading.Thread(target=self._run, name="databento-feed", daemon=True)

    def __repr__(self) -> str:
        return f"DatabentoFeed({self._subscription!r})"

    def __enter__(self) -> DatabentoFeed:
        self._thread.start()
        return self

    def __exit__(self, *failure: Any) -> None:
        self.close()

    def close(self) -> None:
        """Ends it; afterwards no thread and no connection of it is left. `position` stays."""
        self._closing.set()
        self._inbox.close()
        with self._lock:
            if self._session is not None:
                self._session.stop()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def position(self) -> FeedPosition:
        """Where a feed goes on that is to hand out what `poll` of this one has not.

        Raises:
            CandlebeamError: the last `poll` failed with trades in its hands; the position of
                before it is the one to go on from.
        """
        if self._broken:
            raise CandlebeamError("the feed failed: go on from its position of before") from None
        ledger = self._ledger
        ticks = self._records.ticks.items()
        return FeedPosition(
            ledger.start_ns,
            ledger.handed(),
            self._from_ms,
            self._watermark_ns,
            self._order,
            tuple((symbol, state.price, state.side) for symbol, state in ticks),
            tuple(self._instruments),
        )

    @property
    def watermark_ns(self) -> int | None:
        """Trades before this time have all been handed out, as far as the gateway knows."""
        return self._watermark_ns

    @property
    def unmapped(self) -> int:
        """Trades of instruments for which no symbol was told; they belong to no market."""
        return self._records.unmapped

    @property
    def disordered(self) -> int:
        """Trades that came later than `overlap_s` allows: a cut might have lost such a one."""
        return self._ledger.disordered

    @property
    def rejected(self) -> dict[Market, tuple[tuple[str, int], ...]]:
        """By market, how many of its records were no good trades, by reason."""
        return self._records.rejects

    def poll(self, timeout_s: float) -> list[FeedBatch]:
        """What has come since the last call; at most one batch a market.

        Waits for something to come, but no longer than it is told. Nothing may come for a while
        even though the gateway sends: repetitions, heartbeats.

        Raises:
            CandlebeamError: the gateway refuses the key or the subscription, and everything that
                came before was handed out.
        """
        items = self._inbox.take(timeout_s)
        try:
            if self._failure is not None and (self._broken or not items):
                raise self._failure
            self._broken = True
            batches = self._handed_out(items)
            self._broken = False
            return batches
        except Exception as error:
            self._failure = error
            raise
        finally:
            self._inbox.done()

    # What was received, in the thread of the consumer

    def _handed_out(self, items: Sequence[tuple[int, Any]]) -> list[FeedBatch]:
        records: list[bytes] = []
        for kind, data in items:
            if kind == BEGIN:
                self._begin(data == b"all")
            elif self._over:
                continue  # what a session sends that is being ended
            elif kind == HEAD:
                head = databento_dbn().Metadata.decode(bytes(data))
                if 0 < head.start < 1 << 63:
                    self._ledger.begin(int(head.start))
            elif kind == MAPPING:
                records.append(self._mapping(bytes(data)))
            elif kind == SYSTEM:
                self._system(bytes(data))
            elif kind == TRADES:
                records.append(self._trades(data))
        found: dict[Market, list[TradeBatch]] = {}
        for batch in self._records.take(b"".join(records)):
            found.setdefault(batch.market, []).append(batch)
        batches = []
        for market, parts in found.items():
            trades = parts[0] if len(parts) == 1 else TradeBatch.join(parts)
            last = int(trades.ts.max()) * _NS_PER_MS
            batches.append(FeedBatch(market, trades, self._order, last))
            self._order += len(trades)
        return batches

    def _begin(self, asked_all: bool) -> None:
        ledger, now_ns = self._ledger, self._options.now_ns()
        self._over = False
        self._asked_from = ledger.start_ns
        self._repeats = Repeats(ledger.handed())
        self._caught_up = ledger.start_ns is None
        self._session_ns = None
        self._known = set(self._instruments)
        self._next_day_ns = (max(now_ns, self._watermark_ns or 0) // NS_PER_DAY + 1) * NS_PER_DAY
        self._doubt = None
        if ledger.start_ns is None:
            return
        since = max(ledger.start_ns, ledger.newest_ns or 0)
        if len(self._repeats):
            self._doubt = (since, "a replay did not bring again what had come last")
        elif asked_all:
            self._doubt = (since, "the gateway replays no more than the last 24 hours")

    def _mapping(self, data: bytes) -> bytes:
        if len(data) < self._mapping_dtype.itemsize or not self._rolls:
            return data
        row = np.frombuffer(data, self._mapping_dtype, 1).copy()
        instrument = int(row["instrument_id"][0])
        self._instrument_of[row["stype_in_symbol"][0].decode(errors="replace")] = instrument
        if self._known and instrument not in self._instruments:
            # A roll counts from midnight on, as in Databento's own files.
            midnight = self._next_day_ns - NS_PER_DAY
            self._first_ns[instrument] = midnight
            if len(self._repeats):
                self._doubt = None  # those of the old contract will not come again
            since = self._watermark_ns
            overlap_ns = int(self._options.overlap_s * NS_PER_SECOND)
            if since is not None and midnight - since > 2 * overlap_ns:
                reason = "a continuous contract has rolled meanwhile, and only the new one is sent"
                self._add_gap(Gap(since, midnight, reason))
        self._instruments[instrument] = None
        if self._subscription.names == ASKED:
            row["stype_out_symbol"] = row["stype_in_symbol"]
        return bytes(row.tobytes()) + data[self._mapping_dtype.itemsize :]

    def _system(self, data: bytes) -> None:
        message = read_system(data)
        self._ledger.begin(message.ts_ns)
        if self._session_ns is None:
            self._session_ns = message.ts_ns
        if message.replay_completed:
            self._catch_up()
        if message.heartbeat and self._caught_up:
            reached = message.ts_ns - int(self._options.margin_s * NS_PER_SECOND)
            if self._rolls and reached >= self._next_day_ns:
                self._renew()
            else:
                self._reach(reached)

    def _trades(self, data: bytes | bytearray) -> bytes:
        size = self._rows_dtype.itemsize
        lengths = np.frombuffer(data, np.uint8)[::size]
        if (lengths != size // 4).any() or len(data) % size:
            # All before the first one that differs have the right length.
            other = 4 * int(lengths[int((lengths != size // 4).argmax())])
            raise CandlebeamError(
                f"{self._subscription.dataset}: expected records of {self._subscription.schema} of"
                f" {size} bytes, found one of {other if other != size else len(data) % size}"
            )
        every: Rows = np.frombuffer(data, self._rows_dtype)
        places = np.flatnonzero(every["action"] == b"T")
        received = np.where(every["ts_recv"] == _UNDEFINED, every["ts_event"], every["ts_recv"])
        places = self._today(places, received)
        if not len(places):
            return b""
        self._check_names()
        rows, received = every[places], received[places]
        handed = handed_of(rows)
        keep = self._repeats.new(handed)
        if self._asked_from is not None and not self._caught_up:
            early = handed["ts"] < np.uint64(self._asked_from)
            keep &= ~early
            if early.any():
                self._doubt = None
        for instrument, first_ns in self._first_ns.items():
            keep &= (rows["instrument_id"] != instrument) | (received >= np.uint64(first_ns))
        self._resolve_doubt(handed["ts"][keep])
        if keep.any():
            newest = np.minimum(handed["ts"], received)[keep].max()
            self._ledger.add(handed[keep], int(newest))
        defined = received[received < np.uint64(1 << 63)]
        if len(defined):
            latest = int(defined.max())
            self._watermark_ns = max(self._watermark_ns or 0, latest)
            if self._session_ns is not None and latest >= self._session_ns:
                self._catch_up()
        # Whole records: the fields of `rows` are not all they have.
        raw = np.frombuffer(data, np.uint8).reshape(len(every), -1)
        return bytes(raw[places[keep]].tobytes())

    def _today(self, places: Any, received: Any) -> Any:
        """Of continuous contracts, what came before the day's end; then a new session is due."""
        if not self._rolls or not self._caught_up:
            return places
        times = received[places]
        tomorrow = (times >= np.uint64(self._next_day_ns)) & (times < np.uint64(1 << 63))
        if not tomorrow.any():
            return places
        self._renew()
        return places[: int(tomorrow.argmax())]

    def _renew(self) -> None:
        """Ends the session, for one with the contracts of the new day."""
        self._over = True
        self._reach(self._next_day_ns)
        with self._lock:
            if self._session is not None:
                self._session.stop()

    def _reach(self, ns: int) -> None:
        self._watermark_ns = max(self._watermark_ns or 0, ns)
        self._ledger.reach(ns)

    def _catch_up(self) -> None:
        if self._caught_up:
            return
        self._caught_up = True
        if self._doubt is not None and self._repeats.found == 0:
            since, reason = self._doubt
            if self._session_ns is not None and since < self._session_ns:
                self._add_gap(Gap(since, self._session_ns, reason))
        self._doubt = None
        self._repeats.end()

    def _resolve_doubt(self, ts: Any) -> None:
        """Whether a replay has begun where the last session ended, as soon as that can be told."""
        if self._doubt is None:
            return
        since, reason = self._doubt
        if self._repeats.found:
            self._doubt = None
            return
        newer = ts[ts > np.uint64(since)]
        if len(newer):
            self._doubt = None
            self._add_gap(Gap(since, int(newer.min()), reason))

    def _add_gap(self, gap: Gap) -> None:
        if gap in self.gaps:
            return
        self.gaps.append(gap)
        command = self._subscription.fetch_command(gap.from_ns, gap.to_ns)
        self._tell(
            f"trades from {time_text(gap.from_ns)} to {time_text(gap.to_ns)} may be missing:"
            f" {gap.reason}; to download them: {command}"
        )

    def _check_names(self) -> None:
        if self._subscription.names != ASKED:
            return
        seen: dict[int, str] = {}
        for symbol, instrument in self._instrument_of.items():
            other = seen.setdefault(instrument, symbol)
            if other != symbol:
                raise CandlebeamError(
                    f"{other} and {symbol} are the same instrument, {instrument}, and a trade can"
                    f" have one name only: subscribe to them one by one, or name by {CONTRACT}"
                )

    # Sessions, in a thread of their own

    def _run(self) -> None:
        try:
            self._keep_connected()
        except BaseException as error:  # noqa: BLE001  raised again by poll
            self._failure = error
        finally:
            self._inbox.end()

    def _keep_connected(self) -> None:
        attempts, everything = 0, False
        while self._inbox.wait_until_empty():
            ending = self._one_session(everything)
            if self._closing.is_set():
                return
            if ending.heard:
                self.sessions += 1
                attempts = 0
            if ending.kind == REFUSED:
                raise CandlebeamError(f"{self._subscription.dataset}: {ending.reason}")
            everything = ending.kind == AGED_OUT
            if ending.kind == CLOSED:
                continue
            wait = self._wait(attempts)
            attempts += 1
            self._tell(
                f"{self._subscription.dataset}: {ending.reason}; connecting again in {wait:.1f} s"
            )
            self._closing.wait(wait)

    def _wait(self, attempts: int) -> float:
        options = self._options
        longest = min(options.first_wait_s * 2.0 ** min(attempts, 30), options.longest_wait_s)
        return longest * random.uniform(0.5, 1)

    def _one_session(self, everything: bool) -> Ending:
        options, subscription = self._options, self._subscription
        start_ns = self._ledger.start_ns
        # What is too old is not asked for: the gateway may refuse it.
        too_old = start_ns is not None and start_ns < options.now_ns() - _REACH_NS
        everything = start_ns is not None and (everything or too_old)
        wish = Wish(
            subscription.dataset,
            subscription.schema,
            subscription.requested,
            subscription.stype,
            subscription.gateway,
            subscription.port,
            options.heartbeat_interval_s,
            options.silence_s,
            0 if everything else start_ns,
        )
        session = Session(wish, self._key, self._record_type, self._inbox, self._tell)
        with self._lock:
            if self._closing.is_set():
                return Ending(CLOSED, "")
            self._session = session
        self._inbox.put(BEGIN, b"all" if everything else b"")
        try:
            return session.run()
        finally:
            with self._lock:
                self._session = None
