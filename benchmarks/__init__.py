"""Candlebeam timed beside DuckDB, Polars and decompression alone: `python -m benchmarks.run`."""
