"""What stands beside an aligned file: its index, and what it was made from.

The index is what counts: it says how much of the records is committed. docs/formats.md has the
layout in full. `NAME.source.json` and the journal are Candlebeam's own.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from candlebeam.errors import FormatError
from candlebeam.formats.candles.companion import read_bytes

#: last_date, padding, in_pos, out_pos. Source: the specification of aligned files.
_INDEX = struct.Struct("<iIQQ")
#: in_pos, out_pos: what older programs wrote.
_LEGACY_INDEX = struct.Struct("<QQ")
#: Version of `NAME.source.json`.
SIDECAR_VERSION = 1


@dataclass(frozen=True)
class AlignedIndex:
    """How far an aligned file has come.

    Attributes:
        last_date: the day of the last committed record, as YYYYMMDD in UTC; 0 before there is one;
            None where an index of 16 bytes does not say.
        in_pos: where to go on in the source, in bytes.
        out_pos: the end of what is committed, in bytes.
    """

    last_date: int | None
    in_pos: int
    out_pos: int

    def encode(self) -> bytes:
        """The 24 bytes of the file; `decode` is the inverse."""
        if self.last_date is None:
            raise ValueError("an index needs the date of its last record")
        return _INDEX.pack(self.last_date, 0, self.in_pos, self.out_pos)

    @classmethod
    def decode(cls, data: bytes, path: str) -> AlignedIndex:
        """Reads 24 bytes, or 16; raises `FormatError`, naming `path`, for anything else."""
        if len(data) == _INDEX.size:
            last_date, _, in_pos, out_pos = _INDEX.unpack(data)
            return cls(last_date, in_pos, out_pos)
        if len(data) == _LEGACY_INDEX.size:
            return cls(None, *_LEGACY_INDEX.unpack(data))
        expected = f"an index of {_INDEX.size} or {_LEGACY_INDEX.size} bytes"
        raise FormatError(path, expected, f"{len(data)} bytes")


@dataclass(frozen=True)
class AlignedPaths:
    """The files of one instrument's bars of one timeframe.

    Attributes:
        folder: where the records are.
        name: of the instrument, such that a file can be called so.
    """

    folder: str
    name: str

    @classmethod
    def of(cls, to: str, timeframe: str, name: str) -> AlignedPaths:
        """Those under a root of aligned files."""
        return cls(os.path.join(to, timeframe), name)

    @classmethod
    def beside(cls, path: str) -> AlignedPaths:
        """Those that belong to a file of records."""
        folder, name = os.path.split(path)
        return cls(folder, os.path.splitext(name)[0])

    @property
    def records(self) -> str:
        """The bars."""
        return os.path.join(self.folder, f"{self.name}.bin")

    @property
    def index(self) -> str:
        """How much of them is committed."""
        return self._beside(f"{self.name}.idx")

    @property
    def source(self) -> str:
        """What they were made from."""
        return self._beside(f"{self.name}.source.json")

    @property
    def journal(self) -> str:
        """A new file that has been decided on but maybe not put in place."""
        return self._beside(f".{self.name}.journal")

    @property
    def writing(self) -> str:
        """There while somebody writes behind the committed records, or has died doing so."""
        return self._beside(f".{self.name}.writing")

    @property
    def replacement(self) -> str:
        """The records that a journal puts in place of `records`."""
        return os.path.join(self.folder, f".{self.name}.bin.new")

    @property
    def unfinished(self) -> tuple[str, ...]:
        """What is written beside its place first, and a crash may leave behind."""
        written = (self.index, self.source, self.journal)
        return self.replacement, *(self.temporary(path) for path in written)

    def temporary(self, path: str) -> str:
        """Where one of the files is written before it is renamed."""
        return self._beside(f".{os.path.basename(path).removeprefix('.')}.tmp")

    def _beside(self, name: str) -> str:
        return os.path.join(self.folder, "index", name)


@dataclass(frozen=True)
class SourceState:
    """What had been read of a source when a file stood at a place.

    Attributes:
        in_pos, out_pos: the place, as in the index.
        checksum: of what the source held before `in_pos`.
    """

    in_pos: int
    out_pos: int
    checksum: int


@dataclass(frozen=True)
class Sidecar:
    """What an aligned file was made from, and how.

    Attributes:
        source: what identifies the source.
        settings: how the bars were made, as plain JSON values.
        states: one or two; the one that counts is that of the index.
    """

    source: str
    settings: Mapping[str, Any]
    states: tuple[SourceState, ...]

    def state_of(self, index: AlignedIndex) -> SourceState | None:
        """The state that an index stands for; None if another program wrote the index."""
        for state in reversed(self.states):
            if (state.in_pos, state.out_pos) == (index.in_pos, index.out_pos):
                return state
        return None

    def to_json(self) -> dict[str, Any]:
        """The object that is stored."""
        return {
            "version": SIDECAR_VERSION,
            "source": self.source,
            "settings": dict(self.settings),
            "states": [
                {"inPos": state.in_pos, "outPos": state.out_pos, "checksum": state.checksum}
                for state in self.states
            ],
        }

    def encode(self) -> bytes:
        """The bytes of the file; `decode` is the inverse."""
        return (json.dumps(self.to_json(), indent=2) + "\n").encode()

    @classmethod
    def decode(cls, data: bytes, path: str) -> Sidecar:
        """Raises `FormatError`, naming `path`, where the bytes say no such thing."""
        try:
            return cls.from_json(json.loads(data))
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            found = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise FormatError(path, "the source of an aligned file", found) from None

    @classmethod
    def from_json(cls, values: Any) -> Sidecar:
        """Raises `KeyError`, `TypeError`, `ValueError` or `AttributeError` for anything else."""
        if values["version"] != SIDECAR_VERSION:
            raise ValueError(f"version {values['version']!r}, not {SIDECAR_VERSION}")
        source, settings = values["source"], values["settings"]
        if not isinstance(source, str) or not isinstance(settings, dict):
            raise ValueError(f"source {source!r} with settings {settings!r}")
        states = tuple(
            SourceState(
                _position(state["inPos"]), _position(state["outPos"]), _position(state["checksum"])
            )
            for state in values["states"]
        )
        return cls(source, settings, states)


@dataclass(frozen=True)
class AlignedJournal:
    """A new file that has been decided on: `AlignedPaths.replacement` takes its place.

    Attributes:
        index, sidecar: of the new file.
    """

    index: AlignedIndex
    sidecar: Sidecar

    def encode(self) -> bytes:
        """The bytes of the file; `decode` is the inverse."""
        values = {"index": self.index.encode().hex(), "sidecar": self.sidecar.to_json()}
        return json.dumps(values).encode()

    @classmethod
    def decode(cls, data: bytes, path: str) -> AlignedJournal:
        """Raises `FormatError`, naming `path`, where the bytes are no journal."""
        try:
            values = json.loads(data)
            index = AlignedIndex.decode(bytes.fromhex(values["index"]), path)
            return cls(index, Sidecar.from_json(values["sidecar"]))
        except FormatError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise FormatError(path, "a commit journal", str(error)) from None


def _position(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 64:
        raise ValueError(f"{value!r} for a place or a checksum")
    return value


def read_index(paths: AlignedPaths) -> AlignedIndex | None:
    """The index of an aligned file; None if there is none. Raises `FormatError`."""
    data = read_bytes(paths.index)
    return None if data is None else AlignedIndex.decode(data, paths.index)


def read_sidecar(paths: AlignedPaths) -> Sidecar | None:
    """What an aligned file was made from; None if nothing says so. Raises `FormatError`."""
    data = read_bytes(paths.source)
    return None if data is None else Sidecar.decode(data, paths.source)


def read_aligned_journal(paths: AlignedPaths) -> AlignedJournal | None:
    """The journal beside an aligned file; None if there is none. Raises `FormatError`."""
    data = read_bytes(paths.journal)
    return None if data is None else AlignedJournal.decode(data, paths.journal)
