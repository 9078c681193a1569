"""`resample`: from bars and trades to bars of other periods."""

from __future__ import annotations

from typing import Any

import click

from candlebeam.cli.running import bars_command, run_bars


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
@bars_command
def resample(
    inputs: tuple[str, ...],
    timeframes: str,
    to: str,
    tz: str | None,
    open_bar: str,
    form: str,
    by_market: bool,
    force: bool,
    **common: Any,
) -> None:
    """Make bars of longer timeframes, all of them in one pass, or bring them up to date.

    INPUT is the output folder of a backfill, or a candle file; an aligned file; a CSV file of bars;
    a Databento file of bars or trades; or a folder of these. A bar is the first open, the highest
    high, the lowest low, the last close and the sum of the volumes, stamped with its start; where
    there was no trade there is no bar. Aligned files are {to}/{timeframe}/{symbol}.bin with an
    .idx, CSV files {to}/{timeframe}/{symbol}_{YYYY}_{MM}_{timeframe}.csv.
    """
    from candlebeam.io.resample_outputs import ResampleOptions
    from candlebeam.pipelines.resample import run_resample
    from candlebeam.rules.periods import Period

    options = ResampleOptions(
        to=to,
        periods=Period.parse_all(timeframes),
        tz=tz,
        open_bar=open_bar,
        form=form,
        by_market=by_market,
        force=force,
    )
    run_bars(run_resample, inputs, options, **common)
