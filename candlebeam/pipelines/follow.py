"""Following an archive that grows: index and backfill, again and again, in one process.

Each round is a backfill like any other, which reads what is new and commits it; what is kept
between rounds is the lock of the output, what was told, and what `remembered` says.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import NamedTuple

from candlebeam.catalog import Catalog, IndexSummary
from candlebeam.errors import CandlebeamError, UsageError
from candlebeam.outcome import FAILED, WRITTEN, MarketOutcome
from candlebeam.pipelines.backfill import (
    Backfill,
    BackfillRequest,
    NothingFoundError,
    Way,
    clean_up,
    open_inventory,
    staging_of,
    way_to_run,
)
from candlebeam.pipelines.lock import Held, output_lock
from candlebeam.pipelines.progress import Progress, format_seconds
from candlebeam.pipelines.remembered import Remembered
from candlebeam.pipelines.report import Report
from candlebeam.pipelines.summary import late_command, late_line, problems_by_kind
from candlebeam.pipelines.wording import counted, shortened
from candlebeam.storage.durable import cannot_write

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST = 86_400.0
_SYSTEM_ERROR = re.compile(r"^\w+: \[Errno \d+\] (.+?)(?: \[while running .*)?$", re.MULTILINE)
#: Kinds of what is said of a market that was read.
_EVENTS = ("notes", "damaged files", "missing files")


def parse_duration(text: str) -> float:
    """Seconds between two rounds: `500ms`, `30s`, `5m`, `1h`, up to a day.

    >>> parse_duration("30s"), parse_duration("500ms"), parse_duration("5m")
    (30.0, 0.5, 300.0)

    Raises:
        UsageError: it is no such duration.
    """
    match = re.fullmatch(r"([0-9]{1,9})(ms|s|m|h)", text)
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 0 < seconds <= _LONGEST:
        raise UsageError(
            f"duration {text!r}: expected a number and ms, s, m or h, up to a day, such as 30s"
        )
    return seconds


class Standing(NamedTuple):
    """Something that is wrong, and stays so until it is well again.

    Attributes:
        text: what.
        over: what is said once it is well again; "" says nothing.
        kind: what it is one of, for a list that is cut short.
        fails: whether it means that something failed.
    """

    text: str
    over: str = ""
    kind: str = "problems"
    fails: bool = True


@dataclass
class Round:
    """What a round came to.

    Attributes:
        report: of the backfill; None where there was none.
        files_indexed: new files in the catalog.
        markets: how many were brought up to date.
        candles_added: how many more candles their files have now.
        told: what the user should know that was not so in the round before, a line each.
        started: seconds since 1970.
        seconds: how long it took.
    """

    report: Report | None = None
    files_indexed: int = 0
    markets: int = 0
    candles_added: int = 0
    told: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.time)
    seconds: float = 0.0

    @property
    def late_trades(self) -> int:
        """Trades that came too late for the candles."""
        return self.report.total("late_trades") if self.report else 0

    @property
    def line(self) -> str:
        """What was done, in one line; "" if nothing was."""
        if not self.markets:
            return ""
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.started + self.seconds))
        return f"{moment} {_done(self.markets, self.candles_added, self.late_trades)}"


@dataclass
class Totals:
    """The sums of all rounds."""

    rounds: int = 0
    rounds_with_news: int = 0
    markets: int = 0
    candles_added: int = 0
    late_trades: int = 0

    def add(self, done: Round) -> None:
        """Counts a round."""
        self.rounds += 1
        self.rounds_with_news += bool(done.markets)
        self.markets += done.markets
        self.candles_added += done.candles_added
        self.late_trades += done.late_trades


class Follower:
    """Brings an output up to date, round by round; a context manager that holds its lock.

    Args:
        request: what to do. `force` makes each market from scratch once.
        roots: archives of trade logs to index before each round.
        progress: shows how far the first round has come; later ones are short.

    Attributes:
        totals: of the rounds so far.

    Raises:
        UsageError: on entering, where the request makes no sense: roots without a catalog, a root
            or an input that is not there.
        CandlebeamError: on entering, where another process is writing there, or the catalog is
            none.
    """

    def __init__(
        self,
        request: BackfillRequest,
        roots: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> None:
        if request.detach:
            raise UsageError("--detach and --follow: expected one of them")
        if roots and request.db is None:
            raise UsageError("--root is for trade logs: expected --db, and no other archive")
        self._memory = Remembered(force=request.force, rebuild=request.late == "rebuild")
        self._asked = request
        self._request = replace(request, force=False)
        self._roots = tuple(roots)
        self._progress = progress or Progress()
        self._way = Way()
        self._lock = contextlib.ExitStack()
        self._held = Held()
        self._backfill: Backfill | None = None
        self._standing: dict[str, Standing] = {}
        self._events: dict[str, set[str]] = {}
        self._told_late: set[str] = set()
        self.totals = Totals()

    def __enter__(self) -> Follower:
        # What cannot work at all is told before an output folder is made.
        self._way = way_to_run(self._request, self._progress)
        for root in self._roots:
            self._index(root)
        with open_inventory(self._request):
            pass
        self._held = self._lock.enter_context(output_lock(self._request.out, "follow"))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            if kind is not None and self._backfill is not None and not self.at_work:
                # It was interrupted while it looked whether there is something to do.
                with contextlib.suppress(OSError):
                    clean_up(staging_of(self._request.out, self._request.staging), ())

    @property
    def failing(self) -> bool:
        """Whether something is wrong as of the last round."""
        return any(standing.fails for standing in self._standing.values())

    @property
    def at_work(self) -> bool:
        """Whether a round is going on, or was cut off, that had found something to do."""
        return self._backfill is not None and self._backfill.at_work

    def run(
        self,
        every_s: float,
        on_round: Callable[[Round], None],
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        """Goes on, a round every so many seconds, until `wait` gives True or raises."""
        while True:
            begun = time.monotonic()
            on_round(self.round())
            if wait(max(every_s - (time.monotonic() - begun), 0.0)):
                return

    def round(self) -> Round:
        """Indexes the roots and brings all markets up to date.

        What goes wrong is told in what it returns, and tried again in the next round.

        Raises:
            UsageError: the request makes no sense, as far as only trying it could tell.
            LostLockError: another run writes there now.
        """
        self._held.check(self._request.out)
        done = Round()
        begun = time.monotonic()
        standing = self._look_at_roots(done)
        news: dict[str, list[str]] = {}
        try:
            news = self._bring_up_to_date(done, standing)
        except NothingFoundError as nothing:
            standing["run"] = Standing(str(nothing), fails=False)
        except (CandlebeamError, OSError, RuntimeError) as error:
            if isinstance(error, UsageError) and not self.totals.rounds:
                raise
            text = _reason(error, self._request.out)
            if text is None:
                raise
            standing["run"] = Standing(text, "it goes on")
            # Nothing was heard of these: they are neither well nor told again.
            standing = {k: v for k, v in self._standing.items() if k not in standing} | standing
        self._backfill = None
        self._progress = Progress()
        done.told = self._lines(news, standing)
        done.seconds = time.monotonic() - begun
        if done.report is not None:
            done.report.seconds = done.seconds
        self.totals.add(done)
        return done

    # The work of a round

    def _index(self, root: str) -> IndexSummary:
        assert self._request.db is not None
        with Catalog(self._request.db, create=True) as catalog:
            return catalog.index(root)

    def _look_at_roots(self, done: Round) -> dict[str, Standing]:
        """Indexes the roots; gives what is wrong with them."""
        standing: dict[str, Standing] = {}
        for root in self._roots:
            key = f"root {root}"
            try:
                summary = self._index(root)
            except CandlebeamError as error:
                standing[key] = Standing(str(error), f"{root}: can be read again")
            except OSError as error:
                text = f"{error.filename or root}: {error.strerror or error}"
                standing[key] = Standing(text, f"{root}: can be read again")
            else:
                done.files_indexed += summary.added
                for text in summary.unreadable:
                    path = text.rpartition(": ")[0]
                    standing[f"unreadable {path}"] = Standing(text, f"{path}: can be read again")
        return standing

    def _bring_up_to_date(self, done: Round, standing: dict[str, Standing]) -> dict[str, list[str]]:
        """Backfills; notes what is wrong in `standing`. Returns what else is new, by its kind."""
        with open_inventory(self._request) as inventory:
            self._backfill = Backfill(
                self._request, inventory, self._progress, self._way, self._memory
            )
            report = self._backfill.run()
        done.report = report
        self._memory.learn(report.markets)
        before = {str(market): n for market, n in self._backfill.records_before.items()}
        news: dict[str, list[str]] = {}
        for outcome in report.markets:
            name = outcome.market
            if outcome.status == WRITTEN:
                done.markets += 1
                done.candles_added += max(outcome.records - before.get(name, 0), 0)
            elif outcome.status == FAILED:
                text = f"{name}: failed: {outcome.error}"
                standing[f"failed {name}"] = Standing(text, f"{name}: well again", "failed markets")
            # One that fails again and again has the same to say each time, in other numbers.
            if f"failed {name}" not in self._standing and (
                outcome.notes or outcome.damaged or outcome.missing
            ):
                for kind, lines in self._events_of(outcome).items():
                    news.setdefault(kind, []).extend(lines)
            if (outcome.late_trades or outcome.late_files) and name not in self._told_late:
                self._told_late.add(name)
                line = late_line(outcome, self._asked)
                news.setdefault("markets with late input", []).append(line)
        for text in report.problems:
            standing[text] = Standing(text)
        for text in report.notes:
            standing[text] = Standing(text, fails=False)
        for market, path in self._memory.grown.items():
            text = (
                f"{market}: {path} has grown after a later file was read; its last trades may not"
                f" be in it; to bring all of it in: {late_command(str(market), self._asked)}"
            )
            standing[f"grown {market}"] = Standing(text, "", "files that have grown", False)
        return news

    def _events_of(self, outcome: MarketOutcome) -> dict[str, list[str]]:
        """What there is to say of how a market was read, unless it was said the last time."""
        alone = problems_by_kind(Report([outcome]), self._asked)
        lines = {kind: alone[kind] for kind in _EVENTS}
        before = self._events.get(outcome.market, set())
        self._events[outcome.market] = {line for found in lines.values() for line in found}
        return {
            kind: [line for line in found if line not in before] for kind, found in lines.items()
        }

    def _lines(self, news: dict[str, list[str]], standing: dict[str, Standing]) -> list[str]:
        """What is to be told after a round: news, and what has become wrong or well again."""
        before, self._standing = self._standing, standing
        for key, now in standing.items():
            if key not in before or before[key].text != now.text:
                news.setdefault(now.kind, []).append(now.text)
        over = [was.over for key, was in before.items() if was.over and key not in standing]
        return [
            *shortened(over, "are well again"),
            *(line for kind, lines in news.items() for line in shortened(lines, kind)),
        ]


def _reason(error: Exception, out: str) -> str | None:
    """What went wrong with a round, if another one may go well; None for what should not be."""
    if isinstance(error, CandlebeamError):
        return str(error)
    if isinstance(error, OSError):
        return cannot_write(error, out)
    # What Beam makes of an error of the system in one of its threads.
    found = _SYSTEM_ERROR.findall(str(error))
    return found[-1] if found else None


def follow(
    request: BackfillRequest,
    roots: Sequence[str] = (),
    every_s: float = 30.0,
    *,
    on_round: Callable[[Round], None] = lambda done: None,
    wait: Callable[[float], object] = time.sleep,
) -> Totals:
    """Indexes and backfills every so many seconds, until `wait` gives True.

    Args:
        request, roots: see `Follower`, and for what is raised.
        on_round: called after each round.
        wait: called with the seconds until the next one; `threading.Event().wait` can be stopped.
    """
    with Follower(request, roots) as follower:
        follower.run(every_s, on_round, wait)
    return follower.totals


def summary_line(totals: Totals, seconds: float) -> str:
    """What all rounds came to."""
    rounds = f"{counted(totals.rounds, 'round')} in {format_seconds(seconds)}"
    if not totals.rounds_with_news:
        return f"{rounds}, nothing new"
    done = _done(totals.markets, totals.candles_added, totals.late_trades)
    return f"{rounds}, {totals.rounds_with_news:,} with something new: {done}"


def _done(markets: int, candles: int, late: int) -> str:
    parts = [
        f"{counted(markets, 'market')} brought up to date",
        f"{counted(candles, 'candle')} added",
        *([counted(late, "late trade")] if late else []),
    ]
    return ", ".join(parts)
