"""`databento`: what Databento has, and downloads from it."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from candlebeam.cli.running import Interruption
from candlebeam.errors import CandlebeamError, UsageError

if TYPE_CHECKING:
    from candlebeam.pipelines.databento.client import Client

_RETRIES, _WAIT, _TIMEOUT = 5, 1.0, 100.0
_START_HELP = "From this month, day or time on: 2024-03, 2024-03-01, 2024-03-01T09:30; UTC."
_END_HELP = (
    "The last month or day, which is whole: 2024-03 and 2024-03-31 end at the same moment. Or a"
    " time, which is where it ends. (The API itself leaves out the day that it is given as end.)"
)
_STYPE_HELP = "The type of all symbols, such as continuous; by default their form tells."


def _api_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options of all requests."""
    for option in (
        click.option(
            "--timeout", type=click.FloatRange(min=0, min_open=True), default=_TIMEOUT,
            show_default=True, metavar="S", help="Seconds to wait for the next part of an answer.",
        ),
        click.option(
            "--retry-wait", type=click.FloatRange(min=0, max=3600), default=_WAIT,
            show_default=True, metavar="S", help="Seconds before the first repetition.",
        ),
        click.option(
            "--retries", type=click.IntRange(0, 100), default=_RETRIES, show_default=True,
            metavar="N", help="How often a request is repeated that fails in passing.",
        ),
        click.option(
            "--gateway", envvar="DATABENTO_GATEWAY", metavar="URL",
            help="Another address of the API. Also: DATABENTO_GATEWAY in the environment.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


@click.group()
def databento() -> None:
    """See what Databento has, and download it.

    The key is DATABENTO_API_KEY in the environment, or in .env of the working folder.
    """


@databento.command()
@_api_options
def ping(**api: Any) -> None:
    """Say whether the key works."""
    client = _client(**api)
    from candlebeam.pipelines.databento.info import ping as say

    click.echo(say(client))


@databento.command()
@_api_options
def datasets(**api: Any) -> None:
    """List the datasets, with the range of time that the key gives of each."""
    client = _client(**api)
    from candlebeam.pipelines.databento.info import list_datasets

    _show(list_datasets(client))


@databento.command()
@click.argument("dataset")
@_api_options
def schemas(dataset: str, **api: Any) -> None:
    """List the schemas of DATASET, with their ranges and prices."""
    client = _client(**api)
    from candlebeam.pipelines.databento.info import list_schemas

    _show(list_schemas(client, dataset))


@databento.command()
@click.argument("dataset")
@click.argument("symbols", nargs=-1, required=True, metavar="SYMBOL...")
@click.option("--date", "day", metavar="DATE", help="On this day, or in this month.")
@click.option("--start", metavar="T", help=_START_HELP)
@click.option("--end", metavar="T", help=_END_HELP)
@click.option("--stype-in", metavar="TYPE", help=_STYPE_HELP)
@_api_options
def symbols(
    dataset: str,
    symbols: tuple[str, ...],
    day: str | None,
    start: str | None,
    end: str | None,
    stype_in: str | None,
    **api: Any,
) -> None:
    """Show what each SYMBOL of DATASET stands for, and when.

    A raw symbol names one contract (ESH4), a parent all of a root (ES.FUT), and a continuous one
    the first or a later one by expiry (ES.c.0), volume (ES.v.0) or open interest (ES.n.0). Without
    a date it is the last whole day that the dataset has.
    """
    from candlebeam.rules.months import NS_PER_DAY, Span, parse_end, parse_start

    if day and (start or end):
        raise UsageError("--date and --start or --end: expected one way to choose the days")
    if bool(start) != bool(end):
        raise UsageError("--start and --end: expected both or neither")
    first, last = day or start, day or end
    span = Span(parse_start(first), parse_end(last)) if first and last else None
    if span is not None and not span:
        raise UsageError(f"--start {start} --end {end}: expected an end after the start")
    client = _client(**api)
    from candlebeam.pipelines.databento.symbols import describe_symbols, named, whole_days

    chosen = named(_checked(symbols), _checked_stype(stype_in))
    if span is None:
        midnight = client.available(dataset).span.end // NS_PER_DAY * NS_PER_DAY
        span = Span(midnight - NS_PER_DAY, midnight)
    found = describe_symbols(client, dataset, chosen, whole_days(span))
    _show(found.lines)
    _fail_with(found.missing)


@databento.command()
@click.option("--dataset", required=True, metavar="D", help="Such as GLBX.MDP3.")
@click.option(
    "--symbols", required=True, metavar="A,B,...", help="Symbols; ALL_SYMBOLS for all there are."
)
@click.option("--schema", required=True, metavar="S", help="Such as ohlcv-1s or trades.")
@click.option("--start", required=True, metavar="T", help=_START_HELP)
@click.option("--end", required=True, metavar="T", help=_END_HELP)
@click.option("--out", required=True, type=click.Path(), help="The folder of the downloads.")
@click.option("--stype-in", metavar="TYPE", help=_STYPE_HELP)
@click.option("--csv", is_flag=True, help="Write CSV files beside the downloads.")
@click.option(
    "--max-cost", type=click.FloatRange(min=0), metavar="USD",
    help="Fetch nothing if all of it costs more than this.",
)  # fmt: skip
@click.option("--yes", is_flag=True, help="Do not ask, on a terminal, before it costs something.")
@click.option("--verify", is_flag=True, help="Read files that are there to their end.")
@click.option(
    "--no-count", is_flag=True, help="Do not hold downloads against the API's record count."
)
@_api_options
def fetch(
    dataset: str,
    symbols: str,
    schema: str,
    start: str,
    end: str,
    out: str,
    stype_in: str | None,
    csv: bool,
    max_cost: float | None,
    yes: bool,
    verify: bool,
    no_count: bool,
    **api: Any,
) -> None:
    """Download data, month by month and symbol by symbol, as Databento delivers it.

    Files are {out}/{dataset}/{schema}/{symbol}/{symbol}_{YYYY}_{MM}.dbn.zst. What is there already
    is not fetched again, so the same command goes on after an interruption, and later adds what
    has come in between. What it costs is shown first.
    """
    from candlebeam.rules.months import Span, months_of, parse_end, parse_start

    span = Span(parse_start(start), parse_end(end))
    if not span:
        raise UsageError(f"--start {start} --end {end}: expected an end after the start")
    if re.fullmatch(r"\s*\d{4}-\d{2}-01\s*", end) and len(list(months_of(span))) > 1:
        _note([f"--end {end} takes in that day; for whole months, give the last of them"])
    if max_cost is not None and math.isnan(max_cost):
        raise UsageError("--max-cost nan: expected a number of dollars")
    client = _client(**api)
    from candlebeam.pipelines.databento.fetch import fetch_planned
    from candlebeam.pipelines.databento.plan import (
        FetchRequest,
        check_cost,
        cost_table,
        make_plan,
    )
    from candlebeam.pipelines.databento.symbols import named

    request = FetchRequest(
        out, dataset, _checked_schema(schema),
        tuple(named(_checked(symbols.split(",")), _checked_stype(stype_in))), span,
        csv=csv, verify=verify, count=not no_count,
    )  # fmt: skip
    with Interruption():
        plan = make_plan(client, request)
        _note(plan.notes)
        _show(cost_table(plan))
        check_cost(plan, max_cost)
        if not yes and max_cost is None and plan.cost and sys.stdin.isatty():
            click.confirm("Fetch?", abort=True, err=True)
        report = fetch_planned(client, request, plan, lambda line: click.echo(line, err=True))
    _note(report.notes)
    click.echo(report.summary(plan))
    _fail_with(report.failed)


def _client(gateway: str | None, retries: int, retry_wait: float, timeout: float) -> Client:
    """The API as this user may use it."""
    from candlebeam.pipelines.databento.key import find_key

    if not (math.isfinite(retry_wait) and math.isfinite(timeout)):
        raise UsageError("--retry-wait and --timeout: expected numbers of seconds")
    key = find_key(os.environ, os.getcwd())
    try:
        from candlebeam.pipelines.databento.client import Client, checked_gateway
        from candlebeam.pipelines.databento.failures import Patience
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "candlebeam":
            raise
        raise CandlebeamError(
            "this needs the databento library: pip install 'candlebeam[databento]'"
        ) from None
    address = checked_gateway(gateway) if gateway else None
    patience = Patience(retries, retry_wait, timeout)
    return Client(key, address, patience, lambda line: _note([line]))


def _checked(symbols: Iterable[str]) -> list[str]:
    chosen = [symbol.strip() for symbol in symbols]
    if not all(chosen) or not all(symbol.isprintable() for symbol in chosen):
        raise UsageError("symbols: expected some text for each")
    if wrong := [symbol for symbol in chosen if "," in symbol]:
        raise UsageError(f"symbol {wrong[0]!r}: expected one without a comma")
    return chosen


def _checked_schema(schema: str) -> str:
    from databento_dbn import Schema

    return _one_of(schema, map(str, Schema.variants()), "--schema")


def _checked_stype(stype: str | None) -> str | None:
    from databento_dbn import SType

    return stype and _one_of(stype, map(str, SType.variants()), "--stype-in")


def _one_of(text: str, known: Iterable[str], option: str) -> str:
    names = list(known)
    if text not in names:
        raise UsageError(f"{option} {text}: expected one of {', '.join(names)}")
    return text


def _show(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)


def _note(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(f"candlebeam: {line}", err=True)


def _fail_with(problems: Iterable[str]) -> None:
    """Ends with 1 if there are problems, and names them."""
    found = list(problems)
    _note(found)
    if found:
        sys.exit(1)
