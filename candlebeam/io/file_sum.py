"""What tells whether a file still begins with the same bytes."""

from __future__ import annotations

from isal import isal_zlib

_PIECE = 1 << 20


class FileSum:
    """CRC-32 of the first bytes of a file, up to one place after the other.

    Places that ascend cost one reading of the file together.

    Args:
        path: the file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._buffer = bytearray()
        self._end = self._sum = 0

    def until(self, end: int | None = None) -> int:
        """CRC-32 of the bytes before `end`, or of all; of fewer, where the file is shorter."""
        if end is not None and end < self._end:
            self._end = self._sum = 0
        self._buffer = self._buffer or bytearray(_PIECE)
        view = memoryview(self._buffer)
        with open(self._path, "rb", buffering=0) as file:
            file.seek(self._end)
            while end is None or self._end < end:
                most = _PIECE if end is None else min(end - self._end, _PIECE)
                read = file.readinto(view[:most])
                if not read:
                    break
                self._sum = isal_zlib.crc32(view[:read], self._sum)
                self._end += read
        return self._sum
