"""Which records a feed has handed out, as far back as a replay may bring them again.

A gateway replays by `ts_event`, from a time on. Records come in the order in which they were
received, and their `ts_event` may lie a little before that of others that came earlier. So a replay
is asked for from some way before the newest record, and of all records from there on it is kept
which were handed out: by a fingerprint of what the exchange said of them, and as often as they
came. When they come again they are dropped, in whatever order.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

import numpy as np
import numpy.typing as npt

from candlebeam.formats.dbn import tables as t
from candlebeam.formats.dbn.layout import RECORD_WORDS, SCHEMA_TYPES
from candlebeam.formats.dbn.metadata import databento_dbn

#: A record that was handed out: its `ts_event` in ns, and its fingerprint.
HANDED_DTYPE = np.dtype([("ts", "<u8"), ("fingerprint", "<u8")])

Handed = npt.NDArray[np.void]
Rows = npt.NDArray[np.void]

_CLASSES = {t.TRADE: "MBP1Msg", t.ORDER: "MBOMsg"}
_UNDEFINED = np.uint64(2**64 - 1)
_MIXERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_START = np.uint64(0x9E3779B97F4A7C15)


def row_dtype(schema: str) -> np.dtype[Any]:
    """The fields of a schema's records that trades have, with the records' own length."""
    record_type, kind = SCHEMA_TYPES[schema]
    fields = np.dtype(getattr(databento_dbn(), _CLASSES[kind])._dtypes).fields or {}
    names = (
        "length", "rtype", "publisher_id", "instrument_id", "ts_event", "price", "size", "action",
        "side", "ts_recv", "sequence",
    )  # fmt: skip
    return np.dtype(
        {
            "names": list(names),
            "formats": [fields[name][0] for name in names],
            "offsets": [fields[name][1] for name in names],
            "itemsize": 8 * RECORD_WORDS[record_type],
        }
    )


def handed_of(rows: Rows) -> Handed:
    """What is kept of records.

    The times at which they were received are no part of a fingerprint, and neither are flags: they
    belong to the delivery.
    """
    handed = np.empty(len(rows), HANDED_DTYPE)
    event = rows["ts_event"]
    handed["ts"] = np.where(event == _UNDEFINED, rows["ts_recv"], event)
    mixed = np.full(len(rows), _START)
    for word in (
        rows["instrument_id"].astype(np.uint64) | rows["publisher_id"].astype(np.uint64) << 32,
        handed["ts"],
        np.ascontiguousarray(rows["price"]).view(np.uint64),
        rows["size"].astype(np.uint64) | _byte(rows["side"]) << 32,
        rows["sequence"].astype(np.uint64),
    ):  # fmt: skip
        mixed = _mix(mixed ^ word)
    handed["fingerprint"] = mixed
    return handed


def _byte(column: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    codes: npt.NDArray[np.uint8] = np.ascontiguousarray(column).view(np.uint8)
    return codes.astype(np.uint64)


def _mix(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    words = (words ^ words >> np.uint64(30)) * _MIXERS[0]
    words = (words ^ words >> np.uint64(27)) * _MIXERS[1]
    mixed: npt.NDArray[np.uint64] = words ^ words >> np.uint64(31)
    return mixed


class Ledger:
    """The records that were handed out from a time on; the time moves on with them.

    Args:
        overlap_ns: how much older than the newest record another may be that comes later.
        start_ns: the time from which on a replay is to be asked for; None if there is none yet.
        handed: those handed out from there on.

    Attributes:
        start_ns: as above.
        newest_ns: the latest `ts_event`; None before any record.
        disordered: records that were older than `overlap_ns` before the newest when they came.
    """

    def __init__(self, overlap_ns: int, start_ns: int | None, handed: bytes = b"") -> None:
        self.start_ns = start_ns
        self.newest_ns: int | None = None
        self.disordered = 0
        self._overlap_ns = overlap_ns
        self._parts: deque[tuple[int, Handed]] = deque()
        known = np.frombuffer(handed, HANDED_DTYPE)
        if len(known):
            self._append(known, int(known["ts"].max()))

    def add(self, handed: Handed, newest_ns: int) -> None:
        """Takes what is being handed out.

        Args:
            newest_ns: the latest `ts_event` of it that is no later than its `ts_recv`: a wrong one
                must not make later replays begin in the future.
        """
        if not len(handed):
            return
        if self.start_ns is not None:
            self.disordered += int(np.count_nonzero(handed["ts"] < np.uint64(self.start_ns)))
        self._append(handed, newest_ns)
        self.reach(newest_ns)

    def reach(self, ns: int) -> None:
        """All records up to a time have come, but for those that come late by the overlap."""
        start = max(ns - self._overlap_ns, 0)
        if self.start_ns is None or start > self.start_ns:
            self.start_ns = start
        while self._parts and self._parts[0][0] < self.start_ns:
            self._parts.popleft()

    def begin(self, ns: int) -> None:
        """A first session began at a time: before it there is nothing to have again."""
        if self.start_ns is None:
            self.start_ns = ns

    def handed(self) -> bytes:
        """The records handed out from `start_ns` on, sorted."""
        if self.start_ns is None or not self._parts:
            return b""
        every = np.concatenate([part for _, part in self._parts])
        kept = every[every["ts"] >= np.uint64(self.start_ns)]
        return np.sort(kept, order=("ts", "fingerprint")).tobytes()

    def _append(self, handed: Handed, newest_ns: int) -> None:
        self.newest_ns = max(self.newest_ns or 0, newest_ns)
        self._parts.append((int(handed["ts"].max()), handed))


class Repeats:
    """The records that a replay brings again.

    Args:
        handed: what `Ledger.handed` gave when the replay was asked for.

    Attributes:
        found: how many have come again.
    """

    def __init__(self, handed: bytes = b"") -> None:
        known = np.frombuffer(handed, HANDED_DTYPE)
        self.found = 0
        self.newest_ns = int(known["ts"].max()) if len(known) else None
        self._open: Counter[int] = Counter(known["fingerprint"].tolist())

    def __len__(self) -> int:
        """How many have yet to come."""
        return self._open.total() if self._open else 0

    def new(self, handed: Handed) -> npt.NDArray[np.bool_]:
        """Which records are none of them; each of the others is taken off."""
        mask = np.ones(len(handed), np.bool_)
        if not self._open:
            return mask
        for place, fingerprint in enumerate(handed["fingerprint"].tolist()):
            count = self._open.get(fingerprint)
            if count is None:
                continue
            mask[place] = False
            self.found += 1
            if count > 1:
                self._open[fingerprint] = count - 1
            else:
                del self._open[fingerprint]
        return mask

    def end(self) -> int:
        """What has not come by now will not; returns how many."""
        left = len(self)
        self._open.clear()
        return left
