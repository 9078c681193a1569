"""A second reading of the rules, in plain Python and as slow as it likes.

Nothing in here comes from the package: what `backfill` gives for an archive is what the rules of
`docs/design.md` say, row by row. Tests hold the product's bytes against it.
"""

from __future__ import annotations

import math
import re
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tests.slow_gzip import gunzip

MINUTE = 60_000
INT32_MAX = 2_147_483_647
RECORD = struct.Struct("<4i2q2I2q")
MAX_ROW = 1 << 20

BITFINEX_SIDE = "bitfinex-liquidation-side"
OKEX_SIZE = "okex-liquidation-size"
RANDOM_SIDE = "random-side-2019"
ALL_CORRECTIONS = frozenset({BITFINEX_SIDE, OKEX_SIZE, RANDOM_SIDE})

POLONIEX_SWITCH = 1_629_302_400_000  # 2021-08-18T16:00Z
BITGET_SWITCH = 1_764_288_000_000  # 2025-11-28T00:00Z


@dataclass(frozen=True)
class Settings:
    corrections: frozenset[str] = ALL_CORRECTIONS
    liquidations_included: bool = False
    price_scale: int | None = None
    timeframe_ms: int = MINUTE


DEFAULTS = Settings()
TIMEFRAMES = {1_000: "1s", 60_000: "1m", 300_000: "5m", 3_600_000: "1h", 86_400_000: "1d"}


@dataclass(frozen=True)
class Trade:
    ts: int
    price: float
    size: float
    buy: bool
    liquidation: bool


@dataclass(frozen=True)
class SourceFile:
    """One input of the plan: `path` is relative, without `.gz`; `actual` is what is read."""

    start: int
    path: str
    actual: Path


@dataclass
class Candle:
    open: float = 0.0
    high: float = 0.0
    low: float = 0.0
    close: float = 0.0
    first: tuple[int, int] | None = None
    last: tuple[int, int] | None = None
    volume: list[int] = field(default_factory=lambda: [0, 0])
    count: list[int] = field(default_factory=lambda: [0, 0])
    liquidation: list[int] = field(default_factory=lambda: [0, 0])


@dataclass
class Answer:
    """All that one market comes to.

    `data` is None where no valid trade was found, and where a sum does not fit into its field
    (`overflow`: such a market must fail).
    """

    market: tuple[str, str, str]
    files: int = 0
    trades: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    damaged: list[str] = field(default_factory=list)
    candles: int = 0
    records: int = 0
    data: bytes | None = None
    companion: dict[str, Any] | None = None
    overflow: bool = False

    @property
    def path(self) -> str:
        return "/".join(file_name(part) for part in self.market) + ".bin"


# --- names ---------------------------------------------------------------------------------------


def file_name(part: str) -> str:
    """What a file name cannot hold, or what would hide or climb, is percent-encoded."""
    name = ""
    for character in part:
        unsafe = ord(character) < 32 or ord(character) == 127 or character in "/\\%"
        name += f"%{ord(character):02X}" if unsafe else character
    return name.replace(".", "%2E") if name.startswith(".") else name


def start_of(name: str) -> int | None:
    """The start in ms that a file name (without `.gz`) says, or None if it says none."""
    match = re.fullmatch(r"([0-9]{4})-([0-9]{2})-([0-9]{2})(?:-([0-9]{2}))?", name)
    if not match:
        return None
    year, month, day, hour = (int(part or 0) for part in match.groups())
    try:
        moment = datetime(year, month, day, hour, tzinfo=timezone.utc)
    except ValueError:
        return None
    return int(moment.timestamp()) * 1000


def normal_symbol(exchange: str, symbol: str, start: int) -> str:
    if exchange == "POLONIEX":
        symbol = symbol.upper()
        parts = symbol.split("_")
        if len(parts) != 2:
            return symbol
        first, second = (part in ("USDT", "USDC", "USD", "EUR") for part in parts)
        flip = start < POLONIEX_SWITCH if first == second else first
        return f"{parts[1]}_{parts[0]}" if flip else symbol
    if exchange == "BITGET":
        symbol = symbol.upper()
        for suffix in ("_UMCBL", "_DMCBL", "_CMCBL"):
            if symbol.endswith(suffix):
                return symbol[: -len(suffix)]
        if symbol.endswith("-SPOT") or start >= BITGET_SWITCH:
            return symbol
        return symbol + "-SPOT"
    return symbol


