"""`stream`: candle files that grow with an archive, or a live session."""

from __future__ import annotations

import logging
import sys
from typing import Any

import click

from candlebeam.cli.running import (
    Interruption,
    ManyValues,
    candle_options,
    candle_settings,
    market_filters,
)
from candlebeam.errors import UsageError


@click.command(cls=ManyValues, context_settings={"ignore_unknown_options": True})
@click.option(
    "--root", "roots", multiple=True, type=click.Path(), metavar="DIR",
    help="The archive of trade logs to follow; may be given again.",
)  # fmt: skip
@click.option(
    "--databento", metavar="DATASET",
    help="Follow Databento's live gateway, such as for GLBX.MDP3. The key is DATABENTO_API_KEY in"
    " the environment of the workers, or in .env of the working folder.",
)  # fmt: skip
@click.option("--symbols", metavar="A,B,...", help="What to subscribe to; ALL_SYMBOLS for all.")
@click.option(
    "--schema", metavar="S", help="One with trades in it.  [default: trades]",
)  # fmt: skip
@click.option(
    "--stype-in", metavar="TYPE",
    help="The type of all symbols, such as continuous; by default their form tells.",
)  # fmt: skip
@click.option("--gateway", metavar="HOST:PORT", help="Another address of the live gateway.")
@click.option("--out", required=True, type=click.Path(), help="The folder of the candle files.")
@market_filters
@candle_options
@click.option(
    "--lateness", default="10m", show_default=True, metavar="DURATION",
    help="How long after the end of a candle its trades still count.",
)  # fmt: skip
@click.option(
    "--idle", default="5s", show_default=True, metavar="DURATION",
    help="A market of --root that gives nothing for so long is quiet: its candles close by the"
    " clock.",
)  # fmt: skip
@click.option(
    "--quiet-candles", is_flag=True,
    help="Write candles without trades as time passes, not with the next one that has some.",
)  # fmt: skip
@click.option(
    "--clock", "clock_text", metavar="TIME,SPEED|@FILE",
    help="Replay what is past: the time to begin at, and how much faster it goes; or a file that"
    " tells the time, in ms since 1970.",
)  # fmt: skip
@click.option("--staging", type=click.Path(), help="Keep what is noted on the way here.")
@click.option("--runner-config", type=click.Path(), help="A file with Beam options.")
@click.option(
    "--detach", is_flag=True, help="Return once the cluster has the job; it goes on without end."
)
@click.argument("beam_arguments", nargs=-1, type=click.UNPROCESSED, metavar="[BEAM_OPTION]...")
def stream(
    out: str,
    roots: tuple[str, ...],
    databento: str | None,
    symbols: str | None,
    schema: str | None,
    stype_in: str | None,
    gateway: str | None,
    timeframe: str,
    lateness: str,
    idle: str,
    no_corrections: bool,
    corrections: tuple[str, ...],
    liquidations: str,
    price_scale: str,
    clock_text: str | None,
    **options: Any,
) -> None:
    """Follow an archive that grows, or a live session: candles are written as they close.

    Runs on Flink, inside this process or on a cluster, until Ctrl-C. It begins where the candles
    that are there end, and a backfill goes on where it has ended. Trades that come after their
    candle has closed change it, up to --lateness after its end; later ones are counted, and kept
    in a file SYMBOL.late beside the candles.
    """
    from candlebeam.kernels import on_compile
    from candlebeam.pipelines.follow import parse_duration
    from candlebeam.pipelines.stream import StreamRequest, run_stream

    settings = candle_settings(
        timeframe=timeframe,
        no_corrections=no_corrections,
        corrections=corrections,
        liquidations=liquidations,
        price_scale=price_scale,
        is_trade_log=not databento,
    )
    request = StreamRequest(
        out=out,
        roots=roots,
        databento=_subscription(databento, symbols, schema, stype_in, gateway),
        settings=settings,
        lateness_ms=round(parse_duration(lateness) * 1000),
        idle_ms=round(parse_duration(idle) * 1000),
        clock=_clock(clock_text),
        **options,
    )
    _lines_of_the_stream()
    on_compile(_say)
    with Interruption() as interruption:
        try:
            job = run_stream(request, _say)
        except BaseException:
            if not interruption.asked:
                raise
            _say("ended; `stream` or `backfill` goes on from here")
            sys.exit(0)
    if job is not None:
        click.echo(f"job {job.job_id} at {job.master} follows {databento or ', '.join(roots)}")
    else:
        _say("the job has ended; `stream` or `backfill` goes on from here")


def _subscription(
    dataset: str | None,
    symbols: str | None,
    schema: str | None,
    stype_in: str | None,
    gateway: str | None,
) -> Any:
    if dataset is None:
        given = {
            "--symbols": symbols, "--schema": schema, "--stype-in": stype_in, "--gateway": gateway
        }  # fmt: skip
        if wrong := [name for name, value in given.items() if value is not None]:
            raise UsageError(f"{', '.join(wrong)}: only with --databento")
        return None
    from candlebeam.feeds.databento_position import ASKED, DatabentoSubscription

    if not symbols:
        raise UsageError("--databento: expected --symbols, what to subscribe to")
    host, port = None, None
    if gateway is not None:
        host, _, digits = gateway.rpartition(":")
        if not (host and digits.isascii() and digits.isdigit() and 0 < int(digits) < 1 << 16):
            raise UsageError(f"--gateway {gateway}: expected HOST:PORT, as 127.0.0.1:13000")
        host, port = host.removeprefix("[").removesuffix("]"), int(digits)
    return DatabentoSubscription(
        dataset=dataset,
        symbols=tuple(symbol.strip() for symbol in symbols.split(",")),
        schema=schema or "trades",
        stype_in=stype_in,
        gateway=host,
        port=port,
        names=ASKED,
    )


def _clock(text: str | None) -> Any:
    import time
    from datetime import datetime, timezone

    from candlebeam.feeds.clock import Clock
    from candlebeam.storage import absolute

    if text is None:
        return Clock()
    if text.startswith("@"):
        return Clock(path=absolute(text[1:]))
    moment, _, speed = text.partition(",")
    try:
        begin = datetime.fromisoformat(moment.replace("Z", "+00:00"))
        if begin.tzinfo is None:
            begin = begin.replace(tzinfo=timezone.utc)
        clock = Clock(int(begin.timestamp() * 1000), time.time(), float(speed or 1))
    except ValueError:
        raise UsageError(f"--clock {text}: expected TIME,SPEED, as 2024-03-01T00:00Z,60") from None
    if not clock.speed > 0:
        raise UsageError(f"--clock {text}: expected a speed above 0")
    return clock


def _say(line: str) -> None:
    click.echo(f"candlebeam: {line}", err=True)


def _lines_of_the_stream() -> None:
    """Shows what the stream says while it runs, where its workers are in this process."""

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            _say(record.getMessage())

    logger = logging.getLogger("candlebeam")
    logger.addHandler(Lines())
    logger.propagate = False
