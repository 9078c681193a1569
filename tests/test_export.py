"""`export`: months of bars as Parquet, CSV and Arrow, and that they are brought up to date."""

from __future__ import annotations

import json
import math
import os
import shutil
import zlib
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlebeam.errors import CandlebeamError, FormatError, UsageError
from candlebeam.formats.aligned.file import ALIGNED_DTYPE
from candlebeam.formats.candles.companion import CandlePaths, Companion
from candlebeam.formats.candles.records import RECORD_DTYPE
from candlebeam.formats.candles.source import CandleSource
from candlebeam.formats.csv.bars import encode_csv, open_csv
from candlebeam.formats.tables.places import ExportPlace, partition_folder, place_of
from candlebeam.formats.tables.state import ExportedMonth, ExportState
from candlebeam.io.export_bars import ExportItem, ExportOptions, export_bars
from candlebeam.io.write_tables import WriteTables
from candlebeam.model import Bars, Market, Records, Timeframe
from candlebeam.outcome import EMPTY, FAILED, UP_TO_DATE, WRITTEN, BarsOutcome
from candlebeam.pipelines.lock import LOCK_NAME
from candlebeam.rules.price_scale import PriceScale
from tests.bar_rows import HeldBars, exact
from tests.codecs import encode_dbn_bars, encode_dbn_trades
from tests.command_line import Outcome, run_here
from tests.failing_disk import FailingDisk
from tests.in_process import assert_makes
from tests.trade_batches import MARKET, MIDNIGHT

HOUR = Timeframe(3_600_000)
DAY = 24 * HOUR.ms
#: 2023-12-30T00:00Z, so that four days of hours lie in two months.
START = 1_703_894_400_000
OTHER = Market("PI", "KRAKEN", "XBT/USD")
FORMS = ("parquet", "csv", "arrow")


def candles(count: int, seed: int = 1, gaps: tuple[int, ...] = (5, 6)) -> Records:
    """Records, the first of which do not depend on how many there are."""
    records = np.zeros(count, RECORD_DTYPE)
    for place, name in enumerate(RECORD_DTYPE.names or ()):
        random = np.random.default_rng([seed, place])
        records[name] = random.integers(1, 1 << 30, 10_000)[:count]
    records[[gap for gap in gaps if gap < count]] = np.zeros(1, RECORD_DTYPE)
    return records


def write_candles(
    out: Path,
    records: Records,
    market: Market = MARKET,
    decimals: int = 4,
    start: int = START,
    timeframe: Timeframe = HOUR,
) -> str:
    """A candle file; gives its path."""
    companion = Companion(
        market=market,
        timeframe=timeframe,
        start_ts=start,
        end_ts=start + len(records) * timeframe.ms,
        scale=PriceScale(decimals),
        records=len(records),
        last_input_start_ts=start,
    )
    paths = CandlePaths.of(str(out), market)
    Path(paths.stem).parent.mkdir(parents=True, exist_ok=True)
    Path(paths.records).write_bytes(records.tobytes())
    Path(paths.companion).write_bytes(companion.encode())
    return paths.records


def export(folder: Path, *options: object, source: object = None) -> Outcome:
    """Exports `out` to `to`, both in a folder."""
    report = folder / "report.json"
    report.unlink(missing_ok=True)
    arguments = (source or folder / "out", "--to", folder / "to", "--report", report)
    return run_here("export", *arguments, *options)


