"""Where the timed archives are kept, and what is known of each. Imports nothing large."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

VERSION = 1
"""Archives of another version are built anew."""

USUAL = ("dense", "small", "busy", "agg2", "dbn", "dbn-few", "candles")
FULL = ("dense4", "agg2-quarter", "agg2-day", "dbn-quarter", "candles-quarter")
"""For memory alone: of other sizes than those above."""
NAMES = (*USUAL, *FULL)
TINY = {kind: f"{kind}-tiny" for kind in ("agg2", "dbn", "candles")}
"""Next to nothing of a kind, to time a start with."""

_SCALE = "CANDLEBEAM_BENCH_SCALE"


@dataclass(frozen=True)
class Built:
    """What an archive holds: the truth that every program's output is held against."""

    files: int = 0
    """Of AGG2, days."""
    rows: int = 0
    """Trades, liquidations included; of AGG2, aggregates; of a candle file, candles."""
    candles: int = 0
    """Minutes of a market with at least one trade that is not a liquidation."""
    bytes: int = 0
    """Uncompressed."""
    packed_bytes: int = 0
    """On disk; 0 where nothing is compressed."""
    sums: Mapping[str, float] = field(default_factory=dict)
    """What outputs come to, by the names of `outputs`."""

    def __add__(self, other: Built) -> Built:
        names = [*self.sums, *(name for name in other.sums if name not in self.sums)]
        return Built(
            self.files + other.files,
            self.rows + other.rows,
            self.candles + other.candles,
            self.bytes + other.bytes,
            self.packed_bytes + other.packed_bytes,
            {name: self.sums.get(name, 0) + other.sums.get(name, 0) for name in names},
        )


class DataSet(Protocol):
    """An archive that can be built."""

    @property
    def name(self) -> str: ...

    @property
    def base(self) -> DataSet | None:
        """A data set that has to be there first."""
        ...

    def build(self, root: Path) -> Built:
        """Make it in an empty folder, which stands beside that of `base`."""
        ...

    def scaled(self, scale: float) -> DataSet:
        """The same in another size."""
        ...


def cache_folder() -> Path:
    """Where archives are kept: $CANDLEBEAM_BENCH_DATA, or else a folder in the user's cache.

    Those of another scale are kept apart.
    """
    chosen = os.environ.get("CANDLEBEAM_BENCH_DATA")
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "candlebeam-bench"
    folder = Path(chosen) if chosen else usual
    return folder if scale() == 1 else folder / f"scale-{scale():g}"


def scale() -> float:
    """The share of their sizes that data sets are built in."""
    return float(os.environ.get(_SCALE, "1"))


def use_scale(share: float) -> None:
    """Set `scale`, for this process and those it starts."""
    os.environ[_SCALE] = str(share)


def read_built(name: str) -> Built | None:
    """What is known of an archive; None if it has to be built."""
    about = cache_folder() / f"{name}.json"
    if not about.is_file():
        return None
    known = json.loads(about.read_text())
    if known.pop("version") != VERSION:
        return None
    try:
        return Built(**known)
    except TypeError:
        return None  # An older benchmark noted other things of it.


def _write_built(name: str, built: Built) -> None:
    """Say that an archive is complete."""
    about = cache_folder() / f"{name}.json"
    about.write_text(json.dumps({"version": VERSION, **asdict(built)}, indent=2) + "\n")


def ensure(data: DataSet) -> Built:
    """Build a data set, unless it is there already."""
    known = read_built(data.name)
    if known is not None:
        return known
    if data.base is not None:
        ensure(data.base)
    cache = cache_folder()
    unfinished = cache / f"{data.name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.rmtree(cache / data.name, ignore_errors=True)
    unfinished.mkdir(parents=True)
    built = data.build(unfinished)
    unfinished.rename(cache / data.name)
    _write_built(data.name, built)
    return built
