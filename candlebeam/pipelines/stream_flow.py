"""The graph of a stream: the transforms of the backfill, over a source without end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.io.flink.flink_streaming_impulse_source import FlinkStreamingImpulseSource

from candlebeam.errors import CandlebeamError
from candlebeam.feeds.places import Piece
from candlebeam.feeds.stream_errors import told_errors
from candlebeam.io.check_workers import CheckWorkers
from candlebeam.io.coders import MarketCoder  # noqa: F401  registers all coders
from candlebeam.io.commit_live import CommitCandles
from candlebeam.io.follow_databento import DatabentoOptions, FollowDatabento
from candlebeam.io.follow_trade_logs import FollowOptions, FollowTradeLogs
from candlebeam.model import CandleBlock, Market
from candlebeam.rules.open_candles import MarketUpdate
from candlebeam.transforms.candles import TradesToCandles
from candlebeam.transforms.correct import CorrectTrades
from candlebeam.transforms.live import CloseCandles


@dataclass(frozen=True)
class StreamOptions:
    """What the workers have to know.

    Attributes:
        follow: what to read, and what the candles are made of.
        out: the output root.
        staging, run: the staging folder, and the name by which the run is known there.
        tick_ms: how often to look for what is new.
        elsewhere: whether workers are processes that this one has not started.
        quiet_candles: whether candles without trades are written as time passes.
    """

    follow: FollowOptions | DatabentoOptions
    out: str
    staging: str = ""
    run: str = ""
    tick_ms: int = 200
    elsewhere: bool = False
    quiet_candles: bool = False


def build_stream(pipeline: beam.Pipeline, options: StreamOptions) -> pvalue.PCollection:
    """Adds a stream to a pipeline.

    Returns:
        A PCollection of (`Market`, ms up to where its candles are committed).
    """
    settings = options.follow.settings
    readers = [str(number) for number in range(options.follow.readers)]
    return (
        pipeline
        | "Ticks" >> FlinkStreamingImpulseSource().set_interval_ms(options.tick_ms)
        | "Readers" >> beam.FlatMap(lambda _: readers).with_output_types(str)
        | "CheckWorkers" >> CheckWorkers(elsewhere=options.elsewhere, streaming=True)
        | "ByNumber" >> beam.Map(lambda number: (number, "")).with_output_types(tuple[str, str])
        | _source(options.follow)
        | "CorrectTrades" >> CorrectTrades(corrections=settings.corrections)
        | "TradesToCandles"
        >> TradesToCandles(
            timeframe=settings.timeframe,
            include_liquidations=settings.include_liquidations,
            errors_as_values=True,
        )
        | "Updates" >> beam.Map(_update).with_output_types(tuple[Market, MarketUpdate])
        | "CloseCandles"
        >> CloseCandles(
            timeframe=settings.timeframe,
            lateness_ms=options.follow.lateness_ms,
            price_scale=settings.price_scale,
            quiet_candles=options.quiet_candles,
        )
        | "CommitCandles"
        >> CommitCandles(
            options.out,
            settings,
            staging=options.staging,
            run=options.run,
            quiet_candles=options.quiet_candles,
        )
    )


def _source(follow: FollowOptions | DatabentoOptions) -> Any:
    if isinstance(follow, DatabentoOptions):
        return "FollowDatabento" >> FollowDatabento(follow)
    return "FollowTradeLogs" >> FollowTradeLogs(follow)


def _update(
    element: tuple[Piece, CandleBlock | CandlebeamError],
) -> tuple[Market, MarketUpdate]:
    piece, block = element
    with told_errors("trades cannot be put into candles"):
        if isinstance(block, CandlebeamError):
            raise block
    update = MarketUpdate(block, piece.mark, piece.watermark, piece.late, piece.base)
    return block.market, update
