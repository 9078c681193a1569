"""The commit protocol of aligned files: a crash at any instruction leaves the old file or the new.

A file that goes on: records go behind `out_pos`, where they do not count, and are forced to disk;
then what they were made from is noted, for the place of the old index and of the new one; then the
index is replaced, which makes them count.

A file that is made anew: the records are written beside their place and forced to disk; a journal
decides; then all three files are replaced. A journal that is found is carried out; doing so twice
does no harm.

Until all else is written, an open bar stays as it is, and a run that fails leaves it there. Before
the first write a marker is put down, and taken away after the last: while it is there, what stands
behind `out_pos` may be torn, and no reader looks at it.
"""

from __future__ import annotations

import os

from candlebeam.errors import FormatError
from candlebeam.formats.aligned.state import (
    AlignedIndex,
    AlignedJournal,
    AlignedPaths,
    Sidecar,
    read_aligned_journal,
)
from candlebeam.storage.durable import remove, sync_folder, write_atomic


def recover_aligned(paths: AlignedPaths) -> list[str]:
    """Ends what a crash has left of a file that was made anew. Returns what was done, in sentences.

    To be called by the one writer of the file only.
    """
    notes = []
    try:
        journal = read_aligned_journal(paths)
    except FormatError as error:
        # It is written atomically, so this is no crash's work; the file it stands beside is whole.
        os.replace(paths.journal, f"{paths.journal}.damaged")
        notes.append(f"{error}; it was set aside")
        journal = None
    if journal is not None:
        _carry_out(paths, journal)
        notes.append(f"{paths.records}: a commit that had been interrupted was carried out")
    for path in paths.unfinished:
        remove(path)
    return notes


def put_in_place(paths: AlignedPaths, index: AlignedIndex, sidecar: Sidecar) -> None:
    """Has `paths.replacement`, which is on disk, take the place of the file that is there."""
    journal = AlignedJournal(index, sidecar)
    _put(paths, paths.journal, journal.encode())
    _carry_out(paths, journal)


def move_on(paths: AlignedPaths, index: AlignedIndex, sidecar: Sidecar) -> None:
    """Makes records count that are on disk behind those that do.

    Args:
        sidecar: says what was read for the old index and for the new one.
    """
    _put(paths, paths.source, sidecar.encode())
    _put(paths, paths.index, index.encode())


def _carry_out(paths: AlignedPaths, journal: AlignedJournal) -> None:
    if os.path.exists(paths.replacement):
        os.replace(paths.replacement, paths.records)
    sync_folder(paths.folder)
    move_on(paths, journal.index, journal.sidecar)
    remove(paths.writing)
    remove(paths.journal)
    sync_folder(os.path.dirname(paths.journal))


def _put(paths: AlignedPaths, path: str, data: bytes) -> None:
    write_atomic(path, data, temporary=paths.temporary(path))
