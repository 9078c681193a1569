"""Reading ahead: one thread decompresses a file while another works on what is there."""

from __future__ import annotations

import queue
import threading
from typing import Any

import numpy as np

from candlebeam.formats.dbn.stream import DbnStream
from candlebeam.model import Int64Array

#: Bytes of a piece.
PIECE = 1 << 21
_PIECES = 3
_WORD = 8
#: Room in front of a piece for a record that began in the one before it: none is longer.
_CARRY = 128


class ReadAhead:
    """The rest of a stream as 64-bit words, piece by piece; use it as a context.

    Attributes:
        loose: bytes at the stream's end that make no word, once it was met.
    """

    def __init__(self, stream: DbnStream) -> None:
        self.loose = 0
        self._stream = stream
        self._free: queue.SimpleQueue[Int64Array | None] = queue.SimpleQueue()
        self._filled: queue.SimpleQueue[tuple[Int64Array, int] | BaseException] = (
            queue.SimpleQueue()
        )
        for _ in range(_PIECES):
            self._free.put(np.empty(_CARRY + PIECE // _WORD, np.int64))
        self._held: Int64Array | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._read, name="read-ahead", daemon=True)

    def __enter__(self) -> ReadAhead:
        self._thread.start()
        return self

    def __exit__(self, *failure: Any) -> None:
        self._free.put(None)
        self._thread.join()

    def next_words(self, carry: Int64Array) -> Int64Array | None:
        """The next piece behind `carry`, the unread end of the one before; None at the end.

        What was given before is no longer valid.
        """
        if self._ended:
            return None
        filled = self._filled.get()
        if isinstance(filled, BaseException):
            raise filled
        piece, count = filled
        piece[_CARRY - len(carry) : _CARRY] = carry
        if self._held is not None:
            self._free.put(self._held)
        self._held = piece
        self.loose = count % _WORD
        self._ended = count < PIECE
        return piece[_CARRY - len(carry) : _CARRY + count // _WORD]

    def _read(self) -> None:
        try:
            count = PIECE
            # A piece that is not full is the last one.
            while count == PIECE and (piece := self._free.get()) is not None:
                view = piece[_CARRY:].view(np.uint8).data
                count = self._stream.readinto(view)
                self._filled.put((piece, count))
        except BaseException as error:  # noqa: BLE001  raised again where the words are wanted
            self._filled.put(error)
