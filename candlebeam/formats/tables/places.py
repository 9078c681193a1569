"""Where an export puts the files of a market.

| format | a month's file |
| --- | --- |
| CSV | `SYMBOL/SYMBOL_2024_01.csv`; by timeframe `15s/SYMBOL_2024_01_15s.csv` |
| Parquet, Arrow | `collector=C/exchange=E/symbol=S/timeframe=1m/month=2024-01/bars.parquet` |
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from urllib.parse import quote

from candlebeam.errors import UsageError
from candlebeam.formats.bar_inputs import ALIGNED, CSV, BarInput
from candlebeam.formats.bar_source import BarSource
from candlebeam.formats.csv.bars import CsvName, csv_path
from candlebeam.formats.tables.tables import ARROW, PARQUET
from candlebeam.model import Market
from candlebeam.rules.periods import Period

FORMATS = (PARQUET, CSV, ARROW)


@dataclass(frozen=True)
class ExportPlace:
    """The files of one market.

    Attributes:
        folder: all of them are below it.
        form: one of `FORMATS`.
        stem: how the names of CSV files begin; they end with `suffix`.
        suffix: `_15s`, say.
    """

    folder: str
    form: str
    stem: str = ""
    suffix: str = ""

    def file(self, month: str) -> str:
        """The file of a month such as 2024-01."""
        if self.form == CSV:
            name = f"{self.stem}_{month.replace('-', '_')}{self.suffix}.csv"
            return os.path.join(self.folder, name)
        return os.path.join(self.folder, f"month={month}", f"bars.{self.form}")

    @property
    def state(self) -> str:
        """The file that says what has been written."""
        name = f"{self.stem}{self.suffix}" if self.form == CSV else f"bars.{self.form}"
        return os.path.join(self.folder, f".{name}.export.json")


def period_of(found: BarInput, source: BarSource) -> str | None:
    """How long the bars of a source are, as text: weeks and months by the names of their files.

    None where it cannot be told, and for trades.
    """
    if source.timeframe is not None:
        return str(source.timeframe)
    if found.kind == CSV:
        period = CsvName.of(source.path).period
        return None if period is None else str(period)
    if found.kind == ALIGNED:
        folder = os.path.basename(os.path.dirname(os.path.abspath(source.path)))
        with contextlib.suppress(UsageError):
            return str(Period.parse(folder))
    return None


def name_of(market: Market) -> str:
    """A market for messages, without names that it has not.

    >>> name_of(Market("", "", "SPY"))
    'SPY'
    """
    return "/".join(filter(None, market))


def partition_folder(market: Market, period: str) -> str:
    """The partitions of a market, for Parquet and Arrow; a name it has not is left out.

    What is no letter, digit, `_`, `.`, `-` or `~` is percent-encoded, as in a URL.

    >>> partition_folder(Market("", "XNAS.ITCH", "A/../B"), "1s")
    'exchange=XNAS.ITCH/symbol=A%2F..%2FB/timeframe=1s'
    """
    values = {**market._asdict(), "timeframe": period}
    return "/".join(
        f"{name}={quote(value, safe='', errors='surrogateescape')}"
        for name, value in values.items()
        if value
    )


def place_of(
    to: str,
    form: str,
    market: Market,
    period: str | None,
    *,
    by_market: bool = False,
    by_timeframe: bool = False,
) -> ExportPlace:
    """Where the bars of a market go.

    Args:
        to: the root of the export.
        form: one of `FORMATS`.
        period: how long the bars are, as text; None where that is not known.
        by_market: for CSV, has a folder for each collector and exchange.
        by_timeframe: for CSV, names the timeframe in folder and file.

    Raises:
        UsageError: the market has no symbol, or its timeframe is needed and not known.
    """
    if not market.symbol:
        raise UsageError(f"{name_of(market)}: expected a symbol, found ''")
    if period is None and (form != CSV or by_timeframe):
        raise UsageError(f"{name_of(market)}: cannot tell how long its bars are")
    if form != CSV:
        return ExportPlace(os.path.join(to, partition_folder(market, period or "")), form)
    folders = market.path.split("/")[:-1] if by_market else []
    path = csv_path(market.symbol, 0, period if by_timeframe else None)
    folder, _, name = path.partition("/")
    stem, _, suffix = name.removesuffix(".csv").rpartition("_1970_01")
    return ExportPlace(os.path.join(to, *filter(None, folders), folder), form, stem, suffix)
