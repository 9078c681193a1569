"""The status of an output root as lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from candlebeam.pipelines.status import MarketStatus, OutputStatus
from candlebeam.pipelines.wording import ago, iso_time


def status_lines(status: OutputStatus) -> Iterator[str]:
    """What is told of an output root: who writes there, then a table of its markets."""
    yield f"{status.out}: {_who(status)}"
    if status.job is not None:
        yield str(status.job)
    rows = [_cells(market) for market in status.markets]
    if not rows:
        return
    yield ""
    head: tuple[str, ...] = ("market", "last candle", "lag", "candles", "late trades", "too late")
    if all(market.too_late is None for market in status.markets):
        head, rows = head[:-1], [row[:-1] for row in rows]
    whole = [row for row, market in zip(rows, status.markets, strict=True) if not market.problem]
    widths = [max(map(len, column)) for column in zip(head, *whole, strict=True)]
    widths[0] = max(widths[0], *(len(row[0]) for row in rows))
    yield _row(head, widths)
    for row, market in zip(rows, status.markets, strict=True):
        if market.problem:
            yield f"{row[0].ljust(widths[0])}  damaged: {market.problem}"
        else:
            yield _row(row, widths)


def _who(status: OutputStatus) -> str:
    if status.holder_problem is not None:
        return f"whether somebody writes here cannot be told: {status.holder_problem}"
    holder = status.holder
    if holder is None:
        return "nobody is writing here"
    known = replace(holder, what=None).bracketed
    return f"{holder.what or 'another run'} is writing here{known}"


def _cells(status: MarketStatus) -> tuple[str, ...]:
    def number(value: int | None) -> str:
        return "" if value is None else f"{value:,}"

    return (
        # A name that is no text, of a folder that is not ours, has to be printed all the same.
        str(status.market).encode(errors="replace").decode(),
        "" if status.end_ts is None else iso_time(status.end_ts),
        "" if status.lag_ms is None else ago(status.lag_ms),
        number(status.records),
        number(status.late_trades),
        number(status.too_late),
    )


def _row(cells: tuple[str, ...], widths: list[int]) -> str:
    market, *rest = (
        cell.rjust(width) if place > 1 else cell.ljust(width)
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join([market, *rest]).rstrip()
