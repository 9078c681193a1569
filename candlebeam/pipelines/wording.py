"""Numbers with their nouns, and lists that stay short."""

from __future__ import annotations

#: Problems of one kind that are named; the report has all of them.
NAMED = 5


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
