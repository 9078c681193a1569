"""Day blobs: a header and rows of 48 bytes, compressed; and what can be read of a damaged one.

    AGG2 header   `<4sBBHQqq16x`: magic, version, day, reserved, rows, first and last time in ms
    AGG2 row      `<QQQQHHqB3x`: trade id, price, quantity, first id, count, flags, ms, side
    AGG3 row      `<QQQQIHq2x`: trade id, price, quantity, first id, count, flags, ms

Prices and quantities are times 1e8. Bit 0 of the flags says that the buyer was the maker.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from candlebeam.errors import CandlebeamError
from candlebeam.formats.agg2.index import IndexRow
from candlebeam.model import Int64Array, Uint8Array

MAGIC = b"AGG2"
MAGIC_3 = b"AGG3"
VERSION = 1
HEADER = struct.Struct("<4sBBHQqq16s")
HEADER_BYTES = 48
ROW_BYTES = 48
#: Prices and quantities are stored times this.
SCALE = 100_000_000
FLAG_IS_BUYER_MAKER = 1
#: The greatest count that an AGG2 row holds; it stands for that many or more.
MAX_COUNT = 65_535
#: Stands first in the padding of headers of who does not truncate numbers.
EXACT_MARK = b"exact\0\0\0"

# The padding is a field, since numpy drops it, or leaves it unset, where it is none.
AGG2_ROW_DTYPE = np.dtype(
    [
        ("trade_id", "<u8"),
        ("px", "<u8"),
        ("qty", "<u8"),
        ("first_id", "<u8"),
        ("count", "<u2"),
        ("flags", "<u2"),
        ("ts_ms", "<i8"),
        ("side", "u1"),
        ("padding", "V3"),
    ]
)
AGG3_ROW_DTYPE = np.dtype(
    [
        ("trade_id", "<u8"),
        ("px", "<u8"),
        ("qty", "<u8"),
        ("first_id", "<u8"),
        ("count", "<u4"),
        ("flags", "<u2"),
        ("ts_ms", "<i8"),
        ("padding", "V2"),
    ]
)

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_INPUT = 1 << 16
_NOWHERE = 1 << 80
#: Bytes that are given to a decompressor at a time to find damage, coarse to fine.
_STEPS = (1 << 16, 1 << 9, 1)


class Layout(NamedTuple):
    """A kind of day blob.

    Attributes:
        name: its magic.
        dtype: of its rows.
        places: where things stand in a row, for the kernels: see `kernels`.
    """

    name: str
    dtype: np.dtype[np.void]
    places: Int64Array


LAYOUTS = {
    MAGIC: Layout("AGG2", AGG2_ROW_DTYPE, np.array([0xFFFF, 16, 32, 0xFF], np.int64)),
    MAGIC_3: Layout("AGG3", AGG3_ROW_DTYPE, np.array([0xFFFF_FFFF, 32, 48, 0], np.int64)),
}


class Header(NamedTuple):
    """The header of a day blob.

    Attributes:
        row_count: rows behind it.
        ts_min, ts_max: ms; the writers let them cover rows that they have dropped.
        padding: EXACT_MARK and zeros, or whatever the writer left there.
    """

    magic: bytes
    version: int
    day: int
    reserved: int
    row_count: int
    ts_min: int
    ts_max: int
    padding: bytes = bytes(16)

    @property
    def exact(self) -> bool:
        """Whether the writer says that it has not truncated numbers."""
        return self.padding.startswith(EXACT_MARK)

    @property
    def size(self) -> int:
        """Bytes of the whole blob, uncompressed."""
        return HEADER_BYTES + ROW_BYTES * self.row_count

    def encode(self) -> bytes:
        return HEADER.pack(*self)


class BlobError(CandlebeamError):
    """A blob that is not whole; the message says why, without the file's name."""


class UnknownBlobError(BlobError):
    """A blob that is sound, but of a kind that is not known."""


def check_header(data: bytes, day: int) -> Header:
    """The header of a blob, which must be of a known kind and of that day.

    Raises:
        BlobError: it is not.
    """
    if len(data) < HEADER_BYTES:
        raise BlobError(f"expected a header of {HEADER_BYTES} bytes, found {len(data)}")
    header = Header(*HEADER.unpack(data))
    if header.magic not in LAYOUTS:
        kind = UnknownBlobError if header.magic.isalnum() else BlobError
        raise kind(f"expected magic AGG2 or AGG3, found {header.magic!r}")
    if header.version != VERSION:
        name = header.magic.decode()
        raise UnknownBlobError(f"expected {name} version {VERSION}, found {header.version}")
    if header.day != day:
        raise BlobError(f"expected a blob of day {day}, found one of day {header.day}")
    return header


class _Range:
    """A part of an open file as a stream."""

    def __init__(self, descriptor: int, offset: int, length: int) -> None:
        self._descriptor = descriptor
        self.place = offset
        self._end = offset + length

    def read(self, size: int = -1) -> bytes:
        left = self._end - self.place
        data = os.pread(self._descriptor, left if size < 0 else min(size, left), self.place)
        self.place += len(data)
        return data


class Unpacked(Protocol):
    """The bytes of a blob, from its start."""

    def readinto(self, buffer: Uint8Array) -> int:
        """Fills the buffer, or as much of it as there are bytes left.

        Raises:
            BlobError: the blob is damaged.
        """
        ...


