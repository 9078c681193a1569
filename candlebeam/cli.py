"""The command line. It knows the library; the library does not know it.

Each command imports what it needs when it runs: `candlebeam --help` is not to wait for Beam.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

import click

from candlebeam import __version__
from candlebeam.errors import CandlebeamError, UsageError

_INTERRUPTED = 130


class _Commands(click.Group):
    """Turns errors that are meant for the user into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UsageError as error:
            _fail(str(error), 2)
        except CandlebeamError as error:
            _fail(str(error), 1)
        except KeyboardInterrupt:
            _fail("interrupted", _INTERRUPTED)
        except BrokenPipeError:
            # Who reads our output has seen enough; Python is not to complain at the exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            _fail(f"{place}{error.strerror or error}", 1)


def _fail(message: str, code: int) -> None:
    click.echo(f"candlebeam: {message}", err=True)
    sys.exit(code)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="candlebeam")
def main() -> None:
    """Turns archives of exchange trades into exact, gap-aware candle files."""


def _market_filters(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--symbol", metavar="S", help="Only this symbol."),
        click.option("--exchange", metavar="E", help="Only this exchange."),
        click.option("--collector", metavar="C", help="Only this collector."),
    ):
        command = option(command)
    return command


@main.command()
@click.argument("root", type=click.Path())
@click.option(
    "--db", required=True, type=click.Path(), help="The catalog; made if it is not there."
)
@click.option(
    "--include", "subtrees", multiple=True, metavar="SUBTREE",
    help="Walk only this folder under ROOT; may be given again.",
)  # fmt: skip
def index(root: str, db: str, subtrees: tuple[str, ...]) -> None:
    """Add the trade logs under ROOT to a catalog.

    ROOT holds {collector}/{bucket}/{exchange}/{symbol}/{YYYY-MM-DD[-HH][.gz]}. Only what is new is
    added, so it can be run again and again.
    """
    from candlebeam.catalog import Catalog
    from candlebeam.pipelines.wording import counted

    with Catalog(db, create=True) as catalog:
        summary = catalog.index(root, subtrees)
    click.echo(f"{counted(summary.added, 'file')} added, {summary.known:,} already known")
    if summary.skipped:
        names = ", ".join(summary.strays)
        more = ", ..." if summary.skipped > len(summary.strays) else ""
        click.echo(f"{summary.skipped:,} skipped, no trade logs: {names}{more}")
    for problem in summary.unreadable:
        click.echo(f"candlebeam: {problem}", err=True)
    if summary.unreadable:
        sys.exit(1)


@main.command(context_settings={"ignore_unknown_options": True})
@click.option("--db", required=True, type=click.Path(), help="The catalog of the files to read.")
@click.option("--out", required=True, type=click.Path(), help="The folder of the candle files.")
@_market_filters
@click.option("--timeframe", default="1m", show_default=True, help="1s to 1d, a divisor of a day.")
@click.option("--force", is_flag=True, help="Make every market again, from all its files.")
@click.option("--no-corrections", is_flag=True, help="Take the trades as they were recorded.")
@click.option(
    "--correction", "corrections", multiple=True, metavar="NAME",
    help="Apply only this correction; may be given again.",
)  # fmt: skip
@click.option(
    "--liquidations", type=click.Choice(["separate", "included"]), default="separate",
    show_default=True, help="Count liquidations apart, or in prices and volumes as well.",
)  # fmt: skip
@click.option(
    "--price-scale", default="auto", show_default=True, metavar="auto|N",
    help="Stored prices are times N, a power of ten; auto chooses it a market.",
)  # fmt: skip
@click.option(
    "--late", type=click.Choice(["ignore", "rebuild"]), default="ignore", show_default=True,
    help="Trades that come too late for a file: count them, or make the market again.",
)  # fmt: skip
@click.option("--skip-missing", is_flag=True, help="Go on without files that are gone.")
@click.option("--rejects", type=click.Path(), help="Keep rows that are no trades in this folder.")
@click.option("--staging", type=click.Path(), help="Keep finished work here until it is committed.")
@click.option("--report", "report_file", type=click.Path(), help="Write all that happened as JSON.")
@click.option("--runner-config", type=click.Path(), help="A file with Beam options.")
@click.option("--shard-bytes", "--shard_bytes", type=int, default=8 << 20, show_default=True,
              help="Bytes of input files in a unit of work.")  # fmt: skip
