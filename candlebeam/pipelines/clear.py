"""Removing what was made for one market."""

from __future__ import annotations

import os

from candlebeam.errors import CandlebeamError
from candlebeam.formats.candles.companion import CandlePaths
from candlebeam.io.staging import Staging
from candlebeam.model import Market
from candlebeam.pipelines.backfill import STAGING_NAME
from candlebeam.pipelines.lock import output_lock
from candlebeam.storage.durable import remove, sync_folder
from candlebeam.storage.paths import expect_local


def clear_market(out: str, market: Market) -> list[str]:
    """Removes the candle file of a market, its companion and its chunks; gives what was removed.

    The companion goes first: what is left by a crash then counts for nothing.

    Raises:
        CandlebeamError: there is no such market, or a backfill is running.
    """
    expect_local(out)
    paths = CandlePaths.of(out, market)
    if not any(os.path.exists(path) for path in (paths.companion, paths.records)):
        raise CandlebeamError(f"{out}: no candles of {market}: {paths.records} is not there")
    removed = []
    with output_lock(out, "clear"):
        for path in (paths.journal, paths.companion, paths.records, *paths.unfinished):
            if os.path.exists(path):
                remove(path)
                removed.append(path)
        sync_folder(os.path.dirname(paths.records))
        staging = Staging(os.path.join(os.path.abspath(out), STAGING_NAME))
        staging.remove_chunks(market)
        staging.remove_if_empty()
    return removed
