"""What the volumes of bars are held against: finer bars, or trades, of the same instrument."""

from __future__ import annotations

import os
from typing import NamedTuple

from candlebeam.errors import CandlebeamError
from candlebeam.formats.bar_inputs import CANDLES, CSV, DBN, BarInput, find_bars, open_input
from candlebeam.formats.bar_source import BarSource
from candlebeam.market import Market
from candlebeam.rules.periods import Period


class Wanted(NamedTuple):
    """The bars that a source is looked for.

    Attributes:
        path: their file: nothing is held against itself.
        kind: one of `bar_inputs.KINDS`.
        name: what a file of the instrument is called.
        market: whose they are; None where only the name is known.
        period: how long they are.
    """

    path: str
    kind: str
    name: str
    market: Market | None
    period: Period


class Match(NamedTuple):
    """A source, or why there is none.

    Attributes:
        source: the finest one of the instrument.
        length: of its bars in ms; 0 for trades.
        in_quote: whether it is trades, and the wanted bars count what these were worth.
        problem: why nothing can be compared; "" with a source.
    """

    source: BarSource | None
    length: int = 0
    in_quote: bool = False
    problem: str = ""


class VolumeSources:
    """All sources at a path, by instrument.

    Args:
        path: a file or folder, as `find_bars` takes it.

    Raises:
        UsageError: the path is not there, or a file of an unknown kind.
        CandlebeamError: a folder holds no bars.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._inputs: dict[str, list[BarInput]] = {}
        self._unreadable: list[str] = []
        for found in find_bars(path):
            try:
                names = _names(found)
            except (CandlebeamError, OSError) as error:
                self._unreadable.append(str(error))
                continue
            for name in names:
                self._inputs.setdefault(name, []).append(found)

    def match(self, wanted: Wanted) -> Match:
        """The finest source of the bars' instrument.

        Raises:
            CandlebeamError: a source is damaged.
        """
        known = wanted.market if wanted.market and wanted.market.collector else None
        sources = [
            (found.kind, source)
            for found in self._inputs.get(wanted.name, [])
            if os.path.realpath(wanted.path) not in map(os.path.realpath, found.paths)
            for source in open_input(found)
            if wanted.name in (source.market.symbol, file_name(source.market.symbol))
            and (known is None or not source.market.collector or source.market == known)
        ]
        sources = [each for each in sources if each[1].market == known] or sources
        if not sources:
            problems = [f"no source of {known or wanted.name} in {self.path}", *self._unreadable]
            return Match(None, problem="; ".join(problems))
        markets = {source.market for _, source in sources}
        if len(markets) > 1:
            names = ", ".join(sorted("/".join(filter(None, market)) for market in markets))
            return Match(None, problem=f"several sources could be meant: {names}")
        fitting = [
            (0 if source.timeframe is None else source.timeframe.ms, kind, source)
            for kind, source in sources
            if _fits(kind, source, wanted.period)
        ]
        if not fitting:
            return Match(None, problem="the bars of the source do not make up these")
        length, kind, source = min(fitting, key=lambda each: each[0])
        in_quote = wanted.kind == CANDLES and length == 0
        if wanted.kind == CANDLES and kind == DBN and not in_quote:
            return Match(None, problem="the source counts base units, candle files quote units")
        return Match(source, length, in_quote)


def file_name(symbol: str) -> str:
    """What a file of a symbol is called, without suffix."""
    return Market("", "", symbol).path.rpartition("/")[2]


def _fits(kind: str, source: BarSource, period: Period) -> bool:
    """Whether bars of that length can be put together from the source."""
    if source.timeframe is None:
        # Trades; of others nobody knows how long they are.
        return kind == DBN
    return period.can_hold(source.timeframe)


def _names(found: BarInput) -> set[str]:
    """What the instruments of an input are called where a file is called by them."""
    if found.kind in (CSV, DBN):
        return {file_name(source.market.symbol) for source in open_input(found)}
    return {os.path.splitext(os.path.basename(found.paths[0]))[0]}
