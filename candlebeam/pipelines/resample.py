"""From bars and trades to bars of other periods."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from candlebeam.errors import CandlebeamError, UsageError
from candlebeam.formats.bar_inputs import DBN, BarInput, open_input
from candlebeam.io.resample_bars import ResampleItem, resample_item
from candlebeam.io.resample_outputs import ALIGNED, ResampleOptions
from candlebeam.model import Market
from candlebeam.outcome import FAILED, BarsOutcome
from candlebeam.pipelines.bars_report import BarsReport
from candlebeam.pipelines.bars_request import BarsRequest, explained
from candlebeam.rules.resample import check_periods, time_text

if TYPE_CHECKING:
    from candlebeam.formats.dbn.metadata import DbnFile

#: Files that are open at a time, at most, where a Databento file has many markets.
_OPEN_FILES = 256


ResampleRequest = BarsRequest[ResampleOptions]


def run_resample(request: ResampleRequest) -> BarsReport:
    """Brings the resampled bars of all markets up to date.

    Raises:
        UsageError: a period cannot be made of an input, or two inputs would be one output; nothing
            has been written then.
        CandlebeamError: nothing could be done at all. What goes wrong with an input is in the
            report.
    """
    request.refuse_output_inside_input()
    items, failed = _find(request)
    if not items and not failed:
        raise request.nothing("bars")
    _check_places(items, request.options)
    return request.run(items, resample_item, failed, noun="input")


def _find(request: ResampleRequest) -> tuple[list[ResampleItem], list[BarsOutcome]]:
    """What there is to do, and the inputs that cannot be opened."""
    items: list[ResampleItem] = []
    failed: list[BarsOutcome] = []
    databento: list[BarInput] = []
    for found in request.found():
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
                " only bars of 1s to 1d can be resampled"
            )
        items.append(ResampleItem((found,), (market,), timeframe))
    items += _databento_items(databento, request, failed)
    for item in items:
        try:
            check_periods(request.options.periods, item.timeframe)
        except UsageError as error:
            raise UsageError(f"{item}: {error}") from None
    return items, failed


def _databento_items(
    inputs: Sequence[BarInput], request: ResampleRequest, failed: list[BarsOutcome]
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
    at_once = max(_OPEN_FILES // len(request.options.periods), 1)
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


def _check_places(items: Sequence[ResampleItem], options: ResampleOptions) -> None:
    """Raises `UsageError` where two markets would be one file, or one would replace its input."""
    places: dict[tuple[str, str], tuple[ResampleItem, Market]] = {}
    for item in items:
        for market in item.markets:
            root, name = options.root(market), market.path.split("/")[-1]
            other, other_market = places.setdefault((root, name), (item, market))
            if other_market is not market:
                hint = "" if options.by_market else "; --by-market keeps markets apart"
                place = os.path.join(root, str(options.periods[0]), name)
                raise UsageError(
                    f"{other} ({other_market}) and {item} ({market}) would both be {place}{hint}"
                )
            for period in options.periods:
                _check_input(item, os.path.join(root, str(period)), name, options.form)


def _check_input(item: ResampleItem, folder: str, name: str, form: str) -> None:
    for path in (path for found in item.inputs for path in found.paths):
        if os.path.realpath(os.path.dirname(path)) != os.path.realpath(folder):
            continue
        file = os.path.basename(path)
        if file == f"{name}.bin" if form == ALIGNED else file.startswith(f"{name}_"):
            raise UsageError(f"{path}: would be replaced by what is made of it; write elsewhere")
