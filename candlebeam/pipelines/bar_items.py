"""Which inputs of bars are read together, and which of them cannot be opened."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from candlebeam.errors import CandlebeamError, UsageError
from candlebeam.formats.bar_inputs import DBN, BarInput, open_input
from candlebeam.io.resample_bars import ResampleItem
from candlebeam.model import Market
from candlebeam.outcome import FAILED, BarsOutcome
from candlebeam.pipelines.bars_request import BarsOptions, BarsRequest, explained
from candlebeam.rules.resample import time_text

if TYPE_CHECKING:
    from candlebeam.formats.dbn.metadata import DbnFile

#: Files that are open at a time, at most, where a Databento file has many markets.
_OPEN_FILES = 256


def find_items(
    inputs: Iterable[BarInput], request: BarsRequest[BarsOptions], outputs: int = 1
) -> tuple[list[ResampleItem], list[BarsOutcome]]:
    """The items of those inputs that were asked for, and outcomes of those that cannot be opened.

    Args:
        outputs: how many files are written for a market.

    Raises:
        UsageError: nothing tells how long the bars of an input are, or two inputs of a market do
            not stand one after the other.
    """
    items: list[ResampleItem] = []
    failed: list[BarsOutcome] = []
    databento: list[BarInput] = []
    for found in inputs:
        if found.kind == DBN:
            databento.append(found)
            continue
        try:
            (source,) = open_input(found)
            market, timeframe = source.market, source.timeframe
        except (CandlebeamError, OSError) as error:
            if request.may_want(found):
                failed.append(BarsOutcome(str(found), FAILED, explained(error, found)))
            continue
        if not request.wants(market):
            continue
        if timeframe is None:
            raise UsageError(
                f"{found}: the length of its bars cannot be told, or is more than a day;"
                " only bars of 1s to 1d can be read"
            )
        items.append(ResampleItem((found,), (market,), timeframe))
    items += _databento_items(databento, request, outputs, failed)
    return items, failed


def _databento_items(
    inputs: Sequence[BarInput],
    request: BarsRequest[BarsOptions],
    outputs: int,
    failed: list[BarsOutcome],
) -> Iterator[ResampleItem]:
    """Groups of markets that the same files have, each file a part of their history."""
    if not inputs:
        return
    from candlebeam.formats.dbn.bars import open_dbn_bars
    from candlebeam.formats.dbn.records import describe_dbn

    heads: dict[str, DbnFile] = {}
    paths: dict[Market, list[str]] = {}
    for found in inputs:
        path = str(found)
        try:
            heads[path] = describe_dbn(path)
            markets = [source.market for source in open_dbn_bars(path)]
        except (CandlebeamError, OSError) as error:
            failed.append(BarsOutcome(path, FAILED, explained(error, found)))
            continue
        for market in filter(request.wants, markets):
            paths.setdefault(market, []).append(path)
    groups: dict[tuple[str, ...], list[Market]] = {}
    for market, parts in paths.items():
        parts.sort(key=lambda path: (heads[path].start_ts or 0, path))
        for earlier, later in pairwise(parts):
            _check_parts(market, heads[earlier], heads[later])
        groups.setdefault(tuple(parts), []).append(market)
    at_once = max(_OPEN_FILES // outputs, 1)
    for files, group in groups.items():
        for begin in range(0, len(group), at_once):
            yield ResampleItem(
                tuple(BarInput(DBN, (path,)) for path in files),
                tuple(group[begin : begin + at_once]),
                heads[files[0]].timeframe,
            )


def _check_parts(market: Market, earlier: DbnFile, later: DbnFile) -> None:
    """Raises `UsageError` where two files of a market do not stand one after the other."""
    both = f"{earlier.path} and {later.path} both have {market}"
    if earlier.timeframe != later.timeframe:
        raise UsageError(
            f"{both}, one as {earlier.schema} and one as {later.schema}: resample them one by one"
        )
    if earlier.end_ts and later.start_ts and later.start_ts < earlier.end_ts:
        until = time_text(earlier.end_ts)
        raise UsageError(f"{both}, and what they have overlaps: the first ends at {until}")