def find(root: Path) -> dict[tuple[str, str, str], list[SourceFile]]:
    """The files of every market in their order; of `X` and `X.gz`, `X` alone."""
    markets: dict[tuple[str, str, str], dict[str, SourceFile]] = {}
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if len(parts) != 5 or not path.is_file():
            continue
        name = parts[4].removesuffix(".gz")
        start = start_of(name)
        if start is None:
            continue
        collector, exchange = parts[0].upper(), parts[2].upper()
        market = (collector, exchange, normal_symbol(exchange, parts[3], start))
        relative = "/".join((*parts[:4], name))
        files = markets.setdefault(market, {})
        if relative not in files or not path.name.endswith(".gz"):
            files[relative] = SourceFile(start, relative, path)
    return {
        market: sorted(files.values(), key=lambda file: (file.start, file.path))
        for market, files in sorted(markets.items())
    }


# --- text ----------------------------------------------------------------------------------------


def text_of(content: bytes, name: str) -> tuple[bytes, bool]:
    """The text that a file's bytes hold, whole rows only where it is damaged."""
    if not content:
        return b"", name.endswith(".gz")
    damaged = False
    if content[:2] == b"\x1f\x8b":
        content, damaged = gunzip(content)
        if damaged:
            content = content[: content.rfind(b"\n") + 1]
    return content.removeprefix(b"\xef\xbb\xbf"), damaged


# --- rows ----------------------------------------------------------------------------------------

