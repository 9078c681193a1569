"""Databento files as sources of bars: ohlcv records, and trades as bars of one each."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from candlebeam.errors import FormatError
from candlebeam.formats.bar_source import BarSource
from candlebeam.formats.dbn import ahead as dbn_ahead
from candlebeam.formats.dbn import bars as dbn_bars
from candlebeam.formats.dbn import records as dbn_records
from candlebeam.formats.dbn.reader import DbnBars, iterate_dbn_bars, open_dbn_bars
from candlebeam.model import BAR_COLUMNS, Bars, Market, Timeframe
from tests.dbn_files import (
    MIDNIGHT_NS,
    SAMPLES,
    UNDEFINED_PRICE,
    UNDEFINED_SIZE,
    days,
    library_records,
    mapping,
    record,
    trade,
    write_dbn,
)

ABC = Market("DATABENTO", "XNAS.ITCH", "ABC")
MIDNIGHT = MIDNIGHT_NS // 10**6
MINUTE_NS = 60 * 10**9
NAN = float("nan")
Row = tuple[int, float, float, float, float, float]


def bar(
    minute: int, prices: tuple[int, int, int, int], volume: int = 1, *, instrument: int = 7
) -> bytes:
    """A bar of one minute; prices in units of 1e-9."""
    opened, high, low, close = prices
    return record(
        "ohlcv-1m",
        ts_event=MIDNIGHT_NS + minute * MINUTE_NS,
        open=opened,
        high=high,
        low=low,
        close=close,
        volume=volume,
        instrument_id=instrument,
    )


def rows_of(bars: Bars) -> list[Row]:
    columns = (getattr(bars, name).tolist() for name in BAR_COLUMNS)
    return list(zip(*columns, strict=True))


def all_of(source: BarSource, begin: int = 0) -> list[Row]:
    rows: list[Row] = []
    for piece in source.pieces(begin):
        assert len(piece.bars)
        assert piece.begin == begin + len(rows)
        rows += rows_of(piece.bars)
    return rows


def one(path: str | Path) -> DbnBars:
    (source,) = open_dbn_bars(str(path))
    return source


@pytest.mark.parametrize(
    ("name", "timeframe"),
    [
        ("EQUS.MINI.ohlcv-1s", "1s"),
        ("GLBX.MDP3.ohlcv-1s", "1s"),
        ("XNAS.ITCH.ohlcv-1m", "1m"),
        ("XNAS.ITCH.ohlcv-1s", "1s"),
    ],
)
def test_sample_bars_are_those_the_library_reads(name: str, timeframe: str) -> None:
    path = SAMPLES / f"{name}.dbn.zst"
    source = one(path)
    head, *records = library_records(path)
    assert source.market == Market("DATABENTO", head.dataset, head.symbols[0])
    assert source.timeframe == Timeframe.parse(timeframe)
    assert (source.path, source.record_bytes, source.closed) == (str(path), 1, None)
    expected = [
        (r.ts_event // 10**6, *(p / 10**9 for p in (r.open, r.high, r.low, r.close)), r.volume)
        for r in records
    ]
    assert len(expected) == 4
    assert all_of(source) == expected
    assert list(map(rows_of, dict(iterate_dbn_bars(str(path))).values())) == [expected]
    assert source.checksum(2) == zlib.crc32(path.read_bytes())
    assert (source.rejected, source.unmapped) == ((), 0)


def test_sample_trades_are_bars_of_one_trade_each() -> None:
    source = one(SAMPLES / "EQUS.MINI.trades.dbn.zst")
    assert source.timeframe is None
    assert all_of(source) == [
        (1_680_001_694_559, 307.83, 307.83, 307.83, 307.83, 900.0),
        (1_680_001_694_561, 307.8, 307.8, 307.8, 307.8, 900.0),
        (1_680_001_831_124, 307.97, 307.97, 307.97, 307.97, 700.0),
        (1_680_001_831_124, 307.97, 307.97, 307.97, 307.97, 200.0),
    ]


@pytest.mark.parametrize("schema", ["ohlcv-1s", "ohlcv-1m", "ohlcv-1h", "ohlcv-1d"])
@pytest.mark.parametrize("version", [1, 2, 3])
def test_every_length_of_bars_in_every_version(tmp_path: Path, schema: str, version: int) -> None:
    fields: dict[str, Any] = {
        "open": 2,
        "high": 3,
        "low": 1,
        "close": 2,
        "volume": 9,
        "instrument_id": 7,
    }
    path = write_dbn(
        tmp_path / "x",
        [record(schema, ts_event=MIDNIGHT_NS, **fields)],
        schema=schema,
        version=version,
        compressed=version == 2,
    )
    source = one(path)
    assert str(source.timeframe) == schema.removeprefix("ohlcv-")
    assert all_of(source) == [(MIDNIGHT, 2e-9, 3e-9, 1e-9, 2e-9, 9.0)]


def test_prices_of_zero_and_less_are_good(tmp_path: Path) -> None:
    path = write_dbn(tmp_path / "x", [bar(0, (0, 0, -37 * 10**9, -(10**9)))], schema="ohlcv-1m")
    assert all_of(one(path)) == [(MIDNIGHT, 0.0, 0.0, -37.0, -1.0, 1.0)]
    path = write_dbn(tmp_path / "y", [trade(0, -37_630_000_000), trade(1, 0)])
    assert [row[1] for row in all_of(one(path))] == [-37.63, 0.0]


def test_bar_with_an_undefined_price_is_a_gap_and_counted(tmp_path: Path) -> None:
    undefined = UNDEFINED_PRICE
    records = [
        bar(0, (1, 1, 1, 1)),
        bar(1, (undefined,) * 4, 0),
        bar(2, (1, 1, undefined, 1), 5),
        bar(3, (2, 2, 2, 2)),
    ]
    source = one(write_dbn(tmp_path / "x", records, schema="ohlcv-1m"))
    rows = all_of(source)
    np.testing.assert_equal(
        rows[1:3],
        [(MIDNIGHT + 60_000 * n, NAN, NAN, NAN, NAN, 0.0) for n in (1, 2)],
    )
    assert [row[1] for row in (rows[0], rows[3])] == [1e-9, 2e-9]
    assert source.rejected == (("price", 2),)


def test_trades_without_price_or_size_are_left_out_and_counted(tmp_path: Path) -> None:
    records = [
        trade(0, UNDEFINED_PRICE),
        trade(1, size=UNDEFINED_SIZE),
        trade(2, side=b"X"),
        trade(3, 2**63 - 2, 2**32 - 2),
        trade(4, instrument=9),
    ]
    source = one(write_dbn(tmp_path / "x", records))
    assert [row[1:] for row in all_of(source)] == [
        (9223372036.854776,) * 4 + (4294967294.0,),
    ]
    assert source.rejected == (("price", 1), ("size", 1), ("side", 1))
    assert source.unmapped == 1
    with pytest.raises(FormatError, match="expected symbols of its instruments, found 1 records"):
        list(iterate_dbn_bars(source.path))


@pytest.mark.parametrize("volume", [0, 2**53 + 1, 2**63 - 1, 2**63 + 1025, 2**64 - 1])
def test_volumes_are_the_nearest_float64(tmp_path: Path, volume: int) -> None:
    path = write_dbn(tmp_path / "x", [bar(0, (1, 1, 1, 1), volume)], schema="ohlcv-1m")
    assert all_of(one(path))[0][-1] == float(volume)


BARS = st.lists(
    st.tuples(st.integers(0, 50), st.integers(1, 3), st.integers(-5, 5), st.integers(0, 9)),
    max_size=60,
)


@given(BARS, st.integers(0, 70), st.booleans())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pieces_from_any_place_are_the_rest(
    tmp_path: Path, made: list[tuple[int, int, int, int]], begin: int, trades: bool
) -> None:
    mappings = (days("A", (0, 1, 1)), days("B", (0, 1, 2)), days("C", (0, 1, 3)))
    records = [
        trade(minute * MINUTE_NS, price, volume, instrument=number)
        if trades
        else bar(minute, (price, price, price, price), volume, instrument=number)
        for minute, number, price, volume in made
    ]
    schema = "trades" if trades else "ohlcv-1m"
    path = write_dbn(tmp_path / "x", records, mappings, schema=schema)
    with (
        mock.patch.object(dbn_ahead, "PIECE", 64),
        mock.patch.object(dbn_records, "_POOL_BYTES", 1 << 12),
        mock.patch.object(dbn_bars, "_PIECE_ROWS", 16),
    ):
        sources = open_dbn_bars(path)
        assert [source.market.symbol for source in sources] == ["A", "B", "C"]
        by_market: dict[str, list[Row]] = {}
        for market, bars in iterate_dbn_bars(path):
            by_market.setdefault(market.symbol, []).extend(rows_of(bars))
        for number, source in enumerate(sources, start=1):
            expected = [
                (MIDNIGHT + minute * 60_000, *(price / 10**9,) * 4, float(volume))
                for minute, its, price, volume in made
                if its == number
            ]
            assert all_of(source) == expected
            assert all_of(source, begin) == expected[begin:]
            assert by_market.get(source.market.symbol, []) == expected


def test_pieces_are_short(tmp_path: Path) -> None:
    path = write_dbn(tmp_path / "x", [trade(n) for n in range(70_000)])
    assert [len(piece.bars) for piece in one(path).pieces()] == [65_536, 70_000 - 65_536]


def test_damage_is_raised_behind_what_stands_before_it(tmp_path: Path) -> None:
    path = Path(write_dbn(tmp_path / "x", [trade(n) for n in range(3)]))
    path.write_bytes(path.read_bytes()[:-1])
    pieces = one(path).pieces()
    assert len(next(pieces).bars) == 2
    with pytest.raises(FormatError, match="found cut off: its last record has 47 bytes"):
        next(pieces)
    with pytest.raises(FormatError, match="expected a whole file"):
        list(iterate_dbn_bars(str(path)))


def test_files_without_bars_or_trades_are_refused(tmp_path: Path) -> None:
    path = write_dbn(tmp_path / "x", [], schema="definition")
    for act in (open_dbn_bars, lambda path: list(iterate_dbn_bars(path))):
        with pytest.raises(FormatError, match="expected records of trades or bars, found schema"):
            act(path)


def test_files_without_symbols_are_refused(tmp_path: Path) -> None:
    path = write_dbn(tmp_path / "x", [trade(0)], ())
    with pytest.raises(FormatError, match="expected symbols of its instruments, found none"):
        open_dbn_bars(path)


def test_live_session_gives_its_trades(tmp_path: Path) -> None:
    records = [mapping(7, "ABC"), trade(0), bar(0, (1, 1, 1, 1)), trade(1)]
    path = write_dbn(tmp_path / "x", records, (), schema=None, stype_in=None)
    source = one(path)
    assert (source.market, source.timeframe) == (ABC, None)
    assert len(all_of(source)) == 2
