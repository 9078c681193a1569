"""Resuming: an archive that arrives in steps gives what the whole of it gives at once."""

from __future__ import annotations

import gzip
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from tests import oracle
from tests.agreement import assert_companion_agrees, assert_files_agree
from tests.archives import REGIMES
from tests.command_line import Outcome, Workspace, companions, contents, run_here
from tests.deliveries import make_delivery, sync

MARKET = "RAM/BINANCE/btcusdt"
FOLDER = "RAM/btc/BINANCE/btcusdt"
T0 = 1_709_337_600_000  # 2024-03-02T00:00Z
STEPS = 5
#: Regimes that ask for all kinds of price scales, one after the other.
SCALES = ("plain", "noise", "tiny", "huge", "limit")


def rows(*trades: tuple[int, str]) -> bytes:
    """Rows of (milliseconds after T0, price)."""
    return b"".join(f"{T0 + ts} {price} 0.0000015 1\n".encode() for ts, price in trades)


def assert_as_fresh(work: Workspace) -> None:
    """The output is what the archive gives at once, by the oracle."""
    assert_files_agree(work.out, oracle.backfill(work.archive))


# --- whole deliveries ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_every_step_equals_a_fresh_run(tmp_path: Path, seed: int) -> None:
    work = Workspace(tmp_path)
    for files in make_delivery(Random(seed), REGIMES).steps(STEPS):
        sync(work.archive, files)
        outcome = work.run()
        assert_as_fresh(work)
        assert outcome.totals["late_trades"] == 0
        assert {row["late_files"] for row in outcome.report["markets"]} <= {0}
    before = {path: path.stat().st_mtime_ns for path in work.out.rglob("*.*")}
    quiet = work.run()
    made = {name for name, row in quiet.markets.items() if row["status"] != "empty"}
    assert {quiet.markets[name]["status"] for name in made} == {"up-to-date"}
    assert {quiet.markets[name]["files"] for name in made} == {0}
    assert {quiet.markets[name]["trades"] for name in made} == {0}
    after = {path: path.stat().st_mtime_ns for path in work.out.rglob("*.*")}
    assert {p: t for p, t in after.items() if p.suffix in (".bin", ".json")} == {
        p: t for p, t in before.items() if p.suffix in (".bin", ".json")
    }


@pytest.mark.parametrize("seed", range(4))
def test_late_rows_with_rebuild_equal_a_fresh_run(tmp_path: Path, seed: int) -> None:
    work = Workspace(tmp_path)
    rebuilt = 0
    for files in make_delivery(Random(seed), SCALES, late=0.15).steps(STEPS):
        sync(work.archive, files)
        outcome = work.run("--late", "rebuild", "--shard_bytes", 300)
        assert_as_fresh(work)
        assert outcome.totals["late_trades"] == 0
        rebuilt += sum(row["rebuilt"] for row in outcome.report["markets"])
    assert rebuilt > 0


@dataclass
class Resumed:
    """What `--late ignore` must do for one market, trade by trade."""

    market: tuple[str, str, str]
    kept: dict[tuple[int, int], oracle.Trade] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    boundary: int | None = None
    last_start: int = 0

    def step(self, files: list[oracle.SourceFile]) -> tuple[int, oracle.Answer]:
        """Reads the files as they stand; gives the trades that came too late, and the candles."""
        late = 0
        trades, whole = dict(self.kept), dict(self.kept)
        final = files[-1].start
        for number, file in enumerate(files):
            if file.start < self.last_start:
                continue
            text, _ = oracle.text_of(file.actual.read_bytes(), file.actual.name)
            seen, offset = self.seen.get(file.path, 0), 0
            for line, row in enumerate(text.split(b"\n")):
                begin, offset = offset, offset + len(row) + 1
                trade = oracle.parse_row(row)
                if not isinstance(trade, oracle.Trade):
                    continue
                if self.boundary is not None and trade.ts < self.boundary:
                    late += begin >= seen
                    continue
                trades[number, line] = trade
                if offset <= len(text) or file.start < final:
                    whole[number, line] = trade
            self.seen[file.path] = text.rfind(b"\n") + 1
        answer = oracle.Answer(self.market)
        in_order = [trade for _, trade in sorted(trades.items())]
        oracle.finish(answer, in_order, files[-1].start, oracle.DEFAULTS)
        if answer.companion is not None:
            self.boundary = boundary = answer.companion["endTs"] - oracle.MINUTE
            self.last_start = final
            self.kept = {place: trade for place, trade in trades.items() if trade.ts < boundary}
            self.kept |= {place: trade for place, trade in whole.items() if trade.ts >= boundary}
        else:
            self.seen = {}
        return late, answer


