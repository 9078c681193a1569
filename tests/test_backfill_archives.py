"""Backfills of AGG2 archives and Databento files, held against the slow reading of the rules."""

from __future__ import annotations

import datetime
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import databento
import numpy as np
import pytest

from benchmarks import dbn_data
from candlebeam.io import dbn_shards
from candlebeam.model import Records
from tests import oracle
from tests.agg2_archive import START, BlobArchive, day_rows
from tests.command_line import Outcome, companions, contents, leftovers, run_here, run_process
from tests.faults import NEVER, KillHost

MARKET = "QUANTDEV/BINANCE_FUTURES/BTCUSDT"


@pytest.fixture(scope="module")
def host() -> Iterator[KillHost]:
    with KillHost() as running:
        yield running


@dataclass(frozen=True)
class Place:
    """An archive and where its candles go."""

    folder: Path

    @property
    def archive(self) -> Path:
        return self.folder / "archive"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def arguments(self, kind: str, *options: object) -> tuple[object, ...]:
        report = self.folder / "report.json"
        return ("backfill", kind, self.archive, "--out", self.out, "--report", report, *options)

    def run(self, kind: str, *options: object) -> Outcome:
        return run_here(*self.arguments(kind, *options))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def expected_of_days(*days: Records) -> bytes:
    """The candle file of days whose numbers are all whole at their decimals."""
    trades, counts = [], []
    for rows in days:
        for row in rows:
            price, size = int(row["px"]) / 1e8, int(row["qty"]) / 1e8
            buy = not int(row["flags"]) & 1
            trades.append(oracle.Trade(int(row["ts"]), price, size, buy, False))
            counts.append(int(row["count"]))
    candles = oracle.candles_of(trades)
    for trade, count in zip(trades, counts, strict=True):
        candle = candles[trade.ts - trade.ts % oracle.MINUTE]
        candle.count[0 if trade.buy else 1] += count - 1
    return oracle.encode(candles, oracle.auto_power(candles.values()))


def truncated(rows: Records) -> Records:
    """The rows as their own writer stores them."""
    stored: Records = rows.copy()
    for name in ("px", "qty"):
        stored[name] = ((rows[name] / 1e8) * 1e8).astype(np.uint64)
    return stored


# AGG2


def test_days_become_candles_with_their_counts(place: Place) -> None:
    days = [day_rows(day, 3_000) for day in (1, 2, 4)]
    archive = BlobArchive(place.archive)
    for day, rows in zip((1, 2, 4), days, strict=True):
        archive.add("BTCUSDT", day, truncated(rows))
    assert any((truncated(rows)["px"] != rows["px"]).any() for rows in days)
    outcome = place.run("--agg2").expect()
    assert contents(place.out) == {MARKET: expected_of_days(*days)}
    assert outcome.markets[MARKET]["trades"] == 9_000
    assert outcome.markets[MARKET]["files"] == 3
    assert outcome.markets[MARKET]["bytes_read"] == archive.data("BTCUSDT").stat().st_size
    assert leftovers(place.out) == []
    assert place.run("--agg2").expect().totals["up_to_date"] == 1


def test_symbol_and_exchange(place: Place) -> None:
    archive = BlobArchive(place.archive)
    for symbol in ("BTCUSDT", "ETHUSDT"):
        archive.add(symbol, 1, day_rows(1, 10))
    outcome = place.run("--agg2", "--symbol", "ETHUSDT", "--exchange", "binance").expect()
    assert list(outcome.markets) == ["QUANTDEV/BINANCE/ETHUSDT"]
    found = place.run("--agg2", "--symbol", "XRPUSDT").expect(1)
    assert "no market with symbol XRPUSDT" in found.stderr


def test_numbers_are_taken_as_they_are_without_snapping(place: Place) -> None:
    rows = day_rows(1, 2_000)
    stored = truncated(rows)
    BlobArchive(place.archive).add("BTCUSDT", 1, stored)
    outcome = place.run("--agg2", "--no-snap").expect()
    assert contents(place.out) == {MARKET: expected_of_days(stored)}
    assert contents(place.out) != {MARKET: expected_of_days(rows)}
    assert outcome.totals["failed"] == 0
    refused = place.run("--agg2").expect(1)
    assert "made with other settings (snap False, not True)" in refused.stderr


