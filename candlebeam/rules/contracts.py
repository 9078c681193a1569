"""What the form of a Databento symbol says about it.

Source of the forms: Databento's conventions of symbology (raw symbols, parents, continuous
contracts); the month codes are those of all futures exchanges.
"""

from __future__ import annotations

import re
from typing import NamedTuple

RAW_SYMBOL = "raw_symbol"
PARENT = "parent"
CONTINUOUS = "continuous"
INSTRUMENT_ID = "instrument_id"

#: Names every instrument of a dataset.
ALL_SYMBOLS = "ALL_SYMBOLS"

_MONTHS = {
    "F": "January", "G": "February", "H": "March", "J": "April", "K": "May", "M": "June",
    "N": "July", "Q": "August", "U": "September", "V": "October", "X": "November", "Z": "December",
}  # fmt: skip
_ORDINALS = {"1": "st", "2": "nd", "3": "rd"}
_PARENTS = {"FUT": "futures", "OPT": "options", "SPOT": "spot instruments"}
_ROLLS = {
    "c": "expiry, counted from the next to expire",
    "n": "open interest, from the greatest of the day before",
    "v": "volume, from the greatest of the day before",
}
_PARENT = re.compile(rf"(?P<root>[A-Z0-9]+)\.(?P<kind>{'|'.join(_PARENTS)})", re.IGNORECASE)
_CONTINUOUS = re.compile(r"(?P<root>[A-Z0-9]+)\.(?P<roll>[CNV])\.(?P<rank>\d+)", re.IGNORECASE)
_FUTURE = re.compile(
    rf"(?P<root>[A-Z0-9]{{1,3}}?)(?P<month>[{''.join(_MONTHS)}])(?P<year>\d{{1,2}})"
)
_ROOT = re.compile(r"[A-Z0-9]{1,4}")


class Form(NamedTuple):
    """A way to name contracts of a root."""

    symbol: str
    stype: str


def guess_stype(symbol: str) -> str:
    """The symbology type that a symbol's form speaks for.

    >>> [guess_stype(symbol) for symbol in ("ESH4", "ES.FUT", "ES.v.0", "5602", "BRK.B")]
    ['raw_symbol', 'parent', 'continuous', 'instrument_id', 'raw_symbol']
    """
    if _PARENT.fullmatch(symbol):
        return PARENT
    if _CONTINUOUS.fullmatch(symbol):
        return CONTINUOUS
    return INSTRUMENT_ID if symbol.isascii() and symbol.isdigit() else RAW_SYMBOL


def requested_form(symbol: str, stype: str) -> str:
    """A symbol as the API is asked for it: upper case, but for the letter of a roll rule.

    >>> requested_form(" spy", "raw_symbol"), requested_form("es.V.0", "continuous")
    ('SPY', 'ES.v.0')
    """
    symbol = symbol.strip().upper()
    if stype == CONTINUOUS and symbol.count(".") == 2:
        root, roll, rank = symbol.split(".")
        return f"{root}.{roll.lower()}.{rank}"
    return symbol


def names_several(symbol: str, stype: str) -> bool:
    """Whether it stands for several instruments at one time."""
    return stype == PARENT or symbol == ALL_SYMBOLS


def describe(symbol: str, stype: str) -> str | None:
    """What a symbol's form tells a reader; None if it is plain.

    >>> describe("ESH4", "raw_symbol")
    'if a future: ES for March of a year that ends in 4'
    >>> describe("ES.v.0", "continuous")
    'ES, 1st by volume, from the greatest of the day before'
    >>> describe("SPY", "raw_symbol")
    """
    if stype == PARENT and (found := _PARENT.fullmatch(symbol)):
        return f"all {_PARENTS[found['kind'].upper()]} of {found['root'].upper()}"
    if stype == CONTINUOUS and (found := _CONTINUOUS.fullmatch(symbol)):
        rank = int(found["rank"]) + 1
        return f"{found['root'].upper()}, {_ordinal(rank)} by {_ROLLS[found['roll'].lower()]}"
    if stype == RAW_SYMBOL and (found := _FUTURE.fullmatch(symbol)):
        month = _MONTHS[found["month"]]
        return f"if a future: {found['root']} for {month} of a year that ends in {found['year']}"
    return None


def forms_of_root(symbol: str) -> list[Form]:
    """How contracts are named if a symbol is their root; empty if it cannot be one.

    >>> [form.symbol for form in forms_of_root("ES")]
    ['ES.FUT', 'ES.c.0', 'ES.v.0', 'ES.n.0']
    """
    if not _ROOT.fullmatch(symbol):
        return []
    continuous = [Form(f"{symbol}.{roll}.0", CONTINUOUS) for roll in "cvn"]
    return [Form(f"{symbol}.FUT", PARENT), *continuous]


def _ordinal(number: int) -> str:
    last = str(number)[-1]
    return f"{number}{'th' if 10 < number % 100 < 14 else _ORDINALS.get(last, 'th')}"
