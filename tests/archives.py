"""Made-up archives: everything that the rules speak of, at random but from a seed.

Every function takes a `random.Random`, so that one generator serves plain seeded tests and
Hypothesis alike (`archives()`).
"""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from random import Random

from hypothesis import strategies as st

from tests import oracle

HOUR = 3_600_000
MINUTE = 60_000


@dataclass
class Archive:
    """Files by relative path."""

    files: dict[str, bytes] = field(default_factory=dict)

    def write(self, root: Path) -> Path:
        for path, content in self.files.items():
            place = root / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        return root


def moment(text: str) -> int:
    """Milliseconds of `2024-03-02T04`."""
    return int(datetime.fromisoformat(f"{text}:00:00+00:00").timestamp()) * 1000


def file_name(start: int, daily: bool = False) -> str:
    when = datetime.fromtimestamp(start / 1000, timezone.utc)
    return when.strftime("%Y-%m-%d" if daily else "%Y-%m-%d-%H")


@dataclass(frozen=True)
class Listing:
    """A market as an archive names it, and when to record it."""

    exchange: str
    symbol: str
    begin: str


LISTINGS = (
    Listing("BINANCE", "btcusdt", "2024-03-02T00"),
    Listing("binance", "btcusdt", "2024-03-02T04"),
    Listing("BINANCE", "1000pepeusdt", "2024-02-28T20"),
    Listing("KRAKEN", "XBT-USDT", "2024-12-31T20"),
    Listing("COINBASE", "A b%2F\\c", "2023-06-01T00"),
    Listing("BYBIT", "Ünïcode:é", "2023-06-01T00"),
    Listing("BITFINEX", "tBTCF0:USTF0", "2019-11-19T16"),
    Listing("BITFINEX", "BTCUSD", "2019-12-04T16"),
    Listing("BITFINEX", "BTCUSD", "2019-12-04T20"),
    Listing("BITMEX", "XBTUSD", "2019-11-19T20"),
    Listing("BITMEX", "XBTUSD", "2019-12-04T16"),
    Listing("OKEX", "BTC-USD-SWAP", "2019-11-05T04"),
    Listing("OKEX", "BTC-USD-SWAP", "2019-11-05T12"),
    Listing("okex", "BTC-USD-SWAP", "2019-11-05T12"),
    Listing("POLONIEX", "USDT_BTC", "2021-08-18T12"),
    Listing("POLONIEX", "BTC_USDT", "2021-08-18T16"),
    Listing("POLONIEX", "BTC_ETH", "2021-08-18T12"),
    Listing("POLONIEX", "eth_btc", "2021-08-18T16"),
    Listing("POLONIEX", "USDC_USDT", "2021-08-18T08"),
    Listing("BITGET", "SOLUSDT", "2025-11-27T20"),
    Listing("BITGET", "SOLUSDT", "2025-11-28T00"),
    Listing("BITGET", "solusdt_umcbl", "2025-11-27T20"),
    Listing("BITGET", "SOLUSDT-SPOT", "2025-11-28T00"),
    Listing("OLDEST", "x", "1973-03-03T08"),
    Listing("NEWEST", "x", "2286-11-20T16"),
)

#: Where a rule begins or ends; the milliseconds around each are drawn often.
EDGES = (
    100_000_000_001,
    1_572_940_388_059,
    1_572_964_319_495,
    1_574_193_600_000,
    1_575_489_600_000,
    1_629_302_400_000,
    1_764_288_000_000,
    9_999_999_999_998,
)

REGIMES = ("plain", "noise", "tiny", "huge", "limit", "wild")
_FIXED = {
    "noise": ("100.10000000000001", "99.89999999999999", "12345.678912", "101.7"),
    "tiny": ("5e-7", "9.81e-8", "0.0000067999", "1.2345e-6", "6.8e-06", ".0000051"),
    "huge": ("95000000", "214748.3647", "214748.36475", "3141592653.5", "2147483647", "9E9"),
    "limit": ("214748.3646", "214748.3647", "21474.83647", "0.0001", "0.00005", "214748"),
    "wild": ("1e-12", "123456789.123456789", "1e15", "5.", "+7", "0.1234567890123456789012"),
}
_SIZES = ("0", "-0", "0.5", "1e-7", "12", "3.25e1", "+1.5", ".25", "100", "0.00001000", "7.")


