"""Following an archive: round by round the same files as one backfill of what is there."""

from __future__ import annotations

import errno
import gc
import gzip
import os
import re
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from candlebeam.errors import CandlebeamError, UsageError
from candlebeam.io.commit_markets import commit_chunks
from candlebeam.io.make_chunk import make_chunks
from candlebeam.io.market_commit import CommitOptions
from candlebeam.io.staging import ChunkRef, list_shards, read_shard
from candlebeam.model import Market
from candlebeam.pipelines import backfill
from candlebeam.pipelines.backfill import BackfillRequest
from candlebeam.pipelines.follow import Follower, Round, follow, parse_duration
from candlebeam.pipelines.lock import Held, LostLockError
from candlebeam.plan import plan_market
from tests import oracle
from tests.agreement import assert_files_agree
from tests.archives import HOUR, file_name
from tests.beam_files import KeptFiles
from tests.command_line import (
    COMMAND,
    PATIENCE,
    PROJECT,
    Workspace,
    environment,
    leftovers,
    run_here,
)
from tests.deliveries import make_delivery, sync
from tests.faults import failing_from

T0 = 1_709_337_600_000  # 2024-03-02T00:00Z
FOLDER = "RAM/btc/BINANCE/btcusdt"
MARKET = "RAM/BINANCE/btcusdt"


@pytest.fixture
def work(tmp_path: Path) -> Workspace:
    found = Workspace(tmp_path)
    found.archive.mkdir()
    return found


@pytest.fixture
def without_beam(monkeypatch: pytest.MonkeyPatch) -> None:
    """Does what the pipeline does, in this thread: a pipeline takes half a second to begin."""
    monkeypatch.setattr(backfill.Backfill, "_run_pipeline", _run_plainly)
    monkeypatch.setattr(backfill, "early_worker_count", lambda *_: 0)


def _run_plainly(run: backfill.Backfill, manifests: list[str]) -> None:
    request = run._request
    options = CommitOptions(run._out, request.settings, request.late == "rebuild")
    chunks: dict[Market, list[ChunkRef]] = {}
    for ref in (ref for manifest in manifests for ref in list_shards(manifest)):
        shard = read_shard(ref)
        make_chunks([shard], run._staging, request.settings, None)
        chunk = ChunkRef(ref, shard.ordinal, shard.name, reused=False)
        chunks.setdefault(shard.market, []).append(chunk)
    for market, found in chunks.items():
        commit_chunks(run._staging, market, found, options, run._run)


def following(work: Workspace, **options: object) -> Follower:
    request = BackfillRequest(str(work.out), str(work.db), **options)  # type: ignore[arg-type]
    return Follower(request, [str(work.archive)])


def rounds(follower: Follower) -> list[Round]:
    """Rounds until one finds nothing: a file may have to be seen twice before the next is read."""
    done = [follower.round() for _ in range(2)]
    while done[-1].markets:
        done.append(follower.round())
        assert len(done) < 20
    return done


