"""The graph of a backfill: the public transforms, put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import apache_beam as beam

from candlebeam.errors import CandlebeamError
from candlebeam.io.commit_markets import CommitMarkets
from candlebeam.io.market_commit import CommitOptions
from candlebeam.io.read_trades import FindStaged, ListShards, ReadTrades
from candlebeam.io.stage_chunks import StageChunks
from candlebeam.transforms.candles import TradesToCandles
from candlebeam.transforms.correct import CorrectTrades
from candlebeam.version import __version__


@dataclass(frozen=True)
class FlowOptions:
    """What the workers have to know.

    Attributes:
        staging: the staging folder.
        commit: where the candles go, how, and what they are made of.
        rejects: a folder to keep rejected rows in; None not to keep them.
        run: the name by which the run can be cancelled (`io.cancellation`).
    """

    staging: str
    commit: CommitOptions
    rejects: str | None = None
    run: str = ""


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
        | "SameVersion" >> beam.Map(_same_version, __version__).with_output_types(str)
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


def _same_version(manifest: str, version: str) -> str:
    """In a worker: raises where it is of another version than the driver, which wrote the plan."""
    if version != __version__:
        raise CandlebeamError(
            f"a worker has candlebeam {__version__}, the driver {version}: install the same on both"
        )
    return manifest
