"""A backfill without Beam, in some milliseconds: index, plan, chunks, commit, market by market."""

from __future__ import annotations

import tempfile
from pathlib import Path

from candlebeam.catalog import Catalog
from candlebeam.formats.candles.companion import CandlePaths
from candlebeam.formats.chunk_file import open_chunk
from candlebeam.io.candle_writer import recover
from candlebeam.io.make_chunk import make_chunks
from candlebeam.io.market_commit import CommitOptions, commit_market
from candlebeam.io.staging import Staging
from candlebeam.outcome import AGAIN, FAILED, UP_TO_DATE, MarketOutcome
from candlebeam.plan import PlanOptions, plan_market
from candlebeam.settings import CandleSettings


def backfill(
    root: Path,
    out: Path,
    *,
    rebuild_late: bool = False,
    settings: CandleSettings | None = None,
) -> dict[str, MarketOutcome]:
    """What `candlebeam index` and `candlebeam backfill` do, with an index made anew."""
    settings = settings or CandleSettings()
    with (
        tempfile.TemporaryDirectory() as folder,
        Catalog(str(Path(folder, "index.sqlite")), create=True) as catalog,
    ):
        catalog.index(str(root))
        return {
            str(market): _market(catalog, market, found, folder, out, rebuild_late, settings)
            for market, found in catalog.markets().items()
        }


def _market(catalog, market, found, folder, out, rebuild_late, settings) -> MarketOutcome:  # type: ignore[no-untyped-def]
    recover(CandlePaths.of(str(out), market))
    commit = CommitOptions(str(out), settings, rebuild_late)
    force = False
    while True:
        plan = plan_market(
            catalog, market, found, PlanOptions(str(out), settings, 300, force, rebuild_late)
        )
        if plan.error:
            return MarketOutcome(str(market), status=FAILED, error=plan.error)
        if plan.task is None:
            return MarketOutcome(str(market), status=UP_TO_DATE)
        staging = Staging(folder)
        staging.prepare()
        for shard in plan.shards:
            make_chunks([shard], staging, settings, None)
        chunks = [open_chunk(staging.chunk_path(market, shard.name)) for shard in plan.shards]
        outcome = commit_market(plan.task, chunks, commit)
        if outcome.status != AGAIN:
            return outcome
        force = True