def pairs(out: Path) -> dict[str, bytes]:
    """All candle files and companions."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.suffix in (".bin", ".json")
    }


def fresh(work: Workspace) -> dict[str, bytes]:
    """What one backfill makes of the archive as it is now."""
    name = f"fresh-{len(list(work.folder.glob('fresh-*')))}"
    db, out = work.folder / f"{name}.sqlite", work.folder / name
    run_here("backfill", "--db", db, "--root", work.archive, "--out", out).expect()
    return pairs(out)


def rows(*trades: tuple[int, float]) -> bytes:
    """Rows of (seconds after T0, price)."""
    return b"".join(b"%d %r 0.5 1\n" % (T0 + ts * 1000, price) for ts, price in trades)


def write(work: Workspace, name: str, content: bytes, *, mode: str = "wb") -> Path:
    path = work.archive / FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open(mode) as file:
        file.write(content)
    return path


# --- the same as one backfill --------------------------------------------------------------------


def test_each_round_equals_a_fresh_run(work: Workspace) -> None:
    """With the pipeline, and with prices that ask for all kinds of scales."""
    regimes = ("plain", "noise", "tiny", "huge", "limit")
    with following(work) as follower:
        for files in make_delivery(Random(1), regimes).steps(3):
            sync(work.archive, files)
            told = [line for done in rounds(follower) for line in done.told]
            assert all(line.endswith("; the market was made again") for line in told), told
            assert pairs(work.out) == fresh(work)
    assert_files_agree(work.out, oracle.backfill(work.archive))


@dataclass
class Growing:
    """One market's files as a collector writes them, a step at a time.

    Attributes:
        rng: draws what happens.
        folder: of the market.
        texts: of its files in full, in order.
        sizes: how much of each has arrived.
    """

    rng: Random
    folder: Path
    texts: list[bytes]
    sizes: list[int] = field(default_factory=list)
    packed: int = 0

    def step(self, *, last: bool = False) -> None:
        """Writes on; may begin the next file while the one before has not got its last rows."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.sizes or (len(self.sizes) < len(self.texts) and self.rng.randrange(3) == 0):
            self.sizes.append(0)
        behind = len(self.sizes) - 1
        for number in range(self.packed, behind):
            # What was still to be written is, one step after the next file was begun.
            self._write(number, len(self.texts[number]))
        if last:
            self.sizes += [0] * (len(self.texts) - len(self.sizes))
            for number, text in enumerate(self.texts):
                if number >= self.packed:
                    self._write(number, len(text))
            return
        if self.packed < behind - 1 and self.rng.randrange(2):
            self._pack()
        now = self.sizes[-1]
        self._write(behind, min(len(self.texts[behind]), now + self.rng.randrange(160)))

    def _path(self, number: int) -> Path:
        return self.folder / file_name(T0 + 4 * HOUR * number)

    def _write(self, number: int, size: int) -> None:
        with self._path(number).open("ab") as file:
            file.write(self.texts[number][self.sizes[number] : size])
        self.sizes[number] = size

    def _pack(self) -> None:
        plain = self._path(self.packed)
        packed = plain.with_name(plain.name + ".gz")
        packed.write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
        plain.unlink()
        self.packed += 1


