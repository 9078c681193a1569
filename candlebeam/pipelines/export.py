"""From bars to Parquet, CSV and Arrow files."""

from __future__ import annotations

import os

from candlebeam.errors import CandlebeamError, UsageError
from candlebeam.formats.bar_inputs import CSV, DBN, BarInput, open_input
from candlebeam.formats.tables.places import name_of, period_of
from candlebeam.io.export_bars import ExportItem, ExportOptions, export_bars
from candlebeam.outcome import FAILED, BarsOutcome
from candlebeam.pipelines.bars_report import BarsReport
from candlebeam.pipelines.bars_request import BarsRequest, explained

ExportRequest = BarsRequest[ExportOptions]


def run_export(request: ExportRequest) -> BarsReport:
    """Brings the exported files of all markets up to date.

    Raises:
        UsageError: two markets would be one file; nothing has been written then.
        CandlebeamError: nothing could be done at all. What goes wrong with a market is in the
            report.
    """
    request.refuse_output_inside_input()
    items, failed = _find(request)
    if not items and not failed:
        raise request.nothing("bars")
    return request.run(items, export_bars, failed)


def _find(request: ExportRequest) -> tuple[list[ExportItem], list[BarsOutcome]]:
    """One item a market, and the inputs that cannot be opened."""
    items: dict[tuple[object, ...], ExportItem] = {}
    failed: list[BarsOutcome] = []
    for found in request.found():
        try:
            opened = [(s.market, period_of(found, s)) for s in open_input(found)]
        except (CandlebeamError, OSError) as error:
            if request.may_want(found):
                failed.append(BarsOutcome(str(found), FAILED, explained(error, found)))
            continue
        wanted = [each for each in opened if request.wants(each[0])]
        if found.kind == DBN and any(period is None for _, period in wanted):
            what = "trades are no bars: resample them first"
            failed.append(BarsOutcome(str(found), FAILED, what))
            continue
        for market, period in wanted:
            key = (market, period, *_joined_with(found))
            before = items[key].inputs if key in items else ()
            items[key] = ExportItem((*before, found), market, period)
    return _distinct(list(items.values()), request.options, failed), failed


def _joined_with(found: BarInput) -> tuple[str, ...]:
    """What inputs of one market have in common that are parts of its history.

    Databento files are, wherever they lie, and CSV files of one folder. Anything else is a history
    of its own.
    """
    if found.kind == DBN:
        return (DBN,)
    return (CSV, os.path.dirname(found.paths[0])) if found.kind == CSV else found.paths


def _distinct(
    items: list[ExportItem], options: ExportOptions, failed: list[BarsOutcome]
) -> list[ExportItem]:
    """The items that have a place, which goes to no other; raises `UsageError`."""
    places: dict[str, ExportItem] = {}
    for item in items:
        try:
            place = item.place(options)
        except UsageError as error:
            failed.append(BarsOutcome(str(item), FAILED, str(error)))
            continue
        other = places.setdefault(place.state, item)
        if other is item:
            continue
        same = item.market == other.market
        names = name_of(other.market), name_of(item.market)
        what = f"both {names[0]}" if same else " and ".join(names)
        hint = ""
        if options.form == CSV:
            what_apart = "timeframe" if same and item.period != other.period else "market"
            hint = f"; --by-{what_apart} keeps them apart"
        raise UsageError(
            f"{other} and {item} ({what}) would be the same files in {place.folder}{hint}"
        )
    return list(places.values())
