"""Every format of the project as a codec: values, their bytes, and how these are read.

`test_codecs` holds all of them against the same promises.
"""

from __future__ import annotations

import datetime
import gzip
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import databento_dbn
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from hypothesis import strategies as st

from candlebeam.errors import CandlebeamError, FormatError
from candlebeam.formats.agg2.index import DATA_NAME, INDEX_NAME
from candlebeam.formats.agg2.reader import (
    AGG2_ROW_DTYPE,
    Agg2Reader,
    IndexRow,
    encode_day,
    parse_index,
)
from candlebeam.formats.aligned.file import ALIGNED_DTYPE, open_aligned
from candlebeam.formats.aligned.state import (
    AlignedIndex,
    AlignedJournal,
    AlignedPaths,
    Sidecar,
    SourceState,
)
from candlebeam.formats.candles.companion import Companion, InputState, Journal, ResumeState
from candlebeam.formats.candles.file import open_candles
from candlebeam.formats.candles.records import RECORD_DTYPE
from candlebeam.formats.chunk_file import encode_chunk, open_chunk
from candlebeam.formats.csv.bars import CsvBars, encode_csv
from candlebeam.formats.dbn.reader import DbnReader, iterate_dbn_bars, open_dbn_bars
from candlebeam.formats.fetched_file import Fetched, read_fetched
from candlebeam.formats.tables.state import ExportedMonth, ExportState
from candlebeam.formats.tables.tables import ARROW, PARQUET, TableFile, bar_schema, bar_table
from candlebeam.formats.trade_log.reader import TradeLogReader
from candlebeam.io.coders import (
    BarsCoder,
    CandleBlockCoder,
    ChunkRefCoder,
    MarketCoder,
    MarketOutcomeCoder,
    ShardRefCoder,
    TradeBatchCoder,
)
from candlebeam.io.staging import ChunkRef, ShardRef, Staging, list_shards, read_shard, read_task
from candlebeam.model import (
    BLOCK_DTYPE,
    CandleBlock,
    FileOutcome,
    InputFile,
    Market,
    Timeframe,
    TradeBatch,
)
from candlebeam.outcome import MarketOutcome
from candlebeam.plan import MarketTask
from candlebeam.rules.price_scale import PriceScale, PriceState
from candlebeam.settings import CandleSettings
from candlebeam.shards import Shard
from tests.bar_rows import bars_from, rows_of_bars
from tests.candle_pairs import companion_of, some_records
from tests.staged_shards import text_of
from tests.trade_batches import MARKET, MIDNIGHT, MINUTE, ROWS, Row, batch, rows_of


class Told(CandlebeamError):
    """What a reader that does not raise says of a file: damage, and all that it has read before."""

    def __init__(self, path: str, damage: str, rows: list[Any] | None = None) -> None:
        super().__init__(f"{path}: {damage}")
        self.rows = rows


def refused(_found: Any, _value: Any) -> bool:
    """No part of the bytes is anything."""
    return False


def nothing_more(_more: bytes) -> bool:
    """No bytes behind the end are passed over."""
    return False


def zeros(more: bytes) -> bool:
    """Zeros behind the end are passed over, as gzip files may be padded with them."""
    return not any(more)


def anything(_more: bytes) -> bool:
    """Whatever stands behind the end is passed over, since something else says where that is."""
    return True


def prefix(found: Any, value: Any) -> bool:
    """Part of the bytes is part of the values, from the front."""
    return bool(found == value[: len(found)])


@dataclass(frozen=True)
class Codec:
    """A format.

    Attributes:
        name: for messages.
        values: values that compare with `==`.
        sample: one of them, with something of everything.
        encode: a value as bytes.
        decode: reads the bytes, which it may put into the folder, and gives the value. It is told
            the value, for what stands in other files.
        cut: whether a result may come of bytes whose end is missing; given it and the whole value.
        tail: whether certain bytes behind the end are passed over.
        checked: whether any change of a byte is noticed.
        bare: whether there is nothing by which the format is told from another.
        like: the name of another codec whose bytes are these as well, if written otherwise.
        named: whether errors name the file.
        errors: what damage may raise: other errors only where another program's reader reads.
        flipped: whether damaged bytes are to be tried.
    """

    name: str
    values: st.SearchStrategy[Any]
    sample: Any
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes, Path, Any], Any]
    cut: Callable[[Any, Any], bool] = refused
    tail: Callable[[bytes], bool] = nothing_more
    checked: bool = False
    bare: bool = False
    like: str = ""
    named: bool = True
    errors: tuple[type[Exception], ...] = (CandlebeamError,)
    flipped: bool = True

    def __repr__(self) -> str:
        return self.name


