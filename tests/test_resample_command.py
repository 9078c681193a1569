"""`candlebeam resample`: from candle files to aligned files and CSV of other timeframes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

import candlebeam
from candlebeam.errors import CandlebeamError, UsageError
from candlebeam.formats.candles.source import CandleSource
from candlebeam.formats.csv.bars import encode_csv
from candlebeam.io.resample_outputs import ResampleOptions, check_folder
from candlebeam.model import MS_PER_DAY, Bars, Market, Records
from candlebeam.pipelines.lock import LOCK_NAME, output_lock
from candlebeam.rules.periods import Period
from candlebeam.rules.resample import resample
from tests.aligned_bars import (
    encoded,
    index_bytes,
    minutes,
    rows_of,
    write_aligned,
)
from tests.aligned_runs import without_fsync
from tests.candle_pairs import SCALE, companion_of, some_records
from tests.command_line import run_here
from tests.resample_runs import (
    MINUTE,
    OTHER,
    PERIODS,
    aligned_input,
    assert_made,
    candles,
    contents,
    expected,
    gappy,
    joined,
    made_of,
    paths_of,
    put,
    resampled,
    write_csv,
)
from tests.trade_batches import MARKET, MIDNIGHT

_no_power_cuts = pytest.fixture(scope="module", autouse=True)(without_fsync)


# One run


@pytest.mark.parametrize("tz", [None, "Europe/Berlin", "Asia/Kolkata", "America/New_York"])
def test_candles_become_bars_of_all_timeframes(tmp_path: Path, tz: str | None) -> None:
    paths = put(tmp_path / "out", gappy(9_000))
    outcome = resampled(tmp_path, *(["--tz", tz] if tz else [])).expect()
    assert outcome.stdout.startswith("1 input: 1 written\n")
    assert_made(tmp_path, paths.records, tz)


def test_bars_are_what_they_should_be_number_by_number(tmp_path: Path) -> None:
    """Against the numbers of the candle file itself."""
    records = candles(61, 2, 3, 17)
    put(tmp_path / "out", records)
    resampled(tmp_path, wanted="15m,1h").expect()
    for period, step in (("15m", 15), ("1h", 60)):
        rows = []
        for begin in range(0, 61, step):
            traded = [r for r in records[begin : begin + step] if r["high"]]
            volume = [float(int(r["buy_volume"]) + int(r["sell_volume"])) / 1e6 for r in traded]
            total = sum(int(r["buy_volume"]) + int(r["sell_volume"]) for r in traded) / 1e6
            prices = [
                traded[0]["open"], max(r["high"] for r in traded), min(r["low"] for r in traded),
                traded[-1]["close"],
            ]  # fmt: skip
            row = (MIDNIGHT + begin * MINUTE, *(int(p) / SCALE.value for p in prices), total)
            assert sum(volume) == pytest.approx(total, rel=1e-15)
            rows.append(row)
        with candlebeam.open_aligned(paths_of(tmp_path, period).records) as made:
            found = [
                (int(ts), *map(float, values))
                for ts, values in zip(made.records["ts"], made.ohlcv, strict=True)
            ]
            assert made.committed == len(rows) - 1
        for mine, theirs in zip(found, rows, strict=True):
            assert mine[:5] == theirs[:5]
            assert mine[5] == pytest.approx(theirs[5], rel=1e-15)


def test_open_bar_is_marked_by_the_index_or_left_out(tmp_path: Path) -> None:
    paths = put(tmp_path / "out", candles(1_000))
    resampled(tmp_path, "--open-bar", "omit").expect()
    assert_made(tmp_path, paths.records, mark=False)
    resampled(tmp_path).expect()
    assert_made(tmp_path, paths.records)
    resampled(tmp_path, "--open-bar", "omit").expect()
    assert_made(tmp_path, paths.records, mark=False)


def test_timeframe_of_the_input_itself_is_a_copy_without_gaps(tmp_path: Path) -> None:
    paths = put(tmp_path / "out", candles(50, 3, 4, 5))
    resampled(tmp_path, wanted="1m").expect()
    (piece,) = CandleSource(paths.records).pieces()
    rows = [row for row in rows_of(piece.bars) if row[1] == row[1]]
    assert Path(paths_of(tmp_path, "1m").records).read_bytes() == encoded(rows)


def test_only_timeframes_that_are_asked_for_are_made_and_each_once(tmp_path: Path) -> None:
    put(tmp_path / "out", candles(50))
    report = resampled(
        tmp_path, "--report", tmp_path / "report.json", wanted="1h,60m,5min,300s"
    ).expect()
    (made,) = report.report["inputs"]
    assert [Path(path).parent.name for path in made["files"]] == ["5m", "1h"]
    assert report.report["totals"] == {
        "inputs": 1, "written": 1, "up_to_date": 0, "without_bars": 0, "failed": 0, "bars": 11,
        "files": 2,
    }  # fmt: skip


# Going on


def test_nothing_new_is_up_to_date(tmp_path: Path) -> None:
    put(tmp_path / "out", gappy(3_000))
    resampled(tmp_path).expect()
    files = [path for path in (tmp_path / "to").rglob("*.*") if path.name != LOCK_NAME]
    before = {path: path.stat().st_mtime_ns for path in files}
    assert resampled(tmp_path).expect().stdout == "1 input: 1 up to date\n"
    assert before == {path: path.stat().st_mtime_ns for path in before}


@pytest.mark.parametrize("seed", range(6))
def test_any_sequence_of_runs_gives_what_one_gives(tmp_path: Path, seed: int) -> None:
    rng = Random(seed)
    tz = rng.choice([None, "Europe/Berlin", "America/New_York"])
    options = ["--tz", tz] if tz else []
    records = gappy(15_000, seed)
    for count in sorted(rng.sample(range(1, 15_000), 5)):
        part: Records = records[:count].copy()
        # The last candle is not what it will be.
        part[-1] = some_records(1, seed + count)[0]
        put(tmp_path / "out", part)
        # Not all of them every time.
        some = rng.sample(PERIODS, rng.randint(1, len(PERIODS)))
        omit = ["--open-bar", "omit"] if rng.random() < 0.3 else []
        resampled(tmp_path, *options, *omit, wanted=",".join(map(str, some))).expect()
    paths = put(tmp_path / "out", records)
    assert resampled(tmp_path, *options).expect().stderr == ""
    assert_made(tmp_path, paths.records, tz)


def test_only_what_is_new_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = candles(10_000)
    put(tmp_path / "out", records[:9_990])
    resampled(tmp_path, wanted="5m,1h").expect()
    begins = []
    pieces = CandleSource.pieces

    def spied(source: CandleSource, begin: int = 0) -> Iterator[object]:
        begins.append(begin)
        return pieces(source, begin)

    monkeypatch.setattr(CandleSource, "pieces", spied)
    put(tmp_path / "out", records)
    report = resampled(tmp_path, "--report", tmp_path / "r.json", wanted="5m,1h").expect()
    # The hour that was open.
    assert begins == [9_960]
    assert report.totals["bars"] == 3 + 1


@pytest.mark.parametrize("place", [0, 5_000, 8_995])
def test_history_that_has_changed_makes_all_again(tmp_path: Path, place: int) -> None:
    records = candles(9_000)
    put(tmp_path / "out", records)
    resampled(tmp_path).expect()
    records[place]["high"] += 1
    paths = put(tmp_path / "out", records)
    again = resampled(tmp_path).expect()
    assert_made(tmp_path, paths.records)
    if place == 0:
        # But for the month, of which nothing was closed.
        assert again.stderr.count("has other bars than before") == 5


def test_fewer_candles_than_before_make_all_again(tmp_path: Path) -> None:
    put(tmp_path / "out", candles(9_000))
    resampled(tmp_path).expect()
    paths = put(tmp_path / "out", candles(4_000))
    resampled(tmp_path).expect()
    assert_made(tmp_path, paths.records)


def test_other_zone_is_refused_without_force(tmp_path: Path) -> None:
    paths = put(tmp_path / "out", candles(9_000))
    resampled(tmp_path).expect()
    failed = resampled(tmp_path, "--tz", "Europe/Berlin").expect(1)
    assert "made with input 1m, timezone UTC, not input 1m, timezone Europe/Berlin" in failed.stderr
    assert_made(tmp_path, paths.records)
    resampled(tmp_path, "--tz", "Europe/Berlin", "--force").expect()
    assert_made(tmp_path, paths.records, "Europe/Berlin")


def test_zone_is_nothing_to_shorter_timeframes(tmp_path: Path) -> None:
    put(tmp_path / "out", candles(900))
    resampled(tmp_path, wanted="5m,4h").expect()
    again = resampled(tmp_path, "--tz", "Asia/Kolkata", wanted="5m,4h").expect()
    assert again.stdout == "1 input: 1 up to date\n"


def test_file_that_nobody_knows_is_refused_without_force(tmp_path: Path) -> None:
    write_aligned(tmp_path / "to", encoded(minutes(0, 9)), index_bytes(20_240_301, 0, 576), "5m")
    paths = put(tmp_path / "out", candles(9_000))
    failed = resampled(tmp_path).expect(1)
    assert "5m/btcusdt.bin: nothing says what it was made from; --force" in failed.stderr
    resampled(tmp_path, "--force").expect()
    assert_made(tmp_path, paths.records)


# CSV


def read_csvs(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.glob("*.csv"))}


def test_csv_files_are_months(tmp_path: Path) -> None:
    paths = put(tmp_path / "out", gappy(20_000), MARKET)
    # Over the end of the month.
    companion = companion_of(20_000)
    moved = replace(
        companion, start_ts=MIDNIGHT + 25 * MS_PER_DAY, end_ts=companion.end_ts + 25 * MS_PER_DAY
    )
    Path(paths.companion).write_bytes(moved.encode())
    resampled(tmp_path, "--format", "csv", wanted="5m,1d").expect()
    bars = Bars.join([piece.bars for piece in CandleSource(paths.records).pieces()])
    for text in ("5m", "1d"):
        closed, opened = expected(bars, Period.parse(text), None, int(bars.ts[-1]))
        april = closed.ts >= 1_711_929_600_000
        assert read_csvs(tmp_path / "to" / text) == {
            f"btcusdt_2024_03_{text}.csv": encode_csv(closed.part(~april)).decode(),
            f"btcusdt_2024_04_{text}.csv": encode_csv(closed.part(april)).decode(),
            f"btcusdt_{text}_open.csv": encode_csv(opened).decode(),
        }


def test_csv_files_that_would_come_out_the_same_are_left_alone(tmp_path: Path) -> None:
    records = gappy(3_000)
    put(tmp_path / "out", records[:2_000])
    options = ("--format", "csv")
    resampled(tmp_path, *options, wanted="5m,1d").expect()
    before = {path: path.stat().st_ino for path in (tmp_path / "to").rglob("*.csv")}
    assert resampled(tmp_path, *options, wanted="5m,1d").expect().stdout == (
        "1 input: 1 up to date\n"
    )
    assert before == {path: path.stat().st_ino for path in before}
    put(tmp_path / "out", records)
    report = resampled(tmp_path, *options, "--report", tmp_path / "r.json", wanted="5m,1d")
    made = [Path(path).name for path in report.expect().report["inputs"][0]["files"]]
    assert made == [
        "btcusdt_2024_03_5m.csv", "btcusdt_5m_open.csv", "btcusdt_2024_03_1d.csv",
        "btcusdt_1d_open.csv",
    ]  # fmt: skip


def test_open_bar_is_taken_away_from_csv_where_it_is_omitted(tmp_path: Path) -> None:
    put(tmp_path / "out", candles(99))
    resampled(tmp_path, "--format", "csv", wanted="5m").expect()
    assert (tmp_path / "to/5m/btcusdt_5m_open.csv").exists()
    resampled(tmp_path, "--format", "csv", "--open-bar", "omit", wanted="5m").expect()
    assert list(read_csvs(tmp_path / "to/5m")) == ["btcusdt_2024_03_5m.csv"]


def test_csv_reads_back_to_the_same_bars(tmp_path: Path) -> None:
    paths = put(tmp_path / "out", gappy(3_000))
    resampled(tmp_path, "--format", "csv", "--open-bar", "omit", wanted="5m").expect()
    run_here(
        "resample", tmp_path / "to/5m", "--to", tmp_path / "again/to", "--timeframes", "15m,1h"
    ).expect()
    (piece,) = CandleSource(paths.records).pieces()
    five, _ = expected(piece.bars, Period.parse("5m"), None, int(piece.bars.ts[-1]))
    for period, made in resample(five, Period.parse_all("15m,1h")).items():
        assert joined(made_of(tmp_path / "again", str(period))) == rows_of(made)


# Several markets


def test_several_inputs_go_through_beam_and_one_that_fails_stops_no_other(tmp_path: Path) -> None:
    good, bad = put(tmp_path / "out", candles(900)), put(tmp_path / "out", candles(900), OTHER)
    third = put(tmp_path / "out", candles(500), Market("RAM", "KRAKEN", "x"))
    os.truncate(bad.records, 56 * 800)
    Path(third.companion).write_text("{}")
    failed = resampled(tmp_path, "--direct_running_mode", "in_memory").expect(1)
    assert failed.stdout.startswith("3 inputs: 1 written, 2 failed\n")
    assert f"candlebeam: {bad.records}: failed: " in failed.stderr
    assert "expected 50400 bytes, as its companion says, found 44800" in failed.stderr
    assert third.companion in failed.stderr
    assert_made(tmp_path, good.records)


def test_two_markets_of_one_name_are_wrong_usage(tmp_path: Path) -> None:
    put(tmp_path / "out", candles(9))
    put(tmp_path / "out", candles(9), Market("PI", "BINANCE", "btcusdt"))
    failed = resampled(tmp_path).expect(2)
    assert "PI/BINANCE/btcusdt.bin (PI/BINANCE/btcusdt) and " in failed.stderr
    assert "to/5m/btcusdt; --by-market keeps markets apart" in failed.stderr
    assert not (tmp_path / "to").exists()
    resampled(tmp_path, "--by-market", wanted="5m").expect()
    assert sorted(contents(tmp_path / "to")) == [
        f"{collector}/BINANCE/5m/{name}"
        for collector in ("PI", "RAM")
        for name in ("btcusdt.bin", "index/btcusdt.idx")
    ]


@pytest.mark.parametrize(
    "filters",
    [("--symbol", "XBTUSD"), ("--exchange", "bitmex"), ("--collector", "PI")],
)
def test_filters_choose_markets(tmp_path: Path, filters: tuple[str, str]) -> None:
    put(tmp_path / "out", candles(9))
    put(tmp_path / "out", candles(9), OTHER)
    resampled(tmp_path, *filters, wanted="5m").expect()
    assert sorted(contents(tmp_path / "to")) == ["5m/XBTUSD.bin", "5m/index/XBTUSD.idx"]


@pytest.mark.parametrize("form", ["aligned", "csv"])
def test_input_without_bars_gives_nothing(tmp_path: Path, form: str) -> None:
    write_csv(tmp_path / "out/SPY_2024_03_1m.csv", [])
    aligned_input(tmp_path, [])
    shutil.move(tmp_path / "in", tmp_path / "out/in")
    put(tmp_path / "out", candles(1))
    options = ("--format", form, "--report", tmp_path / "r.json", "--by-market")
    report = resampled(tmp_path, *options).expect().report
    assert [each["status"] for each in report["inputs"]] == ["written", "empty", "empty"]
    assert {path.split("/")[0] for path in contents(tmp_path / "to")} == {"RAM"}


def test_file_that_is_named_twice_counts_once(tmp_path: Path) -> None:
    paths = put(tmp_path / "out", candles(9))
    outcome = run_here(
        "resample", paths.records, paths.companion, tmp_path / "out",
        "--to", tmp_path / "to", "--timeframes", "5m",
    ).expect()  # fmt: skip
    assert outcome.stdout.startswith("1 input: 1 written\n")


# Wrong usage


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--timeframes", "30s"], "btcusdt.bin: timeframe 30s: the input has bars of 1m, longer"),
        (["--timeframes", "5m,90s"], "btcusdt.bin: timeframe 90s: no multiple of 1m"),
        (["--timeframes", "7m"], "timeframe 7m: expected a divisor of a day"),
        (["--timeframes", "5m,"], "timeframe '': expected a number and a unit"),
        (["--timeframes", "1d", "--tz", "Mars/Base"], "time zone 'Mars/Base': expected a name"),
        ([], "Missing option '--timeframes'"),
    ],
)
def test_wrong_usage_is_told_and_nothing_is_written(
    tmp_path: Path, options: list[str], message: str
) -> None:
    put(tmp_path / "out", candles(9))
    failed = run_here("resample", tmp_path / "out", "--to", tmp_path / "to", *options).expect(2)
    assert message in failed.stderr
    assert not (tmp_path / "to").exists()


def test_input_that_is_none_is_told(tmp_path: Path) -> None:
    to = ("--to", tmp_path / "to", "--timeframes", "5m")
    assert "nothing to read" in run_here("resample", *to).expect(2).stderr
    failed = run_here("resample", tmp_path / "nowhere", *to).expect(2)
    assert "nowhere: no such file or folder" in failed.stderr
    (tmp_path / "empty").mkdir()
    failed = run_here("resample", tmp_path / "empty", *to).expect(1)
    assert "expected candle files, aligned files, CSV, Databento files, found none" in failed.stderr
    put(tmp_path / "out", candles(9))
    failed = run_here("resample", tmp_path / "out", *to, "--symbol", "nope").expect(1)
    assert "out: no bars of symbol nope" in failed.stderr


def test_hour_bars_do_not_make_days_of_a_zone_off_by_half_an_hour(tmp_path: Path) -> None:
    rows = [(MIDNIGHT + n * 60 * MINUTE, 1.0, 1.0, 1.0, 1.0, 1.0) for n in range(30)]
    path = write_csv(tmp_path / "SPY_2024_03_1h.csv", rows)
    arguments = ("resample", path, "--to", tmp_path / "to", "--timeframes", "4h,1d")
    failed = run_here(*arguments, "--tz", "Asia/Kolkata").expect(1)
    assert f"{path}: the bar of 1h from 2024-03-01T18:00:00.000Z lasts longer" in failed.stderr
    assert contents(tmp_path / "to") == {}
    run_here(*arguments, "--tz", "Europe/Berlin").expect()


def test_bars_of_unknown_length_are_wrong_usage(tmp_path: Path) -> None:
    rows = [(MIDNIGHT + n * 7 * MS_PER_DAY, 1.0, 1.0, 1.0, 1.0, 1.0) for n in range(3)]
    write_aligned(tmp_path / "in", encoded(rows), index_bytes(20_240_315, 0, 192), "1w")
    failed = run_here(
        "resample", tmp_path / "in", "--to", tmp_path / "to", "--timeframes", "1M"
    ).expect(2)
    assert "only bars of 1s to 1d can be read" in failed.stderr


@pytest.mark.parametrize("form", ["aligned", "csv"])
def test_input_is_never_replaced(tmp_path: Path, form: str) -> None:
    put(tmp_path / "out", candles(99))
    resampled(tmp_path, "--format", form, "--open-bar", "omit", wanted="5m").expect()
    before = contents(tmp_path / "to")
    failed = run_here(
        "resample", tmp_path / "to/5m", "--to", tmp_path / "to", "--timeframes", "1h,5m",
        "--format", form, "--force",
    ).expect(2)  # fmt: skip
    assert "would be replaced by what is made of it" in failed.stderr
    assert contents(tmp_path / "to") == before


@pytest.mark.parametrize("inside", ["out", "out/bars", "out/../out/RAM"])
def test_output_inside_of_the_input_is_wrong_usage(tmp_path: Path, inside: str) -> None:
    put(tmp_path / "out", candles(9))
    failed = run_here(
        "resample", tmp_path / "out", "--to", tmp_path / inside, "--timeframes", "5m"
    ).expect(2)
    assert f"lies inside of {tmp_path / 'out'}, where the next run" in failed.stderr


def test_second_writer_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "out", candles(9))
    with output_lock(str(tmp_path / "to")):
        failed = resampled(tmp_path).expect(1)
    assert "is writing here" in failed.stderr


def test_file_system_that_takes_minutes_for_months_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_folder(str(tmp_path / "1m"))
    check_folder(str(tmp_path / "1M"))
    monkeypatch.setattr(os, "listdir", lambda _: ["1m"])
    check_folder(str(tmp_path / "1m"))
    check_folder(str(tmp_path / "5m"))
    with pytest.raises(CandlebeamError, match="1M: this file system does not tell 1m and 1M apart"):
        check_folder(str(tmp_path / "1M"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"form": "parquet"}, {"open_bar": "maybe"}, {"periods": ()}, {"tz": "Nowhere"},
        {"periods": (PERIODS[0], PERIODS[0])},
    ],
)  # fmt: skip
def test_options_are_checked_when_they_are_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        ResampleOptions(**{"to": "x", "periods": PERIODS, **wrong})
