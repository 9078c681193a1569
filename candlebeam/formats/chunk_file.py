"""Chunks: the candles of one finished shard on disk, the checkpoint of a backfill.

A chunk is a fixed header, the summary of its shard as JSON, and records of `BLOCK_DTYPE`:

    magic "CBCHUNK2" | uint32 length of the summary | uint32 records | uint64 bytes read
    | uint64 trades | uint32 CRC-32 of summary, records and what is before it | summary | records

All little-endian. Chunks live only as long as the run that makes them (and those that resume it).
"""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np

from candlebeam.errors import FormatError
from candlebeam.model import BLOCK_DTYPE, FileOutcome, Records

MAGIC = b"CBCHUNK2"
_HEADER = struct.Struct("<8sIIQQ")
_CRC = struct.Struct("<I")


class ChunkHead(NamedTuple):
    """The part of a chunk that says how much work it stands for."""

    bytes_read: int
    trades: int


@dataclass(frozen=True)
class ChunkFile:
    """A chunk on disk, found to be whole.

    Attributes:
        path: where it stands.
        files: how reading each of its files went, in file order.
        offset: where its records begin, in bytes.
        length: how many they are.
    """

    path: str
    files: tuple[FileOutcome, ...]
    offset: int
    length: int

    def read(self, begin: int, end: int) -> Records:
        """Records of `BLOCK_DTYPE` from place `begin` to before `end`, ascending by time."""
        size = BLOCK_DTYPE.itemsize
        with open(self.path, "rb") as file:
            file.seek(self.offset + begin * size)
            return np.frombuffer(file.read((end - begin) * size), BLOCK_DTYPE)


def encode_chunk(files: Sequence[FileOutcome], candles: Records) -> bytes:
    """The bytes of a chunk; see `write_chunk`."""
    file = io.BytesIO()
    write_chunk(file, files, [candles])
    return file.getvalue()


class ChunkSink(Protocol):
    """What a chunk can be written into: a file, or what is like one."""

    def write(self, data: bytes, /) -> object: ...
    def seek(self, offset: int, /) -> object: ...


def write_chunk(file: ChunkSink, files: Sequence[FileOutcome], candles: Iterable[Records]) -> None:
    """Writes a chunk into an empty file.

    Args:
        files: how reading each file of the shard went, in file order.
        candles: records of `BLOCK_DTYPE` in pieces, strictly ascending by time over all of them.
    """
    summary = json.dumps([_outcome_to_json(outcome) for outcome in files]).encode()
    file.seek(HEAD_BYTES)
    file.write(summary)
    crc, records = zlib.crc32(summary), 0
    for piece in candles:
        data = piece.tobytes()
        file.write(data)
        crc = zlib.crc32(data, crc)
        records += len(piece)
    head = _HEADER.pack(
        MAGIC,
        len(summary),
        records,
        sum(outcome.bytes_read for outcome in files),
        sum(outcome.trades for outcome in files),
    )
    file.seek(0)
    file.write(head + _CRC.pack(zlib.crc32(head, crc)))


def decode_head(data: bytes, path: str) -> ChunkHead:
    """The head of a chunk from its first `HEAD_BYTES` bytes or more; raises `FormatError`."""
    if len(data) < HEAD_BYTES or data[: len(MAGIC)] != MAGIC:
        raise FormatError(path, f"a chunk that begins with {MAGIC!r}", repr(data[: len(MAGIC)]))
    _, _, _, bytes_read, trades = _HEADER.unpack_from(data)
    return ChunkHead(bytes_read, trades)


def open_chunk(path: str) -> ChunkFile:
    """Reads a chunk through once and checks that it is whole.

    Raises:
        FormatError: it is cut off, damaged or no chunk.
        FileNotFoundError: it is not there.
    """
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
        decode_head(head, path)
        _, summary_bytes, records, _, _ = _HEADER.unpack_from(head)
        (expected_crc,) = _CRC.unpack_from(head, _HEADER.size)
        expected = HEAD_BYTES + summary_bytes + records * BLOCK_DTYPE.itemsize
        size = os.fstat(file.fileno()).st_size
        if size != expected:
            raise FormatError(path, f"a chunk of {expected} bytes", f"{size}")
        summary = file.read(summary_bytes)
        crc = zlib.crc32(summary)
        while piece := file.read(_PIECE):
            crc = zlib.crc32(piece, crc)
        crc = zlib.crc32(head[: _HEADER.size], crc)
    if crc != expected_crc:
        raise FormatError(path, f"a chunk with checksum {expected_crc:08x}", f"{crc:08x}")
    files = tuple(_outcome_from_json(values) for values in json.loads(summary))
    return ChunkFile(path, files, HEAD_BYTES + summary_bytes, records)


#: The bytes of a chunk that `decode_head` wants.
HEAD_BYTES = _HEADER.size + _CRC.size
_DEFAULTS = vars(FileOutcome(""))
_PIECE = 1 << 20


def _outcome_to_json(outcome: FileOutcome) -> dict[str, object]:
    return {name: value for name, value in vars(outcome).items() if value != _DEFAULTS[name]}


def _outcome_from_json(values: dict[str, object]) -> FileOutcome:
    outcome = FileOutcome(**{"path": "", **values})  # type: ignore[arg-type]
    return replace(
        outcome,
        rejected=tuple((str(reason), int(n)) for reason, n in outcome.rejected),
        notes=tuple(outcome.notes),
    )
