"""AGG2 and AGG3: a day of aggregated trades as one compressed blob of fixed records.

Reads the days of one market into `TradeBatch`es, at the speed of decompression or near it, and says
of every day what became of it. Numbers that their writer has truncated are recovered (see
`rules.steps`), bad rows are counted by reason, and of a damaged day every whole row is taken.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from candlebeam.errors import Cancelled, FormatError, os_reason
from candlebeam.formats.agg2 import kernels as loops
from candlebeam.formats.agg2.blob import (
    AGG2_ROW_DTYPE,
    AGG3_ROW_DTYPE,
    EXACT_MARK,
    FLAG_IS_BUYER_MAKER,
    HEADER_BYTES,
    MAGIC,
    MAX_COUNT,
    ROW_BYTES,
    SCALE,
    VERSION,
    BlobError,
    Header,
)
from candlebeam.formats.agg2.day import Day, DayBlobs, Month, Search, open_month
from candlebeam.formats.agg2.held import HeldRows
from candlebeam.formats.agg2.held_kernels import take_held
from candlebeam.formats.agg2.index import (
    DATA_NAME,
    INDEX_NAME,
    DayInput,
    Index,
    IndexRow,
    list_days,
    parse_index,
    read_index,
)
from candlebeam.formats.trade_log.reader import FileRejects, RejectedRow
from candlebeam.model import (
    FileOutcome,
    Float64Array,
    InputFile,
    Int64Array,
    Market,
    Records,
    TradeBatch,
    Uint8Array,
)
from candlebeam.rules.steps import AS_STORED

__all__ = [
    "AGG2_ROW_DTYPE",
    "AGG3_ROW_DTYPE",
    "DATA_NAME",
    "EXACT_MARK",
    "FLAG_IS_BUYER_MAKER",
    "INDEX_NAME",
    "MAX_COUNT",
    "SCALE",
    "Agg2Reader",
    "DayInput",
    "Index",
    "IndexRow",
    "encode_day",
    "list_days",
    "parse_index",
    "read_index",
]

#: Of a batch: their columns stay in the cache until they are read.
AGG2_BATCH_TRADES = 1 << 15
_REJECTS = 1024
_NOT_LATE = np.iinfo(np.int64).max
_NO_LIMIT = np.iinfo(np.int64).min


def encode_day(rows: Records, day: int) -> bytes:
    """The blob of a day, uncompressed, of rows whose numbers are exact.

    Args:
        rows: of `AGG2_ROW_DTYPE`, in the order in which they are to stand.
        day: of the month.

    Raises:
        ValueError: the rows are of another type.
    """
    return header_of(rows, day).encode() + rows.tobytes()


def header_of(rows: Records, day: int) -> Header:
    """The header of such a blob.

    Raises:
        ValueError: the rows are of another type.
    """
    if rows.dtype != AGG2_ROW_DTYPE or rows.ndim != 1:
        raise ValueError(f"rows: expected records of AGG2_ROW_DTYPE, found {rows.dtype}")
    ts = rows["ts_ms"]
    first, last = (int(ts.min()), int(ts.max())) if len(rows) else (0, 0)
    padding = EXACT_MARK.ljust(16, b"\0")
    return Header(MAGIC, VERSION, day, 0, len(rows), first, last, padding)


class Agg2Reader:
    """Reads days of one market, in the order given; iterate it, once.

    Args:
        market: whose trades they are; put into the batches.
        files: the days, as paths `{base}/{symbol}/{YYYY}/{MM}/{DD}` that are no files: the day of
            the blobs in that month's folder.
        from_ts: trades older than this (ms, UTC) are left out; those that stand behind the bytes
            that an earlier run has seen (`InputFile.seen`) are counted as late. None keeps all.
        keep_rejects: whether rejected rows are kept in `rejects`, and not only counted.
        snap: whether truncated prices and quantities are recovered, or taken as they stand.
        batch_trades: trades of a full batch; the last one is shorter.
        cancelled: asked for each piece of a day; once it says True, iterating raises
            `candlebeam.errors.Cancelled`.
        on_rejects: called with rejected rows as they are found, instead of keeping them in
            `rejects`; a day's rows may come in several calls. Implies `keep_rejects`.

    Attributes:
        outcomes: what became of each day, in order; complete once the iteration has ended.
        rejects: the rejected rows of each day that has any, in order, if they are kept: as hex
            digits, by their number in the day from 1.
        saturated: trades so far whose row counts as many trades as it can, or more.

    Iterating yields `TradeBatch`es in the order of the rows whose arrays are the consumer's own.
    """

    def __init__(
        self,
        market: Market,
        files: Sequence[InputFile],
        *,
        from_ts: int | None = None,
        keep_rejects: bool = False,
        snap: bool = True,
        cancelled: Callable[[], bool] | None = None,
        batch_trades: int = AGG2_BATCH_TRADES,
        on_rejects: Callable[[FileRejects], None] | None = None,
    ) -> None:
        if batch_trades < 1:
            raise ValueError(f"batch_trades {batch_trades}: expected at least 1")
        self.market = market
        self.outcomes: list[FileOutcome] = []
        self.rejects: list[FileRejects] = []
        self.saturated = 0
        self._inputs = files
        self._from_ts = _NO_LIMIT if from_ts is None else from_ts
        self._snap = snap
        self._batch_trades = batch_trades
        self._on_rejects = on_rejects
        noted = _REJECTS if keep_rejects or on_rejects else 0
        self._noted: Int64Array = np.zeros((noted, loops.REJECT_COLUMNS), np.int64)
        self._control: Int64Array = np.zeros(loops.CONTROL_SIZE, np.int64)
        # Not with a method of this reader: memory in a cycle stays until there is much of it.
        self._check_cancelled = _check_of(cancelled)
        self._blobs = DayBlobs(self._check_cancelled, hold=not noted)
        self._new_columns()

    def __iter__(self) -> Iterator[TradeBatch]:
        try:
            for file in self._inputs:
                yield from self._read_file(file)
        finally:
            self._blobs.release()
        if self._control[loops.FILLED]:
            yield self._take_batch()

    def _read_file(self, file: InputFile) -> Iterator[TradeBatch]:
        self._check_cancelled()
        folder, name = os.path.split(file.path)
        number = int(name)
        try:
            month = open_month(folder, number)
        except (OSError, FormatError) as error:
            self.outcomes.append(_unopened(file.path, folder, error))
            return
        totals: Int64Array = np.zeros(loops.TOTALS_SIZE, np.int64)
        totals[loops.FIRST_LATE] = _NOT_LATE
        search = Search(None, [])
        error_text: str | None = None
        try:
            search = self._blobs.find(month, number)
            if search.day is not None:
                yield from self._read_day(month, search.day, file, totals)
        except OSError as error:
            error_text = os_reason(error)
        except BlobError as error:
            error_text = str(error)
        finally:
            os.close(month.descriptor)
        self.saturated += int(totals[loops.SATURATED])
        self.outcomes.append(_outcome(month, file.path, search, totals, error_text))

    def _read_day(
        self, month: Month, day: Day, file: InputFile, totals: Int64Array
    ) -> Iterator[TradeBatch]:
        """The trades of a day that fill up batches."""
        steps = (day.price_step, day.size_step) if self._snap else (AS_STORED, AS_STORED)
        known = max(file.seen // ROW_BYTES - HEADER_BYTES // ROW_BYTES, 0)
        factors = (steps[0].factor, steps[1].factor)
        if day.held is None:
            yield from self._read_rows(month, day, file.path, factors, known, totals)
        else:
            yield from self._read_held(day.held, day, factors, known, totals)

    def _read_held(
        self, held: HeldRows, day: Day, factors: tuple[float, float], known: int, totals: Int64Array
    ) -> Iterator[TradeBatch]:
        control = self._control
        most = int(day.layout.places[loops.COUNT_MASK])
        for first, words, form in held.stretches():
            control[loops.ROW] = 0
            status = loops.COLUMNS_FULL
            while status != loops.DONE:
                self._check_cancelled()
                status = take_held(
                    words,
                    form,
                    *factors,
                    day.repeated[first:],
                    most,
                    self._from_ts,
                    known - first,
                    self._ts,
                    self._price,
                    self._size,
                    self._buy,
                    self._count,
                    control,
                    totals,
                )
                if status == loops.COLUMNS_FULL:
                    yield self._take_batch()

    def _read_rows(
        self,
        month: Month,
        day: Day,
        path: str,
        factors: tuple[float, float],
        known: int,
        totals: Int64Array,
    ) -> Iterator[TradeBatch]:
        """As `_read_held`, of rows that are decompressed again."""
        control = self._control
        before = 0
        for piece in self._blobs.pieces(month, day):
            self._check_cancelled()
            rows = len(piece) // loops.WORDS
            control[loops.ROW] = 0
            status = loops.COLUMNS_FULL
            while status != loops.DONE:
                status = loops.take_rows(
                    piece,
                    day.layout.places,
                    *factors,
                    day.repeated[before : before + rows],
                    self._from_ts,
                    known - before,
                    self._ts,
                    self._price,
                    self._size,
                    self._buy,
                    self._count,
                    self._noted,
                    control,
                    totals,
                )
                if control[loops.NOTED]:
                    self._take_rejects(path, piece, before)
                if status == loops.COLUMNS_FULL:
                    yield self._take_batch()
            before += rows

    def _new_columns(self) -> None:
        count = self._batch_trades
        self._ts: Int64Array = np.empty(count, np.int64)
        self._price: Float64Array = np.empty(count)
        self._size: Float64Array = np.empty(count)
        self._buy: Uint8Array = np.empty(count, np.uint8)
        self._count: Int64Array = np.empty(count, np.int64)
        self._control[loops.FILLED] = 0

    def _take_batch(self) -> TradeBatch:
        count = int(self._control[loops.FILLED])
        columns = (self._ts, self._price, self._size, self._buy)
        counts = self._count
        if count == self._batch_trades:
            self._new_columns()
        else:
            # Copies, since views would keep the whole columns alive.
            columns = tuple(column[:count].copy() for column in columns)
            counts = counts[:count].copy()
            self._control[loops.FILLED] = 0
        return TradeBatch(self.market, *columns, np.zeros(count, np.uint8), counts)

    def _take_rejects(self, path: str, piece: Int64Array, before: int) -> None:
        raw = piece.view(np.uint8).reshape(-1, ROW_BYTES)
        if not self.rejects or self.rejects[-1].path != path:
            self.rejects.append(FileRejects(path, []))
        for row, reason in self._noted[: int(self._control[loops.NOTED])].tolist():
            found = raw[row].tobytes().hex().encode()
            line = before + row + 1
            self.rejects[-1].rows.append(RejectedRow(line, loops.REASONS[reason], found))
        self._control[loops.NOTED] = 0
        if self._on_rejects is not None:
            taken, self.rejects = self.rejects, []
            for rejects in taken:
                self._on_rejects(rejects)


def _check_of(cancelled: Callable[[], bool] | None) -> Callable[[], None]:
    def check() -> None:
        if cancelled is not None and cancelled():
            raise Cancelled("reading of day blobs was cancelled")

    return check


def _unopened(path: str, folder: str, error: OSError | FormatError) -> FileOutcome:
    """The outcome of a day whose files cannot be opened."""
    if isinstance(error, FileNotFoundError):
        return FileOutcome(path, error=f"missing: no {os.path.basename(error.filename)}")
    if isinstance(error, FormatError):
        index = os.path.join(folder, INDEX_NAME)
        return FileOutcome(path, read_path=index, error=str(error))
    return FileOutcome(path, read_path=error.filename, error=os_reason(error))


def _outcome(
    month: Month, path: str, search: Search, totals: Int64Array, error: str | None
) -> FileOutcome:
    number = int(os.path.basename(path))
    rows = month.index.of_day(number)
    day = search.day
    damage, notes = [], []
    length = 0
    if day is not None:
        length = max(0, min(day.row.end, month.size) - day.row.offset)
        if day.damage:
            damage.append(day.damage)
        if len(search.passed) > (day.damage is not None):
            notes.append(f"passed over {'; '.join(search.passed)}")
    elif not rows and error is None:
        error = f"missing: {INDEX_NAME} has no row of day {number}"
        return FileOutcome(path, error=error)
    elif search.unknown:
        error = search.unknown
    elif error is None:
        damage.append(f"no blob of the day can be read: {'; '.join(search.passed)}")
    # Of a damaged index, the day that was written last tells.
    if month.index.damage and number == max(row.day for row in month.index.rows):
        damage.append(f"{INDEX_NAME}: {month.index.damage}")
    saturated = int(totals[loops.SATURATED])
    if saturated:
        rows_text = "1 row counts" if saturated == 1 else f"{saturated:,} rows count"
        most = f"{int(day.layout.places[loops.COUNT_MASK]):,}" if day is not None else ""
        notes.append(f"{rows_text} {most} trades or more, and was taken for that many")
    counts = totals[loops.REJECTED :].tolist()
    return FileOutcome(
        path=path,
        read_path=month.path,
        size=month.size,
        mtime_ns=month.mtime_ns,
        text_bytes=HEADER_BYTES + ROW_BYTES * day.rows if day is not None else 0,
        trades=int(totals[loops.TRADES]),
        rejected=tuple((r, n) for r, n in zip(loops.REASONS, counts, strict=True) if n),
        late=int(totals[loops.LATE]),
        first_late_ts=int(totals[loops.FIRST_LATE]) if totals[loops.LATE] else None,
        damage="; ".join(damage) or None,
        error=error,
        length=length,
        notes=tuple(notes),
    )
