"""What a run over outputs of bars came to: of `align`, `resample` and `export`."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from typing import Any

from candlebeam.outcome import EMPTY, FAILED, UP_TO_DATE, WRITTEN, BarsOutcome
from candlebeam.pipelines.progress import format_seconds
from candlebeam.pipelines.wording import counted, shortened
from candlebeam.storage.durable import write_atomic

_STATUSES = (
    ("written", WRITTEN), ("up to date", UP_TO_DATE), ("without bars", EMPTY), ("failed", FAILED),
)  # fmt: skip


@dataclass
class BarsReport:
    """What became of every output.

    Attributes:
        outcomes: one an item, in order.
        notes: what concerns no item alone.
        seconds: wall time.
        noun: what an item is, in the singular.
    """

    outcomes: list[BarsOutcome] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    noun: str = "market"

    def count(self, status: str) -> int:
        """How many items ended that way."""
        return sum(outcome.status == status for outcome in self.outcomes)

    @property
    def bars(self) -> int:
        """Bars that were written."""
        return sum(outcome.bars for outcome in self.outcomes)

    @property
    def files(self) -> list[str]:
        """Files that were written."""
        return [path for outcome in self.outcomes for path in outcome.files]

    @property
    def exit_code(self) -> int:
        """0 if every item is well, else 1."""
        return 1 if self.count(FAILED) else 0

    def to_json(self) -> dict[str, Any]:
        """The whole of it as plain JSON values."""
        totals: dict[str, Any] = {f"{self.noun}s": len(self.outcomes)}
        totals |= {name.replace(" ", "_"): self.count(status) for name, status in _STATUSES}
        totals |= {"bars": self.bars, "files": len(self.files)}
        return {
            f"{self.noun}s": [outcome.to_json() for outcome in self.outcomes],
            "totals": totals,
            "notes": self.notes,
            "seconds": round(self.seconds, 3),
        }

    def write(self, path: str) -> None:
        """Writes it as JSON."""
        data = (json.dumps(self.to_json(), indent=2) + "\n").encode()
        write_atomic(os.path.abspath(path), data, durable=False)

    def print(self) -> None:
        """Prints what was made on standard output, and what went wrong on standard error."""
        for line in self.summary_lines():
            print(line)
        for line in self.problem_lines():
            print(f"candlebeam: {line}", file=sys.stderr)

    def summary_lines(self) -> list[str]:
        """What was made."""
        counts = [f"{self.count(s):,} {name}" for name, s in _STATUSES if self.count(s)]
        lines = [f"{counted(len(self.outcomes), self.noun)}: {', '.join(counts)}"]
        if self.files:
            seconds = self.seconds
            took = format_seconds(seconds) if seconds >= 10 else f"{seconds:.1f} s"
            files = counted(len(self.files), "file")
            lines.append(f"{counted(self.bars, 'bar')} in {files} in {took}")
        return lines

    def problem_lines(self) -> list[str]:
        """What the user should know besides, one line each."""
        notes = [f"{each.name}: {note}" for each in self.outcomes for note in each.notes]
        failed = [
            f"{each.name}: failed: {each.error}" for each in self.outcomes if each.status == FAILED
        ]
        return [
            *self.notes,
            *shortened(notes, "notes"),
            *shortened(failed, f"failed {self.noun}s"),
        ]
