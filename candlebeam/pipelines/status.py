"""How far the candles of an output root have come, and who writes there. Changes nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import unquote

from candlebeam.cluster.flink_master import FlinkMaster
from candlebeam.cluster.job_record import JobRecord
from candlebeam.errors import CandlebeamError, FormatError
from candlebeam.formats.candles.companion import (
    CandlePaths,
    Companion,
    read_companion,
    read_journal,
)
from candlebeam.model import Market
from candlebeam.pipelines.backfill import staging_of
from candlebeam.pipelines.lock import Holder, lock_holder
from candlebeam.pipelines.running_job import noted_job
from candlebeam.pipelines.wording import iso_time
from candlebeam.storage import absolute, is_remote, storage_of
from candlebeam.storage.ahead import asked_ahead

#: How long the master of a job may take to answer.
_ASK_SECONDS = 2.0
_PIECE = 4 << 20
_DEPTH = 3  # collector / exchange / file
_SUFFIXES = ("json", "bin", "late")


@dataclass(frozen=True)
class MarketStatus:
    """How far one market has come. Where `problem` says why that is not known, the rest is None.

    Attributes:
        market: which.
        timeframe: of its candles.
        end_ts: the end of its last candle, ms.
        lag_ms: how long ago that was; below 0 while that candle lasts.
        records: candles, gaps among them.
        quiet: how many of the last ones a stream has written without any trades in them.
        late_trades: trades that came too late for a backfill to put them in. None where another
            program made the file.
        too_late: trades in the file of those that came too late for a stream; None without one.
        too_late_bytes: the size of that file.
        problem: what is wrong with the companion or the candles.
    """

    market: Market
    timeframe: str | None = None
    end_ts: int | None = None
    lag_ms: int | None = None
    records: int | None = None
    quiet: int | None = None
    late_trades: int | None = None
    too_late: int | None = None
    too_late_bytes: int | None = None
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "collector": self.market.collector,
            "exchange": self.market.exchange,
            "symbol": self.market.symbol,
            "timeframe": self.timeframe,
            "end": None if self.end_ts is None else iso_time(self.end_ts),
            "endTs": self.end_ts,
            "lagMs": self.lag_ms,
            "records": self.records,
            "quietRecords": self.quiet,
            "lateTrades": self.late_trades,
            "tooLate": self.too_late,
            "tooLateBytes": self.too_late_bytes,
            "problem": self.problem,
        }


@dataclass(frozen=True)
class JobStatus:
    """A job that was submitted for an output.

    Attributes:
        record: what was noted of it.
        state: what its master says: "RUNNING", "FINISHED"...; None where it cannot be asked.
        problem: why not.
    """

    record: JobRecord
    state: str | None = None
    problem: str | None = None

    def __str__(self) -> str:
        record = self.record
        said = f"cannot be asked ({self.problem})" if self.state is None else self.state.lower()
        return (
            f"job {record.job_id} at {record.master},"
            f" submitted {record.started} on {record.host}: {said}"
        )

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        record = self.record
        return {
            "id": record.job_id,
            "name": record.job_name,
            "master": record.master,
            "started": record.started,
            "host": record.host,
            "pid": record.pid,
            "state": self.state,
            "problem": self.problem,
        }


@dataclass(frozen=True)
class OutputStatus:
    """Of an output root.

    Attributes:
        out: where it is.
        now_ms: when it was looked at.
        markets: those that were asked for, sorted.
        holder: who holds its lock; None if nobody does.
        holder_problem: why that cannot be told.
        job: the job of a cluster that is noted there.
    """

    out: str
    now_ms: int
    markets: list[MarketStatus]
    holder: Holder | None = None
    holder_problem: str | None = None
    job: JobStatus | None = None

    @property
    def exit_code(self) -> int:
        """1 if something is wrong with a market, else 0."""
        return 1 if any(market.problem for market in self.markets) else 0

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        holder = self.holder
        return {
            "out": self.out,
            "now": iso_time(self.now_ms),
            "lock": {
                "held": None if self.holder_problem else holder is not None,
                "what": holder and holder.what,
                "pid": holder and holder.pid,
                "host": holder and holder.host,
                "secondsSinceRenewed": holder and holder.age,
                "problem": self.holder_problem,
            },
            "job": self.job and self.job.to_json(),
            "markets": [market.to_json() for market in self.markets],
        }


def output_status(
    out: str,
    *,
    collector: str | None = None,
    exchange: str | None = None,
    symbol: str | None = None,
    staging: str | None = None,
    now_ms: int | None = None,
) -> OutputStatus:
    """Looks at an output root.

    Args:
        out: the output root.
        collector, exchange, symbol: filters; None takes all.
        staging: as the backfill had it.
        now_ms: what lags are counted from; by default, now.

    Raises:
        CandlebeamError: there is no such folder, or no candles of such a market in it.
    """
    root = absolute(out)
    if not is_remote(root) and not os.path.isdir(root):
        raise CandlebeamError(f"{out}: no such folder, so no candles")
    # What is written meanwhile is then rather not ahead of `now`.
    now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    holder, holder_problem = _holder(out)
    job = _job(out, staging)

    def chosen(market: Market) -> bool:
        return (
            (not collector or market.collector.upper() == collector.upper())
            and (not exchange or market.exchange.upper() == exchange.upper())
            and (not symbol or market.symbol == symbol)
        )

    wanted = _markets(root, chosen)
    filters = {"collector": collector, "exchange": exchange, "symbol": symbol}
    choice = ", ".join(f"{name} {value}" for name, value in filters.items() if value)
    if not wanted and (choice or (holder is None and job is None)):
        raise CandlebeamError(f"{out}: no candles" + (f" with {choice}" if choice else " in it"))

    def look(found: _Found) -> MarketStatus:
        return _look(found, now, being_written=holder is not None)

    markets: Iterable[MarketStatus] = map(look, wanted)
    if is_remote(root):
        markets = asked_ahead(look, wanted)
    return OutputStatus(out, now, list(markets), holder, holder_problem, job)


def _holder(out: str) -> tuple[Holder | None, str | None]:
    try:
        return lock_holder(out), None
    except OSError as error:
        return None, error.strerror or str(error)


def _job(out: str, staging: str | None) -> JobStatus | None:
    record = noted_job(staging_of(out, staging))
    if record is None:
        return None
    try:
        job = FlinkMaster(record.master, seconds=_ASK_SECONDS).job(record.job_id)
    except CandlebeamError as error:
        return JobStatus(record, problem=str(error))
    return JobStatus(record, "unknown to its master" if job is None else job.state)


class _Found(NamedTuple):
    """A market, where its files are, and what follows the symbol in their names, with their sizes.

    Of a local file the size is not known yet.
    """

    market: Market
    paths: CandlePaths
    sizes: dict[str, int | None]


def _markets(root: str, wanted: Callable[[Market], bool]) -> list[_Found]:
    """What there is of the markets that are wanted, sorted."""
    found: dict[str, _Found | None] = {}
    for collector, exchange, name, size in _files(root):
        hidden = name.startswith(".")  # Of these only a journal says something.
        symbol, _, suffix = name[hidden:].rpartition(".")
        if not symbol or suffix not in (("journal",) if hidden else _SUFFIXES):
            continue
        stem = f"{root}/{collector}/{exchange}/{symbol}"
        if stem not in found:
            market = Market(unquote(collector), unquote(exchange), unquote(symbol))
            found[stem] = _Found(market, CandlePaths(stem), {}) if wanted(market) else None
        here = found[stem]
        if here is not None:
            here.sizes[suffix] = size
    markets = (each for each in found.values() if each and each.sizes.keys() != {"late"})
    return sorted(markets, key=lambda each: (each.market, each.paths.stem))


def _files(root: str) -> Iterator[tuple[str, str, str, int | None]]:
    """Collector, exchange and name of each file that may be of a market, and its size if known."""
    if is_remote(root):
        for path, size in storage_of(root).walk(root):
            parts = path.split("/")
            if len(parts) == _DEPTH and not parts[0].startswith("."):
                yield parts[0], parts[1], parts[2], size
        return
    for collector in _folders(root):
        for exchange in _folders(collector.path):
            with os.scandir(exchange.path) as entries:
                for entry in entries:
                    if entry.is_file():
                        yield collector.name, exchange.name, entry.name, None


def _folders(path: str) -> list[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        return [e for e in entries if e.is_dir() and not e.name.startswith(".")]


def _look(found: _Found, now_ms: int, *, being_written: bool) -> MarketStatus:
    market, lines, size = found.market, None, None
    try:
        lines, size = _too_late(found)
        companion = _companion(found)
        if companion is None:
            # The companion of a first commit comes after its candles.
            missing = None if being_written else f"{found.paths.companion} is missing"
            return MarketStatus(market, too_late=lines, too_late_bytes=size, problem=missing)
        problem = _wrong(found, companion)
    except FormatError as error:
        return MarketStatus(market, too_late=lines, too_late_bytes=size, problem=str(error))
    except OSError as error:
        place = error.filename or found.paths.stem
        reason = f"cannot read {place}: {error.strerror or error}"
        return MarketStatus(market, too_late=lines, too_late_bytes=size, problem=reason)
    return MarketStatus(
        market,
        timeframe=str(companion.timeframe),
        end_ts=companion.end_ts,
        lag_ms=now_ms - companion.end_ts,
        records=companion.records,
        quiet=companion.state.quiet if companion.state else None,
        late_trades=companion.state.late_trades if companion.state else None,
        too_late=lines,
        too_late_bytes=size,
        problem=problem,
    )


def _companion(found: _Found) -> Companion | None:
    """The companion that counts: that of a commit which has been decided goes first."""
    if "journal" in found.sizes:
        journal = read_journal(found.paths)
        if journal is not None:
            return journal.companion
    return read_companion(found.paths.companion)


def _wrong(found: _Found, companion: Companion) -> str | None:
    """What is wrong with a market whose companion can be read."""
    paths = found.paths
    if companion.market.collector and companion.market != found.market:
        return f"{paths.companion} belongs to {companion.market}"
    if "journal" in found.sizes:
        return None
    size = found.sizes.get("bin")
    if size is None or size < companion.size:
        # It may have grown, or appeared, since the folder was listed.
        try:
            size = storage_of(paths.records).state(paths.records).size
        except FileNotFoundError:
            return f"{paths.records} is missing"
    if size < companion.size:
        return f"{paths.records} has {size} of {companion.size} bytes"
    return None


def _too_late(found: _Found) -> tuple[int, int] | tuple[None, None]:
    """Whole lines and bytes of the file of trades that came too late, if there is one."""
    if "late" not in found.sizes:
        return None, None
    path = found.paths.late
    storage = storage_of(path)
    lines = size = 0
    try:
        while piece := storage.read(path, size, _PIECE):
            lines += piece.count(b"\n")
            size += len(piece)
            if len(piece) < _PIECE:
                break
    except FileNotFoundError:
        return None, None
    return lines, size
