"""Coders for what crosses a stage: compact, versionless, and the same bytes for equal keys.

Registered for their types when this module is imported, so that `with_output_types` is enough to
use them.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

import numpy as np
from apache_beam import coders

from candlebeam.errors import FormatError
from candlebeam.io.staging import ChunkRef, ShardRef
from candlebeam.model import (
    BAR_COLUMNS,
    BLOCK_DTYPE,
    Bars,
    CandleBlock,
    Market,
    Timeframe,
    TradeBatch,
)
from candlebeam.outcome import MarketOutcome

T = TypeVar("T")
_COLUMNS = ("ts", "price", "size", "buy", "liquidation")
_COLUMN_TYPES = (np.int64, np.float64, np.float64, np.uint8, np.uint8)


class _PlainCoder(coders.Coder):
    """Equal values give equal bytes, and any two coders of one class are the same."""

    def from_bytes(self, encoded: bytes) -> Any:
        """The inverse of `encode`; raises whatever it comes upon where the bytes are damaged."""
        raise NotImplementedError

    def decode(self, encoded: bytes) -> Any:
        """Raises `FormatError` for bytes that `encode` did not make."""
        try:
            return self.from_bytes(encoded)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            name = type(self).__name__
            raise FormatError("between two stages", f"what {name} writes", str(error)) from None

    def is_deterministic(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))


class _JsonCoder(_PlainCoder):
    """Values as one line of JSON; equal values give equal bytes."""

    def to_values(self, value: Any) -> Any:
        """Plain JSON values."""
        return list(value)

    def from_values(self, values: Any) -> Any:
        """The inverse of `to_values`."""
        raise NotImplementedError

    def encode(self, value: Any) -> bytes:
        return json.dumps(self.to_values(value), separators=(",", ":")).encode()

    def from_bytes(self, encoded: bytes) -> Any:
        return self.from_values(json.loads(encoded))


class MarketCoder(_JsonCoder):
    """`Market`, as its three names."""

    def from_values(self, values: Any) -> Market:
        return Market(*values)


class ShardRefCoder(_JsonCoder):
    """`ShardRef`, as its fields."""

    def to_values(self, value: ShardRef) -> Any:
        return value.to_values()

    def from_values(self, values: Any) -> ShardRef:
        return ShardRef.from_values(values)


class ChunkRefCoder(_JsonCoder):
    """`ChunkRef`, as its fields."""

    def to_values(self, value: ChunkRef) -> Any:
        shard, *rest = value
        return [shard.to_values(), *rest]

    def from_values(self, values: Any) -> ChunkRef:
        shard, *rest = values
        return ChunkRef(ShardRef.from_values(shard), *rest)


class MarketOutcomeCoder(_JsonCoder):
    """`MarketOutcome`, as its JSON."""

    def to_values(self, value: MarketOutcome) -> Any:
        return value.to_json()

    def from_values(self, values: Any) -> MarketOutcome:
        return MarketOutcome(**values)


class _FrameCoder(_PlainCoder):
    """A line of JSON, then the bytes of arrays."""


class TradeBatchCoder(_FrameCoder):
    """`TradeBatch`, as its market, its length and its columns one after the other."""

    def encode(self, value: TradeBatch) -> bytes:
        head = json.dumps([list(value.market), len(value), value.count is not None]).encode()
        columns = [getattr(value, name).tobytes() for name in _COLUMNS]
        count = [] if value.count is None else [value.count.tobytes()]
        return b"".join([head, b"\n", *columns, *count])

    def from_bytes(self, encoded: bytes) -> TradeBatch:
        head, _, body = encoded.partition(b"\n")
        market, length, counted = json.loads(head)
        columns, offset = [], 0
        for dtype in (*_COLUMN_TYPES, *([np.int64] if counted else [])):
            columns.append(np.frombuffer(body, dtype, length, offset))
            offset += columns[-1].nbytes
        if offset != len(body):
            raise ValueError(f"{len(body)} bytes of columns, not {offset}")
        return TradeBatch(Market(*market), *columns)


class CandleBlockCoder(_FrameCoder):
    """`CandleBlock`, as its market, its timeframe, its length and its records."""

    def encode(self, value: CandleBlock) -> bytes:
        head = json.dumps([list(value.market), value.timeframe.ms, len(value)]).encode()
        return head + b"\n" + value.candles.tobytes()

    def from_bytes(self, encoded: bytes) -> CandleBlock:
        head, _, body = encoded.partition(b"\n")
        market, step, length = json.loads(head)
        candles = np.frombuffer(body, BLOCK_DTYPE)
        if len(candles) != length:
            raise ValueError(f"{len(candles)} candles, not {length}")
        return CandleBlock(Market(*market), Timeframe(step), candles)


class BarsCoder(_FrameCoder):
    """`Bars`, as their number and their columns one after the other."""

    def encode(self, value: Bars) -> bytes:
        columns = [getattr(value, name).tobytes() for name in BAR_COLUMNS]
        return b"".join([b"%d\n" % len(value), *columns])

    def from_bytes(self, encoded: bytes) -> Bars:
        head, _, body = encoded.partition(b"\n")
        length = json.loads(head)
        if len(body) != 8 * length * len(BAR_COLUMNS):
            raise ValueError(f"{len(body)} bytes of {length} bars")
        prices = np.frombuffer(body, np.float64, offset=8 * length)
        columns = prices.reshape(len(BAR_COLUMNS) - 1, length)
        return Bars(np.frombuffer(body, np.int64, length), *columns)


for _type, _coder in (
    (Bars, BarsCoder),
    (Market, MarketCoder),
    (ShardRef, ShardRefCoder),
    (ChunkRef, ChunkRefCoder),
    (MarketOutcome, MarketOutcomeCoder),
    (TradeBatch, TradeBatchCoder),
    (CandleBlock, CandleBlockCoder),
):
    coders.registry.register_coder(_type, _coder)
