"""Archives that are written bit by bit, as a collector writes them, with a clock of their own."""

from __future__ import annotations

import gzip
import os
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

MINUTE, HOUR = 60_000, 3_600_000
#: 2024-03-02T00:00Z
START = 1_709_337_600_000
_FOLDERS = ("RAM/2024/KRAKEN/XBT-USDT", "RAM/2024/BYBIT/ethusdt", "PI/2024/OKEX/pepe")
#: How long after an hour its file is compressed.
_ROTATED_AFTER = 3 * MINUTE


@dataclass
class Replay:
    """An archive of a few markets and hours, up to a time.

    Trades come up to a minute late, several in a millisecond. One market has an hour without any,
    one begins in the second hour. Files are cut anywhere, also within rows, as they grow, and are
    compressed some minutes after their hour.

    Args:
        root: where it is written.
        clock: the file that tells its time to `candlebeam stream --clock @FILE`.
        hours: how many.
    """

    root: Path
    clock: Path
    hours: int = 3
    seed: int = 1
    now: int = START
    _rows: list[tuple[int, Path, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        random = Random(self.seed)
        for number, folder in enumerate(_FOLDERS):
            price = (40.5, 2.25, 1.25e-5)[number]
            for hour in range(self.hours):
                if (number, hour) in ((1, 1), (2, 0)):
                    continue
                time = START + hour * HOUR
                path = self.root / folder / f"2024-03-02-{hour:02}"
                while (time := time + random.choice((0, 900, 7_000, 31_000))) < START + HOUR * (
                    hour + 1
                ):
                    ts = time - random.choice((0, 0, 0, 0, 20_000, 59_000))
                    row = f"{ts} {price * (1 + random.random() / 50):.9f} {random.random():.3f}"
                    row += f" {random.randrange(2)}\n"
                    self._rows.append((time, path, row.encode()))
        self._rows.sort(key=lambda row: row[0])
        self._held: dict[Path, bytes] = {}
        self._random = random
        self._next = 0
        self._tell()

    @property
    def end(self) -> int:
        """When the last file is complete."""
        return START + self.hours * HOUR + _ROTATED_AFTER

    def go_on(self, minutes: int = 1) -> None:
        """Writes what comes in the next minutes, and puts the clock forward."""
        for _ in range(minutes):
            self.now += MINUTE
            grown = {path: text for path, text in self._held.items() if text}
            self._held = {}
            while self._next < len(self._rows) and self._rows[self._next][0] < self.now:
                _, path, row = self._rows[self._next]
                grown[path] = grown.get(path, b"") + row
                self._next += 1
            for path, text in grown.items():
                # The rest of a row comes the next time.
                cut = len(text) if self._is_over(path) else len(text) - self._random.randrange(9)
                self._held[path] = text[cut:]
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("ab") as file:
                    file.write(text[:cut])
            self._rotate()
            self._tell()

    def finish(self) -> None:
        """Writes all that is left; then a long time goes by."""
        while self.now < self.end:
            self.go_on()
        self.now += HOUR
        self._tell()

    def _is_over(self, path: Path) -> bool:
        return self.now >= START + (int(path.name[-2:]) + 1) * HOUR

    def _rotate(self) -> None:
        for path in self.root.rglob("2024-*-??"):
            over = START + (int(path.name[-2:]) + 1) * HOUR + _ROTATED_AFTER
            if self.now >= over:
                path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
                path.unlink()

    def _tell(self) -> None:
        new = self.clock.with_suffix(".new")
        new.write_text(str(self.now))
        os.replace(new, self.clock)
