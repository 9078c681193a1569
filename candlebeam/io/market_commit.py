"""From the chunks of a market to its committed candle file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from candlebeam.errors import CandlebeamError
from candlebeam.formats.candles.companion import (
    CandlePaths,
    Companion,
    InputState,
    ResumeState,
    read_companion,
)
from candlebeam.formats.candles.records import encode_candles
from candlebeam.formats.candles.stored import last_candle
from candlebeam.formats.chunk_file import ChunkFile
from candlebeam.io.candle_writer import Placed, append, recover, write_anew
from candlebeam.io.merged_candles import (
    SPAN_CANDLES,
    CandlesAfter,
    CandleSource,
    MergedCandles,
    StoredCandles,
)
from candlebeam.io.rescaled import rescaled
from candlebeam.model import BLOCK_DTYPE, CandleBlock, FileOutcome, Records
from candlebeam.outcome import AGAIN, EMPTY, UP_TO_DATE, MarketOutcome, is_missing
from candlebeam.plan import FROM_SESSION, MarketTask
from candlebeam.rules.price_scale import PriceScale, PriceState, price_state
from candlebeam.settings import CandleSettings
from candlebeam.storage import storage_of
from candlebeam.storage.durable import cannot_write


@dataclass(frozen=True)
class CommitOptions:
    """How to commit.

    Attributes:
        out: the output root.
        settings: what the candles are made of.
        rebuild_late: asks for a market to be made again when trades came late.
        skip_missing: goes on without inputs that are not there.
    """

    out: str
    settings: CandleSettings
    rebuild_late: bool = False
    skip_missing: bool = False


#: Gaps that are worth a note where next to nothing stands between them.
_MANY_GAPS = 1_000_000


class _MakeAgain(Exception):
    """The market has to be made from all its inputs; says why."""


def commit_market(
    task: MarketTask, chunks: Sequence[ChunkFile], options: CommitOptions
) -> MarketOutcome:
    """Merges a market's chunks, fills gaps, chooses the price scale and commits the pair of files.

    Args:
        task: the market's, from the plan.
        chunks: all of them, in the order of their shards.

    Returns:
        What became of it. The status "again" asks for a plan that makes the market from scratch.
    """
    outcome = MarketOutcome(
        str(task.market),
        notes=list(task.notes),
        late_files=task.late_files,
        rebuilt=task.rebuilt,
    )
    files = [file for chunk in chunks for file in chunk.files]
    outcome.add_files(files)
    unreadable = [f for f in files if f.error and not (is_missing(f) and options.skip_missing)]
    if unreadable:
        more = f" (and {len(unreadable) - 1} more inputs)" if len(unreadable) > 1 else ""
        return outcome.fail(f"{unreadable[0].path}: {unreadable[0].error}{more}")
    try:
        _Commit(task, chunks, options, outcome).run()
    except _MakeAgain as reason:
        if _has_session(task):
            return outcome.fail(f"{reason}; {FROM_SESSION}")
        outcome.status = AGAIN
        outcome.notes.append(f"{reason}; the market was made again")
    except CandlebeamError as error:
        outcome.fail(str(error))
    except OSError as error:
        outcome.fail(cannot_write(error, str(task.market)))
    return outcome


def _has_session(task: MarketTask) -> bool:
    """Whether a market goes on from candles that have trades of a live session."""
    if not task.base:
        return False
    state = Companion.decode(task.base, str(task.market)).state
    return state is not None and bool(state.sessions)


class _Commit:
    """One market being committed."""

    def __init__(
        self,
        task: MarketTask,
        chunks: Sequence[ChunkFile],
        options: CommitOptions,
        outcome: MarketOutcome,
    ) -> None:
        self._task, self._chunks = task, chunks
        self._options, self._outcome = options, outcome
        self._timeframe = options.settings.timeframe
        self._paths = CandlePaths.of(options.out, task.market)
        self._old = Companion.decode(task.base, self._paths.companion) if task.base else None
        tail = self._old.state.tail if self._old and self._old.state else b""
        self._tail = StoredCandles(np.frombuffer(tail, BLOCK_DTYPE))
        self._sources: Sequence[CandleSource] = chunks
        self._merged = MergedCandles(task.market, self._timeframe, [self._tail, *chunks])
        self._spans: list[CandleBlock] | None = None
        # Whether every closed price can be had back; known once all records have been made.
        self._exact = self._old.state.exact if self._old and self._old.state else True

    def run(self) -> None:
        old = self._old
        if old is not None:
            recover(self._paths)
            is_kept = self._keep_of_session(old)
            if is_kept and self._merged.end_ts == old.end_ts:
                # Its companion stays as well: what the inputs have of its candle is not in it.
                self._outcome.status, self._outcome.records = UP_TO_DATE, old.records
                self._outcome.notes.append("the live session has had all that the inputs have")
                return
            self._check_base(old)
        elif not self._merged:
            self._outcome.status = EMPTY
            if storage_of(self._paths.stem).exists(self._paths.records):
                self._outcome.notes.append(
                    f"no trade was found; {self._paths.records} was left as it was"
                )
            return
        merged = self._merged
        start_ts = old.start_ts if old else merged.start_ts
        first_place = (merged.start_ts - start_ts) // self._timeframe.ms
        if merged.end_ts - merged.start_ts <= SPAN_CANDLES * self._timeframe.ms:
            self._spans = list(merged.spans())
        prices, scale = self._prices()
        companion = Companion(
            market=self._task.market,
            timeframe=self._timeframe,
            start_ts=start_ts,
            end_ts=merged.end_ts,
            scale=scale,
            records=(merged.end_ts - start_ts) // self._timeframe.ms,
            last_input_start_ts=self._task.last_start_ts,
        )

        def settled() -> Companion:
            state = ResumeState(
                settings=self._options.settings,
                inputs=self._inputs(),
                covered=self._task.covered,
                skipped=self._skipped(),
                late_trades=self._outcome.late_trades
                + (old.state.late_trades if old and old.state else 0),
                tail=self._new_tail(),
                prices=prices,
                exact=self._exact,
            )
            return replace(companion, state=state)

        records = self._records(scale, first_place)
        there = None if old is None else self._there(old, companion)
        if old is None:
            write_anew(self._paths, records, companion.size, settled)
            # Trades that came too late for a stream are in it now.
            storage_of(self._paths.late).remove(self._paths.late)
        elif there is None:
            for _ in records:
                pass
        elif old.scale == scale:
            append(self._paths, there, records, companion.size, settled)
        else:
            records = chain(self._rescaled(old, scale), records)
            write_anew(self._paths, records, companion.size, settled)
        self._outcome.records = companion.records
        self._outcome.gaps = companion.records - first_place - self._outcome.candles
        if self._outcome.gaps > max(1000 * self._outcome.candles, _MANY_GAPS):
            self._outcome.notes.append(
                f"{self._outcome.gaps} of {companion.records} candles are gaps;"
                " a trade may have a wrong time"
            )

    def _there(self, old: Companion, new: Companion) -> Companion | None:
        """The pair to go on from as it is there, which may have quiet candles at the end.

        None if a worker has done it already, which then was lost before it could say so. To write a
        pair that grows twice could rescale it twice.
        """
        found = read_companion(self._paths.companion)
        if found is not None and found.traded == old:
            return found
        if found is None or replace(found.traded, state=None) != new:
            raise CandlebeamError(f"{self._paths.companion} was changed by another program")
        return None

    def _keep_of_session(self, old: Companion) -> bool:
        """Keeps the last candle of a live session as it is, if no input has more of its trades."""
        if old.state is None or old.state.files:
            return False
        stored = np.frombuffer(last_candle(old, self._paths), BLOCK_DTYPE)
        first = [chunk.read(0, min(1, chunk.length)) for chunk in self._chunks]
        again = [candle for candle in first if candle["time"].tolist() == stored["time"].tolist()]
        if sum(map(_trades, again)) >= _trades(stored):
            return False
        self._tail = StoredCandles(stored)
        self._sources = [CandlesAfter(chunk, int(stored["time"][0])) for chunk in self._chunks]
        self._merged = MergedCandles(
            self._task.market, self._timeframe, [self._tail, *self._sources]
        )
        return True

    def _check_base(self, old: Companion) -> None:
        if self._outcome.late_trades and self._options.rebuild_late:
            raise _MakeAgain(f"{self._outcome.late_trades} trades came late")
        if not self._merged or self._merged.start_ts != old.end_ts - self._timeframe.ms:
            if self._outcome.missing:
                raise CandlebeamError(
                    f"{self._outcome.missing[0]}: no such file, and the last candle needs it"
                )
            raise _MakeAgain("the inputs that the candles ended with have changed")

    def _all_spans(self) -> Iterator[CandleBlock]:
        return iter(self._spans) if self._spans is not None else self._merged.spans()

    def _closed(self, block: CandleBlock) -> tuple[Records, Records]:
        """The candles of a span that later runs leave alone, and the last of all if it is there."""
        candles = block.candles
        is_last = candles["time"][-1] + self._timeframe.ms == self._merged.end_ts
        cut = len(candles) - int(is_last)
        return candles[:cut], candles[cut:]

    def _prices(self) -> tuple[PriceState, PriceScale]:
        """The state of the prices of all candles but the last, and the scale of all of them."""
        prices = self._old.state.prices if self._old and self._old.state else PriceState()
        last = PriceState()
        for block in self._all_spans():
            closed, end = self._closed(block)
            prices = prices.joined(price_state(closed))
            last = price_state(end)
        scale = self._options.settings.price_scale or prices.joined(last).scale()
        if self._old and self._old.scale != scale and not self._exact:
            raise _MakeAgain(
                f"new prices need price scale {scale.value}, the candles have"
                f" {self._old.scale.value} and prices that are rounded at it"
            )
        return prices, scale

    def _records(self, scale: PriceScale, first_place: int) -> Iterator[Placed]:
        """The merged candles as records, the gaps within each span filled."""
        begin_ts, step = self._merged.start_ts, self._timeframe.ms
        for block in self._all_spans():
            closed, _ = self._closed(block)
            records, exact = encode_candles(block, scale, len(closed))
            self._exact = self._exact and exact
            self._outcome.candles += len(block)
            place = (int(block.candles["time"][0]) - begin_ts) // step
            yield first_place + place, records

    def _rescaled(self, old: Companion, scale: PriceScale) -> Iterator[Placed]:
        """The candles that are there, but for the last, at another scale."""
        for place, records, exact in rescaled(self._paths, old, old.records - 1, scale):
            self._exact = self._exact and exact
            yield place, records

    def _new_tail(self) -> bytes:
        """What the inputs before the last start have given to the last candle."""
        last_ts = self._merged.end_ts - self._timeframe.ms
        parts = [self._tail.read(0, self._tail.length)]
        parts += [_last(source) for source in self._sources[: self._task.group_ordinal]]
        parts = [part[part["time"] == last_ts] for part in parts]
        together = MergedCandles(
            self._task.market, self._timeframe, [StoredCandles(part) for part in parts]
        )
        return b"".join(block.candles.tobytes() for block in together.spans())

    def _inputs(self) -> tuple[InputState, ...]:
        group = [f for chunk in self._chunks[self._task.group_ordinal :] for f in chunk.files]
        files = [
            _input_state(root, path, file)
            for (root, path), file in zip(self._task.group, group, strict=False)
        ]
        sessions = self._old.state.sessions if self._old and self._old.state else ()
        return (*sessions, *files)

    def _skipped(self) -> tuple[tuple[str, str], ...]:
        """Inputs that are covered though they were not there, by folder and name without `.gz`."""
        files = [file for chunk in self._chunks for file in chunk.files]
        names = [os.path.split(file.path.removesuffix(".gz")) for file in files]
        missing = {name for name, file in zip(names, files, strict=True) if is_missing(file)}
        return tuple(sorted({*self._task.skipped, *missing} - (set(names) - missing)))

    def _block(self, candles: Records) -> CandleBlock:
        return CandleBlock(self._task.market, self._timeframe, candles)


def _last(source: CandleSource) -> Records:
    return source.read(max(source.length - 1, 0), source.length)


def _trades(candles: Records) -> int:
    return int(candles["buy_count"].sum() + candles["sell_count"].sum())


def _input_state(root: str, path: str, file: FileOutcome) -> InputState:
    return InputState(
        root, path, os.path.basename(file.read_path or ""), file.size, file.text_bytes
    )
