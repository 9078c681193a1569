"""One function on every item of a list, in process or on a cluster, and what became of each.

`align`, `resample` and `export` are this: their items, one a market, do not know of each other. A
single item that nobody wants run elsewhere is done at once, without waiting for Beam's import.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from candlebeam.io.attempt import attempt
from candlebeam.outcome import FAILED, BarsOutcome
from candlebeam.pipelines.quiet import without_warnings
from candlebeam.storage.durable import write_atomic

T = TypeVar("T")

_FOLDER = ".candlebeam-outcomes"


def run_each(
    items: Sequence[T],
    function: Callable[[T], BarsOutcome],
    *,
    out: str,
    beam_arguments: Sequence[str] = (),
    runner_config: str | None = None,
) -> list[BarsOutcome]:
    """Calls `function` on each item.

    Args:
        items: picklable; what `str` makes of one names it in the outcome if its run is lost.
        function: picklable. A `CandlebeamError` or `OSError` that it raises fails that item alone.
        out: a folder that the driver and all workers can write to; it must be there.
        beam_arguments: Beam options, which count more than those of the file.
        runner_config: a file with Beam options.

    Returns:
        The outcomes, in the order of the items.

    Raises:
        UsageError: the Beam options are wrong.
    """
    chosen = bool(beam_arguments or runner_config)
    if not items or (len(items) == 1 and not chosen):
        return [attempt(function, item) for item in items]
    with without_warnings():
        from candlebeam.pipelines.beam_options import beam_options
        from candlebeam.pipelines.runner import find_target, run_pipeline
    import apache_beam as beam

    options = beam_options(list(beam_arguments), runner_config)
    target = find_target(options)
    if target is not None:
        target.check()
    folder = os.path.join(os.path.abspath(out), _FOLDER, uuid.uuid4().hex)
    os.makedirs(folder)
    try:
        run_pipeline(
            options,
            lambda pipeline: (
                pipeline
                | "Items" >> beam.Create(list(enumerate(items)))
                | "Spread" >> beam.Reshuffle()
                | "ForEach" >> beam.Map(partial(_note, function, folder))
            ),
            target=target,
        )
        return [_read(folder, place, item) for place, item in enumerate(items)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(folder))


def _note(function: Callable[[T], BarsOutcome], folder: str, numbered: tuple[int, T]) -> None:
    """In a worker: does one item and puts its outcome where the driver finds it."""
    place, item = numbered
    outcome = attempt(function, item)
    data = json.dumps(outcome.to_json()).encode()
    write_atomic(os.path.join(folder, str(place)), data, durable=False)


def _read(folder: str, place: int, item: object) -> BarsOutcome:
    try:
        with open(os.path.join(folder, str(place)), "rb") as file:
            return BarsOutcome(**json.loads(file.read()))
    except FileNotFoundError:
        return BarsOutcome(str(item), FAILED, "the run ended without it")
