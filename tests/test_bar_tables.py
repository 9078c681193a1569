"""Candles and bars as Arrow tables: exact decimals, times, nulls; and files of them."""

from __future__ import annotations

import io
import json
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlebeam.errors import RangeError, UsageError
from candlebeam.formats.candles.file import Candles
from candlebeam.formats.candles.records import RECORD_DTYPE
from candlebeam.formats.tables import tables as bar_tables
from candlebeam.formats.tables.tables import (
    ARROW,
    METADATA_KEY,
    PARQUET,
    TableFile,
    bar_schema,
    bar_table,
    candle_schema,
    candle_table,
)
from candlebeam.model import BAR_COLUMNS, Bars, Records
from candlebeam.rules.price_scale import PriceScale
from tests.candle_pairs import SCALE, companion_of
from tests.trade_batches import MIDNIGHT

INT32, INT64 = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)
UINT32 = st.integers(0, 2**32 - 1)
RECORD = st.tuples(*[INT32] * 4, *[INT64] * 2, *[UINT32] * 2, *[INT64] * 2)
#: A gap, liquidations alone, a price that is 0 at its scale, and anything.
RECORDS = st.lists(
    st.sampled_from([(0,) * 10, (0,) * 8 + (5, 0), (0, 0, 0, 0, 7, 0, 1, 0, 0, 0)]) | RECORD,
    max_size=8,
)
PRICES = ("open", "high", "low", "close")


def candles_of(rows: list[tuple[int, ...]], scale: PriceScale = SCALE) -> Candles:
    records = np.array(rows, RECORD_DTYPE) if rows else np.zeros(0, RECORD_DTYPE)
    return Candles(companion_of(len(rows), scale), records.view(np.recarray))


def row_of(record: Records, place: int, scale: PriceScale) -> dict[str, Any]:
    """A row of the table by a naive reading of the rules."""
    named = {name: int(record[name]) for name in RECORD_DTYPE.names or ()}
    has_price = named["buy_count"] or named["sell_count"] or named["high"]
    row: dict[str, Any] = {"time": np.datetime64(MIDNIGHT + place * 60_000, "ms").item()}
    for name, value in named.items():
        if name in PRICES:
            row[name] = Decimal(value).scaleb(-scale.decimals) if has_price else None
        else:
            row[name] = value if name.endswith("count") else Decimal(value).scaleb(-6)
    return row


def plain(table: pa.Table) -> list[dict[str, Any]]:
    rows = table.to_pylist()
    return [{**row, "time": row["time"].replace(tzinfo=None)} for row in rows]


@given(RECORDS, st.integers(-10, 18).map(PriceScale), st.booleans())
def test_candle_table_is_exact(
    rows: list[tuple[int, ...]], scale: PriceScale, keep_gaps: bool
) -> None:
    candles = candles_of(rows, scale)
    table = candle_table(candles, keep_gaps=keep_gaps)
    table.validate(full=True)
    assert table.schema == candle_schema()
    assert plain(table) == [
        row_of(record, place, scale)
        for place, record in enumerate(candles.records.view(RECORD_DTYPE, np.ndarray))
        if keep_gaps or any(rows[place])
    ]


def test_columns_of_candles() -> None:
    price, volume = pa.decimal128(38, 18), pa.decimal128(38, 6)
    assert candle_schema().types == [
        pa.timestamp("ms", tz="UTC"), price, price, price, price, volume, volume,
        pa.uint32(), pa.uint32(), volume, volume,
    ]  # fmt: skip
    assert candle_schema().names == ["time", *(RECORD_DTYPE.names or ())]


def test_part_of_candles() -> None:
    candles = candles_of([(n,) * 10 for n in range(1, 9)])
    whole = candle_table(candles)
    assert candle_table(candles, slice(2, 5)).equals(whole.slice(2, 3))


@pytest.mark.parametrize("decimals", [19, 300, -11, -300])
def test_price_scale_that_decimals_cannot_hold_is_refused(decimals: int) -> None:
    with pytest.raises(
        RangeError, match=r"RAM/BINANCE/btcusdt: prices at a scale of .* do not fit"
    ):
        candle_table(candles_of([(1,) * 10], PriceScale(decimals)))


FLOATS = st.floats(allow_nan=True, allow_infinity=False)


