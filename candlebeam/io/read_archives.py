"""Sources for pipelines of your own: AGG2 days and Databento files as trade batches.

A backfill reads the same archives by its plan (`io.read_trades`), so that it can go on where it was
stopped. These two know of no plan.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam import pvalue

from candlebeam.errors import CandlebeamError
from candlebeam.inventory import ListedFile, ListedInventory
from candlebeam.io.coders import TradeBatchCoder  # noqa: F401  registers all coders
from candlebeam.listings import list_agg2, list_dbn
from candlebeam.model import FileOutcome, InputFile, Market, TradeBatch


class ReadAgg2(beam.PTransform):
    """The days of an AGG2 archive.

    In: the pipeline. Out: `trades`, a PCollection of (`Market`, `TradeBatch`), one element a day
    blob, in the order of the rows; and `outcomes`, a PCollection of (`Market`, `FileOutcome`), one
    a day, which names what is damaged. The days are put into the pipeline by symbol and date; a
    runner keeps that order only as far as it does not spread them.

    Args:
        base: the folder that holds `{symbol}/{YYYY}/{MM}/`; the workers read it by the same path.
        symbol: reads this one alone.
        exchange: which exchange the trades are from; BINANCE_FUTURES if it is not given.
        snap: whether numbers that were cut off are recovered (`rules.steps`).

    Raises:
        UsageError: there is no such folder.
        CandlebeamError: an index cannot be read.
    """

    def __init__(
        self,
        base: str,
        *,
        symbol: str | None = None,
        exchange: str | None = None,
        snap: bool = True,
    ) -> None:
        super().__init__()
        self._listed = list_agg2(base, symbol=symbol, exchange=exchange)
        _check(self._listed)
        self._snap = snap

    def expand(self, begin: pvalue.PBegin) -> Any:
        days = list(_inputs(self._listed))
        return _outputs(begin | "Days" >> beam.Create(days), _ReadDayFn(self._snap))


class ReadDbn(beam.PTransform):
    """The trades of Databento files.

    In: the pipeline. Out: `trades`, a PCollection of (`Market`, `TradeBatch`), those of a file and
    market in file order; and `outcomes`, a PCollection of (`Market`, `FileOutcome`), one a file and
    market. Files are put into the pipeline in order of time.

    Args:
        paths: files, or folders with `.dbn` and `.dbn.zst` files; the workers read them by the same
            paths.

    Raises:
        UsageError: a path is not there.
        CandlebeamError: a file is none, or two hold the same trades.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        super().__init__()
        self._listed = list_dbn(paths)
        _check(self._listed)

    def expand(self, begin: pvalue.PBegin) -> Any:
        wanted: dict[ListedFile, list[Market]] = {}
        for market, file in _inputs(self._listed):
            wanted.setdefault(file, []).append(market)
        files = [(tuple(wanted[file]), file) for file in sorted(wanted)]
        return _outputs(begin | "Files" >> beam.Create(files), _ReadDbnFn())


def _check(listed: ListedInventory) -> None:
    if listed.problems:
        raise CandlebeamError("; ".join(listed.problems))


def _inputs(listed: ListedInventory) -> Iterator[tuple[Market, ListedFile]]:
    for market, found in listed.markets().items():
        for file in listed.files(market, found):
            yield market, file


def _outputs(inputs: pvalue.PCollection, read: beam.DoFn) -> Any:
    found = inputs | "Read" >> beam.ParDo(read).with_outputs("outcomes", main="trades")
    found.trades.element_type = tuple[Market, TradeBatch]
    found.outcomes.element_type = tuple[Market, FileOutcome]
    return found


class _ReadDayFn(beam.DoFn):
    def __init__(self, snap: bool) -> None:
        self._snap = snap

    def process(self, element: tuple[Market, ListedFile]) -> Iterator[Any]:
        from candlebeam.formats.agg2.reader import Agg2Reader

        market, file = element
        day = InputFile(os.path.join(file.root, file.path), file.size)
        reader = Agg2Reader(market, [day], snap=self._snap)
        batches = list(reader)
        if batches:
            yield market, TradeBatch.join(batches)
        for outcome in reader.outcomes:
            yield pvalue.TaggedOutput("outcomes", (market, outcome))


class _ReadDbnFn(beam.DoFn):
    def process(self, element: tuple[tuple[Market, ...], ListedFile]) -> Iterator[Any]:
        from candlebeam.formats.dbn.reader import DbnReader, WantedMarket

        markets, file = element
        wanted = {market.symbol: WantedMarket(market) for market in markets}
        reader = DbnReader(os.path.join(file.root, file.path), wanted)
        for batch in reader:
            yield batch.market, batch
        for outcome in reader.outcomes.items():
            yield pvalue.TaggedOutput("outcomes", outcome)
