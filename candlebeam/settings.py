"""What candles are made of and how: the settings that change the bytes of a candle file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from candlebeam.errors import UsageError
from candlebeam.model import Timeframe
from candlebeam.rules.candles import LIQUIDATION_MODES
from candlebeam.rules.corrections import CORRECTIONS, check_corrections
from candlebeam.rules.price_scale import PriceScale

AUTO_SCALE = "auto"


@dataclass(frozen=True)
class CandleSettings:
    """Two candle files of the same input and the same settings have the same bytes.

    Attributes:
        timeframe: the length of a candle.
        corrections: the corrections to apply, by name.
        liquidations: "separate" (in the liquidation volumes alone) or "included" (in prices,
            volumes and counts as well).
        price_scale: a power of ten, or None to choose one a market.
        snap: whether numbers that an archive's writer has cut off are recovered (`rules.steps`).
    """

    timeframe: Timeframe = Timeframe(60_000)
    corrections: tuple[str, ...] = tuple(CORRECTIONS)
    liquidations: str = LIQUIDATION_MODES[0]
    price_scale: PriceScale | None = None
    snap: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "corrections", check_corrections(self.corrections))
        if self.liquidations not in LIQUIDATION_MODES:
            raise UsageError(
                f"liquidations {self.liquidations!r}: expected {' or '.join(LIQUIDATION_MODES)}"
            )

    @property
    def include_liquidations(self) -> bool:
        """Whether liquidations count in prices, volumes and counts."""
        return self.liquidations == "included"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; `from_json` is the inverse."""
        return {
            "timeframe": str(self.timeframe),
            "corrections": list(self.corrections),
            "liquidations": self.liquidations,
            "priceScale": AUTO_SCALE if self.price_scale is None else self.price_scale.value,
            # Named only where it is not as usual: most archives have nothing to recover.
            **({} if self.snap else {"snap": False}),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> CandleSettings:
        """Raises `UsageError`, `KeyError` or `TypeError` where a value is not what it should be."""
        scale = values["priceScale"]
        return cls(
            timeframe=Timeframe.parse(values["timeframe"]),
            corrections=tuple(values["corrections"]),
            liquidations=values["liquidations"],
            price_scale=None if scale == AUTO_SCALE else PriceScale.parse(scale),
            snap=values.get("snap", True) is True,
        )

    def differences(self, other: CandleSettings) -> list[str]:
        """What the other has differently, in words: "timeframe 5m, not 1m"."""
        ours = {**self.to_json(), "snap": self.snap}
        theirs = {**other.to_json(), "snap": other.snap}
        return [
            f"{name} {_words(theirs[name])}, not {_words(ours[name])}"
            for name in ours
            if ours[name] != theirs[name]
        ]


def digest(*parts: Any) -> str:
    """32 hexadecimal digits that stand for JSON values; equal parts give equal digits."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _words(value: Any) -> str:
    return ", ".join(value) or "none" if isinstance(value, list) else str(value)
