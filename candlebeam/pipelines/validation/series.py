"""How files go on from each other: the months of one instrument as CSV."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import pairwise

from candlebeam.formats.csv.bars import CsvName
from candlebeam.pipelines.validation.report import Validation
from candlebeam.rules.checks import ERROR, INFORMATION, Finding, Place, format_ts
from candlebeam.rules.periods import Period


def check_series(results: Iterable[Validation]) -> None:
    """Adds to each month file, as the check `series`, how it goes on from the one before it.

    That it begins before that one ends is an error; that bars are missing between them is
    information.
    """
    series: dict[tuple[str, str, str], list[tuple[str, Validation]]] = {}
    for result in results:
        month = CsvName.of(result.path).month if result.path.lower().endswith(".csv") else None
        if month is not None and result.bars:
            key = (os.path.dirname(result.path), result.name, result.timeframe)
            series.setdefault(key, []).append((month, result))
    for files in series.values():
        files.sort(key=lambda file: (file[0], file[1].path))
        for (_, before), (_, result) in pairwise(files):
            result.add(("series",), _neighbours(before, result))


def _neighbours(before: Validation, result: Validation) -> list[Finding]:
    assert before.last_ts is not None
    assert result.first_ts is not None
    last, first = before.last_ts, result.first_ts
    if first <= last:
        message = f"begins before {before.path} ends"
        place = Place(0, first, f"a start after {format_ts(last)}", format_ts(first))
        return [Finding(ERROR, "series", 1, message, (place,))]
    missing = (first - last) // Period.parse(result.timeframe).ms - 1 if result.timeframe else 0
    if missing > 0:
        message = f"bars missing behind {before.path}: {missing}"
        place = Place(0, first, f"a bar soon after {format_ts(last)}", format_ts(first))
        return [Finding(INFORMATION, "series", 1, message, (place,))]
    return []
