"""Numbers with their nouns."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """A number and what it counts.

    >>> counted(1, "file"), counted(40_000, "file")
    ('1 file', '40,000 files')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
