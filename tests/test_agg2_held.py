"""Days are held in little memory while they are read, and that changes nothing of what is read."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlebeam.formats.agg2 import day as agg2_day
from candlebeam.formats.agg2 import held as agg2_held
from candlebeam.formats.agg2.blob import unpacked
from candlebeam.formats.agg2.reader import Agg2Reader
from tests.agg2_blobs import (
    CENTS,
    DAY,
    AggRow,
    MonthFolder,
    blob,
    expected,
    read,
    read_day,
    some_rows,
    trades_of,
    zstd,
)
from tests.trade_batches import MARKET, MIDNIGHT

END = 1 << 53
DAY_MS = 86_400_000


@pytest.fixture
def month(tmp_path: Path) -> MonthFolder:
    return MonthFolder(tmp_path)


def truncated(number: int) -> int:
    """What the writer that truncates makes of a number, given times 1e8."""
    return int(number / 100_000_000 * 100_000_000)


@st.composite
def numbers(draw: st.DrawFn) -> st.SearchStrategy[int]:
    """Of a day: of so many decimals, truncated or not, now and then another one."""
    unit = 10 ** draw(st.integers(0, 8))
    write = truncated if draw(st.booleans()) else int
    most = draw(st.sampled_from([10, 10**4, 10**9, 10**15])) * unit
    usual = st.integers(1, min(most, END - 1) // unit or 1).map(lambda n: write(n * unit))
    high = st.integers(END // 10**8, 2**63 // 10**8).map(lambda n: n * 10**8)
    edges = st.integers(-3, 3).flatmap(
        lambda n: st.sampled_from([END, 1 << 61, 1 << 62, 1 << 63]).map(lambda edge: edge + n)
    )
    odd = st.sampled_from([0, 1, 9, 10, 11]) | high | edges | st.integers(0, 2**64 - 1)
    return draw(st.sampled_from([usual, usual, usual | odd, usual | high]))


@st.composite
def days(draw: st.DrawFn) -> list[AggRow]:
    times = st.integers(MIDNIGHT, MIDNIGHT + DAY_MS - 1)
    far = st.integers(10**11 - 2, 10**13 + 2) | st.integers(10**14 - 2, 10**16 + 2)
    row = st.builds(
        AggRow,
        trade_id=st.integers(0, 12),
        px=draw(numbers()),
        qty=draw(numbers()) | st.just(0),
        first_id=st.just(0),
        trades=st.sampled_from([0, 1, 65_535]),
        flags=st.integers(0, 3),
        ts=draw(st.sampled_from([times, times.map(lambda ts: ts * 1000 + 5), times | far])),
        side=st.sampled_from([None] * 9 + [2]),
    )
    rows = draw(st.lists(row, max_size=30))
    if draw(st.booleans()):
        rows = [row._replace(trade_id=i) for i, row in enumerate(rows, start=1)]
    return rows


@given(days(), st.booleans(), st.integers(0, 40), st.sampled_from([b"AGG2", b"AGG3"]))
def test_a_day_reads_the_same_however_it_is_held(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[AggRow],
    snap: bool,
    rows_known: int,
    magic: bytes,
) -> None:
    month = MonthFolder(tmp_path_factory.mktemp("held"))
    month.add(zstd(blob(rows, magic=magic)))
    options: dict[str, Any] = {"snap": snap, "batch_trades": 7, "from_ts": MIDNIGHT + DAY_MS // 2}
    file = month.file(seen=48 + 48 * rows_known)
    held = read(file, **options)
    # Rejected rows that are kept are read as they were.
    assert read(file, keep_rejects=True, **options) == held
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agg2_day, "HELD_BYTES", 0)
        assert read(file, **options) == held
        patch.setattr(agg2_day, "HELD_BYTES", 1 << 20)
        patch.setattr(agg2_day, "PIECE_ROWS", 4)
        patch.setattr(agg2_day, "PIECE", 4 * 48)
        assert read(file, **options) == held


def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Takes down each time that a blob begins to be decompressed."""
    times: list[Any] = []

    def noted(descriptor: int, row: Any) -> Any:
        times.append(row)
        return unpacked(descriptor, row)

    monkeypatch.setattr(agg2_day, "unpacked", noted)
    return times