def test_sides_of_2019_are_true_unless_the_correction_is_asked_for(place: Place) -> None:
    rows = day_rows(1, 2_000)
    rows["ts"] += 1_574_208_000_000 - START  # 2019-11-20, within the window of random sides
    archive = BlobArchive(place.archive)
    archive.add("BTCUSDT", 1, rows)
    month = archive.folder("BTCUSDT")
    (month.parent.parent / "2019").mkdir()
    month.rename(month.parent.parent / "2019/11")
    place.run("--agg2").expect()
    assert contents(place.out) == {MARKET: expected_of_days(rows)}
    place.run("--agg2", "--correction", "random-side-2019", "--force").expect()
    assert contents(place.out) != {MARKET: expected_of_days(rows)}


def test_a_new_day_is_appended_and_the_last_one_read_again(place: Place) -> None:
    days = {day: day_rows(day, 500) for day in (1, 2, 3)}
    archive = BlobArchive(place.archive)
    archive.add("BTCUSDT", 1, days[1])
    archive.add("BTCUSDT", 2, days[2])
    place.run("--agg2").expect()
    archive.add("BTCUSDT", 3, days[3])
    outcome = place.run("--agg2").expect()
    assert outcome.markets[MARKET]["files"] == 2
    assert outcome.markets[MARKET]["late_trades"] == 0
    assert contents(place.out) == {MARKET: expected_of_days(*days.values())}


def test_a_damaged_day_is_named_and_the_rest_goes_on(place: Place) -> None:
    days = {day: day_rows(day, 500) for day in (1, 2, 3)}
    archive = BlobArchive(place.archive)
    for day, rows in days.items():
        archive.add("BTCUSDT", day, rows)
    data = bytearray(archive.data("BTCUSDT").read_bytes())
    second = np.frombuffer(archive.index("BTCUSDT").read_bytes(), "<u2,<u8,<u8")[1]
    begin = int(second["f1"])
    data[begin : begin + 4] = b"\0" * 4
    archive.data("BTCUSDT").write_bytes(bytes(data))
    outcome = place.run("--agg2").expect()
    assert contents(place.out) == {MARKET: expected_of_days(days[1], days[3])}
    (damaged,) = outcome.markets[MARKET]["damaged"]
    assert damaged["path"] == f"{place.archive}/BTCUSDT/2024/01/02"
    assert f"candlebeam: {damaged['path']}: {damaged['damage']}\n" in outcome.stderr


def test_an_index_that_cannot_be_read_is_a_problem_of_the_run(place: Place) -> None:
    archive = BlobArchive(place.archive)
    archive.add("BTCUSDT", 1, day_rows(1, 10))
    archive.add("ETHUSDT", 1, day_rows(1, 10))
    archive.index("ETHUSDT").write_bytes(b"AGGX" + bytes(32))
    outcome = place.run("--agg2").expect(1)
    assert list(outcome.markets) == [MARKET]
    (problem,) = outcome.report["problems"]
    assert problem.startswith(str(archive.index("ETHUSDT")))
    assert problem in outcome.stderr


def test_agg2_killed_at_any_call_and_run_again(host: KillHost, place: Place) -> None:
    days = {day: day_rows(day, 200) for day in (1, 2, 3)}
    archive = BlobArchive(place.archive)
    for day in (1, 2):
        archive.add("BTCUSDT", day, days[day])
    place.run("--agg2").expect()
    before = contents(place.out)[MARKET]
    shutil.copytree(place.out, place.folder / "before")
    archive.add("BTCUSDT", 3, days[3])
    after = expected_of_days(*days.values())
    arguments = place.arguments("--agg2", "--direct_num_workers", 1)
    assert host.run(arguments, NEVER) == 0
    assert contents(place.out) == {MARKET: after}
    for at in range(1, host.calls, 3):
        shutil.rmtree(place.out)
        shutil.copytree(place.folder / "before", place.out)
        assert host.run(arguments, at) in (-signal.SIGKILL, 0)
        import candlebeam

        seen = candlebeam.open_candles(place.out / f"{MARKET}.bin").records.tobytes()
        assert seen in (before, after)
        place.run("--agg2", "--direct_num_workers", 1).expect()
        assert contents(place.out) == {MARKET: after}
        assert leftovers(place.out) == []


# Databento


def write_day(path: Path, day: int, monkeypatch: pytest.MonkeyPatch, records: int = 4_000) -> None:
    path.parent.mkdir(exist_ok=True)
    with monkeypatch.context() as patch:
        patch.setattr(dbn_data, "START", datetime.date(2024, 3, 4) + datetime.timedelta(day))
        dbn_data.write_dbn_trades(path, records, 3, seed=day)


