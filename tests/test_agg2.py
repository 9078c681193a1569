"""AGG2 and AGG3 days become trades, by the rules."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlebeam.errors import Cancelled
from candlebeam.formats.agg2 import day as agg2_day
from candlebeam.formats.agg2.reader import (
    Agg2Reader,
)
from candlebeam.formats.trade_log.reader import FileRejects
from candlebeam.model import FileOutcome
from tests.agg2_blobs import (
    CENTS,
    DAY,
    AggRow,
    MonthFolder,
    blob,
    expected,
    naive_trades,
    read,
    read_day,
    some_rows,
    trades_of,
    zstd,
)
from tests.trade_batches import MARKET, MIDNIGHT


@pytest.fixture
def month(tmp_path: Path) -> MonthFolder:
    return MonthFolder(tmp_path)


# Rows


@pytest.mark.parametrize("batch_trades", [1, 7, 50, 1 << 17])
def test_rows_become_trades_in_their_order(month: MonthFolder, batch_trades: int) -> None:
    rows = some_rows(50)
    month.add_rows(rows)
    reader = Agg2Reader(MARKET, [month.file()], batch_trades=batch_trades)
    batches = list(reader)
    assert trades_of(batches) == expected(rows)
    assert [len(batch) for batch in batches[:-1]] == [batch_trades] * (len(batches) - 1)
    assert all(column.flags.owndata for batch in batches for column in (batch.ts, batch.price))
    (outcome,) = reader.outcomes
    stat = month.data.stat()
    assert outcome == FileOutcome(
        path=month.file().path,
        read_path=str(month.data),
        size=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
        text_bytes=48 + 48 * 50,
        trades=50,
        length=stat.st_size,
    )


TIMES = st.sampled_from(
    [10**11, 10**11 + 1, 10**13 - 1, 10**13, 10**14, 10**14 + 1, 10**14 + 1000, 10**16 - 1, 10**16]
)
ANY_ROWS = st.builds(
    AggRow,
    trade_id=st.integers(0, 3) | st.integers(0, 2**64 - 1),
    px=st.sampled_from([0, CENTS, 5 * CENTS]) | st.integers(0, 2**64 - 1),
    qty=st.sampled_from([0, CENTS]) | st.integers(0, 2**64 - 1),
    first_id=st.just(0),
    trades=st.integers(0, 65_534),
    flags=st.sampled_from([0, 1, 1, 2, 3, 65_535]),
    ts=st.just(MIDNIGHT)
    | st.integers(MIDNIGHT, MIDNIGHT + 9).map(lambda ts: ts * 1000 + 999)
    | TIMES
    | st.integers(-(2**63), 2**63 - 1),
    side=st.sampled_from([None, None, None, 0, 1, 2]),
)


@given(rows=st.lists(ANY_ROWS, max_size=12), double=st.booleans())
def test_any_rows_are_kept_or_rejected_by_the_rules(
    tmp_path_factory: pytest.TempPathFactory, rows: list[AggRow], double: bool
) -> None:
    month = MonthFolder(tmp_path_factory.mktemp("rows"))
    raw = blob(rows + rows[:3] * double)
    month.add(zstd(raw))
    reader = Agg2Reader(MARKET, [month.file()], snap=False, keep_rejects=True, batch_trades=5)
    kept, rejected = naive_trades(raw)
    assert trades_of(list(reader)) == kept
    found = [row for file in reader.rejects for row in file.rows]
    assert [(row.line, row.reason) for row in found] == rejected
    assert [row.raw for row in found] == [
        raw[48 * line : 48 * line + 48].hex().encode() for line, _ in rejected
    ]
    (outcome,) = reader.outcomes
    reasons = [reason for _, reason in rejected]
    assert dict(outcome.rejected) == {reason: reasons.count(reason) for reason in set(reasons)}
    assert outcome.trades == len(kept)
    # Where they need not be kept, another way leads there.
    assert read_day(month, snap=False, batch_trades=5) == (kept, outcome)


def test_rejects_go_to_the_callback_as_they_are_found(month: MonthFolder) -> None:
    rows = [AggRow(i, 0) for i in range(1, 3_000)]
    month.add_rows(rows)
    found: list[FileRejects] = []
    reader = Agg2Reader(MARKET, [month.file()], on_rejects=found.append)
    assert list(reader) == []
    assert reader.rejects == []
    assert [row.line for file in found for row in file.rows] == list(range(1, 3_000))
    assert max(len(file.rows) for file in found) < 2_000


def test_only_exact_repeats_with_an_id_are_duplicates(month: MonthFolder) -> None:
    one, other, none = AggRow(7, CENTS), AggRow(7, CENTS, trades=2), AggRow(0, CENTS)
    month.add_rows([one, none, other, one, none, one, AggRow(6, CENTS)])
    trades, outcome = read_day(month)
    assert [trade.trades for trade in trades] == [1, 1, 2, 1, 1]
    assert outcome.rejected == (("duplicate", 2),)


def test_the_same_row_on_two_days_is_no_duplicate(month: MonthFolder) -> None:
    month.add_rows([AggRow(7, CENTS)], 1)
    month.add_rows([AggRow(7, CENTS)], 2)
    trades, outcomes = read(month.file(1), month.file(2))
    assert len(trades) == 2
    assert [outcome.rejected for outcome in outcomes] == [(), ()]


def test_counts_that_are_as_high_as_they_go_are_noted(month: MonthFolder) -> None:
    month.add_rows([AggRow(1, CENTS, trades=65_535), AggRow(2, CENTS, trades=65_534)])
    reader = Agg2Reader(MARKET, [month.file()])
    assert [trade.trades for trade in trades_of(list(reader))] == [65_535, 65_534]
    assert reader.saturated == 1
    assert reader.outcomes[0].notes == (
        "1 row counts 65,535 trades or more, and was taken for that many",
    )


def test_days_fill_up_batches_together(tmp_path: Path) -> None:
    rows = some_rows(30)
    for number in range(3):
        MonthFolder(tmp_path).add_rows(rows[10 * number : 10 * number + 10], number + 1)
    month = MonthFolder(tmp_path)
    reader = Agg2Reader(MARKET, [month.file(n) for n in (1, 2, 3)], batch_trades=20)
    batches = list(reader)
    assert [len(batch) for batch in batches] == [20, 10]
    assert trades_of(batches) == expected(rows)
    assert [outcome.trades for outcome in reader.outcomes] == [10, 10, 10]


@pytest.mark.parametrize("rows_known", [0, 3, 8, 20])
def test_old_trades_behind_what_was_seen_are_late(month: MonthFolder, rows_known: int) -> None:
    rows = [row._replace(ts=MIDNIGHT + 1000 * (i % 4)) for i, row in enumerate(some_rows(10))]
    month.add_rows(rows)
    from_ts = MIDNIGHT + 2000
    (outcome,) = read(month.file(seen=48 + 48 * rows_known), from_ts=from_ts)[1]
    late = [row.ts for row in rows[rows_known:] if row.ts < from_ts]
    assert outcome.late == len(late)
    assert outcome.first_late_ts == min(late, default=None)
    kept = [row for row in rows if row.ts >= from_ts]
    assert outcome.trades == len(kept)
    assert read_day(month, from_ts=from_ts)[0] == expected(kept)


# Numbers


def price_rows(prices: list[str], sizes: list[str]) -> list[AggRow]:
    """Rows as the writer makes them that truncates."""
    scaled = [[int(float(text) * 1e8) for text in texts] for texts in (prices, sizes)]
    return [AggRow(i, px, qty) for i, (px, qty) in enumerate(zip(*scaled, strict=True), start=1)]


def test_truncated_numbers_are_recovered_unless_asked_otherwise(month: MonthFolder) -> None:
    prices, sizes = ["0.29", "1.13", "57.84"], ["0.001", "8.215", "0"]
    rows = price_rows(prices, sizes)
    assert rows[0].px == 28_999_999
    month.add_rows(rows)
    trades = read_day(month)[0]
    assert [trade.price for trade in trades] == [float(text) for text in prices]
    assert [trade.size for trade in trades] == [float(text) for text in sizes]
    assert read_day(month, snap=False)[0] == expected(rows)


@pytest.mark.parametrize("decimals", range(9))
def test_days_of_each_decimal_count_are_recovered(month: MonthFolder, decimals: int) -> None:
    random = Random(decimals)
    unit = 10 ** (8 - decimals)
    texts = [
        [f"{Decimal(random.randrange(1, 10**13 // unit) * unit).scaleb(-8):f}" for _ in range(500)]
        for _ in range(2)
    ]
    month.add_rows(price_rows(*texts))
    trades = read_day(month)[0]
    prices = [float(text) for text in texts[0]]
    if decimals < 8:
        assert [trade.price for trade in trades] == prices
        assert [trade.size for trade in trades] == [float(text) for text in texts[1]]
    else:
        right = [trade.price == price for trade, price in zip(trades, prices, strict=True)]
        assert 400 < sum(right) < 500


def test_rows_that_are_no_trades_have_no_say_about_the_step(month: MonthFolder) -> None:
    rows = price_rows(["0.29", "1.13"], ["1", "1"])
    bad = [
        AggRow(3, 12_345_679, ts=5),
        AggRow(4, 12_345_671, flags=1, side=1),
        AggRow(5, 0, 12_345_671),
    ]
    month.add_rows([*rows, *bad])
    trades, outcome = read_day(month)
    assert [trade.price for trade in trades] == [0.29, 1.13]
    assert dict(outcome.rejected) == {"timestamp": 1, "side": 1, "price": 1}


def test_a_day_that_says_it_is_exact_is_taken_as_it_stands(month: MonthFolder) -> None:
    rows = [AggRow(1, 28_999_999)]
    month.add(zstd(blob(rows, padding=b"exact\0\0\0")))
    assert read_day(month)[0] == expected(rows)


def test_steps_are_found_across_pieces(month: MonthFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agg2_day, "PIECE_ROWS", 4)
    monkeypatch.setattr(agg2_day, "PIECE", 4 * 48)
    rows = price_rows(["0.29"] * 9 + ["0.123"] * 3, ["1"] * 12)
    month.add_rows(rows)
    assert [trade.price for trade in read_day(month)[0]] == [0.29] * 9 + [0.123] * 3


@pytest.mark.parametrize("held", [0, 16 * 11, 1 << 20])
@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 11, 12])
def test_days_that_are_not_held_in_memory_are_read_the_same(
    month: MonthFolder, monkeypatch: pytest.MonkeyPatch, held: int, count: int
) -> None:
    monkeypatch.setattr(agg2_day, "PIECE_ROWS", 4)
    monkeypatch.setattr(agg2_day, "PIECE", 4 * 48)
    monkeypatch.setattr(agg2_day, "HELD_BYTES", held)
    rows = some_rows(count)
    doubled = rows + rows
    month.add_rows(doubled)
    month.add_rows(rows, 2)
    trades, outcomes = read(month.file(), month.file(2))
    assert trades == expected(rows) * 2
    assert outcomes[0].rejected == ((("duplicate", count),) if count else ())
    assert outcomes[1].text_bytes == 48 + 48 * count


# AGG3


@pytest.mark.parametrize("compress", ["zstd", "zlib"])
@pytest.mark.parametrize("magic", [b"AGG2", b"AGG3"])
def test_checked_days_are_read(month: MonthFolder, magic: bytes, compress: str) -> None:
    days = {day: some_rows(20, day) for day in (1, 2)}
    if magic == b"AGG3":
        days = {d: [r._replace(trades=r.trades + 10**6) for r in rows] for d, rows in days.items()}
    month.add_checked(
        [(day, blob(rows, day, magic=magic)) for day, rows in days.items()], compress=compress
    )
    trades, outcomes = read(month.file(1), month.file(2))
    counts = [row.trades for rows in days.values() for row in rows]
    assert [trade.trades for trade in trades] == counts
    plain = [row._replace(trades=1) for rows in days.values() for row in rows]
    assert [trade._replace(trades=1) for trade in trades] == expected(plain)
    assert [(outcome.damage, outcome.error) for outcome in outcomes] == [(None, None)] * 2


def test_a_count_of_32_bits_that_is_as_high_as_it_goes_is_noted(month: MonthFolder) -> None:
    rows = [AggRow(1, CENTS, trades=2**32 - 1), AggRow(2, CENTS, trades=65_535)]
    month.add_checked([(DAY, blob(rows, magic=b"AGG3"))])
    reader = Agg2Reader(MARKET, [month.file()])
    assert [trade.trades for trade in trades_of(list(reader))] == [2**32 - 1, 65_535]
    assert reader.saturated == 1


@pytest.mark.parametrize("compress", ["zstd", "zlib"])
def test_a_wrong_checksum_is_damage(month: MonthFolder, compress: str) -> None:
    rows = some_rows(20)
    month.add_checked([(DAY, blob(rows, magic=b"AGG3"))], compress=compress)
    index = bytearray(month.index.read_bytes())
    index[-1] ^= 1
    month.index.write_bytes(index)
    trades, outcome = read_day(month)
    assert trades == expected(rows)
    assert outcome.damage is not None
    assert outcome.damage.startswith("expected checksum ")


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_zlib_day_that_is_cut_gives_its_whole_rows(month: MonthFolder, cut: int) -> None:
    rows = some_rows(60)
    month.add_checked([(DAY, blob(rows, magic=b"AGG3"))], compress="zlib")
    month.data.write_bytes(month.data.read_bytes()[:-cut])
    trades, outcome = read_day(month)
    assert trades == expected(rows)[: len(trades)]
    assert len(trades) >= 20 or cut == 200
    assert outcome.damage is not None
    assert "the zlib stream is cut off at byte" in outcome.damage


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (blob([AggRow(1, 1)], magic=b"AGG4"), "expected magic AGG2 or AGG3, found b'AGG4'"),
        (blob([AggRow(1, 1)], version=2), "expected AGG2 version 1, found 2"),
        (blob([AggRow(1, 1)], magic=b"AGG3", version=9), "expected AGG3 version 1, found 9"),
    ],
)
def test_other_successors_are_an_error_that_says_what_was_found(
    month: MonthFolder, raw: bytes, message: str
) -> None:
    month.add(zstd(raw))
    trades, outcome = read_day(month)
    assert trades == []
    assert outcome.error == message


def test_another_kind_of_index_is_an_error_of_its_days(month: MonthFolder) -> None:
    month.index.write_bytes(b"QIX9" + bytes(60))
    trades, outcome = read_day(month)
    assert trades == []
    assert outcome.read_path == str(month.index)
    assert outcome.error is not None
    assert outcome.error.startswith(f"{month.index} at byte 0: expected rows of a day")


def test_reading_can_be_cancelled(month: MonthFolder) -> None:
    month.add_rows(some_rows(3))
    reader = Agg2Reader(MARKET, [month.file()], cancelled=lambda: True)
    with pytest.raises(Cancelled, match="reading of day blobs was cancelled"):
        list(reader)


def test_batches_of_no_trades_are_refused(month: MonthFolder) -> None:
    with pytest.raises(ValueError, match="batch_trades 0: expected at least 1"):
        Agg2Reader(MARKET, [month.file()], batch_trades=0)
