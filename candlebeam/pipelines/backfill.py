"""The backfill: from an archive of trades to committed candle files."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from candlebeam.catalog import Catalog
from candlebeam.errors import CandlebeamError, UsageError
from candlebeam.formats.candles.companion import CandlePaths
from candlebeam.inventory import Inventory
from candlebeam.io.cancellation import cancellable, stop_if_cancelled
from candlebeam.io.candle_writer import recover
from candlebeam.io.early_workers import EarlyWorkers, working_early
from candlebeam.io.market_commit import CommitOptions
from candlebeam.io.staging import Staging
from candlebeam.listings import list_agg2, list_dbn
from candlebeam.model import Market
from candlebeam.outcome import AGAIN, FAILED, UP_TO_DATE, MarketOutcome
from candlebeam.pipelines.lock import output_lock
from candlebeam.pipelines.progress import Progress, Work
from candlebeam.pipelines.quiet import without_warnings
from candlebeam.pipelines.remembered import Memory
from candlebeam.pipelines.report import Report
from candlebeam.pipelines.runner_config import early_worker_count
from candlebeam.pipelines.running_job import record_of, refuse_while_running
from candlebeam.plan import DEFAULT_SHARD_BYTES, PlannedMarket, PlanOptions, plan_market
from candlebeam.settings import CandleSettings, digest
from candlebeam.storage import absolute

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

    from candlebeam.cluster.flink_master import Job
    from candlebeam.pipelines.target import Target

STAGING_NAME = ".candlebeam-staging"
_DETACH_WANTS = "--detach is for a Flink cluster: expected --runner=FlinkRunner and a master"
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
        detach: returns once a Flink cluster has the job; `pipelines.attach` waits for its end.
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
    detach: bool = False

    def __post_init__(self) -> None:
        if sum(map(bool, (self.db, self.agg2, self.dbn))) != 1:
            raise UsageError("expected one of --db, --agg2 and --dbn, to say what to read")
        if self.late not in LATE_MODES:
            raise UsageError(f"late {self.late!r}: expected {' or '.join(LATE_MODES)}")
        if self.shard_bytes < 1:
            raise UsageError(f"shard_bytes {self.shard_bytes}: expected 1 or more")


class NothingFoundError(CandlebeamError):
    """The archive has no market, or none that was asked for."""


def run_backfill(request: BackfillRequest, progress: Progress | None = None) -> Report:
    """Makes the candle files of an archive's markets, or brings them up to date.

    Raises:
        CandlebeamError: nothing could be done at all. What goes wrong with a market is in the
            report.
    """
    started = time.monotonic()
    # What cannot work is to be told at once, even if there is nothing to run it for.
    way = way_to_run(request, progress or Progress())
    with open_inventory(request) as inventory, output_lock(request.out):
        report = Backfill(request, inventory, progress or Progress(), way).run()
    report.seconds = time.monotonic() - started
    return report


class Way(NamedTuple):
    """How to run: Beam's options, and Flink or Spark if they are asked for."""

    options: PipelineOptions | None = None
    target: Target | None = None


def way_to_run(request: BackfillRequest, progress: Progress) -> Way:
    """How to run, as the request has it; raises `CandlebeamError` where that cannot work."""
    if not (request.beam_arguments or request.runner_config):
        if request.detach:
            raise UsageError(_DETACH_WANTS)
        # Beam is imported later, while others work already.
        return Way()
    with without_warnings():
        from candlebeam.pipelines.beam_options import beam_options
        from candlebeam.pipelines.runner import find_target
    options = beam_options(list(request.beam_arguments), request.runner_config)
    target = find_target(options)
    if request.detach and (target is None or target.master is None):
        raise UsageError(_DETACH_WANTS)
    if target is not None:
        target.check(progress.say)
    return Way(options, target)


@contextmanager
def open_inventory(request: BackfillRequest) -> Iterator[Inventory[Any]]:
    """What the request says is to be read."""
    if request.db is not None:
        with Catalog(request.db) as catalog:
            yield catalog
    elif request.agg2 is not None:
        yield list_agg2(request.agg2, exchange=request.exchange, symbol=request.symbol)
    else:
        yield list_dbn(request.dbn)


