"""Candles without trades that a stream writes as time passes, and what goes on from them."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.test_stream import TestStream
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from candlebeam.errors import FormatError
from candlebeam.feeds.clock import Clock
from candlebeam.formats.candles.checks import check_candles
from candlebeam.formats.candles.companion import CandlePaths, Companion, read_companion
from candlebeam.formats.candles.file import open_candles
from candlebeam.io.candle_writer import append, overwrite, recover
from candlebeam.model import Market, Records
from candlebeam.outcome import UP_TO_DATE
from candlebeam.rules.open_candles import CandleUpdate, MarketUpdate, OpenCandles
from candlebeam.transforms.live import CloseCandles
from tests.candle_pairs import STATE, companion_of, some_records, traded_files, write_pair
from tests.direct_backfill import backfill
from tests.failing_disk import FailingDisk
from tests.growing_archive import MINUTE, START, GrowingArchive, all_files
from tests.streamed import Stream
from tests.test_live_transforms import at, minutes_of, update
from tests.test_stream_equals_batch import LATENESS_MS, fresh
from tests.trade_batches import MARKET
from tests.trade_batches import MINUTE as ONE_MINUTE

FOLDER = "RAM/btc/BINANCE/btcusdt"
STEM = "RAM/BINANCE/btcusdt"


class Replay:
    """A log that grows, and a stream of it."""

    def __init__(self, folder: Path, *, quiet_candles: bool = True) -> None:
        self.root, self.out = folder / "archive", folder / "out"
        self.log = self.root / FOLDER / "2024-03-02-00"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.start(quiet_candles)

    def start(self, quiet_candles: bool = True) -> None:
        self.stream = Stream(self.root, self.out, quiet_candles=quiet_candles)

    def trade(self, *minutes: float) -> None:
        with open(self.log, "a") as file:
            file.writelines(f"{START + round(each * MINUTE)} {each + 2} 1 1\n" for each in minutes)

    def go_on(self, minute: float) -> None:
        self.stream.clock.time_ms = START + round(minute * MINUTE)
        while self.stream.poll():
            pass
        assert self.stream.given_up == {}

    @property
    def counts(self) -> tuple[int, int]:
        """Records, and how many of them are quiet."""
        companion = read_companion(str(self.out / f"{STEM}.json"))
        assert companion is not None
        assert companion.state is not None
        assert (self.out / f"{STEM}.bin").stat().st_size == companion.size
        return companion.records, companion.state.quiet

    def fresh(self, folder: Path) -> dict[str, bytes]:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        backfill(self.root, folder)
        return all_files(folder)


@pytest.fixture
def replay(tmp_path: Path) -> Replay:
    return Replay(tmp_path)


# As time passes


def test_quiet_minutes_are_written_as_time_passes(replay: Replay, tmp_path: Path) -> None:
    replay.trade(0.5, 1.5)
    replay.go_on(2)
    assert replay.counts == (2, 0)
    assert all_files(replay.out) == replay.fresh(tmp_path / "fresh")
    for minute, records in ((2.9, 2), (3, 3), (3.5, 3), (4, 4), (9, 9), (1500.1, 1500)):
        replay.go_on(minute)
        assert replay.counts == (records, records - 2)
        assert traded_files(replay.out) == replay.fresh(tmp_path / "fresh")
    replay.trade(1502.5)
    replay.go_on(1503)
    assert replay.counts == (1503, 0)
    assert all_files(replay.out) == replay.fresh(tmp_path / "fresh")


def test_late_trade_in_a_quiet_minute_leaves_the_others_quiet(
    replay: Replay, tmp_path: Path
) -> None:
    replay.trade(0.5)
    replay.go_on(8)
    replay.trade(3.5)
    replay.go_on(8)
    assert replay.counts == (8, 4)
    assert traded_files(replay.out) == replay.fresh(tmp_path / "fresh")
    replay.trade(7.2, 5.5)
    replay.go_on(8.5)
    assert replay.counts == (8, 0)
    assert all_files(replay.out) == replay.fresh(tmp_path / "fresh")


def test_without_the_option_nothing_quiet_is_written(tmp_path: Path) -> None:
    replay = Replay(tmp_path, quiet_candles=False)
    replay.trade(0.5)
    replay.go_on(9)
    assert replay.counts == (1, 0)
    assert b"quietRecords" not in (replay.out / f"{STEM}.json").read_bytes()


@settings(
    max_examples=20,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    deadline=None,
)
@given(
    seed=st.integers(0, 1 << 32),
    rows=st.sampled_from([2, 5, 20]),
    delay_ms=st.sampled_from([0, 20_000, 8 * MINUTE]),
    held_ms=st.sampled_from([0, 90_000]),
)
def test_the_pair_is_that_of_a_stream_without_and_zeros_up_to_the_watermark(
    seed: int, rows: int, delay_ms: int, held_ms: int
) -> None:
    rng = Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive = GrowingArchive(
            folder / "archive",
            rng,
            markets=2,
            hours=3,
            rows=rows,
            delay_ms=delay_ms,
            held_ms=held_ms,
            regimes=("plain",),
        )
        streams = {
            quiet: Stream(
                archive.root, folder / str(quiet), lateness_ms=LATENESS_MS, quiet_candles=quiet
            )
            for quiet in (False, True)
        }
        for out in ("False", "True", "on"):
            (folder / out).mkdir()
        while archive.now < archive.end:
            archive.pass_time()
            now = archive.now - rng.choice((0, 0, 3_000, 90_000))
            for stream in streams.values():
                stream.clock.time_ms = max(stream.clock.time_ms, now)
                stream.poll()
                assert stream.given_up == {}
            plain, quiet = traded_files(folder / "False"), traded_files(folder / "True")
            assert {n: _known(n, data) for n, data in plain.items()} == {
                n: _known(n, data) for n, data in quiet.items()
            }
            for market, place in streams[True].places.items():
                _check_end(folder / "True", market, place.watermark)
        archive.write_all()
        shutil.copytree(folder / "True", folder / "on", dirs_exist_ok=True)
        for outcome in backfill(archive.root, folder / "on", rebuild_late=True).values():
            assert outcome.error is None
        assert traded_files(folder / "on") == fresh(archive, folder)


def _known(name: str, data: bytes) -> object:
    """What is in a file, but for how far inputs have been read in candles that are still open."""
    if not name.endswith(".json"):
        return data
    values = json.loads(data)
    values["candlebeam"]["inputs"] = [each[:2] for each in values["candlebeam"]["inputs"]]
    return values


def _check_end(out: Path, market: Market, watermark: int) -> None:
    companion = read_companion(CandlePaths.of(str(out), market).companion)
    if companion is not None:
        assert companion.end_ts == max(companion.traded.end_ts, watermark - watermark % MINUTE)


def test_quiet_spans_take_no_memory() -> None:
    candles = OpenCandles(MARKET, ONE_MINUTE, 120_000, quiet=True)
    candles.add(update(0.5, watermark=1)[1])
    assert candles.close() is not None
    _, later = update(watermark=100 * 24 * 60 + 0.5)
    candles.add(later)
    closed = candles.close()
    assert closed is not None
    assert (len(closed.block), closed.quiet) == (1, 100 * 24 * 60 - 1)
    assert closed.end_ts - closed.traded_end_ts == closed.quiet * MINUTE
    assert candles.close() is None


# What goes on from them


@pytest.mark.parametrize("minutes", [(), (0.9,), (1.5,), (4.5,), (1.2, 9.5), (10.5,), (2000.5,)])
def test_backfill_goes_on_as_if_they_were_not_there(
    replay: Replay, tmp_path: Path, minutes: tuple[float, ...]
) -> None:
    replay.trade(0.5)
    replay.go_on(10)
    before = all_files(replay.out)
    replay.trade(*minutes)
    (outcome,) = backfill(replay.root, replay.out).values()
    if minutes:
        assert all_files(replay.out) == replay.fresh(tmp_path / "fresh")
    else:
        assert outcome.status == UP_TO_DATE
        assert all_files(replay.out) == before


def test_reader_keeps_what_it_has_mapped_when_the_file_becomes_shorter(replay: Replay) -> None:
    replay.trade(0.5)
    replay.go_on(3000)
    candles = open_candles(replay.out / f"{STEM}.bin")
    replay.trade(2.5)
    backfill(replay.root, replay.out)
    assert replay.counts == (3, 0)
    assert len(candles) == 3000
    assert not candles.records[1:].tobytes().strip(b"\0")


@pytest.mark.parametrize("quiet_candles", [True, False])
def test_stream_goes_on_from_them(replay: Replay, tmp_path: Path, quiet_candles: bool) -> None:
    replay.trade(0.5)
    replay.go_on(10)
    replay.start(quiet_candles)
    replay.trade(4.5)
    # By the clock less time has passed than before.
    replay.go_on(6)
    assert replay.counts == ((10, 5) if quiet_candles else (5, 0))
    assert traded_files(replay.out) == replay.fresh(tmp_path / "fresh")
    replay.trade(12.5)
    replay.go_on(15)
    assert replay.counts == ((15, 2) if quiet_candles else (13, 0))
    assert traded_files(replay.out) == replay.fresh(tmp_path / "fresh")


def test_restored_checkpoint_takes_nothing_back(replay: Replay, tmp_path: Path) -> None:
    replay.trade(0.5)
    replay.go_on(3)
    checkpoint = replay.stream.checkpoint()
    replay.go_on(9)
    before = all_files(replay.out)
    replay.stream.restore(checkpoint)
    replay.go_on(5)
    assert all_files(replay.out) == before
    replay.trade(4.5)
    replay.go_on(6)
    assert replay.counts == (9, 4)
    replay.go_on(12)
    assert replay.counts == (12, 7)
    assert traded_files(replay.out) == replay.fresh(tmp_path / "fresh")


# Commits that are killed


def quiet_companion(records: int, quiet: int) -> Companion:
    return companion_of(records, state=replace(STATE, quiet=quiet))


RECORDS = some_records(12)
OLD = np.concatenate([RECORDS[:5], np.zeros(4, RECORDS.dtype)])
#: New (records, quiet ones among them), and the first place that is given.
CASES = {
    "more are quiet": (5, 12, 4),
    "a late one among quiet ones": (7, 9, 4),
    "the last quiet one": (9, 9, 4),
    "behind quiet ones": (12, 12, 4),
    "another last one, and more are quiet": (5, 11, 3),
    "fewer are quiet": (5, 7, 4),
    "none is quiet": (6, 6, 4),
}


def _overwritten(paths: CandlePaths, case: str) -> None:
    traded, count, place = CASES[case]
    records = _new(case)[:traded]
    new = quiet_companion(count, count - traded)
    overwrite(paths, quiet_companion(9, 4), place, records[place:], new)


def _appended(paths: CandlePaths, case: str) -> None:
    traded = CASES[case][0]
    records = _new(case)[:traded]
    append(
        paths,
        quiet_companion(9, 4),
        [(4, records[4:])],
        records.nbytes,
        lambda: companion_of(traded),
    )


def _new(case: str) -> Records:
    traded, count, place = CASES[case]
    records = np.zeros(count, RECORDS.dtype)
    records[:traded] = RECORDS[:traded]
    if place < 4:
        records[place] = RECORDS[11]
    if traded == 7:
        records[5] = 0
    return records


@pytest.mark.parametrize("kill", [False, True], ids=["fails", "is killed"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("commit", [_overwritten, _appended])
def test_commit_that_ends_at_any_call_leaves_the_old_pair_or_the_new(
    tmp_path: Path, commit: Callable[[CandlePaths, str], None], case: str, kill: bool
) -> None:
    traded, count, place = CASES[case]
    if commit is _appended and place < 4:
        pytest.skip("a backfill does not change candles before the last one")
    new = _new(case)
    after = quiet_companion(count, count - traded), new.tobytes()
    if commit is _appended:
        after = companion_of(traded), new[:traded].tobytes()
    before = quiet_companion(9, 4), OLD.tobytes()
    for number in range(1, 100):
        paths = write_pair(tmp_path / str(number), *(quiet_companion(9, 4), OLD))
        reader = open_candles(paths.records)
        with FailingDisk(number, kill=kill) as disk:
            commit(paths, case)
        if not disk.failed:
            break
        found = open_candles(paths.records)
        assert (found.companion, found.records.tobytes()) in (before, after), disk.calls
        # What was mapped can still be read.
        assert len(reader.records.tobytes()) == OLD.nbytes
        recover(paths)
        found = open_candles(paths.records)
        if found.companion == before[0]:
            commit(paths, case)
            found = open_candles(paths.records)
        assert (found.companion, found.records.tobytes()) == after, disk.calls
        assert Path(paths.records).stat().st_size == len(after[1])
        recover(paths)
    assert number > 3


def test_bytes_that_count_change_by_a_journal_only(tmp_path: Path) -> None:
    """Nothing is written into quiet records that a reader sees before it was decided."""
    paths = write_pair(tmp_path, quiet_companion(9, 4), OLD)
    with FailingDisk() as disk:
        _overwritten(paths, "a late one among quiet ones")
    writes = [path for call, path in disk.calls if call in ("pwrite", "write", "replace")]
    assert writes[0] != paths.records
    assert writes.index(paths.journal) < writes.index(paths.records)


# The companion


def test_companion_says_how_many_are_quiet() -> None:
    companion = quiet_companion(9, 4)
    values = json.loads(companion.encode())
    assert (values["records"], values["candlebeam"]["quietRecords"]) == (9, 4)
    assert Companion.decode(companion.encode(), "x.json") == companion
    assert companion.traded == companion_of(5)
    assert companion.traded.encode() == companion_of(5).encode()
    assert companion_of(5).traded == companion_of(5)
    assert b"quiet" not in companion_of(5).encode()


@pytest.mark.parametrize("quiet", [-1, 5, 6, True, "1", 1.0, None])
def test_companion_with_a_wrong_number_of_quiet_ones_is_damaged(quiet: object) -> None:
    values = json.loads(companion_of(5).encode())
    values["candlebeam"]["quietRecords"] = quiet
    with pytest.raises(FormatError, match=r"x\.json: expected the companion of a candle file"):
        Companion.decode(json.dumps(values).encode(), "x.json")


def test_quiet_candles_are_valid_and_others_are_no_quiet_ones(replay: Replay) -> None:
    replay.trade(0.5, 1.5, 2.5)
    replay.go_on(100)
    path = replay.out / f"{STEM}.bin"
    usual = [each for each in check_candles(open_candles(path), str(path)) if each.check == "ends"]
    assert usual == []
    with open(path, "r+b") as file:
        file.seek(50 * 56 + 40)
        file.write(b"\1")
    (finding,) = (e for e in check_candles(open_candles(path), str(path)) if e.check == "ends")
    assert finding.message == "a candle at the end is not quiet"


# By Beam's watermark

Said = tuple[str, float, float, list[tuple[float, int]], int]


def _said(element: tuple[Market, CandleUpdate]) -> Said:
    market, found = element
    candles = [
        (minutes_of(int(each["time"])), int(each["buy_count"])) for each in found.block.candles
    ]
    return market.symbol, minutes_of(found.traded_end_ts), found.quiet, candles, found.late_trades


def check(
    steps: list[float | list[tuple[Market, MarketUpdate]]], expected: list[Said], now: float
) -> None:
    """Runs a stream: updates, and minutes that the watermark advances to, when it is `now`."""
    stream = TestStream().advance_watermark_to(at(-1_000))
    for step in steps:
        if isinstance(step, (int, float)):
            stream = stream.advance_watermark_to(at(step))
        else:
            stream = stream.add_elements(
                [beam.window.TimestampedValue(element, at(-999)) for element in step]
            )
    stream = stream.advance_watermark_to_infinity()
    options = PipelineOptions(["--direct_running_mode=in_memory"])
    options.view_as(StandardOptions).streaming = True
    clock = Clock(at(now).micros // 1000, speed=1e-9)
    with TestPipeline(runner="BundleBasedDirectRunner", options=options) as pipeline:
        found = (
            pipeline
            | stream
            | CloseCandles(
                timeframe=ONE_MINUTE, lateness_ms=120_000, quiet_candles=True, clock=clock
            )
            | beam.Map(_said)
        )
        assert_that(found, equal_to(expected))


def test_quiet_minutes_come_as_the_watermark_of_beam_advances() -> None:
    check(
        [[update(0.1)], 1.0, 2.0, 2.9, 3.0, 4.5, [update(4.2)], 5.0],
        [
            ("btcusdt", 1.0, 0, [(0.0, 1)], 0),
            ("btcusdt", 1.0, 1, [(0.0, 1)], 0),
            ("btcusdt", 1.0, 2, [(0.0, 1)], 0),
            ("btcusdt", 1.0, 3, [(0.0, 1)], 0),
            ("btcusdt", 5.0, 0, [(0.0, 1), (4.0, 1)], 0),
        ],
        now=4.0,
    )


def test_later_trade_does_not_put_off_quiet_minutes() -> None:
    check(
        [[update(0.1)], 1.0, [update(4.5)], 3.0, 6.0],
        [
            ("btcusdt", 1.0, 0, [(0.0, 1)], 0),
            ("btcusdt", 1.0, 1, [(0.0, 1)], 0),
            ("btcusdt", 1.0, 2, [(0.0, 1)], 0),
            ("btcusdt", 1.0, 3, [(0.0, 1)], 0),
            ("btcusdt", 5.0, 0, [(0.0, 1), (4.0, 1)], 0),
            ("btcusdt", 5.0, 1, [(4.0, 1)], 0),
        ],
        now=5.0,
    )


def test_late_trade_in_a_quiet_minute_of_beam() -> None:
    check(
        [[update(0.1)], 4.0, [update(2.5)]],
        [
            ("btcusdt", 1.0, 0, [(0.0, 1)], 0),
            ("btcusdt", 1.0, 1, [(0.0, 1)], 0),
            ("btcusdt", 1.0, 2, [(0.0, 1)], 0),
            ("btcusdt", 1.0, 3, [(0.0, 1)], 0),
            ("btcusdt", 3.0, 1, [(0.0, 1), (2.0, 1)], 0),
        ],
        now=3.0,
    )


def test_no_minute_is_quiet_that_is_still_to_come() -> None:
    """A pipeline that ends moves the watermark to the end of all time: it has no quiet minutes."""
    check(
        [[update(0.1)], [update(600.5)], 1_000_000.0],
        [
            ("btcusdt", 1.0, 0, [(0.0, 1)], 0),
            ("btcusdt", 601.0, 0, [(0.0, 1), (600.0, 1)], 0),
        ],
        now=-10.0,
    )