@pytest.mark.parametrize("seed", range(4))
def test_late_rows_that_are_ignored_are_counted(tmp_path: Path, seed: int) -> None:
    work = Workspace(tmp_path)
    models: dict[str, Resumed] = {}
    total = 0
    for files in make_delivery(Random(seed), SCALES, late=0.15).steps(STEPS):
        sync(work.archive, files)
        outcome = work.run("--late", "ignore", "--shard_bytes", 300)
        found, described = contents(work.out), companions(work.out)
        for market, inputs in oracle.find(work.archive).items():
            name = "/".join(market)
            row = outcome.markets[name]
            if row[
                "rebuilt"
            ]:  # prices that were rounded had to be read anew, and late rows with them
                models[name] = Resumed(market)
            late, answer = models.setdefault(name, Resumed(market)).step(inputs)
            path = answer.path.removesuffix(".bin")
            assert found.get(path) == answer.data, name
            if answer.data is not None:
                assert_companion_agrees(described[path], answer)
            assert row["late_trades"] == (0 if row["status"] == "up-to-date" else late), name
            total += late
    assert total > 0


# --- the last file -------------------------------------------------------------------------------


def test_last_file_cut_at_every_byte(tmp_path: Path) -> None:
    """One market for every place to cut: the first run sees half a file, the second all of it."""
    text = (
        b"\xef\xbb\xbf1709337600000 100.25 1 1\r\n1709337600000 100.5 2 0 1\r\n\r\n"
        b"1709337659999 1e2 3 1 0\r\n1709337720000 99.12345 1.5 0 1"
    )
    work = Workspace(tmp_path)

    def write(cut: int, content: bytes) -> None:
        folder = work.archive / f"RAM/btc/BINANCE/cut{cut:03}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "2024-03-02-00").write_bytes(content)

    for cut in range(len(text) + 1):
        write(cut, text[:cut])
    work.run()
    assert_as_fresh(work)
    for cut in range(len(text) + 1):
        write(cut, text)
    outcome = work.run()
    assert_as_fresh(work)
    assert outcome.totals["late_trades"] == 0
    assert len(set(contents(work.out).values())) == 1


def test_rotation_alone_changes_nothing(tmp_path: Path) -> None:
    work = Workspace(tmp_path)
    text = rows((0, "100"), (30_000, "101"), (61_000, "102.5"))
    sync(work.archive, {f"{FOLDER}/2024-03-02-00": text})
    work.run()
    before = contents(work.out)
    sync(work.archive, {f"{FOLDER}/2024-03-02-00.gz": gzip.compress(text)})
    for _ in range(2):
        outcome = work.run()
        assert outcome.markets[MARKET]["error"] is None
        assert contents(work.out) == before
    assert outcome.markets[MARKET]["status"] == "up-to-date"
    assert_as_fresh(work)


