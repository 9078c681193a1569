"""The end of a backfill in a few lines of text."""

from __future__ import annotations

import shlex
import sys

from candlebeam.outcome import EMPTY, FAILED, UP_TO_DATE, WRITTEN, MarketOutcome
from candlebeam.pipelines.backfill import BackfillRequest
from candlebeam.pipelines.progress import format_bytes, format_seconds
from candlebeam.pipelines.report import Report
from candlebeam.pipelines.wording import counted, shortened
from candlebeam.settings import CandleSettings


def print_summary(report: Report, request: BackfillRequest | None = None) -> None:
    """Prints what was made on standard output, and what went wrong on standard error.

    `request` is what was asked for, if it is known, for the commands in it.
    """
    for line in summary_lines(report):
        print(line)
    for line in problem_lines(report, request):
        print(f"candlebeam: {line}", file=sys.stderr)


def summary_lines(report: Report) -> list[str]:
    """What was made."""
    counts = [
        f"{count} {name}"
        for name, count in (
            ("written", report.count(WRITTEN)),
            ("up to date", report.count(UP_TO_DATE)),
            ("without trades", report.count(EMPTY)),
            ("failed", report.count(FAILED)),
        )
        if count
    ]
    lines = []
    if report.markets or report.job is None:
        lines.append(f"{counted(len(report.markets), 'market')}: {', '.join(counts)}")
    if report.job is not None:
        job = report.job
        lines.append(
            f"{counted(job.shards, 'shard')} of {counted(job.markets, 'market')}"
            f" ({format_bytes(job.bytes)}) go on as job {job.job_id} at {job.master}"
        )
    if report.total("files"):
        reused, seconds = report.total("chunks_reused"), report.seconds
        took = format_seconds(seconds) if seconds >= 10 else f"{seconds:.1f} s"
        size = format_bytes(report.total("bytes_read"))
        lines.append(
            f"{counted(report.total('files'), 'file')} ({size}),"
            f" {counted(report.total('trades'), 'trade')},"
            f" {counted(report.total('candles'), 'candle')}"
            f" and {counted(report.total('gaps'), 'gap')} in {took}"
        )
        if reused:
            total = reused + report.total("chunks_made")
            lines.append(f"{reused} of {total} chunks were there from an earlier run")
    if report.rejected:
        rejected = ", ".join(f"{reason} {rows:,}" for reason, rows in report.rejected.items())
        lines.append(f"rejected rows: {rejected}")
    return lines


def problem_lines(report: Report, request: BackfillRequest | None) -> list[str]:
    """What the user should know besides, one line each."""
    lines = list(report.notes)
    for name, found in problems_by_kind(report, request).items():
        lines += shortened(found, name)
    return lines


def problems_by_kind(report: Report, request: BackfillRequest | None) -> dict[str, list[str]]:
    """All that the user should know, a line each, by the name of its kind."""
    markets = report.markets
    return {
        "problems": list(report.problems),
        "notes": [f"{m.market}: {note}" for m in markets for note in m.notes],
        "damaged files": [f"{d['path']}: {d['damage']}" for m in markets for d in m.damaged],
        "missing files": [
            f"{path}: missing" for m in markets if m.status != FAILED for path in m.missing
        ],
        "markets with late input": [
            late_line(m, request) for m in markets if m.late_trades or m.late_files
        ],
        "failed markets": [f"{m.market}: failed: {m.error}" for m in markets if m.status == FAILED],
    }


def late_line(outcome: MarketOutcome, request: BackfillRequest | None) -> str:
    """What of its input came too late for a market, and how to bring it in."""
    what = []
    if outcome.late_trades:
        what.append(counted(outcome.late_trades, "late trade"))
    if outcome.late_files:
        what.append(f"{counted(outcome.late_files, 'file')} indexed late")
    if request is None:
        return f"{outcome.market}: not in it: {' and '.join(what)}; --force brings all of it in"
    command = late_command(outcome.market, request)
    return f"{outcome.market}: not in it: {' and '.join(what)}; to bring all of it in: {command}"


def late_command(market: str, request: BackfillRequest) -> str:
    """The command that makes a market again from all its inputs."""
    collector, exchange, symbol = market.split("/", 2)
    filters = ["--collector", collector, "--exchange", exchange, "--symbol", symbol]
    return shlex.join([*_command(request), *filters, "--force"])


def _command(request: BackfillRequest) -> list[str]:
    """The command that makes the same candles, without a choice of markets."""
    settings, default = request.settings, CandleSettings()
    command = ["candlebeam", "backfill", *_archive(request), "--out", request.out]
    if settings.timeframe != default.timeframe:
        command += ["--timeframe", str(settings.timeframe)]
    if not settings.corrections:
        command += ["--no-corrections"] if request.db else []
    elif settings.corrections != default.corrections:
        command += [word for name in settings.corrections for word in ("--correction", name)]
    if settings.liquidations != default.liquidations:
        command += ["--liquidations", settings.liquidations]
    if settings.price_scale is not None:
        command += ["--price-scale", str(settings.price_scale.value)]
    if not settings.snap:
        command.append("--no-snap")
    if request.skip_missing:
        command.append("--skip-missing")
    return command


def _archive(request: BackfillRequest) -> list[str]:
    if request.db is not None:
        return ["--db", request.db]
    if request.agg2 is not None:
        return ["--agg2", request.agg2]
    return ["--dbn", *request.dbn]
