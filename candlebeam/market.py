"""The names of things: markets and timeframes. Part of `model`, without its arrays.

What only names markets, such as the catalog, need not wait for numpy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from candlebeam.errors import UsageError

MS_PER_DAY = 86_400_000

_UNITS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": MS_PER_DAY}
_UNSAFE = re.compile(r"[\x00-\x1f\x7f/\\%]")


def _file_name(part: str) -> str:
    """`part` as the name of one file or folder: what a name cannot hold is percent-encoded."""
    name = _UNSAFE.sub(lambda found: f"%{ord(found[0]):02X}", part)
    return name.replace(".", "%2E") if name in ("", ".", "..") or name.startswith(".") else name


class Market(NamedTuple):
    """The key of everything: who collected, where it traded, and the normalized symbol."""

    collector: str
    exchange: str
    symbol: str

    def __str__(self) -> str:
        return f"{self.collector}/{self.exchange}/{self.symbol}"

    @property
    def path(self) -> str:
        """The market's place under an output root, without suffix, always of three safe parts.

        >>> Market("RAM", "BITMEX", "A/../B").path
        'RAM/BITMEX/A%2F..%2FB'
        """
        return "/".join(_file_name(part) for part in self)


@dataclass(frozen=True, order=True)
class Timeframe:
    """The length of a candle: 1s to 1d, a divisor of a day.

    >>> Timeframe.parse("5m").ms
    300000
    >>> str(Timeframe(3_600_000))
    '1h'
    """

    ms: int

    def __post_init__(self) -> None:
        if not 1_000 <= self.ms <= MS_PER_DAY or MS_PER_DAY % self.ms or self.ms % 1_000:
            raise UsageError(
                f"timeframe of {self.ms} ms: expected whole seconds that divide a day, up to 1d"
            )

    @classmethod
    def parse(cls, text: str) -> Timeframe:
        """Reads `1s`, `30s`, `1m`, `4h`, `1d`; raises `UsageError` for anything else."""
        match = re.fullmatch(r"([1-9][0-9]{0,7})([smhd])", text)
        if not match:
            raise UsageError(f"timeframe {text!r}: expected a number and s, m, h or d, such as 1m")
        ms = int(match[1]) * _UNITS[match[2]]
        if ms > MS_PER_DAY or MS_PER_DAY % ms:
            raise UsageError(f"timeframe {text}: expected a divisor of a day, from 1s to 1d")
        return cls(ms)

    def __str__(self) -> str:
        unit = next(u for u in "dhms" if self.ms % _UNITS[u] == 0)
        return f"{self.ms // _UNITS[unit]}{unit}"
