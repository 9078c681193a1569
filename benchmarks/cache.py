"""Where the timed archives are kept, and what is known of each. Imports nothing large."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

VERSION = 1
"""Archives of another version are built anew."""

NAMES = ("dense", "small", "dense4", "busy")


@dataclass(frozen=True)
class Built:
    """What an archive holds: the truth that every program's output is held against."""

    files: int = 0
    trades: int = 0
    """Rows, liquidations included."""
    candles: int = 0
    """Minutes of a market with at least one trade that is not a liquidation."""
    text_bytes: int = 0
    gzip_bytes: int = 0

    def __add__(self, other: Built) -> Built:
        return Built(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


def cache_folder() -> Path:
    """Where archives are kept: $CANDLEBEAM_BENCH_DATA, or else a folder in the user's cache."""
    chosen = os.environ.get("CANDLEBEAM_BENCH_DATA")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "candlebeam-bench"


def read_built(name: str) -> Built | None:
    """What is known of an archive; None if it has to be built."""
    about = cache_folder() / f"{name}.json"
    if not about.is_file():
        return None
    known = json.loads(about.read_text())
    return Built(**known) if known.pop("version") == VERSION else None


def write_built(name: str, built: Built) -> None:
    """Say that an archive is complete."""
    about = cache_folder() / f"{name}.json"
    about.write_text(json.dumps({"version": VERSION, **asdict(built)}, indent=2) + "\n")
