"""`export`: from bars to Parquet, CSV and Arrow files."""

from __future__ import annotations

from typing import Any

import click

from candlebeam.cli.running import bars_command, run_bars


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
@bars_command
def export(
    outs: tuple[str, ...],
    to: str,
    form: str,
    gaps: str,
    by_market: bool,
    by_timeframe: bool,
    force: bool,
    **common: Any,
) -> None:
    """Write candles as Parquet, CSV or Arrow files, or bring these up to date.

    OUT is the output folder of a backfill, or a candle file; or other bars: aligned files, CSV or
    Databento files. A file holds a month, in UTC. Months that would come out the same are left
    alone.
    """
    from candlebeam.io.export_bars import ExportOptions
    from candlebeam.pipelines.export import run_export

    options = ExportOptions(
        to=to, form=form, gaps=gaps, by_market=by_market, by_timeframe=by_timeframe, force=force
    )
    run_bars(run_export, outs, options, **common)
