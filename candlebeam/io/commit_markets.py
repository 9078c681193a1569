"""The sink: chunks of a market to its candle file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from candlebeam.errors import Cancelled, CandlebeamError
from candlebeam.io.cancellation import is_cancelled
from candlebeam.io.market_commit import CommitOptions, commit_market
from candlebeam.io.staging import ChunkRef, Staging, read_task
from candlebeam.model import Market
from candlebeam.outcome import AGAIN, MarketOutcome

#: Markets that one worker commits at a time: most of the time goes into waiting for the disk.
COMMIT_THREADS = 3


class CommitMarkets(beam.PTransform):
    """Groups chunks by market and commits each market once.

    In: a PCollection of (`Market`, `ChunkRef`), every chunk of a market's task among them. Out: a
    PCollection of `MarketOutcome`. Committing twice gives the first outcome again.

    Args:
        staging: the staging folder; a market's chunks are removed once it is committed.
        options: where to, and how.
        run: the name by which the run can be cancelled (`io.cancellation`).
    """

    def __init__(self, *, staging: str, options: CommitOptions, run: str = "") -> None:
        super().__init__()
        self._staging, self._options, self._run = Staging(staging), options, run

    def expand(self, chunks: pvalue.PCollection) -> pvalue.PCollection:
        commit = beam.ParDo(_CommitFn(self._staging, self._options, self._run))
        return (
            chunks
            | "GroupChunks" >> beam.GroupByKey()
            | "WriteCandles" >> commit.with_output_types(MarketOutcome)
        )


class _CommitFn(beam.DoFn):
    def __init__(self, staging: Staging, options: CommitOptions, run: str) -> None:
        self._staging, self._options, self._run = staging, options, run
        self._pending: list[Future[MarketOutcome]] = []

    def start_bundle(self) -> None:
        self._pool = ThreadPoolExecutor(COMMIT_THREADS, "commit")
        self._pending = []

    def process(self, element: tuple[Market, Iterable[ChunkRef]]) -> None:
        market, chunks = element
        self._pending.append(self._pool.submit(self._commit, market, list(chunks)))

    def finish_bundle(self) -> Iterator[WindowedValue]:
        with self._pool:
            for outcome in self._pending:
                window = GlobalWindow()
                yield WindowedValue(outcome.result(), window.max_timestamp(), [window])

    def _commit(self, market: Market, chunks: list[ChunkRef]) -> MarketOutcome:
        if is_cancelled(self._run):
            raise Cancelled("the run was cancelled")
        return commit_chunks(self._staging, market, chunks, self._options, self._run)


def commit_chunks(
    staging: Staging,
    market: Market,
    chunks: list[ChunkRef],
    options: CommitOptions,
    run: str = "",
) -> MarketOutcome:
    """Commits a market from references to its chunks, notes the outcome and removes the chunks.

    The chunks of a market that failed stay: they need not be made again by the next run.
    """
    with staging.committing(market, run):
        known = staging.read_outcome(market)
        if known is not None:
            if known.error is None and known.status != AGAIN:
                staging.remove_chunks(market)
            return known
        outcome = _committed(staging, market, chunks, options)
        try:
            staging.write_outcome(market, outcome)
        except OSError as failure:
            # The candles are committed; only the report of a retried bundle would not know of it.
            outcome.notes.append(f"the outcome could not be noted: {failure}")
        if outcome.error is None and outcome.status != AGAIN:
            staging.remove_chunks(market)
        return outcome


def _committed(
    staging: Staging, market: Market, chunks: list[ChunkRef], options: CommitOptions
) -> MarketOutcome:
    by_ordinal = {chunk.ordinal: chunk for chunk in chunks}
    task = read_task(chunks[0].shard)
    error = next((chunk.error for chunk in chunks if chunk.error), "")
    if not error and sorted(by_ordinal) != list(range(task.shards)):
        error = f"{len(by_ordinal)} of {task.shards} shards have arrived"
    if error:
        outcome = MarketOutcome(str(market)).fail(error)
    else:
        names = [by_ordinal[i].name for i in range(task.shards)]
        try:
            with staging.open_chunks(market, names) as files:
                outcome = commit_market(task, files, options)
        except (CandlebeamError, OSError) as failure:
            outcome = MarketOutcome(str(market)).fail(str(failure))
    outcome.chunks_reused = sum(chunk.reused for chunk in by_ordinal.values())
    outcome.chunks_made = len(by_ordinal) - outcome.chunks_reused
    return outcome
