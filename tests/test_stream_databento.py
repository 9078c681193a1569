"""Streams of Databento's live gateway: the bytes of a backfill of a file of the same records.

The gateway is a real one, on the loopback.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from candlebeam.cluster.problems import explain, is_hopeless
from candlebeam.feeds.stream_errors import StreamEndedError, begin_stream, told_errors, why_ended
from candlebeam.io.follow_databento import _FEEDS
from tests.command_line import Workspace, companions, contents, run_here
from tests.dbn_files import MIDNIGHT_NS, write_dbn
from tests.live_gateway import KEY, Fault, live_gateway
from tests.live_streams import (
    ABC,
    MINUTE,
    NAMES,
    SECOND,
    TRADES,
    XYZ,
    Stream,
    assert_equal,
    at,
    end_of,
    in_batch,
    options_of,
    sent,
)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DATABENTO_API_KEY", KEY)
    begin_stream()
    yield
    assert not _FEEDS._feeds
    begin_stream()


@pytest.fixture
def work(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


@pytest.mark.parametrize(
    "faults",
    [[], [Fault(cut_after=3000)], [Fault(cut_after=2500, reset=True), Fault(unsorted=3)]],
    ids=["whole", "cut", "cut, and in another order"],
)
def test_candles_are_those_of_a_backfill(work: Workspace, faults: list[Fault]) -> None:
    with live_gateway(*NAMES, now_ns=MIDNIGHT_NS, faults=list(faults)) as gateway:
        stream = Stream(options_of(gateway, work))
        stream.until_connected()
        gateway.send(*TRADES)
        gateway.now_ns = end_of(TRADES)
        stream.until_heartbeat(gateway)
        stream.stop()
        assert not gateway.faults
    assert_equal(work, [*NAMES, *TRADES])


def test_a_quiet_market_closes_its_candles_by_heartbeats(work: Workspace) -> None:
    with live_gateway(*NAMES, now_ns=MIDNIGHT_NS) as gateway:
        stream = Stream(options_of(gateway, work))
        stream.until_connected()
        gateway.send(TRADES[0])
        stream.until_order(1)
        assert contents(work.out) == {}
        gateway.now_ns = MIDNIGHT_NS + MINUTE + SECOND + 250 * 10**6
        stream.until(lambda: contents(work.out) != {})
        stream.stop()
    assert_equal(work, [*NAMES, TRADES[0]])


def test_quiet_minutes_are_written_by_heartbeats_where_that_is_asked_for(work: Workspace) -> None:
    with live_gateway(*NAMES, now_ns=MIDNIGHT_NS) as gateway:
        options = options_of(gateway, work)
        stream = Stream(options._replace(quiet_candles=True))
        stream.until_connected()
        gateway.send(TRADES[0])
        stream.until_order(1)
        gateway.now_ns = MIDNIGHT_NS + 5 * MINUTE + SECOND + 250 * 10**6
        stream.until(lambda: len(next(iter(contents(work.out).values()), b"")) == 5 * 56)
        stream.stop()
        (quiet,) = contents(work.out).values()
        assert quiet[56:] == bytes(4 * 56)
        (known,) = companions(work.out).values()
        assert known["records"] == 5
        assert known["candlebeam"]["quietRecords"] == 4
        # Who goes on from it without the option takes them off.
        gateway.send(*TRADES[1:])
        gateway.now_ns = end_of(TRADES)
        stream = Stream(options)
        stream.until_heartbeat(gateway)
        stream.stop()
    assert_equal(work, [*NAMES, *TRADES])


def test_a_checkpoint_is_gone_on_from(work: Workspace) -> None:
    """What came since is replayed: to another worker, or to this one whose feed is further."""
    with live_gateway(*NAMES, now_ns=MIDNIGHT_NS) as gateway:
        stream = Stream(options_of(gateway, work))
        stream.until_connected()
        sent(gateway, stream, TRADES[:20])
        stream.until_order(20)
        checkpoint = stream.checkpoint()
        gateway.send(*TRADES[20:40])
        stream.until_order(40)
        before = contents(work.out)
        stream.restore(checkpoint)
        stream.until_order(40)
        assert contents(work.out) == before
        stream.stop()
        stream.stop()
        assert not _FEEDS._feeds
        stream.restore(checkpoint)
        gateway.send(*TRADES[40:])
        gateway.now_ns = end_of(TRADES)
        stream.until_heartbeat(gateway)
        stream.stop()
        assert len(gateway.subscriptions()) == 3
    assert_equal(work, [*NAMES, *TRADES])


def test_several_instances_use_one_session(work: Workspace) -> None:
    with live_gateway(*NAMES, *TRADES, now_ns=end_of(TRADES)) as gateway:
        stream = Stream(options_of(gateway, work))
        stream.until_heartbeat(gateway)
        first = stream.source
        stream.start()
        stream.poll()
        first.teardown()
        stream.poll()
        stream.stop()
        assert len(gateway.requests) == 1


def test_candles_that_are_there_are_gone_on_from(work: Workspace) -> None:
    """Of a stream that has ended, whose last trades were not in any candle yet."""
    with live_gateway(*NAMES, now_ns=MIDNIGHT_NS) as gateway:
        stream = Stream(options_of(gateway, work))
        stream.until_connected()
        sent(gateway, stream, TRADES[:31])
        stream.until_order(31)
        stream.stop()
        last = min(each["endTs"] for each in companions(work.out).values())
        gateway.send(*TRADES[31:50])
        gateway.now_ns = MIDNIGHT_NS + 50 * 7 * SECOND
        stream = Stream(options_of(gateway, work))
        stream.until_heartbeat(gateway)
        gateway.send(*TRADES[50:])
        gateway.now_ns = end_of(TRADES)
        stream.until_heartbeat(gateway)
        stream.stop()
        # Some minutes before the last candle of the market that was behind.
        assert int(gateway.subscriptions()[-1]["start"]) == (last - 661_000) * 10**6
    assert_equal(work, [*NAMES, *TRADES])


def test_a_market_whose_first_candles_were_lost_gets_them_again(work: Workspace) -> None:
    """A stream that was killed before a checkpoint, when one of two markets was written."""
    with live_gateway(*NAMES, now_ns=MIDNIGHT_NS) as gateway:
        stream = Stream(options_of(gateway, work))
        stream.until_connected()
        sent(gateway, stream, TRADES[:31])
        stream.until_order(31)
        stream.stop()
        for path in (work.out / "DATABENTO" / "XNAS.ITCH").glob("XYZ.*"):
            path.unlink()
        gateway.send(*TRADES[31:])
        gateway.now_ns = end_of(TRADES)
        stream = Stream(options_of(gateway, work))
        stream.until_heartbeat(gateway)
        stream.stop()
    assert_equal(work, [*NAMES, *TRADES])


def test_candles_of_a_backfill_are_gone_on_from(work: Workspace) -> None:
    path = write_dbn(work.folder / "a.dbn", [*NAMES, *TRADES[:33]], (), schema=None, stype_in=None)
    run_here("backfill", "--dbn", path, "--out", work.out).expect()
    with live_gateway(*NAMES, *TRADES, now_ns=end_of(TRADES)) as gateway:
        stream = Stream(options_of(gateway, work))
        stream.until_heartbeat(gateway)
        stream.stop()
    assert_equal(work, [*NAMES, *TRADES])


def test_candles_older_than_the_replay_keep_their_last(
    work: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_dbn(work.folder / "a.dbn", [*NAMES, *TRADES[:33]], (), schema=None, stype_in=None)
    run_here("backfill", "--dbn", path, "--out", work.out).expect()
    # Who bought is told: what was before them is not there any more.
    new = [at(place, side=b"A") for place in range(40_000, 40_050)]
    with live_gateway(*NAMES, *TRADES, *new, now_ns=end_of([], 60) + 40_050 * 7 * SECOND) as (
        gateway
    ):
        gateway.faults = [Fault(only_from=MIDNIGHT_NS + 40_000 * 7 * SECOND)]
        stream = Stream(options_of(gateway, work))
        with caplog.at_level(logging.WARNING, "candlebeam"):
            stream.until_heartbeat(gateway)
        stream.stop()
    told = [line for line in caplog.messages if line.startswith("DATABENTO/XNAS.ITCH/ABC:")]
    assert len(told) == 1
    assert "may be missing" in told[0]
    assert "candlebeam databento fetch --dataset XNAS.ITCH" in told[0]
    in_file = [*NAMES, *TRADES[:33], *new]
    batch = in_batch(work, in_file)
    assert contents(work.out) == contents(batch.out)


def test_trades_that_come_too_late_are_kept_apart(
    work: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    with live_gateway(*NAMES, now_ns=MIDNIGHT_NS) as gateway:
        stream = Stream(options_of(gateway, work, lateness_ms=0))
        stream.until_connected()
        sent(gateway, stream, TRADES)
        stream.until_order(60)
        late = at(1, event_ns=MIDNIGHT_NS + 61 * 7 * SECOND)
        with caplog.at_level(logging.WARNING, "candlebeam"):
            gateway.send(late)
            gateway.now_ns = end_of(TRADES)
            stream.until_heartbeat(gateway)
            stream.until((work.out / f"{ABC}.late").exists)
        stream.stop()
    assert "1 trade came too late" in caplog.text
    assert companions(work.out)[ABC]["candlebeam"]["lateTrades"] == 1
    batch = in_batch(work, [*NAMES, *TRADES])
    assert contents(work.out) == contents(batch.out)


def test_a_market_made_with_other_settings_is_left_alone(
    work: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_dbn(work.folder / "a.dbn", [*NAMES, *TRADES[:33]], (), schema=None, stype_in=None)
    run_here(
        "backfill", "--dbn", path, "--out", work.out, "--timeframe", "5m", "--symbol", "ABC"
    ).expect()
    before = contents(work.out)[ABC]
    with live_gateway(*NAMES, *TRADES, now_ns=end_of(TRADES)) as gateway:
        stream = Stream(options_of(gateway, work))
        with caplog.at_level(logging.WARNING, "candlebeam"):
            stream.until_heartbeat(gateway)
        stream.stop()
    assert f"{ABC} is not followed: " in caplog.text
    assert "timeframe 5m, not 1m" in caplog.text
    assert contents(work.out)[ABC] == before
    assert XYZ in contents(work.out)


def test_a_refusal_ends_the_stream(work: Workspace) -> None:
    with live_gateway(*NAMES, now_ns=MIDNIGHT_NS, key="db-another") as gateway:
        stream = Stream(options_of(gateway, work))
        with pytest.raises(StreamEndedError, match="Authentication failed") as caught:
            stream.until_heartbeat(gateway)
        stream.stop()
    assert KEY not in str(caught.value)
    assert why_ended() == str(caught.value)


def test_a_missing_key_ends_the_stream(work: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABENTO_API_KEY")
    with live_gateway(*NAMES, now_ns=MIDNIGHT_NS) as gateway:
        stream = Stream(options_of(gateway, work))
        with pytest.raises(StreamEndedError, match="no key: set DATABENTO_API_KEY"):
            stream.poll()
        stream.stop()
        assert gateway.requests == []


def test_errors_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    def fail(error: Exception) -> None:
        with told_errors("the candles cannot be made"):
            raise error

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            fail(ZeroDivisionError("by zero"))
    told = "the candles cannot be made: ZeroDivisionError: by zero"
    assert caplog.messages == [f"{told}; it is tried again from the last checkpoint"]
    assert why_ended() is None


def test_a_refusal_on_a_cluster_is_told_in_its_words() -> None:
    text = (
        "java.lang.RuntimeException: Error received from SDK harness: Traceback (most recent call"
        ' last):\n  File "x.py", line 1, in process\n'
        "candlebeam.feeds.stream_errors.StreamEndedError: XNAS.ITCH: the gateway does not let us"
        " in: no [while running 'FollowDatabento/Follow']\n\n\tat java.base/x(Y.java:1)\n"
    )
    assert is_hopeless(text)
    assert explain(text) == "XNAS.ITCH: the gateway does not let us in: no"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--databento", "XNAS.ITCH"], "expected --symbols"),
        (["--symbols", "A"], "--symbols: only with --databento"),
        (["--databento", "D", "--symbols", "A", "--root", "."], "one of --root and --databento"),
        (["--databento", "D", "--symbols", "A", "--schema", "ohlcv-1m"], "schema ohlcv-1m"),
        (["--databento", "D", "--symbols", "A", "--gateway", "host"], "expected HOST:PORT"),
        (["--databento", "D", "--symbols", "A", "--symbol", "A"], "--databento has --symbols"),
        ([], "one of --root and --databento"),
    ],
)
def test_wrong_usage(tmp_path: Path, arguments: list[str], message: str) -> None:
    outcome = run_here("stream", *arguments, "--out", tmp_path / "out").expect(2)
    assert message in outcome.stderr
