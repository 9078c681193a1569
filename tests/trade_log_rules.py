"""The rules of trade-log text, read naively: what the fast reader is held against."""

from __future__ import annotations

import math
import re
import zlib
from dataclasses import dataclass, field

_NUMBER = re.compile(rb"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
MAX_ROW = 1 << 20

Trade = tuple[int, float, float, int, int]


@dataclass
class Reading:
    """What a text comes to."""

    trades: list[Trade] = field(default_factory=list)
    rejects: list[tuple[int, str, bytes]] = field(default_factory=list)
    text_bytes: int = 0
    late: int = 0
    first_late_ts: int | None = None


def _number(raw: bytes) -> float | None:
    return float(raw) if _NUMBER.fullmatch(raw) else None


def _flag(raw: bytes) -> int | None:
    return {b"0": 0, b"1": 1}.get(raw)


def read_row(row: bytes) -> Trade | str:
    """A row without its line end and not blank: the trade, or why it is none."""
    fields = [part for part in re.split(rb"[ \t]+", row) if part]
    if len(fields) not in (4, 5):
        return "fields"
    ts, price, size = (_number(part) for part in fields[:3])
    if ts is None or math.isinf(ts) or not 10**11 < math.floor(ts) < 10**13:
        return "timestamp"
    if price is None or math.isinf(price) or price <= 0:
        return "price"
    if size is None or math.isinf(size) or size < 0:
        return "size"
    buy = _flag(fields[3])
    if buy is None:
        return "side"
    liquidation = _flag(fields[4]) if len(fields) == 5 else 0
    if liquidation is None:
        return "liquidation"
    volume = (price * size) * 1e6
    if math.isinf(volume):
        return "volume"
    whole = math.floor(volume)
    if whole + (volume - whole >= 0.5) >= 2**63:
        return "volume"
    return math.floor(ts), price, size, buy, liquidation


def read_text(
    text: bytes, *, torn: bool = False, from_ts: int | None = None, seen: int = 0
) -> Reading:
    """A whole text; `torn` if it was cut off, so that an unfinished last row is nothing."""
    reading = Reading()
    start = 3 if text.startswith(b"\xef\xbb\xbf") else 0
    line = 0
    while start < len(text):
        end = text.find(b"\n", start)
        if end < 0 and torn:
            break
        stop = len(text) if end < 0 else end
        line += 1
        row = text[start:stop].removesuffix(b"\r")
        if row.strip(b" \t"):
            found = "length" if stop - start > MAX_ROW else read_row(row)
            if isinstance(found, str):
                reading.rejects.append((line, found, row[:4096]))
            elif from_ts is None or found[0] >= from_ts:
                reading.trades.append(found)
            elif start >= seen:
                reading.late += 1
                reading.first_late_ts = min(reading.first_late_ts or found[0], found[0])
        if end < 0:
            break
        start = end + 1
        reading.text_bytes = start
    return reading


def unzip(data: bytes) -> tuple[bytes, bool]:
    """The text of a gzip file's bytes as far as it can be had, and whether all was well."""
    text = bytearray()
    while True:
        inflater = zlib.decompressobj(wbits=31)
        for at in range(len(data)):
            try:
                text += inflater.decompress(data[at : at + 1])
            except zlib.error:
                return bytes(text), False
            if inflater.eof:
                break
        if not inflater.eof:
            return bytes(text), False
        data = data[at + 1 :].lstrip(b"\0")
        if not data:
            return bytes(text), True
        if not data.startswith(b"\x1f\x8b"):
            return bytes(text), False