def growing_texts(rng: Random) -> list[bytes]:
    texts, now = [], T0
    for number in range(rng.randrange(1, 5)):
        now = max(now, T0 + 4 * HOUR * number)
        lines = []
        for _ in range(rng.randrange(1, 12)):
            now += rng.choice((0, 0, 1, 900, 30_000, 60_000, 700_000))
            price = rng.choice(("101.5", "0.00001234", "99999.125", "100"))
            lines.append(b"%d %s 0.25 %d\n" % (now, price.encode(), rng.randrange(2)))
        texts.append(b"".join(lines))
    return texts


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(seed=st.integers(0, 1 << 32), steps=st.integers(1, 8))
def test_growth_in_any_steps_equals_a_fresh_run(
    tmp_path_factory: pytest.TempPathFactory, without_beam: None, seed: int, steps: int
) -> None:
    """Torn rows, rotation in the middle, last rows that come after the next file was begun."""
    work = Workspace(tmp_path_factory.mktemp("growth"))
    rng = Random(seed)
    markets = [
        Growing(rng, work.archive / f"RAM/b/BINANCE/m{number}usdt", growing_texts(rng))
        for number in range(8)
    ]
    work.archive.mkdir()
    with following(work) as follower:
        for step in range(steps):
            for market in markets[: 8 * (step + 1) // steps]:
                market.step()
            follower.round()
        for market in markets:
            market.step(last=True)
        told = [line for done in rounds(follower) for line in done.told]
        assert all(line.endswith("; the market was made again") for line in told), told
    assert pairs(work.out) == fresh(work)


def test_rotation_of_the_last_file(work: Workspace, without_beam: None) -> None:
    with following(work) as follower:
        plain = write(work, "2024-03-02-00", rows((1, 10.0), (70, 11.0)))
        assert follower.round().candles_added == 2
        write(work, "2024-03-02-00", rows((75, 12.0)), mode="ab")
        packed = write(work, "2024-03-02-00.gz", gzip.compress(plain.read_bytes(), mtime=0))
        plain.unlink()
        done = follower.round()
        assert (done.markets, done.candles_added, done.late_trades) == (1, 0, 0)
        assert pairs(work.out) == fresh(work)
        assert packed.exists()
        assert [done.line for done in rounds(follower)] == ["", ""]


def test_file_waits_for_the_last_rows_of_the_one_before(
    work: Workspace, without_beam: None
) -> None:
    with following(work) as follower:
        write(work, "2024-03-02-00", rows((1, 10.0)))
        follower.round()
        write(work, "2024-03-02-04", rows((14_400, 20.0)))
        assert follower.round().markets == 0
        write(work, "2024-03-02-00", rows((14_399, 11.0)), mode="ab")
        assert follower.round().candles_added == 239
        assert follower.round().candles_added == 1
        assert follower.round().told == []
    assert pairs(work.out) == fresh(work)


def test_files_that_were_finished_before_are_read_at_once(
    work: Workspace, without_beam: None
) -> None:
    write(work, "2024-03-02-00", rows((1, 10.0)))
    work.run()
    for hour in range(4, 24, 4):
        path = write(work, f"2024-03-02-{hour:02}", rows((3600 * hour, 20.0)))
        os.utime(path, (T0 / 1000, T0 / 1000))
    os.utime(path.with_name("2024-03-02-00"), (T0 / 1000, T0 / 1000))
    with following(work) as follower:
        assert [follower.round().candles_added for _ in range(2)] == [20 * 60, 0]


def test_many_new_files_wait_for_one_round(work: Workspace, without_beam: None) -> None:
    write(work, "2024-03-02-00", rows((1, 10.0)))
    with following(work) as follower:
        follower.round()
        for hour in range(4, 24, 4):
            write(work, f"2024-03-02-{hour:02}", rows((3600 * hour, 20.0)))
        assert [follower.round().candles_added for _ in range(3)] == [0, 20 * 60, 0]


def test_file_that_changes_without_end_is_not_waited_for_without_end(
    work: Workspace, without_beam: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("candlebeam.pipelines.remembered.PATIENCE", 3)
    with following(work) as follower:
        write(work, "2024-03-02-00", rows((1, 10.0)))
        follower.round()
        write(work, "2024-03-02-04", rows((14_400, 20.0)))
        added = []
        for second in range(2, 7):
            write(work, "2024-03-02-00", rows((second, 10.0)), mode="ab")
            added.append(follower.round().candles_added)
    assert added == [0, 0, 0, 240, 0]


@pytest.mark.parametrize("late", ["ignore", "rebuild"])
@pytest.mark.parametrize("how", ["plain", "packed"])
def test_file_that_grows_after_it_was_left_behind(
    work: Workspace, without_beam: None, late: str, how: str
) -> None:
    with following(work, late=late) as follower:
        write(work, "2024-03-02-00", rows((1, 10.0)))
        first = write(work, "2024-03-02-04", rows((14_400, 20.0)))
        assert len([done for done in rounds(follower) if done.markets]) == 2
        old = write(work, "2024-03-02-00", rows((2, 99.0)), mode="ab")
        if how == "packed":
            write(work, old.name + ".gz", gzip.compress(old.read_bytes()))
            old.unlink()
        done = follower.round()
        if late == "ignore":
            (line,) = done.told
            assert line.startswith(f"{MARKET}: {old} has grown after a later file was read; ")
            assert line.endswith(f"--out {work.out} --collector RAM --exchange BINANCE"
                                 " --symbol btcusdt --force")  # fmt: skip
            assert not follower.failing
        else:
            assert (done.markets, done.told) == (1, [])
            assert pairs(work.out) == fresh(work)
        assert [(done.line, done.told) for done in rounds(follower)] == [("", [])] * 2
        assert first.exists()


def test_file_left_behind_that_is_only_packed_is_no_news(
    work: Workspace, without_beam: None
) -> None:
    with following(work, late="rebuild") as follower:
        old = write(work, "2024-03-02-00", rows((1, 10.0)))
        write(work, "2024-03-02-04", rows((14_400, 20.0)))
        rounds(follower)
        write(work, old.name + ".gz", gzip.compress(old.read_bytes()))
        old.unlink()
        assert [(done.line, done.told) for done in rounds(follower)] == [("", [])] * 2


# --- rounds --------------------------------------------------------------------------------------


def test_line_of_a_round(work: Workspace, without_beam: None) -> None:
    with following(work) as follower:
        write(work, "2024-03-02-00", rows((1, 10.0), (130, 11.0)))
        line = follower.round().line
        pattern = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ 1 market brought up to date, 3 candles added"
        assert re.fullmatch(pattern, line)
        write(work, "2024-03-02-00", rows((2, 10.0), (131, 12.0)), mode="ab")
        done = follower.round()
        assert done.line.endswith("1 market brought up to date, 0 candles added, 1 late trade")
        (told,) = done.told
        assert told.startswith(f"{MARKET}: not in it: 1 late trade; to bring all of it in: ")
        assert follower.round().told == []


def test_archive_without_anything_is_waited_for(work: Workspace, without_beam: None) -> None:
    with following(work, symbol="btcusdt") as follower:
        assert follower.round().told == [f"{work.db}: no market with symbol btcusdt"]
        assert follower.round().told == []
        assert not follower.failing
        write(work, "2024-03-02-00", rows((1, 10.0)))
        assert follower.round().markets == 1


def test_market_without_trades_is_not_read_again_and_again(
    work: Workspace, without_beam: None
) -> None:
    write(work, "2024-03-02-00", b"no trade\n")
    with following(work) as follower:
        files = []
        for _ in range(5):
            report = follower.round().report
            assert report is not None
            files.append(report.total("files"))
        assert files == [1, 1, 0, 0, 0]
        write(work, "2024-03-02-00", rows((1, 10.0)), mode="ab")
        assert follower.round().markets == 1


def test_force_makes_each_market_once(work: Workspace, without_beam: None) -> None:
    write(work, "2024-03-02-00", rows((1, 10.0)))
    work.run()
    with following(work, force=True) as follower:
        assert [done.markets for done in rounds(follower)] == [1, 0]


def test_catalog_alone_is_looked_at_where_no_root_is_given(
    work: Workspace, without_beam: None
) -> None:
    write(work, "2024-03-02-00", rows((1, 10.0)))
    work.index().expect()
    with Follower(BackfillRequest(str(work.out), str(work.db))) as follower:
        assert follower.round().markets == 1
        write(work, "2024-03-02-04", rows((14_400, 10.0)))
        assert [done.markets for done in rounds(follower)] == [0, 0]
        work.index().expect()
        assert [follower.round().markets for _ in range(3)] == [0, 1, 0]


def test_databento_files_are_listed_each_round(tmp_path: Path, without_beam: None) -> None:
    source = PROJECT / "examples/databento/XNAS.ITCH.trades.dbn.zst"
    data = tmp_path / "data"
    data.mkdir()
    with Follower(BackfillRequest(str(tmp_path / "out"), dbn=(str(data),))) as follower:
        assert follower.round().markets == 0
        (data / source.name).write_bytes(source.read_bytes())
        assert follower.round().markets == 1
        assert follower.round().markets == 0


def test_archive_and_candles_in_an_object_store(
    work: Workspace, without_beam: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("candlebeam.pipelines.lock._SETTLE_SECONDS", 0.0)
    root, out = "kept://bucket/archive", "kept://bucket/out"

    def deliver() -> None:
        for path in work.archive.rglob("2024*"):
            name = f"{root}/{path.relative_to(work.archive).as_posix()}"
            content = path.read_bytes()
            if KeptFiles.held.get(name, (b"", 0.0))[0] != content:
                KeptFiles.held[name] = (content, time.time())

    try:
        write(work, "2024-03-02-00.gz", gzip.compress(rows((1, 10.0))))
        deliver()
        with Follower(BackfillRequest(out, str(work.db)), [root]) as follower:
            assert [follower.round().candles_added for _ in range(2)] == [1, 0]
            write(work, "2024-03-02-00.gz", gzip.compress(rows((1, 10.0), (70, 11.0))))
            write(work, "2024-03-02-04", rows((14_400, 20.0)))
            deliver()
            assert [follower.round().candles_added for _ in range(2)] == [240, 0]
            assert not follower.failing
        candles = KeptFiles.held[f"{out}/{MARKET}.bin"][0]
    finally:
        KeptFiles.held.clear()
    assert candles == fresh(work)[f"{MARKET}.bin"]


# --- what goes wrong -----------------------------------------------------------------------------


def test_root_that_is_away_for_a_while(work: Workspace, without_beam: None) -> None:
    write(work, "2024-03-02-00", rows((1, 10.0)))
    with following(work) as follower:
        follower.round()
        away = work.archive.rename(work.folder / "away")
        told = [follower.round().told for _ in range(3)]
        assert told == [[f"{work.archive}: expected a folder with an archive, found none"], [], []]
        assert follower.failing
        away.rename(work.archive)
        write(work, "2024-03-02-00", rows((2, 10.0)), mode="ab")
        done = follower.round()
        assert (done.told, done.markets) == ([f"{work.archive}: can be read again"], 1)
        assert not follower.failing


def test_market_that_fails_is_told_once(work: Workspace, without_beam: None) -> None:
    write(work, "2024-03-02-00", rows((1, 10.0)))
    with following(work) as follower:
        follower.round()
        companion = work.out / f"{MARKET}.json"
        before = companion.read_bytes()
        companion.write_bytes(before.replace(b'"version": 1', b'"version": 99'))
        told = [follower.round().told for _ in range(3)]
        assert told[1:] == [[], []]
        assert re.match(f"{MARKET}: failed: .* was written by another program", told[0][0])
        assert follower.failing
        companion.write_bytes(before)
        assert follower.round().told == [f"{MARKET}: well again"]
        assert not follower.failing


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 6])
def test_full_disk_is_told_once_and_waited_for(
    work: Workspace, without_beam: None, number: int
) -> None:
    write(work, "2024-03-02-00", rows((1, 10.0)))
    with following(work) as follower:
        follower.round()
        write(work, "2024-03-02-00", rows((100, 11.0)), mode="ab")
        told = []
        for _ in range(3):
            with failing_from(number) as failed:
                told.append(follower.round().told)
            assert failed
        # Where the outcome alone cannot be noted, nobody knows why.
        words = " ".join(told[0])
        assert os.strerror(errno.ENOSPC) in words or "the run ended without it" in words
        assert told[1:] == [[], []]
        assert len(follower.round().told) == 1
        assert not follower.failing
    assert pairs(work.out) == fresh(work)
    assert leftovers(work.out) == []


def test_error_of_the_system_in_a_pipeline_is_told_and_waited_for(work: Workspace) -> None:
    write(work, "2024-03-02-00", rows((1, 10.0)))
    with following(work) as follower:
        commits = work.out / ".candlebeam-staging" / "commits"
        commits.parent.mkdir()
        commits.touch()
        told = [follower.round().told for _ in range(2)]
        assert told == [[f"File exists: '{commits}'"], []]
        assert follower.failing
        commits.unlink()
        assert follower.round().told == ["it goes on"]
    assert pairs(work.out) == fresh(work)


def test_usage_errors_come_before_anything_is_made(work: Workspace) -> None:
    def refused(match: str, *options: object) -> None:
        outcome = run_here("backfill", "--out", work.out, *options).expect(2)
        assert re.search(match, outcome.stderr), outcome.stderr
        assert not work.out.exists()

    db = ("--db", work.db)
    for text in ("", "0s", "30", "1.5s", "-1s", "s", "25h", "1d"):
        refused(f"duration {text!r}: expected a number and ms, s, m or h", *db, "--follow", text)
    refused("--detach and --follow: expected one", *db, "--follow", "1s", "--detach")
    refused("--root is for trade logs", "--agg2", work.archive, "--root", "x", "--follow", "1s")
    refused("--root is for trade logs", "--agg2", work.archive, "--root", "x")
    gone = work.folder / "gone"
    refused("expected a folder with an archive", *db, "--root", gone, "--follow", "1s")
    refused("no such file or folder", "--dbn", gone, "--follow", "1s")
    outcome = run_here("backfill", "--out", work.out, "--db", gone, "--follow", "1s").expect(1)
    assert "no such catalog" in outcome.stderr
    assert not work.out.exists()


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("1s", 1.0), ("30s", 30.0), ("5m", 300.0), ("24h", 86400)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


def test_other_writers_are_refused_all_the_time(work: Workspace, without_beam: None) -> None:
    write(work, "2024-03-02-00", rows((1, 10.0)))
    with following(work) as follower:
        for _ in range(2):
            follower.round()
            refused = work.backfill().expect(1)
            assert re.search(
                rf"another run is writing here \(process {os.getpid()} on .*, follow\)",
                refused.stderr,
            )
    work.backfill().expect()
    with pytest.raises(CandlebeamError, match="another run"), following(work), following(work):
        pass
    with pytest.raises(UsageError, match="--root is for trade logs"):
        Follower(BackfillRequest(str(work.out), agg2="x"), ["y"])


def test_lock_that_was_lost_ends_it(
    work: Workspace, without_beam: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A remote lock that could not be renewed may be another's."""
    held = Held()
    monkeypatch.setattr("candlebeam.pipelines.follow.output_lock", lambda *_: nullcontext(held))
    write(work, "2024-03-02-00", rows((1, 10.0)))
    with following(work) as follower:
        assert follower.round().markets == 1
        held.lost.set()
        with pytest.raises(LostLockError, match="another run has begun"):
            follower.round()


# --- for a long time -----------------------------------------------------------------------------


def test_many_rounds_take_no_more_memory_nor_files(work: Workspace, without_beam: None) -> None:
    path = write(work, "2024-03-02-00", rows((1, 10.0)))
    write(work, "2024-03-02-00.gz", b"")

    def some(count: int) -> None:
        for number in range(count):
            if number % 10 == 0:
                write(work, path.name, rows((1, 10.0)), mode="ab")
            follower.round()

    with following(work) as follower:
        some(40)
        gc.collect()
        files = len(os.listdir("/dev/fd"))
        tracemalloc.start()
        try:
            some(20)
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            some(200)
            gc.collect()
            after = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        assert after - before < 60_000
        assert len(os.listdir("/dev/fd")) == files
        assert follower.totals.rounds == 260


def test_rounds_with_nothing_new_do_not_import_beam(work: Workspace) -> None:
    write(work, "2024-03-02-00", rows((1, 10.0)))
    work.run()
    code = (
        "import sys\n"
        "from candlebeam.pipelines.backfill import BackfillRequest\n"
        "from candlebeam.pipelines.follow import follow\n"
        "rounds = []\n"
        "follow(BackfillRequest(sys.argv[1], sys.argv[2]), [sys.argv[3]], 0.0,\n"
        "       on_round=rounds.append, wait=lambda _: len(rounds) == 3)\n"
        "print(len(rounds), sum(map(len, (r.told for r in rounds))),\n"
        "      sorted({'apache_beam', 'numba', 'pyarrow', 'pandas'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, work.out, work.db, work.archive],
        env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "3 0 []\n"


# --- the command ---------------------------------------------------------------------------------


@contextmanager
def command(work: Workspace, *options: object) -> Iterator[subprocess.Popen[str]]:
    arguments = work.backfill_arguments("--root", work.archive, "--follow", "50ms", *options)
    with subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        env=environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[str], words: str) -> list[str]:
    """The lines up to one with these words."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if words in line:
            return lines
    raise AssertionError(f"{words!r} did not come: {lines}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command_goes_on_until_it_is_interrupted(work: Workspace, number: int) -> None:
    write(work, "2024-03-02-00", rows((1, 10.0)))
    with command(work) as process:
        wait_for(process, "1 market brought up to date, 1 candle added")
        write(work, "2024-03-02-00", rows((100, 10.0)), mode="ab")
        (line,) = wait_for(process, "brought up to date")
        assert line.endswith("Z 1 market brought up to date, 1 candle added\n")
        deadline = time.monotonic() + PATIENCE
        while work.out.joinpath(".candlebeam-staging").exists():
            assert time.monotonic() < deadline
        while '"records": 2' not in work.report.read_text():
            assert time.monotonic() < deadline
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=PATIENCE)
    assert (process.returncode, stderr) == (0, "")
    assert re.fullmatch(
        r"\d+ rounds in \d+ s, 2 with something new:"
        r" 2 markets brought up to date, 2 candles added\n",
        stdout,
    )
    assert pairs(work.out) == fresh(work)
    assert leftovers(work.out) == []


def test_command_that_ends_while_something_fails(work: Workspace) -> None:
    write(work, "2024-03-02-00", rows((1, 10.0)))
    work.run()
    companion = work.out / f"{MARKET}.json"
    companion.write_bytes(companion.read_bytes().replace(b'"version": 1', b'"version": 9'))
    with command(work) as process:
        wait_for(process, "was written by another program")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 1


def test_interrupted_at_work_it_goes_on_the_next_time(
    work: Workspace, without_beam: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(work, "2024-03-02-00", rows((1, 10.0)))
    arguments = work.backfill_arguments("--root", work.archive, "--follow", "10ms")
    with monkeypatch.context() as patch:
        interrupted = _interrupting(_run_plainly)
        patch.setattr(backfill.Backfill, "_run_pipeline", interrupted)
        outcome = run_here(*arguments).expect(130)
    assert outcome.stderr.endswith("candlebeam: interrupted; run it again to go on from here\n")
    work.backfill().expect()
    assert pairs(work.out) == fresh(work)


def test_interrupted_while_it_looks_it_leaves_nothing(
    work: Workspace, without_beam: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(work, "2024-03-02-00", rows((1, 10.0)))
    work.run()
    arguments = work.backfill_arguments("--root", work.archive, "--follow", "10ms")
    monkeypatch.setattr(backfill, "plan_market", _interrupting(plan_market))
    outcome = run_here(*arguments).expect()
    assert (outcome.stdout, outcome.stderr) == ("", "")
    assert leftovers(work.out) == []
    assert not work.out.joinpath(".candlebeam-staging").exists()


def _interrupting(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, interrupted when it is done."""

    def call(*arguments: Any) -> Any:
        done = function(*arguments)
        os.kill(os.getpid(), signal.SIGINT)
        return done

    return call


def test_root_without_follow_is_indexed_once(work: Workspace) -> None:
    write(work, "2024-03-02-00", rows((1, 10.0)))
    other = work.folder / "other" / FOLDER.replace("btcusdt", "ethusdt") / "2024-03-02-00"
    other.parent.mkdir(parents=True)
    other.write_bytes(rows((1, 10.0)))
    outcome = work.backfill("--root", work.archive, "--root", work.folder / "other").expect()
    assert outcome.stdout.startswith("1 file added, 0 already known\n1 file added, 0 already known")
    assert len(outcome.markets) == 2


def test_library_function_can_be_stopped(work: Workspace, without_beam: None) -> None:
    write(work, "2024-03-02-00", rows((1, 10.0)))
    waits: list[float] = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        return len(waits) == 3

    request = BackfillRequest(str(work.out), str(work.db))
    totals = follow(request, [str(work.archive)], 600.0, wait=wait)
    assert (totals.rounds, totals.markets, totals.candles_added) == (3, 1, 1)
    assert all(500 < seconds <= 600 for seconds in waits)
