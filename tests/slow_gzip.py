"""Gzip read bit by bit: every byte of text that can be known before the first damage."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from contextlib import suppress


class _StopError(Exception):
    """The compressed bytes end, or make no sense, here."""


_LENGTH_BITS = [0] * 8 + [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4 + [5] * 4
_LENGTH_BASE = [3 + sum(1 << bits for bits in _LENGTH_BITS[:n]) for n in range(28)]
_DISTANCE_BITS = [0, 0, *(n // 2 for n in range(28))]
_DISTANCE_BASE = [1 + sum(1 << bits for bits in _DISTANCE_BITS[:n]) for n in range(30)]
_CODE_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)


class _Inflate:
    """RFC 1951, bit by bit: gives every byte that can be known before the first error."""

    def __init__(self, data: bytes) -> None:
        self.data, self.bit, self.out = data, 0, bytearray()

    def bits(self, count: int) -> int:
        value = 0
        for shift in range(count):
            if self.bit >= 8 * len(self.data):
                raise _StopError
            value |= (self.data[self.bit >> 3] >> (self.bit & 7) & 1) << shift
            self.bit += 1
        return value

    @staticmethod
    def codes(lengths: Iterable[int], one_is_enough: bool) -> dict[tuple[int, int], int]:
        """(length, code) -> symbol; a set that is not complete is an error, as in zlib."""
        table: dict[tuple[int, int], int] = {}
        known = list(enumerate(lengths))
        code, space = 0, 1 << 15
        for length in range(1, 16):
            code <<= 1
            for symbol, its_length in known:
                if its_length == length:
                    table[length, code] = symbol
                    code += 1
                    space -= 1 << (15 - length)
                    if space < 0:
                        raise _StopError
        single = len(table) == 1 and next(iter(table))[0] == 1
        if space and not (one_is_enough and (single or not table)):
            raise _StopError
        return table

    def symbol(self, table: dict[tuple[int, int], int]) -> int:
        code = 0
        for length in range(1, 16):
            code = code << 1 | self.bits(1)
            if (length, code) in table:
                return table[length, code]
        raise _StopError

    def stored(self) -> None:
        self.bit = -(-self.bit // 8) * 8
        length, check = self.bits(16), self.bits(16)
        if length != check ^ 0xFFFF:
            raise _StopError
        for _ in range(length):
            self.out.append(self.bits(8))

    def dynamic(self) -> tuple[dict[tuple[int, int], int], dict[tuple[int, int], int]]:
        literals, distances, codes = self.bits(5) + 257, self.bits(5) + 1, self.bits(4) + 4
        if literals > 286 or distances > 30:
            raise _StopError
        short = [0] * 19
        for place in _CODE_ORDER[:codes]:
            short[place] = self.bits(3)
        table = self.codes(short, one_is_enough=False)
        lengths: list[int] = []
        while len(lengths) < literals + distances:
            symbol = self.symbol(table)
            if symbol < 16:
                lengths.append(symbol)
                continue
            if symbol == 16 and not lengths:
                raise _StopError
            value = lengths[-1] if symbol == 16 else 0
            bits, base = {16: (2, 3), 17: (3, 3), 18: (7, 11)}[symbol]
            lengths += [value] * (base + self.bits(bits))
        if len(lengths) > literals + distances or not lengths[256]:
            raise _StopError
        first = self.codes(lengths[:literals], one_is_enough=True)
        return first, self.codes(lengths[literals:], one_is_enough=True)

    def run(self) -> None:
        while True:
            final, kind = self.bits(1), self.bits(2)
            if kind == 3:
                raise _StopError
            if kind == 0:
                self.stored()
            else:
                if kind == 1:
                    fixed = [8] * 144 + [9] * 112 + [7] * 24 + [8] * 8
                    tables = self.codes(fixed, False), self.codes([5] * 32, False)
                else:
                    tables = self.dynamic()
                self.block(*tables)
            if final:
                return

    def block(
        self, literals: dict[tuple[int, int], int], distances: dict[tuple[int, int], int]
    ) -> None:
        while (symbol := self.symbol(literals)) != 256:
            if symbol < 256:
                self.out.append(symbol)
                continue
            if symbol > 285:
                raise _StopError
            length = 258
            if symbol < 285:
                length = _LENGTH_BASE[symbol - 257] + self.bits(_LENGTH_BITS[symbol - 257])
            place = self.symbol(distances)
            if place > 29:
                raise _StopError
            distance = _DISTANCE_BASE[place] + self.bits(_DISTANCE_BITS[place])
            if distance > len(self.out):
                raise _StopError
            for _ in range(length):
                self.out.append(self.out[-distance])


def _header_end(data: bytes) -> int:
    """The length of the gzip header that `data` begins with; raises _StopError if it is none."""
    if len(data) < 10 or data[2] != 8 or data[3] & 0xE0:
        raise _StopError
    flags, at = data[3], 10
    if flags & 4:
        if len(data) < at + 2:
            raise _StopError
        at += 2 + data[at] + 256 * data[at + 1]
    for flag in (8, 16):
        if flags & flag:
            end = data.find(b"\0", at)
            if end < 0:
                raise _StopError
            at = end + 1
    if flags & 2:
        if len(data) < at + 2 or zlib.crc32(data[:at]) & 0xFFFF != data[at] + 256 * data[at + 1]:
            raise _StopError
        at += 2
    if at > len(data):
        raise _StopError
    return at


def gunzip(data: bytes) -> tuple[bytes, bool]:
    """The text of a gzip file as far as it can be known, and whether something is damaged."""
    text = b""
    while data:
        if not data.strip(b"\0"):
            break  # padding
        if data[:2] != b"\x1f\x8b":
            return text, True
        whole = zlib.decompressobj(wbits=31)
        try:
            member = whole.decompress(data)
            if whole.eof:
                text, data = text + member, whole.unused_data
                continue
            return text + member, True
        except zlib.error:
            pass
        try:
            slow = _Inflate(data[_header_end(data) :])
        except _StopError:
            return text, True
        with suppress(_StopError):
            slow.run()
        return text + bytes(slow.out), True
    return text, False
