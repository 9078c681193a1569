"""From bars to Parquet, CSV and Arrow files."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from candlebeam.errors import CandlebeamError, UsageError
from candlebeam.formats.bar_inputs import CANDLES, CSV, DBN, BarInput, find_bars, open_input
from candlebeam.formats.tables.places import name_of, period_of
from candlebeam.io.export_bars import ExportItem, ExportOptions, export_bars
from candlebeam.model import Market
from candlebeam.outcome import FAILED, BarsOutcome
from candlebeam.pipelines.bars_report import BarsReport
from candlebeam.pipelines.each import run_each
from candlebeam.pipelines.lock import output_lock


@dataclass(frozen=True)
class ExportRequest:
    """What to do.

    Attributes:
        outs: output roots of backfills, candle files, or other bars; see `formats.bar_inputs`.
        options: where to, and how.
        collector, exchange, symbol: filters; None takes all.
        runner_config: a file with Beam options.
        beam_arguments: Beam options, which count more than those of the file.
    """

    outs: tuple[str, ...]
    options: ExportOptions
    collector: str | None = None
    exchange: str | None = None
    symbol: str | None = None
    runner_config: str | None = None
    beam_arguments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.outs:
            raise UsageError("nothing to export: expected output folders or files of bars")
        to = os.path.realpath(self.options.to)
        for out in self.outs:
            if os.path.isdir(out) and f"{to}/".startswith(f"{os.path.realpath(out)}/"):
                raise UsageError(f"--to {self.options.to} lies inside of {out}, which is exported")

    def wants(self, market: Market) -> bool:
        """Whether the filters let a market through."""
        return (
            (not self.collector or self.collector.upper() == market.collector)
            and (not self.exchange or self.exchange.upper() == market.exchange)
            and (not self.symbol or self.symbol == market.symbol)
        )


def run_export(request: ExportRequest) -> BarsReport:
    """Brings the exported files of all markets up to date.

    Raises:
        UsageError: two markets would be one file; nothing has been written then.
        CandlebeamError: nothing could be done at all. What goes wrong with a market is in the
            report.
    """
    started = time.monotonic()
    items, failed = _find(request)
    if not items and not failed:
        filters = [
            f"{name} {value}"
            for name in ("collector", "exchange", "symbol")
            if (value := getattr(request, name))
        ]
        of = f" of {', '.join(filters)}" if filters else ""
        raise CandlebeamError(f"{', '.join(request.outs)}: no bars{of}")
    to = request.options.to
    with output_lock(to):
        outcomes = run_each(
            items,
            partial(export_bars, options=request.options),
            out=to,
            beam_arguments=request.beam_arguments,
            runner_config=request.runner_config,
        )
    return BarsReport([*outcomes, *failed], seconds=time.monotonic() - started)


def _find(request: ExportRequest) -> tuple[list[ExportItem], list[BarsOutcome]]:
    """One item a market, and the inputs that cannot be opened."""
    items: dict[tuple[object, ...], ExportItem] = {}
    failed: list[BarsOutcome] = []
    for found in _inputs(request.outs):
        try:
            opened = [(s.market, period_of(found, s)) for s in open_input(found)]
        except (CandlebeamError, OSError) as error:
            if _may_be_wanted(found, request):
                failed.append(BarsOutcome(str(found), FAILED, _explained(error, found)))
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


def _inputs(outs: tuple[str, ...]) -> Iterator[BarInput]:
    """What there is to read, each once."""
    seen = set()
    for out in outs:
        for found in find_bars(out):
            key = tuple(os.path.realpath(path) for path in found.paths)
            if key not in seen:
                seen.add(key)
                yield found


def _joined_with(found: BarInput) -> tuple[str, ...]:
    """What inputs of one market have in common that are parts of its history.

    Databento files are, wherever they lie, and CSV files of one folder. Anything else is a history
    of its own.
    """
    if found.kind == DBN:
        return (DBN,)
    return (CSV, os.path.dirname(found.paths[0])) if found.kind == CSV else found.paths


def _may_be_wanted(found: BarInput, request: ExportRequest) -> bool:
    """Whether an input that cannot be opened is of a market that was asked for."""
    if found.kind != CANDLES:
        return True
    parts = os.path.abspath(os.path.splitext(found.paths[0])[0]).split(os.sep)[-3:]
    return len(parts) < 3 or request.wants(Market(*parts))


def _explained(error: Exception, found: BarInput) -> str:
    if isinstance(error, OSError) and not isinstance(error, CandlebeamError):
        return f"{error.filename or found}: {error.strerror or error}"
    return str(error)


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
