"""`index` and `backfill`: from archives of trades to candle files."""

from __future__ import annotations

import sys
from typing import Any

import click

from candlebeam.cli.running import (
    ManyValues,
    ManyValuesOption,
    check_writable,
    going_on_later,
    market_filters,
    progress,
)
from candlebeam.errors import UsageError


@click.command()
@click.argument("root", type=click.Path())
@click.option(
    "--db", required=True, type=click.Path(), help="The catalog; made if it is not there."
)
@click.option(
    "--include", "subtrees", multiple=True, metavar="SUBTREE",
    help="Walk only this folder under ROOT; may be given again.",
)  # fmt: skip
def index(root: str, db: str, subtrees: tuple[str, ...]) -> None:
    """Add the trade logs under ROOT to a catalog.

    ROOT holds {collector}/{bucket}/{exchange}/{symbol}/{YYYY-MM-DD[-HH][.gz]}. Only what is new is
    added, so it can be run again and again.
    """
    from candlebeam.catalog import Catalog
    from candlebeam.pipelines.wording import counted

    with Catalog(db, create=True) as catalog:
        summary = catalog.index(root, subtrees)
    click.echo(f"{counted(summary.added, 'file')} added, {summary.known:,} already known")
    if summary.skipped:
        names = ", ".join(summary.strays)
        more = ", ..." if summary.skipped > len(summary.strays) else ""
        click.echo(f"{summary.skipped:,} skipped, no trade logs: {names}{more}")
    for problem in summary.unreadable:
        click.echo(f"candlebeam: {problem}", err=True)
    if summary.unreadable:
        sys.exit(1)


@click.command(cls=ManyValues, context_settings={"ignore_unknown_options": True})
@click.option("--db", type=click.Path(), help="The catalog of the trade logs to read.")
@click.option("--agg2", type=click.Path(), metavar="DIR", help="The AGG2 archive to read.")
@click.option(
    "--dbn", cls=ManyValuesOption, type=click.Path(), metavar="PATH...",
    help="The Databento files to read, or folders of them.",
)  # fmt: skip
@click.option("--out", required=True, type=click.Path(), help="The folder of the candle files.")
@market_filters
@click.option("--timeframe", default="1m", show_default=True, help="1s to 1d, a divisor of a day.")
@click.option("--force", is_flag=True, help="Make every market again, from all its files.")
@click.option("--no-corrections", is_flag=True, help="Take the trades as they were recorded.")
@click.option(
    "--correction", "corrections", multiple=True, metavar="NAME",
    help="Apply only this correction; may be given again.",
)  # fmt: skip
@click.option(
    "--no-snap", is_flag=True,
    help="AGG2: take numbers as they are stored, cut off at eight decimals.",
)  # fmt: skip
@click.option(
    "--liquidations", type=click.Choice(["separate", "included"]), default="separate",
    show_default=True, help="Count liquidations apart, or in prices and volumes as well.",
)  # fmt: skip
@click.option(
    "--price-scale", default="auto", show_default=True, metavar="auto|N",
    help="Stored prices are times N, a power of ten; auto chooses it a market.",
)  # fmt: skip
@click.option(
    "--late", type=click.Choice(["ignore", "rebuild"]), default="ignore", show_default=True,
    help="Trades that come too late for a file: count them, or make the market again.",
)  # fmt: skip
@click.option("--skip-missing", is_flag=True, help="Go on without files that are gone.")
@click.option("--rejects", type=click.Path(), help="Keep rows that are no trades in this folder.")
@click.option("--staging", type=click.Path(), help="Keep finished work here until it is committed.")
@click.option("--report", "report_file", type=click.Path(), help="Write all that happened as JSON.")
@click.option("--runner-config", type=click.Path(), help="A file with Beam options.")
@click.option(
    "--detach", is_flag=True,
    help="Flink: return once the cluster has the job; `attach` waits for its end.",
)  # fmt: skip
@click.option("--shard-bytes", "--shard_bytes", type=int, default=8 << 20, show_default=True,
              help="Bytes of input files in a unit of work.")  # fmt: skip
@click.argument("beam_arguments", nargs=-1, type=click.UNPROCESSED, metavar="[BEAM_OPTION]...")
def backfill(
    out: str,
    timeframe: str,
    no_corrections: bool,
    corrections: tuple[str, ...],
    no_snap: bool,
    liquidations: str,
    price_scale: str,
    report_file: str | None,
    **options: Any,
) -> None:
    """Make candle files of an archive of trades, or bring them up to date.

    The archive is one of: trade logs, by their catalog (--db); AGG2 day blobs (--agg2), of the
    exchange that --exchange names; Databento trades (--dbn). What is known to be wrong in trade
    logs is corrected; other archives are taken as they are, unless --correction names one.

    Runs in process unless a Beam runner is named. Any Beam option can be given. Killed at any
    moment, it goes on from there when it is run again.
    """
    from candlebeam.io.memory import keep_freed_memory
    from candlebeam.kernels import on_compile
    from candlebeam.model import Timeframe
    from candlebeam.pipelines.backfill import BackfillRequest, run_backfill
    from candlebeam.rules.corrections import CORRECTIONS
    from candlebeam.rules.price_scale import PriceScale
    from candlebeam.settings import CandleSettings

    if no_corrections and corrections:
        raise UsageError("--no-corrections and --correction: expected one of them")
    all_of_them = tuple(CORRECTIONS)
    settings = CandleSettings(
        timeframe=Timeframe.parse(timeframe),
        corrections=corrections or (() if no_corrections or not options["db"] else all_of_them),
        liquidations=liquidations,
        price_scale=None if price_scale == "auto" else PriceScale.parse(price_scale),
        snap=not no_snap,
    )
    request = BackfillRequest(out=out, settings=settings, **options)
    check_writable(report_file)
    keep_freed_memory()
    on_compile(lambda line: click.echo(line, err=True))
    with going_on_later():
        report = run_backfill(request, progress())
    if report_file:
        report.write(report_file)
    from candlebeam.pipelines.summary import print_summary

    print_summary(report, request)
    sys.exit(report.exit_code)


@click.command()
@click.option("--out", required=True, type=click.Path(), help="The folder of the candle files.")
@click.option("--staging", type=click.Path(), help="The folder that the backfill had as --staging.")
@click.option("--report", "report_file", type=click.Path(), help="Write all that happened as JSON.")
def attach(out: str, staging: str | None, report_file: str | None) -> None:
    """Wait for a backfill that was detached, and report what it came to.

    Interrupted, it leaves the job alone and can be run again.
    """
    from candlebeam.pipelines.attach import run_attach
    from candlebeam.pipelines.summary import print_summary

    check_writable(report_file)
    report = run_attach(out, staging, progress())
    if report_file:
        report.write(report_file)
    print_summary(report)
    sys.exit(report.exit_code)
