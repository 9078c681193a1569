"""`index` and `backfill`: from archives of trades to candle files."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, NoReturn

import click

from candlebeam.cli.running import (
    INTERRUPTED,
    Interruption,
    ManyValues,
    ManyValuesOption,
    candle_options,
    candle_settings,
    check_writable,
    going_on_later,
    market_filters,
    progress,
)
from candlebeam.errors import UsageError

if TYPE_CHECKING:
    from candlebeam.catalog import IndexSummary
    from candlebeam.pipelines.backfill import BackfillRequest
    from candlebeam.pipelines.follow import Round


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
    if not _index(root, db, subtrees):
        sys.exit(1)


def _index(root: str, db: str, subtrees: tuple[str, ...] = ()) -> bool:
    """Indexes and tells what came of it; whether all could be read."""
    from candlebeam.catalog import Catalog

    with Catalog(db, create=True) as catalog:
        summary = catalog.index(root, subtrees)
    _tell_indexed(summary)
    return not summary.unreadable


def _tell_indexed(summary: IndexSummary) -> None:
    from candlebeam.pipelines.wording import counted

    click.echo(f"{counted(summary.added, 'file')} added, {summary.known:,} already known")
    if summary.skipped:
        names = ", ".join(summary.strays)
        more = ", ..." if summary.skipped > len(summary.strays) else ""
        click.echo(f"{summary.skipped:,} skipped, no trade logs: {names}{more}")
    for problem in summary.unreadable:
        click.echo(f"candlebeam: {problem}", err=True)


@click.command(cls=ManyValues, context_settings={"ignore_unknown_options": True})
@click.option("--db", type=click.Path(), help="The catalog of the trade logs to read.")
@click.option("--agg2", type=click.Path(), metavar="DIR", help="The AGG2 archive to read.")
@click.option(
    "--dbn", cls=ManyValuesOption, type=click.Path(), metavar="PATH...",
    help="The Databento files to read, or folders of them.",
)  # fmt: skip
@click.option(
    "--root", "roots", multiple=True, type=click.Path(), metavar="DIR",
    help="With --db: index this archive first, as `index` does; may be given again.",
)  # fmt: skip
@click.option("--out", required=True, type=click.Path(), help="The folder of the candle files.")
@click.option(
    "--follow", metavar="DURATION",
    help="Go on until Ctrl-C, and look for what is new this often: 500ms, 30s, 5m.",
)  # fmt: skip
@market_filters
@candle_options
@click.option("--force", is_flag=True, help="Make every market again, from all its files.")
@click.option(
    "--no-snap", is_flag=True,
    help="AGG2: take numbers as they are stored, cut off at eight decimals.",
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
    roots: tuple[str, ...],
    follow: str | None,
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

    With --follow it stays, and brings the candles up to date again and again.
    """
    from candlebeam.io.memory import keep_freed_memory
    from candlebeam.kernels import on_compile
    from candlebeam.pipelines.backfill import BackfillRequest, run_backfill

    settings = candle_settings(
        timeframe=timeframe,
        no_corrections=no_corrections,
        corrections=corrections,
        liquidations=liquidations,
        price_scale=price_scale,
        is_trade_log=bool(options["db"]),
        snap=not no_snap,
    )
    request = BackfillRequest(out=out, settings=settings, **options)
    if roots and request.db is None:
        raise UsageError("--root is for trade logs: expected --db, and no other archive")
    check_writable(report_file)
    keep_freed_memory()
    on_compile(lambda line: click.echo(line, err=True))
    if follow is not None:
        _follow(request, roots, follow, report_file)
    with going_on_later():
        indexed = [_index(root, options["db"]) for root in roots]
        report = run_backfill(request, progress())
    if report_file:
        report.write(report_file)
    from candlebeam.pipelines.summary import print_summary

    print_summary(report, request)
    sys.exit(report.exit_code or int(not all(indexed)))


def _follow(
    request: BackfillRequest, roots: tuple[str, ...], every: str, report_file: str | None
) -> NoReturn:
    """Goes on until it is interrupted.

    Ends with 0 then, with 1 if something is failing at that time, and with 130 where it was in the
    middle of something, which the next run goes on with.
    """
    from candlebeam.pipelines.follow import Follower, parse_duration, summary_line

    every_s = parse_duration(every)
    follower = Follower(request, roots, progress())
    told_report = ""

    def tell(done: Round) -> None:
        nonlocal told_report
        for line in done.told:
            click.echo(f"candlebeam: {line}", err=True)
        if done.line:
            click.echo(done.line, err=True)
        first = follower.totals.rounds == 1
        if not report_file or done.report is None or not (done.line or first or told_report):
            return
        problem = ""
        try:
            done.report.write(report_file)
        except OSError as error:
            problem = f"cannot write {report_file}: {error.strerror or error}"
        if problem and problem != told_report:
            click.echo(f"candlebeam: {problem}", err=True)
        told_report = problem

    started = time.monotonic()
    with Interruption() as interruption:
        try:
            with follower:
                follower.run(every_s, tell)
        except BaseException:
            # Beam may have made another error of it on its way.
            if not interruption.asked:
                raise
    if follower.totals.rounds:
        click.echo(summary_line(follower.totals, time.monotonic() - started))
    if follower.at_work:
        click.echo("candlebeam: interrupted; run it again to go on from here", err=True)
        sys.exit(INTERRUPTED)
    sys.exit(int(follower.failing))


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
    with Interruption():
        report = run_attach(out, staging, progress())
    if report_file:
        report.write(report_file)
    print_summary(report)
    sys.exit(report.exit_code)
