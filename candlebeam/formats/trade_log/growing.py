"""Trade logs that are written while they are read: what one has grown by since it was looked at.

A collector appends rows to `X`, and in the end turns it into `X.gz`. Only whole rows of a plain
file are taken: the last may be torn, and waits for its line feed. What is gzipped is complete: its
last row counts without one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from candlebeam.formats.trade_log.gzip_text import DamageError, text_pieces
from candlebeam.formats.trade_log.reader import TradeLogReader
from candlebeam.model import FileOutcome, InputFile, Market, TradeBatch

#: Bytes of a read.
_STEP = 1 << 16
#: Text that is gathered before it is read, in bytes, and trades of one batch: most reads are small.
_WINDOW = 1 << 16
_BATCH_TRADES = 1 << 13
#: Gzipped text is read so many times longer pieces: each begins at the file's start again.
_GZIP_FACTOR = 16
#: Bytes of text by which a file is known again.
CHECKED = 48


@dataclass(frozen=True)
class Growth:
    """What was read of a trade log.

    Attributes:
        trades: of the rows that are new, in their order; None without any.
        text_bytes: bytes of its text up to the end of the last whole row.
        check: the last `CHECKED` bytes of that, or fewer.
        is_whole: whether there is no more to come: it is gzipped, and was read to its end.
        is_cut: whether there was more to read.
        used: bytes of the file that stand for what was read of it so far: of a plain one those of
            its whole rows; of a gzipped one all, or 0 if there is more to read.
        is_other: whether what was read of it before is not in it; nothing of it was taken then.
        outcome: what became of what was read; `read_path` and `size` tell the file.
    """

    trades: TradeBatch | None
    text_bytes: int
    check: bytes
    is_whole: bool
    is_cut: bool
    used: int
    is_other: bool
    outcome: FileOutcome


def read_growth(
    market: Market,
    path: str,
    begin: int,
    *,
    most: int,
    check: bytes = b"",
    limit: int | None = None,
) -> Growth:
    """Reads what stands behind a place of a trade log's text.

    Args:
        market: whose trades they are.
        path: the file without `.gz`; its twin is read if it is gone.
        begin: bytes of text that were read before; the end of a row.
        most: bytes of text to read at most, or one row if that is longer; sixteen times as many
            of a gzipped file.
        check: what the text before `begin` has to end with; if it does not, the file is another
            one, nothing of it is taken, and the outcome says so.
        limit: a place in the text, the end of a row, not to read beyond.

    A file that cannot be read, or is damaged, is told in the outcome; what was read of it before
    that shows counts.
    """
    taken = _Taken(begin, most, check, limit)
    reader = TradeLogReader(
        market,
        [InputFile(path)],
        text=taken.pieces,
        batch_trades=_BATCH_TRADES,
        window=_WINDOW,
    )
    batches = list(reader)
    (outcome,) = reader.outcomes
    used = begin + outcome.text_bytes
    if taken.is_gzip:
        used = 0 if taken.is_cut or outcome.error else outcome.size
    return Growth(
        trades=TradeBatch.join(batches) if batches else None,
        text_bytes=begin + outcome.text_bytes,
        check=taken.check,
        is_whole=taken.is_gzip and not (taken.is_cut or outcome.error or outcome.damage),
        is_cut=taken.is_cut,
        used=used,
        is_other=taken.is_other,
        outcome=outcome,
    )


class _Taken:
    """The text behind a place, up to the end of a row.

    Attributes:
        is_gzip, is_cut, is_other: as in `Growth`.
        check: the end of what stands before the last line feed that was given, or before the place.
    """

    def __init__(self, begin: int, most: int, check: bytes, limit: int | None) -> None:
        self._begin, self._most = begin, most
        self._limit = _NO_LIMIT if limit is None else limit
        self.check = self._expected = check
        self.is_gzip = self.is_cut = self.is_other = False

    def pieces(self, descriptor: int, size: int, name: str) -> Iterator[bytes]:
        """As `gzip_text.text_pieces`."""
        # What it is shows in its first bytes; a file that is being made may not have any yet.
        magic = os.pread(descriptor, 2, 0)
        self.is_gzip = magic == b"\x1f\x8b" or (not magic and name.endswith(".gz"))
        whole = text_pieces(descriptor, size, name)
        given = self._behind(whole) if self.is_gzip else self._grown(descriptor, size)
        recent = self.check
        for piece in given:
            if cut := piece.rfind(b"\n") + 1:
                self.check = (recent + piece[max(cut - CHECKED, 0) : cut])[-CHECKED:]
            recent = (recent + piece[-CHECKED:])[-CHECKED:]
            yield piece

    def _behind(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """What of a whole text was not read before."""
        begin, limit, most = self._begin, self._limit, self._most * _GZIP_FACTOR
        end, before = 0, b""
        for piece in pieces:
            start, end = end, end + len(piece)
            if start < begin:
                before = (before + piece[: begin - start])[-CHECKED:]
                if end < begin:
                    continue
                self._compare(before)
            part = piece[max(begin - start, 0) : max(limit - start, 0)]
            cut = part.rfind(b"\n") + 1 if end - begin >= most else 0
            if part:
                yield part[:cut] if cut else part
            if cut or limit < end:
                self.is_cut = True
                return
        if end < begin:
            raise self._other(f"{end} bytes of text")

    def _grown(self, descriptor: int, size: int) -> Iterator[bytes]:
        """The whole rows that a plain file has got."""
        begin = self._begin
        if size < begin:
            raise self._other(f"{size} bytes")
        if self._expected:
            length = len(self._expected)
            self._compare(os.pread(descriptor, length, begin - length))
        region = min(size, self._limit, begin + self._most)
        end = _last_row_end(descriptor, begin, region)
        if end == begin and region < min(size, self._limit):
            end = _first_row_end(descriptor, region, size) or begin
            region = end if end > begin else size
        # Where no row ends there is nothing to come back for.
        self.is_cut = region < size and end > begin
        for place in range(begin, end, _STEP):
            piece = os.pread(descriptor, min(_STEP, end - place), place)
            if piece:
                yield piece

    def _compare(self, found: bytes) -> None:
        if self._expected and found[-len(self._expected) :] != self._expected:
            raise self._other("others")

    def _other(self, found: str) -> DamageError:
        self.is_other = True
        return DamageError(
            f"it is another file: expected the {self._begin} bytes of text that were read of it,"
            f" found {found}"
        )


_NO_LIMIT = 1 << 62


def _last_row_end(descriptor: int, begin: int, end: int) -> int:
    """The place behind the last line feed of a part of a file; its begin without any."""
    while end > begin:
        start = max(end - _STEP, begin)
        if cut := os.pread(descriptor, end - start, start).rfind(b"\n") + 1:
            return start + cut
        end = start
    return begin


def _first_row_end(descriptor: int, begin: int, end: int) -> int:
    """The place behind the first line feed of a part of a file; 0 without any."""
    for start in range(begin, end, _STEP):
        if cut := os.pread(descriptor, min(_STEP, end - start), start).find(b"\n") + 1:
            return start + cut
    return 0
