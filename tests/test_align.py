"""`candlebeam align`: from candle files to aligned files."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
import databento
import numpy as np
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

import candlebeam
from candlebeam.formats.aligned.file import AlignedPaths
from candlebeam.formats.candles.companion import CandlePaths
from candlebeam.formats.candles.records import RECORD_DTYPE
from candlebeam.io.write_aligned import WriteAligned
from candlebeam.model import Market, Records
from candlebeam.pipelines.lock import output_lock
from candlebeam.rules.price_scale import PriceScale
from tests.aligned_bars import encoded, index_bytes
from tests.candle_pairs import SCALE, companion_of, some_records, write_pair
from tests.command_line import PROJECT, Outcome, run_here
from tests.faults import NEVER, KillHost
from tests.test_candle_source import expected_rows
from tests.trade_batches import MARKET

DAY = 20_240_301
OTHER = Market("PI", "BITMEX", "XBTUSD")


def candles(count: int, *gaps: int, seed: int = 1) -> Records:
    """Those of one seed are always the same."""
    records = some_records(4000, seed)[:count]
    records[list(gaps)] = np.zeros(1, RECORD_DTYPE)
    return records


def put(
    out: Path, records: Records, market: Market = MARKET, scale: PriceScale = SCALE
) -> CandlePaths:
    """Puts a candle file where a backfill would."""
    return write_pair(out, companion_of(len(records), scale, market=market), records)


def align(folder: Path, *options: object) -> Outcome:
    return run_here("align", folder / "out", "--to", folder / "to", *options)


def aligned(folder: Path, name: str = "btcusdt", *folders: str) -> AlignedPaths:
    return AlignedPaths.of(str(Path(folder, "to", *folders)), "1m", name)


def assert_made(paths: AlignedPaths, records: Records, gaps: str = "forward") -> None:
    """The aligned file is what its candles say."""
    rows = expected_rows(records, SCALE)
    data = encoded(rows, gaps)
    assert Path(paths.records).read_bytes() == data
    index = index_bytes(DAY if len(rows) > 1 else 0, 56 * (len(rows) - 1), len(data) - 64)
    assert Path(paths.index).read_bytes() == index


@pytest.fixture(scope="module", autouse=True)
def _no_power_cuts() -> Iterator[None]:
    """What a test writes need not survive one, and waiting for the disk takes most of the time."""
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(os, "fsync", lambda _: None)
        yield


@pytest.mark.parametrize("gaps", ["forward", "zero", "skip"])
def test_candles_become_bars(tmp_path: Path, gaps: str) -> None:
    records = candles(20, 4, 5, 9, 18)
    put(tmp_path / "out", records)
    outcome = align(tmp_path, "--gaps", gaps).expect()
    assert_made(aligned(tmp_path), records, gaps)
    count = 16 if gaps == "skip" else 20
    assert re.fullmatch(
        rf"1 market: 1 written\n{count} bars in 1 file in \d\.\d s\n", outcome.stdout
    )
    assert outcome.stderr == ""


def test_forward_is_the_default_and_volume_is_quote_volume(tmp_path: Path) -> None:
    records = candles(5, 2)
    put(tmp_path / "out", records)
    align(tmp_path).expect()
    bars = candlebeam.open_aligned(aligned(tmp_path).records)
    assert bars.ohlcv[2].tolist() == [*[bars.ohlcv[1, 3]] * 4, 0.0]
    assert bars.ohlcv[1, 4] == (records["buy_volume"][1] + records["sell_volume"][1]) / 1e6
    assert bars.ohlcv[1, 0] == records["open"][1] / 10_000


def test_last_candle_is_the_open_bar(tmp_path: Path) -> None:
    put(tmp_path / "out", candles(5))
    align(tmp_path).expect()
    bars = candlebeam.open_aligned(aligned(tmp_path).records)
    assert (bars.committed, len(bars)) == (4, 5)


def test_only_what_is_new_is_written(tmp_path: Path) -> None:
    records = candles(40, 7, 11, 12, 30)
    for count in (1, 2, 11, 12, 25, 40):
        now = records[:count].copy()
        now[-1:] = some_records(1, count)  # it may still change
        put(tmp_path / "out", now)
        outcome = align(tmp_path).expect()
        assert outcome.stderr == ""
        assert_made(aligned(tmp_path), np.concatenate([records[: count - 1], now[-1:]]))
    assert " 16 bars " in f" {outcome.stdout.splitlines()[1]} "


def test_nothing_new_is_up_to_date(tmp_path: Path) -> None:
    put(tmp_path / "out", candles(5))
    align(tmp_path).expect()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "to/1m").rglob("*")}
    outcome = align(tmp_path, "--report", tmp_path / "r.json").expect()
    assert outcome.stdout == "1 market: 1 up to date\n"
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "to/1m").rglob("*")} == before
    assert outcome.totals == {
        "markets": 1, "written": 0, "up_to_date": 1, "without_bars": 0, "failed": 0,
        "bars": 0, "files": 0,
    }  # fmt: skip


@pytest.mark.parametrize("count", [12, 9, 3])
def test_candles_that_have_changed_make_all_again(tmp_path: Path, count: int) -> None:
    paths = put(tmp_path / "out", candles(10))
    align(tmp_path).expect()
    records = candles(count, seed=2)
    put(tmp_path / "out", records)
    outcome = align(tmp_path).expect()
    assert_made(aligned(tmp_path), records)
    what = "other" if count >= 10 else "fewer"
    assert outcome.stderr == (
        f"candlebeam: {paths.records}: {paths.records} has {what} candles than before;"
        f" {aligned(tmp_path).records} was made again\n"
    )


def test_other_gaps_are_refused_without_force(tmp_path: Path) -> None:
    paths, records = put(tmp_path / "out", candles(10, 3)), candles(10, 3)
    align(tmp_path).expect()
    outcome = align(tmp_path, "--gaps", "skip").expect(1)
    assert outcome.stdout == "1 market: 1 failed\n"
    assert outcome.stderr == (
        f"candlebeam: {paths.records}: failed: {aligned(tmp_path).records}: made with gaps forward,"
        " not gaps skip; --force makes it again\n"
    )
    assert_made(aligned(tmp_path), records)
    align(tmp_path, "--gaps", "skip", "--force").expect()
    assert_made(aligned(tmp_path), records, "skip")


def test_several_markets_go_through_beam(tmp_path: Path) -> None:
    first, second = candles(8, 2), candles(9, 3, seed=2)
    put(tmp_path / "out", first)
    put(tmp_path / "out", second, OTHER)
    outcome = align(tmp_path, "--report", tmp_path / "r.json", "--direct_num_workers", 1).expect()
    assert_made(aligned(tmp_path), first)
    assert_made(aligned(tmp_path, "XBTUSD"), second)
    assert outcome.stdout.startswith("2 markets: 2 written\n17 bars in 2 files in ")
    assert [row["files"] for row in outcome.report["markets"]] == [
        [aligned(tmp_path, "XBTUSD").records],
        [aligned(tmp_path).records],
    ]


def test_by_market_has_a_folder_for_each_exchange(tmp_path: Path) -> None:
    put(tmp_path / "out", candles(8))
    align(tmp_path, "--by-market").expect()
    assert_made(aligned(tmp_path, "btcusdt", "RAM", "BINANCE"), candles(8))


def test_symbols_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    put(tmp_path / "out", candles(8), Market("RAM", "BINANCE", "../A/B"))
    align(tmp_path).expect()
    assert_made(aligned(tmp_path, "%2E%2E%2FA%2FB"), candles(8))


def test_two_markets_of_one_name_are_wrong_usage(tmp_path: Path) -> None:
    namesake = Market("PI", "BYBIT", "btcusdt")
    first, second = put(tmp_path / "out", candles(8), namesake), put(tmp_path / "out", candles(9))
    outcome = align(tmp_path).expect(2)
    assert outcome.stderr == (
        f"candlebeam: {first.records} and {second.records} would both be"
        f" {aligned(tmp_path).records}; --by-market keeps markets apart\n"
    )
    assert not (tmp_path / "to").exists()
    align(tmp_path, "--by-market").expect()
    assert_made(aligned(tmp_path, "btcusdt", "PI", "BYBIT"), candles(8))
    assert_made(aligned(tmp_path, "btcusdt", "RAM", "BINANCE"), candles(9))


def test_one_market_of_two_folders_is_wrong_usage(tmp_path: Path) -> None:
    put(tmp_path / "out", candles(8))
    put(tmp_path / "b", candles(9))
    assert "would both be" in align(tmp_path, tmp_path / "b", "--by-market").expect(2).stderr


def test_candle_files_can_be_named_and_a_file_counts_once(tmp_path: Path) -> None:
    paths = put(tmp_path / "out", candles(8))
    put(tmp_path / "out", candles(9), OTHER)
    named = (paths.companion, paths.records, tmp_path / "out/RAM")
    outcome = run_here("align", *named, "--to", tmp_path / "to").expect()
    assert outcome.stdout.startswith("1 market: 1 written\n")
    assert_made(aligned(tmp_path), candles(8))


@pytest.mark.parametrize(
    "filters", [("--collector", "pi"), ("--exchange", "bitmex"), ("--symbol", "XBTUSD")]
)
def test_filters_choose_markets(tmp_path: Path, filters: tuple[str, str]) -> None:
    put(tmp_path / "out", candles(8))
    put(tmp_path / "out", candles(9), OTHER)
    assert align(tmp_path, *filters).expect().stdout.startswith("1 market: 1 written\n")
    assert_made(aligned(tmp_path, "XBTUSD"), candles(9))


def test_filters_that_choose_nothing_are_an_error(tmp_path: Path) -> None:
    put(tmp_path / "out", candles(8))
    outcome = align(tmp_path, "--exchange", "x", "--symbol", "y").expect(1)
    assert outcome.stderr == (f"candlebeam: {tmp_path / 'out'}: no bars of exchange x, symbol y\n")


def test_market_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    paths = put(tmp_path / "out", candles(8))
    put(tmp_path / "out", candles(9), OTHER)
    Path(paths.records).write_bytes(b"x")
    outcome = align(tmp_path).expect(1)
    assert_made(aligned(tmp_path, "XBTUSD"), candles(9))
    assert outcome.stdout.startswith("2 markets: 1 written, 1 failed\n")
    assert outcome.stderr == (
        f"candlebeam: {paths.records}: failed: {paths.records}:"
        " expected 448 bytes, as its companion says, found 1\n"
    )


@pytest.mark.parametrize("half", [".bin", ".json"])
def test_half_of_a_candle_file_fails(tmp_path: Path, half: str) -> None:
    paths = put(tmp_path / "out", candles(8))
    Path(paths.stem + half).unlink()
    outcome = align(tmp_path).expect(1)
    assert outcome.stdout == "1 market: 1 failed\n"
    reason = "No such file or directory"
    if half == ".json":
        reason = "no such file; a candle file needs its companion"
    assert outcome.stderr == (
        f"candlebeam: {paths.records}: failed: {paths.stem}{half}: {reason}\n"
    )


def test_damaged_companion_fails(tmp_path: Path) -> None:
    paths = put(tmp_path / "out", candles(8))
    Path(paths.companion).write_bytes(b"{")
    outcome = align(tmp_path, "--symbol", "btcusdt").expect(1)
    assert f"failed: {paths.companion}: expected JSON of a candle file, found " in outcome.stderr


def test_candle_file_without_candles_is_without_bars(tmp_path: Path) -> None:
    companion = companion_of(0, SCALE, None)
    write_pair(tmp_path / "out", companion, candles(0))
    outcome = align(tmp_path).expect()
    assert outcome.stdout == "1 market: 1 without bars\n"


def test_other_files_are_passed_over(tmp_path: Path) -> None:
    put(tmp_path / "out", candles(8))
    (tmp_path / "out/report.json").write_text("{}")
    (tmp_path / "out/.hidden").mkdir()
    (tmp_path / "out/.hidden/x.bin").touch()
    into_itself = ("align", tmp_path / "out", "--to", tmp_path / "out")
    run_here(*into_itself).expect()
    assert run_here(*into_itself).expect().stdout == "1 market: 1 up to date\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--to", "{}/to"), "nothing to read: expected output folders or files of bars"),
        (("{}/none", "--to", "{}/to"), "{}/none: no such file or folder"),
        (("{}/x.txt", "--to", "{}/to"), "{}/x.txt: expected a folder, the .bin or .json of"),
        (("{}/out", "--to", "{}/to", "--nosuch"), "the command line: --nosuch is no option of"),
        (("{}/out", "--to", "{}/to", "--report", "{}/no/r.json"), "no such folder: {}/no"),
    ],
)
def test_wrong_usage_is_told(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    put(tmp_path / "out", candles(8))
    (tmp_path / "x.txt").touch()
    outcome = run_here("align", *(argument.format(tmp_path) for argument in arguments)).expect(2)
    assert message.format(tmp_path) in outcome.stderr


def test_folder_without_candle_files_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert align(tmp_path).expect(1).stderr == f"candlebeam: {tmp_path / 'out'}: no bars\n"


def test_second_writer_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "out", candles(8))
    with output_lock(str(tmp_path / "to")):
        assert "is writing here" in align(tmp_path).expect(1).stderr
    align(tmp_path).expect()


# Files of other programs


def foreign(folder: Path, records: Records, count: int, index: bytes) -> AlignedPaths:
    """An aligned file of the first candles, as another program leaves it."""
    paths = aligned(folder)
    Path(paths.index).parent.mkdir(parents=True)
    Path(paths.records).write_bytes(encoded(expected_rows(records, SCALE)[:count], "forward"))
    Path(paths.index).write_bytes(index)
    return paths


@pytest.mark.parametrize("legacy", [False, True])
def test_file_of_another_program_goes_on(tmp_path: Path, legacy: bool) -> None:
    """Its position is in some other source. Without duplicates, though the index has no date."""
    records = candles(20, 9)
    put(tmp_path / "out", records)
    index = struct.pack("<QQ", 12_345, 640) if legacy else index_bytes(DAY, 12_345, 640)
    paths = foreign(tmp_path, records, 10, index)
    outcome = align(tmp_path).expect()
    assert_made(paths, records)
    assert "nothing says what it was made from; its last bar, at " in outcome.stderr
    assert outcome.stdout.splitlines()[1].startswith("10 bars in 1 file")
    assert align(tmp_path).expect().stdout == "1 market: 1 up to date\n"


@pytest.mark.parametrize("count", [9, 10])
def test_file_of_another_program_that_is_another_s_is_refused(tmp_path: Path, count: int) -> None:
    records = candles(9)
    put(tmp_path / "out", records)
    theirs = candles(count, seed=count) if count == 9 else candles(count)
    paths = foreign(tmp_path, theirs, count, index_bytes(DAY, 0, 64 * count))
    before = Path(paths.records).read_bytes()
    outcome = align(tmp_path).expect(1)
    assert "that of RAM/BINANCE/btcusdt is none; --force makes the file again" in outcome.stderr
    assert Path(paths.records).read_bytes() == before
    align(tmp_path, "--force").expect()
    assert_made(paths, records)


def test_hexdump_of_the_specification_shows_what_it_says(tmp_path: Path) -> None:
    hexdump = shutil.which("hexdump")
    if hexdump is None:
        pytest.skip("hexdump is not installed")
    records = candles(5)
    put(tmp_path / "out", records)
    align(tmp_path).expect()
    form = '1/8 "TS: %u | " 5/8 " %f " 2/8 " (pad) " "\\n"'
    path = aligned(tmp_path).records
    done = subprocess.run(
        [hexdump, "-n", "128", "-e", form, path], capture_output=True, text=True, check=True
    )
    expected = [
        (ts, *(f"{value:.6f}" for value in values))
        for ts, *values in expected_rows(records, SCALE)[:2]
    ]
    found = [line.split() for line in done.stdout.splitlines()]
    assert found == [["TS:", str(ts), "|", *values, "(pad)", "(pad)"] for ts, *values in expected]
    done = subprocess.run(
        [hexdump, "-C", "-n", "128", path], capture_output=True, text=True, check=True
    )
    lines = {line[:8]: line[10:58].split() for line in done.stdout.splitlines()}
    assert lines["00000030"] == ["00"] * 16
    assert bytes.fromhex("".join(lines["00000000"][:8])) == struct.pack("<Q", expected[0][0])


# Killed


@pytest.fixture(scope="module")
def host() -> Iterator[KillHost]:
    with KillHost() as running:
        yield running


@pytest.mark.parametrize("before", [0, 5])
def test_killed_at_any_call(host: KillHost, tmp_path: Path, before: int) -> None:
    """Readers see what was there or what is there now; the next run ends well."""
    records = candles(20, 3, 9)
    arguments = ("align", tmp_path / "out", "--to", tmp_path / "to")
    paths = aligned(tmp_path)
    states: set[int | None] = set()
    for at in range(1, 100, 2):
        shutil.rmtree(tmp_path / "to", ignore_errors=True)
        if before:
            put(tmp_path / "out", records[:before])
            align(tmp_path).expect()
        put(tmp_path / "out", records)
        ended = host.run(arguments, at)
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
        try:
            found = candlebeam.open_aligned(paths.records)
        except FileNotFoundError:
            states.add(None)
        else:
            states.add(found.committed)
            assert found.committed is not None
            rows = expected_rows(records, SCALE)[: found.committed]
            assert found.records[: found.committed].tobytes() == encoded(rows, "forward")
        align(tmp_path).expect()
        assert_made(paths, records)
    assert states == {before - 1 if before else None, 19}
    assert at > 8


def test_killed_again_and_again(host: KillHost, tmp_path: Path) -> None:
    records = candles(60, 3, 9)
    for count in range(2, 61, 2):
        put(tmp_path / "out", records[:count])
        ended = host.run(("align", tmp_path / "out", "--to", tmp_path / "to"), 1 + count % 17)
        assert ended in (0, -signal.SIGKILL)
    assert host.run(("align", tmp_path / "out", "--to", tmp_path / "to"), NEVER) == 0
    assert_made(aligned(tmp_path), records)


# The sink


def test_sink_aligns_candle_files(tmp_path: Path) -> None:
    first, second = put(tmp_path / "out", candles(8)), put(tmp_path / "out", candles(9), OTHER)
    with TestPipeline() as pipeline:
        outcomes = (
            pipeline
            | beam.Create([first.records, (OTHER, second.companion)])
            | WriteAligned(to=str(tmp_path / "to"), gaps="zero")
            | beam.Map(lambda outcome: (outcome.name, outcome.status, outcome.bars))
        )
        assert_that(
            outcomes, equal_to([(first.records, "written", 8), (second.companion, "written", 9)])
        )
    assert_made(aligned(tmp_path), candles(8), "zero")
    assert_made(aligned(tmp_path, "XBTUSD"), candles(9), "zero")


def test_sink_says_what_fails(tmp_path: Path) -> None:
    first = put(tmp_path / "out", candles(8))
    second = put(tmp_path / "out", candles(9), Market("PI", "BYBIT", "btcusdt"))
    third = put(tmp_path / "out", candles(9), OTHER)
    Path(third.records).unlink()
    both = (
        f"{second.records} and {first.records} would both be {aligned(tmp_path).records};"
        " by_market keeps them apart"
    )
    with TestPipeline() as pipeline:
        outcomes = (
            pipeline
            | beam.Create([first.records, second.records, third.records, third.records])
            | WriteAligned(to=str(tmp_path / "to"))
            | beam.Map(lambda outcome: (outcome.name, outcome.status, outcome.error))
        )
        no_such = f"{third.records}: No such file or directory"
        assert_that(
            outcomes,
            equal_to(
                [
                    (first.records, "failed", both),
                    (second.records, "failed", both),
                    (third.records, "failed", no_such),
                ]
            ),
        )


def test_report_is_json(tmp_path: Path) -> None:
    put(tmp_path / "out", candles(8))
    align(tmp_path, "--report", tmp_path / "r.json").expect()
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["markets"] == [
        {
            "name": str(tmp_path / "out/RAM/BINANCE/btcusdt.bin"),
            "status": "written",
            "error": None,
            "notes": [],
            "bars": 8,
            "files": [aligned(tmp_path).records],
        }
    ]


# Bars that are no candle files


def test_csv_and_databento_bars_become_aligned_files_with_their_own_volume(tmp_path: Path) -> None:
    csv = tmp_path / "SPY_2024_01_1m.csv"
    csv.write_text(
        "timestamp,open,high,low,close,volume\n"
        "2024-01-02 14:30:00+00:00,472.1,472.5,472,472.4,1200\n"
        "2024-01-02 14:32:00+00:00,472.4,472.4,471.9,472,800\n"
    )
    bars = PROJECT / "tests/data/dbn/XNAS.ITCH.ohlcv-1m.dbn.zst"
    to = tmp_path / "to"
    outcome = run_here("align", csv, bars, "--to", to, "--gaps", "zero").expect()
    assert outcome.stdout.startswith("2 markets: 2 written\n")
    with candlebeam.open_aligned(to / "1m/SPY.bin") as aligned:
        assert aligned.ohlcv.tolist() == [
            [472.1, 472.5, 472.0, 472.4, 1200.0],
            [472.4, 472.4, 471.9, 472.0, 800.0],
        ]
    with candlebeam.open_aligned(to / "1m/NVDA.bin") as aligned:
        records = list(databento.DBNStore.from_bytes(bars.read_bytes()))
        assert aligned.ohlcv.tolist() == [
            [r.open / 1e9, r.high / 1e9, r.low / 1e9, r.close / 1e9, float(r.volume)]
            for r in records
        ]
        assert aligned.times().astype(int).tolist() == [r.ts_event // 10**6 for r in records]
    again = run_here("align", tmp_path, bars, "--to", to).expect()
    assert again.stdout == "2 markets: 2 up to date\n"


def test_trades_are_no_bars_to_align(tmp_path: Path) -> None:
    trades = PROJECT / "tests/data/dbn/XNAS.ITCH.trades.dbn.zst"
    outcome = run_here("align", trades, "--to", tmp_path / "to").expect(1)
    assert "failed: trades are no bars: resample them" in outcome.stderr


def test_bars_of_one_name_are_told_apart_or_refused(tmp_path: Path) -> None:
    names = ("a/NVDA_2020_12_1m.csv", "b/NVDA_2020_12_1m.csv")
    for name in names:
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(
            "timestamp,open,high,low,close,volume\n2020-12-28 09:05:00+00:00,1,1,1,1,1\n"
        )
    outcome = run_here("align", tmp_path / "a", tmp_path / "b", "--to", tmp_path / "to").expect(2)
    assert "would both be" in outcome.stderr
    assert not (tmp_path / "to/1m").exists()
