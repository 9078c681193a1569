"""Runs of the command line: filters, where results go, and how a run is interrupted."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import click

from candlebeam.errors import UsageError

#: The exit code of a command that was interrupted.
INTERRUPTED = 130


class ManyValuesOption(click.Option):
    """An option that takes all the words up to the next option: `--dbn a b c`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "multiple": True})


class ManyValues(click.Command):
    """A command with options of many values: `--dbn a b` becomes `--dbn a --dbn b`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        many = {
            name
            for option in self.params
            if isinstance(option, ManyValuesOption)
            for name in option.opts
        }
        current, first, spread = "", False, []
        for arg in args:
            if arg.startswith("-"):
                name, _, value = arg.partition("=")
                current, first = (name if name in many else ""), not value
            elif current and not first:
                spread.append(current)
            else:
                first = False
            spread.append(arg)
        return super().parse_args(ctx, spread)


def market_filters(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that choose markets."""
    for option in (
        click.option("--symbol", metavar="S", help="Only this symbol."),
        click.option("--exchange", metavar="E", help="Only this exchange."),
        click.option("--collector", metavar="C", help="Only this collector."),
    ):
        command = option(command)
    return command


def candle_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that say what candles are made of; see `candle_settings`."""
    for option in (
        click.option(
            "--price-scale", default="auto", show_default=True, metavar="auto|N",
            help="Stored prices are times N, a power of ten; auto chooses it a market.",
        ),
        click.option(
            "--liquidations", type=click.Choice(["separate", "included"]), default="separate",
            show_default=True, help="Count liquidations apart, or in prices and volumes as well.",
        ),
        click.option(
            "--correction", "corrections", multiple=True, metavar="NAME",
            help="Apply only this correction; may be given again.",
        ),
        click.option(
            "--no-corrections", is_flag=True, help="Take the trades as they were recorded."
        ),
        click.option(
            "--timeframe", default="1m", show_default=True, help="1s to 1d, a divisor of a day."
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def candle_settings(
    *,
    timeframe: str,
    no_corrections: bool,
    corrections: tuple[str, ...],
    liquidations: str,
    price_scale: str,
    is_trade_log: bool,
    snap: bool = True,
) -> Any:
    """The `CandleSettings` that the options of `candle_options` ask for.

    Args:
        is_trade_log: whether all corrections apply where none is named.
    """
    from candlebeam.model import Timeframe
    from candlebeam.rules.corrections import CORRECTIONS
    from candlebeam.rules.price_scale import PriceScale
    from candlebeam.settings import CandleSettings

    if no_corrections and corrections:
        raise UsageError("--no-corrections and --correction: expected one of them")
    by_default = tuple(CORRECTIONS) if is_trade_log and not no_corrections else ()
    return CandleSettings(
        timeframe=Timeframe.parse(timeframe),
        corrections=corrections or by_default,
        liquidations=liquidations,
        price_scale=None if price_scale == "auto" else PriceScale.parse(price_scale),
        snap=snap,
    )


def progress() -> Any:
    """What shows how far a backfill has come: a bar on a terminal, lines in a log."""
    from candlebeam.pipelines.progress import LogProgress, TerminalProgress

    return TerminalProgress() if sys.stderr.isatty() else LogProgress(sys.stderr)


def bars_command(command: Callable[..., None]) -> Callable[..., None]:
    """Adds what `align`, `resample` and `export` have in common; see `run_bars`."""
    for option in (
        click.option("--runner-config", type=click.Path(), help="A file with Beam options."),
        click.option(
            "--report", "report_file", type=click.Path(), help="Write all that happened as JSON."
        ),
        click.option("--force", is_flag=True, help="Make every file again, whatever is there."),
        market_filters,
    ):
        command = option(command)
    return command


def run_bars(
    run: Callable[[Any], Any],
    words: tuple[str, ...],
    options: Any,
    report_file: str | None,
    **request: str | None,
) -> NoReturn:
    """Runs a command that makes bars of bars, tells what came of it, and ends the process.

    Args:
        run: takes a `BarsRequest` and gives a `BarsReport`.
        words: the inputs, then Beam options.
        options: those of the command.
        report_file: where to write the report as JSON.
        request: what else the request has: filters and the runner configuration.
    """
    from candlebeam.io.memory import keep_freed_memory
    from candlebeam.kernels import on_compile
    from candlebeam.pipelines.bars_request import BarsRequest

    end = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    asked = BarsRequest(words[:end], options, beam_arguments=words[end:], **request)
    check_writable(report_file)
    keep_freed_memory()
    on_compile(lambda line: click.echo(line, err=True))
    with going_on_later():
        report = run(asked)
    if report_file:
        report.write(report_file)
    report.print()
    sys.exit(report.exit_code)


def check_writable(path: str | None) -> None:
    """Finds out before the work that a report could not be written after it."""
    if path is None:
        return
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise UsageError(f"--report {path}: no such folder: {folder}")
    if os.path.isdir(path) or not os.access(folder, os.W_OK):
        raise UsageError(f"--report {path}: cannot be written")


@contextmanager
def going_on_later() -> Iterator[None]:
    """Ends the process cleanly where the work in the `with` is interrupted."""
    with Interruption() as interruption:
        try:
            yield
        except BaseException:
            # Beam may have made another error of it on its way.
            if not interruption.asked:
                raise
            click.echo("candlebeam: interrupted; run it again to go on from here", err=True)
            sys.exit(INTERRUPTED)


class Interruption:
    """While it is open, Ctrl-C and SIGTERM raise KeyboardInterrupt, and it knows of it.

    In a thread other than the main one it changes nothing.
    """

    asked = False

    def __enter__(self) -> Interruption:
        self._before: list[tuple[int, Any]] = []
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before.append((number, signal.signal(number, self._interrupt)))
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        from candlebeam.feeds.stream_errors import end_stream
        from candlebeam.io.cancellation import cancel_all

        self.asked = True
        end_stream()
        # Where the exception gets lost, in a callback of Beam say, the work stops all the same.
        cancel_all()
        raise KeyboardInterrupt
