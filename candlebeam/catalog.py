"""The catalog: an SQLite inventory of the files of trade-log archives.

Append-only: indexing adds what is new and changes nothing that is there. Symbols are kept as they
stand in the path; what they mean is a rule (`rules.symbols`) that is applied when a run is planned.
"""

from __future__ import annotations

import os
import re
import sqlite3
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import lru_cache
from itertools import compress
from operator import eq, itemgetter
from typing import NamedTuple

from candlebeam.archive_walk import ArchiveWalk
from candlebeam.errors import CandlebeamError
from candlebeam.inventory import TRADE_LOG, FileVersion, ListedFile, MarketInputs, Versions
from candlebeam.market import Market
from candlebeam.rules.symbols import symbol_eras
from candlebeam.storage import storage_of

SCHEMA_VERSION = 1
#: How many names of skipped files are kept to be shown.
SHOWN_STRAYS = 5

_SCHEMA = """
CREATE TABLE IF NOT EXISTS roots (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS files (
    root_id INTEGER NOT NULL REFERENCES roots (id),
    relative_path TEXT NOT NULL,
    collector TEXT NOT NULL,
    exchange TEXT NOT NULL,
    symbol TEXT NOT NULL,
    start_ts INTEGER NOT NULL,
    ext TEXT NOT NULL,
    size INTEGER NOT NULL,
    PRIMARY KEY (root_id, relative_path)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS files_by_market
    ON files (collector, exchange, symbol, start_ts);
"""
_FILE_NAME = re.compile(r"(\d{4})-(\d{2})-(\d{2})(?:-(\d{2}))?(\.gz)?", re.ASCII)
_EVER = 1 << 62


class SymbolRange(NamedTuple):
    """Files of one raw symbol that start at or after `from_ts` and before `to_ts`."""

    symbol: str
    from_ts: int
    to_ts: int


class _Folder(NamedTuple):
    """A folder of files of one raw symbol; `prefix` is relative to the root, with a slash."""

    root_id: int
    prefix: str

    @property
    def behind(self) -> str:
        """The least path that sorts behind all in it: "0" is what comes after "/"."""
        return self.prefix[:-1] + "0"


class _Row(NamedTuple):
    """What a query gives: plain tuples, since there are many."""

    start_ts: int
    root_id: int
    path: str
    size: int


_COLUMNS = "start_ts, root_id, relative_path, size"


@dataclass
class IndexSummary:
    """What indexing a root came to: files added, files already known, and what was skipped."""

    added: int = 0
    known: int = 0
    skipped: int = 0
    strays: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    def skip(self, path: str) -> None:
        """Counts something that is no input."""
        self.skipped += 1
        if len(self.strays) < SHOWN_STRAYS:
            self.strays.append(path)

    def cannot_read(self, root: str, path: str, error: OSError) -> None:
        """Counts something that may be an input but cannot be read."""
        self.skip(path)
        self.unreadable.append(f"{os.path.join(root, path)}: {error.strerror or error}")


@lru_cache(maxsize=4096)
def parse_start(name: str) -> tuple[int, str] | None:
    """The start (ms) and the extension ("" or ".gz") that a file name stands for; None for others.

    >>> parse_start("2021-01-08-04.gz")
    (1610078400000, '.gz')
    >>> parse_start("2021-02-30") is None
    True
    """
    match = _FILE_NAME.fullmatch(name)
    if not match:
        return None
    year, month, day, hour, ext = match.groups()
    try:
        moment = datetime(int(year), int(month), int(day), int(hour or 0), tzinfo=timezone.utc)
    except ValueError:
        return None
    return int(moment.timestamp()) * 1000, ext or ""


