"""What is read from mapped files without keeping them in memory."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from isal import isal_zlib

#: Bytes of a mapped file that are looked at before they are let go.
_WINDOW = 16 << 20
_CAN_LET_GO = hasattr(mmap, "MADV_DONTNEED")


class MappedBytes:
    """The bytes of an array that is mapped from a file.

    Args:
        array: its records, contiguous. Where they are not mapped, nothing is let go.
    """

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self._array = array
        base: Any = array
        while isinstance(base, np.ndarray | memoryview):
            base = base.base if isinstance(base, np.ndarray) else base.obj
        self._mapping: mmap.mmap | None = None
        if isinstance(base, mmap.mmap) and memoryview(base).readonly and _CAN_LET_GO:
            self._mapping = base
        self._gone = 0

    def let_go(self, end: int) -> None:
        """Has the operating system take back the pages before byte `end`, some at a time.

        They stay readable. A mapping that can be written to is left alone: it would lose that.
        """
        if self._mapping is None or end - self._gone < _WINDOW:
            return
        length = (end - self._gone) // mmap.PAGESIZE * mmap.PAGESIZE
        self._mapping.madvise(mmap.MADV_DONTNEED, self._gone, length)
        self._gone += length

    def checksum(self, end: int) -> int:
        """CRC-32 of the bytes before `end`; -1, which is none, where there are fewer."""
        data = self._array.view(np.ndarray).view(np.uint8)
        if end > len(data):
            return -1
        found, looked = 0, MappedBytes(self._array)
        for begin in range(0, end, _WINDOW):
            stop = min(begin + _WINDOW, end)
            found = isal_zlib.crc32(data[begin:stop], found)
            looked.let_go(stop)
        return found
