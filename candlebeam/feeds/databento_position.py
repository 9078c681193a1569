"""What is asked of Databento's live gateway, what comes of it, and where to go on."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from candlebeam.errors import UsageError
from candlebeam.formats.dbn.metadata import TRADE_SCHEMAS
from candlebeam.model import Market, TradeBatch
from candlebeam.rules.contracts import guess_stype, requested_form
from candlebeam.rules.months import NS_PER_SECOND, time_text

_NS_PER_MS = 1_000_000

#: What the markets of continuous contracts are named by.
CONTRACT, ASKED = "contract", "asked"


@dataclass(frozen=True)
class DatabentoSubscription:
    """What is subscribed to. Can be pickled; has no key in it.

    Attributes:
        dataset: such as GLBX.MDP3; the exchange of all markets.
        symbols: all of one type.
        schema: one with trades in it.
        stype_in: their type; None tells it by their form.
        gateway, port: another address of the gateway; None means Databento's own.
        names: what markets of continuous contracts are called. `contract`: by the contract that
            stands behind at a time (`ESH4`), as files of live sessions have it; `asked`: as they
            were asked for (`ES.v.0`), as downloads have it.

    Raises:
        UsageError: something of it makes no sense.
    """

    dataset: str
    symbols: tuple[str, ...]
    schema: str = "trades"
    stype_in: str | None = None
    gateway: str | None = None
    port: int | None = None
    names: str = CONTRACT

    def __post_init__(self) -> None:
        if self.schema not in TRADE_SCHEMAS:
            known = ", ".join(sorted(TRADE_SCHEMAS))
            raise UsageError(f"schema {self.schema}: expected one with trades: {known}")
        if self.names not in (CONTRACT, ASKED):
            raise UsageError(f"names {self.names}: expected {CONTRACT} or {ASKED}")
        if not self.dataset.strip():
            raise UsageError("dataset: expected a name such as GLBX.MDP3")
        if not self.symbols or not all(symbol.strip() for symbol in self.symbols):
            raise UsageError("symbols: expected at least one, and some text for each")
        types = {guess_stype(symbol.strip()): symbol for symbol in self.symbols}
        if self.stype_in is None and len(types) > 1:
            told = ", ".join(f"{symbol} is {stype}" for stype, symbol in types.items())
            raise UsageError(f"symbols: expected all of one type, found several: {told}")

    @property
    def stype(self) -> str:
        """The type of the symbols."""
        return self.stype_in or guess_stype(self.symbols[0].strip())

    @property
    def requested(self) -> tuple[str, ...]:
        """The symbols as the gateway is asked for them, each once."""
        return tuple(dict.fromkeys(requested_form(each, self.stype) for each in self.symbols))

    def fetch_command(self, start_ns: int, end_ns: int) -> str:
        """The command that downloads what was missed between two times."""
        words = [
            "candlebeam", "databento", "fetch", "--dataset", self.dataset,
            "--symbols", ",".join(self.requested), "--schema", self.schema,
            "--start", _argument(start_ns), "--end", _argument(end_ns),
        ]  # fmt: skip
        if self.stype_in is not None:
            words += ["--stype-in", self.stype_in]
        return shlex.join([*words, "--out", "downloads"])


@dataclass(frozen=True)
class FeedPosition:
    """Where to go on from. Small, can be pickled and compared; has no key in it.

    Attributes:
        start_ns: a replay from this `ts_event` on brings all that is missing; None before anything
            is known.
        handed: what was handed out from there on; see `feeds.handed_out`.
        from_ms: trades before it are left out; None leaves out none.
        watermark_ns: up to when everything has arrived, by trades' times; None if not known.
        order: trades handed out so far.
        ticks: by symbol, where the tick test stands.
        instruments: those that a continuous contract has stood for.
    """

    start_ns: int | None = None
    handed: bytes = field(default=b"", repr=False)
    from_ms: int | None = None
    watermark_ns: int | None = None
    order: int = 0
    ticks: tuple[tuple[str, int, int], ...] = field(default=(), repr=False)
    instruments: tuple[int, ...] = ()

    @classmethod
    def at(cls, start_ns: int, overlap_ns: int = NS_PER_SECOND) -> FeedPosition:
        """Trades from a time on, by their own time: `ts_recv`, in whole milliseconds."""
        return cls(start_ns=max(start_ns - overlap_ns, 0), from_ms=start_ns // _NS_PER_MS)


class FeedBatch(NamedTuple):
    """Trades of one market.

    Attributes:
        market: whose they are.
        trades: in the order in which they came.
        first_order: the place of the first of them; those of the same market that come later have
            higher ones. It is the same again when the feed goes on from a position.
        last_ts_ns: the latest of their times.
    """

    market: Market
    trades: TradeBatch
    first_order: int
    last_ts_ns: int


class Gap(NamedTuple):
    """A range of time (ns, the end exclusive) of which trades may be missing, and why."""

    from_ns: int
    to_ns: int
    reason: str


@dataclass(frozen=True)
class FeedOptions:
    """How patient a feed is, and how much it holds.

    Attributes:
        heartbeat_interval_s: asked of the gateway, which takes 5 to 1800.
        silence_s: without a word for so long, the connection is given up.
        first_wait_s, longest_wait_s: before another attempt; doubled from one to the next, and
            shortened by up to a half at random, so that many clients do not come at once.
        overlap_s: how much earlier than the newest record by `ts_event` another may be that comes
            behind it.
        margin_s: how long a trade may take from `ts_recv` to the gateway, which tells the time.
        most_bytes: of records that nobody has taken yet.
        now_ns: the time.
    """

    heartbeat_interval_s: int = 5
    silence_s: float = 20.0
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    overlap_s: float = 1.0
    margin_s: float = 1.0
    most_bytes: int = 1 << 24
    now_ns: Callable[[], int] = time.time_ns


def _argument(ns: int) -> str:
    """A time as the commands take it; a date alone would stand for the whole day."""
    date, _, clock = time_text(ns).partition(" ")
    return f"{date}T{clock or '00:00:00'}"
