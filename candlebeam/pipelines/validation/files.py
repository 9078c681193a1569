"""Checking one file of any kind."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from candlebeam.errors import CandlebeamError, FormatError
from candlebeam.formats.aligned.checks import ALIGNED_CHECKS, AlignedCheck
from candlebeam.formats.aligned.state import AlignedPaths, read_sidecar
from candlebeam.formats.bar_inputs import ALIGNED, CANDLES, CSV, DBN
from candlebeam.formats.candles.checks import CANDLE_CHECKS, PAIR_CHECKS, check_candles, check_pair
from candlebeam.formats.candles.companion import CandlePaths
from candlebeam.formats.candles.file import open_candles
from candlebeam.formats.dbn.metadata import COLLECTOR
from candlebeam.model import Bars, Market
from candlebeam.pipelines.validation.bars import (
    ValidateOptions,
    check_all_bars,
    check_volume,
    checker_of,
    inferred_period,
)
from candlebeam.pipelines.validation.inputs import UNKNOWN, Candidate, period_of_folder
from candlebeam.pipelines.validation.report import Validation
from candlebeam.pipelines.validation.sources import Wanted, file_name
from candlebeam.rules.checks import ERROR, KEPT_PLACES, WARNING, BarChecker, Finding, Place, one
from candlebeam.rules.periods import Period

_KINDS = {
    CANDLES: "candle file",
    ALIGNED: "aligned file",
    CSV: "CSV file",
    DBN: "Databento file",
    UNKNOWN: "unknown",
}
#: Of the checks of bars, those of a candle file that its own checks leave.
_OF_CANDLES = ("bars", "alignment", "high", "low", "gaps")


def validate_file(candidate: Candidate, options: ValidateOptions) -> list[Validation]:
    """Checks a file: one result, or one for each instrument of a Databento file.

    Whatever is wrong with the file is in the result.
    """
    results = [Validation(candidate.path, _KINDS[candidate.kind], checks=["readable"])]
    if candidate.problem:
        expected = "candles, aligned bars, CSV or Databento files"
        results[0].add((), [one(ERROR, "readable", "no bars", expected, candidate.problem)])
        return results
    try:
        _BY_KIND[candidate.kind](results, options)
    except (CandlebeamError, OSError) as error:
        results[0].findings.insert(0, _unreadable(error))
    return results


def _unreadable(error: CandlebeamError | OSError) -> Finding:
    message = "cannot be read, or not to its end"
    if isinstance(error, FormatError):
        place = "" if error.offset is None else f" at byte {error.offset}"
        return one(ERROR, "readable", message, error.expected, f"{error.found}{place}")
    reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    return one(ERROR, "readable", message, "a file that can be read", reason)


# The kinds. Each has the result for the whole file to begin with.


def _check_candle_file(results: list[Validation], options: ValidateOptions) -> None:
    from candlebeam.formats.candles.source import CandleSource

    (result,) = results
    paths = CandlePaths(os.path.splitext(result.path)[0])
    findings = check_pair(paths)
    unknown_size = any(each.check == "companion" for each in findings)
    result.add((each for each in PAIR_CHECKS if each != "size" or not unknown_size), findings)
    if result.has(ERROR):
        return
    candles, source = open_candles(paths.records), CandleSource(paths.records)
    market = source.market
    result.name, result.timeframe = "/".join(filter(None, market)), str(source.timeframe)
    result.add(CANDLE_CHECKS, check_candles(candles, paths.records))
    check_all_bars(result, source.pieces, BarChecker(source.timeframe), _OF_CANDLES)
    period = Period.parse(result.timeframe)
    wanted = Wanted(result.path, CANDLES, file_name(market.symbol), market, period)
    check_volume(result, source.pieces, wanted, options, closed=source.closed)


def _check_aligned_file(results: list[Validation], options: ValidateOptions) -> None:
    (result,) = results
    paths = AlignedPaths.beside(result.path)
    result.name = paths.name
    check = AlignedCheck(paths)
    result.add(ALIGNED_CHECKS, check.findings)
    market, tz = _origin(paths)
    tz = tz or options.tz
    period = period_of_folder(result.path) or options.period or inferred_period(check.pieces())
    result.timeframe = str(period or "")
    # Of what Databento has, spreads and some commodities have such prices.
    any_price = options.any_price or (market is not None and market.collector == COLLECTOR)
    check_all_bars(result, check.pieces, checker_of(period, tz, any_price=any_price))
    result.add((), check.padding)
    if period is not None:
        wanted = Wanted(result.path, ALIGNED, paths.name, market, period)
        check_volume(result, check.pieces, wanted, options, tz=tz, closed=check.committed)


def _origin(paths: AlignedPaths) -> tuple[Market | None, str | None]:
    """The market and the time zone that an aligned file was made of, as far as it says so."""
    try:
        sidecar = read_sidecar(paths)
    except FormatError:
        return None, None
    if sidecar is None:
        return None, None
    parts = sidecar.source.split("/", 2)
    tz = sidecar.settings.get("timezone")
    market = Market(*parts) if len(parts) == 3 and all(parts) else None
    return market, tz if isinstance(tz, str) else None


def _check_csv_file(results: list[Validation], options: ValidateOptions) -> None:
    from candlebeam.formats.csv.bars import CsvBars, CsvName

    (result,) = results
    name = CsvName.of(result.path)
    source = CsvBars((result.path,), strict=False)
    period = name.period or period_of_folder(result.path) or options.period
    market = source.market
    # The bar that may still change, as `resample` writes it.
    is_open = name.month is None and market.symbol.endswith(f"_{period}_open")
    if is_open:
        market = market._replace(symbol=market.symbol.removesuffix(f"_{period}_open"))
    result.name = market.symbol
    period = period or inferred_period(source.pieces())
    result.timeframe = str(period or "")
    months = None if name.month is None else _MonthCheck(name.month)

    def pieces() -> Iterator[tuple[int, Bars]]:
        for begin, bars in source.pieces():
            if months is not None:
                months.add(begin, bars)
            yield begin, bars

    try:
        checker = checker_of(period, options.tz, any_price=options.any_price)
        check_all_bars(result, pieces, checker)
    finally:
        if months is not None:
            result.add(("month",), months.findings())
    if period is not None:
        wanted = Wanted(result.path, CSV, file_name(market.symbol), market, period)
        closed = 0 if is_open else None
        check_volume(result, source.pieces, wanted, options, tz=options.tz, closed=closed)


def _check_databento_file(results: list[Validation], options: ValidateOptions) -> None:
    from candlebeam.pipelines.validation.databento import check_databento_file

    check_databento_file(results, options)


_BY_KIND = {
    CANDLES: _check_candle_file,
    ALIGNED: _check_aligned_file,
    CSV: _check_csv_file,
    DBN: _check_databento_file,
}


class _MonthCheck:
    """Looks for bars outside of the month that the name of their file says.

    Args:
        month: such as 2024_01, in UTC.
    """

    def __init__(self, month: str) -> None:
        begin = np.datetime64(month.replace("_", "-"), "M")
        self._month = str(begin)
        first, end = (moment.astype("datetime64[ms]") for moment in (begin, begin + 1))
        self._first, self._end = int(first.astype(np.int64)), int(end.astype(np.int64))
        self._count = self._seen = 0
        self._places: list[Place] = []

    def add(self, begin: int, bars: Bars) -> None:
        """Takes some bars; those that it has seen are passed over."""
        if begin < self._seen:
            return
        self._seen = begin + len(bars)
        outside = np.flatnonzero((bars.ts < self._first) | (bars.ts >= self._end))
        self._count += len(outside)
        for place in outside[: KEPT_PLACES - len(self._places)].tolist():
            ts = int(bars.ts[place])
            month = str(np.datetime64(ts, "ms").astype("datetime64[M]"))
            self._places.append(Place(begin + place, ts, f"a bar of {self._month}", month))

    def findings(self) -> list[Finding]:
        """One, or none."""
        if not self._count:
            return []
        message = "not of the month that the name of the file says"
        return [Finding(WARNING, "month", self._count, message, tuple(self._places))]
