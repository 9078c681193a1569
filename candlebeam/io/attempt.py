"""Doing something to each of many things, so that one that fails does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from candlebeam.errors import CandlebeamError
from candlebeam.outcome import FAILED, BarsOutcome

T = TypeVar("T")


def attempt(function: Callable[[T], BarsOutcome], item: T) -> BarsOutcome:
    """What became of one item; an error that is meant for the user is a failed outcome."""
    try:
        return function(item)
    except CandlebeamError as error:
        return BarsOutcome(str(item), FAILED, str(error))
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return BarsOutcome(str(item), FAILED, f"{place}{error.strerror or error}")


def attempt_one_a_place(
    function: Callable[[str], BarsOutcome], placed: tuple[str, Iterable[str]], hint: str = ""
) -> Iterator[BarsOutcome]:
    """What became of the paths that belong to one place: of more than one, none is written.

    Args:
        placed: the place and the paths.
        hint: what would keep them apart, for the message.
    """
    place, found = placed
    paths = sorted(set(found))
    if len(paths) == 1:
        yield attempt(function, paths[0])
        return
    error = f"{' and '.join(paths)} would both be {place}{hint}"
    for path in paths:
        yield BarsOutcome(path, FAILED, error)
