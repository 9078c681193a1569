"""Checking bars of any kind of file: by themselves, and against their source."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from candlebeam.errors import CandlebeamError
from candlebeam.model import Bars, Int64Array, Timeframe
from candlebeam.pipelines.validation.report import Validation
from candlebeam.pipelines.validation.sources import VolumeSources, Wanted
from candlebeam.rules.checks import INFORMATION, BarChecker, Finding
from candlebeam.rules.inferred_timeframe import inferred_timeframe
from candlebeam.rules.period_calendar import PeriodCalendar
from candlebeam.rules.periods import Period
from candlebeam.rules.repeated_times import repeated_times
from candlebeam.rules.volumes import VolumeCheck

#: Gives bars from the first on, piece by piece, each with the place of its first one.
Pieces = Callable[[], Iterable[tuple[int, Bars]]]


@dataclass(frozen=True)
class ValidateOptions:
    """How to check.

    Attributes:
        period: the length of bars in files of which nothing else says it.
        tz: the zone at whose midnight days, weeks and months begin, where nothing else says it;
            None is UTC.
        any_price: whether prices of aligned and CSV files can be zero or negative.
        sources: what volumes are held against; None leaves that out.
    """

    period: Period | None = None
    tz: str | None = None
    any_price: bool = False
    sources: VolumeSources | None = None


def inferred_period(pieces: Iterable[tuple[int, Bars]]) -> Period | None:
    """The length of bars by their times; None if these do not tell."""
    for _, bars in pieces:
        timeframe = inferred_timeframe(bars.ts)
        return None if timeframe is None else Period.parse(str(timeframe))
    return None


def checker_of(period: Period | None, tz: str | None, *, any_price: bool) -> BarChecker:
    """The checker for bars of a length, which may not be known."""
    if period is None:
        return BarChecker(None, any_length=True, any_price=any_price)
    if _has_calendar(period, tz):
        return BarChecker(None, calendar=PeriodCalendar(period, tz), any_price=any_price)
    return BarChecker(Timeframe(period.ms), any_price=any_price)


def _has_calendar(period: Period, tz: str | None) -> bool:
    """Whether bars are not all of one length, or begin elsewhere than at its multiples."""
    return period.unit in ("w", "M") or (period.unit == "d" and tz is not None)


def check_all_bars(
    result: Validation, pieces: Pieces, checker: BarChecker, only: tuple[str, ...] = ()
) -> None:
    """Takes all bars through a checker, and adds what it has found to a result.

    What stands in front of a damaged place counts.

    Args:
        only: the checks that count; all of them by default.

    Raises:
        CandlebeamError: the bars cannot be read to their end.
    """
    whole = False
    try:
        for begin, bars in pieces():
            checker.add(begin, bars)
        whole = True
    finally:
        add_bar_checks(result, checker, only, whole=whole)
    if any(each.check == "order" for each in result.findings):
        # Then a bar may repeat another one that stands far in front of it.
        found = repeated_times(lambda: ((begin, bars.ts) for begin, bars in pieces()), checker.bars)
        others = [each for each in result.findings if each.check != "duplicates"]
        result.findings = [*others, *found]


def add_bar_checks(
    result: Validation, checker: BarChecker, only: tuple[str, ...] = (), *, whole: bool = True
) -> None:
    """Adds what a checker has found to a result.

    Args:
        only: the checks that count; all of them by default.
        whole: whether it has seen all bars; if not, that it has seen none is no finding.
    """
    result.bars, result.priced = checker.bars, checker.priced
    result.first_ts, result.last_ts = checker.first_ts, checker.last_ts
    if not (whole or checker.bars):
        return
    made = only or checker.checks
    result.add(made, [each for each in checker.finish() if each.check in made])
    if checker.bars > 1 and not result.timeframe:
        message = "nothing says how long the bars are: alignment and gaps were not checked"
        result.add(("timeframe",), [Finding(INFORMATION, "timeframe", 1, message)])


def check_volume(
    result: Validation,
    pieces: Pieces,
    wanted: Wanted,
    options: ValidateOptions,
    *,
    tz: str | None = None,
    closed: int | None = None,
) -> None:
    """Holds the volume of bars against that of their source, if there are sources.

    Args:
        tz: the zone at whose midnight days, weeks and months begin.
        closed: how many of the bars will never change; None means all.
    """
    if options.sources is None or not result.bars:
        return
    try:
        if any(each.check in ("order", "duplicates") for each in result.findings):
            problem = "the bars are not in order"
        else:
            match = options.sources.match(wanted)
            problem = match.problem
            if match.source is not None:
                result.source = match.source.path
                check = VolumeCheck(
                    pieces(),
                    match.source.pieces(),
                    ends=_ends(wanted.period, tz),
                    source_length=match.length,
                    closed=closed,
                    in_quote=match.in_quote,
                )
                result.add(("volume",), check.run())
    except (CandlebeamError, OSError) as error:
        problem = f"the source cannot be read: {error}"
    if problem:
        result.add(("volume",), [Finding(INFORMATION, "volume", 1, f"not compared: {problem}")])


def _ends(period: Period, tz: str | None) -> Callable[[Int64Array], Int64Array]:
    if _has_calendar(period, tz):
        return PeriodCalendar(period, tz).ends
    return lambda ts: ts + period.ms
