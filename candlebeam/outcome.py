"""What a backfill came to, market by market: the rows of the report."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

from candlebeam.model import FileOutcome

WRITTEN = "written"
UP_TO_DATE = "up-to-date"
EMPTY = "empty"
FAILED = "failed"
#: Not an end: the market has to be made again from all its inputs.
AGAIN = "again"


@dataclass
class MarketOutcome:
    """What became of one market.

    Attributes:
        market: as `collector/exchange/symbol`.
        status: "written", "up-to-date" (there was nothing to add), "empty" (no trade in its
            inputs, so no candle file), or "failed".
        error: why it failed.
        notes: what else the user should know, in sentences.
        files, bytes_read: inputs that were read, and their size on disk.
        trades: rows that were kept. Rows of a file that is read again count again.
        rejected: rows that were not kept, by reason.
        damaged: inputs that could not be read to their end, and why.
        missing: inputs that are not there.
        late_trades: trades that came too late for a resumed file, and are not in it.
        late_files: inputs that were indexed too late for it, and are not in it.
        candles: candles with something in them among those that were written.
        gaps: candles without anything between them.
        records: all candles of the file.
        rebuilt: whether a file that was there was made again.
        chunks_made, chunks_reused: shards that were read, and that an earlier run had finished.
    """

    market: str
    status: str = WRITTEN
    error: str | None = None
    notes: list[str] = field(default_factory=list)
    files: int = 0
    bytes_read: int = 0
    trades: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    damaged: list[dict[str, str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    late_trades: int = 0
    late_files: int = 0
    candles: int = 0
    gaps: int = 0
    records: int = 0
    rebuilt: bool = False
    chunks_made: int = 0
    chunks_reused: int = 0

    def add_files(self, files: Iterable[FileOutcome]) -> None:
        """Counts what reading some inputs came to."""
        for file in files:
            self.files += 1
            self.bytes_read += file.bytes_read
            self.trades += file.trades
            self.late_trades += file.late
            for reason, rows in file.rejected:
                self.rejected[reason] = self.rejected.get(reason, 0) + rows
            if file.damage is not None:
                # Where a file holds several inputs, its own name would not tell which.
                read = file.read_path if file.length is None else None
                self.damaged.append({"path": read or file.path, "damage": file.damage})
            self.notes += [f"{file.path}: {note}" for note in file.notes]
            if is_missing(file):
                self.missing.append(file.path)

    def fail(self, error: str) -> MarketOutcome:
        """Marks the market as failed."""
        self.status, self.error = FAILED, error
        return self

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def encode(self) -> bytes:
        """As bytes; `decode` is the inverse."""
        return json.dumps(self.to_json()).encode()

    @classmethod
    def decode(cls, data: bytes) -> MarketOutcome:
        """Raises `ValueError` or `TypeError` for bytes that `encode` did not make."""
        return cls(**json.loads(data))


def is_missing(file: FileOutcome) -> bool:
    """Whether an input was not there at all."""
    return file.error is not None and file.read_path is None


@dataclass
class BarsOutcome:
    """What became of one output of bars: of `align`, `resample` and `export`.

    Attributes:
        name: the output, as the user knows it: the path of its source, or of the file.
        status: "written", "up-to-date", "empty" (the source has no bars) or "failed".
        error: why it failed.
        notes: what else the user should know, in sentences.
        bars: bars that were written in this run.
        files: the files that were written in this run.
    """

    name: str
    status: str = WRITTEN
    error: str | None = None
    notes: list[str] = field(default_factory=list)
    bars: int = 0
    files: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {item.name: getattr(self, item.name) for item in fields(self)}
