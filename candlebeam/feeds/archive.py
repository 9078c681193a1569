"""What a growing archive of trade logs holds now: looked at again and again, at little cost."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import NamedTuple

from candlebeam.archive_walk import ArchiveWalk, Entry
from candlebeam.catalog import parse_start
from candlebeam.errors import CandlebeamError
from candlebeam.market import Market
from candlebeam.rules.symbols import normalize_symbol
from candlebeam.storage import is_remote

#: A folder that was changed so recently may be changed again without a sign of it, ns.
_SETTLED_NS = 3_000_000_000
#: A walk takes at most this part of the time.
_SHARE = 0.05


class LogFile(NamedTuple):
    """A trade log of a market, with or without `.gz`. They sort in file order.

    Attributes:
        start_ts: where it starts, ms.
        path: relative to the root, without `.gz`.
        root: the archive, without links.
    """

    start_ts: int
    path: str
    root: str


class GrowingArchive:
    """The trade logs of one or more roots, by market.

    Args:
        roots: the archives.
        every_s: how often they are walked, at most.
        say: called with a line when a folder cannot be read.

    Attributes:
        markets: the logs of each market, each once, as they were found; only ever grows. Some 300
            bytes a log, in every process that follows.
    """

    def __init__(self, roots: tuple[str, ...], every_s: float, say: Callable[[str], None]) -> None:
        self.markets: dict[Market, list[LogFile]] = {}
        self._roots, self._every_s, self._say = roots, every_s, say
        self._next = 0.0
        self._known: set[LogFile] = set()
        self._versions: dict[tuple[str, str], int] = {}
        self._troubles: set[str] = set()

    def refresh(self) -> bool:
        """Walks the archives if it is time for that; whether it was."""
        begun = time.monotonic()
        if begun < self._next:
            return False
        troubles: set[str] = set()
        for root in self._roots:
            try:
                self._walk(root, troubles)
            except (OSError, CandlebeamError) as error:
                # It may be back the next time: a root that is mounted, or made, later.
                troubles.add(str(error))
        for trouble in sorted(troubles - self._troubles):
            self._say(f"{trouble}; it is tried again")
        self._troubles = troubles
        ended = time.monotonic()
        self._next = ended + max(self._every_s, (ended - begun) / _SHARE)
        return True

    def _walk(self, root: str, troubles: set[str]) -> None:
        walk = ArchiveWalk(
            root,
            (),
            on_stray=lambda path: None,
            on_unreadable=lambda path, error: troubles.add(
                f"{os.path.join(root, path)}: {error.strerror or error}"
            ),
        )
        for folder in walk:
            collector, _, exchange, symbol = folder.parts
            version = _version(walk.root, folder.prefix)
            with folder.entries as entries:
                if version and self._versions.get((walk.root, folder.prefix)) == version:
                    continue
                for entry in entries:
                    if found := parse_start(entry.name):
                        path = folder.prefix + entry.name.removesuffix(".gz")
                        log = LogFile(found[0], path, walk.root)
                        if log not in self._known and self._is_file(log, entry, troubles):
                            self._add(log, collector, exchange, symbol)
            if version and time.time_ns() - version > _SETTLED_NS:
                self._versions[walk.root, folder.prefix] = version

    def _is_file(self, log: LogFile, entry: Entry, troubles: set[str]) -> bool:
        try:
            return _is_text(log.path) and entry.is_file()
        except OSError as error:
            troubles.add(f"{os.path.join(log.root, log.path)}: {error.strerror or error}")
            return False

    def _add(self, log: LogFile, collector: str, exchange: str, symbol: str) -> None:
        name = exchange.upper()
        market = Market(collector.upper(), name, normalize_symbol(name, symbol, log.start_ts))
        self.markets.setdefault(market, []).append(log)
        self._known.add(log)


def _is_text(path: str) -> bool:
    """Whether a path can be stored: its bytes are text."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _version(root: str, prefix: str) -> int:
    """When something was last added to a folder or removed, ns; 0 if that is not known."""
    if is_remote(root):
        return 0
    try:
        return os.stat(os.path.join(root, prefix)).st_mtime_ns
    except OSError:
        return 0
