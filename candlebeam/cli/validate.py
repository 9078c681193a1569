"""`validate`: what is wrong with files of bars."""

from __future__ import annotations

import sys

import click

from candlebeam.cli.running import INTERRUPTED, Interruption, check_writable


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(), metavar="PATH...")
@click.option(
    "--source", type=click.Path(),
    help="Hold volumes against these finer bars or trades: a file or a folder.",
)  # fmt: skip
@click.option(
    "--timeframe", metavar="T",
    help="The length of bars, such as 15s or 1d, in files of which nothing else says it.",
)  # fmt: skip
@click.option(
    "--tz", metavar="ZONE", help="Where days, weeks and months begin, such as Europe/Berlin."
)
@click.option(
    "--any-price", is_flag=True,
    help="Prices in aligned and CSV files can be zero or negative, as those of spreads.",
)  # fmt: skip
@click.option(
    "--report", "report_file", type=click.Path(),
    help="Write the report to this file, and as JSON beside it.",
)  # fmt: skip
@click.option("--quiet", is_flag=True, help="Show only files with errors or warnings.")
def validate(
    paths: tuple[str, ...],
    source: str | None,
    timeframe: str | None,
    tz: str | None,
    any_price: bool,
    report_file: str | None,
    quiet: bool,
) -> None:
    """Check candle files, aligned files, CSV and Databento files.

    PATH is a file, or a folder with files of any of these kinds at any depth. Ends with 1 if there
    is an error, and with 0 if there are only warnings.
    """
    from candlebeam.kernels import on_compile
    from candlebeam.pipelines.validation.report import report_paths
    from candlebeam.pipelines.validation.run import ValidateRequest, run_validate

    request = ValidateRequest(paths, source=source, timeframe=timeframe, tz=tz, any_price=any_price)
    if report_file:
        for path in report_paths(report_file):
            check_writable(path)
    on_compile(lambda line: click.echo(line, err=True))
    with Interruption() as interruption:
        try:
            report = run_validate(request)
        except BaseException:
            if not interruption.asked:
                raise
            click.echo("candlebeam: interrupted", err=True)
            sys.exit(INTERRUPTED)
    if report_file:
        report.write(report_file)
    for line in report.lines(quiet=quiet):
        click.echo(line)
    if report.failed:
        click.echo(f"candlebeam: {report.failure}", err=True)
    sys.exit(report.exit_code)
