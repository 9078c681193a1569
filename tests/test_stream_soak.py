"""A stream that goes on for days of the archive's time: what it holds does not grow.

The same on Flink, with memory of all its processes, is a part of `make bench-stream`.
"""

from __future__ import annotations

import gc
import gzip
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.archives import file_name
from tests.command_line import Workspace, companions, contents
from tests.streamed import Stream

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
#: 2024-03-02T00:00Z
START = 1_709_337_600_000
MARKETS = ("RAM/btc/BINANCE/btcusdt", "RAM/alts/KRAKEN/XBT-USDT", "PI/alts/OKEX/pepe")
STEP = 20 * MINUTE
DAYS = 4
#: What is kept of a log that was found, at most.
_BYTES_A_LOG = 600


def rows(market: int, since: int, until: int) -> Iterator[str]:
    """Rows of a market, one in two minutes but for quiet hours; every ninth comes late."""
    for ts in range(since, until, 2 * MINUTE):
        minute = ts // MINUTE
        if ts // HOUR % (market + 4) == 0:
            continue
        late = 7 * MINUTE if minute % 9 == 0 else 0
        yield f"{ts - late + market} {100 + minute % 97 / 100:.2f} {minute % 5 + 1} {minute % 2}\n"


class Collector:
    """Writes logs of an hour; packs one some minutes after its last row."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def go_on(self, now: int) -> None:
        for number, market in enumerate(MARKETS):
            folder = self._root / market
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / file_name(now - now % HOUR)).open("a") as log:
                log.writelines(rows(number, now, now + STEP))
            if now % HOUR == STEP:
                self._pack(folder / file_name(now - now % HOUR - HOUR))

    def _pack(self, log: Path) -> None:
        if log.exists():
            packed = log.with_name(log.name + ".gz")
            packed.write_bytes(gzip.compress(log.read_bytes(), mtime=0))
            log.unlink()


@pytest.mark.slow
def test_days_of_a_stream(tmp_path: Path) -> None:
    work = Workspace(tmp_path)
    collector, stream = Collector(work.archive), Stream(work.archive, work.out)

    def days(first: int, end: int) -> tuple[int, int]:
        """Goes on for some days; the bytes of a checkpoint and the open files in the end."""
        for now in range(START + first * DAY, START + end * DAY, STEP):
            collector.go_on(now)
            stream.clock.time_ms = now + STEP
            while stream.poll():
                pass
        gc.collect()
        return len(stream.checkpoint()), len(os.listdir("/dev/fd"))

    # The first days fill what is kept of the past.
    checkpoint, files = days(0, 2)
    tracemalloc.start()
    try:
        last_checkpoint, last_files = days(2, DAYS)
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert not stream.given_up
    assert last_checkpoint < checkpoint * 1.05
    assert last_files == files
    assert grown < (DAYS - 2) * 24 * len(MARKETS) * _BYTES_A_LOG + 100_000
    stream.clock.time_ms += DAY
    while stream.poll():
        pass
    work.index().expect()
    work.backfill("--out", tmp_path / "batch")
    assert contents(work.out) == contents(tmp_path / "batch")
    assert companions(work.out) == companions(tmp_path / "batch")
