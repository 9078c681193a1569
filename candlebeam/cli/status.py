"""`status`: how far the candles have come, and who writes them."""

from __future__ import annotations

import sys

import click

from candlebeam.cli.running import market_filters


@click.command()
@click.argument("out", type=click.Path())
@market_filters
@click.option("--staging", type=click.Path(), help="The folder that the backfill had as --staging.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def status(
    out: str,
    collector: str | None,
    exchange: str | None,
    symbol: str | None,
    staging: str | None,
    as_json: bool,
) -> None:
    """Tell how far the candles of each market under OUT have come, and who is writing there.

    The lag is the time since the end of the last candle. Ends with 1 if a market is damaged.
    """
    from candlebeam.pipelines.status import output_status

    found = output_status(
        out, collector=collector, exchange=exchange, symbol=symbol, staging=staging
    )
    if as_json:
        import json

        click.echo(json.dumps(found.to_json(), indent=2))
    else:
        from candlebeam.pipelines.status_lines import status_lines

        click.echo("\n".join(status_lines(found)))
    sys.exit(found.exit_code)