def expected_of_files(*paths: Path) -> dict[str, bytes]:
    """The candle files of Databento trades, read one by one through Databento's own iterator."""
    trades: dict[str, list[oracle.Trade]] = {}
    for path in paths:
        store = databento.DBNStore.from_bytes(path.read_bytes())
        symbols = {
            int(span["symbol"]): symbol
            for symbol, spans in store.mappings.items()
            for span in spans
        }
        last: dict[str, tuple[int, bool]] = {}
        for record in store:
            symbol = symbols[record.instrument_id]
            price, up = last.get(symbol, (record.price, True))
            up = record.price > price if record.price != price else up
            last[symbol] = (record.price, up)
            buy = {"B": True, "A": False, "N": up}[str(record.side)]
            ts = record.ts_recv // 1_000_000
            found = oracle.Trade(ts, record.price / 1e9, float(record.size), buy, False)
            trades.setdefault(symbol, []).append(found)
    found_candles = {symbol: oracle.candles_of(of_it) for symbol, of_it in trades.items()}
    return {
        f"DATABENTO/{dbn_data.DATASET}/{symbol}": oracle.encode(
            candles, oracle.auto_power(candles.values())
        )
        for symbol, candles in found_candles.items()
    }


def test_a_file_of_several_markets_is_read_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place.archive / "trades.dbn.zst"
    write_day(path, 0, monkeypatch)
    opened = []

    class Counted(dbn_shards.DbnShards):
        def __init__(self, *arguments: object, **named: object) -> None:
            opened.append(arguments)
            super().__init__(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(dbn_shards, "DbnShards", Counted)
    outcome = place.run("--dbn", "--direct_num_workers", 1).expect()
    assert len(opened) == 1
    assert contents(place.out) == expected_of_files(path)
    assert len(outcome.markets) == 3
    assert outcome.totals["trades"] == 4_000
    assert leftovers(place.out) == []
    assert place.run("--dbn").expect().totals["up_to_date"] == 3


def test_a_new_file_is_appended(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [place.archive / f"{day}.dbn.zst" for day in range(3)]
    for day, path in enumerate(paths):
        write_day(path, day, monkeypatch)
        outcome = place.run("--dbn").expect()
        assert outcome.totals["late_trades"] == 0
        assert outcome.totals["files"] == 3 * min(day + 1, 2)
        assert contents(place.out) == expected_of_files(*paths[: day + 1])
    made_at_once = Place(place.folder / "fresh")
    run_here("backfill", "--dbn", *paths, "--out", made_at_once.out).expect()
    assert contents(made_at_once.out) == contents(place.out)
    for name, companion in companions(made_at_once.out).items():
        assert companion == companions(place.out)[name]


def test_files_can_be_named_one_by_one(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [place.archive / f"{day}.dbn.zst" for day in range(2)]
    for day, path in enumerate(paths):
        write_day(path, day, monkeypatch, 300)
    out = ("--out", place.out)
    run_process("backfill", "--dbn", *paths, *out, "--direct_num_workers", 1).expect()
    assert contents(place.out) == expected_of_files(*paths)
    refused = run_here("backfill", "--dbn", paths[0], "--agg2", place.archive, *out).expect(2)
    assert "expected one of --db, --agg2 and --dbn" in refused.stderr
    refused = run_here("backfill", *out).expect(2)
    assert "expected one of --db, --agg2 and --dbn" in refused.stderr


def test_a_file_that_is_cut_off_gives_what_is_whole(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place.archive / "a.dbn.zst"
    write_day(path, 0, monkeypatch)
    path.write_bytes(path.read_bytes()[:-5_000])
    outcome = place.run("--dbn").expect()
    assert 0 < outcome.totals["trades"] < 4_000
    assert outcome.totals["damaged"] == 3
    assert "cut off" in outcome.stderr


def test_databento_killed_at_any_call_and_run_again(
    host: KillHost, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [place.archive / f"{day}.dbn.zst" for day in range(2)]
    write_day(paths[0], 0, monkeypatch, 300)
    place.run("--dbn").expect()
    before = contents(place.out)
    shutil.copytree(place.out, place.folder / "before")
    write_day(paths[1], 1, monkeypatch, 300)
    after = expected_of_files(*paths)
    arguments = place.arguments("--dbn", "--direct_num_workers", 1)
    assert host.run(arguments, NEVER) == 0
    assert contents(place.out) == after
    for at in range(1, host.calls, 7):
        shutil.rmtree(place.out)
        shutil.copytree(place.folder / "before", place.out)
        assert host.run(arguments, at) in (-signal.SIGKILL, 0)
        import candlebeam

        for name, records in before.items():
            seen = candlebeam.open_candles(place.out / f"{name}.bin").records.tobytes()
            assert seen in (records, after[name])
        place.run("--dbn", "--direct_num_workers", 1).expect()
        assert contents(place.out) == after
        assert leftovers(place.out) == []