def price_text(rng: Random, regime: str) -> str:
    if regime != "plain" and rng.random() < 0.8:
        return rng.choice(_FIXED[regime])
    cents = rng.randrange(9_000, 11_000)
    kind = rng.randrange(4)
    if kind == 0:
        return f"{cents / 100:.2f}"
    if kind == 1:
        return repr(cents / 100 + rng.randrange(3) * 1.5e-14)
    if kind == 2:
        return f"{cents / 100:.8f}"
    return str(cents)


def ts_text(rng: Random, ts: int) -> str:
    kind = rng.randrange(12)
    if kind == 0:
        return f"{ts}.{rng.randrange(1000)}"
    if kind == 1:
        return f"{ts // 1000}.{ts % 1000:03}e3"
    if kind == 2:
        return f"0{ts}"
    return str(ts)


def row(rng: Random, ts: int, regime: str) -> bytes:
    """A valid row, without its end."""
    side = rng.choice("01")
    liquidation = rng.choice(("", "", "", "0", "0", "1"))
    fields = [ts_text(rng, ts), price_text(rng, regime), rng.choice(_SIZES), side]
    gap = "\t" if rng.randrange(12) == 0 else " "
    text = gap.join([*fields, liquidation] if liquidation else fields)
    if rng.randrange(15) == 0:
        text = f" {text}  "
    return text.encode()


#: Rows that are none, by the reason that must be given for them; `{ts}` is a valid time.
BAD_ROWS: dict[str, tuple[bytes, ...]] = {
    "fields": (
        b"{ts}",
        b"{ts} 1",
        b"{ts} 100 1",
        b"{ts} 100 1 1 0 0",
        b"{ts} 100 1 1{ts} 100 1 1 0",
        b"{ts} 100 1 1 11704067201000 100 1 1",
        b"\0\0\0\0",
        b"{ts},100,1,1",
    ),
    "timestamp": (
        b"100000000000 100 1 1",
        b"100000000000.999 100 1 1",
        b"10000000000000 100 1 1",
        b"1e13 100 1 1",
        b"-{ts} 100 1 1",
        b"{ts}x 100 1 1",
        b"0x18cc251f400 100 1 1",
        b"nan 100 1 1 1",
        b"BINANCE {ts} 100 1 1",
        b"{ts}{ts} 100 1 1",
        b"\0{ts} 100 1 1",
    ),
    "price": (
        b"{ts} 0 1 1",
        b"{ts} 0e5 1 0",
        b"{ts} -1 1 1",
        b"{ts} 1e-400 1 1",
        b"{ts} 1e400 1 1",
        b"{ts} inf 1 1",
        b"{ts} NaN 1 1",
        b"{ts} 1_000 1 1",
        b"{ts} 1e 1 1",
        b"{ts} . 1 1",
        b"{ts} 1.2.3 1 1",
        b"{ts} 1,5 1 1",
        b"{ts} --1 1 1",
    ),
    "size": (
        b"{ts} 100 -1 1",
        b"{ts} 100 -1e-300 1",
        b"{ts} 100 1e999 1",
        b"{ts} 100 infinity 1",
        b"{ts} 100 1f 1 1",
        b"{ts} 100 e5 1",
    ),
    "side": (
        b"{ts} 100 1 2",
        b"{ts} 100 1 01",
        b"{ts} 100 1 buy 0",
        b"{ts} 100 1 1.0",
        b"{ts} 100 1 1\r 0",
    ),
    "liquidation": (
        b"{ts} 100 1 1 2",
        b"{ts} 100 1 0 00",
        b"{ts} 100 1 0 true",
        b"{ts} 100 1 1 1{ts}",
    ),
    "volume": (b"{ts} 1e10 1e9 1", b"{ts} 1e200 1e200 0", b"{ts} 1 9223372036854.775807 1"),
}


def bad_row(rng: Random, ts: int) -> bytes:
    reason = rng.choice(sorted(BAD_ROWS))
    return rng.choice(BAD_ROWS[reason]).replace(b"{ts}", str(ts).encode())


