"""The bytes of a Databento file, plain or zstd, down to the last one before any damage."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from candlebeam.errors import os_reason
from candlebeam.storage import open_input

if TYPE_CHECKING:
    import zstandard

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_SKIPPABLE_MAGIC = range(0x184D2A50, 0x184D2A60)
_READ = 1 << 20
# Bytes that are decompressed at once where there is damage: they can hold 50,000 times as many.
_STEP = 1 << 10
# No frame header is longer (RFC 8878).
_FRAME_HEADER = 18
_RLE_BLOCK, _RESERVED_BLOCK = 1, 3


class DbnStream:
    """A file read forward; use it as a context.

    Args:
        path: a regular file.

    Attributes:
        size, mtime_ns: of the file when it was opened.
        compressed: whether it is zstd.
        damage: why the stream ended before its end; None as long as it has not.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """

    def __init__(self, path: str) -> None:
        descriptor, self.size, self.mtime_ns = open_input(path)
        try:
            self._file = cast(BinaryIO, os.fdopen(descriptor, "rb", buffering=0, closefd=False))
            self.damage: str | None = None
            self._given = 0
            self.compressed = self._file.read(len(_ZSTD_MAGIC)) == _ZSTD_MAGIC
            self._reader = self._start()
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def __enter__(self) -> DbnStream:
        return self

    def __exit__(self, *failure: Any) -> None:
        os.close(self._descriptor)

    def readinto(self, view: memoryview) -> int:
        """Fills the view, but for the end of the stream; returns how much of it was filled."""
        filled = 0
        while filled < len(view) and self.damage is None:
            try:
                count = self._reader.readinto(view[filled:])
            except _zstd_error() as error:
                filled += self._up_to_damage(view[filled:])
                self.damage = f"damaged zstd data after {self._given} bytes: {_first_line(error)}"
                break
            except OSError as error:
                self.damage = os_reason(error)
                break
            if not count:
                if self.compressed:
                    self.damage = _cut(self._file, os.fstat(self._descriptor).st_size)
                break
            filled += count
            self._given += count
        return filled

    def read(self, count: int) -> bytes:
        """The next `count` bytes, fewer at the end of the stream."""
        buffer = bytearray(count)
        return bytes(buffer[: self.readinto(memoryview(buffer))])

    def _start(self) -> Any:
        self._file.seek(0)
        if not self.compressed:
            return self._file
        import zstandard

        decompressor: zstandard.ZstdDecompressor = zstandard.ZstdDecompressor()
        return decompressor.stream_reader(
            self._file, read_size=_READ, read_across_frames=True, closefd=False
        )

    def _up_to_damage(self, view: memoryview) -> int:
        """What the call that met damage should have given."""
        skipped = filled = 0
        for text in _whole_blocks(self._file):
            begin = min(self._given - skipped, len(text))
            skipped += begin
            part = text[begin : begin + len(view) - filled]
            view[filled : filled + len(part)] = part
            filled += len(part)
        self._given += filled
        return filled


class _Steps:
    """Decompresses a file of zstd frames step by step."""

    def __init__(self, file: BinaryIO) -> None:
        self.at = 0  # where in the file the step begins that is under way
        self._file = file

    def texts(self, fine_from: int | None = None) -> Iterator[bytes]:
        """The text of each step; from `fine_from` on, a step is one byte."""
        import zstandard

        self._file.seek(0)
        self.at = 0
        decompressor: Any = zstandard.ZstdDecompressor()
        frame = decompressor.decompressobj()
        while data := self._file.read(_STEP if fine_from is None or self.at < fine_from else 1):
            length = len(data)
            while data:
                yield frame.decompress(data)
                data = frame.unused_data if frame.eof else b""
                frame = decompressor.decompressobj() if frame.eof else frame
            self.at += length


def _whole_blocks(file: BinaryIO) -> Iterator[bytes]:
    """The text of every whole block before the damage.

    A call that meets damage tells nothing of the text that it has decompressed before. So the step
    of the damage is found first, and then taken byte by byte: each block comes with its last one.
    """
    steps = _Steps(file)
    fine_from = None
    try:
        for _ in steps.texts():
            pass
    except _zstd_error():
        fine_from = steps.at
    try:
        yield from steps.texts(fine_from)
    except _zstd_error():
        return


def _zstd_error() -> type[Exception]:
    import zstandard

    return zstandard.ZstdError


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _cut(file: BinaryIO, size: int) -> str | None:
    """Why a file of zstd frames that was read to its end is not whole; None if it is.

    The decompressor does not tell a stream that is cut off from one that has ended.
    """
    import zstandard

    at = 0
    while at < size:
        file.seek(at)
        header = file.read(_FRAME_HEADER)
        cut = f"cut off: its zstd frame at byte {at} goes on behind the end at byte {size}"
        try:
            if int.from_bytes(header[:4], "little") in _SKIPPABLE_MAGIC:
                at += 8 + int.from_bytes(header[4:8], "little")
                if len(header) < 8 or at > size:
                    return cut
                continue
            end = at + zstandard.frame_header_size(header)
            checksum = zstandard.get_frame_parameters(header).has_checksum
        except zstandard.ZstdError:
            return cut
        last = False
        while not last:
            file.seek(end)
            block = int.from_bytes(file.read(3).ljust(3, b"\0"), "little")
            last, kind = bool(block & 1), block >> 1 & 3
            end += 3 + (1 if kind == _RLE_BLOCK else block >> 3)
            if end > size or kind == _RESERVED_BLOCK:
                return cut
        at = end + (4 if checksum else 0)
        if at > size:
            return cut
    return None
