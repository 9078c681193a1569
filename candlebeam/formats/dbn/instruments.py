"""Which market an instrument of a Databento file is at which time, as tables for compiled loops."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence

import numpy as np

from candlebeam.formats.dbn import tables as t
from candlebeam.formats.dbn.kernels import hash_of
from candlebeam.formats.dbn.metadata import DbnFile, SymbolInterval
from candlebeam.model import Int64Array

_INT64 = np.iinfo(np.int64)
_NS_PER_DAY = 86_400 * 10**9
_EPOCH = datetime.date(1970, 1, 1)


class Instruments:
    """The tables by which `walk_records` finds markets."""

    def __init__(self) -> None:
        self.layers = 1
        self.table: Int64Array = np.full((64, 2), -1, np.int64)
        self.slots: Int64Array = cache_lines(64, t.SLOT_COLUMNS)
        self.intervals: Int64Array = np.zeros((0, t.INTERVAL_COLUMNS), np.int64)
        self._head_of: dict[int, int] = {}
        self._slots = 0

    def add(self, head: DbnFile, number: Callable[[str], int]) -> None:
        """Takes the mappings of a file's head."""
        rows: list[tuple[int, int, int]] = []
        for instrument, known in head.intervals.items():
            layers = _layers(known)
            self.layers = max(self.layers, len(layers))
            slot = -1
            for layer in reversed(layers):
                first = len(rows)
                rows += [(_ns(s.start_date), _ns(s.end_date), number(s.symbol)) for s in layer]
                slot = self._new_slot(slot, first, len(rows), rows[first][2])
            self._put(instrument, slot)
        if rows:
            self.intervals = np.array(rows, np.int64)

    def map(self, instrument: int, number: int) -> None:
        """From now on an instrument is this market."""
        slot = self._head_of.get(instrument)
        if slot is None:
            slot = self._new_slot(-1, 0, 0, number)
            self._put(instrument, slot)
        row = self.slots[slot]
        row[t.NEXT_SLOT], row[t.FIRST_INTERVAL], row[t.END_INTERVAL] = -1, 0, 0
        row[t.START], row[t.END], row[t.NUMBER] = _INT64.min, _INT64.max, number

    def _new_slot(self, next_slot: int, first: int, end: int, number: int) -> int:
        self.slots = with_room(self.slots, self._slots)
        self.slots[self._slots] = (next_slot, first, end, 0, 0, number, -1, 0)
        self._slots += 1
        return self._slots - 1

    def _put(self, instrument: int, slot: int) -> None:
        self._head_of[instrument] = slot
        if 2 * len(self._head_of) > len(self.table):
            self.table = np.full((4 * len(self.table), 2), -1, np.int64)
            for known, its in self._head_of.items():
                self._place(known, its)
        else:
            self._place(instrument, slot)

    def _place(self, instrument: int, slot: int) -> None:
        mask = len(self.table) - 1
        place = hash_of(instrument, mask)
        while self.table[place, 0] >= 0:
            place = (place + 1) & mask
        self.table[place] = instrument, slot


def _layers(known: Sequence[SymbolInterval]) -> list[list[SymbolInterval]]:
    """Intervals by start as lists in which none overlap: one, unless it had two names at once."""
    layers: list[list[SymbolInterval]] = []
    for span in known:
        for layer in layers:
            end = layer[-1].end_date
            if end is not None and span.start_date is not None and end <= span.start_date:
                layer.append(span)
                break
        else:
            layers.append([span])
    return layers


def _ns(date: datetime.date | None) -> int:
    """Midnight of a date in ns; far dates are the first or the last that int64 can hold."""
    assert date is not None
    ns = (date - _EPOCH).days * _NS_PER_DAY
    return max(int(_INT64.min), min(ns, int(_INT64.max)))


def with_room(rows: Int64Array, count: int) -> Int64Array:
    """The array with room for at least one row behind the first `count`."""
    if count < len(rows):
        return rows
    grown = cache_lines(max(2 * len(rows), 16), rows.shape[1])
    grown[:count] = rows[:count]
    return grown


def cache_lines(rows: int, columns: int) -> Int64Array:
    """Zeros of which every eighth, from the first on, begins a line of the cache (64 bytes)."""
    words = np.zeros(rows * columns + 8, np.int64)
    first = -words.ctypes.data % 64 // 8
    return words[first : first + rows * columns].reshape(rows, columns)
