"""Candlebeam timed beside other programs and libraries: `python -m benchmarks.run`."""
