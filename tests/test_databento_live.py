"""Trades from Databento's live gateway: those that a file of the same records has, whatever fails.

The gateway is a real one, on the loopback; the client is Databento's own.
"""

from __future__ import annotations

import logging
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from databento_dbn import ErrorCode
from hypothesis import given, settings
from hypothesis import strategies as st

from candlebeam.errors import CandlebeamError, UsageError
from candlebeam.feeds.databento_live import (
    ASKED,
    DatabentoFeed,
    DatabentoSubscription,
    FeedBatch,
    FeedOptions,
    FeedPosition,
    Gap,
)
from candlebeam.feeds.handed_out import Ledger, Repeats, handed_of, row_dtype
from candlebeam.feeds.inbox import TRADES, Inbox
from candlebeam.formats.dbn.reader import DbnReader
from candlebeam.model import Market
from candlebeam.rules.months import parse_end, parse_start
from tests.dbn_files import (
    DAY_NS,
    MIDNIGHT_NS,
    UNDEFINED_PRICE,
    UNDEFINED_TIME,
    mapping,
    record,
    trade,
    write_dbn,
)
from tests.live_gateway import KEY, Fault, LiveGateway, error, live_gateway

SECOND = 10**9
HOUR = 3600 * SECOND
NOW = MIDNIGHT_NS + HOUR
ABC = Market("DATABENTO", "XNAS.ITCH", "ABC")

Row = tuple[int, float, float, int]
Rows = dict[Market, list[Row]]


def now() -> int:
    return NOW


def two_days_on() -> int:
    return NOW + 2 * DAY_NS


OPTIONS = FeedOptions(first_wait_s=0.002, longest_wait_s=0.02, margin_s=0, now_ns=now)


def at(place: int, *, instrument: int = 7, side: bytes = b"N", step: int = SECOND) -> bytes:
    """The trade at a place of a sequence."""
    price = (100 + place * 7 % 5) * 10**9
    return trade(
        place * step, price, place + 1, side, instrument=instrument, sequence=place, publisher_id=2
    )


ITEMS = [mapping(7, "ABC"), mapping(8, "XYZ"), *(at(n, instrument=7 + n % 2) for n in range(40))]


def in_file(items: Sequence[bytes]) -> Rows:
    """What the reader of files makes of a live session's records."""
    with TemporaryDirectory() as folder:
        path = write_dbn(Path(folder) / "live.dbn", items, (), schema=None, stype_in=None)
        reader = DbnReader(path)
        return rows_of(reader)


def rows_of(batches: Any) -> Rows:
    rows: Rows = {}
    for batch in batches:
        columns = (batch.ts, batch.price, batch.size, batch.buy)
        rows.setdefault(batch.market, []).extend(
            zip(*(column.tolist() for column in columns), strict=True)
        )
    return rows


def subscription(gateway: LiveGateway, *symbols: str, **options: Any) -> DatabentoSubscription:
    return DatabentoSubscription(
        gateway.dataset, symbols or ("ABC",), gateway="127.0.0.1", port=gateway.port, **options
    )


def polled(
    feed: DatabentoFeed, over: Callable[[], bool], found: list[FeedBatch] | None = None
) -> list[FeedBatch]:
    """What a feed hands out until something holds."""
    found = [] if found is None else found
    deadline = time.monotonic() + 60
    while not over():
        assert time.monotonic() < deadline, f"{len(found)} batches, {feed.position}"
        found += feed.poll(0.05)
    return found


def until_heartbeat(feed: DatabentoFeed, gateway: LiveGateway) -> list[FeedBatch]:
    """What comes until all there is has come, and a heartbeat behind it."""
    return polled(feed, lambda: (feed.watermark_ns or 0) >= gateway.now_ns)


def trades_of(found: Sequence[FeedBatch]) -> Rows:
    orders: dict[Market, int] = {}
    for batch in found:
        assert batch.first_order >= orders.get(batch.market, 0)
        assert batch.last_ts_ns == int(batch.trades.ts.max()) * 10**6
        orders[batch.market] = batch.first_order + len(batch.trades)
    return rows_of(batch.trades for batch in found)


@contextmanager
def feed_of(
    gateway: LiveGateway, start: FeedPosition | int | None = MIDNIGHT_NS, **options: Any
) -> Iterator[tuple[DatabentoFeed, list[str]]]:
    said: list[str] = []
    chosen = replace(OPTIONS, **options)
    with DatabentoFeed(subscription(gateway), KEY, start, said.append, chosen) as feed:
        yield feed, said


