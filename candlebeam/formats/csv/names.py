"""How CSV files of bars are named: by symbol and month, and maybe by the length of the bars."""

from __future__ import annotations

import contextlib
import os
import re
from typing import NamedTuple

import numpy as np

from candlebeam.errors import UsageError
from candlebeam.model import Market
from candlebeam.rules.periods import Period

_MONTH_FILE = re.compile(
    r"(?P<symbol>.+)_(?P<month>\d{4}_(?:0[1-9]|1[0-2]))(?:_(?P<period>[1-9]\d*[a-zA-Z]+))?\.csv",
    re.DOTALL,
)
_OPEN_END = "_open.csv"
_ESCAPED = re.compile(r"%([0-7][0-9A-F])")


class CsvName(NamedTuple):
    """What the name of a file tells.

    Attributes:
        symbol: whose bars.
        month: such as 2024_01; None if the file is none of a month.
        period: the length of the bars; None where the name has none.
    """

    symbol: str
    month: str | None = None
    period: Period | None = None

    @classmethod
    def of(cls, path: str) -> CsvName:
        """Reads the name of a file.

        >>> CsvName.of("15s/SPY_2024_01_15s.csv")
        CsvName(symbol='SPY', month='2024_01', period=Period(ms=15000, unit=''))
        >>> CsvName.of("A%2FB.csv").symbol
        'A/B'
        """
        name = os.path.basename(path)
        found = _MONTH_FILE.fullmatch(name)
        if not found:
            return cls(_unescaped(os.path.splitext(name)[0]))
        period = None
        with contextlib.suppress(UsageError):
            period = Period.parse(found["period"] or "")
        return cls(_unescaped(found["symbol"]), found["month"], period)


def csv_path(symbol: str, ts: int, timeframe: str | None = None) -> str:
    """Where the bars of a symbol stand for the UTC month of a time in ms, under a folder.

    Args:
        timeframe: named in folder and file if it is given.

    >>> csv_path("SPY", 1704067200000), csv_path("SPY", 1704067200000, "15s")
    ('SPY/SPY_2024_01.csv', '15s/SPY_2024_01_15s.csv')
    """
    if not symbol:
        raise UsageError("the name of a CSV file: expected a symbol, found ''")
    safe = Market("", "", symbol).path.rpartition("/")[2]
    month = str(np.datetime64(ts, "ms").astype("datetime64[M]")).replace("-", "_")
    if timeframe is None:
        return f"{safe}/{safe}_{month}.csv"
    return f"{timeframe}/{safe}_{month}_{timeframe}.csv"


def open_bar_path(symbol: str, timeframe: str) -> str:
    """Where the bar of a symbol stands that may still change, under a folder.

    >>> open_bar_path("SPY", "15s"), is_open_bar("15s/SPY_15s_open.csv")
    ('15s/SPY_15s_open.csv', True)
    """
    safe = Market("", "", symbol).path.rpartition("/")[2]
    return f"{timeframe}/{safe}_{timeframe}{_OPEN_END}"


def is_open_bar(path: str) -> bool:
    """Whether a file is one of `open_bar_path`, which is no history of its own."""
    folder, name = os.path.split(path)
    return name.endswith(f"_{os.path.basename(folder)}{_OPEN_END}")


def _unescaped(name: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), name)
