"""From candle files and other bars to aligned files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from candlebeam.errors import CandlebeamError, FormatError, UsageError
from candlebeam.formats.aligned.file import AlignedPaths
from candlebeam.formats.bar_inputs import CSV, DBN, BarInput, find_bars, kind_of
from candlebeam.formats.candles.companion import (
    CandlePaths,
    Companion,
    read_companion,
    read_journal,
)
from candlebeam.io.align_candles import AlignOptions, align_candles
from candlebeam.io.resample_bars import ResampleItem, resample_item
from candlebeam.io.resample_outputs import ResampleOptions
from candlebeam.model import Market
from candlebeam.outcome import FAILED, BarsOutcome
from candlebeam.pipelines.bar_items import find_items
from candlebeam.pipelines.bars_report import BarsReport
from candlebeam.pipelines.bars_request import BarsRequest
from candlebeam.rules.periods import Period

AlignRequest = BarsRequest[AlignOptions]

#: Bars that are no candle files.
_OTHERS = (CSV, DBN)


class _CandleFile(NamedTuple):
    """A candle file that was found; without its companion where that cannot be read."""

    path: str
    companion: Companion | None


def run_align(request: AlignRequest) -> BarsReport:
    """Brings the aligned files of all inputs up to date.

    Raises:
        UsageError: two inputs would be one aligned file; nothing has been written then.
        CandlebeamError: nothing could be done at all. What goes wrong with a market is in the
            report.
    """
    candles = [file for path in request.inputs for file in _find(path)]
    wanted = [file for file in candles if _is_wanted(file, request)]
    others = [found for path in request.inputs for found in _other_bars(path)]
    items, failed = find_items(others, request)
    failed += [_no_bars(item) for item in items if item.timeframe is None]
    bars = [item for item in items if item.timeframe is not None]
    if not wanted and not bars and not failed:
        raise request.nothing("bars")
    return request.run(_distinct(wanted, bars, request.options), _align, failed)


def _align(item: str | ResampleItem, options: AlignOptions) -> BarsOutcome:
    if isinstance(item, str):
        return align_candles(item, options)
    return resample_item(item, _same_length(item, options))


def _same_length(item: ResampleItem, options: AlignOptions) -> ResampleOptions:
    """How bars that are no candles become aligned files: resampled to what they are."""
    period = Period.parse(str(item.timeframe))
    return ResampleOptions(options.to, (period,), by_market=options.by_market, force=options.force)


def _no_bars(item: ResampleItem) -> BarsOutcome:
    return BarsOutcome(str(item), FAILED, "trades are no bars: resample them")


def _other_bars(path: str) -> list[BarInput]:
    """CSV and Databento files."""
    if not os.path.isdir(path):
        return find_bars(path, _OTHERS) if kind_of(path) in _OTHERS else []
    try:
        return find_bars(path, _OTHERS)
    except CandlebeamError:
        return []


def _find(out: str) -> Iterator[_CandleFile]:
    """The candle files of an output root, or the one that is named; aligned files are none."""
    if not os.path.isdir(out):
        if not os.path.exists(out):
            raise UsageError(f"{out}: no such file or folder")
        if kind_of(out) in _OTHERS:
            return
        stem, suffix = os.path.splitext(out)
        if suffix not in (".bin", ".json"):
            raise UsageError(
                f"{out}: expected a folder, the .bin or .json of a candle file, CSV or a Databento"
                " file of bars"
            )
        yield _CandleFile(f"{stem}.bin", _companion(CandlePaths(stem)))
        return
    for folder, folders, names in os.walk(out):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files = {os.path.splitext(name) for name in names if not name.startswith(".")}
        for name in sorted({stem for stem, suffix in files if suffix in (".bin", ".json")}):
            paths = CandlePaths(os.path.join(folder, name))
            companion = _companion(paths)
            # Other JSON may lie there as well.
            if companion or ((name, ".bin") in files and not _is_aligned(paths.records)):
                yield _CandleFile(paths.records, companion)


def _companion(paths: CandlePaths) -> Companion | None:
    try:
        journal = read_journal(paths)
        return journal.companion if journal else read_companion(paths.companion)
    except FormatError:
        return None


def _is_aligned(path: str) -> bool:
    return os.path.exists(AlignedPaths.beside(path).index)


def _is_wanted(file: _CandleFile, request: AlignRequest) -> bool:
    """Whether it is of a market that was asked for. Where nobody knows, the path says so."""
    parts = os.path.abspath(os.path.splitext(file.path)[0]).split(os.sep)[-3:]
    return request.wants(file.companion.market if file.companion else Market(*parts))


def _distinct(
    files: list[_CandleFile], items: list[ResampleItem], options: AlignOptions
) -> list[str | ResampleItem]:
    """All of them, each once; raises `UsageError` where two would be one aligned file."""
    distinct: list[str | ResampleItem] = []
    seen: set[str] = set()
    places: dict[str, str] = {}

    def take(place: str, name: str) -> None:
        other = places.setdefault(place, name)
        if other != name:
            hint = "" if options.by_market else "; --by-market keeps markets apart"
            raise UsageError(f"{other} and {name} would both be {place}{hint}")

    for file in files:
        real = os.path.realpath(file.path)
        if real in seen:
            continue
        seen.add(real)
        distinct.append(file.path)
        if file.companion is not None:
            market, timeframe = file.companion.market, file.companion.timeframe
            take(options.paths(market, timeframe).records, file.path)
    for item in items:
        distinct.append(item)
        how = _same_length(item, options)
        for market in item.markets:
            take(how.paths(market, how.periods[0]).records, f"{item} ({market})")
    return distinct
