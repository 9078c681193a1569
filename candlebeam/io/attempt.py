"""Doing something to each of many things, so that one that fails does not stop the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from candlebeam.errors import CandlebeamError
from candlebeam.io.durable import cannot_write
from candlebeam.outcome import FAILED, BarsOutcome

T = TypeVar("T")


def attempt(function: Callable[[T], BarsOutcome], item: T) -> BarsOutcome:
    """What became of one item; an error that is meant for the user is a failed outcome."""
    try:
        return function(item)
    except CandlebeamError as error:
        return BarsOutcome(str(item), FAILED, str(error))
    except OSError as error:
        return BarsOutcome(str(item), FAILED, cannot_write(error, str(item)))
