"""The graph of a backfill: the public transforms, put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import apache_beam as beam

from candlebeam.io.check_workers import CheckWorkers
from candlebeam.io.commit_markets import CommitMarkets
from candlebeam.io.market_commit import CommitOptions
from candlebeam.io.read_trades import FindStaged, ListShards, ReadTrades
from candlebeam.io.stage_chunks import StageChunks
from candlebeam.transforms.candles import TradesToCandles
from candlebeam.transforms.correct import CorrectTrades


@dataclass(frozen=True)
class FlowOptions:
    """What the workers have to know.

    Attributes:
        staging: the staging folder.
        commit: where the candles go, how, and what they are made of.
        rejects: a folder to keep rejected rows in; None not to keep them.
        run: the name by which the run can be cancelled (`io.cancellation`).
        elsewhere: whether workers are processes that this one has not started.
    """

    staging: str
    commit: CommitOptions
    rejects: str | None = None
    run: str = ""
    elsewhere: bool = False


def build_backfill(
    pipeline: beam.Pipeline, manifests: Sequence[str], options: FlowOptions
) -> beam.PCollection:
    """Adds a backfill to a pipeline.

    The graph holds names of manifests and nothing of what is in them.

    Returns:
        A PCollection of `MarketOutcome`, one a market.
    """
    settings = options.commit.settings
    found = (
        pipeline
        | "Manifests" >> beam.Create(list(manifests)).with_output_types(str)
        | "CheckWorkers" >> CheckWorkers(elsewhere=options.elsewhere)
        | "ListShards" >> ListShards()
        | "FindStaged" >> FindStaged(staging=options.staging, run=options.run)
    )
    made = (
        found.to_read
        | "ReadTrades" >> ReadTrades(rejects=options.rejects, snap=settings.snap, run=options.run)
        | "CorrectTrades" >> CorrectTrades(corrections=settings.corrections)
        | "TradesToCandles"
        >> TradesToCandles(
            timeframe=settings.timeframe,
            include_liquidations=settings.include_liquidations,
            errors_as_values=True,
        )
        | "StageChunks" >> StageChunks(staging=options.staging)
    )
    return (
        (found.staged, made)
        | "AllChunks" >> beam.Flatten()
        | "CommitMarkets"
        >> CommitMarkets(staging=options.staging, options=options.commit, run=options.run)
    )
