"""The commit protocol of candle files: a crash at any instruction leaves the old pair or the new.

A pair is made new in one of three ways.

- A first one: the candles are written beside their place, forced to disk and renamed; then the
  companion, which makes them count.
- One that grows: new records go behind the old ones, where no reader looks. If old records change
  as well, the last or, in a stream, more of them, a journal decides it first. Then the companion is
  replaced.
- One that is written anew: the candles are written beside their place, a journal decides, both
  files are replaced. So is one that becomes shorter, since a reader may have mapped it, and one
  with quiet candles at its end that a backfill goes on from.

A journal that is found is carried out; doing so twice does no harm.

Where files cannot be written in part (`storage.Storage.is_local`), they appear as a whole: a first
one in its place. Every other pair is written anew, its old candles copied: the replacement is put
there, a journal decides, the replacement is copied into its place.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import numpy as np

from candlebeam.errors import FormatError
from candlebeam.formats.candles.companion import (
    CandlePaths,
    Companion,
    Journal,
    read_companion,
    read_journal,
)
from candlebeam.formats.candles.records import RECORD_DTYPE
from candlebeam.model import Records
from candlebeam.storage import storage_of
from candlebeam.storage.durable import remove, sync_folder, write_all, write_atomic

#: Records with the place of the first, counted from the start of the file.
Placed = tuple[int, Records]
_COPIED_RECORDS = 1 << 16


def recover(paths: CandlePaths) -> list[str]:
    """Ends what a crash has left of a commit. Returns what was done, in sentences.

    To be called by the one writer of the output only.
    """
    notes = []
    storage = storage_of(paths.stem)
    try:
        journal = read_journal(paths)
    except FormatError as error:
        # It is written atomically, so this is no crash's work; the pair it stands beside is whole.
        storage.replace(paths.journal, paths.hidden(".journal.damaged"))
        return [f"{error}; it was set aside"]
    if journal is not None:
        _carry_out(paths, journal)
        notes.append(f"{paths.records}: a commit that had been interrupted was carried out")
    for path in paths.unfinished:
        storage.remove(path)
    if not storage.is_local:
        return notes
    try:
        companion = read_companion(paths.companion)
        size = os.path.getsize(paths.records)
    except (FormatError, FileNotFoundError):
        return notes
    if companion is not None and size > companion.size:
        with open(paths.records, "r+b") as file:
            file.truncate(companion.size)
            os.fsync(file.fileno())
        notes.append(
            f"{paths.records}: {size - companion.size} bytes behind the last candle were cut"
        )
    return notes


def write_anew(
    paths: CandlePaths,
    records: Iterable[Placed],
    size: int,
    companion: Callable[[], Companion],
) -> None:
    """Commits a pair whose candles are all given, whether or not there was one before.

    Args:
        records: the candles in order; what is left out between them becomes zeros.
        size: bytes of all of them.
        companion: gives the new companion, once all records have been taken.
    """
    storage = storage_of(paths.stem)
    storage.make_folder(os.path.dirname(paths.stem))
    is_first = not storage.exists(paths.companion)
    if storage.is_local:
        _write_replacement(paths, records, size)
        if is_first:
            storage.replace(paths.replacement, paths.records)
    else:
        with storage.placing(paths.records if is_first else paths.replacement) as descriptor:
            _write_records(descriptor, records)
            os.ftruncate(descriptor, size)
    if is_first:
        _put(paths, paths.companion, companion().encode())
    else:
        _decide(paths, Journal(companion(), replaces=True))


def _write_replacement(paths: CandlePaths, records: Iterable[Placed], size: int) -> None:
    try:
        with open(paths.replacement, "wb") as file:
            _write_records(file.fileno(), records)
            file.truncate(size)
            os.fsync(file.fileno())
    except BaseException:
        remove(paths.replacement)
        raise


def append(
    paths: CandlePaths,
    old: Companion,
    records: Iterable[Placed],
    size: int,
    companion: Callable[[], Companion],
) -> None:
    """Commits a pair that goes on from an old one: the same scale, maybe another last record.

    Args:
        old: the companion of the pair that is there.
        records: the candles from the last one on that has trades (which comes first), in order.
        size: bytes of the file with all of them.
        companion: gives the new companion, once all records have been taken.
    """
    kept = old.traded.records - 1
    if kept < old.records - 1 or not storage_of(paths.stem).is_local:
        write_anew(paths, chain(_stored_records(paths, kept), records), size, companion)
        return
    tail = b""

    def behind() -> Iterator[Placed]:
        nonlocal tail
        for place, piece in records:
            if place == old.records - 1:
                tail = piece[:1].tobytes()
                yield place + 1, piece[1:]
            else:
                yield place, piece

    offset = old.size - RECORD_DTYPE.itemsize
    with open(paths.records, "r+b") as file:
        _write_records(file.fileno(), behind())
        file.truncate(size)
        os.fsync(file.fileno())
        unchanged = os.pread(file.fileno(), RECORD_DTYPE.itemsize, offset) == tail
    if unchanged:
        _put(paths, paths.companion, companion().encode())
    else:
        _decide(paths, Journal(companion(), tail, offset))


def overwrite(
    paths: CandlePaths, old: Companion, place: int, records: Records, companion: Companion
) -> None:
    """Commits a pair whose last candles are others from a place on, and maybe more; the same scale.

    Args:
        old: the companion of the pair that is there.
        place: of the first of the records, from the start of the file; at most `old.records`.
        records: all candles from there on but for quiet ones at the end; those that are there stay
            so, unless the new pair has fewer of them.
        companion: the new one.
    """
    size = companion.size
    if size < old.size or not storage_of(paths.stem).is_local:
        kept = _stored_records(paths, place)
        write_anew(paths, chain(kept, [(place, records)]), size, lambda: companion)
        return
    inside, behind = records[: old.records - place], records[old.records - place :]
    item = RECORD_DTYPE.itemsize
    with open(paths.records, "r+b") as file:
        stored = np.frombuffer(os.pread(file.fileno(), inside.nbytes, place * item), RECORD_DTYPE)
        changed = np.flatnonzero(stored != inside)
        if size > old.size:
            _write_records(file.fileno(), [(old.records, behind)] if len(behind) else [])
            file.truncate(size)
            os.fsync(file.fileno())
    if len(changed):
        first, last = int(changed[0]), int(changed[-1])
        _decide(
            paths, Journal(companion, inside[first : last + 1].tobytes(), (place + first) * item)
        )
    elif companion != old:
        _put(paths, paths.companion, companion.encode())


def _stored_records(paths: CandlePaths, count: int) -> Iterator[Placed]:
    """The first candles that are there."""
    with storage_of(paths.stem).fetched([paths.records]) as (path,), open(path, "rb") as file:
        for place in range(0, count, _COPIED_RECORDS):
            length = min(_COPIED_RECORDS, count - place)
            data = os.pread(
                file.fileno(), length * RECORD_DTYPE.itemsize, place * RECORD_DTYPE.itemsize
            )
            yield place, np.frombuffer(data, RECORD_DTYPE)


def _write_records(descriptor: int, records: Iterable[Placed]) -> None:
    for place, piece in records:
        data = np.ascontiguousarray(piece).view(np.uint8).data
        write_all(descriptor, data, place * RECORD_DTYPE.itemsize)


def _put(paths: CandlePaths, path: str, data: bytes) -> None:
    storage = storage_of(path)
    if storage.is_local:
        write_atomic(path, data, temporary=paths.temporary(path))
    else:
        storage.write(path, data)


def _decide(paths: CandlePaths, journal: Journal) -> None:
    _put(paths, paths.journal, journal.encode())
    _carry_out(paths, journal)


def _carry_out(paths: CandlePaths, journal: Journal) -> None:
    storage = storage_of(paths.stem)
    if journal.replaces:
        if storage.exists(paths.replacement):
            storage.replace(paths.replacement, paths.records)
    else:
        with open(paths.records, "r+b") as file:
            write_all(file.fileno(), journal.tail, journal.tail_offset)
            os.fsync(file.fileno())
    _put(paths, paths.companion, journal.companion.encode())
    storage.remove(paths.journal)
    if storage.is_local:
        sync_folder(os.path.dirname(paths.journal))
