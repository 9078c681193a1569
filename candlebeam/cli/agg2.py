"""`agg2 pack` and `agg2 check`: making archives of day blobs, and looking after them."""

from __future__ import annotations

import sys

import click

from candlebeam.cli.running import check_writable


@click.group()
def agg2() -> None:
    """Make and check archives of AGG2 day blobs."""


@agg2.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(), metavar="CSV_OR_ZIP...")
@click.option("--out", required=True, type=click.Path(), help="The folder of the archive.")
@click.option(
    "--symbol", metavar="S", help="Whose trades they are; by default the file names say so."
)
@click.option("--report", "report_file", type=click.Path(), help="Write all that happened as JSON.")
def pack(paths: tuple[str, ...], out: str, symbol: str | None, report_file: str | None) -> None:
    """Put Binance's aggTrades files into an archive of day blobs.

    Takes CSV files, or zip files of one each, of spot and futures, with or without a header. A day
    that is there already is left alone; a day that has more rows now is written again. Killed at
    any moment, it can be run again.
    """
    from candlebeam.kernels import on_compile
    from candlebeam.pipelines.agg2_pack import run_pack

    check_writable(report_file)
    on_compile(lambda line: click.echo(line, err=True))
    report = run_pack(paths, out, symbol)
    if report_file:
        report.write(report_file)
    report.print()
    sys.exit(report.exit_code)


@agg2.command()
@click.argument("base", type=click.Path(), metavar="BASE_DIR")
@click.option("--symbol", metavar="S", help="Only this symbol.")
@click.option("--report", "report_file", type=click.Path(), help="Write all of it as JSON as well.")
def check(base: str, symbol: str | None, report_file: str | None) -> None:
    """Read every day of an archive of day blobs and say what is there and what is damaged."""
    from candlebeam.kernels import on_compile
    from candlebeam.pipelines.agg2_check import run_check

    check_writable(report_file)
    on_compile(lambda line: click.echo(line, err=True))
    report = run_check(base, symbol)
    if report_file:
        report.write(report_file)
    report.print()
    sys.exit(report.exit_code)