class _Zstd:
    def __init__(self, descriptor: int, row: IndexRow) -> None:
        import zstandard

        self._error = zstandard.ZstdError
        # The reader would go on behind the frame, and does not tell if it is cut off.
        end = _frame_end(lambda at, size: os.pread(descriptor, size, at), row.offset)
        if end > row.end:
            raise BlobError(f"the zstd frame is cut off at byte {row.end}")
        source: Any = _Range(descriptor, row.offset, end - row.offset)
        self._reader = zstandard.ZstdDecompressor().stream_reader(source, read_size=_INPUT)

    def readinto(self, buffer: Uint8Array) -> int:
        at = 0
        try:
            while at < len(buffer):
                done = self._reader.readinto(buffer[at:].data)
                if done == 0:
                    break
                at += done
        except self._error as error:
            raise BlobError(f"the zstd frame is damaged: {_reason(error)}") from None
        return at


class _Zlib:
    def __init__(self, descriptor: int, row: IndexRow) -> None:
        self._source = _Range(descriptor, row.offset, row.length)
        self._inflater = zlib.decompressobj()

    def readinto(self, buffer: Uint8Array) -> int:
        at = 0
        view = buffer.data
        try:
            while at < len(buffer) and not self._inflater.eof:
                data = self._inflater.unconsumed_tail or self._source.read(_INPUT)
                if not data:
                    raise BlobError(f"the zlib stream is cut off at byte {self._source.place}")
                piece = self._inflater.decompress(data, len(buffer) - at)
                view[at : at + len(piece)] = piece
                at += len(piece)
        except zlib.error as error:
            raise BlobError(f"the zlib stream is damaged: {_reason(error)}") from None
        return at


def _kind(descriptor: int, row: IndexRow) -> str:
    """How a blob is compressed, by its first bytes."""
    head = os.pread(descriptor, min(4, row.length), row.offset)
    if head == _ZSTD_MAGIC:
        return "zstd frame"
    if len(head) > 1 and head[0] & 15 == 8 and int.from_bytes(head[:2], "big") % 31 == 0:
        return "zlib stream"
    found = head.hex(" ") or "nothing"
    raise BlobError(f"expected a zstd frame or a zlib stream at byte {row.offset}, found {found}")


def unpacked(descriptor: int, row: IndexRow) -> Unpacked:
    """The bytes of a blob.

    Args:
        descriptor: of the data file.
        row: where in it.

    Raises:
        BlobError: these bytes are compressed in no known way.
        OSError: the file cannot be read.
    """
    if _kind(descriptor, row) == "zstd frame":
        return _Zstd(descriptor, row)
    return _Zlib(descriptor, row)


def _frame_end(read: Callable[[int, int], bytes], offset: int) -> int:
    """Where a zstd frame ends that begins at `offset`; beyond the file if that cannot be told.

    A frame is a header, blocks of a 3-byte head and content each, and maybe a checksum
    (RFC 8878, section 3.1.1).
    """
    import zstandard

    head = read(offset, 18)
    checksum = 4 if len(head) > 4 and head[4] & 4 else 0
    try:
        at = offset + int(zstandard.frame_header_size(head))
    except zstandard.ZstdError:
        return _NOWHERE
    while True:
        block = read(at, 3)
        if len(block) < 3:
            return _NOWHERE
        fields = int.from_bytes(block, "little")
        last, kind, size = fields & 1, fields >> 1 & 3, fields >> 3
        at += 3 + (1 if kind == 1 else size)
        if last:
            return at + checksum


class Salvage:
    """The bytes of a damaged blob up to the damage, from its start.

    Attributes:
        damage: what is wrong with it and where; None until all is read, and if nothing is.
    """

    def __init__(self, descriptor: int, row: IndexRow) -> None:
        self.damage: str | None = None
        self._kind = _kind(descriptor, row)
        self._descriptor = descriptor
        self._row = row
        self._rest = b""
        self._pieces = self._read()

    def readinto(self, buffer: Uint8Array) -> int:
        """As `Unpacked`, but damage is only told in `damage`."""
        at = 0
        view = buffer.data
        while at < len(buffer):
            if not self._rest:
                self._rest = next(self._pieces, b"")
                if not self._rest:
                    break
            piece = self._rest[: len(buffer) - at]
            self._rest = self._rest[len(piece) :]
            view[at : at + len(piece)] = piece
            at += len(piece)
        return at

    def _new(self) -> tuple[Any, type[Exception]]:
        if self._kind == "zlib stream":
            return zlib.decompressobj(), zlib.error
        import zstandard

        return zstandard.ZstdDecompressor().decompressobj(), zstandard.ZstdError

    def _read(self) -> Iterator[bytes]:
        """Reads up to the step that holds the damage, then again in smaller steps from there."""
        delivered = sound = 0
        for step in _STEPS:
            unpacker, error_type = self._new()
            source = _Range(self._descriptor, self._row.offset, self._row.length)
            produced = at = 0
            try:
                while not unpacker.eof:
                    size = min(_STEPS[0], sound - at) if at < sound else step
                    data = source.read(size)
                    if not data:
                        self.damage = f"the {self._kind} is cut off at byte {source.place}"
                        return
                    piece = unpacker.decompress(data)
                    at += len(data)
                    produced += len(piece)
                    if produced > delivered:
                        new = piece[len(piece) - (produced - delivered) :]
                        delivered = produced
                        yield new
                return
            except error_type as error:
                sound = at
                place = self._row.offset + at
                self.damage = f"the {self._kind} is damaged at byte {place}: {_reason(error)}"


def _reason(error: Exception) -> str:
    """What a library says, without what it was doing."""
    text = str(error)
    return text.rpartition(": ")[2] or text
