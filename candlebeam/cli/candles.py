"""`show` and `clear`: looking at candle files, and removing them."""

from __future__ import annotations

import click


@click.command()
@click.argument("path", type=click.Path())
@click.option(
    "--from", "start", metavar="T", help="From this time on: 2021-01-08[T00:15[:00]], UTC, or ms."
)
@click.option("--to", "end", metavar="T", help="Before this time.")
@click.option("--head", type=click.IntRange(min=0), metavar="N", help="The first N candles.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="The last N candles.")
def show(path: str, start: str | None, end: str | None, head: int | None, tail: int | None) -> None:
    """Print the candles of a candle file as a table, with times in UTC.

    Without any choice of candles it prints the first and the last five.
    """
    from candlebeam.pipelines.show import show_candles

    for line in show_candles(path, start, end, head, tail):
        click.echo(line)


@click.command()
@click.option("--out", required=True, type=click.Path(), help="The folder of the candle files.")
@click.option("--collector", required=True, metavar="C")
@click.option("--exchange", required=True, metavar="E")
@click.option("--symbol", required=True, metavar="S")
def clear(out: str, collector: str, exchange: str, symbol: str) -> None:
    """Remove the candle file of one market."""
    from candlebeam.model import Market
    from candlebeam.pipelines.clear import clear_market

    market = Market(collector.upper(), exchange.upper(), symbol)
    for path in clear_market(out, market):
        click.echo(f"removed {path}")
