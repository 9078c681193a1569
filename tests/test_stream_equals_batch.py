"""A stream of growing logs gives the files of a backfill, whatever happens on the way."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from candlebeam.formats.candles.companion import CandlePaths, Companion, read_companion
from candlebeam.market import Market
from tests.candle_pairs import traded_files
from tests.direct_backfill import backfill
from tests.growing_archive import FOLDERS, MINUTE, GrowingArchive, all_files
from tests.streamed import Stream

LATENESS_MS = 10 * MINUTE
MARKETS = (
    Market("RAM", "BINANCE", "btcusdt"),
    Market("RAM", "BITGET", "BTCUSDT"),
    Market("RAM", "POLONIEX", "BTC_USDT"),
    Market("PI", "KRAKEN", "XBT-USDT"),
)
#: Prices that ask for another scale as time passes, with and without rounding.
REGIMES = (("plain",), ("plain", "tiny"), ("plain", "limit"), ("noise",), ("plain", "wild", "huge"))


def fresh(archive: GrowingArchive, folder: Path) -> dict[str, bytes]:
    """The files that a backfill makes of an archive as it is now."""
    out = folder / "fresh"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    for outcome in backfill(archive.root, out).values():
        assert outcome.error is None
    return all_files(out)


class Run:
    """A stream of an archive that grows, and what is done with it."""

    def __init__(self, folder: Path, rng: Random, archive: GrowingArchive, quiet: bool) -> None:
        self.folder, self.rng, self.archive, self.quiet = folder, rng, archive, quiet
        self.out = folder / "out"
        self.out.mkdir()
        self.checkpoints: list[tuple[bytes, set[Market]]] = []
        self.is_stopped = False
        self._start()

    def _start(self) -> None:
        self.stream = Stream(
            self.archive.root,
            self.out,
            lateness_ms=LATENESS_MS,
            quiet_candles=self.quiet and self.rng.random() < 0.8,
        )
        self.stream.clock.time_ms = self.archive.now

    def poll(self) -> None:
        # Nothing that is still to be written is out of time by this clock.
        self.stream.clock.time_ms = max(
            self.stream.clock.time_ms, self.archive.now - self.rng.choice((0, 0, 3_000, 90_000))
        )
        self.stream.poll()
        if self.stream.given_up:
            for reason in self.stream.given_up.values():
                assert "price scale" in reason
            self.is_stopped = True

    def companions(self) -> dict[tuple[str, ...], Companion]:
        found = {}
        for market, folders in zip(MARKETS, FOLDERS, strict=True):
            companion = read_companion(CandlePaths.of(str(self.out), market).companion)
            if companion is not None:
                found[folders] = companion.traded
        return found

    def can_be_gone_on_from(self) -> bool:
        """Whether nothing of what is to be read is older than the last candles, or told twice.

        What is behind these bounds a later run takes for late.
        """
        for folders, companion in self.companions().items():
            from_ts = companion.end_ts - companion.timeframe.ms
            later = self.archive.written_ts(folders, companion.last_input_start_ts + 1)
            if any(ts < from_ts for ts in [*later, *self.archive.torn_ts()]):
                return False
        return True

    def can_be_left(self) -> bool:
        """Whether what will come will be no older than the last candles."""
        return self.can_be_gone_on_from() and all(
            ts >= companion.end_ts - companion.timeframe.ms
            for folders, companion in self.companions().items()
            for ts in self.archive.unwritten_ts(folders)
        )

    def check_promise(self) -> None:
        """A backfill goes on from the files as if it had made them."""
        self.check_pairs()
        if self.is_stopped or not self.can_be_gone_on_from():
            return
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.out, copy)
        for outcome in backfill(self.archive.root, copy).values():
            assert outcome.error is None
        assert traded_files(copy) == fresh(self.archive, self.folder)

    def check_pairs(self) -> None:
        for folders, companion in self.companions().items():
            market = MARKETS[FOLDERS.index(folders)]
            paths = CandlePaths.of(str(self.out), market)
            whole = read_companion(paths.companion)
            assert whole is not None
            assert Path(paths.records).stat().st_size == whole.size
            assert not Path(paths.late).exists()
            assert companion.state is not None
            assert companion.state.late_trades == 0

    def restore(self) -> None:
        if not self.checkpoints:
            return
        checkpoint, known = self.rng.choice(self.checkpoints[-4:])
        self.poll()
        begun = {MARKETS[FOLDERS.index(folders)] for folders in self.companions()}
        # Of a market that it does not know, the files are gone on from.
        if not self.is_stopped and (begun <= known or self.can_be_left()):
            self.stream.restore(checkpoint)

    def start_anew(self) -> None:
        if not self.is_stopped and self.can_be_left():
            self.checkpoints = []
            self._start()

    def backfill_and_start_anew(self) -> None:
        # Of a stream that has said that it cannot go on, nothing more is expected.
        if not self.is_stopped and not self.can_be_left():
            return
        before = self.folder / "before"
        shutil.rmtree(before, ignore_errors=True)
        shutil.copytree(self.out, before)
        backfill(self.archive.root, self.out)
        if self.can_be_left():
            self.checkpoints, self.is_stopped = [], False
            self._start()
        else:
            shutil.rmtree(self.out)
            shutil.copytree(before, self.out)

    def step(self, handovers: bool) -> None:
        self.archive.pass_time()
        for _ in range(self.rng.choice((0, 1, 1, 2))):
            self.poll()
            if self.rng.random() < 0.3:
                self.check_promise()
        kind = self.rng.random()
        if kind < 0.3:
            known = set(self.stream.places)
            self.checkpoints.append((self.stream.checkpoint(), known))
        elif kind < 0.45:
            self.restore()
        elif kind < 0.55 and handovers:
            self.poll()
            self.start_anew()
        elif kind < 0.65 and handovers:
            self.poll()
            self.backfill_and_start_anew()

    def finish(self) -> None:
        self.archive.write_all()
        self.stream.clock.time_ms = self.archive.end + 24 * 60 * MINUTE
        for _ in range(100):
            if not self.stream.poll():
                break
        else:
            raise AssertionError("it does not come to an end")
        if self.stream.given_up:
            # What the user is told to do.
            backfill(self.archive.root, self.out)
        assert traded_files(self.out) == fresh(self.archive, self.folder)


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    deadline=None,
)
@given(
    seed=st.integers(0, 1 << 32),
    markets=st.integers(1, 4),
    hours=st.integers(1, 5),
    rows=st.sampled_from([5, 20, 60]),
    delay_ms=st.sampled_from([0, 300, 20_000, 8 * MINUTE]),
    held_ms=st.sampled_from([0, 1_000, 90_000]),
    regimes=st.sampled_from(REGIMES),
    handovers=st.booleans(),
    quiet=st.booleans(),
)
def test_files_of_a_stream_are_those_of_a_backfill(
    seed: int,
    markets: int,
    hours: int,
    rows: int,
    delay_ms: int,
    held_ms: int,
    regimes: tuple[str, ...],
    handovers: bool,
    quiet: bool,
) -> None:
    rng = Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive = GrowingArchive(
            folder / "archive",
            rng,
            markets=markets,
            hours=hours,
            rows=rows,
            delay_ms=delay_ms,
            held_ms=held_ms,
            regimes=regimes,
        )
        run = Run(folder, rng, archive, quiet)
        while archive.now < archive.end:
            run.step(handovers)
        run.finish()
