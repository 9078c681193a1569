"""Databento files: the trades of all their markets in one pass.

Databento makes its own bars of the trades of a file by `ts_recv`, the time at which it received a
record, in the order of the file; its documentation says so, and `ts_recv` is also by what it sorts
files and dates symbols. So that candles equal its bars, a trade's time here is `ts_recv` as well,
floored to milliseconds (`ts_event` where a record has no `ts_recv`), and no trade is left out for
its kind. A trade is a record of trades, tbbo, tcbbo, mbp-1, mbp-10, cmbp-1 or mbo with action `T`;
fills (`F`) are the resting side of the same.

In files of live sessions the same trade can come in records of several types. An instrument's
trades are taken from records of one type: that of the first one in the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from candlebeam.errors import FormatError, os_reason
from candlebeam.formats.dbn import tables as t
from candlebeam.formats.dbn.bars import DbnBars, iterate_dbn_bars, open_dbn_bars
from candlebeam.formats.dbn.metadata import COLLECTOR, DbnFile, SymbolInterval
from candlebeam.formats.dbn.records import BATCH_ROWS, Choice, DbnRecords, describe_dbn
from candlebeam.formats.trade_log.reader import RejectedRow
from candlebeam.model import FileOutcome, Market, TradeBatch

__all__ = [
    "COLLECTOR",
    "DbnBars",
    "DbnFile",
    "DbnReader",
    "SymbolInterval",
    "WantedMarket",
    "describe_dbn",
    "iterate_dbn_bars",
    "open_dbn_bars",
]


class WantedMarket(NamedTuple):
    """A market that is wanted of a file.

    Attributes:
        market: put into the batches.
        from_ts: trades older than this (ms) are left out; those in records that an earlier run has
            not seen are counted as late. None keeps all.
        seen: bytes of the decompressed file that an earlier run has used: its
            `FileOutcome.text_bytes`.
    """

    market: Market
    from_ts: int | None = None
    seen: int = 0


class DbnReader:
    """Reads the trades of a file, once for all its markets; iterate it, once.

    Args:
        path: the file.
        wanted: by symbol, the markets to read; other symbols are left. None reads all.
        keep_rejects: whether rejected records are kept in `rejects`, and not only counted.
        batch_trades: trades of a full batch; a power of two. Others are shorter.
        cancelled: asked now and then; once it says True, iterating raises
            `candlebeam.errors.Cancelled`.
        on_rejects: called with rejected records of a market (None: of no market) as they are found,
            instead of keeping them in `rejects`. Implies `keep_rejects`.

    Attributes:
        outcomes: what became of the file, by market; those that are wanted, and without `wanted`
            those the file has. Complete once the iteration has ended. Prices that are undefined or
            not above 0 are rejected as "price".
        unmapped: trades of instruments that have no symbol in the file on their day; they belong to
            no market, and are counted here alone.
        rejects: by market, the rejected records in order, if they are kept; None has those of no
            market. The line is the number of the record, the row says what was in it.

    Iterating yields `TradeBatch`es, each of one market, with the trades of a market in file order
    and arrays that are the consumer's own. What is damaged or cannot be read raises nothing, but
    stands in the outcomes.

    Raises, when iterated:
        CandlebeamError: the library is not installed.
    """

    def __init__(
        self,
        path: str,
        wanted: Mapping[str, WantedMarket] | None = None,
        *,
        keep_rejects: bool = False,
        batch_trades: int = BATCH_ROWS,
        cancelled: Callable[[], bool] | None = None,
        on_rejects: Callable[[Market | None, list[RejectedRow]], None] | None = None,
    ) -> None:
        if batch_trades < 16 or batch_trades & (batch_trades - 1):
            raise ValueError(f"batch_trades {batch_trades}: expected a power of two from 16 on")
        self.path = path
        self.outcomes: dict[Market, FileOutcome] = {}
        self.unmapped = 0
        self.rejects: dict[Market | None, list[RejectedRow]] = {}
        self._wanted = wanted
        self._on_rejects = on_rejects
        self._records = DbnRecords(
            path,
            self._choose,
            keep_rejects=keep_rejects or on_rejects is not None,
            batch_rows=batch_trades,
            cancelled=cancelled,
        )

    def __iter__(self) -> Iterator[TradeBatch]:
        records = self._records
        damage = error = None
        read_path: str | None = self.path
        try:
            for number in records:
                ts, price, size, buy = records.take_trades(number)
                none = np.zeros(len(ts), np.uint8)
                yield TradeBatch(records.keys[number], ts, price, size, buy, none)
                self._take_notes()
        except FormatError as failure:
            damage = str(failure).removeprefix(f"{self.path}: ")
        except FileNotFoundError:
            error, read_path = "missing", None
        except OSError as failure:
            error = os_reason(failure)
        self._take_notes()
        self.unmapped = records.unmapped
        common = FileOutcome(
            path=self.path,
            read_path=read_path,
            size=records.size,
            mtime_ns=records.mtime_ns,
            text_bytes=records.text_bytes,
            damage=records.damage or damage,
            error=error,
        )
        for wanted in (self._wanted or {}).values():
            self.outcomes[wanted.market] = common
        for number, market in enumerate(records.keys):
            self.outcomes[market] = self._outcome(common, number)

    def _choose(self, head: DbnFile, symbol: str) -> tuple[Market, Choice] | None:
        if self._wanted is None:
            return head.market(symbol), Choice()
        wanted = self._wanted.get(symbol)
        return None if wanted is None else (wanted.market, Choice(wanted.from_ts, wanted.seen))

    def _outcome(self, common: FileOutcome, number: int) -> FileOutcome:
        counts = self._records.markets[number].tolist()
        late, repeated = counts[t.LATE], counts[t.REPEATED]
        note = f"{repeated} trades came again in records of another type and were left out"
        return replace(
            common,
            trades=counts[t.TAKEN],
            rejected=self._records.rejected(number),
            late=late,
            first_late_ts=counts[t.FIRST_LATE] if late else None,
            notes=(note,) if repeated else (),
        )

    def _take_notes(self) -> None:
        notes, self._records.notes = self._records.notes, []
        found: dict[Market | None, list[RejectedRow]] = {}
        for note in notes:
            market = None if note.number < 0 else self._records.keys[note.number]
            row = RejectedRow(note.record, note.reason, note.text.encode())
            found.setdefault(market, []).append(row)
        for market, rows in found.items():
            if self._on_rejects is not None:
                self._on_rejects(market, rows)
            else:
                self.rejects.setdefault(market, []).extend(rows)
