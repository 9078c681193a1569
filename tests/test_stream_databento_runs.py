"""The command that streams from Databento, on Flink: embedded and on a cluster.

The gateway is a real one, on the loopback.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from clusters.flink import FlinkCluster
from clusters.flink_settings import RESTARTS
from tests import engines
from tests.command_line import Workspace, contents
from tests.dbn_files import MIDNIGHT_NS
from tests.drivers import Driver
from tests.live_gateway import KEY, LiveGateway, live_gateway
from tests.live_streams import (
    NAMES,
    TRADES,
    assert_equal,
    end_of,
    in_batch,
    tell_time,
)
from tests.worker_pools import wait_until

pytestmark = pytest.mark.cluster(minutes=2)
_SECONDS = 240


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABENTO_API_KEY", KEY)


@pytest.fixture
def work(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


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


def test_command_ends_where_the_gateway_refuses(work: Workspace) -> None:
    with (
        live_gateway(*NAMES, now_ns=MIDNIGHT_NS, key="db-another") as gateway,
        stream_command(work, gateway) as driver,
    ):
        outcome = driver.wait(_SECONDS).expect(1)
    assert outcome.stderr.splitlines()[-1].startswith("candlebeam: XNAS.ITCH: ")
    assert "Authentication failed" in outcome.stderr
    assert KEY not in outcome.output


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


def test_a_refusal_on_a_cluster_ends_the_command(work: Workspace, flink: FlinkCluster) -> None:
    with (
        live_gateway(*NAMES, now_ns=MIDNIGHT_NS, key="db-another") as gateway,
        stream_command(work, gateway, engines.stream_on_flink(flink)) as driver,
    ):
        outcome = driver.wait(_SECONDS).expect(1)
    assert "Authentication failed" in outcome.stderr.splitlines()[-1]
    assert KEY not in outcome.output
