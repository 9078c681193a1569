"""From bars and trades to bars of other periods."""

from __future__ import annotations

import os
from collections.abc import Sequence

from candlebeam.errors import UsageError
from candlebeam.io.resample_bars import ResampleItem, resample_item
from candlebeam.io.resample_outputs import ALIGNED, ResampleOptions
from candlebeam.model import Market
from candlebeam.outcome import BarsOutcome
from candlebeam.pipelines.bar_items import find_items
from candlebeam.pipelines.bars_report import BarsReport
from candlebeam.pipelines.bars_request import BarsRequest
from candlebeam.rules.resample import check_periods

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
    items, failed = find_items(request.found(), request, len(request.options.periods))
    for item in items:
        try:
            check_periods(request.options.periods, item.timeframe)
        except UsageError as error:
            raise UsageError(f"{item}: {error}") from None
    return items, failed


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
