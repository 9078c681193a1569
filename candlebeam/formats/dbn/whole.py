"""Whether a Databento file is whole, and which request it answers.

Source: Databento's description of its encoding: behind the metadata there are records, and the
first byte of each is its length in words of four bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from candlebeam.errors import FormatError
from candlebeam.formats.dbn.metadata import databento_dbn, read_head
from candlebeam.formats.dbn.stream import DbnStream

_READ_SIZE = 1 << 20
_WORD = 4
#: Records that are looked at together: nearly always they are all of one length.
_RUN = 1 << 12


@dataclass(frozen=True)
class DbnContents:
    """A whole file: the request it answers, as it says itself, and how many records it has.

    Attributes:
        dataset, schema, stype_in: as the API names them; "" where the file does not say.
        symbols: what was asked for.
        start, end: the range that was asked for, in ns; `end` is None if it was left open.
        limit: the most records that were asked for; None without such a limit.
        records: how many there are.
    """

    dataset: str
    schema: str
    stype_in: str
    symbols: tuple[str, ...]
    start: int
    end: int | None
    limit: int | None
    records: int


def check_dbn(path: str) -> DbnContents:
    """Reads a zstd-compressed Databento file to its end.

    Raises:
        FormatError: it is not whole: cut off, damaged, something else, or with a part of a record
            at its end. Offsets are those of the decompressed bytes.
        OSError: it cannot be read.
    """
    with DbnStream(path) as stream:
        if not stream.compressed:
            found = stream.read(_WORD)
            raise FormatError(path, "a zstd frame", repr(found) if found else "an empty file", 0)
        head_bytes = read_head(stream, path).head_bytes
        counter = _RecordCounter(path, head_bytes)
        while piece := stream.read(_READ_SIZE):
            counter.add(piece)
        if stream.damage:
            raise FormatError(path, "a whole Databento file", stream.damage)
        records = counter.finish()
    with DbnStream(path) as stream:
        metadata = databento_dbn().Metadata.decode(stream.read(head_bytes))
    return DbnContents(
        dataset=str(metadata.dataset),
        schema=str(metadata.schema or ""),
        stype_in=str(metadata.stype_in or ""),
        symbols=tuple(metadata.symbols),
        start=metadata.start,
        end=metadata.end,
        limit=metadata.limit,
        records=records,
    )


class _RecordCounter:
    """Counts records in bytes that come in pieces."""

    def __init__(self, path: str, offset: int) -> None:
        self._path = path
        self._offset = offset
        self._records = 0
        self._open = b""

    def add(self, piece: bytes) -> None:
        data = self._open + piece if self._open else piece
        at = 0
        while at < len(data):
            size = data[at] * _WORD
            if size == 0:
                raise FormatError(self._path, "the length of a record", "0", self._offset + at)
            whole = min((len(data) - at) // size, _RUN)
            lengths = np.frombuffer(data, np.uint8)[at::size][:whole]
            other = lengths != data[at]
            count = int(other.argmax()) if other.any() else len(lengths)
            if count == 0:
                break
            self._records += count
            at += count * size
        self._open = data[at:]
        self._offset += at

    def finish(self) -> int:
        if self._open:
            found = f"{len(self._open)} bytes of one"
            raise FormatError(self._path, "a whole record", found, self._offset)
        return self._records
