"""Finding lines in text, for compiled loops."""

from __future__ import annotations

from typing import Any

import numpy as np

from candlebeam.kernels import Deferred, callee
from candlebeam.model import Uint8Array

_NO_WORD = np.uint64(0)
_line_feeds: Any = Deferred("candlebeam.formats.byte_words", "line_feeds")
_trailing_zeros: Any = Deferred("candlebeam.formats.byte_words", "trailing_zeros")


@callee
def find_line_feed(text: Uint8Array, start: int, end: int) -> int:
    """The place of the first line feed in text[start:end], else `end`."""
    at = start
    while at < end:
        found = _line_feeds(text, at)
        if found != _NO_WORD:
            place: int = min(at + _trailing_zeros(found), end)
            return place
        at += 64
    return end
