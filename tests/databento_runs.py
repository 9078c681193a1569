"""Runs of `candlebeam databento` against a server on the loopback."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.command_line import Outcome, run_here
from tests.databento_server import KEY, Query, Server, ns

#: No test waits for the usual time between two attempts.
QUICK = ("--retry-wait", "0.01")
JANUARY, FEBRUARY, MARCH = "SPY/SPY_2024_01", "SPY/SPY_2024_02", "SPY/SPY_2024_03"
DATA = ".dbn.zst"
_ENCODED = base64.b64encode(f"{KEY}:".encode()).decode()


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """A server that the environment leads to, with the key; the working folder is another one."""
    with Server() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABENTO_API_KEY", KEY)
        patch.setenv("DATABENTO_GATEWAY", server.url)
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.chdir(folder)
        yield server


def databento(*arguments: object) -> Outcome:
    """Runs a command in this process. No output may show the key."""
    return without_key(run_here("databento", *arguments))


def without_key(outcome: Outcome) -> Outcome:
    """Itself, where nothing in its output gives the key away."""
    assert KEY not in outcome.output
    assert _ENCODED not in outcome.output
    return outcome


def fetch(
    symbols: str = "SPY",
    start: str = "2024-01",
    end: str = "2024-01",
    *options: object,
    schema: str = "ohlcv-1s",
) -> Outcome:
    """Fetches from XNAS.ITCH to `out` of the working folder."""
    return databento(*fetch_arguments(symbols, start, end, *options, schema=schema))


def fetch_arguments(
    symbols: str, start: str, end: str, *options: object, schema: str = "ohlcv-1s"
) -> list[object]:
    return [
        "fetch", "--dataset", "XNAS.ITCH", "--symbols", symbols, "--schema", schema,
        "--start", start, "--end", end, "--out", "out", *QUICK, *options,
    ]  # fmt: skip


def files(folder: str = "out") -> dict[str, bytes]:
    """What is there of downloads, by path under the schema's folder, without what is hidden."""
    return {
        "/".join(path.parts[-2:]): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def unfinished(folder: str = "out") -> list[str]:
    """What only a run that is under way has any business having."""
    return sorted(path.name for path in Path(folder).rglob(".*.part"))


def delivered(
    start: str, end: str, symbol: str = "SPY", schema: str = "ohlcv-1s", stype: str = "raw_symbol"
) -> bytes:
    """The bytes that the server sends for a range of days, the end not included."""
    return Query("XNAS.ITCH", schema, symbol, stype, ns(start), ns(end)).dbn()


def place(name: str, schema: str = "ohlcv-1s") -> Path:
    return Path("out/XNAS.ITCH") / schema / name


def hidden(name: str, ending: str = ".json") -> Path:
    path = place(name)
    return path.parent / f".{path.name}{DATA}{ending}"
