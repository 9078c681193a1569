"""Running a Beam pipeline: which runner, which options."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from typing import NoReturn

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from candlebeam.errors import UsageError
from candlebeam.pipelines.runner_config import available_cores, load_runner_config, option_names

#: The runner without any other word: in process, nothing to download, no Java, no network.
IN_PROCESS = "FnApiRunner"
_IN_PROCESS_NAMES = {IN_PROCESS, "DirectRunner", "BundleBasedDirectRunner"}


def beam_options(arguments: list[str], config: str | None) -> PipelineOptions:
    """The options of a run: those of the arguments, then of the file, then the defaults.

    Raises:
        UsageError: an option that Beam does not know, or a file that is no runner configuration.
    """
    given = option_names(arguments)
    from_file = load_runner_config(config) if config else []
    merged = arguments + [a for a in from_file if not option_names([a]) & given]
    names = option_names(merged)
    _check_known(arguments, "the command line")
    _check_known(from_file, config or "")
    if "runner" not in names:
        merged.append(f"--runner={IN_PROCESS}")
    options = PipelineOptions(merged)
    if runs_in_process(options):
        if "direct_running_mode" not in names:
            merged.append("--direct_running_mode=in_memory")
        if "direct_num_workers" not in names:
            merged.append(f"--direct_num_workers={available_cores()}")
        options = PipelineOptions(merged)
    return options


def runs_in_process(options: PipelineOptions) -> bool:
    """Whether the run stays on this machine, in processes that Beam's Python runner starts."""
    return str(options.get_all_options().get("runner")) in _IN_PROCESS_NAMES


def run_pipeline(options: PipelineOptions, build: Callable[[beam.Pipeline], object]) -> None:
    """Builds a pipeline, runs it and waits for its end."""
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    try:
        pipeline = beam.Pipeline(options=options)
    except ValueError as error:
        # A runner that Beam does not know, or options that do not go together.
        raise UsageError(" ".join(str(error).split())) from error
    build(pipeline)
    pipeline.run().wait_until_finish()


class _OptionParser(argparse.ArgumentParser):
    """Raises where argparse would print the usage of all of Beam and exit."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def _check_known(arguments: list[str], source: str) -> None:
    parser = _OptionParser(add_help=False, allow_abbrev=False)
    for options in _all_option_classes(PipelineOptions):
        if "_add_argparse_args" in vars(options):
            try:
                options._add_argparse_args(parser)
            except argparse.ArgumentError:
                continue
    try:
        _, unknown = parser.parse_known_args(arguments)
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from None
    if unknown:
        raise UsageError(f"{source}: {unknown[0]} is no option of Candlebeam or Beam")


def _all_option_classes(root: type[PipelineOptions]) -> list[type[PipelineOptions]]:
    found = []
    for options in root.__subclasses__():
        found += [options, *_all_option_classes(options)]
    return found
