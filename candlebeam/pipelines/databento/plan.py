"""What there is to download, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from candlebeam.errors import CandlebeamError
from candlebeam.pipelines.databento.client import Availability, Client, Interval
from candlebeam.pipelines.databento.failures import ApiError
from candlebeam.pipelines.databento.files import MonthFile, Stored, stored
from candlebeam.pipelines.databento.info import table
from candlebeam.pipelines.databento.symbols import Named, resolve_all, whole_days
from candlebeam.pipelines.wording import counted
from candlebeam.rules.contracts import ALL_SYMBOLS
from candlebeam.rules.months import Span, months_of, time_text

#: Of a sum in dollars; what is behind them is noise of adding up.
_DECIMALS = 6


@dataclass(frozen=True)
class FetchRequest:
    """What is wanted.

    Attributes:
        out: the root of all downloads.
        dataset, schema: as the API names them.
        symbols: each once.
        span: from when to before when.
        csv: whether CSV files are wanted beside the data.
        verify: whether files that are there are read to their end.
        count: whether the API is asked how many records each file has to have.
    """

    out: str
    dataset: str
    schema: str
    symbols: tuple[Named, ...]
    span: Span
    csv: bool = False
    verify: bool = False
    count: bool = True


@dataclass(frozen=True)
class Planned:
    """A file to download.

    Attributes:
        file: where it goes.
        span: what is asked for: the part of the month that is wanted, and whatever of it is there.
    """

    file: MonthFile
    span: Span


@dataclass
class Plan:
    """What there is to do for a request.

    Attributes:
        fetch: files to download, symbol by symbol, in order of time.
        here: files that have all that is wanted.
        unlisted: months in which the symbol stands for nothing.
        failed: what cannot be had, and why, in sentences.
        costs: US dollars, by symbol, of what is to be downloaded.
        notes: what the user should know, in sentences.
    """

    fetch: list[Planned] = field(default_factory=list)
    here: list[MonthFile] = field(default_factory=list)
    unlisted: list[MonthFile] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    costs: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def cost(self) -> float:
        """US dollars in all."""
        return sum(self.costs.values())


def make_plan(client: Client, request: FetchRequest) -> Plan:
    """Finds out what is available, what is there already, and what the rest costs.

    Raises:
        CandlebeamError: nothing of the range is available.
        ApiError: no request is answered.
    """
    plan = Plan()
    span = _available(client.available(request.dataset), request, plan.notes)
    known = [symbol for symbol in request.symbols if symbol.symbol != ALL_SYMBOLS]
    resolved = resolve_all(client, request.dataset, known, whole_days(span))
    for symbol in request.symbols:
        found = resolved.get(symbol)
        if found and not found.intervals and not found.error:
            place = f"{request.dataset} as {symbol.stype}"
            plan.failed.append(f"{symbol.symbol}: not found in {place}, {span}")
            continue
        for month in months_of(span):
            file = MonthFile(request.out, request.dataset, request.schema, *symbol, month)
            _add(plan, request, file, month.span.within(span), found.intervals if found else [])
    _add_costs(client, plan)
    return plan


def cost_table(plan: Plan) -> Iterator[str]:
    """The lines that say what is to be downloaded and what it costs, by symbol and in all."""
    rows = []
    for symbol, cost in plan.costs.items():
        spans = [planned.span for planned in plan.fetch if planned.file.symbol == symbol]
        first, last = time_text(spans[0].start), time_text(spans[-1].end)
        rows.append((symbol, f"{len(spans)}", first, last, f"{cost:.2f}"))
    if rows:
        rows.append(("total", f"{len(plan.fetch)}", "", "", f"{plan.cost:.2f}"))
        yield from table(("symbol", "files", "from", "before", "USD"), rows)


def check_cost(plan: Plan, most: float | None) -> None:
    """Raises `CandlebeamError` if a plan costs more than it may, in US dollars."""
    if most is not None and round(plan.cost, _DECIMALS) > round(most, _DECIMALS):
        raise CandlebeamError(
            f"{counted(len(plan.fetch), 'file')} would cost ${_exact(plan.cost)},"
            f" more than --max-cost ${_exact(most)}: nothing was fetched"
        )


def _exact(dollars: float) -> str:
    """With cents, and with as much below a cent as it takes to tell two sums apart."""
    whole, _, rest = f"{dollars:.{_DECIMALS}f}".partition(".")
    return f"{whole}.{rest.rstrip('0').ljust(2, '0')}"


def _available(available: Availability, request: FetchRequest, notes: list[str]) -> Span:
    """The part of the range for which there is data."""
    whole = available.of(request.schema)
    span = request.span.within(whole)
    name = f"{request.dataset} {request.schema}"
    if not span:
        raise CandlebeamError(f"nothing of {request.span} is available: {name} has {whole}")
    if span.start > request.span.start:
        notes.append(f"{name} begins at {time_text(span.start)}; what is before it is left out")
    if span.end < request.span.end:
        notes.append(f"{name} ends before {time_text(span.end)} for now; the rest is left out")
    return span


def _add(
    plan: Plan, request: FetchRequest, file: MonthFile, wanted: Span, listed: Sequence[Interval]
) -> None:
    """Puts a file where it belongs in the plan.

    Args:
        listed: when the symbol stands for something; empty if that is not known.
    """
    try:
        found = stored(file, verify=request.verify, take_short=not request.count)
    except CandlebeamError as error:
        plan.failed.append(str(error))
        return
    except OSError as error:
        plan.failed.append(f"{file.data}: {error.strerror or error}")
        return
    span = _to_fetch(found, wanted)
    if span is None:
        plan.here.append(file)
    elif listed and not any(interval.days.within(span) for interval in listed):
        plan.unlisted.append(file)
    else:
        if found.damage:
            plan.notes.append(f"{found.damage}; it is fetched again")
        plan.fetch.append(Planned(file, span))


def _to_fetch(found: Stored, wanted: Span) -> Span | None:
    """What to ask for, so that the file has what is wanted and what it had; None if it has."""
    if found.fetched is None:
        return wanted
    there = found.fetched.span
    if there.covers(wanted):
        return None
    return Span(min(there.start, wanted.start), max(there.end, wanted.end))


def _add_costs(client: Client, plan: Plan) -> None:
    for symbol in dict.fromkeys(planned.file.symbol for planned in plan.fetch):
        its = [planned for planned in plan.fetch if planned.file.symbol == symbol]
        try:
            queries = [its[0].file.query(span) for span in _runs([p.span for p in its])]
            plan.costs[symbol] = sum(client.cost(query) for query in queries)
        except ApiError as error:
            if error.hits_everything:
                raise
            plan.fetch = [planned for planned in plan.fetch if planned not in its]
            plan.failed.append(str(error))


def _runs(spans: Sequence[Span]) -> list[Span]:
    """Ranges that follow each other, as one."""
    found: list[Span] = []
    for span in spans:
        if found and found[-1].end == span.start:
            found[-1] = Span(found[-1].start, span.end)
        else:
            found.append(span)
    return found
