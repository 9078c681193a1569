"""Writing one aligned file: from scratch, or on from what is there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import date, timedelta
from types import MappingProxyType
from typing import Any

import numpy as np

from candlebeam.errors import CandlebeamError, FormatError, UsageError
from candlebeam.formats.aligned.file import (
    ALIGNED_DTYPE,
    PIECE_BARS,
    RECORD_BYTES,
    bars_of,
    check_size,
)
from candlebeam.formats.aligned.kernels import LAST_TS
from candlebeam.formats.aligned.state import (
    AlignedIndex,
    AlignedPaths,
    Sidecar,
    SourceState,
    read_index,
    read_sidecar,
)
from candlebeam.io.aligned_commit import move_on, put_in_place, recover_aligned
from candlebeam.io.aligned_layout import GAPS, AlignedLayout
from candlebeam.model import MS_PER_DAY, Bars, Uint8Array
from candlebeam.storage.durable import remove, sync_folder, write_all

_TIME = ALIGNED_DTYPE["ts"].itemsize
_PADDING = ALIGNED_DTYPE["padding"].itemsize
_NO_SETTINGS: Mapping[str, Any] = MappingProxyType({})


class AlignedWriter:
    """Writes one aligned file, or goes on with it. A context manager: without `commit`, nothing has
    happened.

    Args:
        paths: its files; their folders are made.
        source: what identifies the source of the bars.
        settings: what else the bars depend on, as plain JSON values.
        force: makes everything again, whatever is there.
        gaps: how bars without trades are written, one of `GAPS`. "forward" gives them the close
            before them; in front of the first close there are zeros.

    Attributes:
        notes: what the user should know, in sentences.
        in_pos: where to go on reading in the source, in bytes; 0 from scratch.
        last: the last committed bar, one row; None without any.
        committed: how many bars are committed.
        written: whether `commit` has changed anything.
        bars: how many have been written by then, the open one included.

    Raises:
        CandlebeamError: the file is made from something else, or by another program that says
            nothing of how to go on; or it is damaged, and not ours to make again.
    """

    in_pos: int
    last: Bars | None

    def __init__(
        self,
        paths: AlignedPaths,
        *,
        source: str,
        settings: Mapping[str, Any] = _NO_SETTINGS,
        force: bool = False,
        gaps: str = "zero",
    ) -> None:
        if gaps not in GAPS:
            raise UsageError(f"gaps {gaps!r}: expected {', '.join(GAPS)}")
        self.paths = paths
        self.written = False
        self.bars = 0
        self._sidecar = Sidecar(source, json.loads(json.dumps(dict(settings))), ())
        self._gaps = gaps
        self._descriptor: int | None = None
        self.notes = recover_aligned(paths)
        self._from_scratch()
        if not force:
            self._load()

    def __enter__(self) -> AlignedWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _from_scratch(self) -> None:
        """All that is there will be replaced."""
        self._anew = True
        self._index: AlignedIndex | None = None
        self._state: SourceState | None = None
        self._size = 0
        self._go_on_from(0, 0, None)

    def _go_on_from(self, in_pos: int, out_pos: int, last: Bars | None) -> None:
        self.in_pos, self._out_pos, self.last = in_pos, out_pos, last
        self._end = out_pos
        self._held = b""
        self._overwrites = False
        self._layout = AlignedLayout(self._sidecar.source, self._gaps, last)

    @property
    def committed(self) -> int:
        """See the class."""
        return self._out_pos // RECORD_BYTES

    @property
    def foreign(self) -> bool:
        """Whether nothing says what was read for what is committed; see `adopt`."""
        return not self._anew and self._state is None

    # What is there

    def _load(self) -> None:
        """Finds out how to go on with what is there."""
        paths = self.paths
        before = self._read_sidecar()
        try:
            size = os.path.getsize(paths.records)
        except FileNotFoundError:
            size = 0
        try:
            index = read_index(paths)
            if index is None:
                if size:
                    found = f"{size} bytes of bars without it"
                    raise FormatError(paths.index, "the index of an aligned file", found)
                return
            check_size(paths.records, size, index, torn=True)
            last = self._bar_before(index.out_pos) if index.out_pos else None
        except FormatError as error:
            self._check_same(before)
            if before is None:
                raise CandlebeamError(f"{error}; --force makes the file again") from None
            self.restart(str(error))
            return
        self._check_same(before)
        state = before.state_of(index) if before else None
        if state is None and last is None:
            return
        self._anew = False
        self._index, self._size, self._state = index, size, state
        self._sidecar = before or self._sidecar
        self._go_on_from(index.in_pos, index.out_pos, last)
        self._cut_leftovers(index.out_pos)

    def _read_sidecar(self) -> Sidecar | None:
        try:
            return read_sidecar(self.paths)
        except FormatError as error:
            self.notes.append(f"{error}; taken as if it were not there")
            return None

    def _check_same(self, before: Sidecar | None) -> None:
        if before is None:
            return
        for name, old, new in (
            ("from", before.source, self._sidecar.source),
            ("with", dict(before.settings), dict(self._sidecar.settings)),
        ):
            if old != new:
                raise CandlebeamError(
                    f"{self.paths.records}: made {name} {_text(old)}, not {_text(new)};"
                    " --force makes it again"
                )

    def _record_before(self, end: int) -> bytes:
        with open(self.paths.records, "rb") as file:
            file.seek(end - RECORD_BYTES)
            return file.read(RECORD_BYTES)

    def _bar_before(self, end: int) -> Bars:
        bar = bars_of(np.frombuffer(self._record_before(end), ALIGNED_DTYPE))
        if not 0 <= bar.ts[0] <= LAST_TS:
            found = str(int(bar.ts.view(np.uint64)[0]))
            raise FormatError(self.paths.records, "a time in ms", found, end - RECORD_BYTES)
        return bar

    def _cut_leftovers(self, out_pos: int) -> None:
        """Cuts what an interrupted run has left, so that one open bar is the most there is."""
        interrupted = os.path.exists(self.paths.writing)
        behind = self._size - out_pos
        if behind in (0, RECORD_BYTES) and not interrupted:
            return
        if behind:
            descriptor = os.open(self.paths.records, os.O_RDWR)
            try:
                os.ftruncate(descriptor, out_pos)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            self._size = out_pos
            self.notes.append(
                f"{self.paths.records}: {behind} bytes behind the last committed bar were cut"
            )
        remove(self.paths.writing)

    def adopt(self, bars: Iterable[Bars], in_pos: int, checksum: int) -> None:
        """Goes on with a file that another program wrote, or whose sidecar is lost.

        Args:
            bars: those of the source up to the time of the last committed one, from the first on.
            in_pos: where the source goes on behind them.
            checksum: of the source before that.

        Raises:
            CandlebeamError: the last of them is not the last committed one.
        """
        last, out_pos = self.last, self._out_pos
        assert last is not None
        layout = AlignedLayout(self._sidecar.source, self._gaps, None)
        mine = b""
        for piece in bars:
            mine = layout.lay_out(piece)[-RECORD_BYTES:].tobytes() or mine
        theirs = self._record_before(out_pos)
        moment = f"{np.datetime64(int(last.ts[0]), 'ms')}Z"
        unknown = f"{self.paths.records}: nothing says what it was made from"
        if mine[:-_PADDING] != theirs[:-_PADDING]:
            expected = _numbers(mine) if mine[:_TIME] == theirs[:_TIME] else "none"
            raise CandlebeamError(
                f"{unknown}; its last bar, at {moment}, is {_numbers(theirs)}, but that of"
                f" {self._sidecar.source} is {expected}; --force makes the file again"
            )
        self.in_pos, self._state = in_pos, SourceState(in_pos, out_pos, checksum)
        self.notes.append(
            f"{unknown}; its last bar, at {moment}, is that of {self._sidecar.source}, so it goes"
            " on from there"
        )

    def continues(self, checksum: Callable[[int], int], record_bytes: int) -> bool:
        """Whether what was read before `in_pos` is still the same; if not, call `restart`.

        Args:
            checksum: `BarSource.checksum`.
            record_bytes: `BarSource.record_bytes`.

        Raises:
            CandlebeamError: nobody can tell (see `foreign`).
        """
        if self._anew:
            return True
        if self._state is None:
            raise CandlebeamError(
                f"{self.paths.records}: nothing says what it was made from; --force makes it again"
            )
        if self.in_pos % record_bytes:
            return False
        return checksum(self.in_pos // record_bytes) == self._state.checksum

    def restart(self, reason: str) -> None:
        """Makes everything again; the old file stays until `commit`.

        Args:
            reason: why, for the notes.
        """
        self.close()
        self.notes.append(f"{reason}; {self.paths.records} was made again")
        self._sidecar = Sidecar(self._sidecar.source, self._sidecar.settings, ())
        self._from_scratch()

    # Writing

    def append(self, bars: Bars) -> None:
        """Adds bars that will never change. They count from `commit` on.

        Raises:
            CandlebeamError: a bar is not later than the one before it, or is none.
        """
        for begin in range(0, len(bars), PIECE_BARS):
            data = self._layout.lay_out(bars.part(slice(begin, begin + PIECE_BARS)))
            if not len(data):
                continue
            self._open()
            self.bars += len(data) // RECORD_BYTES
            if self._end == self._out_pos and not self._anew:
                # The open bar stays where it is until all else is written.
                self._held = data[:RECORD_BYTES].tobytes()
                data = data[RECORD_BYTES:]
                self._end += RECORD_BYTES
            self._put(data)

    def _open(self) -> None:
        if self._descriptor is not None:
            return
        os.makedirs(os.path.dirname(self.paths.index), exist_ok=True)
        if self._anew:
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC
            self._descriptor = os.open(self.paths.replacement, flags, 0o666)
            return
        os.close(os.open(self.paths.writing, os.O_WRONLY | os.O_CREAT, 0o666))
        self._descriptor = os.open(self.paths.records, os.O_RDWR | os.O_CREAT, 0o666)

    def _put(self, data: Uint8Array) -> None:
        assert self._descriptor is not None
        write_all(self._descriptor, data.data, self._end)
        self._end += len(data)

    def commit(self, in_pos: int, checksum: int, open_bar: Bars | None = None) -> None:
        """Makes all that was appended count. To be called once, last.

        Args:
            in_pos: where a later run goes on reading in the source, in bytes.
            checksum: of what the source holds before that.
            open_bar: the bar that follows but may still change, one row.
        """
        state = SourceState(in_pos, self._end, checksum)
        index = AlignedIndex(_day(self._layout.record_ts), in_pos, self._end)
        tail = b"" if open_bar is None else self._layout.lay_out(open_bar).tobytes()
        same = state == self._state and state in self._sidecar.states
        if same and tail == self._open_bar():
            return
        self._open()
        self.bars += len(tail) // RECORD_BYTES
        self._write_end(tail)
        known = () if self._anew or self._state is None else (self._state,)
        sidecar = Sidecar(self._sidecar.source, self._sidecar.settings, (*known, state))
        if self._anew:
            put_in_place(self.paths, index, sidecar)
        else:
            if not same or self._index != index:
                move_on(self.paths, index, sidecar)
            remove(self.paths.writing)
        self.written = True

    def _open_bar(self) -> bytes:
        """The open bar that is there."""
        if self._size <= self._out_pos:
            return b""
        return self._record_before(self._out_pos + RECORD_BYTES)

    def _write_end(self, tail: bytes) -> None:
        """Writes the open bar, and what has been held; all of it is on disk then."""
        assert self._descriptor is not None
        self._overwrites = True
        if self._held:
            write_all(self._descriptor, self._held, self._out_pos)
        if tail:
            write_all(self._descriptor, tail, self._end)
        size = self._end + len(tail)
        if size < self._size:
            os.ftruncate(self._descriptor, size)
        os.fsync(self._descriptor)
        if self._anew or not self._size:
            sync_folder(self.paths.folder)
        # From here on it is for the next run to clean up: what is written may already count.
        self._shut()

    def close(self) -> None:
        """Takes back what was appended and not committed."""
        if self._descriptor is None:
            return
        if self._anew:
            self._shut()
            remove(self.paths.replacement)
            return
        try:
            os.ftruncate(self._descriptor, self._out_pos if self._overwrites else self._size)
        finally:
            self._shut()
        remove(self.paths.writing)

    def _shut(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)


def _day(ts: int) -> int:
    """The day of a time in ms as YYYYMMDD; 0 for none."""
    if ts < 0:
        return 0
    return int((date(1970, 1, 1) + timedelta(days=ts // MS_PER_DAY)).strftime("%Y%m%d"))


def _numbers(record: bytes) -> str:
    return ", ".join(map(str, np.frombuffer(record, ALIGNED_DTYPE)["ohlcv"].ravel().tolist()))


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {value[name]}" for name in sorted(value)) or "no settings"
    return str(value)
