"""The text of a plain or gzipped file in pieces, down to the last byte before any damage.

ISA-L does the work, as it inflates about twice as fast as zlib. It may keep back or lose bytes it
has already decoded when it meets damage, so zlib then goes over that member again, in steps.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from typing import Any

from isal import igzip_lib

#: Bytes of a read, and of the longest piece.
PIECE = 1 << 16
# Bytes that zlib is given at once: the text they can hold is a thousand times that.
_STEP = 1 << 10

_ISAL_ERROR: Any = igzip_lib.error  # its stub does not say that it is a class
_MAGIC = b"\x1f\x8b"
_HEADER_FLAGS = 3  # the place of FLG in a member (RFC 1952)
_FHCRC_OR_RESERVED = 0b1110_0010


class DamageError(Exception):
    """The text ends here though the file is not sound; the message says why and where."""


class _Source:
    """A file read forward, from which bytes can be handed back."""

    def __init__(self, descriptor: int, size: int) -> None:
        self.descriptor = descriptor
        self.size = size
        self.offset = 0  # of the file's next byte that `read` gives
        self.whole = False  # whether the end of the file was met
        self.pending = b""

    def read(self) -> bytes:
        """The next bytes, at most PIECE of them; empty at the end."""
        data = self.pending
        if data:
            self.pending = b""
        elif not self.whole:
            data = os.read(self.descriptor, PIECE)
            # A short read that reaches the known size saves the one that would find the end.
            end = os.lseek(self.descriptor, 0, os.SEEK_CUR) if len(data) < PIECE else 0
            self.whole = not data or end >= self.size
        self.offset += len(data)
        return data

    def unread(self, data: bytes) -> None:
        """Hands back the last bytes that were read."""
        self.pending = data + self.pending
        self.offset -= len(data)

    def rewind(self, offset: int) -> None:
        os.lseek(self.descriptor, offset, os.SEEK_SET)
        self.offset = offset
        self.whole = False
        self.pending = b""


def text_pieces(descriptor: int, size: int, name: str) -> Iterator[bytes]:
    """The text of an open file: its bytes, or what its gzip members hold, one after the other.

    What the file is shows in its first bytes, not in its name.

    Args:
        descriptor: of a regular file, at its start; stays open.
        size: its size in bytes as far as known.
        name: its name, for which an empty file may be a gzip file without anything.

    Yields:
        Pieces of 1 to PIECE bytes.

    Raises:
        DamageError: after the last piece, where the file is cut, damaged, or followed by other
            bytes than zeros.
        OSError: the file cannot be read.
    """
    source = _Source(descriptor, size)
    head = source.read()
    if len(head) == 1:
        head += source.read()
    if not head and name.endswith(".gz"):
        raise DamageError("empty: no gzip header")
    if not head.startswith(_MAGIC):
        while head:
            yield head
            head = source.read()
        return
    source.unread(head)
    delivered = 0
    while True:
        member_start = source.offset
        from_member = 0
        for piece in _member(source):
            if piece is None:
                for rest in _salvaged(source, member_start, from_member, delivered):
                    delivered += len(rest)
                    yield rest
                break
            from_member += len(piece)
            delivered += len(piece)
            yield piece
        if not _next_member(source):
            return


def _member(source: _Source) -> Iterator[bytes | None]:
    """One member's text; None, last, where ISA-L could not come to its end."""
    data = source.read()
    # ISA-L does not check these parts of a header.
    if len(data) <= _HEADER_FLAGS or data[_HEADER_FLAGS] & _FHCRC_OR_RESERVED:
        yield None
        return
    inflater = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    # A piece is held back until the next one is there: ISA-L finds some damage late.
    held = b""
    while True:
        try:
            piece = inflater.decompress(data, PIECE)
        except _ISAL_ERROR:
            yield None
            return
        if held:
            yield held
        held = piece
        if inflater.eof:
            if held:
                yield held
            source.unread(inflater.unused_data)
            return
        waits = inflater.needs_input
        data = source.read() if waits else b""
        if not data and (waits or not piece):
            yield None
            return


def _salvaged(source: _Source, start: int, skip: int, delivered: int) -> Iterator[bytes]:
    """The text of the member at `start` behind its first `skip` bytes, as far as zlib can read it.

    Raises DamageError where it ends too early; else the source stands behind the member.
    """
    source.rewind(start)
    inflater = zlib.decompressobj(wbits=31)
    reason = "cut off"
    while reason == "cut off" and (data := source.read()):
        for at in range(0, len(data), _STEP):
            step = data[at : at + _STEP]
            before = inflater.copy()
            try:
                text = inflater.decompress(step)
            except zlib.error as error:
                text, consumed = _up_to_damage(before, step)
                source.unread(data[at + consumed :])
                reason = str(error).partition(": ")[2] or str(error)
            for place in range(skip, len(text), PIECE):
                piece = text[place : place + PIECE]
                delivered += len(piece)
                yield piece
            skip = max(skip - len(text), 0)
            if inflater.eof:
                source.unread(inflater.unused_data + data[at + _STEP :])
                return
            if reason != "cut off":
                break
    raise DamageError(
        f"gzip damaged at byte {source.offset}, after {delivered} bytes of text: {reason}"
    )


def _up_to_damage(inflater: Any, data: bytes) -> tuple[bytes, int]:
    """What can be decoded of `data`, which holds damage, and how many of its bytes are sound."""
    text = bytearray()
    for at in range(len(data)):
        before = inflater.copy()
        try:
            text += inflater.decompress(data[at : at + 1])
        except zlib.error:
            text += _sound_symbols(before, data[at])
            return bytes(text), at
    return bytes(text), len(data)


def _sound_symbols(inflater: Any, byte: int) -> bytes:
    """What the symbols give that end in `byte`, before the bad one that ends in it as well."""
    text = b""
    stepping = inflater.copy()
    rest = bytes([byte])
    try:
        while piece := stepping.decompress(rest, 1):
            text += piece
            rest = stepping.unconsumed_tail
        return text
    except zlib.error as error:
        if "invalid block type" not in str(error):
            return text
    # One more byte may be lost: zlib goes from a literal over the end of its block into the header
    # of the next one before it returns. The last bit it has looked at makes that type invalid;
    # with that bit turned, it gets away from there.
    for bit in reversed(range(8)):
        try:
            longer: bytes = inflater.copy().decompress(bytes([byte ^ 1 << bit]), len(text) + 1)
            return longer
        except zlib.error:
            continue
    return text


def _next_member(source: _Source) -> bool:
    """Whether another member follows; the source then stands at it. Zeros before it are skipped."""
    while data := source.read():
        start = source.offset - len(data)
        rest = data.lstrip(b"\0")
        if not rest:
            continue
        start += len(data) - len(rest)
        if len(rest) == 1:
            rest += source.read()
        if not rest.startswith(_MAGIC):
            raise DamageError(f"trailing bytes at byte {start}: no gzip member")
        source.unread(rest)
        return True
    return False
