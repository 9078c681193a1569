"""One market's bars on their way from a source to what is written of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from candlebeam.errors import CandlebeamError, FormatError, RangeError, UsageError
from candlebeam.formats.bar_source import BarSource
from candlebeam.io.background import Background
from candlebeam.io.resample_outputs import Output, ResampleOptions
from candlebeam.model import Bars, Timeframe
from candlebeam.rules.resample import TRADE_PATIENCE, BadBar, Ending, Resampler, time_text


class Making:
    """The bars of one market as they are read, resampled, and handed to their outputs.

    Args:
        name: of the source, for messages.
        background: where the outputs are written.
        begin: the place of the first bar that will be taken.

    Attributes:
        name: of the source.
        number: the place of the next bar.
        errors: why the source could not be read to its end.
    """

    def __init__(
        self,
        name: str,
        timeframe: Timeframe | None,
        options: ResampleOptions,
        outputs: Sequence[Output],
        background: Background,
        *,
        record_bytes: int = 1,
        begin: int = 0,
    ) -> None:
        self.outputs, self.number = outputs, begin
        self.errors: list[str] = []
        self.name, self._timeframe, self._record_bytes = name, timeframe, record_bytes
        self._background = background
        self._resampler = Resampler(options.periods, options.tz, timeframe=timeframe, begin=begin)
        self._tail: list[Bars] = []
        self._endings: list[Ending] = []

    def parts(self, source: BarSource) -> Iterator[tuple[int, Bars, Bars]]:
        """The bars of a source from `number` on: place, those that are closed, those that are not.

        Ends where the source is damaged, which is noted.
        """
        try:
            for begin, bars in source.pieces(self.number):
                closed = len(bars)
                if source.closed is not None:
                    closed = min(max(source.closed - begin, 0), closed)
                yield begin, bars.part(slice(closed)), bars.part(slice(closed, None))
        except UsageError:
            raise
        except CandlebeamError as error:
            self.errors.append(str(error))

    def take(self, bars: Bars, tail: Bars | None = None) -> None:
        """Takes closed bars, and behind them those that may still change."""
        if self.errors:
            return
        try:
            closed = self._resampler.add(bars)
        except BadBar as bad:
            place = bad.number * self._record_bytes if self._record_bytes > 1 else None
            where = "" if place is not None else f", which is bar {bad.number + 1:,}"
            error = FormatError(self.name, f"{bad.expected}", f"{bad.found}{where}", place)
            self.errors.append(str(error))
            return
        except (UsageError, RangeError) as error:
            raise type(error)(f"{self.name}: {error}") from None
        self.number += len(bars)
        self._write(closed)
        if tail is not None and len(tail):
            self._tail.append(tail)

    def finish(self) -> None:
        """Takes note that there is no more."""
        try:
            self._endings = self._resampler.finish(Bars.join(self._tail))
        except (UsageError, RangeError) as error:
            raise type(error)(f"{self.name}: {error}") from None
        self._write([ending.closed for ending in self._endings])

    def _write(self, closed: Sequence[Bars]) -> None:
        for output, bars in zip(self.outputs, closed, strict=True):
            if len(bars):
                self._background.call(output.add, bars)

    @property
    def settled(self) -> int:
        """The place of the first bar that is in no closed one."""
        return self._resampler.settled

    @property
    def late(self) -> int:
        """How many bars came too late."""
        return self._resampler.order.late

    @property
    def empty(self) -> bool:
        """Whether nothing was made, and nothing has been made before."""
        return all(output.empty for output in self.outputs) and not any(
            len(ending.open) for ending in self._endings
        )

    @property
    def notes(self) -> list[str]:
        """What was left out."""
        order = self._resampler.order
        if order.first_late is None:
            return []
        what = "bar" if self._timeframe else "trade"
        left = f"{order.late:,} {what}" if order.late == 1 else f"{order.late:,} {what}s"
        why = "out of order" if self._timeframe else f"more than {TRADE_PATIENCE // 1_000} s late"
        first = time_text(order.first_late)
        return [f"{left} {why}: left out, the first at {first}"]

    def commit(self, state: Callable[[Making, int], tuple[int, int]]) -> None:
        """Makes the outputs count. `state`: of a place, where to go on and the checksum."""
        ordered = sorted(
            zip(self.outputs, self._endings, strict=True), key=lambda each: each[1].place
        )
        for output, ending in ordered:
            output.commit(*state(self, ending.place), ending.open)
