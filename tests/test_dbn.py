"""Trades of Databento files: every schema and version, held against the library's own reading."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.dbn_data import START, Interval, Mapping, encode_head, symbol_name, write_dbn_trades
from candlebeam.errors import Cancelled, CandlebeamError, FormatError
from candlebeam.formats.dbn import ahead as dbn_ahead
from candlebeam.formats.dbn import kernels as dbn_kernels
from candlebeam.formats.dbn import layout as dbn_layout
from candlebeam.formats.dbn import records as dbn_records
from candlebeam.formats.dbn import tables as dbn_tables
from candlebeam.formats.dbn.metadata import read_head
from candlebeam.formats.dbn.reader import (
    DbnReader,
    SymbolInterval,
    WantedMarket,
    describe_dbn,
    iterate_dbn_bars,
)
from candlebeam.formats.dbn.stream import DbnStream
from candlebeam.model import FileOutcome, Market, Timeframe, TradeBatch
from candlebeam.rules.candles import CandleMerger, aggregate
from tests.dbn_files import (
    DAY_NS,
    MIDNIGHT_NS,
    ONE,
    SAMPLES,
    UNDEFINED_PRICE,
    UNDEFINED_SIZE,
    UNDEFINED_TIME,
    days,
    dtype_of,
    mapping,
    record,
    tell,
    trade,
    write_dbn,
)

ABC = Market("DATABENTO", "XNAS.ITCH", "ABC")
MIDNIGHT = MIDNIGHT_NS // 10**6
TRADE_SCHEMAS = ("trades", "tbbo", "mbp-1", "mbp-10", "mbo", "cmbp-1", "tcbbo")
SECOND, MINUTE = Timeframe(1_000), Timeframe(60_000)

Rows = dict[Market, list[tuple[int, float, float, int]]]


def rows_of(batches: Iterator[TradeBatch] | DbnReader) -> Rows:
    """The trades by market: ts, price, size, buy."""
    rows: Rows = {}
    for batch in batches:
        assert len(batch)
        assert not batch.liquidation.any()
        assert batch.count is None
        columns = (batch.ts, batch.price, batch.size, batch.buy)
        rows.setdefault(batch.market, []).extend(
            zip(*(column.tolist() for column in columns), strict=True)
        )
    return rows


def read(path: str | Path, **options: Any) -> tuple[Rows, DbnReader]:
    reader = DbnReader(str(path), **options)
    return rows_of(reader), reader


def only(outcomes: dict[Market, FileOutcome]) -> FileOutcome:
    (outcome,) = outcomes.values()
    return outcome


def agree_with_the_library(path: str | Path) -> None:
    told = tell(path)
    rows, reader = read(path)
    assert rows == {m: trades.rows for m, trades in told.markets.items() if trades.rows}
    assert reader.unmapped == told.unmapped
    assert {m: dict(o.rejected) for m, o in reader.outcomes.items()} == {
        m: trades.rejected for m, trades in told.markets.items()
    }
    for market, outcome in reader.outcomes.items():
        assert outcome.trades == len(told.markets[market].rows)
        assert (outcome.damage, outcome.error, outcome.late) == (None, None, 0)


@contextmanager
def small_pieces(piece: int = 64, pool: int = 1 << 12) -> Iterator[None]:
    """Reads in pieces that hold a record or two, with a pool of a few pages."""
    with (
        mock.patch.object(dbn_ahead, "PIECE", piece),
        mock.patch.object(dbn_records, "_POOL_BYTES", pool),
    ):
        yield


@pytest.mark.parametrize(
    "name", ["EQUS.MINI.trades", "GLBX.MDP3.mbo", "GLBX.MDP3.trades", "XNAS.ITCH.trades"]
)
def test_sample_files_read_as_the_library_reads_them(name: str) -> None:
    agree_with_the_library(SAMPLES / f"{name}.dbn.zst")


def test_sample_of_a_live_session_gives_each_trade_once() -> None:
    rows, reader = read(SAMPLES / "LIVE.live.dbn.zst")
    market = Market("DATABENTO", "GLBX.MDP3", "ESZ4")
    assert rows == {
        market: [(1_700_510_417_922, 4756.0, 2.0, 1), (1_700_510_495_836, 4756.0, 1.0, 1)]
    }
    assert only(reader.outcomes).notes == (
        "2 trades came again in records of another type and were left out",
    )


@pytest.mark.parametrize("schema", TRADE_SCHEMAS)
@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("compressed", [False, True])
def test_every_schema_of_trades_in_every_version(
    tmp_path: Path, schema: str, version: int, compressed: bool
) -> None:
    actions = (b"T", b"F", b"A", b"T", b"C", b"M", b"R", b"T", b"T")
    records = [
        trade(n * 10**9, (100 + n % 3) * 10**9, n + 1, b"BAN"[n % 3 :][:1], action=a, kind=schema)
        for n, a in enumerate(actions)
    ]
    path = write_dbn(tmp_path / "x", records, schema=schema, version=version, compressed=compressed)
    agree_with_the_library(path)
    rows, _ = read(path)
    assert len(rows[ABC]) == 4


def test_layouts_are_the_librarys() -> None:
    for schema, (record_type, kind) in dbn_layout.SCHEMA_TYPES.items():
        dtype = dtype_of(schema)
        assert dtype.itemsize == 8 * dbn_layout.RECORD_WORDS[record_type]
        if kind == dbn_tables.BAR:
            names = ("open", "high", "low", "close", "volume")
            found = [dtype.fields[name][1] for name in names]  # type: ignore[index]
            assert found == [8 * place for place in range(2, 7)]
            continue
        price, size, ts_recv, action, side = (
            dtype.fields[name][1]  # type: ignore[index]
            for name in ("price", "size", "ts_recv", "action", "side")
        )
        t = dbn_tables
        trades = (t.TRADE_PRICE, t.TRADE_SIZE, t.TRADE_TS_RECV)
        orders = (t.ORDER_PRICE, t.ORDER_SIZE, t.ORDER_TS_RECV)
        bits = (t.TRADE_ACTION_BITS, t.TRADE_SIDE_BITS)
        if kind == t.ORDER:
            trades, bits = orders, (t.ORDER_ACTION_BITS, t.ORDER_SIDE_BITS)
        assert (price, size, ts_recv) == tuple(8 * word for word in trades)
        assert (8 * (action - size), 8 * (side - size)) == bits


@pytest.mark.parametrize("name", ["TRADE_PRICE", "ORDER_SIDE_BITS", "BAR_VOLUME", "TS_EVENT"])
def test_a_library_with_other_layouts_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dbn_layout.check_layout.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(dbn_tables, name, getattr(dbn_tables, name) + 8)
        with pytest.raises(CandlebeamError, match=r"databento_dbn .*: expected \w+ of \w+ at byte"):
            dbn_layout.check_layout()
    dbn_layout.check_layout()


@st.composite
def files(draw: st.DrawFn) -> tuple[tuple[Mapping, ...], list[bytes], str]:
    """A few symbols that change their instruments by day, and records of all of them."""
    spans = st.lists(
        st.tuples(st.integers(0, 2), st.integers(1, 2), st.integers(1, 4)), max_size=3
    ).map(lambda found: [(first, first + length, number) for first, length, number in found])
    names = draw(st.lists(st.sampled_from(["A", "B/C", "..", "D E"]), unique=True, max_size=4))
    mappings = tuple(days(name, *draw(spans)) for name in names)
    schema = draw(st.sampled_from(["trades", "mbo", "mbp-1"]))
    one = st.builds(
        trade,
        st.one_of(
            st.integers(0, 3 * DAY_NS),
            st.sampled_from([DAY_NS - 1, DAY_NS, UNDEFINED_TIME]),
        ),
        st.one_of(
            st.integers(1, 4).map(lambda price: price * 10**9),
            st.sampled_from([UNDEFINED_PRICE, 0, -1, 2**63 - 2, 1]),
        ),
        st.one_of(st.integers(0, 5), st.sampled_from([UNDEFINED_SIZE, UNDEFINED_SIZE - 1])),
        st.sampled_from([b"A", b"B", b"N", b"X"]),
        instrument=st.integers(1, 5),
        action=st.sampled_from([b"T", b"T", b"T", b"A"]),
        event_ns=st.integers(MIDNIGHT_NS, MIDNIGHT_NS + 3 * DAY_NS),
        kind=st.just(schema),
    )
    return mappings, draw(st.lists(one, max_size=80)), schema


@given(files(), st.booleans())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_file_reads_as_the_library_reads_it(
    tmp_path: Path, made: tuple[tuple[Mapping, ...], list[bytes], str], compressed: bool
) -> None:
    mappings, records, schema = made
    path = write_dbn(tmp_path / "x", records, mappings, schema=schema, compressed=compressed)
    agree_with_the_library(path)
    whole, _ = read(path)
    with small_pieces():
        agree_with_the_library(path)
        rows, _ = read(path, batch_trades=16)
    assert rows == whole


def test_many_instruments_over_several_days(tmp_path: Path) -> None:
    path = tmp_path / "x.dbn.zst"
    write_dbn_trades(path, 20_000, instruments=300, seed=5, days=3)
    agree_with_the_library(path)
    with small_pieces(piece=1 << 12, pool=1 << 16):
        agree_with_the_library(path)


def test_batches_are_of_one_market_and_no_longer_than_asked(tmp_path: Path) -> None:
    path = tmp_path / "x.dbn"
    write_dbn_trades(path, 5_000, instruments=3, seed=1, compressed=False)
    batches = list(DbnReader(str(path), batch_trades=256))
    assert max(map(len, batches)) == 256
    assert sum(map(len, batches)) == 5_000
    assert {batch.market.symbol for batch in batches} == {symbol_name(n) for n in range(3)}


def test_pool_of_a_few_pages_gives_everything(tmp_path: Path) -> None:
    path = tmp_path / "x.dbn"
    write_dbn_trades(path, 5_000, instruments=100, seed=1, compressed=False)
    whole, _ = read(path)
    with small_pieces(piece=1 << 10):
        batches = list(DbnReader(str(path), batch_trades=16))
        assert len(batches) > 300
        assert rows_of(iter(batches)) == whole


@pytest.mark.parametrize(
    ("sample", "bars", "timeframe", "equal"),
    [
        ("XNAS.ITCH.trades", "XNAS.ITCH.ohlcv-1m", MINUTE, 2),
        ("XNAS.ITCH.trades", "XNAS.ITCH.ohlcv-1s", SECOND, 4),
        ("EQUS.MINI.trades", "EQUS.MINI.ohlcv-1s", SECOND, 2),
    ],
)
def test_candles_of_sample_trades_equal_databentos_bars(
    sample: str, bars: str, timeframe: Timeframe, equal: int
) -> None:
    (trades,) = DbnReader(str(SAMPLES / f"{sample}.dbn.zst"))
    candles = aggregate(trades, timeframe).candles
    ((_, theirs),) = iterate_dbn_bars(str(SAMPLES / f"{bars}.dbn.zst"))
    assert len(candles) == equal
    ours = [tuple(row) for row in candles[["time", "open", "high", "low", "close"]].tolist()]
    columns = (theirs.ts, theirs.open, theirs.high, theirs.low, theirs.close)
    assert ours == list(zip(*(column.tolist()[:equal] for column in columns), strict=True))


def test_candles_are_made_as_databento_makes_bars_by_the_time_of_receipt(tmp_path: Path) -> None:
    path = tmp_path / "x.dbn.zst"
    write_dbn_trades(path, 30_000, instruments=2, seed=9)
    mergers: dict[str, CandleMerger] = {}
    for batch in DbnReader(str(path), batch_trades=512):
        merger = mergers.setdefault(batch.market.symbol, CandleMerger())
        merger.add(aggregate(batch, MINUTE))
    with DbnStream(str(path)) as stream:
        read_head(stream, str(path))
        trades = np.frombuffer(stream.read(1 << 26), dtype_of("trades"))
    for number in range(2):
        block = mergers[symbol_name(number)].finish()
        assert block is not None
        mine = trades[trades["instrument_id"] == 1_000 + 7 * number]
        minute = mine["ts_recv"] // 60_000_000_000
        for candle, which in zip(block.candles, np.unique(minute), strict=True):
            prices = mine["price"][minute == which] / 1e9
            assert candle["time"] == which * 60_000
            assert candle["open"] == prices[0]
            assert candle["high"] == prices.max()
            assert candle["low"] == prices.min()
            assert candle["close"] == prices[-1]


def test_a_trade_without_time_of_receipt_has_the_time_of_its_event(tmp_path: Path) -> None:
    path = write_dbn(
        tmp_path / "x",
        [trade(UNDEFINED_TIME, event_ns=MIDNIGHT_NS + 5_999_999), trade(7_000_000)],
    )
    rows, _ = read(path)
    assert [row[0] for row in rows[ABC]] == [MIDNIGHT + 5, MIDNIGHT + 7]


def test_a_trade_without_any_time_is_rejected_in_its_market(tmp_path: Path) -> None:
    records = [trade(UNDEFINED_TIME, event_ns=UNDEFINED_TIME), trade(0)]
    rows, reader = read(write_dbn(tmp_path / "x", records))
    assert len(rows[ABC]) == 1
    assert only(reader.outcomes).rejected == (("timestamp", 1),)


def test_undefined_and_impossible_prices_are_rejected_and_kept(tmp_path: Path) -> None:
    records = [
        trade(0, UNDEFINED_PRICE, 3),
        trade(1, 0),
        trade(2, -(10**9)),
        trade(3, 5 * 10**9),
        trade(4, size=UNDEFINED_SIZE),
        trade(5, side=b"?"),
        trade(6, 2**63 - 2, 10**6),
        trade(7, instrument=8, price=UNDEFINED_PRICE),
    ]
    path = write_dbn(tmp_path / "x", records)
    rows, reader = read(path, keep_rejects=True)
    assert rows == {ABC: [(MIDNIGHT, 5.0, 1.0, 1)]}
    outcome = reader.outcomes[ABC]
    assert outcome.rejected == (("price", 3), ("size", 1), ("side", 1), ("volume", 1))
    assert reader.unmapped == 1
    assert [(row.line, row.reason) for row in reader.rejects[ABC]] == [
        (1, "price"), (2, "price"), (3, "price"), (5, "size"), (6, "side"), (7, "volume"),
    ]  # fmt: skip
    assert reader.rejects[ABC][0].raw == (
        b"type=0 instrument_id=7 ts_event=1709510400000000000 ts_recv=1709510400000000000"
        b" price=9223372036854775807 size=3 side='B'"
    )
    ((line, reason, raw),) = reader.rejects[None]
    assert (line, reason) == (8, "symbol")
    assert raw.startswith(b"type=0 instrument_id=8 ")


def test_rejects_are_handed_over_as_they_are_found(tmp_path: Path) -> None:
    path = write_dbn(tmp_path / "x", [trade(n, 0) for n in range(5_000)])
    found: list[tuple[Market | None, int]] = []
    _, reader = read(path, on_rejects=lambda market, rows: found.append((market, len(rows))))
    assert reader.rejects == {}
    assert {market for market, _ in found} == {ABC}
    assert sum(count for _, count in found) == 5_000


def test_price_beyond_the_exact_range_of_float64_is_the_nearest(tmp_path: Path) -> None:
    prices = [2**53 + 1, 2**53 - 1, 9_007_199_254_740_993_777, 123_456_789_012_345_678, 1, 10**18]
    path = write_dbn(tmp_path / "x", [trade(n, price) for n, price in enumerate(prices)])
    rows, _ = read(path)
    assert [row[1] for row in rows[ABC]] == [price / 10**9 for price in prices]


@given(st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**54), 2**54)))
def test_prices_are_the_nearest_float64(value: int) -> None:
    assert dbn_kernels.price_of(value) == value / 10**9


def test_symbol_goes_from_instrument_to_instrument_at_midnight(tmp_path: Path) -> None:
    mappings = (days("ABC", (0, 1, 7), (1, 2, 8)), days("DEF", (0, 1, 8), (1, 2, 7)))
    records = [
        trade(DAY_NS - 1, 10**9, instrument=7),
        trade(DAY_NS - 1, 2 * 10**9, instrument=8),
        trade(DAY_NS, 3 * 10**9, instrument=7),
        trade(DAY_NS, 4 * 10**9, instrument=8),
        trade(2 * DAY_NS, 5 * 10**9, instrument=8),
    ]
    rows, reader = read(write_dbn(tmp_path / "x", records, mappings))
    prices = {market.symbol: [row[1] for row in found] for market, found in rows.items()}
    assert prices == {"ABC": [1.0, 4.0], "DEF": [2.0, 3.0]}
    assert reader.unmapped == 1


def test_intervals_without_a_near_end(tmp_path: Path) -> None:
    far = Mapping("ABC", (Interval(date.min, date.max, "7"),))
    rows, _ = read(write_dbn(tmp_path / "x", [trade(0)], (far,)))
    assert list(rows) == [ABC]


@pytest.mark.parametrize("instrument", ["-1", "4294967296", "99999999999999999999", "x"])
def test_impossible_instruments_are_named(tmp_path: Path, instrument: str) -> None:
    wrong = Mapping("ABC", (Interval(START, date.max, instrument),))
    with pytest.raises(FormatError, match="expected Databento metadata, found .*" + instrument):
        describe_dbn(write_dbn(tmp_path / "x", [trade(0)], (wrong,)))


def test_greatest_instrument(tmp_path: Path) -> None:
    greatest = 2**32 - 1
    path = write_dbn(
        tmp_path / "x", [trade(0, instrument=greatest)], (days("ABC", (0, 1, greatest)),)
    )
    rows, _ = read(path)
    assert list(rows) == [ABC]


def test_day_of_a_symbol_is_that_of_receipt(tmp_path: Path) -> None:
    mappings = (days("ABC", (0, 1, 7)), days("DEF", (1, 2, 7)))
    records = [trade(DAY_NS, event_ns=MIDNIGHT_NS + DAY_NS - 1)]
    rows, _ = read(write_dbn(tmp_path / "x", records, mappings))
    assert [market.symbol for market in rows] == ["DEF"]


def test_an_instrument_with_two_names_at_once_is_two_markets(tmp_path: Path) -> None:
    mappings = (days("ES.c.0", (0, 2, 7)), days("ES.v.0", (1, 3, 7)))
    records = [trade(day * DAY_NS, (day + 1) * 10**9) for day in range(4)]
    path = write_dbn(tmp_path / "x", records, mappings, stype_in="continuous")
    rows, reader = read(path)
    prices = {market.symbol: [row[1] for row in found] for market, found in rows.items()}
    assert prices == {"ES.c.0": [1.0, 2.0], "ES.v.0": [2.0, 3.0]}
    assert reader.unmapped == 1


def test_files_that_were_asked_for_by_instrument_have_raw_symbols_in_their_intervals(
    tmp_path: Path,
) -> None:
    named = Mapping("7", (Interval(START, START + timedelta(days=1), "ABC"),))
    types: dict[str, Any] = {"stype_in": "instrument_id", "stype_out": "raw_symbol"}
    path = write_dbn(tmp_path / "x", [trade(0)], (named,), **types)
    rows, _ = read(path)
    assert list(rows) == [ABC]


@pytest.mark.parametrize("symbol", ["A/B", "../../etc/x", "..", "A B", ".hidden", "C:D\\E"])
def test_no_symbol_names_a_path_outside(tmp_path: Path, symbol: str) -> None:
    rows, _ = read(write_dbn(tmp_path / "x", [trade(0)], (days(symbol, (0, 1, 7)),)))
    (market,) = rows
    assert market.symbol == symbol
    out = tmp_path / "out"
    place = (out / f"{market.path}.bin").resolve()
    assert place.parent == out / "DATABENTO" / "XNAS.ITCH"


def test_unwanted_symbols_are_left_and_wanted_ones_keep_their_market(tmp_path: Path) -> None:
    mappings = (days("ABC", (0, 1, 7)), days("DEF", (0, 1, 8)))
    records = [trade(0, instrument=7), trade(1, instrument=8), trade(2, 0, instrument=8)]
    path = write_dbn(tmp_path / "x", records, mappings)
    mine = Market("MY", "OWN", "NAME")
    missing = Market("MY", "OWN", "MISSING")
    wanted = {"ABC": WantedMarket(mine), "GHI": WantedMarket(missing)}
    rows, reader = read(path, wanted=wanted)
    assert list(rows) == [mine]
    assert reader.unmapped == 0
    assert {m: (o.trades, o.rejected) for m, o in reader.outcomes.items()} == {
        mine: (1, ()),
        missing: (0, ()),
    }


def test_late_trades_are_those_an_earlier_run_has_not_seen(tmp_path: Path) -> None:
    seconds = (10, 20, 15, 30, 12, 40)
    records = [trade(s * 10**9, s * 10**9) for s in seconds]
    path = write_dbn(tmp_path / "x", records)
    head = describe_dbn(path).head_bytes
    seen = head + 3 * len(records[0])
    wanted = {"ABC": WantedMarket(ABC, from_ts=MIDNIGHT + 20_000, seen=seen)}
    rows, reader = read(path, wanted=wanted)
    assert [row[1] for row in rows[ABC]] == [20.0, 30.0, 40.0]
    outcome = reader.outcomes[ABC]
    assert (outcome.trades, outcome.late) == (3, 1)
    assert outcome.first_late_ts == MIDNIGHT + 12_000
    assert outcome.text_bytes == head + sum(map(len, records))


def test_a_run_that_begins_late_infers_the_same_sides(tmp_path: Path) -> None:
    prices = (5, 4, 4, 4, 6, 6)
    records = [trade(n * 10**9, p * 10**9, side=b"N") for n, p in enumerate(prices)]
    path = write_dbn(tmp_path / "x", records)
    whole, _ = read(path)
    wanted = {"ABC": WantedMarket(ABC, from_ts=MIDNIGHT + 2_000)}
    rows, _ = read(path, wanted=wanted)
    assert rows[ABC] == whole[ABC][2:]
    assert [row[3] for row in whole[ABC]] == [1, 0, 0, 0, 1, 1]


def test_live_session_tells_symbols_as_it_goes(tmp_path: Path) -> None:
    records = [
        trade(0, 10**9, instrument=7),
        record("system"),
        mapping(7, "ABC"),
        trade(1, 2 * 10**9, instrument=7),
        mapping(7, "DEF", "ES.c.0"),
        trade(2, 3 * 10**9, instrument=7),
        mapping(8, "8", "GHI"),
        trade(3, 4 * 10**9, instrument=8),
        record("bbo-1s", instrument_id=8, price=5),
    ]
    path = write_dbn(tmp_path / "x", records, (), schema=None, stype_in=None)
    rows, reader = read(path)
    prices = {market.symbol: [row[1] for row in found] for market, found in rows.items()}
    assert prices == {"ABC": [2.0], "DEF": [3.0], "GHI": [4.0]}
    assert reader.unmapped == 1
    told = describe_dbn(path)
    assert told.symbols == ["ABC", "DEF", "GHI"]
    assert told.intervals[7] == (
        SymbolInterval(None, None, "ABC"),
        SymbolInterval(None, None, "DEF"),
    )
    assert (told.schema, told.start_ts, told.end_ts) == (None, None, None)


def test_live_session_of_version_1(tmp_path: Path) -> None:
    records = [mapping(7, "ABC", kind="mapping-v1"), trade(0)]
    path = write_dbn(tmp_path / "x", records, (), schema=None, stype_in=None, version=1)
    rows, _ = read(path)
    assert list(rows) == [ABC]


def test_records_with_the_time_of_sending(tmp_path: Path) -> None:
    sent: dict[str, Any] = {"length": (48 + 8) // 4}
    records = [
        record("mapping", ts_out=True, instrument_id=7, stype_out_symbol=b"ABC"),
        trade(0, **sent) + bytes(8),
        trade(1_000_000, **sent) + bytes(8),
    ]
    path = write_dbn(tmp_path / "x", records, (), schema=None, stype_in=None, ts_out=True)
    rows, _ = read(path)
    assert [row[0] for row in rows[ABC]] == [MIDNIGHT, MIDNIGHT + 1]


def test_thousands_of_instruments_told_by_a_live_session(tmp_path: Path) -> None:
    records = []
    for number in range(3_000):
        records += [mapping(number * 977, f"S{number}"), trade(number, instrument=number * 977)]
    path = write_dbn(tmp_path / "x", records, (), schema=None, stype_in=None)
    rows, reader = read(path)
    assert {market.symbol for market in rows} == {f"S{number}" for number in range(3_000)}
    assert reader.unmapped == 0


def test_description_of_a_file(tmp_path: Path) -> None:
    told = describe_dbn(str(SAMPLES / "XNAS.ITCH.trades.dbn.zst"))
    assert (told.dataset, told.schema, told.version) == ("XNAS.ITCH", "trades", 3)
    assert (told.start_ts, told.end_ts) == (1_609_113_600_000, 1_609_200_000_000)
    assert told.symbols == ["NVDA"]
    assert told.has_trades
    assert told.timeframe is None
    assert list(told.intervals) == [6155]
    bars = describe_dbn(str(SAMPLES / "XNAS.ITCH.ohlcv-1m.dbn.zst"))
    assert not bars.has_trades
    assert bars.timeframe == MINUTE


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected a Databento file, which begins with b'DBN', found an empty file"),
        (b"DB", "found b'DB'"),
        (b"hello, world", "found b'hello, w'"),
        (b"DBN\x03\x10", "at byte 0: expected 8 bytes of a Databento file, found 5"),
        (b"DBN\x09" + bytes(200), "expected version 1, 2 or 3 of Databento's encoding, found 9"),
        (b"DBN\x00" + bytes(200), "expected version 1, 2 or 3 of Databento's encoding, found 0"),
        (b"DBN\x03\xff\xff\xff\xff", "expected metadata of at most 1073741824 bytes, found 42949"),
        (b"DBN\x03\x64\x00\x00\x00abc", "expected 100 bytes of metadata, found 3"),
        (b"DBN\x03\x64\x00\x00\x00" + b"\xff" * 100, "expected Databento metadata, found "),
        (b"\x28\xb5\x2f\xfd", "expected a Databento file, .* found cut off"),
    ],
)
def test_what_is_no_databento_file_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "x.dbn"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=message) as caught:
        describe_dbn(str(path))
    assert str(path) in str(caught.value)
    _, reader = read(path, wanted={"ABC": WantedMarket(ABC)})
    outcome = reader.outcomes[ABC]
    assert outcome.damage is not None
    assert (outcome.trades, outcome.error) == (0, None)


@pytest.mark.parametrize("cut", range(0, 360, 7))
def test_head_that_is_cut_off_anywhere_is_named(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "x.dbn"
    path.write_bytes(encode_head(ONE)[:cut])
    with pytest.raises(FormatError, match=str(path)):
        describe_dbn(str(path))


@given(st.lists(st.tuples(st.integers(8, 359), st.integers(0, 255)), min_size=1, max_size=4))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_head_with_other_bytes_is_read_or_named(
    tmp_path: Path, changes: list[tuple[int, int]]
) -> None:
    head = bytearray(encode_head(ONE))
    for place, value in changes:
        head[place] = value
    path = tmp_path / "x.dbn"
    path.write_bytes(bytes(head) + trade(0))
    try:
        describe_dbn(str(path))
    except FormatError as error:
        assert str(path) in str(error)  # noqa: PT017


def test_missing_file_and_folder_are_told_in_the_outcome(tmp_path: Path) -> None:
    wanted = {"ABC": WantedMarket(ABC)}
    _, reader = read(tmp_path / "none", wanted=wanted)
    outcome = reader.outcomes[ABC]
    assert (outcome.error, outcome.read_path, outcome.size) == ("missing", None, 0)
    _, reader = read(tmp_path, wanted=wanted)
    assert reader.outcomes[ABC].error == "not a file: a folder"


def test_file_of_other_records_has_no_trades(tmp_path: Path) -> None:
    _, reader = read(SAMPLES / "XNAS.ITCH.ohlcv-1m.dbn.zst", wanted={"NVDA": WantedMarket(ABC)})
    assert reader.outcomes[ABC].damage == "expected records of trades, found schema ohlcv-1m"


def test_size_and_time_of_the_file_are_in_the_outcome(tmp_path: Path) -> None:
    path = Path(write_dbn(tmp_path / "x", [trade(0)], compressed=True))
    _, reader = read(path)
    outcome = only(reader.outcomes)
    assert (outcome.path, outcome.read_path) == (str(path), str(path))
    assert (outcome.size, outcome.mtime_ns) == (path.stat().st_size, path.stat().st_mtime_ns)


def test_file_without_records(tmp_path: Path) -> None:
    for compressed in (False, True):
        path = write_dbn(tmp_path / "x", [], compressed=compressed)
        rows, reader = read(path)
        assert rows == {}
        assert (only(reader.outcomes).trades, only(reader.outcomes).damage) == (0, None)


def test_missing_library_is_named_with_the_way_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_dbn(tmp_path / "x", [trade(0)])
    monkeypatch.setitem(sys.modules, "databento_dbn", None)
    for act in (lambda: describe_dbn(path), lambda: list(DbnReader(path))):
        with pytest.raises(CandlebeamError, match=r"pip install 'candlebeam\[databento\]'"):
            act()


def test_reading_can_be_cancelled(tmp_path: Path) -> None:
    path = tmp_path / "x.dbn"
    write_dbn_trades(path, 2_000, instruments=1, seed=1, compressed=False)
    asked: list[int] = []

    def cancelled() -> bool:
        asked.append(1)
        return len(asked) == 3

    with small_pieces(piece=1 << 12), pytest.raises(Cancelled):
        read(path, cancelled=cancelled)
    assert not _readers()


@pytest.mark.parametrize("leave", ["close", "forget"])
def test_reading_that_is_left_leaves_no_thread(tmp_path: Path, leave: str) -> None:
    path = tmp_path / "x.dbn"
    write_dbn_trades(path, 5_000, instruments=1, seed=1, compressed=False)
    with small_pieces(piece=1 << 10):
        batches = iter(DbnReader(str(path), batch_trades=16))
        next(batches)
        assert _readers()
        if leave == "close":
            batches.close()  # type: ignore[attr-defined]
        del batches
    assert not _readers()


def _readers() -> Sequence[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "read-ahead"]


def test_error_of_the_reading_thread_is_raised(tmp_path: Path) -> None:
    path = write_dbn(tmp_path / "x", [trade(0)])
    known = mock.patch.object(dbn_records, "read_head", return_value=describe_dbn(path))
    broken = mock.patch.object(DbnStream, "readinto", side_effect=MemoryError("none left"))
    with known, broken, pytest.raises(MemoryError, match="none left"):
        read(path)
    assert not _readers()


@pytest.mark.parametrize("wrong", [0, 8, 24, 100_000])
def test_batches_of_an_odd_size_are_refused(wrong: int) -> None:
    with pytest.raises(ValueError, match="expected a power of two from 16 on"):
        DbnReader("x", batch_trades=wrong)
