"""Streams of a live gateway on the loopback, and what a backfill makes of the same records."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from candlebeam.feeds.clock import Clock
from candlebeam.feeds.databento_position import ASKED, DatabentoSubscription
from candlebeam.io.follow_databento import DatabentoOptions, _Follow
from candlebeam.io.live_commit import LiveCommit
from candlebeam.model import Market
from candlebeam.rules.candles import aggregate
from candlebeam.rules.open_candles import MarketUpdate, OpenCandles
from candlebeam.settings import CandleSettings
from tests.command_line import Workspace, companions, contents, run_here
from tests.dbn_files import MIDNIGHT_NS, mapping, trade, write_dbn
from tests.live_gateway import LiveGateway

SECOND = 10**9
MINUTE, HOUR = 60 * SECOND, 3600 * SECOND
SETTINGS = CandleSettings(corrections=())
ABC, XYZ = "DATABENTO/XNAS.ITCH/ABC", "DATABENTO/XNAS.ITCH/XYZ"
#: What is not the same in the companion of a stream and that of a backfill of a file.
_OF_THE_INPUT = ("inputs", "coveredFiles")


def at(place: int, *, instrument: int = 7, side: bytes = b"N", **fields: Any) -> bytes:
    """The trade at a place of a sequence."""
    price = 100 * 10**9 + place * 7919 % 500 * 10**7
    return trade(
        place * 7 * SECOND,
        price,
        place % 9 + 1,
        side,
        instrument=instrument,
        sequence=place,
        **fields,
    )


NAMES = [mapping(7, "ABC"), mapping(8, "XYZ")]
#: Some minutes of two markets.
TRADES = [at(place, instrument=7 + place % 3 // 2) for place in range(60)]


class State:
    """The state of one key."""

    def __init__(self) -> None:
        self.value: bytes = pickle.dumps(None)

    def read(self) -> Any:
        return pickle.loads(self.value)  # noqa: S301

    def write(self, value: Any) -> None:
        self.value = pickle.dumps(value)


class Stream:
    """What the pipeline does, step by step, in this thread."""

    def __init__(self, options: DatabentoOptions) -> None:
        self.options = options
        self.state = State()
        self.open: dict[Market, OpenCandles] = {}
        self.start()

    def start(self) -> None:
        """Has everything but the checkpoint made anew, as in a worker that was just started."""
        self.source = _Follow(pickle.loads(pickle.dumps(self.options)))  # noqa: S301
        self.source.setup()
        self.commit = LiveCommit(
            self.options.out,
            self.options.settings,
            quiet_candles=self.options.quiet_candles,
        )

    def stop(self) -> None:
        self.source.teardown()

    def checkpoint(self) -> bytes:
        return pickle.dumps((self.state.value, self.open))

    def restore(self, checkpoint: bytes) -> None:
        self.state.value, self.open = pickle.loads(checkpoint)  # noqa: S301
        self.start()

    def poll(self) -> None:
        for found in self.source.process(("0", None), self.state):
            piece, trades = found.value
            settings = self.options.settings
            candles = self.open.setdefault(
                trades.market,
                OpenCandles(
                    trades.market,
                    settings.timeframe,
                    self.options.lateness_ms,
                    quiet=self.options.quiet_candles,
                ),
            )
            block = aggregate(trades, settings.timeframe)
            candles.add(MarketUpdate(block, piece.mark, piece.watermark, piece.late, piece.base))
            if (update := candles.close()) is not None:
                self.commit(update)

    def until(self, over: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not over():
            assert time.monotonic() < deadline
            self.poll()
            time.sleep(0.005)

    def until_connected(self) -> None:
        """Until the feed knows when it has begun."""
        self.until(lambda: self.known is not None and self.known.position.start_ns is not None)

    def until_order(self, order: int) -> None:
        """Until so many trades have been handed out."""
        self.until(lambda: self.known is not None and self.known.position.order == order)

    @property
    def known(self) -> Any:
        return self.state.read()

    def until_heartbeat(self, gateway: LiveGateway) -> None:
        """Until all there is has come, and a heartbeat behind it."""

        def is_heard() -> bool:
            reached = self.known and self.known.position.watermark_ns
            return bool(reached) and reached >= gateway.now_ns - SECOND

        self.until(is_heard)


def tell_time(work: Workspace, ns: int) -> Clock:
    path = work.folder / "clock"
    path.write_text(str(ns // 10**6))
    return Clock(path=str(path))


def options_of(
    gateway: LiveGateway, work: Workspace, *, lateness_ms: int = 600_000, **subscription: Any
) -> DatabentoOptions:
    asked = DatabentoSubscription(
        gateway.dataset,
        ("ABC", "XYZ"),
        gateway="127.0.0.1",
        port=gateway.port,
        names=ASKED,
        **subscription,
    )
    clock = tell_time(work, gateway.now_ns)
    return DatabentoOptions(asked, str(work.out), SETTINGS, lateness_ms, clock)


def in_batch(work: Workspace, items: Sequence[bytes]) -> Workspace:
    """What a backfill makes of a file of the records."""
    batch = Workspace(work.folder / "batch")
    batch.folder.mkdir(exist_ok=True)
    path = write_dbn(batch.folder / "live.dbn", items, (), schema=None, stype_in=None)
    run_here("backfill", "--dbn", path, "--out", batch.out, "--force").expect()
    return batch


def candles_of(out: Path) -> dict[str, dict[str, Any]]:
    """The companions without what tells of the inputs."""
    found = companions(out)
    for each in found.values():
        del each["lastInputStartTs"]
        for name in _OF_THE_INPUT:
            del each["candlebeam"][name]
    return found


def assert_equal(work: Workspace, items: Sequence[bytes]) -> None:
    batch = in_batch(work, items)
    assert contents(work.out) == contents(batch.out)
    assert candles_of(work.out) == candles_of(batch.out)


def end_of(items: Sequence[bytes], minutes: int = 2) -> int:
    """Some time after the last of the records."""
    return MIDNIGHT_NS + len(items) * 7 * SECOND + minutes * MINUTE


def sent(gateway: LiveGateway, stream: Stream, items: Sequence[bytes]) -> None:
    gateway.send(*items)
    stream.until_heartbeat(gateway)