def put(folder: Path, name: str, data: bytes) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(path)


TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
PATH = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)
NAME = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=6)
MARKETS = st.builds(Market, TEXT, TEXT, TEXT)
SMALL = st.integers(0, 2**40)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SETTINGS = st.builds(
    CandleSettings,
    timeframe=st.sampled_from([MINUTE, Timeframe.parse("1h")]),
    liquidations=st.sampled_from(["separate", "included"]),
    price_scale=st.none() | st.builds(PriceScale, st.integers(-4, 9)),
    snap=st.booleans(),
)

# Candle files

INPUTS = st.builds(InputState, TEXT, TEXT, TEXT, SMALL, SMALL)
RESUME_STATES = st.builds(
    ResumeState,
    settings=SETTINGS,
    inputs=st.lists(INPUTS, min_size=1, max_size=2).map(tuple),
    covered=st.integers(2, 99),
    skipped=st.lists(st.tuples(TEXT, TEXT), max_size=2).map(tuple),
    late_trades=SMALL,
    tail=st.just(b"") | st.binary(min_size=BLOCK_DTYPE.itemsize, max_size=BLOCK_DTYPE.itemsize),
    prices=st.builds(PriceState, st.integers(4, 12), st.floats(0, 1e12)),
    exact=st.booleans(),
)
COMPANIONS = st.builds(
    companion_of,
    st.integers(1, 9),
    st.builds(PriceScale, st.integers(-4, 9)),
    st.none() | RESUME_STATES,
    MARKETS,
)


def journals(companion: Companion) -> st.SearchStrategy[Journal]:
    tail = st.binary(min_size=56, max_size=56)
    placed = st.builds(Journal, st.just(companion), tail, st.integers(0, companion.size - 56))
    return placed | st.just(Journal(companion, replaces=True))


