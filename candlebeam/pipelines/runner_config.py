"""Runner configurations: YAML files with the Beam options of one way to run.

A file is a mapping from names of Beam options to their values:

    runner: FnApiRunner
    direct_running_mode: multi_threading

True gives a flag, False and null give nothing, a list gives the option once for each value.
"""

from __future__ import annotations

import os
from typing import Any

from candlebeam.errors import UsageError


def load_runner_config(path: str) -> list[str]:
    """The options of a file as arguments for Beam: `["--runner=FnApiRunner", …]`.

    Raises:
        UsageError: the file cannot be read, or is no such mapping.
    """
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            values = yaml.safe_load(file)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    except (yaml.YAMLError, ValueError, AttributeError, RecursionError) as error:
        # The last three come from values that are not what their form or their tag says.
        raise UsageError(f"{path}: expected YAML, found {_one_line(error)}") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path}: expected a mapping of Beam options, found {_kind(values)}")
    return [
        argument for name, value in values.items() for argument in _arguments(path, name, value)
    ]


def available_cores() -> int:
    """The cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def early_worker_count(arguments: list[str], config: str | None) -> int:
    """How many processes may read before Beam is there: one a core, none where Beam decides alone.

    Beam decides where the run is given any option of how to run.
    """
    names = option_names(arguments)
    chosen = names & {"runner", "direct_running_mode", "direct_num_workers"}
    return 0 if chosen or config else available_cores()


def option_names(arguments: list[str]) -> set[str]:
    """The names of the options among arguments, without dashes.

    >>> sorted(option_names(["--runner=FnApiRunner", "--save_main_session"]))
    ['runner', 'save_main_session']
    """
    return {a[2:].partition("=")[0] for a in arguments if a.startswith("--")}


def _arguments(path: str, name: Any, value: Any) -> list[str]:
    if not isinstance(name, str) or not name.replace("_", "a").isalnum():
        raise UsageError(f"{path}: expected the name of a Beam option, found {name!r}")
    if value is None or value is False:
        return []
    if value is True:
        return [f"--{name}"]
    values = value if isinstance(value, list) else [value]
    for item in values:
        if not isinstance(item, (str, int, float)) or isinstance(item, bool):
            raise UsageError(f"{path}: {name}: expected text or a number, found {_kind(item)}")
    return [f"--{name}={item}" for item in values]


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