FAULTS = {
    "none": [],
    "cut in a record": [Fault(cut_after=1500 + 31)],
    "cut in the head": [Fault(cut_after=60)],
    "cut in the mappings": [Fault(cut_after=700)],
    "reset": [Fault(cut_after=2000, reset=True)],
    "cut again and again": [Fault(cut_after=1000 + 13 * n) for n in range(8)],
    "hung up on": [Fault(hang_up=True), Fault(early=True), Fault(hang_up=True)],
    "too many sessions": [Fault(refusal="User has reached their open connection limit")],
    "slow, in small pieces": [Fault(piece=37, pause=0.0002)],
    "ties in another order": [Fault(cut_after=2200), Fault(unsorted=3)],
    "all from the beginning again": [Fault(cut_after=2200), Fault(everything=True)],
    "an error in between": [
        Fault(message=error(NOW, "Internal", ErrorCode.INTERNAL_ERROR), message_after=20)
    ],
    "records skipped": [
        Fault(
            message=error(NOW, "Skipped", ErrorCode.SKIPPED_RECORDS_AFTER_SLOW_READING),
            message_after=15,
        )
    ],
    "an old gateway's error": [Fault(message=error(NOW, "?"), message_after=9, hang_up_then=True)],
    "no record of this encoding": [Fault(message=b"\1" * 64, message_after=12)],
}


@pytest.mark.parametrize("name", FAULTS)
def test_trades_are_those_of_a_file_of_the_same_records_whatever_fails(name: str) -> None:
    with live_gateway(*ITEMS, now_ns=NOW, faults=list(FAULTS[name])) as gateway:
        with feed_of(gateway) as (feed, _):
            found = until_heartbeat(feed, gateway)
            assert feed.gaps == []
            assert feed.unmapped == feed.disordered == 0
        assert not gateway.faults
    assert trades_of(found) == in_file(ITEMS)


def test_silence_is_taken_for_a_cut() -> None:
    with live_gateway(*ITEMS, now_ns=NOW, faults=[Fault(silent=True, untold=True)]) as gateway:
        with feed_of(gateway, silence_s=0.3) as (feed, said):
            found = until_heartbeat(feed, gateway)
        assert any("not a word from the gateway for 0 s" in line for line in said)
        assert len(gateway.requests) == 2
    assert trades_of(found) == in_file(ITEMS)


def test_heartbeats_are_no_silence() -> None:
    with live_gateway(*ITEMS, now_ns=NOW) as gateway, feed_of(gateway, silence_s=5) as (feed, _):
        until_heartbeat(feed, gateway)
        before = feed.watermark_ns
        gateway.now_ns += HOUR
        until_heartbeat(feed, gateway)
        assert (before, feed.watermark_ns) == (NOW, NOW + HOUR)
        assert len(gateway.requests) == 1


def test_a_gateway_that_is_gone_for_a_while_is_waited_for() -> None:
    with live_gateway(*ITEMS[:20], now_ns=NOW) as gateway, feed_of(gateway) as (feed, said):
        found = until_heartbeat(feed, gateway)
        gateway.refuse()
        polled(feed, lambda: sum("failed" in line for line in said) >= 3, found)
        gateway.items.extend(at(n) for n in range(4000, 4010))
        gateway.now_ns += 2 * HOUR
        gateway.listen()
        found += until_heartbeat(feed, gateway)
        assert feed.gaps == []
        assert trades_of(found) == in_file(gateway.items)


def test_records_are_handed_out_as_they_come() -> None:
    with live_gateway(mapping(7, "ABC"), now_ns=NOW) as gateway, feed_of(gateway) as (feed, _):
        found: list[FeedBatch] = []
        for place in range(3):
            gateway.send(at(place))
            polled(feed, lambda: len(found) > place, found)  # noqa: B023  called in the loop
        assert [len(batch.trades) for batch in found] == [1, 1, 1]
        assert [batch.first_order for batch in found] == [0, 1, 2]


def test_without_a_start_it_begins_now_and_nothing_is_lost_from_then_on() -> None:
    early = [mapping(7, "ABC"), at(0), at(1)]
    late = [at(3600 + n) for n in range(5)]
    with live_gateway(*early, now_ns=NOW) as gateway, feed_of(gateway, None) as (feed, _):
        gateway.wait_for_sessions(1)
        polled(feed, lambda: feed.position.start_ns is not None)
        assert feed.position.start_ns == NOW
        gateway.refuse()  # before any record
        gateway.items.extend(late)
        gateway.now_ns += HOUR
        gateway.listen()
        found = until_heartbeat(feed, gateway)
        assert gateway.subscriptions()[0].get("start") is None
        assert gateway.subscriptions()[-1]["start"] == str(NOW)
    assert trades_of(found)[ABC] == in_file([early[0], *late])[ABC]


