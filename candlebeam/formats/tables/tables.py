"""Candles and bars as Arrow tables, and files of them: Parquet, and Arrow's own format.

Times are UTC. Prices of candle files are decimals, exactly as they are stored, and of one type for
every market, so that all of them can be read as one table. docs/formats.md has the columns.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from candlebeam.errors import RangeError, UsageError
from candlebeam.formats.candles.file import Candles
from candlebeam.formats.candles.records import RECORD_DTYPE
from candlebeam.model import BAR_COLUMNS, Bars, Int64Array
from candlebeam.rules.bar_gaps import without_gaps
from candlebeam.rules.price_scale import PRICE_FIELDS

if TYPE_CHECKING:
    import pyarrow as pa

#: Version of the columns and their types; stands in every file.
TABLE_VERSION = 1
#: Digits of all decimals, and decimals of prices and of volumes.
PRECISION = 38
PRICE_DECIMALS = 18
VOLUME_DECIMALS = 6
#: Rows of a row group or record batch.
GROUP_ROWS = 1 << 17

PARQUET = "parquet"
ARROW = "arrow"
#: The key of what a file says of itself.
METADATA_KEY = b"candlebeam"

_VOLUMES = ("buy_volume", "sell_volume")
_COUNTS = ("buy_count", "sell_count")
_LIQUIDATIONS = ("buy_liquidation", "sell_liquidation")
_WORDS = RECORD_DTYPE.itemsize // 8
_BUFFER = 1 << 20
_HALF = np.uint64(32)
_LOW_HALF = (1 << 32) - 1

Uint64Array = npt.NDArray[np.uint64]


def candle_schema() -> pa.Schema:
    """The columns of `candle_table`."""
    import pyarrow as pa

    price = pa.decimal128(PRECISION, PRICE_DECIMALS)
    volume = pa.decimal128(PRECISION, VOLUME_DECIMALS)
    return pa.schema(
        [
            _time_field(),
            *(pa.field(name, price) for name in PRICE_FIELDS),
            *(pa.field(name, volume, nullable=False) for name in _VOLUMES),
            *(pa.field(name, pa.uint32(), nullable=False) for name in _COUNTS),
            *(pa.field(name, volume, nullable=False) for name in _LIQUIDATIONS),
        ]
    )


def bar_schema() -> pa.Schema:
    """The columns of `bar_table`."""
    import pyarrow as pa

    numbers = (pa.field(name, pa.float64()) for name in BAR_COLUMNS[1:])
    return pa.schema([_time_field(), *numbers])


def _time_field() -> pa.Field:
    import pyarrow as pa

    return pa.field("time", pa.timestamp("ms", tz="UTC"), nullable=False)


def candle_table(
    candles: Candles, part: slice = slice(None), *, keep_gaps: bool = True
) -> pa.Table:
    """Candles as an Arrow table with exact prices and quote volumes.

    Columns: time (timestamp[ms, UTC]), open, high, low, close (decimal128(38, 18), null where there
    was no trade), buy_volume, sell_volume (decimal128(38, 6)), buy_count, sell_count (uint32),
    buy_liquidation, sell_liquidation (decimal128(38, 6)).

    Args:
        part: which of the candles.
        keep_gaps: whether candles in which nothing happened at all have rows.

    Raises:
        RangeError: the price scale asks for more decimals than a price has here.
    """
    import pyarrow as pa

    scale = candles.companion.scale
    # 10 digits of int32, and zeros.
    if not -(PRECISION - PRICE_DECIMALS - 10) <= scale.decimals <= PRICE_DECIMALS:
        raise RangeError(
            f"{candles.companion.market}: prices at a scale of {scale.value} do not fit in decimals"
            f" of {PRECISION} digits, {PRICE_DECIMALS} of them behind the point"
        )
    records = candles.records[part].view(RECORD_DTYPE, np.ndarray)
    begin, end, step = part.indices(len(candles))
    times: Int64Array = np.arange(begin, end, step, dtype=np.int64)
    times = candles.companion.start_ts + times * candles.companion.timeframe.ms
    if not keep_gaps:
        happened = records.view(np.int64).reshape(len(records), _WORDS).any(axis=1)
        records, times = records[happened], times[happened]
    priced = (records["buy_count"] | records["sell_count"] | records["high"].view("<u4")) != 0
    factor = 10 ** (PRICE_DECIMALS - scale.decimals)
    schema = candle_schema()
    columns = [pa.array(times, schema.field("time").type)]
    for field in schema.names[1:]:
        values = records[field]
        if field in _COUNTS:
            columns.append(pa.array(np.ascontiguousarray(values)))
        elif field in PRICE_FIELDS:
            columns.append(_decimals(values, factor, PRICE_DECIMALS, priced))
        else:
            columns.append(_decimals(values, 1, VOLUME_DECIMALS))
    return pa.table(columns, schema=schema)


def bar_table(bars: Bars, *, keep_gaps: bool = True) -> pa.Table:
    """Bars as an Arrow table.

    Columns: time (timestamp[ms, UTC]), open, high, low, close, volume (float64, null for NaN).

    Args:
        keep_gaps: whether bars without any price have rows.
    """
    import pyarrow as pa

    if not keep_gaps:
        bars = without_gaps(bars)
    schema = bar_schema()
    columns = [pa.array(bars.ts, schema.field("time").type)]
    columns += [pa.array(getattr(bars, name), from_pandas=True) for name in schema.names[1:]]
    return pa.table(columns, schema=schema)


def _decimals(
    values: npt.NDArray[Any], factor: int, decimals: int, valid: npt.NDArray[np.bool_] | None = None
) -> pa.Array:
    """Whole numbers times a factor as an array of decimals, without a float on the way.

    Args:
        values: integers; where the factor is not 1, of at most 32 bits.
        factor: below 2^95.
        valid: which of them are no nulls; all by default.
    """
    import pyarrow as pa

    words = np.empty((len(values), 2), np.uint64)
    wide: Int64Array = values.astype(np.int64)
    if factor == 1:
        words[:, 0] = wide.view(np.uint64)
        words[:, 1] = (wide >> 63).view(np.uint64)
    else:
        words[:, 0], words[:, 1] = _product(wide, factor)
    nulls = None
    if valid is not None and not valid.all():
        nulls = pa.py_buffer(np.packbits(valid, bitorder="little"))
    buffers = [nulls, pa.py_buffer(words)]
    return pa.Array.from_buffers(pa.decimal128(PRECISION, decimals), len(values), buffers)


def _product(values: Int64Array, factor: int) -> tuple[Uint64Array, Uint64Array]:
    """The lower and upper 64 bits of products, in two's complement."""
    sizes = np.abs(values).astype(np.uint64)
    first, second, third = (sizes * np.uint64(factor >> shift & _LOW_HALF) for shift in (0, 32, 64))
    lower = first + (second << _HALF)
    upper = (second >> _HALF) + third + (lower < first)
    negative = values < 0
    lower = np.where(negative, ~lower + np.uint64(1), lower)
    upper = np.where(negative, ~upper + (lower == 0), upper)
    return lower, upper