class Backfill:
    """One run, of a process that holds the lock of the output.

    Args:
        request: what to do.
        inventory: what there is to read.
        progress: is told how far it has come.
        way: how to run.
        memory: what is known from earlier runs.

    Attributes:
        at_work: whether there was something to do; what is interrupted then is to be resumed.
        records_before: how many candles each market had that had something to do.
    """

    def __init__(
        self,
        request: BackfillRequest,
        inventory: Inventory[Any],
        progress: Progress,
        way: Way,
        memory: Memory | None = None,
    ) -> None:
        self._memory = memory or Memory()
        self._request, self._progress = request, progress
        self._inventory = self._memory.watched(inventory)
        self._way = way
        self.at_work = False
        self.records_before: dict[Market, int] = {}
        self._run = uuid.uuid4().hex
        self._out = absolute(request.out)
        self._staging = staging_of(request.out, request.staging)
        self._plan_options = PlanOptions(
            out=self._out,
            settings=request.settings,
            shard_bytes=request.shard_bytes,
            force=request.force,
            rebuild_late=request.late == "rebuild",
            rejects=absolute(request.rejects) if request.rejects else "",
        )
        usual = self._plan_options
        self._from_scratch = usual if request.force else replace(usual, force=True)
        self._going_on = replace(usual, force=False) if request.force else usual
        self._outcomes: dict[Market, MarketOutcome] = {}

    def run(self) -> Report:
        request = self._request
        inventory = self._inventory
        markets = inventory.markets(request.collector, request.exchange, request.symbol)
        if not markets:
            raise NothingFoundError(
                "; ".join(
                    [
                        f"{inventory.path}: {self._nothing_found()}",
                        *inventory.notes,
                        *inventory.problems,
                    ]
                )
            )
        notes = refuse_while_running(self._staging, self._out)
        self._staging.begin(self._run)
        recovered = self._recover(markets)
        planned = self._round(markets, force=request.force)
        if request.detach and planned:
            done = [self._outcomes[m] for m in markets if m in self._outcomes]
            return Report(done, [*notes, *inventory.notes], list(inventory.problems), job=self._job)
        again = [market for market in planned if self._outcomes[market].status == AGAIN]
        if again:
            first = {market: self._outcomes[market] for market in again}
            self._round({market: markets[market] for market in again}, force=True)
            for market in again:
                self._outcomes[market].notes[:0] = first[market].notes
        for market, ended in recovered.items():
            self._outcomes[market].notes[:0] = ended
        clean_up(self._staging, self._outcomes.values())
        outcomes = [self._outcomes[market] for market in markets]
        return Report(outcomes, [*notes, *inventory.notes], list(inventory.problems))

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

    def _recover(self, markets: Iterable[Market]) -> dict[Market, list[str]]:
        """Ends what a crash has left of commits; gives what was done, by market."""
        done = {}
        for market in markets:
            paths = CandlePaths.of(self._out, market)
            if self._plan_options.output.may_have_leftovers(paths):
                done[market] = recover(paths)
        return done

    def _round(self, markets: dict[Market, Any], *, force: bool) -> list[Market]:
        """Plans the markets and makes those that need it, which are returned."""
        self._staging.prepare()
        plan = self._staging.write_plan()
        planned: list[Market] = []
        shards = size = 0
        if not force:
            output = self._going_on.output
            output.look_ahead(markets)
            self._inventory.look_ahead(os.path.join(*i) for i in output.last_inputs())
        unneeded: list[Market] = []
        for market, listed in markets.items():
            known = self._memory.known(market, listed)
            if known is not None:
                self._outcomes[market] = known
                continue
            anew = self._memory.from_scratch(market, asked=force)
            options = self._from_scratch if anew else self._going_on
            found = plan_market(self._inventory, market, listed, options)
            if found.task is None:
                self._outcomes[market] = _without_task(found)
                if found.error is None:
                    unneeded.append(market)
                continue
            plan.add(found.task, found.shards)
            self.records_before.setdefault(market, found.records)
            planned.append(market)
            shards += len(found.shards)
            size += sum(shard.bytes for shard in found.shards)
        self._staging.remove_chunks(*unneeded)
        manifests = plan.close()
        if planned:
            self.at_work = True
            self._work = Work(shards, size, len(planned))
            with (
                cancellable(self._run),
                self._working_early(manifests),
                self._progress.watching(self._staging, self._work),
            ):
                self._run_pipeline(manifests)
            if self._request.detach:
                return planned
            for market, outcome in self._staging.read_outcomes(planned).items():
                lost = MarketOutcome(str(market)).fail("the run ended without it")
                self._outcomes[market] = outcome or lost
        return planned

    def _working_early(self, manifests: list[str]) -> AbstractContextManager[None]:
        request, run = self._request, self._run
        workers = EarlyWorkers(
            run, manifests, self._staging, request.settings, self._plan_options.rejects or None
        )
        count = early_worker_count(list(request.beam_arguments), request.runner_config)
        return working_early(workers, run, count, self._inventory.source)

    def _run_pipeline(self, manifests: list[str]) -> None:
        with without_warnings():
            from candlebeam.pipelines.beam_options import beam_options
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
            run=self._run,
            elsewhere=self._way.target is not None,
        )
        run_pipeline(
            self._way.options or beam_options([], None),
            lambda pipeline: build_backfill(pipeline, manifests, options),
            target=self._way.target,
            name=f"candlebeam-{self._run}",
            on_job=self._note_job,
            detach=request.detach,
            look=lambda: stop_if_cancelled(self._run),
            say=self._progress.say,
        )

    def _note_job(self, job: Job) -> None:
        """Notes which job it is, for who comes while it runs."""
        target = self._way.target
        assert target is not None
        assert target.master is not None
        self._job = record_of(
            self._run,
            target.master.url,
            job,
            shards=self._work.shards,
            size=self._work.bytes,
            markets=self._work.markets,
        )
        self._staging.write_job(self._job.encode())


def staging_of(out: str, staging: str | None) -> Staging:
    """The staging folder of an output root: inside it, or under the folder `staging`."""
    root = absolute(out)
    if staging is None:
        return Staging(os.path.join(root, STAGING_NAME))
    return Staging(os.path.join(absolute(staging), digest(root)[:16]))


def clean_up(staging: Staging, outcomes: Iterable[MarketOutcome]) -> None:
    """Removes what is made on the way, but for chunks that another run can use."""
    staging.remove_plan()
    if not any(outcome.status == FAILED for outcome in outcomes):
        staging.remove_if_empty()


def _without_task(plan: PlannedMarket) -> MarketOutcome:
    outcome = MarketOutcome(
        str(plan.market),
        UP_TO_DATE,
        notes=list(plan.notes),
        late_files=plan.late_files,
        records=plan.records,
    )
    return outcome.fail(plan.error) if plan.error else outcome