def times(rng: Random, start: int, count: int, span: int, late: float) -> list[int]:
    """Times mostly ascending, with ties, late ones and the edges that are near."""
    near = [edge for edge in EDGES if start - span <= edge <= start + 2 * span]
    found, now = [], start
    for _ in range(count):
        if near and rng.random() < 0.25:
            found.append(rng.choice(near) + rng.randrange(-1, 2))
            continue
        if rng.random() < late:
            found.append(now - rng.randrange(span // 2))
            continue
        step = rng.choice((0, 0, 1, 900, 20_000, 59_999, 60_000, 200_000))
        now = min(now + step, start + span)
        found.append(now)
    return [min(max(ts, 100_000_000_001), 9_999_999_999_999) for ts in found]


def text(rng: Random, start: int, rows: int, regime: str, late: float = 0.1) -> bytes:
    """The text of one file: mostly good rows, some bad, some odd."""
    lines = []
    for ts in times(rng, start, rows, 2 * HOUR, late):
        kind = rng.random()
        if kind < 0.08:
            lines.append(bad_row(rng, ts))
        elif kind < 0.12:
            lines.append(rng.choice((b"", b"  ", b"\t")))
        else:
            lines.append(row(rng, ts, regime))
    end = b"\r\n" if rng.randrange(8) == 0 else b"\n"
    joined = end.join(lines)
    if lines and rng.randrange(6):
        joined += end
    if rng.randrange(12) == 0:
        joined = b"\xef\xbb\xbf" + joined
    return joined


def gzip_member(rng: Random, content: bytes) -> bytes:
    """One member: any level, with or without a name, stored blocks or flushes in it."""
    kind = rng.randrange(4)
    if kind == 0:
        packer = zlib.compressobj(
            rng.choice((0, 1, 9)), zlib.DEFLATED, 31, 9, rng.choice((0, 2, 3, 4))
        )
        half = rng.randrange(len(content) + 1)
        first = packer.compress(content[:half]) + packer.flush(zlib.Z_FULL_FLUSH)
        return first + packer.compress(content[half:]) + packer.flush()
    packed = gzip.compress(content, rng.choice((1, 6, 9)), mtime=0)
    if kind == 1:
        return packed[:3] + b"\x08" + packed[4:10] + b"2024-03-02-00\0" + packed[10:]
    return packed


def gzip_file(rng: Random, content: bytes) -> bytes:
    """Gzip of one or several members, cut anywhere; now and then padded with zeros."""
    packed = b""
    while content and rng.randrange(4) == 0:
        cut = rng.randrange(len(content) + 1)
        packed += gzip_member(rng, content[:cut])
        content = content[cut:]
    packed += gzip_member(rng, content)
    if rng.randrange(10) == 0:
        packed += bytes(rng.randrange(1, 600))
    return packed


DAMAGES = ("cut", "flip", "burst", "trailing", "checksum", "empty", "header")


def damage(rng: Random, packed: bytes, kind: str) -> bytes:
    """A gzip file with one thing wrong; its magic stays as it is, so that it still is one."""
    if kind == "empty":
        return b""
    if kind == "cut":
        return packed[: rng.randrange(2, len(packed))]
    if kind == "trailing":
        return packed + rng.choice((b"x", b"\0\0x", b"\n", b"1704067200000 1 1 1\n", b"\x1f"))
    broken = bytearray(packed)
    if kind == "checksum":
        broken[-rng.randrange(1, 9)] ^= 1 << rng.randrange(8)
    elif kind == "header":
        broken[2] ^= 1 << rng.randrange(8)
    elif kind == "flip":
        broken[rng.randrange(10, len(broken))] ^= 1 << rng.randrange(8)
    else:
        at = rng.randrange(10, len(broken))
        broken[at : at + 8] = bytes(rng.randrange(256) for _ in broken[at : at + 8])
    return bytes(broken)


def is_sane(packed: bytes, start: int) -> bool:
    """False where flipped bits make times that are years off: a huge file of gaps, slow to test."""
    kept = oracle.trades_of(oracle.text_of(packed, "x.gz")[0], Counter())
    return all(abs(trade.ts - start) < 48 * HOUR for trade in kept)


def put(
    rng: Random, archive: Archive, path: str, start: int, content: bytes, damages: bool = True
) -> None:
    """Stores a text under `path` (without `.gz`) in one of the ways that archives know."""
    kind = rng.random()
    if kind < 0.25:
        archive.files[path] = content
    elif kind < 0.30:
        archive.files[path] = gzip_file(rng, content)
    elif kind < 0.35:
        archive.files[f"{path}.gz"] = content or b"\n"
    elif kind < 0.45:
        packed = gzip_file(rng, content)
        archive.files[path] = content
        archive.files[f"{path}.gz"] = packed[: rng.randrange(len(packed) + 1)]
    elif kind < 0.60 and damages:
        packed = damage(rng, gzip_file(rng, content), rng.choice(DAMAGES))
        if is_sane(packed, start):
            archive.files[f"{path}.gz"] = packed
    else:
        archive.files[f"{path}.gz"] = gzip_file(rng, content)


NOISE = (
    "README.md",
    "RAM/btc/BINANCE/2024-03-02-00.gz",
    "RAM/btc/BINANCE/btcusdt/notes.txt",
    "RAM/btc/BINANCE/btcusdt/2024-02-30-00.gz",
    "RAM/btc/BINANCE/btcusdt/2024-03-02-24.gz",
    "RAM/btc/BINANCE/btcusdt/2024-03-02-00.gz.tmp",
    "RAM/btc/BINANCE/btcusdt/2024-03-02-00.GZ",
    "RAM/btc/BINANCE/btcusdt/2024-3-2",
    "RAM/btc/BINANCE/btcusdt/deep/2024-03-02-00.gz",
)


def make_archive(
    rng: Random,
    listings: int = 4,
    files: int = 3,
    rows: int = 12,
    damages: bool = True,
    regimes: tuple[str, ...] = REGIMES,
) -> Archive:
    """An archive of so many listings, each of up to `files` files of up to `rows` rows."""
    archive = Archive()
    for listing in (rng.choice(LISTINGS) for _ in range(listings)):
        collector = rng.choice(("RAM", "RAM", "PI", "ram", "Lab 2"))
        bucket = rng.choice(("btc", "alts", "2019-11-05"))
        regime = rng.choice(regimes)
        start = moment(listing.begin)
        for number in range(rng.randrange(1, files + 1)):
            begin = start + number * rng.choice((4, 4, 1)) * HOUR
            daily = begin % (24 * HOUR) == 0 and rng.randrange(3) == 0
            name = file_name(begin, daily)
            path = f"{collector}/{bucket}/{listing.exchange}/{listing.symbol}/{name}"
            content = text(rng, begin, rng.randrange(rows + 1), regime)
            put(rng, archive, path, begin, content, damages)
    for path in NOISE:
        if rng.randrange(6) == 0:
            archive.files[path] = b"1704067200000 1 1 1\n"
    return archive


def edges_archive(rng: Random) -> Archive:
    """Trades on both sides of every edge of a correction, for every exchange that has one."""
    archive = Archive()
    for exchange in ("BITFINEX", "OKEX", "BITMEX"):
        for edge in EDGES[1:5]:
            rows = [
                f"{edge + step} {rng.uniform(1e4, 1e5)!r} {rng.uniform(1e7, 2e7)!r} {side} {forced}"
                for step in (-60_000, -1, 0, 1, 60_000)
                for side in (0, 1)
                for forced in (0, 1)
            ]
            start = edge - edge % (4 * HOUR)
            path = f"RAM/btc/{exchange}/x{edge}/{file_name(start)}"
            archive.files[path] = "\n".join(rows).encode()
    # Volumes so large that the last bit of a quotient shows.
    rows = [
        f"{EDGES[1] + MINUTE * n} 99999.5 {rng.uniform(5e7, 8e7)!r} {n % 2} 1" for n in range(60)
    ]
    archive.files["RAM/btc/OKEX/large/2019-11-05-04"] = "\n".join(rows).encode()
    return archive


def archives(listings: int = 3, files: int = 2, rows: int = 6) -> st.SearchStrategy[Archive]:
    """Small archives for Hypothesis, which shrinks the draws of the generator."""
    return st.randoms(use_true_random=False).map(
        lambda rng: make_archive(rng, listings=listings, files=files, rows=rows)
    )
