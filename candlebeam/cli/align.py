"""`align`: from candle files to aligned files."""

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
@click.option("--to", required=True, type=click.Path(), help="The folder of the aligned files.")
@click.option(
    "--gaps", type=click.Choice(["forward", "zero", "skip"]), default="forward", show_default=True,
    help="A candle without trades: a bar at the close before it, zeros, or nothing.",
)  # fmt: skip
@click.option(
    "--by-market", is_flag=True, help="A folder for each collector and exchange under --to."
)
@market_filters
@click.option("--force", is_flag=True, help="Make every file again, whatever is there.")
@click.option("--report", "report_file", type=click.Path(), help="Write all that happened as JSON.")
@click.option("--runner-config", type=click.Path(), help="A file with Beam options.")
def align(
    outs: tuple[str, ...],
    to: str,
    gaps: str,
    by_market: bool,
    force: bool,
    report_file: str | None,
    runner_config: str | None,
    collector: str | None,
    exchange: str | None,
    symbol: str | None,
) -> None:
    """Make aligned OHLCV files of candle files, or bring them up to date.

    OUT is the output folder of a backfill, or a candle file. The bars of a market are written to
    {to}/{timeframe}/{symbol}.bin, 64 bytes each, and what is committed of them to an .idx.
    """
    from candlebeam.io.align_candles import AlignOptions
    from candlebeam.kernels import on_compile
    from candlebeam.pipelines.align import AlignRequest, run_align

    options = next((i for i, word in enumerate(outs) if word.startswith("-")), len(outs))
    request = AlignRequest(
        outs=outs[:options],
        options=AlignOptions(to=to, gaps=gaps, by_market=by_market, force=force),
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
            report = run_align(request)
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