@given(st.lists(st.tuples(st.integers(-(2**50), 2**50), *[FLOATS] * 5), max_size=8), st.booleans())
def test_bar_table_has_the_bars(rows: list[tuple[float, ...]], keep_gaps: bool) -> None:
    columns = list(zip(*rows, strict=True)) or [()] * 6
    bars = Bars(np.array(columns[0], np.int64), *(np.array(c, np.float64) for c in columns[1:]))
    table = bar_table(bars, keep_gaps=keep_gaps)
    table.validate(full=True)
    assert table.schema == bar_schema()
    expected = [row for row in rows if keep_gaps or not all(np.isnan(row[1:5]))]
    assert table["time"].cast(pa.int64()).to_pylist() == [row[0] for row in expected]
    for place, name in enumerate(BAR_COLUMNS[1:], 1):
        assert table[name].to_pylist() == [
            None if np.isnan(row[place]) else row[place] for row in expected
        ]


def written(form: str, tables: list[pa.Table]) -> bytes:
    data = bytearray()
    with TableFile(data.extend, form, bar_schema(), {"market": "x"}) as file:
        for table in tables:
            file.write(table)
    return bytes(data)


def read(form: str, data: bytes) -> pa.Table:
    source = io.BytesIO(data)
    return pq.read_table(source) if form == PARQUET else pa.ipc.open_file(source).read_all()


def some_bars(count: int) -> pa.Table:
    prices = np.random.default_rng(1).random((5, count))
    prices[:4, : count // 3] = np.nan
    return bar_table(Bars(MIDNIGHT + np.arange(count) * 1_000, *prices))


@pytest.mark.parametrize("form", [PARQUET, ARROW])
def test_file_reads_back_and_pieces_make_no_difference(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bar_tables, "GROUP_ROWS", 100)
    table = some_bars(1_050)
    data = written(form, [table])
    assert read(form, data).equals(table)
    for cuts in ([0, 1, 1_050], [0, 99, 100, 101, 350, 350, 1_049, 1_050], range(1_051)):
        parts = [table.slice(begin, end - begin) for begin, end in pairwise(cuts)]
        assert written(form, parts) == data
    assert read(form, written(form, [])).equals(table.slice(0, 0))


def test_parquet_is_compressed_sorted_and_says_what_lies_where(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bar_tables, "GROUP_ROWS", 100)
    found = pq.read_metadata(io.BytesIO(written(PARQUET, [some_bars(250)])))
    assert [found.row_group(n).num_rows for n in range(found.num_row_groups)] == [100, 100, 50]
    column = found.row_group(1).column(0)
    assert column.compression == "ZSTD"
    assert column.statistics.min.timestamp() * 1_000 == MIDNIGHT + 100_000
    assert found.row_group(1).sorting_columns == (pq.SortingColumn(0),)
    assert json.loads(found.metadata[METADATA_KEY]) == {"version": 1, "market": "x"}


def test_arrow_is_mapped_without_a_copy(tmp_path: Path) -> None:
    path = tmp_path / "bars.arrow"
    path.write_bytes(written(ARROW, [some_bars(5_000)]))
    with pa.memory_map(str(path)) as source:
        before = pa.total_allocated_bytes()
        table = pa.ipc.open_file(source).read_all()
        assert pa.total_allocated_bytes() == before
        assert table.equals(some_bars(5_000))
        del table
    assert json.loads(pa.ipc.open_file(path).schema.metadata[METADATA_KEY])["market"] == "x"


@pytest.mark.parametrize("form", [PARQUET, ARROW])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_failure_to_write_is_raised_and_nothing_more_is_written(form: str, at: int) -> None:
    calls: list[int] = []

    def write(data: memoryview) -> None:
        calls.append(len(data))
        raise OSError(28, "disk full")

    file = TableFile(write, form, bar_schema(), {})
    table = pa.concat_tables([some_bars(100_000)] * at) if at else some_bars(0)
    with pytest.raises(OSError, match="disk full"), file:
        file.write(table)
    assert len(calls) == 1


def test_other_format_is_refused() -> None:
    with pytest.raises(UsageError, match="format 'orc': expected parquet or arrow"):
        TableFile(print, "orc", bar_schema(), {})
