"""Binance's own aggTrades files: CSV, or a zip (or gzip) of one, spot and futures.

    spot      id, price, quantity, first id, last id, time, buyer is maker, best match
    futures   the same without the last

A file may begin with a header in any of the usual spellings; without one the columns stand as
above. Times are milliseconds or microseconds. Numbers are taken from their text exactly, times 1e8.
"""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import IO, NamedTuple

import numpy as np

from candlebeam.errors import FormatError
from candlebeam.formats.agg2 import binance_kernels as loops
from candlebeam.formats.agg2.blob import AGG2_ROW_DTYPE, FLAG_IS_BUYER_MAKER, MAX_COUNT, SCALE
from candlebeam.formats.agg2.kernels import MAX_MICROSECONDS, MIN_MICROSECONDS, WORDS
from candlebeam.formats.trade_log.gzip_text import DamageError, text_pieces
from candlebeam.formats.trade_log.usual_rows import MAX_TS, MIN_TS
from candlebeam.model import Int64Array, Records, Uint8Array

#: Text that is read at a time, in bytes; no row is longer.
WINDOW = 1 << 20
#: Rows of a full batch.
BATCH_ROWS = 1 << 16
#: Rejected rows that are kept of a file; the others are only counted.
KEPT_REJECTS = 1_000

#: Why a row is rejected, in the order of the checks; a row's first failure counts.
REASONS = (
    "length", "fields", "id", "price", "size", "first id", "last id", "timestamp", "side", "count",
)  # fmt: skip

#: Header names, in lower case and without underscores, by field.
_SPELLINGS = {
    loops.ID: {"aggtradeid", "id", "tradeid", "a"},
    loops.PRICE: {"price", "p"},
    loops.QUANTITY: {"quantity", "qty", "q"},
    loops.FIRST: {"firsttradeid", "firstid", "first", "f"},
    loops.LAST: {"lasttradeid", "lastid", "last", "l"},
    loops.TIME: {"transacttime", "timestamp", "time", "t"},
    loops.MAKER: {"isbuyermaker", "wasthebuyerthemaker", "buyermaker", "m"},
}
_NAME = re.compile(r"[A-Za-z][A-Za-z_ ]*")
_ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
_GZIP_MAGIC = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_MAX_VALUE = (1 << 64) - 1
_KEPT_OF_ROW = 200


class RejectedLine(NamedTuple):
    """A row that cannot be taken.

    Attributes:
        line: its number in the file's text, from 1.
        reason: one of `REASONS`.
        found: what it says in that place, at most some 200 characters.
    """

    line: int
    reason: str
    found: str


