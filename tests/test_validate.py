"""`validate`: each check of each kind of file, the report, and how it ends."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from candlebeam.errors import UsageError
from candlebeam.formats.aligned.file import AlignedPaths
from candlebeam.formats.aligned.state import AlignedIndex, AlignedJournal, Sidecar, SourceState
from candlebeam.formats.candles.companion import CandlePaths, Companion, Journal
from candlebeam.model import BLOCK_DTYPE, Bars, Market, Timeframe
from candlebeam.pipelines.validation.report import Validation, report_paths
from candlebeam.pipelines.validation.run import ValidateRequest, run_validate
from candlebeam.rules.checks import Finding, check_bars
from candlebeam.rules.price_scale import PriceScale
from candlebeam.transforms.validate import ValidateBars
from tests.candle_pairs import write_pair
from tests.command_line import PROJECT, run_here
from tests.dbn_files import MIDNIGHT_NS, UNDEFINED_PRICE, days, record, trade, write_dbn
from tests.in_process import assert_makes
from tests.permissions import unprivileged_folder
from tests.test_layers import HEAVY, loaded_by
from tests.trade_batches import MARKET, MIDNIGHT, MINUTE
from tests.valid_files import (
    COUNT,
    LAST_DATE,
    aligned_records,
    csv_text,
    good_bars,
    good_companion,
    good_records,
    legacy_index,
    write_aligned,
    write_candles,
    write_csv,
)

EXPECTED_REPORT = PROJECT / "tests" / "data" / "validation_report.txt"
DBN = PROJECT / "tests" / "data" / "dbn"
DBN_BARS = DBN / "XNAS.ITCH.ohlcv-1m.dbn.zst"
DBN_TRADES = DBN / "XNAS.ITCH.trades.dbn.zst"
GAP = ("information", "gaps", 1)


def validations(*paths: object, **options: Any) -> list[Validation]:
    return run_validate(ValidateRequest(tuple(map(str, paths)), **options)).validations


def found(*paths: object, **options: Any) -> list[tuple[str, str, int]]:
    """Severity, check and count of all that is found in one file."""
    (validation,) = validations(*paths, **options)
    assert {each.check for each in validation.findings} <= set(validation.checks)
    return [(each.severity, each.check, each.count) for each in validation.findings]


def the_finding(*paths: object, **options: Any) -> Finding:
    (validation,) = validations(*paths, **options)
    (finding,) = validation.findings
    return finding


# Candle files


def test_a_good_candle_file_passes_every_check(tmp_path: Path) -> None:
    write_candles(tmp_path, good_records())
    (validation,) = validations(tmp_path)
    assert validation.findings == []
    assert (validation.name, validation.timeframe) == (str(MARKET), "1m")
    assert (validation.bars, validation.priced, validation.first_ts) == (COUNT, COUNT, MIDNIGHT)
    assert validation.checks == [
        "readable", "journal", "companion", "size", "leftovers", "ends", "price-scale",
        "negative-prices", "zero-prices", "negative-volumes", "volume-without-trades",
        "prices-without-trades", "bars", "alignment", "high", "low", "gaps",
    ]  # fmt: skip


def _edit(name: str, place: int, value: int) -> Callable[[Path], None]:
    """Writes good candles but for one field of one of them."""

    def write(folder: Path) -> None:
        records = good_records()
        records[name][place] = value
        write_candles(folder, records)

    return write


def _zeros(*places: int, price: bool = True) -> Callable[[Path], None]:
    """Writes good candles, some of them gaps."""

    def write(folder: Path) -> None:
        records = good_records()
        for place in places:
            records[place] = np.zeros(1, records.dtype)[0]
        write_candles(folder, records)

    return write


def _companion(change: Callable[[Companion], Companion]) -> Callable[[Path], None]:
    """Writes good candles with another companion."""

    def write(folder: Path) -> None:
        records = good_records()
        write_pair(folder, change(good_companion(records)), records)

    return write


def _state(**changes: object) -> Callable[[Path], None]:
    def change(companion: Companion) -> Companion:
        assert companion.state is not None
        return replace(companion, state=replace(companion.state, **changes))  # type: ignore[arg-type]

    return _companion(change)


def _pair(change: Callable[[CandlePaths], object]) -> Callable[[Path], None]:
    """Writes good candles, and then does something to their files."""

    def write(folder: Path) -> None:
        change(write_candles(folder, good_records()))

    return write


def _settings(timeframe: str) -> Callable[[Path], None]:
    def change(companion: Companion) -> Companion:
        assert companion.state is not None
        settings = replace(companion.state.settings, timeframe=Timeframe.parse(timeframe))
        return replace(companion, state=replace(companion.state, settings=settings))

    return _companion(change)


def _highest(price: float) -> Callable[[Path], None]:
    def change(companion: Companion) -> Companion:
        assert companion.state is not None
        prices = replace(companion.state.prices, highest=price)
        return replace(companion, state=replace(companion.state, prices=prices))

    return _companion(change)


def _later(companion: Companion) -> Companion:
    """The companion of candles that begin 7 ms later."""
    assert companion.state is not None
    tail = np.frombuffer(companion.state.tail, BLOCK_DTYPE).copy()
    tail["time"] += 7
    state = replace(companion.state, tail=tail.tobytes())
    moved = {"start_ts": companion.start_ts + 7, "end_ts": companion.end_ts + 7}
    return replace(companion, state=state, **moved)  # type: ignore[arg-type]


def _rename(paths: CandlePaths) -> None:
    for path in (paths.records, paths.companion):
        os.rename(path, path.replace("btcusdt", "other"))


def _leave_journal(paths: CandlePaths) -> None:
    records = good_records()
    tail = records[-1:].tobytes()
    offset = records.nbytes - len(tail)
    journal = Journal(good_companion(records), tail, offset)
    Path(paths.journal).write_bytes(journal.encode())


def _leave_replacement(paths: CandlePaths) -> None:
    """A commit that replaces candles by others, decided and not carried out."""
    records = good_records()
    Path(paths.replacement).write_bytes(records.tobytes())
    Path(paths.journal).write_bytes(Journal(good_companion(records), replaces=True).encode())
    Path(paths.records).write_bytes(b"old")


def _leave_unfinished(paths: CandlePaths) -> None:
    for path in paths.unfinished:
        Path(path).touch()


def _few_digits(folder: Path) -> None:
    records = good_records()
    for name in ("open", "high", "low", "close"):
        records[name] = 5
    companion = replace(good_companion(records), state=None)
    write_pair(folder, companion, records)


def _liquidations_with_prices(folder: Path) -> None:
    records = good_records()
    for name in ("buy_volume", "sell_volume", "buy_count", "sell_count"):
        records[name][7] = 0
    records["buy_liquidation"][7] = 5
    write_candles(folder, records)


def _liquidations_alone(folder: Path) -> None:
    records = good_records()
    records[7] = np.zeros(1, records.dtype)[0]
    records["sell_liquidation"][7] = 5
    write_candles(folder, records)


CANDLE_MUTATIONS: dict[str, tuple[Callable[[Path], None], list[tuple[str, str, int]]]] = {
    "no companion": (
        _pair(lambda paths: os.remove(paths.companion)), [("error", "companion", 1)]
    ),
    "damaged companion": (
        _pair(lambda paths: Path(paths.companion).write_text("{")), [("error", "companion", 1)]
    ),
    "companion of other length": (
        _companion(lambda companion: replace(companion, records=7)), [("error", "companion", 1)]
    ),
    "no candles": (_pair(lambda paths: os.remove(paths.records)), [("error", "size", 1)]),
    "short candles": (
        _pair(lambda paths: os.truncate(paths.records, 56 * COUNT - 1)), [("error", "size", 1)]
    ),
    "long candles": (
        _pair(lambda paths: os.truncate(paths.records, 56 * COUNT + 9)),
        [("information", "size", 1)],
    ),
    "gap as the first": (_zeros(0), [("error", "ends", 1)]),
    "gap as the last": (_zeros(COUNT - 1), [("error", "ends", 1)]),
    "gap as both": (_zeros(0, COUNT - 1), [("error", "ends", 2)]),
    "other highest price": (_highest(10.5), [("error", "companion", 1)]),
    "other tail": (
        _state(tail=np.zeros(1, BLOCK_DTYPE).tobytes()), [("error", "companion", 1)]
    ),
    "other timeframe": (_settings("5m"), [("error", "companion", 1)]),
    "other name": (_pair(_rename), [("warning", "companion", 1)]),
    "journal": (_pair(_leave_journal), [("information", "journal", 1)]),
    "journal of a replacement": (_pair(_leave_replacement), [("information", "journal", 1)]),
    "damaged journal": (
        _pair(lambda paths: Path(paths.journal).write_text("{}")), [("error", "journal", 1)]
    ),
    "leftovers": (
        _pair(_leave_unfinished),
        [("information", "leftovers", 3)],
    ),
    "negative volume": (_edit("sell_volume", 7, -1), [("error", "negative-volumes", 1)]),
    "negative liquidation": (_edit("buy_liquidation", 7, -1), [("error", "negative-volumes", 1)]),
    "negative price": (_edit("low", 7, -5), [("error", "negative-prices", 1)]),
    "price of 0": (_edit("low", 7, 0), [("warning", "zero-prices", 1)]),
    "volume without trades": (
        _edit("sell_count", 7, 0), [("warning", "volume-without-trades", 1)]
    ),
    "prices without trades": (_liquidations_with_prices, [("error", "prices-without-trades", 1)]),
    "liquidations alone": (_liquidations_alone, [GAP]),
    "high": (_edit("high", 7, 100_000), [("error", "high", 1)]),
    "low": (_edit("low", 7, 100_010), [("error", "low", 1)]),
    "alignment": (_companion(_later), [("warning", "alignment", COUNT)]),
    "gaps": (_zeros(7, 8), [GAP]),
    "few digits": (_few_digits, [("warning", "price-scale", 1)]),
}  # fmt: skip


@pytest.mark.parametrize("name", CANDLE_MUTATIONS)
def test_what_is_wrong_with_a_candle_file_is_found_and_nothing_else(
    name: str, tmp_path: Path
) -> None:
    write, expected = CANDLE_MUTATIONS[name]
    write(tmp_path)
    assert found(tmp_path) == expected


def test_a_finding_in_candles_names_the_candle(tmp_path: Path) -> None:
    _edit("sell_volume", 7, -1_500_000)(tmp_path)
    assert the_finding(tmp_path).places == (
        (
            7,
            MIDNIGHT + 7 * MINUTE.ms,
            "volumes of at least 0",
            "buy_volume 8.0, sell_volume -1.5, buy_liquidation 0.0, sell_liquidation 0.0",
        ),
    )
    _edit("low", 7, 0)(tmp_path)
    (place,) = the_finding(tmp_path).places
    assert place.found == "open 10.0007, high 10.0057, low 0.0, close 10.0017"
    _highest(10.5)(tmp_path)
    (place,) = the_finding(tmp_path).places
    assert place[2:] == ("highestPrice 10.0068", "10.5")


def test_findings_far_into_a_candle_file_have_their_places(tmp_path: Path) -> None:
    records = good_records(70_000)
    records["low"][[65_536, 69_999]] = -1
    write_candles(tmp_path, records)
    finding = the_finding(tmp_path)
    assert (finding.check, finding.count) == ("negative-prices", 2)
    assert [place.place for place in finding.places] == [65_536, 69_999]


def test_what_candlebeam_writes_passes(tmp_path: Path) -> None:
    for scale in (PriceScale(4), PriceScale(-1), PriceScale(9)):
        records = good_records()
        write_pair(tmp_path, good_companion(records, scale=scale), records)
        assert found(tmp_path) == []


def test_golden_candles_pass_but_for_prices_that_their_scale_cannot_hold() -> None:
    golden = PROJECT / "tests" / "data" / "golden" / "expected"
    results = validations(golden)
    assert len(results) > 20
    for each in results:
        wrong = {finding.check for finding in each.findings if finding.severity != "information"}
        # These are as another program writes them, with a price scale of 10000.
        assert wrong == ({"zero-prices"} if "pepeusdt" in each.path else set())


@pytest.mark.parametrize("suffix", ["bin", "json"])
def test_one_candle_file_can_be_named(suffix: str, tmp_path: Path) -> None:
    stem = write_candles(tmp_path, good_records()).stem
    (validation,) = validations(f"{stem}.{suffix}")
    assert (validation.path, validation.findings) == (f"{stem}.bin", [])


# Aligned files


def test_a_good_aligned_file_passes_every_check(tmp_path: Path) -> None:
    write_aligned(tmp_path, good_bars())
    (validation,) = validations(tmp_path)
    assert validation.findings == []
    assert (validation.name, validation.timeframe, validation.bars) == ("btcusdt", "1m", COUNT)
    assert validation.checks[:8] == [
        "readable", "journal", "index", "size", "sidecar", "leftovers", "padding", "bars",
    ]  # fmt: skip


def _aligned(change: Callable[[AlignedPaths], object]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        change(write_aligned(folder, good_bars()))

    return write


def _index(**fields: int) -> Callable[[Path], None]:
    index = replace(AlignedIndex(LAST_DATE, 56 * (COUNT - 1), 64 * (COUNT - 1)), **fields)
    return _aligned(lambda paths: Path(paths.index).write_bytes(index.encode()))


def _bytes(offset: int, data: bytes, of: str = "records") -> Callable[[Path], None]:
    """Writes a good aligned file, then some bytes into one of its files."""

    def change(paths: AlignedPaths) -> None:
        path = Path(getattr(paths, of))
        old = path.read_bytes()
        path.write_bytes(old[:offset] + data + old[offset + len(data) :])

    return _aligned(change)


def _write_behind(*, marked: bool) -> Callable[[Path], None]:
    """More than an open bar behind what is committed, maybe by one who is at it."""

    def change(paths: AlignedPaths) -> None:
        index = AlignedIndex(LAST_DATE, 0, 64 * (COUNT - 2))
        Path(paths.index).write_bytes(index.encode())
        if marked:
            Path(paths.writing).touch()

    return _aligned(change)


def _sidecar(out_pos: int) -> Callable[[Path], None]:
    sidecar = Sidecar(str(MARKET), {}, (SourceState(56 * (COUNT - 1), out_pos, 0),))
    return _aligned(lambda paths: Path(paths.source).write_bytes(sidecar.encode()))


def _aligned_journal(paths: AlignedPaths) -> None:
    """A new file that has been decided on: twice as many bars."""
    bars = good_bars(2 * COUNT)
    Path(paths.replacement).write_bytes(aligned_records(bars).tobytes())
    index = AlignedIndex(LAST_DATE, 0, 64 * len(bars))
    Path(paths.journal).write_bytes(AlignedJournal(index, Sidecar("x", {}, ())).encode())


def _empty(paths: AlignedPaths) -> None:
    os.truncate(paths.records, 0)
    os.remove(paths.index)


ALIGNED_MUTATIONS: dict[str, tuple[Callable[[Path], None], list[tuple[str, str, int]]]] = {
    "no index": (_aligned(lambda paths: os.remove(paths.index)), [("warning", "index", 1)]),
    "old index": (
        _aligned(lambda paths: Path(paths.index).write_bytes(legacy_index(COUNT - 1))),
        [("information", "index", 1)],
    ),
    "damaged index": (
        _aligned(lambda paths: os.truncate(paths.index, 20)), [("error", "index", 1)]
    ),
    "out_pos beyond the end": (_index(out_pos=64 * (COUNT + 1)), [("error", "index", 1)]),
    "out_pos within a record": (_index(out_pos=64 * COUNT - 1), [("error", "index", 1)]),
    "wrong date": (_index(last_date=20240302), [("error", "index", 1)]),
    "index padding": (_bytes(4, b"\1", "index"), [("warning", "index", 1)]),
    "ragged": (
        _aligned(lambda paths: os.truncate(paths.records, 64 * COUNT - 1)), [("error", "size", 1)]
    ),
    "more than an open bar": (_write_behind(marked=False), [("warning", "size", 1)]),
    "somebody writing": (
        _write_behind(marked=True), [("information", "size", 1), ("information", "leftovers", 1)]
    ),
    "open bar too early": (
        _bytes(64 * (COUNT - 1), MIDNIGHT.to_bytes(8, "little")), [("warning", "size", 1)]
    ),
    "padding": (_bytes(64 * 7 + 48, b"\0" * 15 + b"\1"), [("warning", "padding", 1)]),
    "sidecar": (_sidecar(64 * (COUNT - 1)), []),
    "other sidecar": (_sidecar(64 * 3), [("information", "sidecar", 1)]),
    "damaged sidecar": (
        _aligned(lambda paths: Path(paths.source).write_text("{}")), [("warning", "sidecar", 1)]
    ),
    "journal": (_aligned(_aligned_journal), [("information", "journal", 1)]),
    "damaged journal": (
        _aligned(lambda paths: Path(paths.journal).write_text("{}")), [("error", "journal", 1)]
    ),
    "leftovers": (
        _aligned(lambda paths: Path(paths.unfinished[0]).touch()),
        [("information", "leftovers", 1)],
    ),
    "no records": (_aligned(lambda paths: os.remove(paths.records)), [("error", "readable", 1)]),
    "empty": (
        _aligned(_empty),
        [("warning", "index", 1), ("error", "bars", 1)],
    ),
    "duplicate": (
        _bytes(64 * 7, (MIDNIGHT + 6 * MINUTE.ms).to_bytes(8, "little")),
        [("error", "duplicates", 1), GAP],
    ),
    "negative price": (
        _bytes(64 * 7 + 24, np.float64(-1).tobytes()), [("error", "negative-prices", 1)]
    ),
    "not a number": (_bytes(64 * 7 + 32, np.float64("nan").tobytes()), [("error", "finite", 1)]),
    "zeros": (_bytes(64 * 7 + 8, bytes(40)), [GAP]),
}  # fmt: skip


@pytest.mark.parametrize("name", ALIGNED_MUTATIONS)
def test_what_is_wrong_with_an_aligned_file_is_found_and_nothing_else(
    name: str, tmp_path: Path
) -> None:
    write, expected = ALIGNED_MUTATIONS[name]
    write(tmp_path)
    assert found(tmp_path) == expected


def test_a_journal_has_the_new_aligned_file_checked(tmp_path: Path) -> None:
    _aligned(_aligned_journal)(tmp_path)
    (validation,) = validations(tmp_path)
    assert validation.bars == 2 * COUNT


def test_an_aligned_file_with_a_wrong_index_is_checked_all_the_same(tmp_path: Path) -> None:
    _index(out_pos=64 * (COUNT + 1))(tmp_path)
    (validation,) = validations(tmp_path)
    assert validation.bars == COUNT
    (place,) = validation.findings[0].places
    assert place[2:] == ("at least 1344 bytes, as the index says", "1280 bytes")


def test_padding_is_found_in_every_piece(tmp_path: Path) -> None:
    bars = good_bars(70_000)
    paths = write_aligned(tmp_path, bars)
    records = aligned_records(bars)
    records["padding"][[1, 65_536, 65_537], 1] = 7
    Path(paths.records).write_bytes(records.tobytes())
    Path(paths.index).unlink()
    (validation,) = validations(tmp_path)
    finding = validation.findings[-1]
    assert (finding.check, finding.count) == ("padding", 3)
    assert [place.place for place in finding.places] == [1, 65_536, 65_537]
    assert finding.places[0].found == f"{'00 ' * 8}07{' 00' * 7}"


def test_repeated_bars_are_counted_wherever_they_stand(tmp_path: Path) -> None:
    """As a writer leaves them that goes on from a made-up date."""
    paths = write_aligned(tmp_path, [*good_bars(), *good_bars()])
    Path(paths.index).unlink()
    records = aligned_records([*good_bars(), *good_bars()])
    records["padding"][3] = 1
    Path(paths.records).write_bytes(records.tobytes())
    assert found(tmp_path) == [
        ("warning", "index", 1), ("error", "order", 1), ("error", "duplicates", COUNT),
        ("warning", "padding", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("timeframe", "starts"),
    [
        ("1d", ["2024-03-30", "2024-03-31", "2024-04-01", "2024-04-02"]),
        ("1w", ["2024-03-25", "2024-04-01", "2024-04-08"]),
        ("1M", ["2024-02-01", "2024-03-01", "2024-04-01"]),
    ],
)
@pytest.mark.parametrize("tz", [None, "Europe/Berlin"])
def test_days_weeks_and_months_begin_at_midnight_of_a_zone(
    timeframe: str, starts: list[str], tz: str | None, tmp_path: Path
) -> None:
    hours = {"2024-02-01": 1, "2024-03-01": 1, "2024-03-25": 1, "2024-03-30": 1, "2024-03-31": 1}
    bars = []
    for start, bar in zip(starts, good_bars(), strict=False):
        ts = int(np.datetime64(start, "ms").astype(np.int64))
        ahead = hours.get(start, 2) if tz else 0
        bars.append((ts - ahead * 3_600_000, *bar[1:]))
    paths = write_aligned(tmp_path, bars, timeframe=timeframe)
    Path(paths.index).unlink()
    options = {} if tz is None else {"tz": tz}
    assert found(tmp_path, **options) == [("warning", "index", 1)]
    other = {"tz": "Asia/Tokyo"}
    assert found(tmp_path, **other) == [
        ("warning", "index", 1), ("warning", "alignment", len(starts)),
    ]  # fmt: skip


# CSV files


def test_a_good_csv_file_passes_every_check(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "1m" / "SPY_2024_03_1m.csv", good_bars())
    (validation,) = validations(path)
    assert validation.findings == []
    assert (validation.name, validation.timeframe, validation.bars) == ("SPY", "1m", COUNT)
    assert "month" in validation.checks


def _rows(change: Callable[[list[str]], object]) -> Callable[[Path], None]:
    """Writes a good CSV file, but for some of its lines; the first is the header."""

    def write(folder: Path) -> None:
        lines = csv_text(good_bars()).splitlines()
        change(lines)
        (folder / "SPY_2024_03_1m.csv").write_text("".join(f"{line}\n" for line in lines))

    return write


def _swap(lines: list[str]) -> None:
    lines[7], lines[8] = lines[8], lines[7]


def _replace(line: int, old: str, new: str) -> Callable[[Path], None]:
    def change(lines: list[str]) -> None:
        assert old in lines[line]
        lines[line] = lines[line].replace(old, new)

    return _rows(change)


CSV_MUTATIONS: dict[str, tuple[Callable[[Path], None], list[tuple[str, str, int]]]] = {
    "duplicate": (_rows(lambda lines: lines.insert(8, lines[7])), [("error", "duplicates", 1)]),
    "order": (_rows(_swap), [("error", "order", 1), GAP]),
    "repeated later": (
        _rows(lambda lines: lines.insert(15, lines[7])),
        [("error", "order", 1), ("error", "duplicates", 1)],
    ),
    "only a header": (_rows(lambda lines: lines.__delitem__(slice(1, None))), [
        ("error", "bars", 1)
    ]),
    "nothing": (_rows(lambda lines: lines.clear()), [("error", "readable", 1)]),
    "a missing price": (_replace(8, ",10.0007,", ",,"), [("error", "finite", 1)]),
    "no number": (_replace(8, ",10.0007,", ",ten,"), [("error", "readable", 1)]),
    "too few fields": (_replace(8, ",10.0007,", ","), [("error", "readable", 1)]),
    "alignment": (_replace(8, "1709251620000", "1709251620007"), [("warning", "alignment", 1)]),
    "month": (
        _replace(20, "1709252340000", "1711929600000"), [("information", "gaps", 1),
        ("warning", "month", 1)],
    ),
    "high": (_replace(8, "10.0057", "10.0"), [("error", "high", 1)]),
    "negative volume": (_replace(8, ",16.0", ",-16.0"), [("error", "negative-volumes", 1)]),
    "no prices": (_replace(8, "10.0007,10.005700000000001,9.9957,10.0017", ",,,"), [
        ("error", "volume-without-prices", 1), GAP
    ]),
    "gap": (_rows(lambda lines: lines.pop(8)), [GAP]),
}  # fmt: skip


@pytest.mark.parametrize("name", CSV_MUTATIONS)
def test_what_is_wrong_with_a_csv_file_is_found_and_nothing_else(name: str, tmp_path: Path) -> None:
    write, expected = CSV_MUTATIONS[name]
    write(tmp_path)
    assert found(tmp_path) == expected


def test_what_stands_in_front_of_a_line_that_cannot_be_read_is_checked(tmp_path: Path) -> None:
    lines = csv_text(good_bars(70_000)).splitlines()
    lines[3] = lines[3].replace(",6.0", ",-6.0")
    lines[69_999] = lines[69_999].replace(",", ",ten,", 1)
    path = tmp_path / "SPY.csv"
    path.write_text("\n".join([*lines, ""]))
    (validation,) = validations(path, timeframe="1m")
    assert validation.bars >= 65_536
    assert [each.check for each in validation.findings] == ["readable", "negative-volumes"]
    (place,) = validation.findings[0].places
    assert place.expected == "a number as open on line 70000"
    assert place.found.startswith("'ten' at byte ")


def test_months_of_a_series_go_on_from_each_other(tmp_path: Path) -> None:
    april = 1711929600000
    march = april - COUNT * MINUTE.ms
    write_csv(tmp_path / "SPY_2024_03_1m.csv", good_bars(begin=march))
    write_csv(tmp_path / "SPY_2024_04_1m.csv", good_bars(begin=april))
    first, second = validations(tmp_path)
    assert (first.findings, second.findings) == ([], [])
    assert ("series" in first.checks, "series" in second.checks) == (False, True)

    write_csv(tmp_path / "SPY_2024_03_1m.csv", good_bars(begin=march)[:-1])
    first, second = validations(tmp_path)
    (finding,) = second.findings
    assert (finding.severity, finding.check) == ("information", "series")
    assert finding.message == f"bars missing behind {first.path}: 1"

    write_csv(tmp_path / "SPY_2024_03_1m.csv", good_bars(COUNT + 1, march))
    first, second = validations(tmp_path)
    assert [each.check for each in first.findings] == ["month"]
    (finding,) = second.findings
    assert (finding.severity, finding.message) == ("error", f"begins before {first.path} ends")


def test_the_timeframe_is_that_of_the_name_the_folder_the_option_or_the_bars(
    tmp_path: Path,
) -> None:
    hours = good_bars(step=3_600_000)
    for name, option, expected in (
        ("1h/SPY_2024_03_15s.csv", "5m", "15s"),
        ("1h/SPY.csv", "5m", "1h"),
        ("csv/SPY.csv", "5m", "5m"),
        ("csv/SPY.csv", "", "1h"),
    ):
        path = write_csv(tmp_path / name, hours)
        (validation,) = validations(path, **({"timeframe": option} if option else {}))
        assert validation.timeframe == expected


def test_bars_of_lengths_that_nothing_says_are_checked_for_all_else(tmp_path: Path) -> None:
    bars = good_bars(step=7)
    path = write_csv(tmp_path / "SPY.csv", bars)
    assert found(path) == [("information", "timeframe", 1)]
    (validation,) = validations(path)
    assert "alignment" not in validation.checks


def test_prices_can_be_negative_where_it_is_said_or_known(tmp_path: Path) -> None:
    bars = [(ts, opened, high, -1.0, *rest) for ts, opened, high, _, *rest in good_bars()]
    path = write_csv(tmp_path / "1m" / "SPREAD.csv", bars)  # type: ignore[arg-type]
    assert found(path) == [("error", "negative-prices", COUNT)]
    assert found(path, any_price=True) == [("information", "negative-prices", COUNT)]
    paths = write_aligned(tmp_path, bars, "SPREAD")  # type: ignore[arg-type]
    assert found(paths.records) == [("error", "negative-prices", COUNT)]
    state = SourceState(56 * (COUNT - 1), 64 * (COUNT - 1), 0)
    sidecar = Sidecar("DATABENTO/GLBX.MDP3/SPREAD", {}, (state,))
    Path(paths.source).write_bytes(sidecar.encode())
    assert found(paths.records) == [("information", "negative-prices", COUNT)]


# Databento files


def test_good_databento_files_pass_every_check() -> None:
    bars, trades = validations(DBN_BARS, DBN_TRADES)
    assert (bars.name, bars.timeframe, bars.bars) == ("DATABENTO/XNAS.ITCH/NVDA", "1m", 4)
    assert [each.check for each in bars.findings] == ["gaps"]
    assert (trades.name, trades.timeframe, trades.bars) == (bars.name, "trades", 4)
    assert trades.findings == []


MINUTE_NS = 60 * 10**9


def _bar(minute: int, *prices: int, instrument: int = 7, volume: int = 1) -> bytes:
    names = ("open", "high", "low", "close")
    nano: dict[str, Any] = {
        name: price * 10**9 for name, price in zip(names, prices or (5, 6, 4, 5), strict=True)
    }
    ns = MIDNIGHT_NS + minute * MINUTE_NS
    return record("ohlcv-1m", ts_event=ns, instrument_id=instrument, volume=volume, **nano)


def test_each_instrument_of_a_databento_file_is_checked_by_itself(tmp_path: Path) -> None:
    rows = [_bar(0), _bar(0, instrument=8), _bar(1), _bar(1, 5, 4, 4, 5, instrument=8), _bar(2)]
    mappings = (days("ABC", (0, 100, 7)), days("A/B", (0, 100, 8)), days("QUIET", (0, 100, 9)))
    path = write_dbn(tmp_path / "x.dbn", rows, mappings, schema="ohlcv-1m")
    slash, abc = validations(path)
    assert (abc.name, abc.bars, abc.findings) == ("DATABENTO/XNAS.ITCH/ABC", 3, [])
    assert (slash.name, slash.bars) == ("DATABENTO/XNAS.ITCH/A/B", 2)
    assert [(each.severity, each.check) for each in slash.findings] == [("error", "high")]


def test_what_is_usual_in_databento_files_is_no_error(tmp_path: Path) -> None:
    """Negative prices, and bars of several venues."""
    rows = [_bar(0), _bar(0), _bar(1, -1, 0, -2, 0)]
    path = write_dbn(tmp_path / "x.dbn", rows, schema="ohlcv-1m")
    assert found(path) == [
        ("information", "duplicates", 1), ("information", "negative-prices", 1),
    ]  # fmt: skip


def test_records_that_are_no_trades_or_of_nobody_are_warnings(tmp_path: Path) -> None:
    rows = [trade(1), trade(2, UNDEFINED_PRICE), trade(3, instrument=99), trade(4, instrument=99)]
    path = write_dbn(tmp_path / "x.dbn", rows)
    (validation,) = validations(path)
    assert [(f.severity, f.check, f.count, f.message) for f in validation.findings] == [
        ("warning", "rejected", 1,
         "records that are no bars or trades, by what is wrong with them: price 1"),
        ("warning", "symbols", 2, "records in the file of instruments without a symbol"),
    ]  # fmt: skip
    path = write_dbn(tmp_path / "x.dbn", rows[1:])
    assert found(path)[0] == ("error", "bars", 1)


def test_a_databento_file_without_records_is_an_error(tmp_path: Path) -> None:
    assert found(write_dbn(tmp_path / "x.dbn", [])) == [("error", "bars", 1)]


def test_a_databento_file_that_is_cut_off_is_checked_up_to_there(tmp_path: Path) -> None:
    path = tmp_path / "cut.dbn.zst"
    path.write_bytes(DBN_TRADES.read_bytes()[:-9])
    (validation,) = validations(path)
    assert validation.findings[0].check == "readable"
    assert validation.findings[0].severity == "error"


def test_a_file_that_is_no_databento_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.dbn"
    path.write_bytes(b"nothing of the kind")
    finding = the_finding(path)
    assert (finding.severity, finding.check) == ("error", "readable")
    assert finding.places[0].expected == "a Databento file, which begins with b'DBN'"


# Volumes against a source


def test_aligned_files_have_the_volume_of_their_candles(tmp_path: Path) -> None:
    write_candles(tmp_path / "out", good_records())
    write_aligned(tmp_path / "to", good_bars())
    (validation,) = validations(tmp_path / "to", source=str(tmp_path / "out"))
    assert validation.findings == []
    assert "volume" in validation.checks
    assert validation.source == str(tmp_path / "out" / f"{MARKET.path}.bin")

    bars = good_bars()
    bars[7] = (*bars[7][:5], 16.02)
    write_aligned(tmp_path / "to", bars)
    finding = the_finding(tmp_path / "to", source=str(tmp_path / "out"))
    assert (finding.severity, finding.check, finding.count) == ("warning", "volume", 1)
    assert finding.places == ((7, bars[7][0], "volume 16.0", "16.02"),)


def test_bars_have_the_volume_of_the_trades_they_are_made_of(tmp_path: Path) -> None:
    (validation,) = validations(DBN_BARS, source=str(DBN_TRADES))
    assert "volume" in validation.checks
    assert not validation.has("error", "warning")
    shutil.copy(DBN_TRADES, tmp_path)
    (validation,) = validations(DBN_BARS, source=str(tmp_path))
    assert validation.source == str(tmp_path / DBN_TRADES.name)


def test_candles_count_what_the_trades_were_worth(tmp_path: Path) -> None:
    run_here("backfill", "--dbn", DBN_TRADES, "--out", tmp_path).expect()
    (validation,) = validations(tmp_path, source=str(DBN_TRADES))
    assert "volume" in validation.checks
    assert not validation.has("error", "warning")


def test_weeks_have_the_volume_of_their_hours(tmp_path: Path) -> None:
    monday = 1709510400000
    hours = [(*bar[:5], 1.0) for bar in good_bars(14 * 24, monday, 3_600_000)]
    write_csv(tmp_path / "in" / "SPY.csv", hours)
    weeks = [(*bar[:5], 168.0) for bar in good_bars(2, monday, 7 * 86_400_000)]
    path = write_csv(tmp_path / "1w" / "SPY.csv", weeks)
    assert found(path, source=str(tmp_path / "in")) == []
    write_csv(path, [weeks[0], (*weeks[1][:5], 167.0)])
    assert found(path, source=str(tmp_path / "in")) == [("warning", "volume", 1)]


@pytest.mark.parametrize("form", ["aligned", "csv"])
def test_resampled_bars_pass_with_the_volume_of_their_candles(form: str, tmp_path: Path) -> None:
    records = good_records(3_000)
    records[100:700] = 0
    stem = write_candles(tmp_path / "out", records).stem
    zone = ("--tz", "America/New_York") if form == "aligned" else ()
    frames, to = "5m,1h,1d,1w,1M", tmp_path / "to"
    run_here(
        "resample", f"{stem}.bin", "--timeframes", frames, "--to", to, "--format", form, *zone
    ).expect(0)
    results = validations(to, source=str(tmp_path / "out"))
    assert {each.timeframe for each in results} == {"5m", "1h", "1d", "1w", "1M"}
    for each in results:
        assert each.source == f"{stem}.bin"
        assert not each.has("error", "warning")


NOT_COMPARED = "not compared: "


@pytest.mark.parametrize(
    ("write", "problem"),
    [
        (lambda folder: write_csv(folder / "other.csv", good_bars()), "no source of btcusdt in "),
        (
            lambda folder: [
                write_candles(folder, good_records(), MARKET._replace(collector=name))
                for name in ("PI", "RAM")
            ],
            "several sources could be meant: PI/BINANCE/btcusdt, RAM/BINANCE/btcusdt",
        ),
        (
            lambda folder: write_aligned(folder, good_bars(step=3_600_000), timeframe="1h"),
            "the bars of the source do not make up these",
        ),
    ],
)
def test_why_volumes_were_not_compared_is_information(
    write: Callable[[Path], object], problem: str, tmp_path: Path
) -> None:
    write_aligned(tmp_path / "to", good_bars())
    write(tmp_path / "source")
    finding = the_finding(tmp_path / "to", source=str(tmp_path / "source"))
    assert (finding.severity, finding.check) == ("information", "volume")
    assert finding.message.startswith(NOT_COMPARED + problem)


def test_a_market_that_is_known_chooses_among_sources(tmp_path: Path) -> None:
    other = good_records()
    other["buy_volume"] += 10**9
    write_candles(tmp_path / "out", good_records())
    write_candles(tmp_path / "out", other, MARKET._replace(collector="PI"))
    paths = write_aligned(tmp_path / "to", good_bars())
    sidecar = Sidecar(str(MARKET), {}, (SourceState(56 * (COUNT - 1), 64 * (COUNT - 1), 0),))
    Path(paths.source).write_bytes(sidecar.encode())
    assert found(tmp_path / "to", source=str(tmp_path / "out")) == []


def test_nothing_is_held_against_itself_or_out_of_order(tmp_path: Path) -> None:
    write_aligned(tmp_path, good_bars())
    finding = the_finding(tmp_path, source=str(tmp_path))
    assert finding.message.startswith("not compared: no source of btcusdt in ")
    paths = write_aligned(tmp_path, [*good_bars(), good_bars()[3]])
    Path(paths.index).unlink()
    write_candles(tmp_path / "out", good_records())
    (validation,) = validations(paths.records, source=str(tmp_path / "out"))
    assert validation.findings[-1].message == "not compared: the bars are not in order"


def test_a_source_that_is_damaged_does_not_stop_the_rest(tmp_path: Path) -> None:
    pair = write_candles(tmp_path / "out", good_records())
    os.truncate(pair.records, 5)
    write_aligned(tmp_path / "to", good_bars())
    finding = the_finding(tmp_path / "to", source=str(tmp_path / "out"))
    assert finding.severity == "information"
    assert finding.message.startswith("not compared: the source cannot be read: ")


def test_a_source_without_a_head_does_not_stop_the_rest(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.dbn").write_bytes(b"?")
    write_csv(tmp_path / "in" / "SPY.csv", good_bars())
    spy = write_csv(tmp_path / "1m" / "SPY.csv", good_bars())
    assert found(spy, source=str(tmp_path / "in")) == []
    other = write_csv(tmp_path / "1m" / "x.csv", good_bars())
    message = the_finding(other, source=str(tmp_path / "in")).message
    assert "no source of x in " in message
    assert "x.dbn at byte 0: expected a Databento file" in message


# The report, and how the command ends


def test_the_report_of_several_kinds_in_one_folder(tmp_path: Path) -> None:
    write_candles(tmp_path / "out", good_records())
    paths = write_aligned(tmp_path / "to", good_bars())
    os.remove(paths.index)
    lines = csv_text(good_bars()[:4]).splitlines()
    for line in (2, 3):
        fields = lines[line].split(",")
        lines[line] = ",".join([*fields[:2], "1.0", *fields[3:]])
    (tmp_path / "SPY.csv").write_text("\n".join([*lines, ""]))
    shutil.copy(DBN_BARS, tmp_path)
    (tmp_path / "notes.txt").write_text("none of ours")
    (tmp_path / "lost.bin").write_bytes(b"?")

    outcome = run_here("validate", tmp_path, f"--report={tmp_path / 'report.txt'}").expect(1)
    assert outcome.stdout.replace(f"{tmp_path}/", "") == EXPECTED_REPORT.read_text()
    assert outcome.stderr == "candlebeam: 3 errors: 2 of 5 files failed\n"
    assert (tmp_path / "report.txt").read_text() == outcome.stdout

    report = json.loads((tmp_path / "report.json").read_text())
    assert list(report) == ["files", "totals", "seconds"]
    assert report["totals"] == {
        "files": 5, "files_with_errors": 2, "errors": 3, "warnings": 1, "information": 1,
        "bars": 48, "passed_over": 1,
    }  # fmt: skip
    files = {Path(each["path"]).name: each for each in report["files"]}
    assert files["SPY.csv"]["findings"] == [
        {
            "severity": "error",
            "check": "high",
            "count": 2,
            "message": "high below open, low or close",
            "places": [
                {
                    "place": place,
                    "ts": MIDNIGHT + place * MINUTE.ms,
                    "expected": f"high of at least {price}",
                    "found": "1.0",
                }
                for place, price in ((1, "10.0011"), (2, "10.001199999999999"))
            ],
        }
    ]


def test_quiet_shows_only_files_with_errors_or_warnings(tmp_path: Path) -> None:
    _zeros(7)(tmp_path)
    paths = write_aligned(tmp_path, good_bars())
    os.remove(paths.index)
    outcome = run_here("validate", tmp_path, "--quiet", f"--report={tmp_path / 'r.txt'}").expect(0)
    assert "aligned file: btcusdt 1m" in outcome.stdout
    assert "candle file" not in outcome.stdout
    assert "files: 1 well, 1 with warnings only, 0 with errors" in outcome.stdout
    assert "candle file" in (tmp_path / "r.txt").read_text()


def test_warnings_alone_end_with_0_and_errors_with_1(tmp_path: Path) -> None:
    path = tmp_path / "SPY.csv"
    good = run_here("validate", write_csv(path, good_bars())).expect(0)
    assert good.stdout.splitlines()[-2:] == ["PASSED", "=" * 60]
    assert good.stderr == ""
    run_here("validate", write_csv(path, [*good_bars(), good_bars(21)[20]])).expect(0)
    path.write_text(path.read_text().replace("1709251620000", "1709251620007"))
    run_here("validate", path).expect(0)
    bad = run_here("validate", write_csv(path, [*good_bars(), good_bars()[-1]])).expect(1)
    assert bad.stdout.splitlines()[-2:] == ["FAILED", "=" * 60]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nothing", "no such file or folder"),
        ("empty", "a folder without bars"),
        ("notes.txt", "neither candles, nor aligned bars, nor .csv, nor .dbn"),
        ("report.json", "neither candles, nor aligned bars, nor .csv, nor .dbn"),
    ],
)
def test_a_path_without_bars_is_an_error_and_others_go_on(
    name: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "report.json").write_text("{}")
    path = write_csv(tmp_path / "SPY.csv", good_bars())
    wrong, good = validations(tmp_path / name, path)
    assert good.findings == []
    (finding,) = wrong.findings
    assert (finding.severity, finding.places[0].found) == ("error", reason)
    run_here("validate", tmp_path / name).expect(1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to validate: expected files or folders"),
        (["x", "--timeframe", "7x"], "timeframe '7x': expected a number and a unit"),
        (["x", "--tz", "Nowhere/City"], "time zone 'Nowhere/City': expected a name"),
        (["x", "--source", "nothing"], "nothing: no such file or folder"),
        (["x", "--report", "no/such/report.txt"], "no such folder"),
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str], message: str) -> None:
    assert message in run_here("validate", *arguments).expect(2).stderr


def test_files_that_may_not_be_read_are_errors_and_others_go_on() -> None:
    with unprivileged_folder() as folder:
        write_csv(folder / "a.csv", good_bars()).chmod(0)
        write_csv(folder / "b.csv", good_bars())
        write_csv(folder / "closed" / "c.csv", good_bars()).parent.chmod(0)
        results = {Path(each.path).name: each for each in validations(folder)}
    reasons = {name: [f.places[0].found for f in each.findings] for name, each in results.items()}
    assert reasons == {"a.csv": ["Permission denied"], "b.csv": [], "closed": [
        "Permission denied"
    ]}  # fmt: skip


def test_what_is_left_of_a_pair_is_found(tmp_path: Path) -> None:
    pair = write_candles(tmp_path, good_records())
    os.remove(pair.records)
    other = write_candles(tmp_path, good_records(), Market("RAM", "BINANCE", "other"))
    os.remove(other.companion)
    aligned = write_aligned(tmp_path, good_bars())
    os.remove(aligned.records)
    results = validations(tmp_path)
    assert [(Path(each.path).name, each.findings[0].check) for each in results] == [
        ("btcusdt.bin", "readable"), ("btcusdt.bin", "size"), ("other.bin", "companion"),
    ]  # fmt: skip
    for path in (pair.companion, other.records, aligned.index):
        assert found(path)[0][0] == "error"


def test_an_aligned_file_anywhere_is_known_by_its_index_or_its_first_record(tmp_path: Path) -> None:
    paths = write_aligned(tmp_path, good_bars(), timeframe="data")
    (validation,) = validations(paths.records)
    assert (validation.kind, validation.timeframe) == ("aligned file", "1m")
    assert validation.findings == []
    os.remove(paths.index)
    (validation,) = validations(paths.records)
    assert (validation.kind, [each.check for each in validation.findings]) == (
        "aligned file",
        ["index"],
    )


def test_a_path_that_is_named_twice_is_checked_once(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "SPY.csv", good_bars())
    assert len(validations(path, tmp_path, path)) == 1


def test_a_pipe_does_not_hang_the_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "SPY.csv")
    write_csv(tmp_path / "good.csv", good_bars())
    assert [Path(each.path).name for each in validations(tmp_path)] == ["good.csv"]
    assert the_finding(tmp_path / "SPY.csv").places[0].found == "no regular file"


def test_a_month_is_counted_once_where_bars_are_looked_at_twice(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "SPY_2024_02.csv", [*good_bars(), good_bars()[3]])
    counts = {check: count for _, check, count in found(path)}
    assert counts == {"order": 1, "duplicates": 1, "month": COUNT + 1}


def test_hidden_files_are_passed_over(tmp_path: Path) -> None:
    write_csv(tmp_path / ".tmp" / "a.csv", good_bars())
    write_csv(tmp_path / ".b.csv", good_bars())
    write_csv(tmp_path / "c.csv", good_bars())
    assert [Path(each.path).name for each in validations(tmp_path)] == ["c.csv"]


def test_a_report_never_replaces_a_companion(tmp_path: Path) -> None:
    pair = write_candles(tmp_path, good_records())
    with pytest.raises(UsageError, match=r"btcusdt\.json belongs to .*btcusdt\.bin"):
        report_paths(f"{pair.stem}.txt")
    before = Path(pair.companion).read_bytes()
    run_here("validate", tmp_path, "--report", pair.companion).expect(2)
    assert Path(pair.companion).read_bytes() == before


def test_a_report_named_as_json_has_its_text_beside_it(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "SPY.csv", good_bars())
    outcome = run_here("validate", path, f"--report={tmp_path / 'r.json'}").expect(0)
    assert json.loads((tmp_path / "r.json").read_text())["totals"]["files"] == 1
    assert (tmp_path / "r.txt").read_text() == outcome.stdout


def test_a_name_that_is_no_text_can_be_reported(tmp_path: Path) -> None:
    name = os.fsdecode(b"a\xff.csv")
    try:
        write_csv(tmp_path / name, good_bars())
    except OSError:
        pytest.skip("names of files have to be text here")
    outcome = run_here("validate", tmp_path, f"--report={tmp_path / 'r.txt'}").expect(0)
    assert "a\\udcff.csv" in outcome.stdout
    assert json.loads((tmp_path / "r.json").read_text())["files"][0]["path"].endswith(name)


def test_validate_loads_neither_beam_nor_pandas(tmp_path: Path) -> None:
    write_candles(tmp_path / "out", good_records())
    write_aligned(tmp_path, good_bars())
    write_csv(tmp_path / "SPY.csv", good_bars())
    assert not loaded_by("validate", tmp_path) & (HEAVY - {"numba"})


# ValidateBars


def test_validate_bars_is_the_function_of_each_element() -> None:
    columns = np.array([bar[1:] for bar in good_bars()]).T.copy()
    ts = np.array([bar[0] for bar in good_bars()])
    good = Bars(ts, *columns)
    bad = Bars(ts, columns[0], columns[2], columns[1], columns[3], -columns[4])
    assert check_bars(good, MINUTE) == []
    assert [each.check for each in check_bars(bad, MINUTE)] == ["high", "low", "negative-volumes"]
    assert_makes(
        ValidateBars(timeframe=MINUTE),
        [("good", good), ("bad", bad)],
        [("good", []), ("bad", check_bars(bad, MINUTE))],
    )
    assert_makes(
        ValidateBars(timeframe=None, any_price=True, keep=1),
        [(1, bad)],
        [(1, check_bars(bad, None, any_price=True, keep=1))],
    )


def test_validate_bars_refuses_wrong_parameters_when_it_is_built() -> None:
    with pytest.raises(ValueError, match="keep -1: expected at least 0"):
        ValidateBars(timeframe=MINUTE, keep=-1)
