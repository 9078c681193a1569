"""Records of live sessions as they come, read as those of a file of the same session are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from candlebeam.errors import FormatError
from candlebeam.formats.dbn import tables as t
from candlebeam.formats.dbn.layout import record_types
from candlebeam.formats.dbn.metadata import DbnFile
from candlebeam.formats.dbn.records import Choice, DbnRecords
from candlebeam.model import Int64Array, Market, TradeBatch
from candlebeam.rules.tick_test import TickState

_WORD = 8
_NAME = "a live session"


class LiveRecords(DbnRecords):
    """Takes records piece by piece and gives the trades in them, market by market.

    What a file of a live session says by its order holds here too: a mapping counts from its place
    on, and the tick test goes on from trade to trade.

    Args:
        dataset: the exchange of all markets.
        ticks: by symbol, where the tick test stood before.
        from_ts: trades older than this (ms) are left out; the tick test sees them.
    """

    def __init__(
        self, dataset: str, ticks: Mapping[str, TickState], from_ts: int | None = None
    ) -> None:
        super().__init__(_NAME, lambda head, symbol: (head.market(symbol), Choice(from_ts)))
        self.head = DbnFile(_NAME, dataset, None, 3, None, None, {})
        self._ticks = dict(ticks)
        self._layout = record_types(None)
        self._new_pool(t.TRADE_ROW)

    @property
    def ticks(self) -> dict[str, TickState]:
        """By symbol, where the tick test stands."""
        states = self.markets[:, [t.LAST_PRICE, t.LAST_SIDE]].tolist()
        told = {
            key.symbol: TickState(*state) for key, state in zip(self.keys, states, strict=False)
        }
        return {**self._ticks, **told}

    @property
    def rejects(self) -> dict[Market, tuple[tuple[str, int], ...]]:
        """By market, how many of its records were rejected, by reason; those that have any."""
        counts = {market: self.rejected(number) for number, market in enumerate(self.keys)}
        return {market: reasons for market, reasons in counts.items() if reasons}

    def take(self, records: bytes) -> Iterator[TradeBatch]:
        """The trades of whole records; those of a market in their order.

        Raises:
            FormatError: something is no record.
        """
        if not records:
            return
        words = np.frombuffer(records, np.int64).copy()
        for number in self._walk(_Once(words), *self._layout):
            yield self._batch(number)
        if self.damage is None and self._left:
            self.damage = f"cut off: its last record has {self._left * _WORD} bytes"
        if self.damage is not None:
            raise FormatError(_NAME, "whole records", self.damage)
        for number in np.flatnonzero(self.markets[:, t.ROWS]).tolist():
            yield self._batch(number)

    def _batch(self, number: int) -> TradeBatch:
        ts, price, size, buy = self.take_trades(number)
        return TradeBatch(self.keys[number], ts, price, size, buy, np.zeros(len(ts), np.uint8))

    def _number(self, symbol: str) -> int:
        known = symbol in self._numbers
        number = super()._number(symbol)
        if not known and (state := self._ticks.get(symbol)) is not None:
            self.markets[number, [t.LAST_PRICE, t.LAST_SIDE]] = state
        return number


class _Once:
    """One piece of words, and nothing behind it."""

    def __init__(self, words: Int64Array) -> None:
        self._words: Int64Array | None = words

    def next_words(self, carry: Int64Array) -> Int64Array | None:
        words, self._words = self._words, None
        return words
