"""`resample`: from bars and trades to bars of other periods."""

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
@click.argument("inputs", nargs=-1, type=click.UNPROCESSED, metavar="INPUT... [BEAM_OPTION]...")
@click.option(
    "--timeframes", required=True, metavar="T,T,...",
    help="What to make: 15s, 1m, 5m, 1h, ... (divisors of a day), 1d, 1w, 1M.",
)  # fmt: skip
@click.option("--to", required=True, type=click.Path(), help="The folder of the output.")
@click.option(
    "--tz", metavar="ZONE",
    help="Days, weeks (from Monday) and months begin at midnight there, such as Europe/Berlin; in"
    " UTC by default. Shorter bars always begin in UTC.",
)  # fmt: skip
@click.option(
    "--open-bar", type=click.Choice(["mark", "omit"]), default="mark", show_default=True,
    help="The last bar, while it may still change: apart from the others (aligned: behind what the"
    " index counts; CSV: in SYMBOL_TIMEFRAME_open.csv), or left out.",
)  # fmt: skip
@click.option(
    "--format", "form", type=click.Choice(["aligned", "csv"]), default="aligned",
    show_default=True, help="Aligned files, or CSV files of months in UTC.",
)  # fmt: skip
@click.option(
    "--by-market", is_flag=True, help="A folder for each collector and exchange under --to."
)
@market_filters
@click.option("--force", is_flag=True, help="Make every file again, whatever is there.")
@click.option("--report", "report_file", type=click.Path(), help="Write all that happened as JSON.")
@click.option("--runner-config", type=click.Path(), help="A file with Beam options.")
def resample(
    inputs: tuple[str, ...],
    timeframes: str,
    to: str,
    tz: str | None,
    open_bar: str,
    form: str,
    by_market: bool,
    force: bool,
    report_file: str | None,
    runner_config: str | None,
    collector: str | None,
    exchange: str | None,
    symbol: str | None,
) -> None:
    """Make bars of longer timeframes, all of them in one pass, or bring them up to date.

    INPUT is the output folder of a backfill, or a candle file; an aligned file; a CSV file of bars;
    a Databento file of bars or trades; or a folder of these. A bar is the first open, the highest
    high, the lowest low, the last close and the sum of the volumes, stamped with its start; where
    there was no trade there is no bar. Aligned files are {to}/{timeframe}/{symbol}.bin with an
    .idx, CSV files {to}/{timeframe}/{symbol}_{YYYY}_{MM}_{timeframe}.csv.
    """
    from candlebeam.io.memory import keep_freed_memory
    from candlebeam.io.resample_outputs import ResampleOptions
    from candlebeam.kernels import on_compile
    from candlebeam.pipelines.resample import ResampleRequest, run_resample
    from candlebeam.rules.periods import Period

    options = next((i for i, word in enumerate(inputs) if word.startswith("-")), len(inputs))
    request = ResampleRequest(
        inputs=inputs[:options],
        options=ResampleOptions(
            to=to,
            periods=Period.parse_all(timeframes),
            tz=tz,
            open_bar=open_bar,
            form=form,
            by_market=by_market,
            force=force,
        ),
        collector=collector,
        exchange=exchange,
        symbol=symbol,
        runner_config=runner_config,
        beam_arguments=inputs[options:],
    )
    check_writable(report_file)
    keep_freed_memory()
    on_compile(lambda line: click.echo(line, err=True))
    with Interruption() as interruption:
        try:
            report = run_resample(request)
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
