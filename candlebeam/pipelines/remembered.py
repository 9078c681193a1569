"""What one process remembers between its backfills, so that files can change while it looks on.

A collector may still write the last rows of a file when it has begun the next one. A backfill that
comes at that moment would leave the file behind for good: only inputs of the latest start are read
again. So later files of a market wait until those before them are seen twice the same; and what was
left behind is looked at from then on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, TypeVar

from candlebeam.inventory import TRADE_LOG, FileVersion, Inventory, ListedFile, MarketInputs
from candlebeam.market import Market
from candlebeam.outcome import EMPTY, FAILED, MarketOutcome
from candlebeam.storage import is_remote, open_input, storage_of

F = TypeVar("F")
#: Versions of inputs by their full paths without `.gz`; None of one that is gone.
Versions = dict[str, FileVersion | None]

#: So many times later files wait for one that keeps changing.
PATIENCE = 20
#: What was not changed for so long is taken for finished, where it was not seen before.
QUIET_SECONDS = 60.0


@dataclass
class _Waiting:
    """Files that later ones of a market wait for, as they were seen last, and how many times."""

    versions: Versions = field(default_factory=dict)
    looks: int = 0


class Memory:
    """What a run knows of earlier ones of the same process: nothing, as a rule.

    `follow` has one that remembers.
    """

    def watched(self, inventory: Inventory[F]) -> Inventory[F]:
        """The inventory as the run is to see it."""
        return inventory

    def known(self, market: Market, listed: Any) -> MarketOutcome | None:
        """What became of a market, if it cannot have changed since."""
        return None

    def from_scratch(self, market: Market, *, asked: bool) -> bool:
        """Whether to make a market from all its inputs; `asked`: the run was told to."""
        return asked


class Remembered(Memory):
    """What is known from earlier backfills of the same output in this process.

    Args:
        force: whether each market is to be made from scratch, once.
        rebuild: whether a market is made again when a file has grown that was left behind.

    Attributes:
        grown: the files that have grown after they were left behind, by market, which are not in
            its candles for that reason.
    """

    def __init__(self, *, force: bool = False, rebuild: bool = False) -> None:
        self._force, self._rebuild = force, rebuild
        self._inventory: Inventory[Any] | None = None
        self._waiting: dict[Market, _Waiting] = {}
        self._left: dict[Market, Versions] = {}
        # Markets without trades: what their inputs were when they were looked at.
        self._empty: dict[Market, tuple[object, ...]] = {}
        self._made: set[str] = set()
        # Of these no file may be kept back any more that is in the candles already.
        self._has_candles: set[Market] = set()
        self.grown: dict[Market, str] = {}

    # As a memory

    def watched(self, inventory: Inventory[F]) -> Inventory[F]:
        self._inventory = inventory
        if inventory.source != TRADE_LOG:
            return inventory
        self._look_back(inventory)
        return _Watched(inventory, self)

    def known(self, market: Market, listed: Any) -> MarketOutcome | None:
        if market not in self._empty or market in self._waiting or self._inventory is None:
            return None
        before = self._empty[market]
        self._empty[market] = _all_versions(self._inventory, market, listed)
        return MarketOutcome(str(market), EMPTY) if before == self._empty[market] else None

    def from_scratch(self, market: Market, *, asked: bool) -> bool:
        again = self._rebuild and market in self.grown
        anew = asked or again or (self._force and str(market) not in self._made)
        if anew:
            self._has_candles.add(market)
        return anew

    def learn(self, outcomes: Iterable[MarketOutcome]) -> None:
        """Takes in what a backfill has come to."""
        for outcome in outcomes:
            market = Market(*outcome.market.split("/", 2))
            if outcome.status == EMPTY:
                self._empty.setdefault(market, ())
            else:
                self._empty.pop(market, None)
            if outcome.status == FAILED:
                continue
            if self._force:
                self._made.add(outcome.market)
            if outcome.rebuilt:
                self.grown.pop(market, None)

    # Files that change

    def has_candles(self, market: Market) -> bool:
        """Whether a market may have candles, of all of its inputs."""
        return market in self._has_candles

    def going_on(
        self, inventory: Inventory[F], market: Market, files: list[ListedFile]
    ) -> list[ListedFile]:
        """Of the inputs that start with those the candles end with, the ones to read now."""
        self._has_candles.add(market)
        return self.settled(inventory, market, files)

    def settled(
        self, inventory: Inventory[F], market: Market, files: list[ListedFile]
    ) -> list[ListedFile]:
        """The inputs of a market up to the first start that still changes, this one included."""
        last_start = files[-1].start_ts if files else 0
        earlier = [file for file in files if file.start_ts != last_start]
        # Elsewhere a file appears as a whole, and asking for each takes long.
        if not earlier or is_remote(files[0].root):
            self._waiting.pop(market, None)
            return files
        now = {_place(file): inventory.version(_place(file)) for file in earlier}
        waiting = self._waiting.pop(market, _Waiting())
        kept: list[ListedFile] = []
        left: Versions = {}
        for _, together in groupby(earlier, key=lambda file: file.start_ts):
            group = list(together)
            kept += group
            if waiting.looks < PATIENCE and any(
                _changes(now, waiting.versions, _place(file)) for file in group
            ):
                self._waiting[market] = _Waiting(now, waiting.looks + 1)
                break
            left |= {_place(file): now[_place(file)] for file in group}
        else:
            kept = files
        self.leave(market, left)
        return kept

    def leave(self, market: Market, versions: Versions) -> None:
        """From now on looks whether these files of a market change; not at those before them."""
        if versions:
            self._left[market] = versions

    def _look_back(self, inventory: Inventory[F]) -> None:
        for market, versions in self._left.items():
            for path, before in versions.items():
                now = None if before is None else inventory.version(path)
                if before is None or now is None or now == before:
                    continue
                if now.name == before.name or not _is_packed(path, now, before):
                    self.grown[market] = path
                versions[path] = now


class _Watched(Inventory[F]):
    """An inventory of files that may change, some of which wait for others."""

    def __init__(self, inventory: Inventory[F], memory: Remembered) -> None:
        self._inventory, self._memory = inventory, memory

    @property
    def path(self) -> str:
        return self._inventory.path

    @property
    def source(self) -> str:
        return self._inventory.source

    @property
    def shared(self) -> bool:
        return self._inventory.shared

    @property
    def notes(self) -> list[str]:
        return self._inventory.notes

    @property
    def problems(self) -> list[str]:
        return self._inventory.problems

    def markets(
        self, collector: str | None = None, exchange: str | None = None, symbol: str | None = None
    ) -> dict[Market, F]:
        return self._inventory.markets(collector, exchange, symbol)

    def files(self, market: Market, found: F, from_ts: int | None = None) -> list[ListedFile]:
        files = self._inventory.files(market, found, from_ts)
        return files if from_ts is None else self._memory.going_on(self._inventory, market, files)

    def inputs(self, market: Market, found: F) -> MarketInputs:
        inputs = self._inventory.inputs(market, found)
        last = len(inputs.last)
        before = inputs.paths[-last - 1 : -last]
        if not before or is_remote(before[0]):
            return inputs
        if self._memory.has_candles(market) or not _may_grow(before[0]):
            path = before[0].removesuffix(".gz")
            self._memory.leave(market, {path: self._inventory.version(path)})
            return inputs
        files = self._inventory.files(market, found)
        since = files[-last - 1].start_ts
        ends = [file for file in files if file.start_ts >= since]
        kept = self._memory.settled(self._inventory, market, ends)
        if len(kept) == len(ends):
            return inputs
        return MarketInputs(inputs.paths[:-last], inputs.sizes[:-last], kept)

    def count_before(self, market: Market, found: F, before_ts: int) -> int:
        return self._inventory.count_before(market, found, before_ts)

    def version(self, path: str) -> FileVersion | None:
        return self._inventory.version(path)

    def look_ahead(self, paths: Iterable[str]) -> None:
        self._inventory.look_ahead(paths)


def _all_versions(inventory: Inventory[F], market: Market, listed: F) -> tuple[object, ...]:
    """What all inputs of a market are now."""
    paths = inventory.inputs(market, listed).paths
    if inventory.source == TRADE_LOG:
        paths = [path.removesuffix(".gz") for path in paths]
    return tuple((path, inventory.version(path)) for path in paths)


def _place(file: ListedFile) -> str:
    """The full path of an input, without `.gz`."""
    return os.path.join(file.root, file.path)


def _changes(now: Versions, before: Versions, path: str) -> bool:
    """Whether a file is another one than it was, or has not been seen and is new."""
    found = now[path]
    if path in before:
        return before[path] != found
    return found is not None and _may_grow(os.path.join(os.path.dirname(path), found.name))


def _may_grow(path: str) -> bool:
    """Whether a file may still be written to, though it is not the last one of its market."""
    try:
        changed = storage_of(path).state(path).mtime_ns / 1e9
    except OSError:
        return False
    return time.time() - changed < QUIET_SECONDS


def _is_packed(path: str, now: FileVersion, plain: FileVersion) -> bool:
    """Whether a file is the packed form of one that was seen before; so is one that is damaged."""
    from candlebeam.formats.trade_log.gzip_text import DamageError, text_pieces

    try:
        opened = open_input(os.path.join(os.path.dirname(path), now.name))
    except OSError:
        return True
    try:
        return sum(map(len, text_pieces(opened.descriptor, opened.size, path))) == plain.size
    except (DamageError, OSError):
        return True
    finally:
        os.close(opened.descriptor)
