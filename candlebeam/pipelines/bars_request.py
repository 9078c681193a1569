"""What `align`, `resample` and `export` have in common: what is asked for, and how it is run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, Protocol, TypeVar

from candlebeam.errors import CandlebeamError, UsageError
from candlebeam.formats.bar_inputs import CANDLES, BarInput, find_bars
from candlebeam.model import Market
from candlebeam.outcome import BarsOutcome
from candlebeam.pipelines.bars_report import BarsReport
from candlebeam.pipelines.each import run_each
from candlebeam.pipelines.lock import output_lock

T = TypeVar("T")


class BarsOptions(Protocol):
    """Where to, and how. `to` is the output folder."""

    @property
    def to(self) -> str: ...


O_co = TypeVar("O_co", bound=BarsOptions, covariant=True)


@dataclass(frozen=True)
class BarsRequest(Generic[O_co]):
    """What to do.

    Attributes:
        inputs: output roots of backfills, files of bars, or folders of them; see
            `formats.bar_inputs`.
        options: where to, and how.
        collector, exchange, symbol: filters; None takes all.
        runner_config: a file with Beam options.
        beam_arguments: Beam options, which count more than those of the file.
    """

    inputs: tuple[str, ...]
    options: O_co
    collector: str | None = None
    exchange: str | None = None
    symbol: str | None = None
    runner_config: str | None = None
    beam_arguments: tuple[str, ...] = ()
    started: float = field(default_factory=time.monotonic, init=False, compare=False)

    def __post_init__(self) -> None:
        if not self.inputs:
            raise UsageError("nothing to read: expected output folders or files of bars")

    def refuse_output_inside_input(self) -> None:
        """Raises `UsageError` where a later run would take the output for more input."""
        to = os.path.realpath(self.options.to)
        for path in self.inputs:
            if os.path.isdir(path) and f"{to}/".startswith(f"{os.path.realpath(path)}/"):
                raise UsageError(
                    f"--to {self.options.to} lies inside of {path}, where the next run would take"
                    " it for more input"
                )

    def wants(self, market: Market) -> bool:
        """Whether the filters let a market through."""
        return (
            (not self.collector or self.collector.upper() == market.collector)
            and (not self.exchange or self.exchange.upper() == market.exchange)
            and (not self.symbol or self.symbol == market.symbol)
        )

    def may_want(self, found: BarInput) -> bool:
        """Whether an input that cannot be opened is of a market that was asked for."""
        if found.kind != CANDLES:
            return True
        parts = os.path.abspath(os.path.splitext(found.paths[0])[0]).split(os.sep)[-3:]
        return len(parts) < 3 or self.wants(Market(*parts))

    def found(self) -> Iterator[BarInput]:
        """What there is to read, each once.

        Raises:
            CandlebeamError: an input is not there, or is none.
        """
        seen = set()
        for path in self.inputs:
            for found in find_bars(path):
                key = tuple(os.path.realpath(file) for file in found.paths)
                if key not in seen:
                    seen.add(key)
                    yield found

    def nothing(self, what: str) -> CandlebeamError:
        """The error that there is nothing of `what`, such as "bars", under the inputs."""
        filters = [
            f"{name} {value}"
            for name in ("collector", "exchange", "symbol")
            if (value := getattr(self, name))
        ]
        of = f" of {', '.join(filters)}" if filters else ""
        return CandlebeamError(f"{', '.join(self.inputs)}: no {what}{of}")

    def run(
        self,
        items: Sequence[T],
        function: Callable[..., BarsOutcome],
        failed: Sequence[BarsOutcome] = (),
        noun: str = "market",
    ) -> BarsReport:
        """Calls `function(item, options=options)` for each item, as the only writer of the output.

        Args:
            failed: outcomes of inputs that could not be opened, which go into the report as well.
            noun: what an item is, for the report.
        """
        to = self.options.to
        with output_lock(to, "bars"):
            outcomes = run_each(
                items,
                partial(function, options=self.options),
                out=to,
                beam_arguments=self.beam_arguments,
                runner_config=self.runner_config,
            )
        seconds = time.monotonic() - self.started
        return BarsReport([*outcomes, *failed], seconds=seconds, noun=noun)


def explained(error: Exception, found: BarInput) -> str:
    """Why an input cannot be opened."""
    if isinstance(error, OSError) and not isinstance(error, CandlebeamError):
        return f"{error.filename or found}: {error.strerror or error}"
    return str(error)
