"""The command line. It knows the library; the library does not know it.

A command is a module here, or part of one, and imports what it needs when it runs:
`candlebeam --help` is not to wait for Beam.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
from typing import Any, NoReturn

import click

from candlebeam import __version__
from candlebeam.cli.agg2 import agg2
from candlebeam.cli.align import align
from candlebeam.cli.backfill import attach, backfill, index
from candlebeam.cli.candles import clear, show
from candlebeam.cli.databento import databento
from candlebeam.cli.export import export
from candlebeam.cli.resample import resample
from candlebeam.cli.running import INTERRUPTED
from candlebeam.cli.status import status
from candlebeam.cli.stream import stream
from candlebeam.cli.validate import validate
from candlebeam.errors import CandlebeamError, UsageError


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
            _fail("interrupted", INTERRUPTED)
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


for _command in (
    index,
    backfill,
    attach,
    agg2,
    align,
    resample,
    export,
    show,
    clear,
    databento,
    validate,
    status,
    stream,
):
    main.add_command(_command)


def run() -> NoReturn:
    """The entry point of the command: `main`, and then the end of the process.

    It does not wait for threads of Beam and of its own that have nothing left to do: whatever they
    write, they write in a way that can be cut off anywhere.
    """
    code: object = 0
    # What goes wrong with a connection is told in a line of ours, not by gRPC besides.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # What Beam logs about what it does is not for users; without a handler it would be shown.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        main(prog_name="candlebeam")
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001  the process ends here, whatever it was
        traceback.print_exc()
        code = 1
    for output in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            output.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))
