"""`align`: from candle files and other bars to aligned files."""

from __future__ import annotations

from typing import Any

import click

from candlebeam.cli.running import bars_command, run_bars


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("outs", nargs=-1, type=click.UNPROCESSED, metavar="OUT... [BEAM_OPTION]...")
@click.option("--to", required=True, type=click.Path(), help="The folder of the aligned files.")
@click.option(
    "--gaps", type=click.Choice(["forward", "zero", "skip"]), default="forward", show_default=True,
    help="A candle without trades: a bar at the close before it, zeros, or nothing.",
)  # fmt: skip
@click.option(
    "--by-market", is_flag=True, help="A folder for each collector and exchange under --to."
)
@bars_command
def align(
    outs: tuple[str, ...],
    to: str,
    gaps: str,
    by_market: bool,
    force: bool,
    **common: Any,
) -> None:
    """Make aligned OHLCV files of candle files, or bring them up to date.

    OUT is the output folder of a backfill, or a candle file; or CSV or Databento files of bars. The
    bars of a market are written to {to}/{timeframe}/{symbol}.bin, 64 bytes each, and what is
    committed of them to an .idx.
    """
    from candlebeam.io.align_candles import AlignOptions
    from candlebeam.pipelines.align import run_align

    options = AlignOptions(to=to, gaps=gaps, by_market=by_market, force=force)
    run_bars(run_align, outs, options, **common)
