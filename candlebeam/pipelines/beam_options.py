"""Beam's options of a run: from arguments, from a file, and by default."""

from __future__ import annotations

import argparse
import logging
from typing import NoReturn

from apache_beam.options.pipeline_options import PipelineOptions

from candlebeam.errors import UsageError
from candlebeam.pipelines.runner_config import available_cores, load_runner_config, option_names
from candlebeam.storage.remote import use_options

#: The runner without any other word: in process, nothing to download, no Java, no network.
IN_PROCESS = "FnApiRunner"
_IN_PROCESS_NAMES = {IN_PROCESS, "DirectRunner", "BundleBasedDirectRunner"}
#: Runners whose options Beam's Python does not all know: their job servers tell them.
_WITH_JOB_SERVER = {"FlinkRunner", "SparkRunner", "PortableRunner"}


def beam_options(arguments: list[str], config: str | None) -> PipelineOptions:
    """The options of a run: those of the arguments, then of the file, then the defaults.

    Raises:
        UsageError: an option that Beam does not know, or a file that is no runner configuration.
            What a runner with a job server knows besides is found out when it runs.
    """
    # Beam tells in warnings what it does not know, before it is known who does.
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    given = option_names(arguments)
    from_file = load_runner_config(config) if config else []
    merged = arguments + [a for a in from_file if not option_names([a]) & given]
    names = option_names(merged)
    for source, words in (("the command line", arguments), (config or "", from_file)):
        unknown = unknown_words(words, source)
        if unknown and not has_job_server(PipelineOptions(merged)):
            raise UsageError(f"{source}: {unknown[0]} is no option of Candlebeam or Beam")
    if "runner" not in names:
        merged.append(f"--runner={IN_PROCESS}")
    options = PipelineOptions(merged)
    if runs_in_process(options):
        if "direct_running_mode" not in names:
            merged.append("--direct_running_mode=in_memory")
        if "direct_num_workers" not in names:
            merged.append(f"--direct_num_workers={available_cores()}")
        options = PipelineOptions(merged)
    use_options(options)
    return options


def has_job_server(options: PipelineOptions) -> bool:
    """Whether the runner is one that pipelines are submitted to."""
    return _runner_name(options) in _WITH_JOB_SERVER


def _runner_name(options: PipelineOptions) -> str:
    return str(options.get_all_options().get("runner")).rpartition(".")[2]


def runs_in_process(options: PipelineOptions) -> bool:
    """Whether the run stays on this machine, in processes that Beam's Python runner starts."""
    return _runner_name(options) in _IN_PROCESS_NAMES


class _OptionParser(argparse.ArgumentParser):
    """Raises where argparse would print the usage of all of Beam and exit."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def unknown_words(arguments: list[str], source: str = "the command line") -> list[str]:
    """The arguments that no class of options of Beam's knows.

    Raises:
        UsageError: one is known but has no value, or a wrong one.
    """
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
    return unknown


def _all_option_classes(root: type[PipelineOptions]) -> list[type[PipelineOptions]]:
    found = []
    for options in root.__subclasses__():
        found += [options, *_all_option_classes(options)]
    return found
