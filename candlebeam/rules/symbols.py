"""Symbols: from the name in an archive's path to the name of the market.

Exchanges rename what they list, and collectors have kept the names of the day. What a raw name
means may therefore depend on when its file starts; `symbol_eras` gives all that it can mean.
"""

from __future__ import annotations

import re
from typing import NamedTuple

#: 2021-08-18T16:00Z: POLONIEX pairs are base first from here on, and were quote first before.
POLONIEX_FLIP_TS = 1_629_302_400_000
#: 2025-11-28T00:00Z: a bare BITGET symbol is a derivative from here on, and was spot before.
BITGET_RENAME_TS = 1_764_288_000_000

_POLONIEX_QUOTES = frozenset({"USDT", "USDC", "USD", "EUR"})
_BITGET_DERIVATIVE = re.compile(r"_(UMCBL|DMCBL|CMCBL)$")


class SymbolEra(NamedTuple):
    """What a raw symbol means for files that start at or after `from_ts`, up to the next era."""

    from_ts: int
    symbol: str


def symbol_eras(exchange: str, raw_symbol: str) -> tuple[SymbolEra, ...]:
    """All that a raw symbol of an exchange means over time, ascending, the first from 0 on.

    Args:
        exchange: upper-case, as in `Market`.
        raw_symbol: as in the path of the archive.

    >>> for era in symbol_eras("BITGET", "btcusdt"):
    ...     print(*era)
    0 BTCUSDT-SPOT
    1764288000000 BTCUSDT
    """
    if exchange == "POLONIEX":
        return _poloniex_eras(raw_symbol.upper())
    if exchange == "BITGET":
        return _bitget_eras(raw_symbol.upper())
    return (SymbolEra(0, raw_symbol),)


def normalize_symbol(exchange: str, raw_symbol: str, start_ts: int) -> str:
    """The market's symbol for a file that starts at `start_ts` (ms).

    >>> normalize_symbol("POLONIEX", "USDT_BTC", 1_500_000_000_000)
    'BTC_USDT'
    >>> normalize_symbol("BITGET", "BTCUSDT_UMCBL", 0)
    'BTCUSDT'
    """
    eras = symbol_eras(exchange, raw_symbol)
    return next(era.symbol for era in reversed(eras) if start_ts >= era.from_ts or era is eras[0])


def _poloniex_eras(symbol: str) -> tuple[SymbolEra, ...]:
    first, separator, second = symbol.partition("_")
    if not separator or "_" in second:
        return (SymbolEra(0, symbol),)
    flipped = f"{second}_{first}"
    first_is_quote, second_is_quote = first in _POLONIEX_QUOTES, second in _POLONIEX_QUOTES
    if second_is_quote and not first_is_quote:
        return (SymbolEra(0, symbol),)
    if first_is_quote and not second_is_quote:
        return (SymbolEra(0, flipped),)
    return (SymbolEra(0, flipped), SymbolEra(POLONIEX_FLIP_TS, symbol))


def _bitget_eras(symbol: str) -> tuple[SymbolEra, ...]:
    derivative = _BITGET_DERIVATIVE.sub("", symbol)
    if derivative != symbol or symbol.endswith("-SPOT"):
        return (SymbolEra(0, derivative),)
    return (SymbolEra(0, f"{symbol}-SPOT"), SymbolEra(BITGET_RENAME_TS, symbol))
