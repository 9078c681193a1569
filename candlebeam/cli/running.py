"""Runs of the command line: filters, where results go, and how a run is interrupted."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import click

from candlebeam.errors import UsageError

#: The exit code of a command that was interrupted.
INTERRUPTED = 130


def market_filters(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that choose markets."""
    for option in (
        click.option("--symbol", metavar="S", help="Only this symbol."),
        click.option("--exchange", metavar="E", help="Only this exchange."),
        click.option("--collector", metavar="C", help="Only this collector."),
    ):
        command = option(command)
    return command


def progress() -> Any:
    """What shows how far a backfill has come: a bar on a terminal, lines in a log."""
    from candlebeam.pipelines.progress import LogProgress, TerminalProgress

    return TerminalProgress() if sys.stderr.isatty() else LogProgress(sys.stderr)


def check_writable(path: str | None) -> None:
    """Finds out before the work that a report could not be written after it."""
    if path is None:
        return
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise UsageError(f"--report {path}: no such folder: {folder}")
    if os.path.isdir(path) or not os.access(folder, os.W_OK):
        raise UsageError(f"--report {path}: cannot be written")


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
        from candlebeam.io.cancellation import cancel_all

        self.asked = True
        # Where the exception gets lost, in a callback of Beam say, the work stops all the same.
        cancel_all()
        raise KeyboardInterrupt
