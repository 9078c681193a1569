"""Streams of Databento's live gateway: the bytes of a backfill of a file of the same records.

The gateway is a real one, on the loopback.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from candlebeam.cluster.problems import explain, is_hopeless
from candlebeam.feeds.clock import Clock
from candlebeam.feeds.databento_position import ASKED, DatabentoSubscription
from candlebeam.feeds.stream_errors import StreamEndedError, begin_stream, told_errors, why_ended
from candlebeam.io.follow_databento import _FEEDS, DatabentoOptions, _Follow
from candlebeam.io.live_commit import LiveCommit
from candlebeam.model import Market
from candlebeam.rules.candles import aggregate
from candlebeam.rules.open_candles import MarketUpdate, OpenCandles
from candlebeam.settings import CandleSettings
from clusters.flink import FlinkCluster
from clusters.flink_settings import RESTARTS
from tests import engines
from tests.command_line import Workspace, companions, contents, run_here
from tests.dbn_files import MIDNIGHT_NS, mapping, trade, write_dbn
from tests.drivers import Driver
from tests.live_gateway import KEY, Fault, LiveGateway, live_gateway
from tests.worker_pools import wait_until

SECOND = 10**9
MINUTE, HOUR = 60 * SECOND, 3600 * SECOND
SETTINGS = CandleSettings(corrections=())
ABC, XYZ = "DATABENTO/XNAS.ITCH/ABC", "DATABENTO/XNAS.ITCH/XYZ"
#: What is not the same in the companion of a stream and that of a backfill of a file.
_OF_THE_INPUT = ("inputs", "coveredFiles")
_SECONDS = 240


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


# The command, on Flink


def stream_command(work: Workspace, gateway: LiveGateway, engine: Sequence[object] = ()) -> Driver:
    engines.need_clusters()
    clock = tell_time(work, gateway.now_ns)
    arguments = (
        *("stream", "--databento", gateway.dataset, "--symbols", "ABC,XYZ", "--out", work.out),
        *("--gateway", f"127.0.0.1:{gateway.port}", "--clock", f"@{clock.path}"),
        *(engine or engines.embedded_stream()),
        *("--checkpointing_interval=1000", "--max_bundle_time_mills=50"),
    )
    return Driver(work.folder / "streamed", arguments)


def wait_for_candles(work: Workspace, driver: Driver, bytes_more: int = 1) -> None:
    def grown() -> bool:
        assert driver.process.poll() is None, driver.stderr
        return sum(map(len, contents(work.out).values())) >= bytes_more

    wait_until(grown, "the stream writes candles", _SECONDS)


@pytest.mark.cluster
def test_command_through_a_cut_and_a_restart(work: Workspace) -> None:
    items = [*NAMES, *TRADES]
    with live_gateway(*NAMES, now_ns=MIDNIGHT_NS) as gateway:
        with stream_command(work, gateway) as driver:
            gateway.wait_for_sessions(1)
            gateway.send(*TRADES[:20])
            wait_for_candles(work, driver)
            gateway.cut()
            gateway.send(*TRADES[20:31])
            gateway.wait_for_sessions(2)
            wait_for_candles(work, driver, 56 * 5)
            os.killpg(driver.process.pid, signal.SIGINT)
            outcome = driver.wait(_SECONDS).expect(0)
        lines = outcome.stderr.splitlines()
        assert all(line.startswith("candlebeam: ") for line in lines), outcome.stderr
        assert any("connecting again" in line for line in lines)
        assert "ended" in lines[-1]
        assert KEY not in outcome.output
        gateway.send(*TRADES[31:])
        gateway.now_ns = end_of(TRADES)
        batch = in_batch(work, items)
        with stream_command(work, gateway) as driver:

            def is_equal() -> bool:
                assert driver.process.poll() is None, driver.stderr
                return contents(work.out) == contents(batch.out)

            wait_until(is_equal, "the stream has made what a backfill makes", _SECONDS)
            os.killpg(driver.process.pid, signal.SIGINT)
            driver.wait(_SECONDS).expect(0)
    assert_equal(work, items)


@pytest.mark.cluster
def test_command_ends_where_the_gateway_refuses(work: Workspace) -> None:
    with (
        live_gateway(*NAMES, now_ns=MIDNIGHT_NS, key="db-another") as gateway,
        stream_command(work, gateway) as driver,
    ):
        outcome = driver.wait(_SECONDS).expect(1)
    assert outcome.stderr.splitlines()[-1].startswith("candlebeam: XNAS.ITCH: ")
    assert "Authentication failed" in outcome.stderr
    assert KEY not in outcome.output


@pytest.mark.cluster
def test_command_tells_what_fails_and_goes_on_once_it_can(work: Workspace) -> None:
    """Flink goes on from the last checkpoint, and says nothing about why it had to."""
    work.out.mkdir()
    obstacle = work.out / "DATABENTO"
    obstacle.write_bytes(b"")
    items = [*NAMES, *TRADES]
    with (
        live_gateway(*NAMES, now_ns=MIDNIGHT_NS) as gateway,
        stream_command(work, gateway) as driver,
    ):
        wait_until(lambda: "is not followed" in driver.stderr, "it says what fails", _SECONDS)
        obstacle.unlink()
        gateway.wait_for_sessions(1)
        gateway.send(*TRADES)
        gateway.now_ns = end_of(TRADES)
        made = contents(in_batch(work, items).out)
        wait_for_candles(work, driver, sum(map(len, made.values())))
        os.killpg(driver.process.pid, signal.SIGINT)
        outcome = driver.wait(_SECONDS).expect(0)
    told = [line for line in outcome.stderr.splitlines() if "is not followed" in line]
    assert len(told) == 1
    assert "NotADirectoryError" in told[0]
    assert_equal(work, items)


@pytest.fixture(scope="module")
def flink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlinkCluster]:
    """Whose workers have the key; what is lost is made up for from checkpoints."""
    engines.need_clusters()
    folder = tmp_path_factory.mktemp("flink")
    options = {**RESTARTS, "state.checkpoints.dir": f"file://{folder}/checkpoints"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABENTO_API_KEY", KEY)
        with FlinkCluster(folder, task_managers=2, slots=1, options=options) as cluster:
            yield cluster
        cluster.assert_nothing_left()


@pytest.mark.cluster
def test_lost_worker(work: Workspace, flink: FlinkCluster) -> None:
    items = [*NAMES, *TRADES]
    with (
        live_gateway(*NAMES, now_ns=MIDNIGHT_NS) as gateway,
        stream_command(work, gateway, engines.stream_on_flink(flink)) as driver,
    ):
        gateway.wait_for_sessions(1)
        gateway.send(*TRADES[:31])
        wait_for_candles(work, driver)
        # One of them has the session; it is gone for long enough that it is begun anew.
        for process in flink.worker_processes():
            os.kill(process, signal.SIGKILL)
        gateway.send(*TRADES[31:])
        gateway.now_ns = end_of(TRADES)
        made = contents(in_batch(work, items).out)
        wait_for_candles(work, driver, sum(map(len, made.values())))
        assert len(gateway.subscriptions()) > 1
        os.killpg(driver.process.pid, signal.SIGINT)
        driver.wait(_SECONDS).expect(0)
    assert_equal(work, items)


@pytest.mark.cluster
def test_a_refusal_on_a_cluster_ends_the_command(work: Workspace, flink: FlinkCluster) -> None:
    with (
        live_gateway(*NAMES, now_ns=MIDNIGHT_NS, key="db-another") as gateway,
        stream_command(work, gateway, engines.stream_on_flink(flink)) as driver,
    ):
        outcome = driver.wait(_SECONDS).expect(1)
    assert "Authentication failed" in outcome.stderr.splitlines()[-1]
    assert KEY not in outcome.output