class _NotTaken(Exception):
    def __init__(self, reason: str, found: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.found = found


class BinanceTrades:
    """Reads one file; iterate it, once.

    Args:
        path: of a CSV file, or of a zip or gzip file of one.
        batch_rows: rows of a full batch.
        window: bytes of text that are read at a time.

    Attributes:
        rows: how many were taken.
        rejected: how many were not, by reason.
        rejects: the first of these.

    Iterating yields records of `AGG2_ROW_DTYPE` in file order, which are the consumer's own. What
    is compressed is read through once before, so that nothing is taken of a damaged file.

    Raises:
        FormatError: while iterating: the file is damaged, or its header lacks a column.
        OSError: it cannot be read.
    """

    def __init__(self, path: str, *, batch_rows: int = BATCH_ROWS, window: int = WINDOW) -> None:
        self.path = path
        self.rows = 0
        self.rejected: dict[str, int] = {}
        self.rejects: list[RejectedLine] = []
        self._batch_rows = batch_rows
        self._window = window
        self._header = b""

    def __iter__(self) -> Iterator[Records]:
        control: Int64Array = np.zeros(loops.CONTROL_SIZE, np.int64)
        columns: Int64Array | None = None
        words = self._new_words()
        skipping = False
        for text in _lines(_pieces(self.path), self._window):
            if skipping:
                end = text.find(b"\n") + 1
                skipping = end == 0
                control[loops.LINES] += not skipping
                text = text[end:]
            elif text[-1:] != b"\n":
                skipping = True
                self._reject(int(control[loops.LINES]) + 1, "length", text)
            if skipping or not text:
                continue
            control[loops.POS] = 0
            if columns is None:
                columns = self._columns(text, control)
            buffer: Uint8Array = np.frombuffer(bytearray(text), np.uint8)
            while True:
                status = loops.read_rows(buffer, len(text), columns, words, control)
                if status == loops.TEXT_USED:
                    break
                if status == loops.ROWS_FULL:
                    yield self._taken(words, control)
                    words = self._new_words()
                else:
                    self._read_other_row(text, columns, words, control)
        if control[loops.FILLED]:
            yield self._taken(words, control).copy()

    def _new_words(self) -> Int64Array:
        return np.empty(self._batch_rows * WORDS, np.int64)

    def _taken(self, words: Int64Array, control: Int64Array) -> Records:
        count = int(control[loops.FILLED])
        control[loops.FILLED] = 0
        self.rows += count
        return words[: count * WORDS].view(AGG2_ROW_DTYPE)

    def _reject(self, line: int, reason: str, found: bytes | str) -> None:
        self.rejected[reason] = self.rejected.get(reason, 0) + 1
        if len(self.rejects) < KEPT_REJECTS:
            text = found if isinstance(found, str) else found.decode(errors="replace").rstrip("\n")
            self.rejects.append(RejectedLine(line, reason, text[:_KEPT_OF_ROW]))

    def _columns(self, text: bytes, control: Int64Array) -> Int64Array:
        """What the columns are, by the first line that says anything; a header is skipped."""
        if text.startswith(_BOM):
            control[loops.POS] = len(_BOM)
        pos = int(control[loops.POS])
        first = text[pos : text.index(b"\n", pos) + 1]
        names = [_unquoted(field) for field in first.decode(errors="replace").split(",")]
        if not _NAME.fullmatch(names[0]):
            usual = [*range(len(loops.FIELDS)), loops.IGNORED]
            counts = (line.count(b",") + 1 for line in text[pos:].splitlines())
            count = next((n for n in counts if n in (len(usual) - 1, len(usual))), len(usual))
            return np.array(usual[:count], np.int64)
        control[loops.POS] = pos + len(first)
        control[loops.LINES] += 1
        self._header = first
        fields = [_field(name) for name in names]
        missing = [name for n, name in enumerate(loops.FIELDS) if n not in fields]
        twice = [name for n, name in enumerate(loops.FIELDS) if fields.count(n) > 1]
        if missing or twice:
            expected = f"one column each of {', '.join(loops.FIELDS)}"
            raise FormatError(self.path, expected, f"a header of {', '.join(names)}", pos)
        return np.array(fields, np.int64)

    def _read_other_row(
        self, text: bytes, columns: Int64Array, words: Int64Array, control: Int64Array
    ) -> None:
        """Reads a row by the full rules."""
        pos = int(control[loops.POS])
        end = text.index(b"\n", pos) + 1
        line = text[pos:end]
        control[loops.POS] = end
        control[loops.LINES] += 1
        if not line.strip() or line == self._header:
            return
        filled = int(control[loops.FILLED])
        try:
            row = _row(line.decode(errors="replace"), columns.tolist())
        except _NotTaken as error:
            self._reject(int(control[loops.LINES]), error.reason, error.found)
            return
        words[WORDS * filled : WORDS * (filled + 1)].view(AGG2_ROW_DTYPE)[0] = row
        control[loops.FILLED] += 1


def _row(line: str, columns: list[int]) -> tuple[int | bytes, ...]:
    """A row of any shape, as the fields of a record.

    Raises:
        _NotTaken: it cannot be taken.
    """
    texts = [_unquoted(text) for text in line.rstrip("\r\n").split(",")]
    if len(texts) != len(columns):
        raise _NotTaken("fields", f"{len(texts)} fields: {line.strip()}")
    by_field = {field: text for field, text in zip(columns, texts, strict=True) if field >= 0}
    trade_id = _integer(by_field[loops.ID], "id")
    price = _number(by_field[loops.PRICE], "price")
    if price == 0:
        raise _NotTaken("price", by_field[loops.PRICE])
    size = _number(by_field[loops.QUANTITY], "size")
    first = _integer(by_field[loops.FIRST], "first id")
    last = _integer(by_field[loops.LAST], "last id")
    ts = _integer(by_field[loops.TIME], "timestamp")
    if MIN_MICROSECONDS < ts < MAX_MICROSECONDS:
        ts //= 1000
    if not MIN_TS < ts < MAX_TS:
        raise _NotTaken("timestamp", by_field[loops.TIME])
    truth = by_field[loops.MAKER].lower()
    if truth not in ("true", "1", "false", "0"):
        raise _NotTaken("side", by_field[loops.MAKER])
    maker = truth in ("true", "1")
    count = last - first + 1
    if count < 0:
        raise _NotTaken("count", f"first id {first}, last id {last}")
    flags = FLAG_IS_BUYER_MAKER if maker else 0
    return trade_id, price, size, first, min(count, MAX_COUNT), flags, ts, int(not maker), b""


def _integer(text: str, reason: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 20 or int(text) > _MAX_VALUE:
        raise _NotTaken(reason, text)
    return int(text)


def _number(text: str, reason: str) -> int:
    """A decimal number times 1e8, exactly."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise _NotTaken(reason, text) from None
    # Exponents without end would make numbers without end.
    plain = text.isascii() and "_" not in text
    if not plain or not number.is_finite() or abs(number.adjusted()) > 100:
        raise _NotTaken(reason, text)
    scaled = Fraction(number) * SCALE
    if scaled.denominator != 1 or not 0 <= scaled <= _MAX_VALUE:
        raise _NotTaken(reason, text)
    return int(scaled)


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] == '"' else text


def _field(name: str) -> int:
    if name == "M":  # best match, beside m
        return loops.IGNORED
    plain = name.lower().replace("_", "").replace(" ", "")
    return next((f for f, names in _SPELLINGS.items() if plain in names), loops.IGNORED)


def _lines(pieces: Iterator[bytes], window: int) -> Iterator[bytes]:
    """The text in parts that end with a line; or longer than the window, in the midst of one.

    A last line without an end gets one.
    """
    rest = b""
    for piece in pieces:
        rest += piece
        if len(rest) < window:
            continue
        end = rest.rfind(b"\n") + 1 or len(rest)
        yield rest[:end]
        rest = rest[end:]
    if rest:
        yield rest if rest.endswith(b"\n") else rest + b"\n"


def _pieces(path: str) -> Iterator[bytes]:
    """The text of a file in pieces.

    Raises:
        FormatError: it is damaged, or a zip without one CSV file in it.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(4)
        file.seek(0)
        if head in _ZIP_MAGIC:
            yield from _zip_pieces(file, path)
            return
        size = os.fstat(file.fileno()).st_size
        try:
            for check in (True, False) if head[:2] == _GZIP_MAGIC else (False,):
                os.lseek(file.fileno(), 0, os.SEEK_SET)
                for piece in text_pieces(file.fileno(), size, path):
                    if not check:
                        yield piece
        except DamageError as error:
            raise FormatError(path, "a whole gzip file", str(error)) from None


def _zip_pieces(file: IO[bytes], path: str) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(file) as archive:
            names = [
                info
                for info in archive.infolist()
                if info.filename.lower().endswith(".csv")
                and not info.filename.startswith("__MACOSX/")
            ]
            if len(names) != 1:
                found = ", ".join(info.filename for info in names) or "none"
                raise FormatError(path, "a zip of one CSV file", found)
            # Once through to its checksum, before anything of it counts.
            for check in (True, False):
                with archive.open(names[0]) as member:
                    while piece := member.read(WINDOW):
                        if not check:
                            yield piece
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise FormatError(path, "a whole zip file", str(error) or type(error).__name__) from None