class _Binary(io.RawIOBase):
    """A file that is written by a function, until it is given up."""

    def __init__(self, write: Callable[[memoryview], object]) -> None:
        super().__init__()
        self._write: Callable[[memoryview], object] | None = write

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data)
        if self._write is not None:
            self._write(view)
        return view.nbytes

    def give_up(self) -> None:
        self._write = None


class _Writer(Protocol):
    def write_table(self, table: pa.Table) -> None: ...
    def close(self) -> None: ...


class TableFile:
    """A Parquet or Arrow file that is written piece by piece; a context manager.

    Parquet is compressed with zstd and says for each row group what lies in it; Arrow's format is
    neither compressed nor otherwise changed, so that it can be mapped. Equal tables give equal
    bytes, however they are cut into pieces.

    Args:
        write: takes the bytes of the file, in order.
        form: "parquet" or "arrow".
        schema: the columns.
        metadata: what the file says of itself; see `METADATA_KEY`.
    """

    def __init__(
        self,
        write: Callable[[memoryview], object],
        form: str,
        schema: pa.Schema,
        metadata: Mapping[str, Any],
    ) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        said = {METADATA_KEY: json.dumps({"version": TABLE_VERSION, **metadata}).encode()}
        self._schema = schema.with_metadata(said)
        self._waiting: list[pa.Table] = []
        self._rows = 0
        if form not in (PARQUET, ARROW):
            raise UsageError(f"format {form!r}: expected {PARQUET} or {ARROW}")
        self._binary = _Binary(write)
        self._file = io.BufferedWriter(self._binary, _BUFFER)
        self._writer: _Writer = (
            pa.ipc.new_file(self._file, self._schema)
            if form == ARROW
            else pq.ParquetWriter(
                self._file,
                self._schema,
                compression="zstd",
                # Prices and volumes hardly repeat: with dictionaries files take longer, and more.
                use_dictionary=False,
                sorting_columns=[pq.SortingColumn(0)],
            )
        )

    def __enter__(self) -> TableFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._give_up()

    def _give_up(self) -> None:
        """Closes what is open. That wants to write, but nobody will read it."""
        import pyarrow as pa

        self._binary.give_up()
        with contextlib.suppress(pa.ArrowException, OSError, ValueError):
            self._writer.close()
        self._file.close()

    def write(self, table: pa.Table) -> None:
        """Adds rows."""
        import pyarrow as pa

        self._waiting.append(table)
        self._rows += len(table)
        if self._rows < GROUP_ROWS:
            return
        joined = pa.concat_tables(self._waiting)
        whole = self._rows // GROUP_ROWS * GROUP_ROWS
        for begin in range(0, whole, GROUP_ROWS):
            self._write_group(joined.slice(begin, GROUP_ROWS))
        self._waiting = [joined.slice(whole)]
        self._rows -= whole

    def close(self) -> None:
        """Writes what is left and ends the file."""
        import pyarrow as pa

        try:
            if self._rows:
                self._write_group(pa.concat_tables(self._waiting))
            self._waiting, self._rows = [], 0
            self._writer.close()
            self._file.close()
        except BaseException:
            self._give_up()
            raise

    def _write_group(self, table: pa.Table) -> None:
        # In one piece, so that the bytes do not tell how it came.
        self._writer.write_table(table.cast(self._schema).combine_chunks())
