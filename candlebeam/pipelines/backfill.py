"""The backfill: from an archive of trades to committed candle files."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from candlebeam.catalog import Catalog
from candlebeam.errors import CandlebeamError, UsageError
from candlebeam.formats.candles.companion import CandlePaths
from candlebeam.inventory import Inventory
from candlebeam.io.cancellation import cancellable
from candlebeam.io.candle_writer import recover
from candlebeam.io.early_workers import EarlyWorkers, working_early
from candlebeam.io.market_commit import CommitOptions
from candlebeam.io.staging import Staging
from candlebeam.listings import list_agg2, list_dbn
from candlebeam.model import Market
from candlebeam.outcome import AGAIN, FAILED, UP_TO_DATE, MarketOutcome
from candlebeam.pipelines.lock import output_lock
from candlebeam.pipelines.progress import Progress
from candlebeam.pipelines.quiet import without_warnings
from candlebeam.pipelines.report import Report
from candlebeam.pipelines.runner_config import early_worker_count
from candlebeam.plan import DEFAULT_SHARD_BYTES, PlannedMarket, PlanOptions, plan_market
from candlebeam.settings import CandleSettings, digest

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

STAGING_NAME = ".candlebeam-staging"
LATE_MODES = ("ignore", "rebuild")


@dataclass(frozen=True)
class BackfillRequest:
    """What to do.

    One of `db`, `agg2` and `dbn` says what to read.

    Attributes:
        out: the output root.
        db: the catalog of trade logs.
        agg2: the folder of an AGG2 archive.
        dbn: Databento files, or folders of them.
        settings: what the candles are made of.
        collector, exchange, symbol: filters; None takes all. An AGG2 archive does not say which
            exchange it is from: there `exchange` does.
        force: makes every market from scratch.
        late: "ignore" (and count) what came too late for a resumed file, or "rebuild" the market.
        skip_missing: goes on without inputs that are not there.
        rejects: a folder to keep rejected rows in.
        staging: a folder for what is made on the way; inside the output root by default.
        shard_bytes: the size of a unit of work.
        runner_config: a file with Beam options.
        beam_arguments: Beam options, which count more than those of the file.
    """

    out: str
    db: str | None = None
    agg2: str | None = None
    dbn: tuple[str, ...] = ()
    settings: CandleSettings = field(default_factory=CandleSettings)
    collector: str | None = None
    exchange: str | None = None
    symbol: str | None = None
    force: bool = False
    late: str = LATE_MODES[0]
    skip_missing: bool = False
    rejects: str | None = None
    staging: str | None = None
    shard_bytes: int = DEFAULT_SHARD_BYTES
    runner_config: str | None = None
    beam_arguments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if sum(map(bool, (self.db, self.agg2, self.dbn))) != 1:
            raise UsageError("expected one of --db, --agg2 and --dbn, to say what to read")
        if self.late not in LATE_MODES:
            raise UsageError(f"late {self.late!r}: expected {' or '.join(LATE_MODES)}")
        if self.shard_bytes < 1:
            raise UsageError(f"shard_bytes {self.shard_bytes}: expected 1 or more")


def run_backfill(request: BackfillRequest, progress: Progress | None = None) -> Report:
    """Makes the candle files of an archive's markets, or brings them up to date.

    Raises:
        CandlebeamError: nothing could be done at all. What goes wrong with a market is in the
            report.
    """
    started = time.monotonic()
    if request.beam_arguments or request.runner_config:
        # Wrong options are to be told at once, even if there is nothing to run them for.
        _beam_options(request)
    with _inventory(request) as inventory, output_lock(request.out):
        report = _Backfill(request, inventory, progress or Progress()).run()
    report.seconds = time.monotonic() - started
    return report


@contextmanager
def _inventory(request: BackfillRequest) -> Iterator[Inventory[Any]]:
    """What the request says is to be read."""
    if request.db is not None:
        with Catalog(request.db) as catalog:
            yield catalog
    elif request.agg2 is not None:
        yield list_agg2(request.agg2, exchange=request.exchange, symbol=request.symbol)
    else:
        yield list_dbn(request.dbn)


class _Backfill:
    """One run."""

    def __init__(
        self, request: BackfillRequest, inventory: Inventory[Any], progress: Progress
    ) -> None:
        self._request, self._inventory, self._progress = request, inventory, progress
        self._out = os.path.abspath(request.out)
        folder = os.path.join(self._out, STAGING_NAME)
        if request.staging is not None:
            folder = os.path.join(os.path.abspath(request.staging), digest(self._out)[:16])
        self._staging = Staging(folder)
        self._plan_options = PlanOptions(
            out=self._out,
            settings=request.settings,
            shard_bytes=request.shard_bytes,
            force=request.force,
            rebuild_late=request.late == "rebuild",
            rejects=os.path.abspath(request.rejects) if request.rejects else "",
        )
        self._outcomes: dict[Market, MarketOutcome] = {}

    def run(self) -> Report:
        request = self._request
        inventory = self._inventory
        markets = inventory.markets(request.collector, request.exchange, request.symbol)
        if not markets:
            raise CandlebeamError(
                "; ".join(
                    [
                        f"{inventory.path}: {self._nothing_found()}",
                        *inventory.notes,
                        *inventory.problems,
                    ]
                )
            )
        recovered = {market: self._recover(market) for market in markets}
        planned = self._round(markets, self._plan_options)
        again = [market for market in planned if self._outcomes[market].status == AGAIN]
        if again:
            first = {market: self._outcomes[market] for market in again}
            from_scratch = replace(self._plan_options, force=True)
            self._round({market: markets[market] for market in again}, from_scratch)
            for market in again:
                self._outcomes[market].notes[:0] = first[market].notes
        for market, notes in recovered.items():
            self._outcomes[market].notes[:0] = notes
        self._clean_up()
        outcomes = [self._outcomes[market] for market in markets]
        return Report(outcomes, list(inventory.notes), list(inventory.problems))

    def _nothing_found(self) -> str:
        filters = [
            f"{name} {value}"
            for name, value in vars(self._request).items()
            if name in ("collector", "exchange", "symbol") and value
        ]
        return (
            f"no market with {', '.join(filters)}"
            if filters
            else "no file is indexed"
            if self._request.db
            else "no input in it"
        )

    def _recover(self, market: Market) -> list[str]:
        paths = CandlePaths.of(self._out, market)
        return recover(paths) if os.path.isdir(os.path.dirname(paths.stem)) else []

    def _round(self, markets: dict[Market, Any], options: PlanOptions) -> list[Market]:
        """Plans the markets and makes those that need it, which are returned."""
        self._staging.prepare()
        plan = self._staging.write_plan()
        planned: list[Market] = []
        shards = size = 0
        for market, listed in markets.items():
            found = plan_market(self._inventory, market, listed, options)
            if found.task is None:
                self._outcomes[market] = _without_task(found)
                if found.error is None:
                    self._staging.remove_chunks(market)
                continue
            plan.add(found.task, found.shards)
            planned.append(market)
            shards += len(found.shards)
            size += sum(shard.bytes for shard in found.shards)
        manifests = plan.close()
        if planned:
            run = uuid.uuid4().hex
            with (
                cancellable(run),
                self._working_early(run, manifests),
                self._progress.watching(self._staging, shards, size, len(planned)),
            ):
                self._run_pipeline(run, manifests)
            for market in planned:
                lost = MarketOutcome(str(market)).fail("the run ended without it")
                self._outcomes[market] = self._staging.read_outcome(market) or lost
        return planned

    def _working_early(self, run: str, manifests: list[str]) -> AbstractContextManager[None]:
        request = self._request
        workers = EarlyWorkers(
            run, manifests, self._staging, request.settings, self._plan_options.rejects or None
        )
        count = early_worker_count(list(request.beam_arguments), request.runner_config)
        return working_early(workers, run, count, self._inventory.source)

    def _run_pipeline(self, run: str, manifests: list[str]) -> None:
        with without_warnings():
            from candlebeam.pipelines.flow import FlowOptions, build_backfill
            from candlebeam.pipelines.runner import run_pipeline
        request = self._request
        options = FlowOptions(
            staging=self._staging.path,
            commit=CommitOptions(
                out=self._out,
                settings=request.settings,
                rebuild_late=request.late == "rebuild",
                skip_missing=request.skip_missing,
            ),
            rejects=self._plan_options.rejects or None,
            run=run,
        )
        run_pipeline(
            _beam_options(request),
            lambda pipeline: build_backfill(pipeline, manifests, options),
        )

    def _clean_up(self) -> None:
        """Removes what is made on the way, but for chunks that another run can use."""
        self._staging.remove_plan()
        if not any(outcome.status == FAILED for outcome in self._outcomes.values()):
            self._staging.remove_if_empty()


def _beam_options(request: BackfillRequest) -> PipelineOptions:
    with without_warnings():
        from candlebeam.pipelines.runner import beam_options

    return beam_options(list(request.beam_arguments), request.runner_config)


def _without_task(plan: PlannedMarket) -> MarketOutcome:
    outcome = MarketOutcome(
        str(plan.market),
        UP_TO_DATE,
        notes=list(plan.notes),
        late_files=plan.late_files,
        records=plan.records,
    )
    return outcome.fail(plan.error) if plan.error else outcome
