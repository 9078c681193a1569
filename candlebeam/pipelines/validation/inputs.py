"""Finding what is to be checked: candle files, aligned files, CSV and Databento files, and strays.

It finds more than `formats.bar_inputs`, which looks for what can be read: also candles without
companion, companions without candles, and indexes without records.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from typing import NamedTuple

from candlebeam.errors import UsageError
from candlebeam.formats.bar_inputs import ALIGNED, CANDLES, kind_of
from candlebeam.rules.periods import Period

#: The kind of a path that is none of bars.
UNKNOWN = "unknown"

_RECORD_BYTES = 64
_PADDING = slice(48, 64)
#: Times of aligned records, in ms, are taken to be between these where nothing else tells.
_TIMES = range(10**11, 10**13)
_LARGEST_COMPANION = 16 << 20


class Candidate(NamedTuple):
    """Something to be checked.

    Attributes:
        kind: one of `bar_inputs.KINDS`, or `UNKNOWN`.
        path: its file; of a candle or aligned file, the `.bin`, whether it is there or not.
        problem: why it cannot be checked; "" if nothing is known to speak against it.
    """

    kind: str
    path: str
    problem: str = ""


class Discovery(NamedTuple):
    """What paths hold.

    Attributes:
        candidates: in the order of the paths, then of their names; each once.
        passed_over: files in folders that are no bars.
    """

    candidates: list[Candidate]
    passed_over: int


def discover(paths: tuple[str, ...]) -> Discovery:
    """Everything at these paths that is to be checked.

    A path that is not there, a file of an unknown kind and a folder without any bars are candidates
    as well: with a problem.
    """
    found: dict[tuple[str, str], Candidate] = {}
    passed_over = 0
    for path in paths:
        if not os.path.isdir(path):
            inside = [_named_file(path)]
        else:
            inside = []
            for folder, name, names in _files_below(path, inside):
                candidate = _classified(folder, name, names)
                if candidate is not None:
                    inside.append(candidate)
                elif not _belongs(folder, name, names):
                    passed_over += 1
            if not inside:
                inside = [Candidate(UNKNOWN, path, "a folder without bars")]
        for candidate in inside:
            found.setdefault((candidate.kind, os.path.realpath(candidate.path)), candidate)
    return Discovery(list(found.values()), passed_over)


def period_of_folder(path: str) -> Period | None:
    """The timeframe that the folder of a file is called by; None if it is called otherwise."""
    with contextlib.suppress(UsageError):
        return Period.parse(os.path.basename(os.path.dirname(os.path.abspath(path))))
    return None


def _named_file(path: str) -> Candidate:
    folder, name = os.path.split(path)
    stem, suffix = os.path.splitext(name)
    if not os.path.lexists(path) and not (suffix == ".bin" and _is_known_bin(folder, stem)):
        return Candidate(UNKNOWN, path, "no such file or folder")
    if os.path.exists(path) and not os.path.isfile(path):
        return Candidate(UNKNOWN, path, "no regular file")
    if suffix == ".idx":
        return Candidate(ALIGNED, _records_of_index(path))
    if suffix == ".json" and _is_companion(path):
        return Candidate(CANDLES, os.path.join(folder, f"{stem}.bin"))
    kind = _kind_of_bin(path) if suffix == ".bin" else kind_of(path)
    if not kind:
        return Candidate(UNKNOWN, path, "neither candles, nor aligned bars, nor .csv, nor .dbn")
    return Candidate(kind, os.path.splitext(path)[0] + ".bin" if kind == CANDLES else path)


def _is_known_bin(folder: str, stem: str) -> bool:
    """Whether something is left of a `.bin` that is gone."""
    left = (f"{stem}.json", f".{stem}.journal", os.path.join("index", f"{stem}.idx"))
    return any(os.path.exists(os.path.join(folder, name)) for name in left)


def _files_below(folder: str, problems: list[Candidate]) -> Iterator[tuple[str, str, set[str]]]:
    """Each file at any depth: its folder, its name, and all names of that folder.

    Folders that cannot be read become candidates with a problem.
    """

    def note(error: OSError) -> None:
        reason = error.strerror or str(error)
        problems.append(Candidate(UNKNOWN, error.filename or folder, reason))

    for here, folders, names in os.walk(folder, onerror=note):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        everything = set(names)
        for name in sorted(names):
            # A pipe where a file is expected must not hang the reader.
            if not name.startswith(".") and not _is_special(os.path.join(here, name)):
                yield here, name, everything


def _is_special(path: str) -> bool:
    """Whether it is neither a regular file nor a link without a file."""
    return os.path.exists(path) and not os.path.isfile(path)


def _classified(folder: str, name: str, names: set[str]) -> Candidate | None:
    """What a file of a folder stands for; None if another stands for it, or it is no bars."""
    path = os.path.join(folder, name)
    stem, suffix = os.path.splitext(name)
    if suffix == ".bin":
        if f"{stem}.json" in names or f".{stem}.journal" in names:
            return Candidate(CANDLES, path)
        return Candidate(_kind_of_bin(path), path)
    if suffix == ".json":
        if f"{stem}.bin" not in names and _is_companion(path):
            return Candidate(CANDLES, os.path.join(folder, f"{stem}.bin"))
        return None
    if suffix == ".idx" and os.path.basename(folder) == "index":
        records = _records_of_index(path)
        return None if os.path.exists(records) else Candidate(ALIGNED, records)
    kind = kind_of(path)
    return Candidate(kind, path) if kind else None


def _belongs(folder: str, name: str, names: set[str]) -> bool:
    """Whether a file that stands for nothing is part of something that is checked."""
    stem, suffix = os.path.splitext(name)
    if suffix == ".json" and f"{stem}.bin" in names:
        return True
    return os.path.basename(folder) == "index" and name.endswith((".idx", ".source.json"))


def _records_of_index(path: str) -> str:
    folder, name = os.path.split(path)
    return os.path.join(os.path.dirname(folder), os.path.splitext(name)[0] + ".bin")


def _kind_of_bin(path: str) -> str:
    """Candles or aligned: by what stands beside the file, its folder, and its first record."""
    if kind_of(path) == CANDLES:
        return CANDLES
    folder, name = os.path.split(path)
    index = os.path.join(folder, "index", os.path.splitext(name)[0] + ".idx")
    if os.path.exists(index) or period_of_folder(path) is not None:
        return ALIGNED
    try:
        with open(path, "rb") as file:
            record = file.read(_RECORD_BYTES)
    except OSError:
        return CANDLES
    is_aligned = (
        len(record) == _RECORD_BYTES
        and int.from_bytes(record[:8], "little") in _TIMES
        and not any(record[_PADDING])
    )
    return ALIGNED if is_aligned else CANDLES


def _is_companion(path: str) -> bool:
    """Whether a JSON file is meant for a companion, be it a damaged one."""
    if os.path.exists(os.path.splitext(path)[0] + ".bin"):
        return True
    try:
        if os.path.getsize(path) > _LARGEST_COMPANION:
            return False
        with open(path, "rb") as file:
            values = json.loads(file.read())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(values, dict) and {"records", "priceScale"} <= values.keys()