def test_truncated_last_gzip_that_is_whole_later(tmp_path: Path) -> None:
    work = Workspace(tmp_path)
    text = rows(*((1_000 * n, f"{100 + n % 7}.{n}") for n in range(300)))
    packed = gzip.compress(text)
    sync(work.archive, {f"{FOLDER}/2024-03-02-00.gz": packed[: len(packed) // 2]})
    outcome = work.run()
    assert len(outcome.markets[MARKET]["damaged"]) == 1
    assert_as_fresh(work)
    sync(work.archive, {f"{FOLDER}/2024-03-02-00.gz": packed})
    outcome = work.run()
    assert outcome.markets[MARKET]["damaged"] == []
    assert outcome.markets[MARKET]["late_trades"] == 0
    assert_as_fresh(work)


def test_trades_of_the_last_minute_from_an_older_file_are_kept(tmp_path: Path) -> None:
    """The last candle holds trades of a file that is not read again."""
    work = Workspace(tmp_path)
    files = {
        f"{FOLDER}/2024-03-02-00": rows((0, "100"), (20 * 3_600_000 + 5_000, "95")),
        f"{FOLDER}/2024-03-02-04": rows((4 * 3_600_000, "101")),
        f"{FOLDER}/2024-03-02-20": rows((20 * 3_600_000 + 2_000, "102")),
    }
    for count in (1, 2, 3):
        sync(work.archive, dict(list(files.items())[:count]))
        work.run("--late", "rebuild")
        assert_as_fresh(work)
    grown = files[f"{FOLDER}/2024-03-02-20"] + rows((20 * 3_600_000 + 4_000, "103"))
    sync(work.archive, {**files, f"{FOLDER}/2024-03-02-20": grown})
    outcome = work.run()
    assert outcome.markets[MARKET]["late_trades"] == 0
    assert_as_fresh(work)


def test_market_without_trades_begins_when_the_first_comes(tmp_path: Path) -> None:
    work = Workspace(tmp_path)
    sync(work.archive, {f"{FOLDER}/2024-03-02-00": b"nonsense\n"})
    assert work.run().markets[MARKET]["status"] == "empty"
    assert contents(work.out) == {}
    sync(work.archive, {f"{FOLDER}/2024-03-02-00": b"nonsense\n" + rows((0, "100"))})
    assert work.run().markets[MARKET]["status"] == "written"
    assert_as_fresh(work)


# --- price scales --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prices", "expected"),
    [
        (("100.5", "100.123456", "0.00000051", "100.5"), [10**4, 10**6, 10**7, 10**7]),
        (("100.1234", "300000.5", "30000000", "9e15"), [10**4, 10**3, 10, 1e-7]),
        (("0.00000051", "1234.5678", "1e12", "5e-7"), [10**7, 10**6, 1e-3, 1e-3]),
        (("1e12", "1e-12", "1e18", "3"), [1e-3, 1e-3, 1e-9, 1e-9]),
        (("214748.3647", "214748.36475", "214748.36474", "1"), [10**4, 10**3, 10**3, 10**3]),
        (
            ("100.10000000000001", "99.89999999999999", "0.1", "1234567.891"),
            [10**4, 10**4, 10**4, 10**3],
        ),
    ],
)
def test_price_scale_follows_the_prices(
    tmp_path: Path, prices: tuple[str, ...], expected: list[float]
) -> None:
    work = Workspace(tmp_path)
    text, scales = b"", []
    for number, price in enumerate(prices):
        text += rows((number * 130_000, price), (number * 130_000 + 20_000, "77.7"))
        sync(work.archive, {f"{FOLDER}/2024-03-02-00": text})
        work.run()
        assert_as_fresh(work)
        scales.append(companions(work.out)[MARKET]["priceScale"])
    assert scales == expected


def test_price_of_the_last_candle_may_be_gone_again(tmp_path: Path) -> None:
    """A torn row asks for decimals that the whole row does not have: it is a liquidation."""
    work = Workspace(tmp_path)
    text = rows((0, "100"), (70_000, "101")) + f"{T0 + 70_001} 0.00000051 1 1 1\n".encode()
    sync(work.archive, {f"{FOLDER}/2024-03-02-00": text[:-3]})
    work.run()
    assert companions(work.out)[MARKET]["priceScale"] > 10_000
    assert_as_fresh(work)
    sync(work.archive, {f"{FOLDER}/2024-03-02-00": text})
    work.run()
    assert companions(work.out)[MARKET]["priceScale"] == 10_000
    assert_as_fresh(work)


def test_forced_price_scale_that_no_longer_fits_fails_and_keeps_what_is_there(
    tmp_path: Path,
) -> None:
    work = Workspace(tmp_path)
    sync(work.archive, {f"{FOLDER}/2024-03-02-00": rows((0, "100"))})
    work.run("--price-scale", 10_000)
    before = contents(work.out)
    sync(work.archive, {f"{FOLDER}/2024-03-02-00": rows((0, "100"), (70_000, "300000.5"))})
    work.index().expect()
    outcome = work.backfill("--price-scale", 10_000).expect(1)
    assert MARKET in outcome.output
    assert "300000.5" in outcome.markets[MARKET]["error"]
    assert contents(work.out) == before


# --- files that were indexed late ----------------------------------------------------------------


def suggested_command(outcome: Outcome) -> list[str]:
    """The arguments of the command that the summary of a run names."""
    (command,) = re.findall(r"candlebeam (backfill .*)", outcome.output)
    return shlex.split(command)


def test_files_indexed_late_are_reported_with_a_command_that_brings_them_in(
    tmp_path: Path,
) -> None:
    work = Workspace(tmp_path)
    files = {
        f"{FOLDER}/2024-03-02-00": rows((0, "100"), (60_000, "101")),
        f"{FOLDER}/2024-03-02-04": rows((4 * 3_600_000, "102")),
        f"{FOLDER}/2024-03-02-08": rows((8 * 3_600_000, "103")),
    }
    sync(work.archive, {path: text for path, text in files.items() if not path.endswith("04")})
    work.run()
    before = contents(work.out)
    sync(work.archive, files)
    for _ in range(2):
        outcome = work.run()
        row = outcome.markets[MARKET]
        assert row["late_files"] == 1
        assert contents(work.out) == before
    run_here(*suggested_command(outcome)).expect()
    assert_as_fresh(work)
    assert work.run().markets[MARKET]["late_files"] == 0


def test_command_that_brings_late_files_in_keeps_the_settings(tmp_path: Path) -> None:
    settings = ("--no-corrections", "--timeframe", "5m", "--liquidations", "included")
    meaning = oracle.Settings(frozenset(), True, 1_000, 300_000)
    work = Workspace(tmp_path)
    last = {f"{FOLDER}/2024-03-02-08": rows((8 * 3_600_000, "103"))}
    sync(work.archive, last)
    work.run(*settings, "--price-scale", 1_000)
    sync(work.archive, {**last, f"{FOLDER}/2024-03-02-00": rows((0, "100"))})
    outcome = work.run(*settings, "--price-scale", 1_000)
    run_here(*suggested_command(outcome)).expect()
    assert_files_agree(work.out, oracle.backfill(work.archive, meaning))


def test_files_indexed_late_are_brought_in_by_rebuild(tmp_path: Path) -> None:
    work = Workspace(tmp_path)
    last = {f"{FOLDER}/2024-03-02-08": rows((8 * 3_600_000, "103"))}
    sync(work.archive, last)
    work.run()
    sync(work.archive, {**last, f"{FOLDER}/2024-03-02-00": rows((0, "100"))})
    row = work.run("--late", "rebuild").markets[MARKET]
    assert row["late_files"] == 0
    assert row["rebuilt"]
    assert_as_fresh(work)


def test_late_file_with_the_start_of_the_last_one(tmp_path: Path) -> None:
    """Two buckets hold files of one start; the one that sorts first is indexed last."""
    work = Workspace(tmp_path)
    second = {"RAM/btc/BINANCE/btcusdt/2024-03-02-00": rows((0, "100"), (1_000, "101"))}
    sync(work.archive, second)
    work.run()
    first = {"RAM/alts/BINANCE/btcusdt/2024-03-02-00": rows((0, "90"), (1_000, "91"))}
    sync(work.archive, {**second, **first})
    assert work.run().markets[MARKET]["late_files"] == 1
    work.run("--late", "rebuild")
    assert_as_fresh(work)


def test_new_file_with_the_start_of_the_last_one(tmp_path: Path) -> None:
    work = Workspace(tmp_path)
    first = {"RAM/alts/BINANCE/btcusdt/2024-03-02-00": rows((0, "90"), (1_000, "91"))}
    sync(work.archive, first)
    work.run()
    second = {"RAM/btc/BINANCE/btcusdt/2024-03-02-00": rows((0, "100"), (1_000, "101"))}
    sync(work.archive, {**first, **second})
    outcome = work.run()
    assert outcome.markets[MARKET]["late_files"] == 0
    assert_as_fresh(work)
    assert work.run().markets[MARKET]["status"] == "up-to-date"


@pytest.mark.parametrize("late", ["ignore", "rebuild"])
def test_two_roots_with_the_same_paths(tmp_path: Path, late: str) -> None:
    """Files of one relative path under two roots are two inputs of the market."""
    work = Workspace(tmp_path)
    other = tmp_path / "other"
    path = f"{FOLDER}/2024-03-02-00"
    one, two = rows((0, "100"), (1_000, "101")), rows((2_000, "90"), (3_000, "91"), (4_000, "92"))
    sync(work.archive, {path: one})
    sync(other, {path: two})
    run_here("index", other, "--db", work.db).expect()
    work.run("--late", late)
    whole = Workspace(tmp_path / "whole")
    sync(whole.archive, {path: one, path.replace("btc", "dtc", 1): two})
    assert contents(work.out) == {
        name: answer.data for name, answer in oracle.backfill(whole.archive).items()
    }
    assert work.run("--late", late).markets[MARKET]["status"] == "up-to-date"
    two += rows((70_000, "93"))
    sync(other, {path: two})
    sync(whole.archive, {path: one, path.replace("btc", "dtc", 1): two})
    outcome = work.run("--late", late)
    assert outcome.totals["late_trades"] == 0
    assert contents(work.out) == {
        name: answer.data for name, answer in oracle.backfill(whole.archive).items()
    }
