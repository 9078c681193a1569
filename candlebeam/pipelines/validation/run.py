"""Checking files of bars: all of them at some paths, on all processors."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from candlebeam.errors import UsageError
from candlebeam.pipelines.validation.bars import ValidateOptions
from candlebeam.pipelines.validation.files import validate_file
from candlebeam.pipelines.validation.inputs import discover
from candlebeam.pipelines.validation.report import Validation, ValidationReport
from candlebeam.pipelines.validation.series import check_series
from candlebeam.pipelines.validation.sources import VolumeSources
from candlebeam.rules.periods import Period, open_zone


@dataclass(frozen=True)
class ValidateRequest:
    """What to check.

    Attributes:
        paths: files, and folders that hold them at any depth.
        source: a file or folder of finer bars or trades, which volumes are held against; None
            leaves that out.
        timeframe: the length of bars in files of which nothing else says it.
        tz: the zone at whose midnight days, weeks and months begin; None is UTC.
        any_price: whether prices of aligned and CSV files can be zero or negative.
    """

    paths: tuple[str, ...]
    source: str | None = None
    timeframe: str | None = None
    tz: str | None = None
    any_price: bool = False

    def __post_init__(self) -> None:
        if not self.paths:
            raise UsageError("nothing to validate: expected files or folders")
        open_zone(self.tz)


def run_validate(request: ValidateRequest) -> ValidationReport:
    """Checks everything at the paths.

    What is wrong with a file, or with a path, is in the report.

    Raises:
        UsageError: the options make no sense.
        CandlebeamError: what the source holds cannot be found out.
    """
    started = time.monotonic()
    options = ValidateOptions(
        period=None if request.timeframe is None else Period.parse(request.timeframe),
        tz=request.tz,
        any_price=request.any_price,
        sources=None if request.source is None else VolumeSources(request.source),
    )
    found = discover(request.paths)
    check = partial(validate_file, options=options)
    # The kernels run without the GIL, so threads keep all processors busy.
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        results = _joined(pool.map(check, found.candidates))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    check_series(results)
    return ValidationReport(results, found.passed_over, time.monotonic() - started)


def _joined(results: Iterable[list[Validation]]) -> list[Validation]:
    return [validation for part in results for validation in part]
