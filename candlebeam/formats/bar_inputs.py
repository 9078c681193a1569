"""Finding bars: candle files, aligned files, CSV and Databento files, by their names.

| name | what it is |
| --- | --- |
| `X.bin` with `X.json` beside it, or `X.json` | a candle file |
| any other `X.bin` | an aligned file |
| `X.csv` | bars as CSV; the month files of a folder are one source a symbol and timeframe |
| `X.dbn`, `X.dbn.zst` | Databento bars or trades, a source an instrument |

In a folder everything at any depth counts, but for what begins with a dot.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from candlebeam.errors import CandlebeamError, UsageError
from candlebeam.formats.bar_source import BarSource
from candlebeam.formats.candles.companion import CandlePaths
from candlebeam.formats.visible_files import visible_files
from candlebeam.storage.paths import expect_local

CANDLES = "candles"
ALIGNED = "aligned"
CSV = "csv"
DBN = "dbn"
#: All kinds, in words for messages.
KINDS = {
    CANDLES: "candle files",
    ALIGNED: "aligned files",
    CSV: "CSV",
    DBN: "Databento files",
}


class BarInput(NamedTuple):
    """Files that belong together: what one source, or the sources of one Databento file, are in.

    Attributes:
        kind: one of `KINDS`.
        paths: the files, in order; more than one only of CSV.
    """

    kind: str
    paths: tuple[str, ...]

    def __str__(self) -> str:
        return self.paths[0]


def find_bars(path: str, kinds: Sequence[str] = tuple(KINDS)) -> list[BarInput]:
    """The bars at a path, in order of their paths.

    Args:
        path: a file, or a folder.
        kinds: what to look for; in a folder other kinds are passed over.

    Raises:
        UsageError: the path is not there, or a file is none of these kinds.
        CandlebeamError: a folder holds none of them.
    """
    expect_local(path)
    wanted = ", ".join(KINDS[kind] for kind in kinds)
    if not os.path.exists(path):
        raise UsageError(f"{path}: no such file or folder")
    if not os.path.isdir(path):
        kind = kind_of(path)
        if kind not in kinds:
            raise UsageError(f"{path}: expected one of: {wanted}")
        return [BarInput(kind, (_named(kind, path),))]
    found: list[BarInput] = []
    for file in visible_files(path):
        kind = kind_of(file)
        if kind != CSV and kind in kinds and file == _named(kind, file):
            found.append(BarInput(kind, (file,)))
    if CSV in kinds:
        from candlebeam.formats.csv.bars import open_csv

        found += [BarInput(CSV, bars.paths) for bars in open_csv(path)]
    if not found:
        raise CandlebeamError(f"{path}: expected {wanted}, found none")
    return sorted(found, key=lambda each: each.paths)


def open_input(found: BarInput) -> list[BarSource]:
    """The sources of an input: one; of a Databento file, one an instrument.

    Raises:
        CandlebeamError: the file is damaged.
    """
    (path, *_) = found.paths
    if found.kind == CANDLES:
        from candlebeam.formats.candles.source import CandleSource

        return [CandleSource(path)]
    if found.kind == ALIGNED:
        from candlebeam.formats.aligned.file import AlignedSource

        return [AlignedSource(path)]
    if found.kind == CSV:
        from candlebeam.formats.csv.bars import CsvBars

        return [CsvBars(found.paths)]
    from candlebeam.formats.dbn.reader import open_dbn_bars

    return list(open_dbn_bars(path))


def kind_of(path: str) -> str:
    """The kind of a file by its name and what stands beside it; "" if it is none."""
    stem, suffix = os.path.splitext(path)
    if path.endswith((".dbn", ".dbn.zst")):
        return DBN
    if suffix == ".csv":
        return CSV
    paths = CandlePaths(stem)
    if suffix == ".json" and (os.path.exists(paths.records) or os.path.exists(paths.journal)):
        return CANDLES
    if suffix != ".bin":
        return ""
    is_pair = os.path.exists(paths.companion) or os.path.exists(paths.journal)
    return CANDLES if is_pair else ALIGNED


def _named(kind: str, path: str) -> str:
    """The file that stands for all that belong to it: of a candle file, the `.bin`."""
    return os.path.splitext(path)[0] + ".bin" if kind == CANDLES else path
