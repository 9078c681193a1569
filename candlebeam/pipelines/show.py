"""Candles as a table of text."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone

import numpy as np

from candlebeam.errors import UsageError
from candlebeam.formats.candles.file import Candles, open_candles
from candlebeam.formats.candles.records import RECORD_DTYPE
from candlebeam.model import VOLUME_SCALE
from candlebeam.pipelines.wording import counted

_DEFAULT_ROWS = 5
_COLUMNS = (
    "time", "open", "high", "low", "close", "buy volume", "sell volume", "buys", "sells",
    "buy liq", "sell liq",
)  # fmt: skip
#: Candles that are formatted at a time.
_PAGE = 4096


def show_candles(
    path: str,
    start: str | None = None,
    end: str | None = None,
    head: int | None = None,
    tail: int | None = None,
) -> Iterator[str]:
    """The lines of a table of candles.

    Args:
        path: a candle file.
        start, end: from when to before when; see `parse_time`.
        head, tail: only the first and the last of these. The first and last five if nothing is
            chosen.
    """
    candles = open_candles(path)
    chosen = candles.between(
        None if start is None else parse_time(start), None if end is None else parse_time(end)
    )
    if head is None and tail is None and start is None and end is None:
        head = tail = _DEFAULT_ROWS
    yield _title(candles)
    first, last = chosen.start, max(chosen.stop, chosen.start)
    parts = [slice(first, last)]
    if head is not None or tail is not None:
        head_end = min(first + (head or 0), last)
        parts = [slice(first, head_end), slice(max(last - (tail or 0), head_end), last)]
    yield from _table(candles, [part for part in parts if part.start < part.stop])


def parse_time(text: str) -> int:
    """A time in UTC as ms: an ISO date or time, or a number of ms.

    >>> parse_time("2021-01-08"), parse_time("2021-01-08T00:15Z"), parse_time("1610064000000")
    (1610064000000, 1610064900000, 1610064000000)
    """
    if text.isdigit() and len(text) > 8:
        return int(text)
    try:
        moment = datetime.fromisoformat(text.removesuffix("Z"))
    except ValueError:
        raise UsageError(
            f"time {text!r}: expected such as 2021-01-08 or 2021-01-08T00:15"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return round(moment.timestamp() * 1000)


def _title(candles: Candles) -> str:
    companion = candles.companion
    market = companion.market
    name = "/".join(part for part in market if part)
    scale = companion.scale.value
    return f"{name} {companion.timeframe}, {counted(len(candles), 'candle')}, price scale {scale}"


def _table(candles: Candles, parts: list[slice]) -> Iterator[str]:
    decimals = max(candles.companion.scale.decimals, 0)
    widths = [
        max(len(c), w) for c, w in zip(_COLUMNS, _widths(candles, parts, decimals), strict=True)
    ]
    yield _row(_COLUMNS, widths)
    for number, part in enumerate(parts):
        if number and part.start > parts[number - 1].stop:
            yield "..."
        for begin in range(part.start, part.stop, _PAGE):
            page = slice(begin, min(begin + _PAGE, part.stop))
            for cells in _cells(candles, page, decimals):
                yield _row(cells, widths)


def _row(cells: tuple[str, ...], widths: list[int]) -> str:
    first, *rest = zip(cells, widths, strict=True)
    return "  ".join(
        [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]
    ).rstrip()


def _widths(candles: Candles, parts: list[slice], decimals: int) -> list[int]:
    """Widths that hold every cell, from the largest value of each column."""
    records = (
        np.concatenate([candles.records[part] for part in parts]) if parts else candles.records[:0]
    )
    widest = [len("2021-01-08 00:00:00")]
    for name in RECORD_DTYPE.names or ():
        most = int(records[name].max()) if len(records) else 0
        widest.append(len(_cell(candles, name, most, decimals)))
    return widest


def _cells(candles: Candles, page: slice, decimals: int) -> Iterator[tuple[str, ...]]:
    times = np.datetime_as_string(candles.times()[page], unit="s")
    columns = [candles.records[name][page].tolist() for name in RECORD_DTYPE.names or ()]
    names = RECORD_DTYPE.names or ()
    for time, *values in zip(times.tolist(), *columns, strict=True):
        if not any(values):
            yield (time.replace("T", " "), *[""] * len(names))
            continue
        yield (
            time.replace("T", " "),
            *(
                _cell(candles, name, value, decimals)
                for name, value in zip(names, values, strict=True)
            ),
        )


def _cell(candles: Candles, name: str, value: int, decimals: int) -> str:
    if name in ("open", "high", "low", "close"):
        scale = candles.companion.scale
        return (
            f"{value / scale.power:.{decimals}f}"
            if scale.multiplies
            else f"{value * scale.power:.0f}"
        )
    if name in ("buy_count", "sell_count"):
        return str(value)
    return f"{value // VOLUME_SCALE}.{value % VOLUME_SCALE:06d}"[:-4]
