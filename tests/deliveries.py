"""Archives that arrive in steps, as collectors leave them: files grow, are packed, get company."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.archives import HOUR, bad_row, file_name, moment, row

BEGINNINGS = (
    ("BINANCE", "btcusdt", "2024-03-02T00"),
    ("BINANCE", "ethusdt", "2024-12-31T16"),
    ("OKEX", "BTC-USD-SWAP", "2019-11-05T08"),
    ("BITFINEX", "BTCUSD", "2019-11-19T16"),
    ("BITMEX", "XBTUSD", "2019-12-04T16"),
    ("POLONIEX", "BTC_ETH", "2021-08-18T12"),
    ("BITGET", "SOLUSDT", "2025-11-27T20"),
)


@dataclass
class Stream:
    """One symbol folder: the texts of its files in full, and how much of them has arrived."""

    folder: str
    starts: list[int]
    texts: list[bytes]
    arrived: int = 0
    packed: set[int] = field(default_factory=set)

    @property
    def total(self) -> int:
        return sum(map(len, self.texts))

    def files(self, rng: Random) -> dict[str, bytes]:
        """What stands in the folder now. Files that are behind get packed, sooner or later."""
        found: dict[str, bytes] = {}
        left = self.arrived
        for number, (start, text) in enumerate(zip(self.starts, self.texts, strict=True)):
            if left <= 0 and number:
                break
            path = f"{self.folder}/{file_name(start)}"
            part, left = text[:left], left - len(text)
            packed = gzip.compress(part, mtime=0)
            whole = left >= 0
            if number in self.packed or (whole and rng.randrange(3) == 0):
                self.packed.add(number)
                found[f"{path}.gz"] = packed
                continue
            found[path] = part
            if whole and rng.randrange(4) == 0:
                found[f"{path}.gz"] = packed[: rng.randrange(len(packed) + 1)]
        return found


def ordered_texts(rng: Random, starts: list[int], regime: str, late: float) -> list[bytes]:
    """Texts whose rows ascend in time, over the ends of files too, but for a share of late ones."""
    texts, now = [], starts[0]
    for number, start in enumerate(starts):
        end = starts[number + 1] if number + 1 < len(starts) else start + HOUR
        now = max(now, start) if rng.randrange(2) else now
        lines = []
        for _ in range(rng.randrange(1, 16)):
            now += rng.choice((0, 0, 1, 700, 20_000, 60_000, 300_000))
            ts = now - rng.randrange(2 * HOUR) if rng.random() < late else now
            kind = rng.randrange(12)
            lines.append(
                b"" if kind == 0 else bad_row(rng, ts) if kind == 1 else row(rng, ts, regime)
            )
        if rng.randrange(2):
            now = max(now, end - rng.randrange(90_000))
            lines.append(row(rng, now, regime))
        last_end = b"\n" if rng.randrange(4) else b""
        texts.append(b"\n".join(lines) + last_end)
    return texts


@dataclass
class Delivery:
    """Streams that arrive together."""

    rng: Random
    streams: list[Stream]

    def steps(self, count: int) -> Iterator[dict[str, bytes]]:
        """The archive as it stands at each of so many moments; at the last, all has arrived."""
        for step in range(count):
            for stream in self.streams:
                if step == count - 1:
                    stream.arrived = stream.total
                elif self.rng.randrange(4):
                    stream.arrived = min(
                        stream.total, stream.arrived + self.rng.randrange(2 * stream.total // count)
                    )
            yield {
                path: content
                for stream in self.streams
                for path, content in stream.files(self.rng).items()
            }


def make_delivery(rng: Random, regimes: tuple[str, ...], late: float = 0.0) -> Delivery:
    """A delivery of every beginning, each of two to four files."""
    streams = []
    for exchange, symbol, begin in BEGINNINGS:
        starts = [moment(begin) + 4 * HOUR * number for number in range(rng.randrange(2, 5))]
        texts = ordered_texts(rng, starts, rng.choice(regimes), late)
        streams.append(Stream(f"RAM/btc/{exchange}/{symbol}", starts, texts))
    return Delivery(rng, streams)


def sync(root: Path, files: dict[str, bytes]) -> None:
    """Makes the archive under `root` hold these files; those that are unchanged are left alone."""
    for path in [path for path in root.rglob("*") if path.is_file()]:
        if path.relative_to(root).as_posix() not in files:
            path.unlink()
    for name, content in files.items():
        path = root / name
        if path.is_file() and path.read_bytes() == content:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
