"""What symbols stand for at Databento."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from candlebeam.pipelines.databento.client import Client, Interval
from candlebeam.pipelines.databento.failures import ApiError
from candlebeam.pipelines.databento.info import table
from candlebeam.rules.contracts import (
    INSTRUMENT_ID,
    RAW_SYMBOL,
    describe,
    forms_of_root,
    guess_stype,
    requested_form,
)
from candlebeam.rules.months import NS_PER_DAY, Span, time_text

#: Symbols that the API takes in one request.
MOST_SYMBOLS = 2_000
_HEAD = ("symbol", "type", "from", "before", "instrument", "raw symbol")


class Named(NamedTuple):
    """A symbol, as the API is asked for it, and its type."""

    symbol: str
    stype: str


@dataclass
class Resolved:
    """What became of one symbol.

    Attributes:
        intervals: what it stands for; empty if it was not found.
        partial: whether it stands for nothing in a part of the time.
        error: what the API said, if it refused the symbol.
    """

    intervals: list[Interval] = field(default_factory=list)
    partial: bool = False
    error: str | None = None


@dataclass
class SymbolTable:
    """What is to be told of some symbols.

    Attributes:
        lines: for the reader.
        missing: symbols that were not found, in sentences.
    """

    lines: list[str]
    missing: list[str]


def named(symbols: Iterable[str], stype: str | None) -> list[Named]:
    """Symbols with their types, each once, as the API is asked for them.

    Args:
        stype: the type of all; None means what the form of each speaks for.

    >>> named(["spy", "ES.V.0", "SPY"], None)
    [Named(symbol='SPY', stype='raw_symbol'), Named(symbol='ES.v.0', stype='continuous')]
    """
    found: dict[Named, None] = {}
    for symbol in symbols:
        its = stype or guess_stype(symbol.strip())
        found[Named(requested_form(symbol, its), its)] = None
    return list(found)


def whole_days(span: Span) -> Span:
    """The days that a range has a part of."""
    return Span(span.start // NS_PER_DAY * NS_PER_DAY, -(-span.end // NS_PER_DAY) * NS_PER_DAY)


def resolve_all(
    client: Client, dataset: str, symbols: Sequence[Named], days: Span
) -> dict[Named, Resolved]:
    """What each symbol stands for. A symbol that the API refuses has its error, no more.

    Raises:
        ApiError: no request is answered.
    """
    found: dict[Named, Resolved] = {}
    for stype in dict.fromkeys(symbol.stype for symbol in symbols):
        alike = [symbol for symbol in symbols if symbol.stype == stype]
        for begin in range(0, len(alike), MOST_SYMBOLS):
            found |= _resolve_alike(client, dataset, alike[begin : begin + MOST_SYMBOLS], days)
    return found


def describe_symbols(
    client: Client, dataset: str, symbols: Sequence[Named], days: Span
) -> SymbolTable:
    """What symbols stand for in some days, and how contracts of a root are named."""
    resolved = resolve_all(client, dataset, symbols, days)
    roots: dict[Named, list[Named]] = {}
    for symbol in symbols:
        if symbol.stype == RAW_SYMBOL and not resolved[symbol].intervals:
            forms = [Named(*form) for form in forms_of_root(symbol.symbol)]
            for form in forms:
                resolved |= resolve_all(client, dataset, [form], days)
            roots[symbol] = [form for form in forms if resolved[form].intervals]
    shown = list(dict.fromkeys([*symbols, *(form for forms in roots.values() for form in forms)]))
    names = _raw_symbols(client, dataset, [resolved[symbol] for symbol in shown], days)
    rows = [row for symbol in shown for row in _rows(symbol, resolved[symbol], names)]
    lines = list(table(_HEAD, rows)) if rows else []
    lines += _remarks(shown, resolved, roots)
    missing = [
        _missing(symbol, resolved[symbol], dataset, days)
        for symbol in symbols
        if not resolved[symbol].intervals
    ]
    return SymbolTable(lines, missing)


def _resolve_alike(
    client: Client, dataset: str, symbols: Sequence[Named], days: Span
) -> dict[Named, Resolved]:
    """Symbols of one type; one by one, where one of them makes the API refuse them together."""
    try:
        answer = client.resolve(dataset, [s.symbol for s in symbols], symbols[0].stype, days)
    except ApiError as error:
        if error.hits_everything or error.status is None or error.status >= 500:
            raise
        if len(symbols) == 1:
            return {symbols[0]: Resolved(error=str(error))}
        found: dict[Named, Resolved] = {}
        for symbol in symbols:
            found |= _resolve_alike(client, dataset, [symbol], days)
        return found
    return {
        symbol: Resolved(
            [each for each in answer.intervals.get(symbol.symbol, []) if each.symbol],
            symbol.symbol in answer.partial,
        )
        for symbol in symbols
    }


def _raw_symbols(
    client: Client, dataset: str, resolved: Iterable[Resolved], days: Span
) -> dict[str, list[Interval]]:
    """What instruments are called. Without an answer they have no name here."""
    numbers = list(dict.fromkeys(each.symbol for r in resolved for each in r.intervals))
    instruments = [Named(n, INSTRUMENT_ID) for n in numbers if n.isdigit()]
    try:
        answers = resolve_all(client, dataset, instruments, days)
    except ApiError:
        return {}
    return {symbol.symbol: found.intervals for symbol, found in answers.items()}


def _rows(
    symbol: Named, resolved: Resolved, names: dict[str, list[Interval]]
) -> Iterator[tuple[str, ...]]:
    for days, found in sorted(resolved.intervals):
        number, raw = found, ""
        if symbol.stype == INSTRUMENT_ID:
            number, raw = symbol.symbol, found
        else:
            called = [each.symbol for each in names.get(found, []) if each.days.within(days)]
            raw = ", ".join(dict.fromkeys(called)) or "-"
        yield (*symbol, time_text(days.start), time_text(days.end), number, raw)


def _remarks(
    shown: Iterable[Named], resolved: dict[Named, Resolved], roots: dict[Named, list[Named]]
) -> Iterator[str]:
    for symbol in shown:
        if resolved[symbol].intervals and (text := describe(*symbol)):
            yield f"{symbol.symbol}: {text}"
        if resolved[symbol].partial:
            yield f"{symbol.symbol}: in a part of the time only"
    for root, forms in roots.items():
        if forms:
            yield f"{root.symbol} is a root; ask for one of its contracts, or for a form above"


def _missing(symbol: Named, resolved: Resolved, dataset: str, days: Span) -> str:
    if resolved.error:
        return resolved.error
    return f"{symbol.symbol}: not found in {dataset} as {symbol.stype}, {days}"
