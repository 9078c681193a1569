"""`candlebeam resample` of aligned files, CSV, and bars and trades of Databento."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import databento_dbn
import pytest

from candlebeam.model import MS_PER_DAY
from candlebeam.rules.periods import Period
from candlebeam.rules.resample import resample
from tests.aligned_bars import (
    Bar,
    bars_from,
    minutes,
    rows_of,
)
from tests.aligned_runs import without_fsync
from tests.command_line import run_here
from tests.dbn_files import (
    DAY_NS,
    MIDNIGHT_NS,
    ONE,
    SAMPLES,
    UNDEFINED_PRICE,
    days,
    record,
    trade,
    write_dbn,
)
from tests.resample_runs import (
    MINUTE,
    PERIODS,
    aligned_input,
    expected,
    joined,
    made_of,
    paths_of,
    write_csv,
)

_no_power_cuts = pytest.fixture(scope="module", autouse=True)(without_fsync)


def test_aligned_files_grow_like_candle_files(tmp_path: Path) -> None:
    rows = minutes(0, 300, 7, 8, 9, 120, 121)
    for count in (3, 60, 61, 200, 300):
        aligned_input(tmp_path, rows[: count - 1], rows[count - 1 : count])
        run_here(
            "resample", tmp_path / "in", "--to", tmp_path / "to", "--timeframes", "5m,1h"
        ).expect()
        for text in ("5m", "1h"):
            period = Period.parse(text)
            closed, opened = expected(bars_from(rows[:count]), period, None, rows[count - 1][0])
            assert made_of(tmp_path, text) == (rows_of(closed), rows_of(opened))


def test_bars_out_of_order_are_left_out_and_told_however_they_came(tmp_path: Path) -> None:
    rows = [*minutes(0, 20), *minutes(12, 14, seed=9), *minutes(20, 31)]
    kept = [*minutes(0, 20), *minutes(20, 31)]
    told = []
    for count in (15, 21, 22, 30, 33):
        aligned_input(tmp_path, rows[:count])
        outcome = run_here(
            "resample", tmp_path / "in", "--to", tmp_path / "to", "--timeframes", "5m"
        ).expect()
        told += [line.split("btcusdt.bin")[-1] for line in outcome.stderr.splitlines()]
    for what in ("1 bar", "2 bars"):
        assert f": {what} out of order: left out, the first at 2024-03-01T00:12:00.000Z" in told
    closed, opened = expected(bars_from(kept), Period.parse("5m"), None, kept[-1][0] + MINUTE)
    assert made_of(tmp_path) == (rows_of(closed), rows_of(opened))


def test_more_bars_of_a_time_that_was_closed_make_all_again(tmp_path: Path) -> None:
    rows = [*minutes(0, 5), *minutes(4, 5, seed=9), *minutes(5, 9)]
    for count in (5, 10):
        aligned_input(tmp_path, rows[:count])
        outcome = run_here(
            "resample", tmp_path / "in", "--to", tmp_path / "to", "--timeframes", "5m"
        ).expect()
    assert "has more bars of times that were closed" in outcome.stderr
    closed, opened = expected(bars_from(rows), Period.parse("5m"), None, rows[-1][0] + MINUTE)
    assert made_of(tmp_path) == (rows_of(closed), rows_of(opened))


def test_bar_with_some_prices_is_named_and_what_stands_before_it_is_written(tmp_path: Path) -> None:
    rows = minutes(0, 30)
    ts, _, *values = rows[17]
    rows[17] = (ts, float("nan"), *values)  # type: ignore[assignment]
    found = aligned_input(tmp_path, minutes(0, 30))
    Path(found.records).write_bytes(b"".join(struct.pack("<Q5d16x", *row) for row in rows))
    for _ in range(2):
        failed = run_here(
            "resample", tmp_path / "in", "--to", tmp_path / "to", "--timeframes", "5m"
        ).expect(1)
        place = f"{found.records} at byte {17 * 64}: expected a bar with four prices or none"
        assert place in failed.stderr
        assert "found open nan, high" in failed.stderr
        closed, opened = expected(bars_from(rows[:17]), PERIODS[0], None, rows[17][0])
        assert made_of(tmp_path) == (rows_of(closed), rows_of(opened))


def test_csv_is_made_again_when_it_has_grown(tmp_path: Path) -> None:
    rows = minutes(0, 130)
    for count in (9, 65, 130):
        path = write_csv(tmp_path / "SPY_2024_03_1m.csv", rows[:count])
        arguments = ("resample", path, "--to", tmp_path / "to", "--timeframes", "5m,1h")
        first, again = run_here(*arguments).expect(), run_here(*arguments).expect()
        assert (first.stdout[:18], again.stdout[:21]) == (
            "1 input: 1 written",
            "1 input: 1 up to date",
        )
        assert first.stderr == again.stderr == ""
        for text in ("5m", "1h"):
            reached = rows[count - 1][0] + MINUTE
            closed, opened = expected(bars_from(rows[:count]), Period.parse(text), None, reached)
            assert made_of(tmp_path, text, "SPY") == (rows_of(closed), rows_of(opened))
    assert struct.unpack("<8xQQ", Path(paths_of(tmp_path, "5m", "SPY").index).read_bytes()) == (
        130, 26 * 64,
    )  # fmt: skip


def test_damage_in_csv_is_told_by_every_run(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "SPY_2024_03_1m.csv", minutes(0, 30))
    lines = path.read_bytes().split(b"\n")
    lines[18] = b"what is this"
    path.write_bytes(b"\n".join(lines))
    for _ in range(2):
        failed = run_here("resample", path, "--to", tmp_path / "to", "--timeframes", "5m").expect(1)
        assert str(path) in failed.stderr


def traded(ms: int, price: float, size: float) -> Bar:
    """A trade as a bar, so long after the first midnight of Databento files for tests."""
    return (MIDNIGHT_NS // 10**6 + ms, price, price, price, price, size)


def databento_part(path: Path, first: int, end: int, records: Sequence[bytes], **how: str) -> Path:
    """A Databento file of the days from `first` to before `end`."""
    schema = how.get("schema", "trades")
    metadata: Any = databento_dbn.Metadata(
        dataset=how.get("dataset", "XNAS.ITCH"),
        start=MIDNIGHT_NS + first * DAY_NS,
        end=MIDNIGHT_NS + end * DAY_NS,
        stype_in=databento_dbn.SType.from_str("raw_symbol"),
        stype_out=databento_dbn.SType.from_str("instrument_id"),
        schema=databento_dbn.Schema.from_str(schema),
        symbols=["ABC"],
        mappings=ONE,
        version=3,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(metadata.encode() + b"".join(records))
    return path


def test_databento_files_of_one_market_are_one_history(tmp_path: Path) -> None:
    times = [n * 5 * 3_600_000 for n in range(14)]
    trades = [trade(ms * 10**6, (100 + n) * 10**9, n + 1) for n, ms in enumerate(times)]
    for day in range(3):
        part = [t for t, ms in zip(trades, times, strict=True) if ms // MS_PER_DAY == day]
        # Not by name, but by time.
        databento_part(tmp_path / "in" / f"{'cab'[day]}.dbn", day, day + 1, part)
    run_here(
        "resample", tmp_path / "in", "--to", tmp_path / "to", "--timeframes", "1h,1d,1w"
    ).expect()
    rows = [traded(ms, 100.0 + n, n + 1.0) for n, ms in enumerate(times)]
    for period, made in resample(bars_from(rows), Period.parse_all("1h,1d,1w")).items():
        assert joined(made_of(tmp_path, str(period), "ABC")) == rows_of(made)


def test_databento_files_that_overlap_or_differ_are_wrong_usage(tmp_path: Path) -> None:
    databento_part(tmp_path / "in/a.dbn", 0, 2, [])
    databento_part(tmp_path / "in/b.dbn", 1, 3, [])
    arguments = ("resample", tmp_path / "in", "--to", tmp_path / "to", "--timeframes", "1d")
    failed = run_here(*arguments).expect(2)
    assert "a.dbn and" in failed.stderr
    assert "both have DATABENTO/XNAS.ITCH/ABC, and what they have overlaps" in failed.stderr
    databento_part(tmp_path / "in/b.dbn", 2, 3, [], schema="ohlcv-1m")
    failed = run_here(*arguments).expect(2)
    assert "one as trades and one as ohlcv-1m: resample them one by one" in failed.stderr
    assert not (tmp_path / "to").exists()


def test_databento_bars_of_several_venues_meet(tmp_path: Path) -> None:
    """Databento keeps a record a venue; they come one after the other with the same time."""

    def bar(minute: int, price: int, volume: int) -> bytes:
        prices: Any = dict.fromkeys(("open", "high", "low", "close"), price * 10**9)
        ns = MIDNIGHT_NS + minute * 60 * 10**9
        return record("ohlcv-1m", instrument_id=7, ts_event=ns, volume=volume, **prices)

    path = databento_part(
        tmp_path / "x.dbn", 0, 1,
        [bar(0, 10, 1), bar(0, 12, 2), bar(4, 9, 3), bar(4, 11, 4), bar(5, 8, 5)],
        schema="ohlcv-1m",
    )  # fmt: skip
    run_here("resample", path, "--to", tmp_path / "to", "--timeframes", "5m").expect()
    start = MIDNIGHT_NS // 10**6
    assert made_of(tmp_path, "5m", "ABC") == (
        [(start, 10.0, 12.0, 9.0, 11.0, 10.0)], [(start + 300_000, 8.0, 8.0, 8.0, 8.0, 5.0)],
    )  # fmt: skip


def test_trades_that_came_late_and_rows_that_are_none_are_told(tmp_path: Path) -> None:
    second = 10**9
    path = write_dbn(
        tmp_path / "x.dbn",
        [
            trade(100 * second),
            trade(300 * second),
            trade(250 * second, 90 * 10**9),
            trade(200 * second),
            trade(301 * second, UNDEFINED_PRICE),
        ],
    )
    outcome = run_here("resample", path, "--to", tmp_path / "to", "--timeframes", "5m").expect()
    assert (
        "1 trade more than 60 s late: left out, the first at 2024-03-04T00:03:20.000Z"
        in outcome.stderr
    )
    assert "1 row of ABC rejected: price" in outcome.stderr
    start = MIDNIGHT_NS // 10**6
    assert made_of(tmp_path, "5m", "ABC") == (
        [(start, 100.0, 100.0, 90.0, 90.0, 2.0)],
        [(start + 300_000, 100.0, 100.0, 100.0, 100.0, 1.0)],
    )


def test_databento_file_that_is_cut_off_gives_what_it_has_and_is_told_by_every_run(
    tmp_path: Path,
) -> None:
    path = Path(write_dbn(tmp_path / "x.dbn", [trade(n * 60 * 10**9) for n in range(20)]))
    path.write_bytes(path.read_bytes()[:-20])
    for _ in range(2):
        failed = run_here("resample", path, "--to", tmp_path / "to", "--timeframes", "5m").expect(1)
        assert f"{path}: expected a whole file, found cut off" in failed.stderr
        assert [len(rows) for rows in made_of(tmp_path, "5m", "ABC")] == [3, 1]


def test_trades_of_databento_give_its_own_bars(tmp_path: Path) -> None:
    """All five values, for the minutes that both of the sample files have."""
    for name, folder in (("trades", "a"), ("ohlcv-1m", "b")):
        run_here(
            "resample", SAMPLES / f"XNAS.ITCH.{name}.dbn.zst",
            "--to", tmp_path / folder / "to", "--timeframes", "1m",
        ).expect()  # fmt: skip
    mine = joined(made_of(tmp_path / "a", "1m", "NVDA"))
    theirs = joined(made_of(tmp_path / "b", "1m", "NVDA"))
    assert len(mine) == 2
    assert mine == theirs[: len(mine)]


def test_markets_of_a_databento_file_are_made_in_one_reading(tmp_path: Path) -> None:
    second = 10**9
    both = (*ONE, days("A/../B", (0, 100, 8)))
    records = [
        trade(n * 7 * second, (100 + n) * 10**9, 1 + n, instrument=7 + n % 2) for n in range(90)
    ]
    path = write_dbn(tmp_path / "x.dbn", records, both)
    arguments = ("resample", path, "--to", tmp_path / "to", "--timeframes", "1m,1h")
    report = run_here(*arguments, "--report", tmp_path / "r.json").expect()
    assert report.report["inputs"][0]["name"] == f"{path} A/../B and 1 more"
    for name, begin in (("ABC", 0), ("A%2F..%2FB", 1)):
        rows = [traded(n * 7_000, 100.0 + n, 1.0 + n) for n in range(begin, 90, 2)]
        made = resample(bars_from(rows), [Period.parse("1m")])[Period.parse("1m")]
        closed, opened = made_of(tmp_path, "1m", name)
        assert (len(closed), closed + opened) == (len(made) - 1, rows_of(made))
    assert run_here(*arguments).expect().stdout == "1 input: 1 up to date\n"
    # Without the open bar, which is not there to be seen.
    run_here(*arguments, "--open-bar", "omit").expect()
    assert made_of(tmp_path, "1m", "ABC")[1] == []
    run_here(*arguments).expect()
    assert len(made_of(tmp_path, "1m", "ABC")[1]) == 1