@pytest.mark.parametrize("unit", [1, 10, 10**4, 10**6, 10**8])
def test_numbers_beyond_whole_floats_are_read_the_same(
    month: MonthFolder, monkeypatch: pytest.MonkeyPatch, unit: int
) -> None:
    sizes = [truncated(n * unit) for n in range(1, 20)]
    for edge in (END, END * 3):
        sizes += [edge // unit * unit + unit * n + off for n in (1, 2, 5) for off in range(-2, 2)]
    month.add_rows([AggRow(i, 10**6, size) for i, size in enumerate(sizes, start=1)])
    times = opened(monkeypatch)
    held = read_day(month)
    assert len(times) == 1
    monkeypatch.setattr(agg2_day, "HELD_BYTES", 0)
    assert read_day(month) == held


#: Numbers of ever more decimals, larger ones, and a far time.
UNLIKE = [
    AggRow(
        i,
        truncated((29 + 10**7 * (i > 40)) * 10 ** (6 - i // 15)),
        truncated(57 * 10 ** (6 - i // 20)),
        flags=i % 2,
        ts=MIDNIGHT + i * 1000 + 4 * DAY_MS * (i == 33),
    )
    for i in range(1, 61)
]


@pytest.mark.parametrize("rows_known", range(0, 61, 6))
def test_stretches_of_unlike_rows_go_on_from_each_other(
    month: MonthFolder, monkeypatch: pytest.MonkeyPatch, rows_known: int
) -> None:
    month.add_rows(UNLIKE + UNLIKE[::9])
    file = month.file(seen=48 + 48 * rows_known)
    times = opened(monkeypatch)
    held = read(file, from_ts=MIDNIGHT + 50_000, batch_trades=4)
    assert len(times) == 2  # for the repeats
    assert held[1][0].late == max(0, 49 - rows_known) - (rows_known < 33)
    assert held[1][0].rejected == (("duplicate", 7),)
    monkeypatch.setattr(agg2_day, "HELD_BYTES", 0)
    assert read(file, from_ts=MIDNIGHT + 50_000, batch_trades=4) == held


def test_a_step_is_found_though_one_number_is_none_of_its_multiples(
    month: MonthFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [truncated(29 * CENTS), END + 5, truncated(57 * CENTS)]
    month.add_rows([AggRow(i, CENTS, size) for i, size in enumerate(sizes, start=1)])
    times = opened(monkeypatch)
    assert [trade.size for trade in read_day(month)[0]] == [0.29, (END + 5) / 10**8, 0.57]
    assert len(times) == 1


FAR = [row._replace(ts=MIDNIGHT + DAY_MS * 4 * (i % 2)) for i, row in enumerate(some_rows(200))]
ONCE: dict[str, list[AggRow]] = {
    "truncated": [row._replace(px=truncated(row.px)) for row in some_rows(50)],
    "exact": some_rows(50),
    "eight decimals": [AggRow(i, 6_800_000 * CENTS, 10**9 + i) for i in range(1, 50)],
    "large quantities": [AggRow(i, 1000 + i, (10**9 + i) * 10**8) for i in range(1, 50)],
    "one far time": [*some_rows(50), AggRow(999, CENTS, ts=MIDNIGHT + 9 * DAY_MS)],
    "microseconds": [row._replace(ts=row.ts * 1000) for row in some_rows(50)],
    "rejected": [AggRow(i, 0) for i in range(1, 50)],
    "without ids": [row._replace(trade_id=0) for row in some_rows(50)],
    "empty": [],
}
TWICE: dict[str, list[AggRow]] = {
    "no room for both": [AggRow(1, END - 1, END - 1)],
    "one bit too many": [AggRow(1, 2**29 * 10 - 1, (2**30 - 1) * 10**8)],
    "a price in all 64 bits": [*some_rows(9), AggRow(999, 2**64 - 1)],
    "times to and fro": FAR,
    "ids out of order": some_rows(5)[::-1],
}


@pytest.mark.parametrize("name", [*ONCE, *TWICE])
def test_most_days_are_decompressed_once(
    month: MonthFolder, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    rows = {**ONCE, **TWICE}[name]
    month.add_rows(rows)
    times = opened(monkeypatch)
    trades, outcome = read_day(month, snap=False)
    assert trades == expected(rows)
    assert outcome.trades == len(trades)
    assert len(times) == (1 if name in ONCE else 2)


@pytest.mark.parametrize("row_count", [0, 3, 5, 6, 2**63])
def test_room_is_taken_by_the_rows_there_are(
    month: MonthFolder, monkeypatch: pytest.MonkeyPatch, row_count: int
) -> None:
    monkeypatch.setattr(agg2_day, "HELD_BYTES", 16 * 5)
    rows = some_rows(6)
    month.add(zstd(blob(rows, row_count=row_count)))
    trades, outcome = read_day(month)
    assert trades == expected(rows)
    assert (outcome.damage is None) == (row_count == 6)


@pytest.mark.parametrize("held", [0, 1 << 20])
@pytest.mark.parametrize("cut", [False, True])
def test_repeats_in_a_damaged_day_are_rejected(
    month: MonthFolder, monkeypatch: pytest.MonkeyPatch, held: int, cut: bool
) -> None:
    monkeypatch.setattr(agg2_day, "HELD_BYTES", held)
    rows = some_rows(40)
    data = zstd(blob([*rows, *rows[:7], *rows[:3]]))
    # Without its checksum, or with an end beyond that of the data: every row is there.
    month.add(data[:-4] if cut else data, length=len(data) + (not cut))
    trades, outcome = read_day(month)
    assert trades == expected(rows)
    assert outcome.rejected == (("duplicate", 10),)
    assert outcome.damage is not None


@pytest.mark.parametrize("held", [0, 1 << 20])
def test_of_a_shuffled_day_only_the_repeats_are_rejected(
    month: MonthFolder, monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    monkeypatch.setattr(agg2_day, "HELD_BYTES", held)
    rows = some_rows(300)
    rows += [row._replace(trades=row.trades + 1) for row in rows[::3]] + rows[::4] + rows[::5]
    Random(5).shuffle(rows)
    month.add_rows(rows)
    trades, outcome = read_day(month)
    assert trades == expected(rows)
    assert outcome.rejected == (("duplicate", 75 + 60),)


def test_readers_that_take_turns_do_not_disturb_each_other(tmp_path: Path) -> None:
    days = {day: some_rows(40, day) for day in (1, 2, 3)}
    month = MonthFolder(tmp_path)
    for day, rows in days.items():
        month.add_rows(rows, day)
    readers = [Agg2Reader(MARKET, [month.file(day)], batch_trades=10) for day in days]
    turns = zip(*readers, strict=True)
    batches = list(zip(*turns, strict=True))
    for rows, found in zip(days.values(), batches, strict=True):
        assert trades_of(list(found)) == expected(rows)


def test_one_reader_leaves_its_memory_to_the_next(month: MonthFolder) -> None:
    month.add_rows(some_rows(5))
    read_day(month)
    words = agg2_held.take_words(agg2_day.HELD_BYTES // 8)
    agg2_held.leave_words(words)
    read_day(month)
    assert agg2_held.take_words(len(words)) is words
    # It is given away once, and only where it fits.
    assert agg2_held.take_words(len(words)) is not words
    agg2_held.leave_words(words)
    assert len(agg2_held.take_words(3)) == 3


def test_a_reader_goes_as_soon_as_nobody_has_it(month: MonthFolder) -> None:
    month.add_rows(some_rows(5))
    gc.collect()
    gc.disable()
    try:
        reader = Agg2Reader(MARKET, [month.file()])
        list(reader)
        gone = weakref.ref(reader)
        del reader
        assert gone() is None
    finally:
        gc.enable()


def test_what_watches_sees_the_rows_of_the_day_last(month: MonthFolder) -> None:
    month.add(zstd(blob(some_rows(9))[:-48]))
    rows = some_rows(5, 2)
    month.add_rows(rows)
    seen: list[str | bytes] = []

    class Watching:
        def begin(self, layout: Any) -> None:
            seen.append(layout.name)

        def add(self, words: Any) -> None:
            seen.append(words.tobytes())

    opened_month = agg2_day.open_month(str(month.path))
    blobs = agg2_day.DayBlobs(watch=Watching())
    day = blobs.find(opened_month, DAY).day
    assert day is not None
    assert seen == ["AGG2", blob(some_rows(9))[48:-48], "AGG2", blob(rows)[48:]]
    assert blobs.hold(opened_month, day).tobytes() == blob(rows)[48:]
