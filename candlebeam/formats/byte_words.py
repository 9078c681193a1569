"""Loads and bit tricks that numba has no words for, as LLVM code. Imports numba: load it late.

All of them read a C-contiguous uint8 array without any check: the caller keeps `WORD_PAD` bytes
behind the last byte it looks at.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

_types: Any = importlib.import_module("numba.core.types")
_intrinsic: Any = importlib.import_module("numba.extending").intrinsic
_ir: Any = importlib.import_module("llvmlite.ir")

_BYTE = _ir.IntType(8)
_WORD = _ir.IntType(64)
_WIDE = _ir.IntType(128)
_LANES = _ir.VectorType(_BYTE, 64)


def _load(context: Any, builder: Any, array_type: Any, array: Any, index: Any, kind: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    place = builder.bitcast(builder.gep(data, [index]), kind.as_pointer())
    return builder.load(place, align=1)


def _splat(value: int) -> Any:
    return _ir.Constant(_LANES, [value] * 64)


def _mask(compare: Callable[[Any, Any], Any]) -> Any:
    """An intrinsic (array, index) -> uint64 whose bit i tells of byte index + i."""

    def typed(typing: Any, array: Any, index: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            lanes = _load(context, builder, signature.args[0], args[0], args[1], _LANES)
            return builder.bitcast(compare(builder, lanes), _WORD)

        return _types.uint64(array, _types.int64), emit

    return _intrinsic(typed)


def _is(value: int) -> Callable[[Any, Any], Any]:
    return lambda builder, lanes: builder.icmp_unsigned("==", lanes, _splat(value))


def _is_blank(builder: Any, lanes: Any) -> Any:
    return builder.or_(_is(0x20)(builder, lanes), _is(0x09)(builder, lanes))


def _is_no_digit(builder: Any, lanes: Any) -> Any:
    return builder.icmp_unsigned(">", builder.sub(lanes, _splat(0x30)), _splat(9))


def _load_word(typing: Any, array: Any, index: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _load(context, builder, signature.args[0], args[0], args[1], _WORD)

    return _types.uint64(array, _types.int64), emit


def _trailing_zeros(typing: Any, word: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], _ir.Constant(_ir.IntType(1), 0))

    return _types.int64(_types.uint64), emit


def _leading_zeros(typing: Any, word: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctlz(args[0], _ir.Constant(_ir.IntType(1), 0))

    return _types.int64(_types.uint64), emit


def _high_product(typing: Any, a: Any, b: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        product = builder.mul(builder.zext(args[0], _WIDE), builder.zext(args[1], _WIDE))
        return builder.trunc(builder.lshr(product, _ir.Constant(_WIDE, 64)), _WORD)

    return _types.uint64(_types.uint64, _types.uint64), emit


def _six_numbers(typing: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = _constant(64, 0)
        for place, word in enumerate(args):
            lanes = builder.insert_element(lanes, word, _ir.IntType(32)(place))
        lanes = builder.and_(lanes, _constant(64, 0x0F0F_0F0F_0F0F_0F0F))
        # Neighbours are joined: digits to pairs, pairs to fours, fours to eights. What lies above
        # the half of a lane that counts is left over from its upper neighbour.
        for bits, ten in ((16, 10), (32, 100), (64, 10_000)):
            lanes = builder.bitcast(lanes, _constant(bits, 0).type)
            upper = builder.lshr(lanes, _constant(bits, bits // 2))
            lanes = builder.add(builder.mul(lanes, _constant(bits, ten)), upper)
            lanes = builder.and_(lanes, _constant(bits, (1 << (bits // 2)) - 1))
        numbers = [builder.extract_element(lanes, _ir.IntType(32)(i)) for i in range(6)]
        return context.make_tuple(builder, signature.return_type, numbers)

    return _types.UniTuple(_types.int64, 6)(*[_types.uint64] * 6), emit


def _constant(bits: int, value: int) -> Any:
    """512 bits of one value."""
    count = 512 // bits
    return _ir.Constant(_ir.VectorType(_ir.IntType(bits), count), [value] * count)


def _as_float(typing: Any, word: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], _ir.DoubleType())

    return _types.float64(_types.uint64), emit


#: (array, index) -> uint64: eight bytes, the first one lowest.
load_word: Any = _intrinsic(_load_word)
#: (array, index) -> uint64: which of 64 bytes are a space.
spaces: Any = _mask(_is(0x20))
#: (array, index) -> uint64: which of 64 bytes are a space or a tab.
blanks: Any = _mask(_is_blank)
#: (array, index) -> uint64: which of 64 bytes are a dot.
dots: Any = _mask(_is(0x2E))
#: (array, index) -> uint64: which of 64 bytes are a line feed.
line_feeds: Any = _mask(_is(0x0A))
#: (array, index) -> uint64: which of 64 bytes are no digit.
non_digits: Any = _mask(_is_no_digit)
#: (uint64) -> int64, 64 for 0.
trailing_zeros: Any = _intrinsic(_trailing_zeros)
#: (uint64) -> int64, 64 for 0.
leading_zeros: Any = _intrinsic(_leading_zeros)
#: (uint64, uint64) -> uint64: the upper half of their 128-bit product.
high_product: Any = _intrinsic(_high_product)
#: six uint64 -> the six int64 that their eight ASCII digits each write, the first one lowest; a NUL
#: counts as 0. At once, as that takes a third of the instructions.
six_numbers: Any = _intrinsic(_six_numbers)
#: (uint64) -> float64 of the same bits.
as_float: Any = _intrinsic(_as_float)
