"""The report of a backfill: every market's outcome, and their sums."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from typing import Any

from candlebeam.cluster.job_record import JobRecord
from candlebeam.outcome import EMPTY, FAILED, UP_TO_DATE, WRITTEN, MarketOutcome
from candlebeam.storage.durable import write_atomic

_SUMS = (
    "files", "trades", "late_trades", "late_files", "candles", "gaps", "records",
    "chunks_made", "chunks_reused",
)  # fmt: skip


@dataclass
class Report:
    """What a backfill came to.

    Attributes:
        markets: one outcome a market, sorted.
        notes: what concerns no market alone.
        problems: what could not be read and concerns no market that is known.
        seconds: wall time.
        job: the job that goes on, of a run that was detached.
    """

    markets: list[MarketOutcome] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    job: JobRecord | None = None

    def count(self, status: str) -> int:
        """How many markets ended that way."""
        return sum(outcome.status == status for outcome in self.markets)

    def total(self, name: str) -> int:
        """The sum of a number over all markets."""
        return sum(getattr(outcome, name) for outcome in self.markets)

    @property
    def rejected(self) -> dict[str, int]:
        """Rejected rows by reason."""
        rejected: dict[str, int] = {}
        for outcome in self.markets:
            for reason, rows in outcome.rejected.items():
                rejected[reason] = rejected.get(reason, 0) + rows
        return dict(sorted(rejected.items()))

    @property
    def exit_code(self) -> int:
        """0 if all is well, else 1."""
        return 1 if self.count(FAILED) or self.problems else 0

    def to_json(self) -> dict[str, Any]:
        """The whole of it as plain JSON values."""
        totals: dict[str, Any] = {"markets": len(self.markets)}
        for name, status in (
            ("written", WRITTEN), ("up_to_date", UP_TO_DATE), ("empty", EMPTY), ("failed", FAILED),
        ):  # fmt: skip
            totals[name] = self.count(status)
        totals |= {name: self.total(name) for name in _SUMS}
        totals["bytes"] = self.total("bytes_read")
        totals["rejected"] = self.rejected
        totals["damaged"] = sum(len(outcome.damaged) for outcome in self.markets)
        totals["missing"] = sum(len(outcome.missing) for outcome in self.markets)
        return {
            "markets": [outcome.to_json() for outcome in self.markets],
            "totals": totals,
            "notes": self.notes,
            "problems": self.problems,
            "seconds": round(self.seconds, 3),
            **({"job": asdict(self.job)} if self.job else {}),
        }

    def write(self, path: str) -> None:
        """Writes it as JSON."""
        data = (json.dumps(self.to_json(), indent=2) + "\n").encode()
        write_atomic(os.path.abspath(path), data, durable=False)
