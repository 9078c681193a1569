"""Trade logs: text files of `ts price size side [liquidation]` rows, plain or gzipped.

Reads the files of one market into `TradeBatch`es, at the speed of decompression or near it, and
says of every file what became of it. Bad rows are counted by reason, damaged files give every
whole row before the damage, and files that cannot be read do not stop the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import NamedTuple

import numpy as np

from candlebeam.errors import Cancelled, os_reason
from candlebeam.formats.decimal_numbers import WORD_PAD
from candlebeam.formats.trade_log import rows
from candlebeam.formats.trade_log.gzip_text import PIECE, DamageError, text_pieces
from candlebeam.model import (
    FileOutcome,
    Float64Array,
    InputFile,
    Int64Array,
    Market,
    TradeBatch,
    Uint8Array,
)
from candlebeam.storage import is_remote, open_input
from candlebeam.storage.ahead import asked_ahead

#: Text that is gathered before it is read, in bytes.
WINDOW = 1 << 19
#: Trades of a full batch.
BATCH_TRADES = 1 << 17
#: Bytes of a rejected row that are kept.
KEPT_OF_REJECT = 4096

#: Remote files that are fetched, or wait to be read, at the same time, and bytes of them.
_FETCHED_AT_ONCE = 16
_FETCHED_BYTES = 64 << 20

_TEXTS = 512
_REJECTS = 1024
_NOT_LATE = np.iinfo(np.int64).max
_NO_LIMIT = np.iinfo(np.int64).min


class RejectedRow(NamedTuple):
    """A row that is no trade.

    Attributes:
        line: its number in the file's text, from 1.
        reason: one of `trade_rows.REASONS`.
        raw: the row without its line end, at most `KEPT_OF_REJECT` bytes of it.
    """

    line: int
    reason: str
    raw: bytes


class FileRejects(NamedTuple):
    """Rejected rows of one file, in order.

    Attributes:
        path: the file that was asked for (`InputFile.path`).
        rows: the rows.
    """

    path: str
    rows: list[RejectedRow]


class _Opened(NamedTuple):
    descriptor: int  # -1 if it could not be opened
    read_path: str | None
    size: int
    mtime_ns: int
    error: str | None


class _File:
    """A file of which a text is in the buffer."""

    __slots__ = ("damage", "error", "head", "input", "opened")

    def __init__(self, file: InputFile, opened: _Opened) -> None:
        self.input = file
        self.opened = opened
        self.damage: str | None = None
        self.error = opened.error
        self.head = b""  # how a row begins that is too long for the buffer


def twin(path: str) -> str:
    """The path with `.gz` if it has none, else without.

    >>> twin("2021-01-08-00.gz")
    '2021-01-08-00'
    """
    return path[:-3] if path.endswith(".gz") else path + ".gz"


class TradeLogReader:
    """Reads the trade logs of one market, in the order given; iterate it, once.

    Args:
        market: whose trades they are; put into the batches.
        files: what to read. If a path is gone, its twin with or without `.gz` is read.
        from_ts: trades older than this (ms, UTC) are left out; those in text that an earlier run
            has not seen (`InputFile.seen`) are counted as late. None keeps all.
        keep_rejects: whether rejected rows are kept in `rejects`, and not only counted.
        batch_trades: trades of a full batch; the last one is shorter.
        window: bytes of text that are gathered before they are read.
        cancelled: asked for each window and each file; once it says True, iterating raises
            `candlebeam.errors.Cancelled`.
        on_rejects: called with rejected rows as they are found, instead of keeping them in
            `rejects`; a file's rows may come in several calls. Implies `keep_rejects`.
        text: gives the text of an open file, as `gzip_text.text_pieces` does, or a part of it.

    Attributes:
        outcomes: what became of each file, in order; complete once the iteration has ended.
        rejects: the rejected rows of each file that has any, in order, if they are kept. Between
            two batches the caller may take out what is there.

    Iterating yields `TradeBatch`es in file order whose arrays are the consumer's own.
    """

    def __init__(
        self,
        market: Market,
        files: Sequence[InputFile],
        *,
        from_ts: int | None = None,
        keep_rejects: bool = False,
        batch_trades: int = BATCH_TRADES,
        window: int = WINDOW,
        cancelled: Callable[[], bool] | None = None,
        on_rejects: Callable[[FileRejects], None] | None = None,
        text: Callable[[int, int, str], Iterator[bytes]] = text_pieces,
    ) -> None:
        if batch_trades < 1 or window < 1:
            raise ValueError(
                f"batch_trades {batch_trades} and window {window}: expected at least 1"
            )
        self.market = market
        self.outcomes: list[FileOutcome] = []
        self.rejects: list[FileRejects] = []
        self._inputs = files
        self._from_ts = _NO_LIMIT if from_ts is None else from_ts
        self._batch_trades = batch_trades
        self._window = window
        self._cancelled = cancelled
        self._on_rejects = on_rejects
        self._text = text
        self._buffer: Uint8Array = np.zeros(window + PIECE + WORD_PAD, np.uint8)
        self._view = self._buffer.data
        self._end = 0
        self._files: list[_File] = []  # whose texts are in the buffer
        self._texts: Int64Array = np.zeros((_TEXTS, rows.TEXT_COLUMNS), np.int64)
        noted = _REJECTS if keep_rejects or on_rejects else 0
        self._noted: Int64Array = np.zeros((noted, rows.REJECT_COLUMNS), np.int64)
        self._control: Int64Array = np.zeros(rows.CONTROL_SIZE, np.int64)
        self._answered: Int64Array = np.full(3, -1, np.int64)
        self._answers: Float64Array = np.zeros(3)
        self._new_columns()

    def __iter__(self) -> Iterator[TradeBatch]:
        with closing(_opened(self._inputs)) as opened:
            for file in self._inputs:
                yield from self._read_file(file, opened)
                if len(self._files) == _TEXTS:
                    yield from self._parse()
        yield from self._parse()
        if self._control[rows.FILLED]:
            yield self._take_batch()

    def _read_file(self, file: InputFile, inputs: Iterator[_Opened]) -> Iterator[TradeBatch]:
        self._check_cancelled()
        opened = next(inputs)
        current = _File(file, opened)
        self._files.append(current)
        index = len(self._files) - 1
        end = self._end
        # In the order of the columns, from POS to FIRST_LATE.
        self._texts[index] = 0
        self._texts[index, : rows.TRADES] = (
            end, end, end, -end, 0, rows.TAIL_WAITS, min(file.seen, _NOT_LATE), rows.SKIP_NONE
        )  # fmt: skip
        self._texts[index, rows.FIRST_LATE] = _NOT_LATE
        tail = rows.TAIL_IS_ROW
        if opened.descriptor >= 0:
            name = opened.read_path or file.path
            try:
                for piece in self._text(opened.descriptor, opened.size, name):
                    self._append(piece)
                    if self._end >= self._window:
                        self._texts[len(self._files) - 1, rows.END] = self._end
                        yield from self._parse()
            except DamageError as damage:
                current.damage = str(damage)
                tail = rows.TAIL_IS_TORN
            except OSError as error:
                current.error = os_reason(error)
                tail = rows.TAIL_IS_TORN
            finally:
                os.close(opened.descriptor)
        text = self._texts[len(self._files) - 1]
        text[rows.END] = self._end
        text[rows.TAIL] = tail

    def _append(self, piece: bytes) -> None:
        end = self._end + len(piece)
        if end + WORD_PAD > len(self._buffer):
            # A row that is longer than the window: at most MAX_ROW and two windows.
            grown = np.zeros(2 * end + WORD_PAD, np.uint8)
            grown[: self._end] = self._buffer[: self._end]
            self._buffer = grown
            self._view = grown.data
        self._view[self._end : end] = piece
        self._end = end

    def _parse(self) -> Iterator[TradeBatch]:
        """Reads what is in the buffer, and keeps of it what waits for more."""
        self._check_cancelled()
        control = self._control
        control[rows.TEXT] = 0
        while True:
            status = rows.parse_rows(
                self._buffer,
                self._texts,
                len(self._files),
                self._from_ts,
                self._ts,
                self._price,
                self._size,
                self._buy,
                self._liquidation,
                self._noted,
                control,
                self._answered,
                self._answers,
            )
            if status == rows.DONE:
                break
            if status == rows.COLUMNS_FULL:
                yield self._take_batch()
            elif status == rows.REJECTS_FULL:
                self._take_rejects()
            elif status == rows.ASK_NUMBER:
                start, end, field = control[rows.NUMBER_START :].tolist()
                self._answers[field] = float(self._view[start:end].tobytes())
                self._answered[field] = start
            else:
                start = int(self._texts[len(self._files) - 1, rows.POS])
                self._files[-1].head = self._view[start : start + KEPT_OF_REJECT].tobytes()
        if control[rows.NOTED]:
            self._take_rejects()
        self._close_texts()

    def _close_texts(self) -> None:
        files = self._files
        for file, text in zip(files, self._texts[: len(files)].tolist(), strict=True):
            if text[rows.TAIL] != rows.TAIL_WAITS:
                self.outcomes.append(_outcome(file, text))
        if not files or self._texts[len(files) - 1, rows.TAIL] != rows.TAIL_WAITS:
            self._files = []
            self._end = 0
            return
        # The last file goes on: its unfinished row moves to the front.
        text = self._texts[len(files) - 1]
        start, end = int(text[rows.POS]), self._end
        self._view[: end - start] = self._view[start:end]
        text[rows.POS] = 0
        text[rows.END] = self._end = end - start
        text[rows.SCANNED] = max(text[rows.SCANNED] - start, 0)
        text[rows.BASE] += start
        self._texts[0] = text
        self._files = [files[-1]]

    def _new_columns(self) -> None:
        count = self._batch_trades
        self._ts: Int64Array = np.empty(count, np.int64)
        self._price: Float64Array = np.empty(count)
        self._size: Float64Array = np.empty(count)
        self._buy: Uint8Array = np.empty(count, np.uint8)
        self._liquidation: Uint8Array = np.empty(count, np.uint8)
        self._control[rows.FILLED] = 0

    def _take_batch(self) -> TradeBatch:
        count = int(self._control[rows.FILLED])
        batch = TradeBatch(
            self.market, self._ts, self._price, self._size, self._buy, self._liquidation
        )
        if count == self._batch_trades:
            self._new_columns()
            return batch
        self._control[rows.FILLED] = 0
        # Copies, since views would keep the whole columns alive.
        return TradeBatch(
            self.market,
            batch.ts[:count].copy(),
            batch.price[:count].copy(),
            batch.size[:count].copy(),
            batch.buy[:count].copy(),
            batch.liquidation[:count].copy(),
        )

    def _take_rejects(self) -> None:
        count = int(self._control[rows.NOTED])
        for index, line, reason, start, end in self._noted[:count].tolist():
            file = self._files[index]
            end = min(end, start + KEPT_OF_REJECT)
            raw = file.head if start < 0 else self._view[start:end].tobytes()
            if not self.rejects or self.rejects[-1].path != file.input.path:
                self.rejects.append(FileRejects(file.input.path, []))
            self.rejects[-1].rows.append(RejectedRow(line, rows.REASONS[reason], raw))
        self._control[rows.NOTED] = 0
        if self._on_rejects is not None:
            taken, self.rejects = self.rejects, []
            for found in taken:
                self._on_rejects(found)

    def _check_cancelled(self) -> None:
        if self._cancelled is not None and self._cancelled():
            raise Cancelled("reading of trade logs was cancelled")


def _opened(files: Sequence[InputFile]) -> Generator[_Opened, None, None]:
    """Files in order, opened as they are asked for; remote ones are fetched some time before."""
    if not files or not is_remote(files[0].path):
        return (_open(file.path) for file in files)
    return asked_ahead(
        lambda file: _open(file.path),
        files,
        at_once=_FETCHED_AT_ONCE,
        size=lambda file: file.size,
        most=_FETCHED_BYTES,
        drop=lambda opened: os.close(opened.descriptor) if opened.descriptor >= 0 else None,
    )


def _open(path: str) -> _Opened:
    """Opens the file or its twin; a failure is told in `error`."""
    candidate = path
    try:
        try:
            opened = open_input(candidate)
        except FileNotFoundError:
            candidate = twin(path)
            opened = open_input(candidate)
    except FileNotFoundError:
        return _Opened(-1, None, 0, 0, f"missing: neither it nor {os.path.basename(candidate)}")
    except OSError as error:
        return _Opened(-1, candidate, 0, 0, os_reason(error))
    return _Opened(opened.descriptor, candidate, opened.size, opened.mtime_ns, None)


def _outcome(file: _File, text: list[int]) -> FileOutcome:
    counts = text[rows.REJECTED :]
    rejected: tuple[tuple[str, int], ...] = ()
    if any(counts):
        rejected = tuple((r, n) for r, n in zip(rows.REASONS, counts, strict=True) if n)
    opened = file.opened
    return FileOutcome(
        path=file.input.path,
        read_path=opened.read_path,
        size=opened.size,
        mtime_ns=opened.mtime_ns,
        text_bytes=text[rows.TEXT_BYTES],
        trades=text[rows.TRADES],
        rejected=rejected,
        late=text[rows.LATE],
        first_late_ts=text[rows.FIRST_LATE] if text[rows.LATE] else None,
        damage=file.damage,
        error=file.error,
    )