_NUMBER = re.compile(rb"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def number(text: bytes) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) else None


def round_half_up(value: float) -> int:
    low = math.floor(value)
    return low + 1 if value - low >= 0.5 else low


def quote_volume(price: float, size: float) -> int | None:
    """Millionths of the quote currency; None if int64 cannot hold it."""
    value = (price * size) * 1e6
    if not math.isfinite(value):
        return None
    volume = round_half_up(value)
    return volume if volume < 1 << 63 else None


def parse_row(row: bytes) -> Trade | str | None:
    """A trade, the reason why it is none, or None for an empty line. `row` has no LF."""
    if len(row) > MAX_ROW:
        return "length"
    fields = [part for part in re.split(rb"[ \t]+", row.removesuffix(b"\r")) if part]
    if not fields:
        return None
    if len(fields) not in (4, 5):
        return "fields"
    ts, price, size = (number(part) for part in fields[:3])
    if ts is None or not math.isfinite(ts) or not 1e11 < math.floor(ts) < 1e13:
        return "timestamp"
    if price is None or not math.isfinite(price) or price <= 0:
        return "price"
    if size is None or not math.isfinite(size) or size < 0:
        return "size"
    if fields[3] not in (b"0", b"1"):
        return "side"
    if len(fields) == 5 and fields[4] not in (b"0", b"1"):
        return "liquidation"
    if quote_volume(price, size) is None:
        return "volume"
    return Trade(math.floor(ts), price, size, fields[3] == b"1", fields[4:] == [b"1"])


def rows_of(text: bytes) -> Iterator[bytes]:
    rows = text.split(b"\n")
    if not rows[-1]:
        rows.pop()
    yield from rows


def trades_of(text: bytes, rejected: Counter[str]) -> list[Trade]:
    trades = []
    for row in rows_of(text):
        parsed = parse_row(row)
        if isinstance(parsed, Trade):
            trades.append(parsed)
        elif parsed is not None:
            rejected[parsed] += 1
    return trades


# --- corrections and candles ---------------------------------------------------------------------


def correct(trade: Trade, exchange: str, names: frozenset[str]) -> Trade:
    size, buy = trade.size, trade.buy
    if trade.liquidation:
        if exchange == "BITFINEX" and BITFINEX_SIDE in names:
            buy = not buy
        in_window = 1_572_940_388_059 <= trade.ts < 1_572_964_319_495
        if exchange == "OKEX" and in_window and OKEX_SIZE in names:
            size = size / 500
    elif RANDOM_SIDE in names and 1_574_193_600_000 <= trade.ts <= 1_575_489_600_000:
        chance = math.fmod(float(trade.ts) * 9301.0 + 49297.0, 233280.0) / 233280.0
        buy = chance >= 0.5
    return Trade(trade.ts, trade.price, size, buy, trade.liquidation)


def candles_of(trades: Iterable[Trade], settings: Settings = DEFAULTS) -> dict[int, Candle]:
    """Candles by start; `trades` are corrected, and in file order."""
    candles: dict[int, Candle] = {}
    for place, trade in enumerate(trades):
        candle = candles.setdefault(trade.ts - trade.ts % settings.timeframe_ms, Candle())
        volume = quote_volume(trade.price, trade.size)
        assert volume is not None
        side = 0 if trade.buy else 1
        if trade.liquidation:
            candle.liquidation[side] += volume
            if not settings.liquidations_included:
                continue
        candle.volume[side] += volume
        candle.count[side] += 1
        moment = (trade.ts, place)
        if candle.first is None or candle.last is None:
            candle.first = candle.last = moment
            candle.open = candle.high = candle.low = candle.close = trade.price
            continue
        candle.high = max(candle.high, trade.price)
        candle.low = min(candle.low, trade.price)
        if moment < candle.first:
            candle.first, candle.open = moment, trade.price
        if moment > candle.last:
            candle.last, candle.close = moment, trade.price
    return candles


def at_scale(price: float, power: int) -> float:
    factor = float(10 ** abs(power))
    return price * factor if power >= 0 else price / factor


def scaled(price: float, power: int) -> int:
    """`price` at a scale of ten to `power`."""
    return round_half_up(at_scale(price, power))


def fits(price: float, power: int) -> bool:
    value = at_scale(price, power)
    return math.isfinite(value) and round_half_up(value) <= INT32_MAX


def decimals(price: float) -> int:
    """Decimals of `price` when written with nine significant digits."""
    mantissa, exponent = f"{price:.8e}".split("e")
    digits = mantissa.replace(".", "").rstrip("0")
    return max(0, len(digits) - 1 - int(exponent))


def auto_power(candles: Iterable[Candle]) -> int:
    prices = [
        price
        for candle in candles
        if candle.first is not None
        for price in (candle.open, candle.high, candle.low, candle.close)
    ]
    power = min(max([4, *map(decimals, prices)]), 308)
    while prices and not fits(max(prices), power):
        power -= 1
    return power


def encode(candles: dict[int, Candle], power: int, timeframe_ms: int = MINUTE) -> bytes:
    """Records from the first candle to the last; what has no candle is zeros."""
    data = bytearray()
    for time in range(min(candles), max(candles) + 1, timeframe_ms):
        candle = candles.get(time)
        if candle is None:
            data += bytes(RECORD.size)
            continue
        prices = (candle.open, candle.high, candle.low, candle.close)
        data += RECORD.pack(
            *(scaled(price, power) for price in prices),
            *candle.volume,
            *candle.count,
            *candle.liquidation,
        )
    return bytes(data)


def power_of(scale: int) -> int:
    return round(math.log10(scale))


def finish(answer: Answer, trades: Iterable[Trade], last_start: int, settings: Settings) -> None:
    """Fills in candles, bytes and companion; `trades` are raw, in file order."""
    exchange = answer.market[1]
    corrected = [correct(trade, exchange, settings.corrections) for trade in trades]
    candles = candles_of(corrected, settings)
    answer.candles = len(candles)
    if not candles:
        return
    if settings.price_scale is None:
        power = auto_power(candles.values())
    else:
        power = power_of(settings.price_scale)
    try:
        answer.data = encode(candles, power, settings.timeframe_ms)
    except struct.error:
        answer.overflow = True
        return
    answer.records = len(answer.data) // RECORD.size
    answer.companion = {
        "exchange": exchange,
        "symbol": answer.market[2],
        "timeframe": TIMEFRAMES[settings.timeframe_ms],
        "timeframeMs": settings.timeframe_ms,
        "startTs": min(candles),
        "endTs": max(candles) + settings.timeframe_ms,
        "priceScale": 10**power if power >= 0 else float(f"1e{power}"),
        "volumeScale": 1_000_000,
        "records": answer.records,
        "lastInputStartTs": last_start,
    }


def backfill(root: Path, settings: Settings = DEFAULTS) -> dict[str, Answer]:
    """What a fresh backfill of the archive under `root` must come to, by "RAM/BINANCE/btcusdt"."""
    answers = {}
    for market, files in find(root).items():
        answer = Answer(market, files=len(files))
        trades: list[Trade] = []
        for file in files:
            text, damaged = text_of(file.actual.read_bytes(), file.actual.name)
            if damaged:
                answer.damaged.append(str(file.actual))
            trades += trades_of(text, answer.rejected)
        answer.trades = len(trades)
        finish(answer, trades, files[-1].start, settings)
        answers["/".join(market)] = answer
    return answers
