"""Candle files: 56-byte records of one market, with a JSON companion beside them.

`X.bin` holds one record a candle, little-endian, without a header, gaps included as zero bytes;
`X.json` says what they are. The companion is what counts: a `.bin` may be longer than it says
(a crash's leftover), never shorter. docs/formats.md has the layout in full.

A commit that has to change both files at once writes a journal first (`.X.journal`). Where one is
left behind by a crash, `open_candles` reads the files as the journal says they will be, and the
next backfill finishes it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import mmap
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from candlebeam.errors import FormatError, RangeError, UsageError
from candlebeam.formats.record_kernels import lay_out_records
from candlebeam.model import (
    BLOCK_DTYPE,
    VOLUME_SCALE,
    CandleBlock,
    Market,
    Records,
    Timeframe,
    for_kernels,
)
from candlebeam.rules.price_scale import (
    PRICE_FIELDS,
    PriceScale,
    PriceState,
    quantized_prices,
    restore,
)
from candlebeam.settings import CandleSettings

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

#: One candle as it is stored. Prices are times the companion's priceScale, volumes are quote
#: volumes times its volumeScale. Source of the layout: the aggr-binaries specification.
RECORD_DTYPE = np.dtype(
    [
        ("open", "<i4"),
        ("high", "<i4"),
        ("low", "<i4"),
        ("close", "<i4"),
        ("buy_volume", "<i8"),
        ("sell_volume", "<i8"),
        ("buy_count", "<u4"),
        ("sell_count", "<u4"),
        ("buy_liquidation", "<i8"),
        ("sell_liquidation", "<i8"),
    ]
)
#: Version of what Candlebeam adds to a companion.
STATE_VERSION = 1

_COUNTS = ("buy_count", "sell_count")


@dataclass(frozen=True)
class InputState:
    """How far one of the last inputs has been read.

    Attributes:
        root: the root it was found under.
        path: relative to that, without `.gz`.
        name: the file name that was read.
        size: its bytes when it was read.
        text_bytes: bytes of its text up to the end of its last whole row.
    """

    root: str
    path: str
    name: str
    size: int
    text_bytes: int


@dataclass(frozen=True)
class ResumeState:
    """What a later run needs to go on as if there had been one run only.

    Attributes:
        settings: what the candles were made with.
        inputs: the files that start at `lastInputStartTs`, in file order. They are read again.
        covered: how many files the candles cover, those included.
        skipped: folder and name of covered files that were not there, and so were left out.
        late_trades: trades that came too late in all runs so far, and were left out.
        tail: what all other files gave to the last candle, as one record of `BLOCK_DTYPE`, or none.
        prices: the state of the prices of every candle but the last.
        exact: whether every one of these prices can be had back from its record.
    """

    settings: CandleSettings
    inputs: tuple[InputState, ...] = ()
    covered: int = 0
    skipped: tuple[tuple[str, str], ...] = ()
    late_trades: int = 0
    tail: bytes = b""
    prices: PriceState = field(default_factory=PriceState)
    exact: bool = True

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; `from_json` is the inverse."""
        return {
            "version": STATE_VERSION,
            "settings": self.settings.to_json(),
            "inputs": [[i.root, i.path, i.name, i.size, i.text_bytes] for i in self.inputs],
            "coveredFiles": self.covered,
            "skippedFiles": self.skipped,
            "lateTrades": self.late_trades,
            "tail": base64.b64encode(self.tail).decode(),
            "priceDecimals": self.prices.decimals,
            "highestPrice": self.prices.highest,
            "pricesExact": self.exact,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ResumeState:
        """Raises `ValueError`, `KeyError` or `TypeError` where a value is not what it should be."""
        if values["version"] != STATE_VERSION:
            raise ValueError(f"state version {values['version']!r}, not {STATE_VERSION}")
        tail = base64.b64decode(values["tail"], validate=True)
        if len(tail) not in (0, BLOCK_DTYPE.itemsize):
            raise ValueError(f"a tail of {len(tail)} bytes, not {BLOCK_DTYPE.itemsize}")
        inputs = tuple(
            InputState(_text(root), _text(path), _text(name), _whole(size), _whole(text))
            for root, path, name, size, text in values["inputs"]
        )
        if not inputs:
            raise ValueError("a state without inputs")
        covered = _whole(values["coveredFiles"])
        if covered < len(inputs):
            raise ValueError(f"{covered} files covered, {len(inputs)} of them last")
        return cls(
            settings=CandleSettings.from_json(values["settings"]),
            inputs=inputs,
            covered=covered,
            late_trades=_count(values["lateTrades"]),
            skipped=tuple((_text(root), _text(path)) for root, path in values["skippedFiles"]),
            tail=tail,
            prices=PriceState(_whole(values["priceDecimals"]), float(values["highestPrice"])),
            exact=values["pricesExact"] is True,
        )


@dataclass(frozen=True)
class Companion:
    """The JSON beside a candle file. Times in ms; `end_ts` is the end of the last candle.

    `state` is None where another program than Candlebeam, or another version of it, wrote the file.
    """

    market: Market
    timeframe: Timeframe
    start_ts: int
    end_ts: int
    scale: PriceScale
    records: int
    last_input_start_ts: int
    state: ResumeState | None = None

    @property
    def size(self) -> int:
        """The bytes of `.bin` that count."""
        return self.records * RECORD_DTYPE.itemsize

    def to_json(self) -> dict[str, Any]:
        """The object that is stored."""
        return {
            "collector": self.market.collector,
            "exchange": self.market.exchange,
            "symbol": self.market.symbol,
            "timeframe": str(self.timeframe),
            "timeframeMs": self.timeframe.ms,
            "startTs": self.start_ts,
            "endTs": self.end_ts,
            "priceScale": self.scale.value,
            "volumeScale": VOLUME_SCALE,
            "records": self.records,
            "lastInputStartTs": self.last_input_start_ts,
            **({} if self.state is None else {"candlebeam": self.state.to_json()}),
        }

    def encode(self) -> bytes:
        """The bytes of the file; `decode` is the inverse."""
        return (json.dumps(self.to_json(), indent=2) + "\n").encode()

    @classmethod
    def decode(cls, data: bytes, path: str) -> Companion:
        """Raises `FormatError`, naming `path`, where the bytes are no companion."""
        try:
            values = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise FormatError(path, "JSON of a candle file", str(error)) from None
        try:
            return cls._from_json(values)
        except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
            found = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise FormatError(path, "the companion of a candle file", found) from None

    @classmethod
    def _from_json(cls, values: dict[str, Any]) -> Companion:
        timeframe = Timeframe.parse(str(values["timeframe"]))
        companion = cls(
            market=Market(
                _text(values.get("collector", "")),
                _text(values["exchange"]),
                _text(values["symbol"]),
            ),
            timeframe=timeframe,
            start_ts=_whole(values["startTs"]),
            end_ts=_whole(values["endTs"]),
            scale=PriceScale.parse(values["priceScale"]),
            records=_whole(values["records"]),
            last_input_start_ts=_whole(values["lastInputStartTs"]),
        )
        length = companion.end_ts - companion.start_ts
        if companion.records < 0 or length != companion.records * timeframe.ms:
            raise ValueError(
                f"{companion.records} records from {companion.start_ts} to {companion.end_ts}"
            )
        if values["volumeScale"] != VOLUME_SCALE:
            raise ValueError(f"volumeScale {values['volumeScale']!r}, not {VOLUME_SCALE}")
        state = values.get("candlebeam")
        if isinstance(state, dict) and state.get("version") == STATE_VERSION:
            if not companion.records:
                raise ValueError("no records")
            return replace(companion, state=ResumeState.from_json(state))
        return companion


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 1 << 62:
        raise ValueError(f"{value!r} for a whole number")
    return value


def _count(value: Any) -> int:
    if _whole(value) < 0:
        raise ValueError(f"{value!r} for a number of things")
    return int(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} for a text")
    return value


@dataclass(frozen=True)
class CandlePaths:
    """The files of one market's candles: `stem` is the path without suffix."""

    stem: str

    @classmethod
    def of(cls, out: str, market: Market) -> CandlePaths:
        """Those of a market under an output root."""
        return cls(os.path.join(out, *market.path.split("/")))

    @property
    def records(self) -> str:
        """The candles."""
        return self.stem + ".bin"

    @property
    def companion(self) -> str:
        """What they are."""
        return self.stem + ".json"

    def hidden(self, suffix: str) -> str:
        """A file that only a commit uses, beside them."""
        folder, name = os.path.split(self.stem)
        return os.path.join(folder, f".{name}{suffix}")

    @property
    def journal(self) -> str:
        """A commit that has been decided but maybe not carried out."""
        return self.hidden(".journal")

    @property
    def replacement(self) -> str:
        """The candles that a journal puts in place of `records`."""
        return self.hidden(".bin.new")

    @property
    def unfinished(self) -> tuple[str, ...]:
        """What a commit writes beside its place first, and a crash may leave behind."""
        return self.replacement, self.temporary(self.companion), self.temporary(self.journal)

    def temporary(self, path: str) -> str:
        """Where one of the files is written before it is renamed."""
        return self.hidden(".json.new" if path == self.companion else ".journal.new")


@dataclass(frozen=True)
class Journal:
    """A commit that has been decided: what the pair of files is from now on.

    Attributes:
        companion: the new one.
        tail: bytes to be written at `tail_offset` of the candles; none if the candles are replaced.
        replaces: whether `CandlePaths.replacement` takes the place of the candles.
    """

    companion: Companion
    tail: bytes = b""
    tail_offset: int = 0
    replaces: bool = False

    def encode(self) -> bytes:
        """The bytes of the file; `decode` is the inverse."""
        values = {
            "companion": self.companion.to_json(),
            "tail": base64.b64encode(self.tail).decode(),
            "tailOffset": self.tail_offset,
            "replaces": self.replaces,
        }
        return json.dumps(values).encode()

    @classmethod
    def decode(cls, data: bytes, path: str) -> Journal:
        """Raises `FormatError`, naming `path`, where the bytes are no journal."""
        try:
            values = json.loads(data)
            journal = cls(
                Companion.decode(json.dumps(values["companion"]).encode(), path),
                base64.b64decode(values["tail"], validate=True),
                _whole(values["tailOffset"]),
                bool(values["replaces"]),
            )
            end = journal.tail_offset + len(journal.tail)
            if journal.tail_offset < 0 or end > journal.companion.size:
                raise ValueError(f"a tail from {journal.tail_offset} to {end}")
            return journal
        except FormatError:
            raise
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise FormatError(path, "a commit journal", str(error)) from None


def encode_candles(
    block: CandleBlock, scale: PriceScale, closed: int | None = None
) -> tuple[Records, bool]:
    """The records of a block from its first candle to its last, gaps as zeros.

    Args:
        closed: how many of its candles count for the second result; all by default.

    Returns:
        Records of `RECORD_DTYPE`, and whether every price of the closed candles can be had back
        from them.

    Raises:
        PriceScaleError: a price does not fit in int32 at the scale.
        RangeError: a trade count does not fit in 32 bits.
    """
    candles = block.candles
    if not len(candles):
        return np.zeros(0, RECORD_DTYPE), True
    span = int(candles["time"][-1] - candles["time"][0])
    records = np.zeros(span // block.timeframe.ms + 1, RECORD_DTYPE)
    prices, exact = quantized_prices(candles, scale, closed)
    too_many = lay_out_records(
        for_kernels(np.ascontiguousarray(candles).view(np.int64)).reshape(len(candles), -1),
        prices,
        block.timeframe.ms,
        records.view(np.int32).reshape(len(records), -1),
        records.view(np.int64).reshape(len(records), -1),
    )
    if too_many >= 0:
        moment = np.datetime64(int(candles["time"][too_many]), "ms")
        raise RangeError(f"{block.market}: the trade count at {moment}Z does not fit in 32 bits")
    return records, exact


@dataclass(frozen=True, eq=False)
class Candles:
    """The candles of one market, mapped from their file.

    Attributes:
        companion: what they are.
        records: record array of `RECORD_DTYPE`, one a candle from `companion.start_ts` on, gaps
            included as zeros. Mapped, read-only: touching it reads the file.
    """

    companion: Companion
    records: np.recarray[Any, Any]

    def __len__(self) -> int:
        return len(self.records)

    def times(self) -> np.ndarray[Any, np.dtype[np.datetime64]]:
        """The start of every candle, datetime64[ms] in UTC."""
        step = self.companion.timeframe.ms
        ts = self.companion.start_ts + np.arange(len(self), dtype=np.int64) * step
        return ts.view("datetime64[ms]")

    def between(self, start_ts: int | None, end_ts: int | None) -> slice:
        """The places of the candles that start at or after `start_ts` and before `end_ts`."""
        first, step = self.companion.start_ts, self.companion.timeframe.ms

        def place(ts: int) -> int:
            return min(max(-((first - ts) // step), 0), len(self))

        return slice(
            0 if start_ts is None else place(start_ts),
            len(self) if end_ts is None else place(end_ts),
        )

    def to_arrow(self, part: slice = slice(None)) -> pa.Table:
        """A pyarrow table with real prices and quote volumes; a candle without prices has nulls.

        Columns: time (timestamp[ms, UTC]), open, high, low, close, buy_volume, sell_volume,
        buy_liquidation, sell_liquidation (float64), buy_count, sell_count (uint32).
        """
        import pyarrow as pa

        records = self.records[part].view(RECORD_DTYPE, np.ndarray)
        priced = (records["buy_count"] | records["sell_count"] | records["high"].view("<u4")) != 0
        prices = restore(records, self.companion.scale)
        time = pa.array(self.times()[part].view(np.int64), pa.timestamp("ms", tz="UTC"))
        columns: dict[str, Any] = {"time": time}
        for place, name in enumerate(PRICE_FIELDS):
            columns[name] = pa.array(prices[:, place], mask=~priced)
        for name in RECORD_DTYPE.names[len(PRICE_FIELDS) :]:  # type: ignore[index]
            values = records[name]
            columns[name] = pa.array(
                np.ascontiguousarray(values) if name in _COUNTS else values / VOLUME_SCALE
            )
        return pa.table(columns)

    def to_pandas(self, part: slice = slice(None)) -> pd.DataFrame:
        """A DataFrame indexed by time (UTC), with the columns of `to_arrow`."""
        frame: pd.DataFrame = self.to_arrow(part).to_pandas().set_index("time")
        return frame


def read_companion(path: str) -> Companion | None:
    """The companion at `path`; None if there is none. Raises `FormatError`."""
    data = _content(path)
    return None if data is None else Companion.decode(data, path)


def read_journal(paths: CandlePaths) -> Journal | None:
    """The journal beside a candle file; None if there is none. Raises `FormatError`."""
    data = _content(paths.journal)
    return None if data is None else Journal.decode(data, paths.journal)


def _content(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def open_candles(path: str | os.PathLike[str]) -> Candles:
    """Maps a candle file.

    Args:
        path: its `.bin` or its `.json`.

    Raises:
        FormatError: the companion is none, or the candles are shorter than it says.
        FileNotFoundError: one of the two is not there.

    Example: `open_candles("out/RAM/BINANCE/btcusdt.bin").to_pandas()`
    """
    stem, suffix = os.path.splitext(os.fspath(path))
    if suffix not in (".bin", ".json"):
        raise UsageError(f"{os.fspath(path)}: expected the .bin or the .json of a candle file")
    paths = CandlePaths(stem)
    found: Candles | FormatError | FileNotFoundError
    while True:
        state = _content(paths.journal), _content(paths.companion)
        try:
            found = _open_as_it_is(paths)
        except (FormatError, FileNotFoundError) as error:
            found = error
        # A commit changes one of these as well: if none has changed, what was read is of one piece.
        if state == (_content(paths.journal), _content(paths.companion)):
            break
    if isinstance(found, Exception):
        raise found
    return found


def _open_as_it_is(paths: CandlePaths) -> Candles:
    journal = read_journal(paths)
    companion = journal.companion if journal else read_companion(paths.companion)
    if companion is None:
        raise FileNotFoundError(
            f"{paths.companion}: no such file; a candle file needs its companion"
        )
    return Candles(companion, _map_records(paths, companion, journal))


def _open_records(paths: CandlePaths, journal: Journal | None) -> BinaryIO:
    if journal and journal.replaces:
        with contextlib.suppress(FileNotFoundError):
            return open(paths.replacement, "rb")
    return open(paths.records, "rb")


def _map_records(
    paths: CandlePaths, companion: Companion, journal: Journal | None
) -> np.recarray[Any, Any]:
    with _open_records(paths, journal) as file:
        size = os.fstat(file.fileno()).st_size
        if size < companion.size:
            expected = f"{companion.size} bytes, as its companion says"
            raise FormatError(file.name, expected, f"{size}")
        access = mmap.ACCESS_COPY if journal else mmap.ACCESS_READ
        mapped: Any = (
            mmap.mmap(file.fileno(), companion.size, access=access) if companion.size else b""
        )
    if journal and journal.tail:
        mapped[journal.tail_offset : journal.tail_offset + len(journal.tail)] = journal.tail
    records = np.frombuffer(mapped, RECORD_DTYPE)
    records.flags.writeable = False
    return records.view(np.recarray)
