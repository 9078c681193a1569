"""What flows through Candlebeam: markets, timeframes, trade batches and candle blocks.

No Beam in here. Times are milliseconds since 1970 in UTC, in int64, everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from candlebeam.market import MS_PER_DAY as MS_PER_DAY
from candlebeam.market import Market as Market
from candlebeam.market import Timeframe as Timeframe

Int32Array = npt.NDArray[np.int32]
S = TypeVar("S", bound=np.generic)
Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]
Uint8Array = npt.NDArray[np.uint8]
Records = npt.NDArray[np.void]

VOLUME_SCALE = 1_000_000


def for_kernels(array: npt.NDArray[S]) -> npt.NDArray[S]:
    """The array as compiled loops take it: contiguous, aligned, writeable; a copy if it is not.

    Arrays that came over a wire or out of a file are often read-only or at odd addresses.
    """
    return np.require(array, requirements=["C", "A", "W"])


@dataclass(frozen=True, eq=False)
class TradeBatch:
    """Trades of one market as columns of one length, in file order.

    Attributes:
        market: whose trades they are.
        ts: int64, milliseconds.
        price: float64, finite and above 0.
        size: float64, base units, finite and not below 0.
        buy: uint8, 1 where the aggressor bought, else 0.
        liquidation: uint8, 1 where the trade is a forced one, else 0.
        count: int64, how many trades of the exchange stand behind each row; None means one each.
    """

    market: Market
    ts: Int64Array
    price: Float64Array
    size: Float64Array
    buy: Uint8Array
    liquidation: Uint8Array
    count: Int64Array | None = None

    def __post_init__(self) -> None:
        columns: dict[str, tuple[npt.NDArray[Any] | None, type]] = {
            "ts": (self.ts, np.int64),
            "price": (self.price, np.float64),
            "size": (self.size, np.float64),
            "buy": (self.buy, np.uint8),
            "liquidation": (self.liquidation, np.uint8),
            "count": (self.count, np.int64),
        }
        for name, (column, dtype) in columns.items():
            if column is None:
                continue
            if column.dtype != dtype or column.shape != self.ts.shape or column.ndim != 1:
                raise ValueError(
                    f"column {name}: expected {len(self.ts)} values of {np.dtype(dtype)}, "
                    f"found {column.shape} of {column.dtype}"
                )

    def __len__(self) -> int:
        return len(self.ts)

    @classmethod
    def join(cls, parts: Sequence[TradeBatch]) -> TradeBatch:
        """Batches of one market one after the other; all of them have counts, or none has.

        Raises:
            ValueError: without any batch, or with batches that do not go together.
        """
        if len({(part.market, part.count is None) for part in parts}) != 1:
            raise ValueError("join: expected batches of one market, all with counts or none")
        counts = [part.count for part in parts if part.count is not None]
        return cls(
            parts[0].market,
            np.concatenate([part.ts for part in parts]),
            np.concatenate([part.price for part in parts]),
            np.concatenate([part.size for part in parts]),
            np.concatenate([part.buy for part in parts]),
            np.concatenate([part.liquidation for part in parts]),
            np.concatenate(counts) if counts else None,
        )


#: One candle that can still be merged. `time` is its start. `first_ts` and `last_ts` are the times
#: of the trades that gave `open` and `close`; a candle of liquidations alone has no prices:
#: NO_FIRST, NO_LAST, and open 0, high -inf, low inf, close 0.
BLOCK_DTYPE = np.dtype(
    [
        ("time", "<i8"),
        ("open", "<f8"),
        ("high", "<f8"),
        ("low", "<f8"),
        ("close", "<f8"),
        ("first_ts", "<i8"),
        ("last_ts", "<i8"),
        ("buy_volume", "<i8"),
        ("sell_volume", "<i8"),
        ("buy_count", "<i8"),
        ("sell_count", "<i8"),
        ("buy_liquidation", "<i8"),
        ("sell_liquidation", "<i8"),
    ]
)

NO_FIRST = np.iinfo(np.int64).max
NO_LAST = np.iinfo(np.int64).min


@dataclass(frozen=True, eq=False)
class CandleBlock:
    """Candles of one market in a form that can be merged: exact sums, and who came first and last.

    Attributes:
        market: whose candles they are.
        timeframe: their length.
        candles: records of `BLOCK_DTYPE`, strictly ascending by `time`; only candles with trades
            (after `fill_gaps`, every candle from the first to the last). Volumes are quote volumes
            times 1,000,000.
    """

    market: Market
    timeframe: Timeframe
    candles: Records

    def __post_init__(self) -> None:
        if self.candles.dtype != BLOCK_DTYPE or self.candles.ndim != 1:
            raise ValueError(
                f"candles: expected records of BLOCK_DTYPE, found {self.candles.dtype}"
            )

    def __len__(self) -> int:
        return len(self.candles)


#: The columns of `Bars`, in order.
BAR_COLUMNS = ("ts", "open", "high", "low", "close", "volume")


@dataclass(frozen=True, eq=False)
class Bars:
    """Bars of one instrument as columns of one length: what outputs are made of.

    Attributes:
        ts: int64, the start of each bar in ms.
        open, high, low, close: float64; all four NaN where there was no trade (a gap). Prices of
            some instruments can be zero or negative.
        volume: float64, in whatever unit the source has: quote units from candle files. 0 in a gap.

    Where trades are taken for bars, each is one: ts is its time, and all four prices are its price.
    """

    ts: Int64Array
    open: Float64Array
    high: Float64Array
    low: Float64Array
    close: Float64Array
    volume: Float64Array

    def __post_init__(self) -> None:
        for name in BAR_COLUMNS:
            column = getattr(self, name)
            dtype = np.dtype(np.int64 if name == "ts" else np.float64)
            if column.dtype != dtype or column.shape != self.ts.shape or column.ndim != 1:
                raise ValueError(
                    f"column {name}: expected {len(self.ts)} values of {dtype},"
                    f" found {column.shape} of {column.dtype}"
                )

    def __len__(self) -> int:
        return len(self.ts)

    def part(self, chosen: slice | npt.NDArray[Any]) -> Bars:
        """Some of the bars: a slice, a mask or places."""
        return Bars(*(getattr(self, name)[chosen] for name in BAR_COLUMNS))

    @classmethod
    def join(cls, parts: Sequence[Bars]) -> Bars:
        """Several one after the other; none give no bars."""
        if not parts:
            return cls(np.empty(0, np.int64), *(np.empty(0) for _ in BAR_COLUMNS[1:]))
        columns = ([getattr(part, name) for part in parts] for name in BAR_COLUMNS)
        return cls(*(np.concatenate(column) for column in columns))


class InputFile(NamedTuple):
    """One file of a shard.

    Attributes:
        path: where it stands (absolute). If it is gone, its twin with or without `.gz` is read.
        size: its size in bytes when it was found; sizes the work, nothing else relies on it.
        seen: bytes of its text that an earlier run has used: behind them, what is older
            than the point of resumption is late.
    """

    path: str
    size: int = 0
    seen: int = 0


@dataclass(frozen=True)
class FileOutcome:
    """What reading one input file came to.

    Attributes:
        path: the file that was asked for.
        read_path: the file that was read (its twin, if the first was gone); None if neither was.
        size, mtime_ns: of that file when it was opened (bytes, ns); 0 if it could not be.
        text_bytes: bytes of its text (after decompression) up to the end of the last row that has
            its line end.
        trades: rows that were kept.
        rejected: rows that were not, by reason.
        late: rows older than the point of resumption that no earlier run has seen.
        first_late_ts: the earliest ts of these; None without any.
        damage: why not the whole of it could be read; None if it could.
        error: why it could not be read at all (missing, no permission, a folder); None if it could.
        length: bytes of the file that belong to this input, where the file holds several inputs;
            None where all of it does.
        notes: what else the user should know of it, in sentences without its name.
    """

    path: str
    read_path: str | None = None
    size: int = 0
    mtime_ns: int = 0
    text_bytes: int = 0
    trades: int = 0
    rejected: tuple[tuple[str, int], ...] = ()
    late: int = 0
    first_late_ts: int | None = None
    damage: str | None = None
    error: str | None = None
    length: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def bytes_read(self) -> int:
        """Bytes on disk that stand for this input."""
        return self.size if self.length is None else self.length
