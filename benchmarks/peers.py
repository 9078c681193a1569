"""What candlebeam's candles are timed against, each in a process of its own.

`duckdb` and `polars` group the same files by market and minute, into Parquet: open and close by
the first and last time, high, low, and quote volume and count of buys and of sells. They correct
nothing, fill no gaps and drop liquidations. Each is written the way that was fastest of those
tried: both do a statement a market (a group-by over all files with the market taken from the
file's name took longer, on either data set); Polars decompresses by itself, which was faster than
giving it text from ISA-L.

`copy` copies a file in pieces of 1 MiB and forces it to disk.

The others make nothing; `--expect` says how much they should have read:

- `decompress` decompresses the files with ISA-L, `--piece` bytes at a time;
- `agg2` decompresses the days of an AGG2 archive with zstandard: `--piece` bytes at a time into one
  buffer a thread, or each at once;
- `databento` reads a Databento file to its end with Databento's library, as arrays of 16,384
  records (more at once took longer).
"""

from __future__ import annotations

import argparse
import os
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

COLUMNS = {"ts": "BIGINT", "price": "DOUBLE", "size": "DOUBLE", "side": "TINYINT", "liq": "TINYINT"}

DATABENTO_RECORDS = 1 << 14

_DUCKDB_CANDLES = """
    COPY (
        SELECT {market} AS market, ts // 60000 AS minute,
            arg_min(price, ts) AS open, max(price) AS high,
            min(price) AS low, arg_max(price, ts) AS close,
            sum(price * size) FILTER (side = 1) AS buy_volume,
            sum(price * size) FILTER (side = 0) AS sell_volume,
            count(*) FILTER (side = 1) AS buy_count,
            count(*) FILTER (side = 0) AS sell_count
        FROM read_csv(
            {files}, delim = ' ', quote = '', escape = '', header = false, auto_detect = false,
            columns = {columns}, null_padding = true, ignore_errors = true
        )
        WHERE liq IS NULL
        GROUP BY ALL
    ) TO {out} (FORMAT parquet)
"""


def _markets(root: Path) -> dict[str, Path]:
    """Market names, `collector/exchange/symbol`, and their folders."""
    folders = sorted(path for path in root.glob("*/*/*/*") if path.is_dir())
    return {"/".join((path.parts[-4], *path.parts[-2:])): path for path in folders}


def _parquet(out: Path, market: str) -> Path:
    return out / f"{market.replace('/', '_')}.parquet"


def run_duckdb(root: Path, out: Path, threads: int) -> None:
    """Candles of every market under `root`, a Parquet file each, made by DuckDB."""
    import duckdb

    def quoted(text: object) -> str:
        return "'{}'".format(str(text).replace("'", "''"))

    out.mkdir(parents=True)
    connection = duckdb.connect()
    connection.execute(f"SET threads = {threads}")
    for market, folder in _markets(root).items():
        connection.execute(
            _DUCKDB_CANDLES.format(
                market=quoted(market),
                files=quoted(folder / "*.gz"),
                columns=COLUMNS,
                out=quoted(_parquet(out, market)),
            )
        )


