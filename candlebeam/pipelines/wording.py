"""Numbers with their nouns, times, and lists that stay short."""

from __future__ import annotations

from datetime import datetime, timezone

#: Problems of one kind that are named; the report has all of them.
NAMED = 5
_DAY = 86_400


def counted(number: int, noun: str) -> str:
    """A number and what it counts.

    >>> counted(1, "file"), counted(40_000, "file")
    ('1 file', '40,000 files')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def shortened(lines: list[str], name: str) -> list[str]:
    """The first few lines, and how many more of that name there are.

    >>> shortened(["a", "b"], "notes")
    ['a', 'b']
    """
    if len(lines) <= NAMED:
        return lines
    return [*lines[:NAMED], f"... {len(lines) - NAMED} more {name}; --report names all of them"]


def iso_time(ts: int) -> str:
    """Ms since 1970 as a time in UTC, of seconds where it has no parts of one.

    >>> iso_time(1_704_067_320_000)
    '2024-01-01T00:02:00Z'
    """
    seconds, rest = divmod(ts, 1000)
    try:
        text = datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"{ts} ms"
    return f"{text}.{rest:03}Z" if rest else f"{text}Z"


def ago(ms: int) -> str:
    """How long ago something was, in its two largest units.

    >>> ago(42_000), ago(11_100_000), ago(93_600_000), ago(-5)
    ('42 s', '3 h 5 min', '1 d 2 h', '0 s')
    """
    seconds = max(ms, 0) // 1000
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    if seconds < _DAY:
        return f"{seconds // 3600} h {seconds % 3600 // 60} min"
    return f"{seconds // _DAY} d {seconds % _DAY // 3600} h"