def files_of(to: Path) -> dict[str, bytes]:
    """What users see of an export."""
    return {
        path.relative_to(to).as_posix(): path.read_bytes()
        for path in sorted(to.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def hidden(to: Path) -> list[str]:
    """What they do not see, but for the lock and the state."""
    return [
        path.name
        for path in to.rglob(".*")
        if path.name != ".candlebeam.lock" and not path.name.endswith(".export.json")
    ]


def dataset(to: Path) -> list[dict[str, Any]]:
    """All of a Parquet export, as one table, in order of market and time."""
    table = ds.dataset(to, partitioning="hive").to_table()
    names = ("collector", "exchange", "symbol", "timeframe", "time")
    return list(table.sort_by([(name, "ascending") for name in names]).to_pylist())


def assert_is(row: dict[str, Any], record: np.void, decimals: int) -> None:
    """A row of a table against the record it was made of."""
    has_price = record["buy_count"] or record["sell_count"] or record["high"]
    for name in RECORD_DTYPE.names or ():
        value = int(record[name])
        if name in ("open", "high", "low", "close"):
            assert row[name] == (Decimal(value).scaleb(-decimals) if has_price else None)
        else:
            assert row[name] == (value if name.endswith("count") else Decimal(value).scaleb(-6))


# What is written


def test_parquet_is_one_data_set_of_all_markets_by_market_and_month(tmp_path: Path) -> None:
    ours, theirs = candles(4 * 24), candles(30, seed=2)
    write_candles(tmp_path / "out", ours)
    write_candles(tmp_path / "out", theirs, OTHER, decimals=9)
    outcome = export(tmp_path).expect()
    assert list(files_of(tmp_path / "to")) == [
        "collector=PI/exchange=KRAKEN/symbol=XBT%2FUSD/timeframe=1h/month=2023-12/bars.parquet",
        "collector=RAM/exchange=BINANCE/symbol=btcusdt/timeframe=1h/month=2023-12/bars.parquet",
        "collector=RAM/exchange=BINANCE/symbol=btcusdt/timeframe=1h/month=2024-01/bars.parquet",
    ]
    assert outcome.stdout.startswith("2 markets: 2 written\n126 bars in 3 files in ")
    rows = dataset(tmp_path / "to")
    expected = [(OTHER, n, record, 9) for n, record in enumerate(theirs)]
    expected += [(MARKET, n, record, 4) for n, record in enumerate(ours)]
    for row, (market, place, record, decimals) in zip(rows, expected, strict=True):
        assert (row["collector"], row["exchange"], row["symbol"]) == market
        assert row["timeframe"] == "1h"
        assert row["time"].timestamp() * 1_000 == START + place * HOUR.ms
        assert row["month"] == row["time"].strftime("%Y-%m")
        assert_is(row, record, decimals)
    january = ds.dataset(tmp_path / "to", partitioning="hive").to_table(
        filter=(ds.field("month") == "2024-01") & (ds.field("symbol") == "btcusdt")
    )
    assert len(january) == 48


def test_arrow_has_the_same_partitions_and_is_mapped(tmp_path: Path) -> None:
    write_candles(tmp_path / "out", candles(4 * 24))
    export(tmp_path, "--format", "arrow").expect()
    tables = []
    for month in ("2023-12", "2024-01"):
        folder = "collector=RAM/exchange=BINANCE/symbol=btcusdt/timeframe=1h"
        path = tmp_path / "to" / folder / f"month={month}" / "bars.arrow"
        with pa.memory_map(str(path)) as source:
            tables.append(pa.ipc.open_file(source).read_all().to_pylist())
    rows = [row for table in tables for row in table]
    for row, record in zip(rows, candles(4 * 24), strict=True):
        assert_is(row, record, 4)
    said = json.loads(pa.ipc.open_file(path).schema.metadata[b"candlebeam"])
    assert said == {
        "version": 1, "collector": "RAM", "exchange": "BINANCE", "symbol": "btcusdt",
        "timeframe": "1h", "gaps": "keep", "month": "2024-01",
    }  # fmt: skip


def test_csv_has_the_bars_of_each_month(tmp_path: Path) -> None:
    path = write_candles(tmp_path / "out", candles(4 * 24))
    export(tmp_path, "--format", "csv").expect()
    assert list(files_of(tmp_path / "to")) == [
        "btcusdt/btcusdt_2023_12.csv",
        "btcusdt/btcusdt_2024_01.csv",
    ]
    (written,) = open_csv(str(tmp_path / "to"))
    assert written.timeframe == HOUR
    read = Bars.join([piece.bars for piece in written.pieces()])
    assert exact(read) == exact(Bars.join([p.bars for p in CandleSource(path).pieces()]))


def test_timeframes_of_csv_are_kept_apart_by_name(tmp_path: Path) -> None:
    write_candles(tmp_path / "out/1", candles(30))
    write_candles(tmp_path / "out/2", candles(30), timeframe=Timeframe.parse("1m"))
    both = tmp_path / "out/1", tmp_path / "out/2"
    outcome = run_here("export", *both, "--to", tmp_path / "to", "--format", "csv").expect(2)
    assert "(both RAM/BINANCE/btcusdt) would be the same files in" in outcome.stderr
    assert outcome.stderr.endswith("; --by-timeframe keeps them apart\n")
    options = ("--format", "csv", "--by-timeframe")
    run_here("export", *both, "--to", tmp_path / "to", *options).expect()
    assert list(files_of(tmp_path / "to")) == [
        "1h/btcusdt_2023_12_1h.csv",
        "1m/btcusdt_2023_12_1m.csv",
    ]


@pytest.mark.parametrize("form", FORMS)
def test_gaps_are_kept_or_skipped_but_never_what_happened_in_them(
    tmp_path: Path, form: str
) -> None:
    records = candles(10, gaps=(2, 3, 9))
    # Liquidations alone.
    records["buy_liquidation"][3] = 5
    write_candles(tmp_path / "out", records)
    rows = {}
    for gaps in ("keep", "skip"):
        export(tmp_path, "--format", form, "--gaps", gaps).expect()
        (path,) = (tmp_path / "to").rglob(f"[!.]*.{form}")
        rows[gaps] = (
            path.read_text().count("\n") - 1
            if form == "csv"
            else len(ds.dataset(path, format=form).to_table())
        )
    assert rows == {"keep": 10, "skip": 7 if form == "csv" else 8}


@pytest.mark.parametrize("form", FORMS)
def test_month_without_any_bar_has_no_file_where_gaps_are_skipped(
    tmp_path: Path, form: str
) -> None:
    records = candles(4 * 24, gaps=tuple(range(48)))
    write_candles(tmp_path / "out", records)
    options = ("--format", form, "--gaps", "skip")
    assert export(tmp_path, *options).expect().report["totals"]["bars"] == 48
    (path,) = files_of(tmp_path / "to")
    assert "2024" in path
    assert export(tmp_path, *options).expect().report["totals"]["up_to_date"] == 1
    # With trades in them the first month appears, and goes again.
    write_candles(tmp_path / "out", candles(4 * 24))
    export(tmp_path, *options).expect()
    assert len(files_of(tmp_path / "to")) == 2
    write_candles(tmp_path / "out", records)
    outcome = export(tmp_path, *options).expect()
    assert list(files_of(tmp_path / "to")) == [path]
    assert "has 0 bars now, it had 46" in outcome.stderr


# Bringing up to date


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def identities(to: Path) -> dict[str, tuple[int, int]]:
    return {
        path.relative_to(to).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in to.rglob("bars.*")
    }


def written_months(outcome: Outcome) -> list[str]:
    """The months that a run has written, such as 2024-01."""
    (market,) = outcome.report["markets"]
    names = [path.replace("_", "-") for path in market["files"]]
    return sorted({month for name in names for month in MONTHS if month in name})


MONTHS = ("2023-12", "2024-01", "2024-02")


def fresh(folder: Path, form: str, *options: object) -> dict[str, bytes]:
    """What an export comes to where there was none before."""
    to = folder / "fresh"
    run_here("export", folder / "out", "--to", to, "--format", form, *options).expect()
    found = files_of(to)
    shutil.rmtree(to)
    return found


def test_run_again_writes_nothing(tmp_path: Path, form: str) -> None:
    write_candles(tmp_path / "out", candles(4 * 24))
    export(tmp_path, "--format", form).expect()
    before = times_of(tmp_path / "to")
    outcome = export(tmp_path, "--format", form).expect()
    assert outcome.stdout == "1 market: 1 up to date\n"
    assert times_of(tmp_path / "to") == before


def times_of(folder: Path) -> dict[Path, int]:
    """When each file was changed; the lock, which every run takes, does not count."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != LOCK_NAME]
    return {path: path.stat().st_mtime_ns for path in files}


def test_new_candles_make_their_months_again(tmp_path: Path, form: str) -> None:
    write_candles(tmp_path / "out", candles(4 * 24))
    export(tmp_path, "--format", form).expect()
    write_candles(tmp_path / "out", candles(40 * 24))
    outcome = export(tmp_path, "--format", form).expect()
    assert written_months(outcome) == ["2024-01", "2024-02"]
    assert files_of(tmp_path / "to") == fresh(tmp_path, form)


def test_changed_history_is_written_again_where_it_has_changed(tmp_path: Path, form: str) -> None:
    records = candles(40 * 24)
    write_candles(tmp_path / "out", records)
    export(tmp_path, "--format", form).expect()
    records["close"][50] += 1
    write_candles(tmp_path / "out", records)
    outcome = export(tmp_path, "--format", form).expect()
    assert written_months(outcome) == ["2024-01"]
    assert files_of(tmp_path / "to") == fresh(tmp_path, form)


def test_other_price_scale_is_another_history(tmp_path: Path, form: str) -> None:
    write_candles(tmp_path / "out", candles(4 * 24))
    export(tmp_path, "--format", form).expect()
    write_candles(tmp_path / "out", candles(4 * 24), decimals=5)
    outcome = export(tmp_path, "--format", form).expect()
    assert written_months(outcome) == ["2023-12", "2024-01"]
    assert files_of(tmp_path / "to") == fresh(tmp_path, form)


def test_months_that_a_market_has_not_any_more_are_removed(tmp_path: Path, form: str) -> None:
    write_candles(tmp_path / "out", candles(40 * 24))
    export(tmp_path, "--format", form).expect()
    write_candles(tmp_path / "out", candles(60), start=START + 2 * DAY)
    outcome = export(tmp_path, "--format", form).expect()
    assert files_of(tmp_path / "to") == fresh(tmp_path, form)
    assert outcome.stderr.count("was removed:") == 2
    assert export(tmp_path, "--format", form).expect().report["totals"]["up_to_date"] == 1


@pytest.mark.parametrize("harm", ["gone", "cut", "longer"])
def test_files_that_are_not_as_they_were_written_are_written_again(
    tmp_path: Path, form: str, harm: str
) -> None:
    write_candles(tmp_path / "out", candles(4 * 24))
    export(tmp_path, "--format", form).expect()
    before = files_of(tmp_path / "to")
    path = tmp_path / "to" / next(iter(before))
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] if harm == "cut" else path.read_bytes() + b"\n")
    outcome = export(tmp_path, "--format", form).expect()
    assert written_months(outcome) == ["2023-12"]
    assert files_of(tmp_path / "to") == before


def state_path(to: Path) -> Path:
    (path,) = to.rglob(".*.export.json")
    return path


STATES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut": lambda data: data[:-9],
    "flipped": lambda data: data.replace(b'"2024-01"', b'"2024-02"'),
    "another version": lambda data: data.replace(b'"version": 1', b'"version": 2'),
    "another file": lambda _: b"[]",
}


@pytest.mark.parametrize("harm", STATES)
def test_state_that_is_damaged_is_told_and_ignored(tmp_path: Path, form: str, harm: str) -> None:
    write_candles(tmp_path / "out", candles(4 * 24))
    export(tmp_path, "--format", form).expect()
    before, state = files_of(tmp_path / "to"), state_path(tmp_path / "to")
    intact = state.read_bytes()
    state.write_bytes(STATES[harm](intact))
    outcome = export(tmp_path, "--format", form).expect()
    assert f"{state}: expected the state of an export, found " in outcome.stderr
    assert outcome.stderr.endswith("; everything was written again\n")
    assert written_months(outcome) == ["2023-12", "2024-01"]
    assert files_of(tmp_path / "to") == before
    assert state.read_bytes() == intact


def test_other_options_and_force_write_everything_again(tmp_path: Path, form: str) -> None:
    write_candles(tmp_path / "out", candles(4 * 24))
    for options in (("--gaps", "keep"), ("--gaps", "skip"), ("--gaps", "skip", "--force")):
        outcome = export(tmp_path, "--format", form, *options).expect()
        assert written_months(outcome) == ["2023-12", "2024-01"]
        assert files_of(tmp_path / "to") == fresh(tmp_path, form, *options)


# Crashes


def grown(folder: Path, form: str) -> tuple[ExportItem, ExportOptions]:
    """An export of three months, of which two are to be written."""
    path = write_candles(folder / "out", candles(4 * 24))
    export(folder, "--format", form).expect()
    write_candles(folder / "out", candles(40 * 24))
    return ExportItem.of_candles(path), ExportOptions(str(folder / "to"), form)


@pytest.mark.parametrize("kill", [False, True], ids=["fails", "is killed"])
def test_run_that_ends_at_any_call_leaves_whole_files_and_is_taken_up(
    tmp_path: Path, form: str, kill: bool
) -> None:
    item, options = grown(tmp_path, form)
    shutil.copytree(tmp_path / "to", tmp_path / "before")
    before, after = files_of(tmp_path / "to"), fresh(tmp_path, form)
    state = item.place(options).state
    for at in range(1, 100):
        shutil.rmtree(tmp_path / "to")
        shutil.copytree(tmp_path / "before", tmp_path / "to")
        with FailingDisk(at, kill=kill) as disk:
            export_bars(item, options)
        found = files_of(tmp_path / "to")
        for path in before.keys() | found.keys():
            assert found[path] in (before.get(path), after[path]), disk.calls
        finished = sum(call == "replace" and path == state for call, path in disk.calls)
        outcome = export_bars(item, options)
        assert files_of(tmp_path / "to") == after
        assert hidden(tmp_path / "to") == []
        if not disk.failed:
            assert (finished, outcome.status) == (3, UP_TO_DATE)
            break
        # Of the two months, those whose state has been written are not written again.
        assert len(outcome.files) in {max(2 - finished, 0), max(3 - finished, 0)}
    assert at > 15


def test_nothing_counts_before_it_is_on_disk(tmp_path: Path, form: str) -> None:
    """A file is forced to disk before it gets its name, and its name before the state has it."""
    item, options = grown(tmp_path, form)
    with FailingDisk() as disk:
        export_bars(item, options)
    unsynced: set[str] = set()
    for call, path in disk.calls:
        assert path is not None
        state = path.endswith((".json", ".json.new"))
        if call == "fsync":
            unsynced.discard(path)
        elif call == "replace":
            assert not unsynced - {os.path.dirname(item.place(options).state)}
            unsynced.add(os.path.dirname(path))
        elif not state:
            unsynced.add(path)


# Names


@pytest.mark.parametrize("form", FORMS)
@given(
    st.text(min_size=1, max_size=8)
    | st.sampled_from(["..", "a/../../b", "/etc", "a=b", "%2F", " "])
)
def test_symbol_never_leaves_the_folder(form: str, symbol: str) -> None:
    market = Market("C", "..", symbol)
    place = place_of("/to", form, market, "1m", by_market=form == "csv")
    for path in (place.file("2024-01"), place.state):
        assert os.path.normpath(path) == path
        assert path.startswith("/to/")
        assert len(path.split("/")) == (6 if form == "csv" else 8 - path.endswith("json"))


HOSTILE = ["..", "a/../../b", "a=b", "%2F", " ", "a?b", "ä", "null", "..\\x", "\n", "*[x]"]


def test_hostile_symbols_read_back_from_their_partitions(tmp_path: Path) -> None:
    for number, symbol in enumerate(HOSTILE):
        write_candles(tmp_path / "out", candles(1, seed=number), Market("C", "E", symbol))
    export(tmp_path).expect()
    rows = dataset(tmp_path / "to")
    assert sorted(row["symbol"] for row in rows) == sorted(HOSTILE)
    for row in rows:
        assert_is(row, candles(1, seed=HOSTILE.index(row["symbol"]))[0], 4)


def test_names_that_a_market_has_not_are_left_out() -> None:
    market = Market("", "", "SPY")
    assert partition_folder(market, "1s") == "symbol=SPY/timeframe=1s"
    for options, folder in [({}, "to/SPY"), ({"by_market": True}, "to/SPY")]:
        assert place_of("to", "csv", market, None, **options) == ExportPlace(folder, "csv", "SPY")
    with pytest.raises(UsageError, match=r"^SPY: cannot tell how long its bars are"):
        place_of("to", "arrow", market, None)
    with pytest.raises(UsageError, match="C/E: expected a symbol, found ''"):
        place_of("to", "csv", Market("C", "E", ""), "1m")


def two_of_one_name(folder: Path) -> None:
    write_candles(folder / "out", candles(4))
    write_candles(folder / "out", candles(4, seed=2), Market("PI", "KRAKEN", "btcusdt"))


def test_markets_of_one_name_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    two_of_one_name(tmp_path)
    outcome = export(tmp_path, "--format", "csv").expect(2)
    ours, theirs = (tmp_path / f"out/{name}/btcusdt.bin" for name in ("RAM/BINANCE", "PI/KRAKEN"))
    assert outcome.stderr == (
        f"candlebeam: {theirs} and {ours} (PI/KRAKEN/btcusdt and RAM/BINANCE/btcusdt) would be"
        f" the same files in {tmp_path / 'to/btcusdt'}; --by-market keeps them apart\n"
    )
    assert not (tmp_path / "to").exists()
    export(tmp_path, "--format", "csv", "--by-market").expect()
    assert list(files_of(tmp_path / "to")) == [
        "PI/KRAKEN/btcusdt/btcusdt_2023_12.csv",
        "RAM/BINANCE/btcusdt/btcusdt_2023_12.csv",
    ]


def test_place_of_another_market_is_replaced_with_force_alone(tmp_path: Path) -> None:
    two_of_one_name(tmp_path)
    write_candles(tmp_path / "out", candles(4 * 24))
    export(tmp_path, "--format", "csv", "--exchange", "binance").expect()
    before = files_of(tmp_path / "to")
    outcome = export(tmp_path, "--format", "csv", "--collector", "pi").expect(1)
    assert "has files of RAM/BINANCE/btcusdt 1h, not of PI/KRAKEN/btcusdt 1h;" in outcome.stderr
    assert files_of(tmp_path / "to") == before
    export(tmp_path, "--format", "csv", "--collector", "pi", "--force").expect()
    assert list(files_of(tmp_path / "to")) == ["btcusdt/btcusdt_2023_12.csv"]
    assert files_of(tmp_path / "to").items().isdisjoint(before.items())


# Other bars


def some_bars(count: int, start: int = START, step: int = HOUR.ms) -> Bars:
    prices = np.random.default_rng(3).random((5, count))
    return Bars(start + np.arange(count, dtype=np.int64) * step, *prices)


def test_month_files_of_csv_become_one_market(tmp_path: Path) -> None:
    folder = tmp_path / "out/SPY"
    folder.mkdir(parents=True)
    bars = some_bars(96)
    (folder / "SPY_2023_12.csv").write_bytes(encode_csv(bars.part(slice(48))))
    (folder / "SPY_2024_01.csv").write_bytes(encode_csv(bars.part(slice(48, None))))
    named = (folder / "SPY_2024_01.csv", folder / "SPY_2023_12.csv")
    for sources in [(tmp_path / "out",), named]:
        shutil.rmtree(tmp_path / "to", ignore_errors=True)
        run_here("export", *sources, "--to", tmp_path / "to").expect()
        assert list(files_of(tmp_path / "to")) == [
            "symbol=SPY/timeframe=1h/month=2023-12/bars.parquet",
            "symbol=SPY/timeframe=1h/month=2024-01/bars.parquet",
        ]
        table = ds.dataset(tmp_path / "to", partitioning="hive").to_table().sort_by("time")
        assert table["time"].cast(pa.int64()).to_pylist() == bars.ts.tolist()
        assert table["high"].to_pylist() == bars.high.tolist()
    outcome = run_here("export", named[0], "--to", tmp_path / "to").expect()
    # A file of one month says nothing of the others.
    assert outcome.stdout == "1 market: 1 up to date\n"
    assert len(files_of(tmp_path / "to")) == 2


def test_aligned_files_with_their_lengths_from_their_folders(tmp_path: Path) -> None:
    bars = some_bars(3, step=7 * DAY)
    records = np.zeros(3, ALIGNED_DTYPE)
    records["ts"] = bars.ts
    for place, name in enumerate(("open", "high", "low", "close", "volume")):
        records["ohlcv"][:, place] = getattr(bars, name)
    (tmp_path / "out/1w").mkdir(parents=True)
    (tmp_path / "out/1w/SPY.bin").write_bytes(records.tobytes())
    export(tmp_path).expect()
    rows = dataset_of_bars(tmp_path / "to")
    assert [row["timeframe"] for row in rows] == ["1w"] * 3
    assert [row["volume"] for row in rows] == bars.volume.tolist()


def dataset_of_bars(to: Path) -> list[dict[str, Any]]:
    return list(ds.dataset(to, partitioning="hive").to_table().sort_by("time").to_pylist())


def test_databento_files_of_one_instrument_become_one_market(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    bars = [(MIDNIGHT + n * 1_000, 5 * 10**9, 7 * 10**9, 10**9, 2 * 10**9, n) for n in range(4)]
    for name, part in (("b", bars[:2]), ("a", bars[2:])):
        (out / f"{name}.dbn.zst").write_bytes(encode_dbn_bars(part))
    (out / "trades.dbn.zst").write_bytes(encode_dbn_trades([(MIDNIGHT, 10**9, 1, 1)]))
    outcome = export(tmp_path).expect(1)
    trades = out / "trades.dbn.zst"
    assert f"{trades}: failed: trades are no bars: resample them first" in outcome.stderr
    rows = dataset_of_bars(tmp_path / "to")
    assert [(row["high"], row["volume"], row["symbol"]) for row in rows] == [
        (7, n, "SPY") for n in range(4)
    ]
    assert {(row["collector"], row["exchange"], row["timeframe"]) for row in rows} == {
        ("DATABENTO", "XNAS.ITCH", "1s")
    }


def test_bars_that_overlap_or_go_back_are_refused(tmp_path: Path) -> None:
    for name, start in (("SPY_2023_12.csv", START), ("SPY_2023_11.csv", START + HOUR.ms)):
        (tmp_path / name).write_bytes(encode_csv(some_bars(4, start)))
    names = tmp_path / "SPY_2023_12.csv", tmp_path / "SPY_2023_11.csv"
    outcome = run_here("export", *names, "--to", tmp_path / "to").expect(1)
    assert (
        f"failed: {names[1]}: expected a bar after 2023-12-30T03:00:00.000Z, which stands in"
        f" {names[0]}, found 2023-12-30T01:00:00.000Z\n"
    ) in outcome.stderr
    assert files_of(tmp_path / "to") == {}


def test_bars_that_go_back_in_a_file_are_refused_by_place(tmp_path: Path) -> None:
    records = np.zeros(3, ALIGNED_DTYPE)
    records["ts"] = START, START + 2 * HOUR.ms, START + HOUR.ms
    (tmp_path / "out/1h").mkdir(parents=True)
    (tmp_path / "out/1h/SPY.bin").write_bytes(records.tobytes())
    outcome = export(tmp_path).expect(1)
    assert "SPY.bin at byte 128: expected a bar after 2023-12-30T02:00:00.000Z" in outcome.stderr
    assert hidden(tmp_path / "to") == []


def test_bars_of_unknown_length_go_to_csv_alone(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(encode_csv(some_bars(1)))
    outcome = export(tmp_path, source=tmp_path / "x.csv").expect(1)
    assert "failed: x: cannot tell how long its bars are" in outcome.stderr
    export(tmp_path, "--format", "csv", source=tmp_path / "x.csv").expect()
    assert list(files_of(tmp_path / "to")) == ["x/x_2023_12.csv"]


def test_milliseconds_stay_once_they_are_there(tmp_path: Path) -> None:
    held = HeldBars(some_bars(3_000, step=1), Timeframe(1_000), piece_bars=1)
    item = _HeldItem((), held.market, "1s")
    object.__setattr__(item, "held", held)
    export_bars(item, ExportOptions(str(tmp_path), "csv"))
    (text,) = files_of(tmp_path).values()
    lines = text.decode().splitlines()[1:]
    assert len(lines) == 3_000
    assert lines[0].startswith("2023-12-30 00:00:00+00:00,")
    assert {line[:19] + line[23:29] for line in lines[1:]} == {
        f"2023-12-30 00:00:0{second}+00:00" for second in range(3)
    }


class _HeldItem(ExportItem):
    """Bars in memory."""

    held: HeldBars

    def __str__(self) -> str:
        return "held"

    def open(self, form: str) -> Any:
        from candlebeam.io.month_batches import BarMonths

        return BarMonths([self.held])


# Failures and usage


def test_damaged_market_fails_alone(tmp_path: Path) -> None:
    write_candles(tmp_path / "out", candles(4))
    Path(write_candles(tmp_path / "out", candles(4), OTHER)).write_bytes(b"x")
    outcome = export(tmp_path).expect(1)
    assert outcome.stdout.startswith("2 markets: 1 written, 1 failed\n4 bars in 1 file in ")
    assert "XBT%2FUSD.bin: expected 224 bytes, as its companion says, found 1" in outcome.stderr
    (written, failed) = outcome.report["markets"]
    assert (written["status"], failed["status"]) == (WRITTEN, FAILED)
    export(tmp_path, "--collector", "ram").expect()


def test_price_scale_that_no_table_holds_goes_to_csv(tmp_path: Path) -> None:
    write_candles(tmp_path / "out", candles(4), decimals=19)
    outcome = export(tmp_path).expect(1)
    assert "failed: RAM/BINANCE/btcusdt: prices at a scale of 1" in outcome.stderr
    export(tmp_path, "--format", "csv").expect()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "orc"], "'orc' is not one of 'parquet', 'csv', 'arrow'"),
        (["--gaps", "forward"], "'forward' is not one of 'keep', 'skip'"),
        (["--by-market"], "by market or timeframe: expected with format csv"),
        (["--no_such_option=1"], "--no_such_option=1 is no option of Candlebeam or Beam"),
        (["--report", "nowhere/x.json"], "no such folder"),
    ],
)
def test_wrong_usage(tmp_path: Path, options: list[str], message: str) -> None:
    write_candles(tmp_path / "out", candles(4))
    arguments = [tmp_path / "out", "--to", tmp_path / "to", *options]
    assert message in run_here("export", *arguments).expect(2).stderr
    assert files_of(tmp_path / "to") == {}


def test_sources_that_are_none(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "nothing to read" in run_here("export", "--to", tmp_path / "to").expect(2).stderr
    assert "no such file" in export(tmp_path).expect(2).stderr
    out.mkdir()
    assert "found none" in export(tmp_path).expect(1).stderr
    write_candles(out, candles(4))
    inside = run_here("export", out, "--to", out / "to").expect(2).stderr
    assert f"--to {out / 'to'} lies inside of {out}, where the next run" in inside
    nothing = export(tmp_path, "--symbol", "x", "--exchange", "e").expect(1).stderr
    assert nothing == f"candlebeam: {out}: no bars of exchange e, symbol x\n"


def test_one_writer_a_folder(tmp_path: Path) -> None:
    from candlebeam.pipelines.lock import output_lock

    write_candles(tmp_path / "out", candles(4))
    with output_lock(str(tmp_path / "to")):
        assert "is writing here" in export(tmp_path).expect(1).stderr


def test_options_are_checked_when_they_are_made() -> None:
    with pytest.raises(UsageError, match="format 'orc': expected parquet, csv, arrow"):
        ExportOptions("to", "orc")
    with pytest.raises(UsageError, match="gaps 'zero': expected keep or skip"):
        ExportOptions("to", gaps="zero")


# The state

STATES_OF = st.builds(
    ExportState,
    st.text(max_size=5),
    st.dictionaries(st.text(max_size=3), st.text(max_size=3) | st.integers(), max_size=2),
    st.dictionaries(
        st.dates().map(lambda day: day.strftime("%Y-%m").zfill(7)),
        st.builds(
            ExportedMonth,
            st.integers(0, 2**32 - 1),
            st.none() | st.integers(0, 2**40),
            st.integers(0, 2**40),
        ),
        max_size=3,
    ),
)


def test_bytes_of_a_state() -> None:
    state = ExportState(
        "RAM/BINANCE/x 1m", {"format": "csv"}, {"2024-01": ExportedMonth(1, None, 0)}
    )
    assert (
        state.encode().decode()
        == """{
 "version": 1,
 "source": "RAM/BINANCE/x 1m",
 "options": {
  "format": "csv"
 },
 "months": {
  "2024-01": [
   1,
   null,
   0
  ]
 },
 "crc32": 3831539723
}
"""
    )


@given(STATES_OF)
def test_state_round_trip(state: ExportState) -> None:
    assert ExportState.decode(state.encode(), "x") == state


@pytest.mark.parametrize(
    "months",
    [
        {"2024": [1, 1, 1]},
        {"2024-01": [1, 1]},
        {"2024-01": [1, -1, 1]},
        {"2024-01": ["1", 1, 1]},
        5,
    ],
)
def test_state_with_months_that_are_none_is_refused(months: Any) -> None:
    values = json.loads(ExportState("x", {}).encode())
    del values["crc32"]
    values["months"] = months
    checksum = zlib.crc32(json.dumps(values, sort_keys=True).encode())
    data = json.dumps({**values, "crc32": checksum}).encode()
    with pytest.raises(FormatError, match=r"^x: expected the state of an export, found "):
        ExportState.decode(data, "x")


# As a Beam sink


def comparable(outcome: BarsOutcome, folder: Path) -> tuple[Any, ...]:
    error = (outcome.error or "").replace(str(folder), "F")
    return os.path.relpath(outcome.name, folder), outcome.status, error, outcome.bars


def test_write_tables_as_a_transform(tmp_path: Path) -> None:
    two_of_one_name(tmp_path)
    good = write_candles(tmp_path / "out", candles(96), Market("C", "E", "good"))
    paths = [str(path) for path in sorted((tmp_path / "out").rglob("*.bin"))]
    missing = str(tmp_path / "missing.bin")

    class _Write(WriteTables):
        def expand(self, found: Any) -> Any:
            import apache_beam as beam

            outcomes = super().expand(found)
            return outcomes | "Plain" >> beam.Map(partial(comparable, folder=tmp_path))

    to = str(tmp_path / "to")
    both = "F/out/PI/KRAKEN/btcusdt.bin and F/out/RAM/BINANCE/btcusdt.bin would both be"
    both += " F/to/btcusdt/.btcusdt.export.json"
    gone = "F/missing.json: no such file; a candle file needs its companion"
    assert_makes(
        _Write(to=to, form="csv"),
        [*paths, missing],
        [
            ("out/C/E/good.bin", WRITTEN, "", 96),
            ("out/PI/KRAKEN/btcusdt.bin", FAILED, both, 0),
            ("out/RAM/BINANCE/btcusdt.bin", FAILED, both, 0),
            ("missing.bin", FAILED, gone, 0),
        ],
    )
    assert_makes(_Write(to=to, form="csv"), [good], [("out/C/E/good.bin", UP_TO_DATE, "", 0)])
    with pytest.raises(CandlebeamError, match="format 'orc'"):
        WriteTables(to=to, form="orc")


def test_candle_file_without_candles_is_empty(tmp_path: Path) -> None:
    path = write_candles(tmp_path / "out", candles(0))
    outcome = export_bars(ExportItem.of_candles(path), ExportOptions(str(tmp_path / "to")))
    assert (outcome.status, outcome.files, files_of(tmp_path / "to")) == (EMPTY, [], {})


def test_gap_has_no_number_in_csv(tmp_path: Path) -> None:
    write_candles(tmp_path / "out", candles(6))
    export(tmp_path, "--format", "csv").expect()
    (text,) = files_of(tmp_path / "to").values()
    assert text.decode().splitlines()[-1] == "2023-12-30 05:00:00+00:00,,,,,0"
    assert math.isnan(next(open_csv(str(tmp_path / "to"))[0].pieces()).bars.open[5])
