"""`export`: from bars to Parquet, CSV and Arrow files."""

from __future__ import annotations

import sys

import click

from candlebeam.cli.running import (
    INTERRUPTED,
    Interruption,
    check_writable,
    market_filters,
)


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("outs", nargs=-1, type=click.UNPROCESSED, metavar="OUT... [BEAM_OPTION]...")
@click.option("--to", required=True, type=click.Path(), help="The folder of the files.")
@click.option(
    "--format", "form", type=click.Choice(["parquet", "csv", "arrow"]), default="parquet",
    show_default=True, help="What to write, one file a market and month.",
)  # fmt: skip
@click.option(
    "--gaps", type=click.Choice(["keep", "skip"]), default="keep", show_default=True,
    help="A candle without trades: a row without prices, or none.",
)  # fmt: skip
@click.option(
    "--by-market", is_flag=True, help="CSV: a folder for each collector and exchange under --to."
)
@click.option("--by-timeframe", is_flag=True, help="CSV: a folder for each timeframe.")
@market_filters
@click.option("--force", is_flag=True, help="Make every file again, whatever is there.")
@click.option("--report", "report_file", type=click.Path(), help="Write all that happened as JSON.")
@click.option("--runner-config", type=click.Path(), help="A file with Beam options.")
def export(
    outs: tuple[str, ...],
    to: str,
    form: str,
    gaps: str,
    by_market: bool,
    by_timeframe: bool,
    force: bool,
    report_file: str | None,
    runner_config: str | None,
    collector: str | None,
    exchange: str | None,
    symbol: str | None,
) -> None:
    """Write candles as Parquet, CSV or Arrow files, or bring these up to date.

    OUT is the output folder of a backfill, or a candle file; or other bars: aligned files, CSV or
    Databento files. A file holds a month, in UTC. Months that would come out the same are left
    alone.
    """
    from candlebeam.io.export_bars import ExportOptions
    from candlebeam.kernels import on_compile
    from candlebeam.pipelines.export import ExportRequest, run_export

    options = next((i for i, word in enumerate(outs) if word.startswith("-")), len(outs))
    request = ExportRequest(
        outs=outs[:options],
        options=ExportOptions(
            to=to, form=form, gaps=gaps, by_market=by_market, by_timeframe=by_timeframe, force=force
        ),
        collector=collector,
        exchange=exchange,
        symbol=symbol,
        runner_config=runner_config,
        beam_arguments=outs[options:],
    )
    check_writable(report_file)
    on_compile(lambda line: click.echo(line, err=True))
    with Interruption() as interruption:
        try:
            report = run_export(request)
        except BaseException:
            # Beam may have made another error of it on its way.
            if not interruption.asked:
                raise
            click.echo("candlebeam: interrupted; run it again to go on from here", err=True)
            sys.exit(INTERRUPTED)
    if report_file:
        report.write(report_file)
    report.print()
    sys.exit(report.exit_code)