@click.argument("beam_arguments", nargs=-1, type=click.UNPROCESSED, metavar="[BEAM_OPTION]...")
def backfill(
    db: str,
    out: str,
    timeframe: str,
    no_corrections: bool,
    corrections: tuple[str, ...],
    liquidations: str,
    price_scale: str,
    report_file: str | None,
    **options: Any,
) -> None:
    """Make candle files of the trades in a catalog, or bring them up to date.

    Runs in process unless a Beam runner is named. Any Beam option can be given. Killed at any
    moment, it goes on from there when it is run again.
    """
    from candlebeam.io.memory import keep_freed_memory
    from candlebeam.kernels import on_compile
    from candlebeam.model import Timeframe
    from candlebeam.pipelines.backfill import BackfillRequest, run_backfill
    from candlebeam.rules.corrections import CORRECTIONS
    from candlebeam.rules.price_scale import PriceScale
    from candlebeam.settings import CandleSettings

    if no_corrections and corrections:
        raise UsageError("--no-corrections and --correction: expected one of them")
    settings = CandleSettings(
        timeframe=Timeframe.parse(timeframe),
        corrections=() if no_corrections else corrections or tuple(CORRECTIONS),
        liquidations=liquidations,
        price_scale=None if price_scale == "auto" else PriceScale.parse(price_scale),
    )
    request = BackfillRequest(db=db, out=out, settings=settings, **options)
    _check_writable(report_file)
    keep_freed_memory()
    on_compile(lambda line: click.echo(line, err=True))
    with _Interruption() as interruption:
        try:
            report = run_backfill(request, _progress())
        except BaseException:
            # Beam may have made another error of it on its way.
            if not interruption.asked:
                raise
            click.echo("candlebeam: interrupted; run it again to go on from here", err=True)
            sys.exit(_INTERRUPTED)
    if report_file:
        report.write(report_file)
    from candlebeam.pipelines.summary import print_summary

    print_summary(report, request)
    sys.exit(report.exit_code)


@main.command()
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


@main.command()
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


def _progress() -> Any:
    from candlebeam.pipelines.progress import LogProgress, TerminalProgress

    return TerminalProgress() if sys.stderr.isatty() else LogProgress(sys.stderr)


def _check_writable(path: str | None) -> None:
    """Finds out before the work that a report could not be written after it."""
    if path is None:
        return
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise UsageError(f"--report {path}: no such folder: {folder}")
    if os.path.isdir(path) or not os.access(folder, os.W_OK):
        raise UsageError(f"--report {path}: cannot be written")


class _Interruption:
    """While it is open, Ctrl-C and SIGTERM raise KeyboardInterrupt, and it knows of it.

    In a thread other than the main one it changes nothing.
    """

    asked = False

    def __enter__(self) -> _Interruption:
        self._before: list[tuple[int, Any]] = []
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before.append((number, signal.signal(number, self._interrupt)))
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        from candlebeam.io.cancellation import cancel_all

        self.asked = True
        # Where the exception gets lost, in a callback of Beam say, the work stops all the same.
        cancel_all()
        raise KeyboardInterrupt


def run() -> NoReturn:
    """The entry point of the command: `main`, and then the end of the process.

    It does not wait for threads of Beam and of its own that have nothing left to do: whatever they
    write, they write in a way that can be cut off anywhere.
    """
    code: object = 0
    try:
        main(prog_name="candlebeam")
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001  the process ends here, whatever it was
        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))