def run_polars(root: Path, out: Path, threads: int) -> None:
    """Candles of every market under `root`, a Parquet file each, made by Polars."""
    os.environ["POLARS_MAX_THREADS"] = str(threads)
    import polars as pl

    out.mkdir(parents=True)
    types = {"BIGINT": pl.Int64, "DOUBLE": pl.Float64, "TINYINT": pl.Int8}
    schema = {name: types[kind] for name, kind in COLUMNS.items()}
    price, ts, is_buy = pl.col("price"), pl.col("ts"), pl.col("side") == 1
    quote, buy = price * pl.col("size"), is_buy.cast(pl.Float64)
    for market, folder in _markets(root).items():
        trades = pl.scan_csv(
            folder / "*.gz",
            separator=" ",
            has_header=False,
            schema=schema,
            quote_char=None,
            missing_columns="insert",
            truncate_ragged_lines=True,
            ignore_errors=True,
        )
        candles = (
            trades.filter(pl.col("liq").is_null())
            .group_by((ts // 60_000).alias("minute"))
            .agg(
                price.min_by("ts").alias("open"),
                price.max().alias("high"),
                price.min().alias("low"),
                price.max_by("ts").alias("close"),
                (quote * buy).sum().alias("buy_volume"),
                (quote * (1 - buy)).sum().alias("sell_volume"),
                is_buy.sum().alias("buy_count"),
                is_buy.not_().sum().alias("sell_count"),
            )
            .with_columns(market=pl.lit(market))
        )
        candles.sink_parquet(_parquet(out, market))


def _decompress(piece: int, files: Sequence[Path]) -> int:
    from isal import igzip_lib

    length = 0
    for path in files:
        unpacker = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        with path.open("rb", buffering=0) as file:
            while not unpacker.eof:
                packed = file.read(1 << 20) if unpacker.needs_input else b""
                length += len(unpacker.decompress(packed, piece))
    return length


def run_decompress(root: Path, threads: int, piece: int) -> int:
    """Decompress every file under `root` and throw the text away; its length is the answer."""
    files = sorted(root.glob("*/*/*/*/*.gz"))
    parts = [files[start::32] for start in range(32)]
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(partial(_decompress, piece), parts))


def _unpack_day(piece: int, blob: tuple[Path, int, int]) -> int:
    import zstandard

    path, offset, length = blob
    with path.open("rb", buffering=0) as file:
        packed = os.pread(file.fileno(), length, offset)
    unpacker = zstandard.ZstdDecompressor()
    if not piece:
        return len(unpacker.decompress(packed))
    total, buffer = 0, bytearray(piece)
    with unpacker.stream_reader(packed) as reader:
        while count := reader.readinto(buffer):
            total += count
    return total


def run_agg2(root: Path, threads: int, piece: int) -> int:
    """Decompress every day of an AGG2 archive; the answer is how many bytes that were."""
    blobs = [
        (index.with_name("data.quantdev"), offset, length)
        for index in sorted(root.glob("*/*/*/index.quantdev"))
        for _, offset, length in struct.iter_unpack("<HQQ", index.read_bytes())
    ]
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(partial(_unpack_day, piece), blobs))


def run_databento(root: Path) -> int:
    """Read the Databento files under `root`; the answer is how many records that were."""
    import databento

    count = 0
    for path in sorted(root.glob("*.dbn*")):
        for records in databento.DBNStore.from_file(path).to_ndarray(count=DATABENTO_RECORDS):
            count += len(records)
    return count


def run_copy(source: Path, out: Path) -> None:
    """Copy a file, plainly, into a folder like the one it is in."""
    target = out / source.parent.name / source.name
    target.parent.mkdir(parents=True)
    with source.open("rb", buffering=0) as read, target.open("wb", buffering=0) as written:
        while piece := read.read(1 << 20):
            written.write(piece)
        os.fsync(written.fileno())


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    makers = ("duckdb", "polars", "copy")
    parser.add_argument("what", choices=[*makers, "decompress", "agg2", "databento"])
    parser.add_argument("root", type=Path, help="the archive; for copy, the file")
    parser.add_argument("--out", type=Path, help="a new folder for what is made")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--piece", type=int, default=64 << 10, help="bytes decompressed at once")
    parser.add_argument("--expect", type=int, help="bytes or records that have to be read")
    chosen = parser.parse_args()
    if chosen.what in makers and chosen.out is None:
        parser.error(f"{chosen.what} needs --out")
    if chosen.what == "copy":
        run_copy(chosen.root, chosen.out)
        return
    if chosen.what in makers:
        run = run_duckdb if chosen.what == "duckdb" else run_polars
        run(chosen.root, chosen.out, chosen.threads)
        return
    if chosen.what == "databento":
        count = run_databento(chosen.root)
    else:
        read = run_agg2 if chosen.what == "agg2" else run_decompress
        count = read(chosen.root, chosen.threads, chosen.piece)
    if chosen.expect not in (None, count):
        raise SystemExit(f"expected to read {chosen.expect:,}, but it was {count:,}")


if __name__ == "__main__":
    main()