class Catalog:
    """An open catalog; a context manager. An `inventory.Inventory` of trade logs.

    A file and its `.gz` twin are one input; if both are there, the one without is read.

    Args:
        path: the database.
        create: whether to make it if it is not there.

    Raises:
        CandlebeamError: there is none, or the file is something else. So does every method, where
            the database is damaged.
    """

    source = TRADE_LOG
    shared = False

    def __init__(self, path: str, *, create: bool = False) -> None:
        self.notes: list[str] = []
        self.problems: list[str] = []
        if not create and not os.path.isfile(path):
            raise CandlebeamError(
                f"{path}: no such catalog; make one with `candlebeam index ROOT --db {path}`"
            )
        self.path = path
        self._known_folders: dict[tuple[str, str, str], list[_Folder]] | None = None
        self._versions = Versions(self._version)
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
        except sqlite3.Error as error:
            raise CandlebeamError(f"{path}: {error}") from None
        try:
            self._open(create)
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise CandlebeamError(f"{path}: expected a catalog, found: {error}") from None
        except BaseException:
            self._db.close()
            raise

    def _open(self, create: bool) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0 and create:
            (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if tables:
                raise CandlebeamError(f"{self.path}: expected a catalog, found another database")
            self._db.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version = {SCHEMA_VERSION};COMMIT;")
        elif version != SCHEMA_VERSION:
            raise CandlebeamError(
                f"{self.path}: expected a catalog of version {SCHEMA_VERSION},"
                f" found version {version}"
            )

    def __enter__(self) -> Catalog:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    # Indexing

    def index(self, root: str, include: Sequence[str] = ()) -> IndexSummary:
        """Adds the files under a root that are new.

        Args:
            root: the folder that holds `{collector}/{bucket}/{exchange}/{symbol}/` folders.
            include: folders under it, relative to it, to walk instead of all of it.

        Raises:
            UsageError: the root, or a folder to include, is no folder or is outside the root.
            OSError: a remote archive cannot be listed; nothing was added.
        """
        summary = IndexSummary()
        walk = ArchiveWalk(
            root,
            include,
            on_stray=summary.skip,
            on_unreadable=lambda path, error: summary.cannot_read(walk.root, path, error),
        )
        self._known_folders = None
        try:
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("INSERT OR IGNORE INTO roots (path) VALUES (?)", (walk.root,))
            (root_id,) = self._db.execute(
                "SELECT id FROM roots WHERE path = ?", (walk.root,)
            ).fetchone()
            self._db.executemany(
                "INSERT OR IGNORE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                self._new_files(root_id, walk, summary),
            )
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise CandlebeamError(f"{self.path}: {error}") from None
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        return summary

    def _new_files(
        self, root_id: int, walk: ArchiveWalk, summary: IndexSummary
    ) -> Iterator[tuple[int, str, str, str, str, int, str, int]]:
        for folder in walk:
            collector, _, exchange, symbol = folder.parts
            prefix = folder.prefix
            with folder.entries as entries:
                known = self._known(root_id, prefix)
                for entry in entries:
                    path = prefix + entry.name
                    if path in known:
                        summary.known += 1
                        continue
                    start = parse_start(entry.name)
                    try:
                        if start is None or not _utf8(path) or not entry.is_file():
                            summary.skip(path)
                            continue
                        size = entry.stat().st_size
                    except OSError as error:
                        summary.cannot_read(walk.root, path, error)
                        continue
                    summary.added += 1
                    yield (
                        root_id, path, collector.upper(), exchange.upper(), symbol,
                        start[0], start[1], size,
                    )  # fmt: skip

    def _known(self, root_id: int, prefix: str) -> set[str]:
        if not _utf8(prefix):
            return set()
        rows = self._db.execute(
            "SELECT relative_path FROM files"
            " WHERE root_id = ? AND relative_path > ? AND relative_path < ?",
            (*_Folder(root_id, prefix), _Folder(root_id, prefix).behind),
        )
        return {path for (path,) in rows}

    # Reading

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise CandlebeamError(f"{self.path}: {error}") from None

    def markets(
        self,
        collector: str | None = None,
        exchange: str | None = None,
        symbol: str | None = None,
    ) -> dict[Market, list[SymbolRange]]:
        """The markets of the catalog, in order, with the raw symbols that make them up.

        Collector and exchange filter without regard to case; `symbol` is the market's or a raw one.
        """
        with self._reading():
            return self._markets(collector, exchange, symbol)

    def _markets(
        self, collector: str | None, exchange: str | None, symbol: str | None
    ) -> dict[Market, list[SymbolRange]]:
        eras: dict[Market, list[SymbolRange]] = {}
        self._known_folders = self._find_folders()
        for raw_collector, raw_exchange, raw in sorted(self._known_folders):
            if collector and raw_collector != collector.upper():
                continue
            if exchange and raw_exchange != exchange.upper():
                continue
            means = symbol_eras(raw_exchange, raw)
            ends = [era.from_ts for era in means[1:]] + [_EVER]
            for era, end in zip(means, ends, strict=True):
                market = Market(raw_collector, raw_exchange, era.symbol)
                begin = era.from_ts if era is not means[0] else -_EVER
                eras.setdefault(market, []).append(SymbolRange(raw, begin, end))
        wanted = {
            market: ranges
            for market, ranges in sorted(eras.items())
            if not symbol or symbol == market.symbol or symbol in {r.symbol for r in ranges}
        }
        return {m: r for m, r in wanted.items() if any(self._any_file(m, found) for found in r)}

    def _find_folders(self) -> dict[tuple[str, str, str], list[_Folder]]:
        """All folders by (collector, exchange, symbol), by one jump in the table for each."""
        folders: dict[tuple[str, str, str], list[_Folder]] = {}
        for (root_id,) in self._db.execute("SELECT id FROM roots ORDER BY id").fetchall():
            begin = ""
            while True:
                row = self._db.execute(
                    "SELECT relative_path, collector, exchange, symbol FROM files"
                    " WHERE root_id = ? AND relative_path >= ? ORDER BY relative_path LIMIT 1",
                    (root_id, begin),
                ).fetchone()
                if row is None:
                    break
                path, *names = row
                folder = _Folder(root_id, path[: path.rindex("/") + 1])
                folders.setdefault(tuple(names), []).append(folder)
                begin = folder.behind
        return folders

    def _folders(self, market: Market, symbol: str) -> list[_Folder]:
        if self._known_folders is None:
            self._known_folders = self._find_folders()
        return self._known_folders.get((market.collector, market.exchange, symbol), [])

    def _any_file(self, market: Market, found: SymbolRange) -> bool:
        if (found.from_ts, found.to_ts) == (-_EVER, _EVER):
            return True
        return bool(self._rows_between(market, found, found.from_ts, limit=1))

    def files(
        self, market: Market, ranges: list[SymbolRange], from_ts: int | None = None
    ) -> list[ListedFile]:
        """A market's inputs in file order: by start, then path, then root.

        `from_ts` leaves out those that start before it.
        """
        with self._reading():
            rows, roots = self._inputs(market, ranges, from_ts)
        return [_listed(row, roots) for row in rows]

    def inputs(self, market: Market, ranges: list[SymbolRange]) -> MarketInputs:
        """All of a market's inputs in file order, as columns."""
        with self._reading():
            rows, roots = self._inputs(market, ranges, None)
        folders = {root_id: os.path.join(root, "") for root_id, root in roots.items()}
        last: list[ListedFile] = []
        for row in reversed(rows):
            if row[0] != rows[-1][0]:
                break
            last.insert(0, _listed(row, roots))
        return MarketInputs(
            [folders[root_id] + path for _, root_id, path, _ in rows],
            [row[3] for row in rows],
            last,
        )

    def count_before(self, market: Market, ranges: list[SymbolRange], before_ts: int) -> int:
        """How many inputs of a market start before a moment; twins count once."""
        total = 0
        with self._reading():
            for found in ranges:
                for folder in self._folders(market, found.symbol):
                    # A twin is looked for only where a file is not compressed: few are.
                    (count,) = self._db.execute(
                        "SELECT count(*) - coalesce(sum(CASE ext WHEN '' THEN EXISTS ("
                        "SELECT 1 FROM files AS twin WHERE twin.root_id = files.root_id"
                        " AND twin.relative_path = files.relative_path || '.gz')"
                        " ELSE 0 END), 0) FROM files"
                        " WHERE root_id = ? AND relative_path > ? AND relative_path < ?"
                        " AND start_ts >= ? AND start_ts < ?",
                        (*folder, folder.behind, found.from_ts, min(found.to_ts, before_ts)),
                    ).fetchone()
                    total += count
        return total

    def version(self, path: str) -> FileVersion | None:
        """The version of the file at a full path without `.gz`, or of its twin; None if gone."""
        return self._versions(path)

    def look_ahead(self, paths: Iterable[str]) -> None:
        """See `inventory.Inventory.look_ahead`."""
        self._versions.look_ahead(paths)

    @staticmethod
    def _version(path: str) -> FileVersion | None:
        for candidate in (path, path + ".gz"):
            try:
                size = storage_of(candidate).state(candidate).size
                return FileVersion(os.path.basename(candidate), size)
            except OSError:
                continue
        return None

    def _inputs(
        self, market: Market, ranges: list[SymbolRange], from_ts: int | None
    ) -> tuple[list[_Row], Mapping[int, str]]:
        """The rows of a market in file order, each input once, and the paths of the roots."""
        rows: list[_Row] = []
        for found in ranges:
            if from_ts is None:
                for folder in self._folders(market, found.symbol):
                    rows += self._rows_of(folder, found)
            else:
                rows += self._rows_between(market, found, max(found.from_ts, from_ts))
        roots = dict(self._db.execute("SELECT id, path FROM roots").fetchall())
        return _in_file_order(rows, roots), roots

    def _rows_of(self, folder: _Folder, found: SymbolRange) -> list[_Row]:
        """A folder, in the order of the table: nothing has to be looked up."""
        return self._db.execute(
            f"SELECT {_COLUMNS} FROM files"
            " WHERE root_id = ? AND relative_path > ? AND relative_path < ?"
            " AND start_ts >= ? AND start_ts < ?",
            (*folder, folder.behind, found.from_ts, found.to_ts),
        ).fetchall()

    def _rows_between(
        self, market: Market, found: SymbolRange, from_ts: int, limit: int = -1
    ) -> list[_Row]:
        """Those of all folders that start at a moment or after it: for the few that are new."""
        return self._db.execute(
            f"SELECT {_COLUMNS} FROM files INDEXED BY files_by_market"
            " WHERE collector = ? AND exchange = ? AND symbol = ?"
            " AND start_ts >= ? AND start_ts < ? LIMIT ?",
            (market.collector, market.exchange, found.symbol, from_ts, found.to_ts, limit),
        ).fetchall()


def _in_file_order(rows: list[_Row], roots: Mapping[int, str]) -> list[_Row]:
    """Sorts rows into file order and leaves out the twins that are not read.

    Rows of one folder come almost in order, and few start together with another.
    """
    rows.sort(key=itemgetter(0))
    starts = [row[0] for row in rows]
    ordered: list[_Row] = []
    end = 0
    for start in dict.fromkeys(compress(starts, map(eq, starts, starts[1:]))):
        begin = bisect_left(starts, start, end)
        ordered += rows[end:begin]
        end = bisect_right(starts, start, begin)
        ordered += _each_once(rows[begin:end], roots)
    return ordered + rows[end:] if end else rows


def _each_once(rows: Sequence[_Row], roots: Mapping[int, str]) -> list[_Row]:
    """Rows of one start, by path and root; of a file and its `.gz` twin the one without."""
    inputs: dict[tuple[int, str, str], _Row] = {}
    for row in rows:
        start_ts, path, root, ext, _ = _listed(row, roots)
        if (start_ts, path, root) not in inputs or not ext:
            inputs[start_ts, path, root] = row
    return [inputs[key] for key in sorted(inputs)]


def _listed(row: _Row, roots: Mapping[int, str]) -> ListedFile:
    start_ts, root_id, relative, size = row
    path = relative.removesuffix(".gz")
    return ListedFile(start_ts, path, roots[root_id], relative[len(path) :], size)


def _utf8(path: str) -> bool:
    """Whether a path can be stored: its bytes are text."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
