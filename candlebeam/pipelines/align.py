"""From candle files to aligned files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from candlebeam.errors import FormatError, UsageError
from candlebeam.formats.aligned.file import AlignedPaths
from candlebeam.formats.candles.companion import (
    CandlePaths,
    Companion,
    read_companion,
    read_journal,
)
from candlebeam.io.align_candles import AlignOptions, align_candles
from candlebeam.model import Market
from candlebeam.pipelines.bars_report import BarsReport
from candlebeam.pipelines.bars_request import BarsRequest

AlignRequest = BarsRequest[AlignOptions]


class _CandleFile(NamedTuple):
    """A candle file that was found; without its companion where that cannot be read."""

    path: str
    companion: Companion | None


def run_align(request: AlignRequest) -> BarsReport:
    """Brings the aligned files of all candle files up to date.

    Raises:
        UsageError: two candle files would be one aligned file; nothing has been written then.
        CandlebeamError: nothing could be done at all. What goes wrong with a market is in the
            report.
    """
    found = [file for path in request.inputs for file in _find(path)]
    wanted = [file for file in found if _is_wanted(file, request)]
    if not wanted:
        raise request.nothing("candle file")
    return request.run(_distinct(wanted, request.options), align_candles)


def _find(out: str) -> Iterator[_CandleFile]:
    """The candle files of an output root, or the one that is named; aligned files are none."""
    if not os.path.isdir(out):
        if not os.path.exists(out):
            raise UsageError(f"{out}: no such file or folder")
        stem, suffix = os.path.splitext(out)
        if suffix not in (".bin", ".json"):
            raise UsageError(f"{out}: expected a folder, or the .bin or .json of a candle file")
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


def _distinct(files: list[_CandleFile], options: AlignOptions) -> list[str]:
    """The paths of the files, each once; raises `UsageError` where two would be one."""
    paths: dict[str, str] = {}
    places: dict[str, _CandleFile] = {}
    for file in files:
        real = os.path.realpath(file.path)
        if real in paths:
            continue
        paths[real] = file.path
        if file.companion is None:
            continue
        place = options.paths(file.companion.market, file.companion.timeframe).records
        other = places.setdefault(place, file)
        if other is not file:
            hint = "" if options.by_market else "; --by-market keeps markets apart"
            raise UsageError(f"{other.path} and {file.path} would both be {place}{hint}")
    return list(paths.values())