def read_candles(data: bytes, folder: Path, value: bytes) -> bytes:
    companion = companion_of(len(value) // RECORD_DTYPE.itemsize)
    put(folder, "x.json", companion.encode())
    return open_candles(put(folder, "x.bin", data)).records.tobytes()


# Chunks, manifests, outcomes

FILES = st.builds(
    FileOutcome,
    path=TEXT,
    read_path=st.none() | TEXT,
    size=SMALL,
    mtime_ns=SMALL,
    text_bytes=SMALL,
    trades=st.integers(0, 2**30),
    rejected=st.lists(st.tuples(TEXT, st.integers(1, 99)), max_size=2).map(tuple),
    damage=st.none() | TEXT,
    length=st.none() | SMALL,
    notes=st.lists(TEXT, max_size=2).map(tuple),
)
CHUNKS = st.tuples(
    st.lists(FILES, max_size=2).map(tuple),
    st.integers(0, 3).flatmap(lambda n: st.binary(min_size=104 * n, max_size=104 * n)),
)


def encode_chunk_of(value: tuple[tuple[FileOutcome, ...], bytes]) -> bytes:
    files, candles = value
    return encode_chunk(files, np.frombuffer(candles, BLOCK_DTYPE))


def read_chunk(data: bytes, folder: Path, _: Any) -> Any:
    chunk = open_chunk(put(folder, "chunk", data))
    return chunk.files, chunk.read(0, chunk.length).tobytes()


@st.composite
def planned(draw: st.DrawFn) -> tuple[MarketTask, tuple[Shard, ...]]:
    market = draw(MARKETS)
    files = st.lists(st.builds(InputFile, PATH, SMALL, SMALL), min_size=1, max_size=2).map(tuple)
    shards = tuple(
        Shard(market, ordinal, draw(files), draw(st.none() | SMALL), draw(TEXT))
        for ordinal in range(draw(st.integers(1, 3)))
    )
    return task_of(market, shards, draw(TEXT)), shards


def task_of(market: Market, shards: tuple[Shard, ...], note: str) -> MarketTask:
    return MarketTask(
        market, len(shards), MIDNIGHT, 0, (("root", "path"),), 3, b"{}", (("a", "b"),), (note,)
    )


def encode_plan(value: list[tuple[MarketTask, tuple[Shard, ...]]]) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        staging = Staging(folder)
        staging.prepare()
        writer = staging.write_plan()
        for task, shards in value:
            writer.add(task, shards)
        (path,) = writer.close()
        return Path(path).read_bytes()


def read_plan(data: bytes, folder: Path, _: Any) -> Any:
    found: dict[Market, tuple[MarketTask, list[Shard]]] = {}
    for ref in list_shards(put(folder, "manifest", data)):
        shard = read_shard(ref)
        found.setdefault(shard.market, (read_task(ref), []))[1].append(shard)
    return [(task, tuple(shards)) for task, shards in found.values()]


OUTCOMES = st.builds(
    MarketOutcome,
    market=st.just(str(MARKET)),
    status=TEXT,
    error=st.none() | TEXT,
    notes=st.lists(TEXT, max_size=2),
    trades=SMALL,
    rejected=st.dictionaries(TEXT, SMALL, max_size=2),
    damaged=st.lists(st.fixed_dictionaries({"path": TEXT, "damage": TEXT}), max_size=2),
    missing=st.lists(TEXT, max_size=2),
    rebuilt=st.booleans(),
)


def read_outcome(data: bytes, folder: Path, _: Any) -> Any:
    staging = Staging(str(folder))
    staging.prepare()
    staging.write_outcome(MARKET, MarketOutcome("x"))
    (path,) = (folder / "outcomes").iterdir()
    path.write_bytes(data)
    return staging.read_outcome(MARKET)


# Bars

BAR_ROWS = st.dictionaries(
    st.integers(0, 10**6), st.tuples(FLOATS, FLOATS, FLOATS, FLOATS, FLOATS), max_size=5
).map(lambda bars: [(MIDNIGHT + 60_000 * n, *bars[n]) for n in sorted(bars)])
SOME_BARS: list[Any] = [(MIDNIGHT + n * 60_000, n + 0.1, n + 0.5, 1e-7, -n, 1e6) for n in range(5)]


def encode_aligned(value: list[Any]) -> bytes:
    records = np.zeros(len(value), ALIGNED_DTYPE)
    for place, (ts, *numbers) in enumerate(value):
        records[place] = ts, numbers, (0, 0)
    return records.tobytes()


def read_aligned(data: bytes, folder: Path, value: list[Any]) -> Any:
    paths = AlignedPaths.of(str(folder), "1m", "x")
    put(folder, "1m/index/x.idx", AlignedIndex(20240301, 0, 64 * len(value)).encode())
    bars = open_aligned(put(folder, os.path.relpath(paths.records, folder), data))
    return [(int(r["ts"]), *r["ohlcv"].tolist()) for r in bars.records]


def read_csv(data: bytes, folder: Path, _: Any) -> Any:
    source = CsvBars((put(folder, "x.csv", data),))
    return [row for piece in source.pieces() for row in rows_of_bars(piece.bars)]


def table_codec(form: str, read: Callable[[str], pa.Table]) -> Codec:
    def encode(value: list[Any]) -> bytes:
        data = bytearray()
        with TableFile(data.extend, form, bar_schema(), {"market": "x"}) as file:
            file.write(bar_table(bars_from(value)))
        return bytes(data)

    def decode(data: bytes, folder: Path, _: Any) -> Any:
        table = read(put(folder, f"bars.{form}", data))
        columns = [table[name].to_pylist() for name in table.column_names[1:]]
        return list(zip(table["time"].cast(pa.int64()).to_pylist(), *columns, strict=True))

    # Read by pyarrow, which does not name the file, and of which nothing is promised here but that
    # it finds files that are cut off.
    return Codec(
        form, BAR_ROWS, SOME_BARS, encode, decode,
        named=False, errors=(pa.ArrowException, OSError), flipped=False,
    )  # fmt: skip


def read_arrow(path: str) -> pa.Table:
    with pa.OSFile(path) as file:
        return pa.ipc.open_file(file).read_all()


# Trades

LOGGED = st.lists(ROWS.map(lambda row: row._replace(trades=1)), max_size=5)
SOME_ROWS = [Row(MIDNIGHT + n, 39_432.48 + n, 0.5, n % 2, int(n == 2)) for n in range(4)]


def read_log(data: bytes, folder: Path, _: Any) -> Any:
    path = put(folder, "2024-03-01.gz", data)
    reader = TradeLogReader(MARKET, [InputFile(path, len(data))])
    rows = [row for part in reader for row in rows_of(part)]
    (outcome,) = reader.outcomes
    problem = outcome.damage or outcome.error or str(dict(outcome.rejected) or "")
    if problem:
        raise Told(path, problem, rows)
    return rows


DAY = 1  # of MIDNIGHT
AGG_ROW = st.tuples(
    st.integers(1, 2**40), st.integers(1, 10**6).map(lambda n: n * 10**6),
    st.integers(1, 10**6).map(lambda n: n * 10**6), st.integers(0, 2**40), st.integers(1, 9),
    st.integers(0, 1), st.integers(MIDNIGHT, MIDNIGHT + 86_399_999),
)  # fmt: skip
AGG_ROWS = st.lists(AGG_ROW, min_size=1, max_size=5, unique_by=lambda row: row[0])


def encode_agg2(value: list[Any]) -> bytes:
    rows = np.zeros(len(value), AGG2_ROW_DTYPE)
    for place, row in enumerate(value):
        rows[place] = (*row, 1 - row[5], b"\0" * 3)
    return zstandard.ZstdCompressor(write_checksum=True).compress(encode_day(rows, DAY))


def read_agg2(data: bytes, folder: Path, value: list[Any]) -> Any:
    put(folder, f"x/2024/03/{DATA_NAME}", data)
    row = IndexRow(DAY, 0, len(encode_agg2(value)))
    put(folder, f"x/2024/03/{INDEX_NAME}", row.encode())
    reader = Agg2Reader(MARKET, [InputFile(str(folder / f"x/2024/03/{DAY:02d}"), 0)])
    rows = [row for part in reader for row in rows_of(part)]
    (outcome,) = reader.outcomes
    found = [agg2_trade(row) for row in value]
    known: list[Any] = value[: len(rows)] if rows == found[: len(rows)] else rows
    problem = outcome.damage or outcome.error or str(dict(outcome.rejected) or "")
    if problem:
        raise Told(outcome.path, problem, known)
    return known


def agg2_trade(row: Any) -> Row:
    _, px, qty, _, count, flags, ts = row
    return Row(ts, px / 10**8, qty / 10**8, 1 - flags, 0, count)


INDEX_ROWS = st.lists(
    st.builds(IndexRow, st.integers(1, 31), SMALL, SMALL, checksum=st.none()),
    max_size=4,
)


def read_agg2_index(data: bytes, folder: Path, _: Any) -> Any:
    path = str(folder / "index.quantdev")
    index = parse_index(data, path)
    if index.damage is not None:
        raise Told(path, index.damage, index.rows)
    return index.rows


# Databento

DBN_NUMBER = st.integers(1, 10**6).map(lambda n: n * 10_000_000)
DBN_BARS = st.dictionaries(
    st.integers(0, 86_399),
    st.tuples(DBN_NUMBER, DBN_NUMBER, DBN_NUMBER, DBN_NUMBER, st.integers(0, 2**40)),
    min_size=1, max_size=4,
).map(lambda bars: [(MIDNIGHT + 1_000 * n, *bars[n]) for n in sorted(bars)])  # fmt: skip
DBN_TRADES = st.lists(
    st.tuples(
        st.integers(MIDNIGHT, MIDNIGHT + 86_399_999), DBN_NUMBER, st.integers(1, 2**20),
        st.integers(0, 1),
    ),
    min_size=1, max_size=4,
)  # fmt: skip


class _Mapping:
    def __init__(self, symbol: str, *intervals: Any) -> None:
        self.raw_symbol, self.intervals = symbol, intervals


class _Interval:
    start_date, end_date = datetime.date(2024, 3, 1), datetime.date(2024, 3, 2)
    symbol = "7"


def encode_dbn(schema: str, records: list[Any]) -> bytes:
    metadata = databento_dbn.Metadata(
        dataset="XNAS.ITCH", start=MIDNIGHT * 1_000_000, stype_in=databento_dbn.SType.RAW_SYMBOL,
        stype_out=databento_dbn.SType.INSTRUMENT_ID, schema=databento_dbn.Schema.from_str(schema),
        symbols=["SPY"], partial=[], not_found=[], mappings=[_Mapping("SPY", _Interval())],
        end=(MIDNIGHT + 86_400_000) * 1_000_000,
    )  # fmt: skip
    data = bytes(metadata) + b"".join(bytes(record) for record in records)
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


def encode_dbn_bars(value: list[Any]) -> bytes:
    return encode_dbn(
        "ohlcv-1s",
        [
            databento_dbn.OHLCVMsg(
                rtype=32, publisher_id=2, instrument_id=7, ts_event=ts * 1_000_000,
                open=o, high=h, low=low, close=c, volume=v,
            )
            for ts, o, h, low, c, v in value
        ],
    )  # fmt: skip


def read_dbn_bars(data: bytes, folder: Path, _: Any) -> Any:
    path = put(folder, "x.dbn.zst", data)
    rows: list[Any] = []
    try:
        if open_dbn_bars(path)[0].timeframe is None:
            raise Told(path, "trades")
        for _market, bars in iterate_dbn_bars(path):
            rows += [
                (ts, *(round(price * 1e9) for price in prices), int(volume))
                for ts, *prices, volume in rows_of_bars(bars)
            ]
    except FormatError as error:
        raise Told(path, str(error), rows) from None
    return rows


def encode_dbn_trades(value: list[Any]) -> bytes:
    side = {1: databento_dbn.Side.BID, 0: databento_dbn.Side.ASK}
    return encode_dbn(
        "trades",
        [
            databento_dbn.TradeMsg(
                publisher_id=2, instrument_id=7, ts_event=ts * 1_000_000, price=price, size=size,
                action=databento_dbn.Action.TRADE, side=side[buy], depth=0,
                ts_recv=ts * 1_000_000 + 999_999,
            )
            for ts, price, size, buy in value
        ],
    )  # fmt: skip


def read_dbn_trades(data: bytes, folder: Path, _: Any) -> Any:
    path = put(folder, "x.dbn.zst", data)
    reader = DbnReader(path)
    rows = [
        (row.ts, round(row.price * 1e9), int(row.size), row.buy)
        for part in reader
        for row in rows_of(part)
    ]
    for outcome in reader.outcomes.values():
        problem = outcome.damage or outcome.error or str(dict(outcome.rejected) or "")
        if problem:
            raise Told(path, problem, rows)
    if not reader.outcomes:
        raise Told(path, "nothing is known of it")
    return rows


# What says how far something has come

INDEXES = st.builds(AlignedIndex, st.integers(0, 2**31 - 1), SMALL, SMALL)
SIDECARS = st.builds(
    Sidecar,
    TEXT,
    st.dictionaries(TEXT, TEXT | st.integers(), max_size=2),
    st.lists(st.builds(SourceState, SMALL, SMALL, SMALL), max_size=2).map(tuple),
)
FETCHED = st.builds(
    Fetched, TEXT, TEXT, TEXT, TEXT, SMALL, SMALL, SMALL, st.just(4), st.none() | SMALL
)
MONTHS = st.builds(ExportedMonth, SMALL, st.none() | SMALL, SMALL)
EXPORTS = st.builds(
    ExportState,
    TEXT,
    st.dictionaries(TEXT, TEXT, max_size=2),
    st.dictionaries(st.sampled_from(["2023-12", "2024-01", "12024-01"]), MONTHS),
)


def read_fetched_of(data: bytes, folder: Path, _: Any) -> Any:
    path = put(folder, ".x.json", data)
    found = read_fetched(path, put(folder, "x", b"1234"))
    if found is None:
        raise Told(path, "says nothing of the file")
    return found


# Coders

SHARDS = st.tuples(TEXT, SMALL, SMALL, SMALL, SMALL).map(lambda place: ShardRef(*place))
JOINED = st.lists(SHARDS, min_size=1, max_size=2).map(ShardRef.of_all)


def coder_codec(coder: Any, values: st.SearchStrategy[Any], sample: Any) -> Codec:
    return Codec(
        type(coder).__name__,
        values,
        sample,
        coder.encode,
        lambda data, _folder, _value: coder.decode(data),
        named=False,
        # They are told apart by the stage that they cross, and by nothing else.
        bare=True,
    )


class _TradeBatches:
    """Batches as values that compare."""

    def encode(self, value: tuple[Market, list[Row], bool]) -> bytes:
        market, rows, counted = value
        return TradeBatchCoder().encode(batch(rows, market, counted=counted))

    def decode(self, data: bytes) -> tuple[Market, list[Row], bool]:
        found: TradeBatch = TradeBatchCoder().decode(data)
        return found.market, rows_of(found), found.count is not None


class _CandleBlocks:
    """Blocks as values that compare."""

    def encode(self, value: tuple[Market, int, bytes]) -> bytes:
        market, step, candles = value
        block = CandleBlock(market, Timeframe(step), np.frombuffer(candles, BLOCK_DTYPE))
        return CandleBlockCoder().encode(block)

    def decode(self, data: bytes) -> tuple[Market, int, bytes]:
        found: CandleBlock = CandleBlockCoder().decode(data)
        return found.market, found.timeframe.ms, found.candles.tobytes()


class _Bars:
    """`BarsCoder` on rows, which compare."""

    def encode(self, rows: Any) -> bytes:
        return BarsCoder().encode(bars_from(rows))

    def decode(self, data: bytes) -> list[tuple[Any, ...]]:
        return rows_of_bars(BarsCoder().decode(data))


SAMPLE_SHARD = ShardRef("manifest", 1, 2, 3, 4, (ShardRef("manifest", 5, 6, 7, 8),))
SAMPLE_COMPANION = companion_of(5)
SAMPLE_SIDECAR = Sidecar("RAM/BINANCE/x", {"gaps": "zero"}, (SourceState(1, 2, 3),))
SAMPLE_PLAN = [
    (
        task_of(MARKET, shards := (Shard(MARKET, 0, (InputFile("a", 1, 2),), None, "n"),), "note"),
        shards,
    )
]
SAMPLE_OUTCOME = MarketOutcome("x", error="e", rejected={"side": 1}, missing=["y"])
SAMPLE_FILES = (FileOutcome("a", "b", 9, 8, 7, 6, (("side", 1),), damage="torn", notes=("n",)),)

CODECS = [
    Codec(
        "companion", COMPANIONS, SAMPLE_COMPANION, Companion.encode,
        lambda data, folder, _: Companion.decode(data, str(folder / "x.json")),
        # White space at the end of JSON means nothing.
        cut=lambda found, value: found == value,
    ),
    Codec(
        "journal", COMPANIONS.flatmap(journals), Journal(SAMPLE_COMPANION, bytes(56), 224),
        Journal.encode, lambda data, folder, _: Journal.decode(data, str(folder / ".x.journal")),
    ),
    Codec(
        "candle records",
        st.integers(1, 3).flatmap(lambda n: st.binary(min_size=56 * n, max_size=56 * n)),
        some_records(3).tobytes(), bytes, read_candles,
        # A crash leaves bytes there that the companion does not know of.
        tail=anything, bare=True,
    ),
    Codec(
        "chunk", CHUNKS, (SAMPLE_FILES, bytes(208)), encode_chunk_of, read_chunk, checked=True
    ),
    Codec(
        "manifest",
        st.lists(planned(), min_size=1, max_size=3, unique_by=lambda plan: plan[0].market),
        SAMPLE_PLAN, encode_plan, read_plan, checked=True,
    ),
    Codec(
        "outcome", OUTCOMES, SAMPLE_OUTCOME, MarketOutcome.encode, read_outcome,
        like="MarketOutcomeCoder",
    ),
    Codec("aligned records", BAR_ROWS, SOME_BARS, encode_aligned, read_aligned, bare=True),
    Codec(
        "aligned index", INDEXES, AlignedIndex(20240301, 5, 64), AlignedIndex.encode,
        lambda data, folder, _: AlignedIndex.decode(data, str(folder / "x.idx")),
        # 16 bytes are an index of older programs.
        cut=lambda found, _: found.last_date is None, bare=True,
    ),
    Codec(
        "aligned sidecar", SIDECARS, SAMPLE_SIDECAR, Sidecar.encode,
        lambda data, folder, _: Sidecar.decode(data, str(folder / "x.source.json")),
        cut=lambda found, value: found == value,
    ),
    Codec(
        "aligned journal", st.builds(AlignedJournal, INDEXES, SIDECARS),
        AlignedJournal(AlignedIndex(20240301, 5, 64), SAMPLE_SIDECAR), AlignedJournal.encode,
        lambda data, folder, _: AlignedJournal.decode(data, str(folder / ".x.journal")),
    ),
    Codec(
        "csv", BAR_ROWS, SOME_BARS, lambda value: encode_csv(bars_from(value)), read_csv,
        # Whole lines are whole bars.
        cut=prefix,
    ),
    table_codec(PARQUET, pq.read_table),
    table_codec(ARROW, read_arrow),
    Codec(
        "trade log", LOGGED, SOME_ROWS,
        lambda value: gzip.compress(text_of(value), mtime=0), read_log,
        cut=prefix, tail=zeros, bare=True,
    ),
    Codec(
        "agg2 day", AGG_ROWS, [(n, n * 10**8, 10**8, n, 1, n % 2, MIDNIGHT + n) for n in (1, 2, 3)],
        encode_agg2, read_agg2, tail=anything, checked=True,
    ),
    Codec(
        "agg2 index", INDEX_ROWS, [IndexRow(1, 0, 9), IndexRow(2, 9, 5)],
        lambda value: b"".join(row.encode() for row in value), read_agg2_index,
        # It is rows and nothing else, so that a run of whole rows is an index.
        cut=prefix, bare=True,
    ),
    Codec(
        "dbn bars", DBN_BARS, [(MIDNIGHT + n * 1_000, 5, 7, 4, 6, n) for n in range(3)],
        encode_dbn_bars, read_dbn_bars, checked=True,
    ),
    Codec(
        "dbn trades", DBN_TRADES, [(MIDNIGHT + n, 10**9 + n, 5, n % 2) for n in range(3)],
        encode_dbn_trades, read_dbn_trades, checked=True,
    ),
    Codec(
        "fetched", FETCHED, Fetched("D", "trades", "A/B", "raw_symbol", 1, 2, 3, 4),
        Fetched.encode, read_fetched_of, cut=lambda found, value: found == value,
    ),
    Codec(
        "export state", EXPORTS,
        ExportState("x", {"format": "csv"}, {"2024-01": ExportedMonth(1, 2, 3)}),
        ExportState.encode,
        lambda data, folder, _: ExportState.decode(data, str(folder / ".x.export.json")),
        cut=lambda found, value: found == value, checked=True,
    ),
    coder_codec(MarketCoder(), MARKETS, MARKET),
    coder_codec(ShardRefCoder(), JOINED, SAMPLE_SHARD),
    coder_codec(
        ChunkRefCoder(),
        st.builds(ChunkRef, JOINED, st.integers(0, 99), TEXT, st.booleans(), TEXT),
        ChunkRef(SAMPLE_SHARD, 1, "name", True, "error"),
    ),
    coder_codec(MarketOutcomeCoder(), OUTCOMES, SAMPLE_OUTCOME),
    coder_codec(
        _TradeBatches(), st.tuples(MARKETS, LOGGED, st.booleans()), (MARKET, SOME_ROWS, True)
    ),
    coder_codec(_Bars(), BAR_ROWS, SOME_BARS),
    coder_codec(
        _CandleBlocks(),
        st.tuples(
            MARKETS, st.just(60_000),
            st.integers(0, 3).flatmap(lambda n: st.binary(min_size=104 * n, max_size=104 * n)),
        ),
        (MARKET, 60_000, bytes(208)),
    ),
]  # fmt: skip
