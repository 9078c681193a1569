"""`python -m candlebeam.worker`: the worker pool."""

from __future__ import annotations

import sys

import click

from candlebeam.errors import CandlebeamError

_DEFAULT_PORT = 50000
_DEFAULT_MEGABYTES = 16


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=_DEFAULT_PORT,
    show_default=True,
    help="Where runners ask for workers; 0 takes any that is free.",
)
@click.option(
    "--host",
    default="localhost",
    show_default=True,
    help="The address to listen at. Whoever reaches it can have code run here, and a TaskManager "
    "or an executor can use only workers of its own machine or pod: leave it as it is.",
)
@click.option(
    "--log-dir",
    type=click.Path(),
    metavar="DIR",
    help="Where workers write what they print, a file each; the last 20 of ended workers are kept. "
    "[default: $CANDLEBEAM_WORKER_LOGS, else a folder of yours in the folder for temporary files]",
)
@click.option(
    "--log-megabytes",
    type=click.IntRange(1, 10_000),
    default=_DEFAULT_MEGABYTES,
    show_default=True,
    metavar="N",
    help="How much a log may hold before it begins anew; the one before is kept as .log.1.",
)
@click.option(
    "--compile-only",
    is_flag=True,
    help="Compile the kernels and end: for building an image.",
)
def main(port: int, host: str, log_dir: str | None, log_megabytes: int, compile_only: bool) -> None:
    """Start workers for the TaskManagers or executors of this machine.

    One of these runs beside every Flink TaskManager or Spark executor, in the same machine or pod.
    The job names its port: --environment_type=EXTERNAL --environment_config=localhost:50000.
    Workers run with the Python that runs this, get the options of the pipeline, and end with the
    job. Kernels are compiled before the first worker starts and kept in numba's cache, beside the
    package or in $NUMBA_CACHE_DIR.

    It serves until it is interrupted or terminated, which ends its workers too.
    """
    from candlebeam.worker.pool import compile_kernels, serve
    from candlebeam.worker.worker_log import LogSettings, default_folder

    if compile_only:
        sys.exit(compile_kernels().wait())
    serve(host, port, LogSettings(log_dir or default_folder(), log_megabytes << 20))


def run() -> None:
    """The worker pool as a command, with errors as one line."""
    try:
        main(prog_name="python -m candlebeam.worker")
    except CandlebeamError as error:
        print(f"candlebeam: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    run()
