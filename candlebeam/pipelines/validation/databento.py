"""Checking a Databento file: all of its instruments in one reading."""

from __future__ import annotations

from dataclasses import replace

from candlebeam.errors import FormatError
from candlebeam.formats.bar_inputs import DBN
from candlebeam.formats.dbn.reader import open_dbn_bars
from candlebeam.formats.dbn.records import Choice, DbnRecords
from candlebeam.market import Market
from candlebeam.pipelines.validation.bars import ValidateOptions, add_bar_checks, check_volume
from candlebeam.pipelines.validation.report import Validation
from candlebeam.pipelines.validation.sources import Wanted, file_name
from candlebeam.rules.checks import INFORMATION, WARNING, BarChecker, Finding
from candlebeam.rules.periods import Period

_BATCH_ROWS = 1 << 16


def check_databento_file(results: list[Validation], options: ValidateOptions) -> None:
    """Checks the bars or trades of a file, by instrument.

    Prices of zero and less are good. Several bars of one time are information, as Databento keeps
    one a venue. Records that are no bars or trades are warnings.

    Args:
        results: one, for the whole file; afterwards one for each instrument that has records.

    Raises:
        CandlebeamError: it cannot be read, or not to its end; the results have what was read.
    """
    (whole,) = results
    sources = {source.market: source for source in open_dbn_bars(whole.path)}
    timeframe = next(iter(sources.values())).timeframe
    whole.timeframe = "trades" if timeframe is None else str(timeframe)
    records = DbnRecords(
        whole.path,
        lambda head, symbol: (head.market(symbol), Choice()),
        any_price=True,
        bars=True,
        batch_rows=_BATCH_ROWS,
    )
    checkers: dict[Market, BarChecker] = {}
    for number in records:
        checker = checkers.setdefault(records.keys[number], BarChecker(timeframe, any_price=True))
        checker.add(checker.bars, records.take_bars(number))
    rejected = {market: records.rejected(number) for number, market in enumerate(records.keys)}
    for market in sorted(market for market in rejected if market in checkers or rejected[market]):
        result = Validation(
            whole.path, whole.kind, str(market), whole.timeframe, checks=["readable"]
        )
        checker = checkers.get(market) or BarChecker(timeframe, any_price=True)
        add_bar_checks(result, checker)
        result.findings = [_of_venues(finding) for finding in result.findings]
        result.add(("rejected",), _rejected(rejected[market]))
        if timeframe is not None:
            wanted = Wanted(whole.path, DBN, file_name(market.symbol), market, _period(timeframe))
            check_volume(result, sources[market].pieces, wanted, options)
        results.append(result)
    if len(results) > 1:
        del results[0]
    else:
        add_bar_checks(whole, BarChecker(timeframe, any_price=True), whole=records.damage is None)
    results[0].add(("symbols",), _unmapped(records.unmapped))
    if records.damage is not None:
        raise FormatError(whole.path, "a whole file", records.damage)


def _period(timeframe: object) -> Period:
    return Period.parse(str(timeframe))


def _of_venues(finding: Finding) -> Finding:
    if finding.check != "duplicates":
        return finding
    message = f"{finding.message}, as bars of several venues do"
    return replace(finding, severity=INFORMATION, message=message)


def _rejected(reasons: tuple[tuple[str, int], ...]) -> list[Finding]:
    if not reasons:
        return []
    message = "records that are no bars or trades, by what is wrong with them: "
    message += ", ".join(f"{reason} {count:,}" for reason, count in reasons)
    return [Finding(WARNING, "rejected", sum(count for _, count in reasons), message)]


def _unmapped(count: int) -> list[Finding]:
    if not count:
        return []
    message = "records in the file of instruments without a symbol"
    return [Finding(WARNING, "symbols", count, message)]