#: Trades of up to three instruments, at few times and prices: many are alike in all there is.
trades_with_ties = st.lists(
    st.builds(
        lambda ms, instrument, price, side, late: trade(
            ms * 40_000_000, price * 10**9, 1, side, instrument=instrument,
            event_ns=MIDNIGHT_NS + ms * 40_000_000 - late,
        ),
        st.integers(0, 100),
        st.sampled_from((7, 8, 9)),
        st.sampled_from((0, 1, 2)),
        st.sampled_from((b"N", b"A", b"B")),
        st.sampled_from((0, 0, 900_000_000)),
    ),
    max_size=40,
).map(lambda items: sorted(items, key=lambda item: item[32:40][::-1]))  # fmt: skip
cuts = st.lists(
    st.builds(
        lambda after, piece, unsorted: Fault(cut_after=after, piece=piece, unsorted=unsorted),
        st.integers(1, 3500),
        st.sampled_from((1 << 16, 61)),
        st.none() | st.integers(0, 3),
    ),
    max_size=3,
)


@settings(max_examples=40)
@given(trades_with_ties, cuts, st.integers(0, 40), st.booleans())
def test_no_trade_is_lost_or_repeated_whatever_is_cut_and_wherever_another_goes_on(
    items: list[bytes], faults: list[Fault], remapped: int, handed_over: bool
) -> None:
    items = [mapping(7, "ABC"), mapping(8, "XYZ"), *items]
    items.insert(2 + min(remapped, len(items) - 2), mapping(9, "NEW"))
    with live_gateway(*items, now_ns=NOW, heartbeat_s=0.005, faults=list(faults)) as gateway:
        found: list[FeedBatch] = []
        position: FeedPosition | None = None
        while position is None or (position.watermark_ns or 0) < NOW:
            with feed_of(gateway, position or MIDNIGHT_NS) as (feed, _):
                enough = 1 if handed_over else 1_000_000
                polled(
                    feed,
                    lambda: (feed.watermark_ns or 0) >= NOW or len(found) >= enough,  # noqa: B023
                    found,
                )
                position = pickle.loads(pickle.dumps(feed.position))  # noqa: S301
                handed_over = False
                assert feed.gaps == []
    # Ties may come in another order, and the trades of an instrument without name may then differ.
    expected = in_file(items)
    told = trades_of(found)
    if any(fault.unsorted is not None for fault in faults):
        assert {m: sorted(r[:3] for r in rows) for m, rows in told.items()} == {
            m: sorted(r[:3] for r in rows) for m, rows in expected.items()
        }
    else:
        assert told == expected


def test_a_position_goes_on_in_another_process_as_if_nothing_had_been() -> None:
    with live_gateway(*ITEMS[:25], now_ns=MIDNIGHT_NS + 22 * SECOND) as gateway:
        with feed_of(gateway) as (feed, _):
            found = until_heartbeat(feed, gateway)
            position = feed.position
        stored = pickle.dumps(position)
        assert len(stored) < 1000
        assert pickle.loads(stored) == position  # noqa: S301
        gateway.items.extend(ITEMS[25:])
        gateway.now_ns = NOW
        with feed_of(gateway, position) as (feed, _):
            found += until_heartbeat(feed, gateway)
        asked = int(gateway.subscriptions()[-1]["start"])
        assert asked == position.start_ns == MIDNIGHT_NS + 21 * SECOND
    assert trades_of(found) == in_file(ITEMS)  # the sides of N as well


