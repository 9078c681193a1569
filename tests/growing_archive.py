"""An archive that is written while it is read: rows come late, files are rotated, clocks move."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests import oracle
from tests.archives import HOUR, MINUTE, bad_row, file_name, row

#: 2024-03-02T00:00Z
START = 1_709_337_600_000
#: Folders of a market each; two of one market are always followed together.
FOLDERS = (
    ("RAM/btc/BINANCE/btcusdt",),
    ("RAM/btc/BITGET/btcusdt_UMCBL", "RAM/btc/BITGET/btcusdt_DMCBL"),
    ("RAM/alts/POLONIEX/USDT_BTC",),
    ("PI/alts/KRAKEN/XBT-USDT",),
)


@dataclass
class LogFile:
    """A log of the archive.

    Attributes:
        path: without `.gz`.
        start: ms.
        rows: (when it is written at the earliest, ts or None for junk, bytes), in order.
    """

    path: Path
    start: int
    rows: list[tuple[int, int | None, bytes]] = field(default_factory=list)
    written: int = 0
    is_gzip: bool = False

    def __post_init__(self) -> None:
        self.text = b""

    def finish(self) -> None:
        self.text = b"".join(row for _, _, row in self.rows)

    def size_at(self, time: int) -> int:
        """Bytes of the rows that are there at a time."""
        return sum(len(row) for at, _, row in self.rows if at <= time)

    def ends(self) -> Iterator[tuple[int, int | None]]:
        """Where each row ends, and its time."""
        end = 0
        for _, ts, text in self.rows:
            end += len(text)
            yield end, ts


class GrowingArchive:
    """Logs that are written as time passes.

    Args:
        root: where.
        rng: for everything.
        markets, hours, rows: how many, rows a file at most.
        delay_ms: how much later than it happened a trade is known at most.
        held_ms: how long rows are held back at most once they are known.
        regimes: of the prices, one or several a folder.
    """

    def __init__(
        self,
        root: Path,
        rng: Random,
        *,
        markets: int,
        hours: int,
        rows: int,
        delay_ms: int,
        held_ms: int,
        regimes: tuple[str, ...],
    ) -> None:
        self.root, self.rng, self.held_ms = root, rng, held_ms
        self.now = START
        self.end = START + hours * HOUR
        self.logs: list[LogFile] = []
        root.mkdir(parents=True, exist_ok=True)
        for folder in (name for names in FOLDERS[:markets] for name in names):
            regime = rng.choice(regimes)
            for start in range(START, self.end, HOUR):
                if rng.random() < 0.2:
                    continue
                if rng.random() < 0.2:
                    regime = rng.choice(regimes)
                log = LogFile(root / folder / file_name(start), start)
                time = start
                for _ in range(rng.randrange(rows + 1)):
                    time += rng.choice((0, 0, 1, 900, 20_000, 59_999, 60_000, 400_000))
                    if time >= start + HOUR:
                        break
                    late = rng.choice((0, 0, 0, 1, rng.randrange(delay_ms + 1)))
                    ts = time - late
                    if rng.random() < 0.06:
                        log.rows.append((time, None, bad_row(rng, ts) + b"\n"))
                        continue
                    log.rows.append((time, ts, row(rng, ts, regime) + b"\n"))
                log.finish()
                self.logs.append(log)

    # Writing

    def pass_time(self) -> None:
        """Goes on to some later moment, and writes some of what is to be written by then."""
        rng = self.rng
        self.now += rng.choice((1, 700, 5_000, 31_000, 60_000, 200_000, 900_000, HOUR))
        for log in self.logs:
            least, most = log.size_at(self.now - self.held_ms), log.size_at(self.now)
            self._write(log, rng.choice((least, most, rng.randint(least, most))))
            if self.now > log.start + HOUR + self.held_ms and rng.random() < 0.4:
                self._rotate(log)

    def write_all(self) -> None:
        """Comes to an end."""
        self.now = self.end + HOUR
        for log in self.logs:
            self._write(log, len(log.text))
            if self.rng.random() < 0.5:
                self._rotate(log, whole=True)

    def _write(self, log: LogFile, size: int) -> None:
        if size > log.written or (size == log.written == 0 and self.now > log.start):
            if log.is_gzip:
                return
            log.path.parent.mkdir(parents=True, exist_ok=True)
            with open(log.path, "ab") as file:
                file.write(log.text[log.written : size])
            log.written = max(size, log.written)

    def _rotate(self, log: LogFile, whole: bool = False) -> None:
        """A step of the rotation: both files are there for a while, the new one maybe torn."""
        if log.is_gzip or not log.path.exists():
            return
        # Rows may be added right before it.
        self._write(log, len(log.text))
        other = log.path.with_name(log.path.name + ".gz")
        packed = gzip.compress(log.text, mtime=0)
        step = 2 if whole else self.rng.randrange(3)
        if step == 0:
            other.write_bytes(packed[: self.rng.randrange(len(packed))])
        else:
            other.write_bytes(packed)
        if step == 2:
            log.path.unlink()
            log.is_gzip = True

    # What can be said of it

    def torn_ts(self) -> list[int]:
        """Times of trades that a backfill sees in rows that are not whole yet."""
        found = []
        for log in self.logs:
            if log.is_gzip:
                continue
            tail = log.text[: log.written].rpartition(b"\n")[2]
            trade = oracle.parse_row(tail)
            if isinstance(trade, oracle.Trade):
                found.append(trade.ts)
        return found

    def unwritten_ts(self, folders: tuple[str, ...]) -> list[int]:
        """Times of trades of a market that are not, or not as whole rows, in its files."""
        return [
            ts
            for log in self.of(folders)
            for end, ts in log.ends()
            if end > log.written and ts is not None
        ]

    def written_ts(self, folders: tuple[str, ...], from_start: int = 0) -> list[int]:
        """Times of trades in the files of a market, of those that start at a time or later."""
        return [
            ts
            for log in self.of(folders)
            if log.start >= from_start
            for end, ts in log.ends()
            if end <= log.written and ts is not None
        ]

    def of(self, folders: tuple[str, ...]) -> list[LogFile]:
        """The logs of a market."""
        return [log for log in self.logs if str(log.path.parent.relative_to(self.root)) in folders]


def all_files(folder: Path) -> dict[str, bytes]:
    """Every file under a folder."""
    return {
        os.path.relpath(os.path.join(here, name), folder): Path(here, name).read_bytes()
        for here, _, names in os.walk(folder)
        for name in names
    }


__all__ = ["FOLDERS", "HOUR", "MINUTE", "START", "GrowingArchive", "LogFile", "all_files"]
