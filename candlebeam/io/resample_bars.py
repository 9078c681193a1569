"""From the bars, or trades, of a source to bars of several periods, in one pass.

Candle files and aligned files become aligned files that grow: of each it is known where in the
source its open bar begins, and what the source held before. The next run goes on from there, the
least of these places, and every file passes over what it has. Where anything is odd (bars out of
order, others than before), all is made again, so that many runs give what one gives.

CSV and Databento files can only be read from their beginning, so what is made of them is made again
whenever they have changed.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from types import TracebackType

from candlebeam.errors import CandlebeamError, FormatError
from candlebeam.formats.bar_inputs import DBN, BarInput, open_input
from candlebeam.formats.bar_source import BarSource
from candlebeam.io.background import Background
from candlebeam.io.file_sum import FileSum
from candlebeam.io.resample_market import Making
from candlebeam.io.resample_outputs import (
    ALIGNED,
    AlignedOutput,
    CsvOutput,
    Output,
    ResampleOptions,
)
from candlebeam.model import Market, Timeframe
from candlebeam.outcome import EMPTY, FAILED, UP_TO_DATE, BarsOutcome

_BATCH_ROWS = 1 << 16


@dataclass(frozen=True)
class ResampleItem:
    """What is read together.

    Attributes:
        inputs: one; of Databento files all that have these markets, in order of time.
        markets: whose bars are made: one; of Databento files several.
        timeframe: of the input; None for trades.
    """

    inputs: tuple[BarInput, ...]
    markets: tuple[Market, ...]
    timeframe: Timeframe | None

    def __str__(self) -> str:
        name = str(self.inputs[0])
        if self.inputs[0].kind != DBN:
            return name
        first, *others = self.markets
        more = f" and {len(others)} more" if others else ""
        return f"{name} {first.symbol}{more}"


def resample_item(item: ResampleItem, options: ResampleOptions) -> BarsOutcome:
    """Brings the resampled bars of an item up to date.

    What stands before a damaged place is written; the outcome has the damage as its error.

    Raises:
        UsageError: the bars cannot be put together to such periods.
        CandlebeamError: nothing can be read, or what is at a place is not to be gone on with.
        OSError: something cannot be read or written.
    """
    with _Run(item, options) as run:
        if item.inputs[0].kind == DBN:
            return run.databento()
        (source,) = open_input(item.inputs[0])
        if options.form == ALIGNED and source.record_bytes > 1:
            return run.go_on(source)
        return run.make_again(source)


class _Run:
    """One run over an item; a context manager that closes what is not committed."""

    def __init__(self, item: ResampleItem, options: ResampleOptions) -> None:
        self._item, self._options = item, options
        self._outcome = BarsOutcome(str(item))
        self._errors: list[str] = []
        self._stack = ExitStack()
        self._background = Background()

    def __enter__(self) -> _Run:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # First of all nothing writes any more.
        self._background.close()
        self._stack.close()

    # Aligned files of what can be read from any place

    def go_on(self, source: BarSource) -> BarsOutcome:
        """Goes on where the last run ended."""
        outputs = self._aligned(source.market, source.timeframe)
        length = source.record_bytes
        before = FileSum(source.path)
        for output in sorted(outputs, key=lambda output: output.in_pos):
            output.check(source.path, length, lambda place: before.until(place * length))
        making, reason = self._pass(source, outputs, before)
        if reason is not None:
            self._background.wait()
            for output in outputs:
                output.restart(f"{source.path} {reason}")
            making, _ = self._pass(source, outputs, before)
        return self._finished(
            [making], lambda _, place: (place * length, before.until(place * length))
        )

    def _pass(
        self, source: BarSource, outputs: Sequence[AlignedOutput], before: FileSum
    ) -> tuple[Making, str | None]:
        """Reads what any output lacks; says why it has to be read from the start instead."""
        places = [output.in_pos // source.record_bytes for output in outputs]
        floors = [
            (place, floor)
            for place, output in zip(places, outputs, strict=True)
            if (floor := output.floor) is not None
        ]
        making = Making(
            source.path,
            source.timeframe,
            self._options,
            outputs,
            self._background,
            record_bytes=source.record_bytes,
            begin=min(places),
        )
        for begin, ready, rest in making.parts(source):
            for place, floor in floors:
                if 0 <= place - begin < len(ready) and ready.ts[place - begin] < floor:
                    return making, "has more bars of times that were closed"
            making.take(ready, rest)
            if making.late and any(places):
                return making, "has bars that stand behind a later one"
            before.until(making.settled * source.record_bytes)
        making.finish()
        return making, None

    # Anything else

    def make_again(self, source: BarSource) -> BarsOutcome:
        """Makes everything again, unless it is made of the same already."""
        checksum = self._checksum()
        outputs = self._outputs(source.market, source.timeframe, checksum)
        if outputs is None:
            return self._finished([], _nowhere)
        making = Making(source.path, source.timeframe, self._options, outputs, self._background)
        for _, ready, rest in making.parts(source):
            making.take(ready, rest)
        making.finish()
        return self._finished([making], partial(self._whole, checksum))

    def databento(self) -> BarsOutcome:
        """Makes the bars of all markets again, in one reading of each file."""
        item = self._item
        checksum = self._checksum()
        makings: dict[Market, Making] = {}
        for market in item.markets:
            try:
                outputs = self._outputs(market, item.timeframe, checksum)
            except CandlebeamError as error:
                self._errors.append(str(error))
                continue
            if outputs is not None:
                name = f"{item.inputs[0]} {market.symbol}"
                makings[market] = Making(
                    name, item.timeframe, self._options, outputs, self._background
                )
        if not makings:
            return self._finished([], _nowhere)
        for found in item.inputs:
            self._read_databento(str(found), makings)
        for making in makings.values():
            making.finish()
        return self._finished(list(makings.values()), partial(self._whole, checksum))

    def _read_databento(self, path: str, makings: dict[Market, Making]) -> None:
        from candlebeam.formats.dbn.metadata import DbnFile
        from candlebeam.formats.dbn.records import Choice, DbnRecords

        def choose(head: DbnFile, symbol: str) -> tuple[Market, Choice] | None:
            market = head.market(symbol)
            return (market, Choice()) if market in makings else None

        records = DbnRecords(path, choose, any_price=True, bars=True, batch_rows=_BATCH_ROWS)
        try:
            for number in records:
                makings[records.keys[number]].take(records.take_bars(number))
        except FormatError as error:
            self._errors.append(str(error))
        if records.damage is not None:
            self._errors.append(str(FormatError(path, "a whole file", records.damage)))
        for number, market in enumerate(records.keys):
            self._outcome.notes += [
                f"{path}: {rows:,} {'row' if rows == 1 else 'rows'} of {market.symbol} rejected:"
                f" {reason}"
                for reason, rows in records.rejected(number)
            ]
        if records.unmapped:
            note = f"{path}: {records.unmapped:,} rows of instruments without a symbol rejected"
            self._outcome.notes.append(note)

    def _whole(self, checksum: int, making: Making, _: int) -> tuple[int, int]:
        """All of a source, and its checksum; another one, if it has to be read again next time.

        Damage has to be told by every run.
        """
        damaged = self._errors or making.errors
        return making.number, checksum ^ 0xFFFFFFFF if damaged else checksum

    def _checksum(self) -> int:
        """CRC-32 of the file; of several, that of their sums. CSV files do without."""
        if self._options.form != ALIGNED:
            return 0
        paths = (path for found in self._item.inputs for path in found.paths)
        sums = [FileSum(path).until() for path in paths]
        return zlib.crc32(repr(sums).encode()) if len(sums) > 1 else sums[0]

    def _outputs(
        self, market: Market, timeframe: Timeframe | None, checksum: int
    ) -> Sequence[Output] | None:
        """Outputs to be made again; None if they are made of files of that checksum."""
        if self._options.form != ALIGNED:
            return [CsvOutput(market, period, self._options) for period in self._options.periods]
        outputs = self._aligned(market, timeframe)
        made = [output.made_of(checksum) for output in outputs]
        if all(made):
            for output in outputs:
                self._outcome.notes += output.notes
            return None
        for output in outputs:
            output.begin_anew()
        return outputs

    def _aligned(self, market: Market, timeframe: Timeframe | None) -> list[AlignedOutput]:
        outputs = []
        for period in self._options.periods:
            outputs.append(AlignedOutput(market, timeframe, period, self._options))
            self._stack.callback(outputs[-1].close)
        return outputs

    def _finished(
        self, makings: Sequence[Making], state: Callable[[Making, int], tuple[int, int]]
    ) -> BarsOutcome:
        """Commits what was made, and says what it came to."""
        self._background.wait()
        outcome = self._outcome
        empty = bool(makings)
        for making in makings:
            if not making.empty:
                making.commit(state)
                empty = False
            prefix = f"{making.name}: " if len(makings) > 1 else ""
            outcome.notes += [prefix + note for note in making.notes]
            self._errors += making.errors
            for output in making.outputs:
                outcome.notes += output.notes
                outcome.files += output.files
                outcome.bars += output.bars
        if self._errors:
            outcome.status, outcome.error = FAILED, "; ".join(self._errors)
        elif not outcome.files:
            outcome.status = EMPTY if empty else UP_TO_DATE
        return outcome


def _nowhere(_: Making, place: int) -> tuple[int, int]:
    raise AssertionError("nothing was made")