def test_a_start_is_a_time_of_trades_and_what_came_before_still_tells_sides() -> None:
    items = [
        mapping(7, "ABC"),
        trade(-2 * SECOND, 90 * 10**9),
        trade(-SECOND // 2, 101 * 10**9),
        trade(5, 100 * 10**9, side=b"N", event_ns=MIDNIGHT_NS - 5),  # down: a sell
        trade(SECOND, 100 * 10**9, side=b"N"),
    ]
    with live_gateway(*items, now_ns=NOW) as gateway, feed_of(gateway) as (feed, _):
        found = until_heartbeat(feed, gateway)
        assert gateway.subscriptions()[0]["start"] == str(MIDNIGHT_NS - SECOND)
    assert trades_of(found)[ABC] == in_file(items)[ABC][2:]
    assert [row[3] for row in trades_of(found)[ABC]] == [0, 0]


@pytest.mark.parametrize("schema", ["tbbo", "mbo"])
def test_other_schemas_with_trades_are_read_as_files_of_them(schema: str) -> None:
    items = [mapping(7, "ABC")]
    for place in range(30):
        action = b"TAFC"[place % 4 : place % 4 + 1]
        items.append(
            trade(place * SECOND // 9, (100 + place % 3) * 10**9, kind=schema, action=action,
                  side=b"N", sequence=place)
        )  # fmt: skip
    with live_gateway(*items, now_ns=NOW, faults=[Fault(cut_after=1800)]) as gateway:
        chosen = subscription(gateway, schema=schema)
        with DatabentoFeed(chosen, KEY, MIDNIGHT_NS, options=OPTIONS) as feed:
            found = until_heartbeat(feed, gateway)
    assert trades_of(found) == in_file(items)


def test_records_that_are_no_trades_are_counted() -> None:
    items = [
        mapping(7, "ABC"),
        at(0),
        trade(SECOND, UNDEFINED_PRICE),
        trade(2 * SECOND, instrument=99),
        trade(UNDEFINED_TIME, event_ns=MIDNIGHT_NS + 3 * SECOND),
        record("bbo-1s", instrument_id=7, ts_event=MIDNIGHT_NS + 3 * SECOND),
    ]
    with live_gateway(*items, now_ns=NOW) as gateway, feed_of(gateway) as (feed, _):
        found = until_heartbeat(feed, gateway)
        assert feed.unmapped == 1
        assert feed.rejected == {ABC: (("price", 1),)}
    assert trades_of(found) == in_file(items)


# The watermark


def test_heartbeats_do_not_move_the_watermark_before_a_replay_has_caught_up() -> None:
    fault = Fault(untold=True)
    with live_gateway(*ITEMS, now_ns=NOW, faults=[fault]) as gateway, feed_of(gateway) as (feed, _):
        found: list[FeedBatch] = []
        polled(feed, lambda: sum(len(batch.trades) for batch in found) == 40, found)
        last = MIDNIGHT_NS + 39 * SECOND
        for _ in range(10):
            feed.poll(0.03)
        assert feed.watermark_ns == last
        gateway.send(at(3601))  # younger than the session: now it has
        polled(feed, lambda: feed.watermark_ns == NOW + SECOND)
        gateway.now_ns += HOUR
        until_heartbeat(feed, gateway)


def test_a_heartbeat_counts_less_the_time_that_a_trade_may_be_on_its_way() -> None:
    with live_gateway(*ITEMS, now_ns=NOW) as gateway, feed_of(gateway, margin_s=2) as (feed, _):
        polled(feed, lambda: feed.watermark_ns == NOW - 2 * SECOND)
        assert feed.position.start_ns == NOW - 3 * SECOND


# What cannot be had again


def test_what_is_too_old_for_a_replay_is_told_with_the_command_that_fetches_it() -> None:
    items = [mapping(7, "ABC"), *(at(n) for n in range(10))]
    with live_gateway(*items, now_ns=NOW) as gateway:
        with feed_of(gateway) as (feed, _):
            until_heartbeat(feed, gateway)
            position = feed.position
        days = 2 * DAY_NS // SECOND
        late = [at(n) for n in (days, days + 5)]
        gateway.items.extend(late)
        gateway.now_ns = two_days_on()
        gateway.faults = [Fault(only_from=NOW + DAY_NS)]
        with feed_of(gateway, position, now_ns=two_days_on) as (feed, said):
            found = until_heartbeat(feed, gateway)
            (gap,) = feed.gaps
        assert gateway.subscriptions()[-1]["start"] == "0"
    assert trades_of(found)[ABC] == in_file(items + late)[ABC][10:]
    assert gap.to_ns == MIDNIGHT_NS + 2 * DAY_NS
    assert MIDNIGHT_NS + 9 * SECOND < gap.from_ns <= NOW
    (line,) = [line for line in said if "may be missing" in line]
    command = line.partition("download them: ")[2].split()
    assert command[:4] == ["candlebeam", "databento", "fetch", "--dataset"]
    assert parse_start(command[command.index("--start") + 1]) == gap.from_ns
    assert parse_end(command[command.index("--end") + 1]) == gap.to_ns


def test_a_gateway_that_no_longer_has_the_time_is_asked_for_all_it_has() -> None:
    items = [mapping(7, "ABC"), *(at(n) for n in range(20))]
    aged = error(NOW, "Replay data aged out", ErrorCode.REPLAY_DATA_AGED_OUT)
    with (
        live_gateway(*items[:11], now_ns=MIDNIGHT_NS + 9 * SECOND) as gateway,
        feed_of(gateway) as (feed, _),
    ):
        found = until_heartbeat(feed, gateway)
        gateway.faults = [Fault(message=aged, message_after=1), Fault(only_from=10)]
        gateway.items.extend(items[11:])
        gateway.now_ns = NOW
        gateway.cut()
        found += until_heartbeat(feed, gateway)
        assert feed.gaps == []  # the last ones came again, so nothing is missing
    assert [line.get("start") for line in gateway.subscriptions()][-1] == "0"
    assert trades_of(found) == in_file(items)


def test_a_replay_that_begins_too_late_is_a_gap() -> None:
    items = [mapping(7, "ABC"), *(at(n) for n in range(20))]
    faults = [Fault(cut_after=1200), Fault(only_from=MIDNIGHT_NS + 15 * SECOND)]
    with live_gateway(*items, now_ns=NOW, faults=faults) as gateway, feed_of(gateway) as (feed, _):
        rows = trades_of(until_heartbeat(feed, gateway))[ABC]
        (gap,) = feed.gaps
    expected = in_file(items)[ABC]
    kept = [row for row in expected if not gap.from_ns // 10**6 < row[0] < gap.to_ns // 10**6]
    assert [row[:3] for row in rows] == [row[:3] for row in kept]
    assert 0 < len(kept) < len(expected)


# Refusals


def test_a_wrong_key_ends_the_feed_with_one_line_and_is_not_tried_again() -> None:
    with live_gateway(*ITEMS, now_ns=NOW, key="db-another-key-than-the-users-1") as gateway:
        with feed_of(gateway) as (feed, _), pytest.raises(CandlebeamError) as failure:
            polled(feed, lambda: False)
        with pytest.raises(CandlebeamError, match=r"Authentication failed"):
            feed.poll(0)
        assert str(failure.value) == (
            "XNAS.ITCH: the gateway does not let us in: Authentication failed."
        )
        assert len(gateway.requests) == 1


def test_a_subscription_that_is_refused_ends_the_feed() -> None:
    with live_gateway(now_ns=NOW) as gateway:
        chosen = subscription(gateway, schema="mbp-1")
        refusal = pytest.raises(CandlebeamError, match="refuses the subscription: Invalid schema")
        with DatabentoFeed(chosen, KEY, options=OPTIONS) as feed, refusal:
            polled(feed, lambda: False)
        assert len(gateway.requests) == 1


def test_a_type_of_symbols_that_the_library_does_not_know_ends_the_feed() -> None:
    with live_gateway(now_ns=NOW) as gateway:
        chosen = subscription(gateway, stype_in="sort_of")
        refusal = pytest.raises(CandlebeamError, match=r"the subscription: .*sort_of")
        with DatabentoFeed(chosen, KEY, options=OPTIONS) as feed, refusal:
            polled(feed, lambda: False)


def test_a_symbol_that_is_unknown_is_told_and_the_others_go_on() -> None:
    with live_gateway(*ITEMS, now_ns=NOW, known={"ABC"}) as gateway:
        said: list[str] = []
        chosen = subscription(gateway, "ABC", "NOPE")
        with DatabentoFeed(chosen, KEY, MIDNIGHT_NS, said.append, OPTIONS) as feed:
            assert trades_of(until_heartbeat(feed, gateway)) == in_file(ITEMS)
        assert "the gateway reports an error: Failed to resolve symbol: NOPE" in said
        chosen = subscription(gateway, "NOPE", "NADA")
        refusal = pytest.raises(CandlebeamError, match="Failed to resolve symbol: NADA")
        with DatabentoFeed(chosen, KEY, MIDNIGHT_NS, options=OPTIONS) as feed, refusal:
            polled(feed, lambda: False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schema": "ohlcv-1m"}, "schema ohlcv-1m: expected one with trades"),
        ({"symbols": ()}, "symbols: expected at least one"),
        ({"symbols": ("ES.v.0", "SPY")}, "ES.v.0 is continuous, SPY is raw_symbol"),
        ({"dataset": " "}, "dataset: expected a name"),
        ({"names": "nick"}, "names nick: expected contract or asked"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_asked(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        DatabentoSubscription(**{"dataset": "GLBX.MDP3", "symbols": ("ESH4",), **options})


def test_the_key_is_shown_nowhere(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    faults = [
        Fault(message=error(NOW, f"your key {KEY} is wrong"), message_after=4),
        Fault(cut_after=900),
        Fault(hang_up=True),
        Fault(refusal=f"limit of {KEY}"),
        Fault(refusal=f"no such key: {KEY}"),
    ]
    shown: list[str] = []
    with live_gateway(*ITEMS, now_ns=NOW, faults=faults) as gateway:
        chosen = subscription(gateway)
        with DatabentoFeed(chosen, KEY, MIDNIGHT_NS, shown.append, OPTIONS) as feed:
            with pytest.raises(CandlebeamError) as failure:
                polled(feed, lambda: False)
            shown += [repr(feed), str(feed), repr(chosen), repr(feed.position)]
            shown += [repr(failure.value), repr(pickle.dumps((chosen, feed.position)))]
    shown += [record.getMessage() for record in caplog.records]
    shown += capfd.readouterr()
    assert sum("***" in line for line in shown) >= 3
    assert [line for line in shown if KEY[-5:] in line] == []


# Continuous contracts


def continuous(gateway: LiveGateway, *symbols: str, **options: Any) -> DatabentoSubscription:
    return subscription(gateway, *(symbols or ("ES.v.0",)), **options)


def market(symbol: str) -> Market:
    return Market("DATABENTO", "XNAS.ITCH", symbol)


def test_a_continuous_contract_has_the_names_of_its_contracts_or_its_own() -> None:
    items = [
        mapping(1, "ESH4", "ES.v.0"), *(at(n, instrument=1) for n in range(5)),
        mapping(2, "ESM4", "ES.v.0"), *(at(n, instrument=2) for n in range(5, 9)),
    ]  # fmt: skip
    with live_gateway(*items, now_ns=NOW, faults=[Fault(cut_after=1300)]) as gateway:
        with DatabentoFeed(continuous(gateway), KEY, MIDNIGHT_NS, options=OPTIONS) as feed:
            told = trades_of(until_heartbeat(feed, gateway))
        assert gateway.subscriptions()[0]["stype_in"] == "continuous"
        chosen = continuous(gateway, names=ASKED)
        with DatabentoFeed(chosen, KEY, MIDNIGHT_NS, options=OPTIONS) as feed:
            named = trades_of(until_heartbeat(feed, gateway))
    assert told == in_file(items)
    assert {key.symbol: len(rows) for key, rows in told.items()} == {"ESH4": 5, "ESM4": 4}
    own = [mapping(1, "ES.v.0"), *items[1:6], mapping(2, "ES.v.0"), *items[7:]]
    assert named == in_file(own)
    assert list(named) == [market("ES.v.0")]


def test_a_new_day_is_a_new_session_as_the_gateway_does_not_follow_rolls() -> None:
    clock = [MIDNIGHT_NS + DAY_NS - 20 * SECOND]
    day = DAY_NS // SECOND
    old = [at(n, instrument=1) for n in range(day - 10, day)]
    both = [at(n, instrument=1 + n % 2) for n in range(day - 3, day + 6)]
    with live_gateway(now_ns=clock[0], mappings=[mapping(1, "ESH4", "ES.v.0")]) as gateway:
        options = replace(OPTIONS, now_ns=lambda: clock[0])
        chosen = continuous(gateway, names=ASKED)
        with DatabentoFeed(chosen, KEY, clock[0], options=options) as feed:
            gateway.wait_for_sessions(1)
            gateway.send(*old)
            found: list[FeedBatch] = []
            polled(feed, lambda: sum(len(batch.trades) for batch in found) == 10, found)
            # From midnight on it is another contract, whose trades of before are not the
            # continuous one's.
            gateway.mappings = [mapping(2, "ESM4", "ES.v.0")]
            gateway.items = [item for item in both if item[4] == 2]
            clock[0] = MIDNIGHT_NS + DAY_NS + 10 * SECOND
            gateway.now_ns = clock[0]
            found += until_heartbeat(feed, gateway)
            assert feed.gaps == []
            assert len(gateway.requests) == 2
    (rows,) = trades_of(found).values()
    midnight = (MIDNIGHT_NS + DAY_NS) // 10**6
    assert [row[0] - midnight for row in rows] == [
        *range(-10_000, 0, 1000), *(n * 1000 for n in range(6) if both[n + 3][4] == 2)
    ]  # fmt: skip


def test_a_roll_while_there_was_no_connection_is_a_gap() -> None:
    with live_gateway(
        *(at(n, instrument=1) for n in range(5)),
        now_ns=NOW, mappings=[mapping(1, "ESH4", "ES.v.0")],
    ) as gateway:  # fmt: skip
        with DatabentoFeed(continuous(gateway), KEY, MIDNIGHT_NS, options=OPTIONS) as feed:
            until_heartbeat(feed, gateway)
            position = feed.position
        gateway.mappings = [mapping(2, "ESM4", "ES.v.0")]
        gateway.now_ns = NOW + DAY_NS - HOUR // 2
        said: list[str] = []
        options = replace(OPTIONS, now_ns=lambda: gateway.now_ns)
        with DatabentoFeed(continuous(gateway), KEY, position, said.append, options) as feed:
            until_heartbeat(feed, gateway)
            assert [gap[:2] for gap in feed.gaps] == [(NOW, MIDNIGHT_NS + DAY_NS)]
        assert any("--symbols ES.v.0" in line and "rolled" in line for line in said)


def test_two_names_of_one_instrument_cannot_both_be_its_name() -> None:
    items = [mapping(1, "ESH4", "ES.v.0"), mapping(1, "ESH4", "ES.c.0"), at(0, instrument=1)]
    with live_gateway(*items, now_ns=NOW) as gateway:
        chosen = continuous(gateway, "ES.v.0", "ES.c.0", names=ASKED)
        refusal = pytest.raises(CandlebeamError, match=r"ES\.v\.0 and ES\.c\.0 are the same")
        with DatabentoFeed(chosen, KEY, MIDNIGHT_NS, options=OPTIONS) as feed, refusal:
            polled(feed, lambda: False)


def test_a_poll_that_fails_with_trades_in_hand_leaves_no_position_behind() -> None:
    items = [mapping(7, "ABC"), at(0), at(1), mapping(8, "ABC", "ABD"), at(2, instrument=8)]
    with live_gateway(*items, now_ns=NOW) as gateway, feed_of(gateway) as (feed, _):
        found = until_heartbeat(feed, gateway)
        before = feed.position
        long = record("trades", ts_out=True, instrument_id=7, action=b"T")
        gateway.send(at(3700), long)
        with pytest.raises(CandlebeamError, match="records of trades of 48 bytes, found one"):
            polled(feed, lambda: False)
        with pytest.raises(CandlebeamError, match="go on from its position of before"):
            _ = feed.position
        with pytest.raises(CandlebeamError, match="expected records of trades of 48"):
            feed.poll(0)
        gateway.items.remove(long)
        with feed_of(gateway, before) as (again, _):
            gateway.now_ns += HOUR
            found += until_heartbeat(again, gateway)
    assert trades_of(found) == in_file(gateway.items)


def test_a_trade_that_came_late_by_its_own_time_is_not_lost_by_a_cut_before_it() -> None:
    late = trade(2_100_000_000, event_ns=MIDNIGHT_NS + 1_300_000_000)
    items = [mapping(7, "ABC"), at(1), at(2), late, at(4)]
    faults = [Fault(cut_after=800)]  # behind the second trade
    with live_gateway(*items, now_ns=NOW, faults=faults) as gateway, feed_of(gateway) as (feed, _):
        found = until_heartbeat(feed, gateway)
        assert gateway.subscriptions()[1]["start"] == str(MIDNIGHT_NS + SECOND)
        assert feed.disordered == 0
    assert trades_of(found) == in_file(items)


def test_a_wrong_time_of_the_exchange_does_not_move_replays_into_the_future() -> None:
    wrong = trade(2 * SECOND, event_ns=MIDNIGHT_NS + 400 * DAY_NS)
    items = [mapping(7, "ABC"), at(0), wrong, *(at(n) for n in range(3, 9))]
    with live_gateway(*items, now_ns=NOW, faults=[Fault(cut_after=850)]) as gateway:
        with feed_of(gateway) as (feed, _):
            found = until_heartbeat(feed, gateway)
        assert all(int(line["start"]) < NOW for line in gateway.subscriptions())
    assert trades_of(found) == in_file(items)


# Memory, threads, sockets


def test_what_nobody_takes_is_not_heaped_up_and_not_lost() -> None:
    items = [mapping(7, "ABC"), *(at(n, step=SECOND // 1000) for n in range(20_000))]
    with (
        live_gateway(*items, now_ns=NOW) as gateway,
        feed_of(gateway, most_bytes=4800, silence_s=0.2) as (feed, _),
    ):
        deadline = time.monotonic() + 60
        while not feed._inbox.full and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.5)  # longer than silence may be: it is ours
        assert feed._inbox.full
        assert feed._inbox._bytes < 4800 + 320
        found = until_heartbeat(feed, gateway)
        assert len(gateway.requests) == 1
    assert trades_of(found) == in_file(items)


def open_files() -> int:
    return len(os.listdir("/dev/fd"))


def test_nothing_is_left_open_however_it_ends() -> None:
    with live_gateway(*ITEMS, now_ns=NOW) as gateway:
        with feed_of(gateway) as (feed, _):  # what the libraries open once
            until_heartbeat(feed, gateway)
        gateway.wait_for_sessions(1)
        threads = {thread for thread in threading.enumerate() if "databento" in thread.name}
        assert threads == set()
        files = open_files()
        for faults in ([], [Fault(mute=True)], [Fault(cut_after=900)] * 4, [Fault(hang_up=True)]):
            gateway.faults = list(faults)
            before = len(gateway.requests)
            with feed_of(gateway) as (feed, _):
                polled(feed, lambda: len(gateway.requests) > before)  # noqa: B023
        with feed_of(gateway, most_bytes=100) as (feed, _):
            pass
        assert not [each for each in threading.enumerate() if "databento" in each.name]
        gateway.close()
        # Only the listener and its connections of the gateway may have gone meanwhile.
        assert open_files() <= files


def test_a_feed_that_was_closed_hands_out_nothing_more_and_keeps_its_position() -> None:
    with live_gateway(*ITEMS, now_ns=NOW) as gateway, feed_of(gateway) as (feed, _):
        found = until_heartbeat(feed, gateway)
        position = feed.position
        feed.close()
        assert feed.poll(5) == []
        assert feed.position == position
    assert trades_of(found) == in_file(ITEMS)


# The parts


def rows_for(*items: bytes) -> Any:
    return np.frombuffer(b"".join(items), row_dtype("trades"))


def test_repeats_are_told_by_what_the_exchange_said_and_by_how_often() -> None:
    one, two = at(1), at(2)
    same_again = bytearray(one)
    same_again[32:40] = bytes(8)  # another time of receipt: the same trade
    known = handed_of(rows_for(one, one, two)).tobytes()
    repeats = Repeats(known)
    assert repeats.new(handed_of(rows_for(two, bytes(same_again), one, one))).tolist() == [
        False, False, False, True
    ]  # fmt: skip
    assert (repeats.found, len(repeats), repeats.end()) == (3, 0, 0)


@pytest.mark.parametrize(
    "field",
    ["publisher_id", "instrument_id", "ts_event", "price", "size", "side", "sequence"],
)
def test_a_record_that_differs_in_anything_is_another(field: str) -> None:
    dtype = row_dtype("trades")
    rows = np.frombuffer(at(1) + at(1), dtype).copy()
    rows[field][1] = b"A" if field == "side" else rows[field][1] + 1
    first, second = handed_of(rows)["fingerprint"].tolist()
    assert first != second


def test_a_ledger_keeps_what_a_replay_may_bring_again_and_no_more() -> None:
    ledger = Ledger(3 * SECOND, None)
    for place in range(20):
        ledger.add(handed_of(rows_for(at(place))), MIDNIGHT_NS + place * SECOND)
    assert ledger.start_ns == MIDNIGHT_NS + 16 * SECOND
    assert len(ledger.handed()) == 4 * 16
    ledger.reach(MIDNIGHT_NS + 21 * SECOND)
    assert len(ledger.handed()) == 2 * 16
    assert ledger.disordered == 0
    ledger.add(handed_of(rows_for(at(5))), MIDNIGHT_NS + 5 * SECOND)
    assert ledger.disordered == 1
    ledger.reach(MIDNIGHT_NS + HOUR)
    assert ledger.handed() == b""
    assert ledger.start_ns == MIDNIGHT_NS + HOUR - 3 * SECOND


def test_an_inbox_that_is_full_waits_until_it_is_emptied_or_closed() -> None:
    inbox = Inbox(48)
    inbox.put(TRADES, b"a" * 48)
    thread = threading.Thread(target=inbox.put, args=(TRADES, b"b" * 48))
    thread.start()
    while not inbox.full:
        time.sleep(0.001)
    assert [bytes(item.data) for item in inbox.take(0)] == [b"a" * 48]
    thread.join()
    assert [bytes(item.data) for item in inbox.take(0)] == [b"b" * 48]
    inbox.close()
    inbox.put(TRADES, b"c")
    assert inbox.take(0) == []
    assert not inbox.wait_until_empty()


def test_the_command_for_a_gap_can_be_given_as_it_is() -> None:
    chosen = DatabentoSubscription("GLBX.MDP3", ("es.fut",))
    assert chosen.fetch_command(MIDNIGHT_NS, MIDNIGHT_NS + 1) == (
        "candlebeam databento fetch --dataset GLBX.MDP3 --symbols ES.FUT --schema trades"
        " --start 2024-03-04T00:00:00 --end 2024-03-04T00:00:00.000000001 --out downloads"
    )
    assert Gap(1, 2, "why").reason == "why"
