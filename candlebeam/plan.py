"""The plan of a backfill: which files each market still needs, cut into shards.

A pure reading of the inventory and the companions. `plan_market` decides for one market; what it
decides is written down as a `MarketTask` and its `Shard`s, which go to the workers.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

from candlebeam.errors import CandlebeamError, FormatError
from candlebeam.formats.candles.companion import (
    CandlePaths,
    Companion,
    InputState,
    ResumeState,
)
from candlebeam.formats.candles.output import CandleOutput
from candlebeam.inventory import DBN, Inventory, ListedFile
from candlebeam.model import Market
from candlebeam.settings import CandleSettings
from candlebeam.shards import FileRun, Shard, chunk_names, cut

F = TypeVar("F")

DEFAULT_SHARD_BYTES = 8 << 20
#: Why candles are not made again by themselves.
FROM_SESSION = (
    "the candles have trades of a live session, which the inputs may not have: --force makes the"
    " market from the inputs alone"
)
#: Of an input of which an earlier run has used everything that is older than what it is read for.
_ALL_SEEN = 1 << 62


@dataclass(frozen=True)
class MarketTask:
    """What has to be known to commit a market once its chunks are there.

    Attributes:
        market: which.
        shards: how many chunks there must be.
        last_start_ts: the latest start among its inputs (ms).
        group_ordinal: the first shard with inputs of that start; these fill it and all after it.
        group: root and relative path (without `.gz`) of these inputs, in file order.
        skipped: folder and name (without `.gz`) of inputs that were not there in earlier runs.
        covered: how many inputs the candles will cover.
        base: bytes of the companion that the candles go on from, without quiet candles at the end;
            none if they start from scratch.
        notes, late_files: for the report.
        rebuilt: whether candles that were there are made again.
    """

    market: Market
    shards: int
    last_start_ts: int
    group_ordinal: int
    group: tuple[tuple[str, str], ...]
    covered: int
    base: bytes = b""
    skipped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    late_files: int = 0
    rebuilt: bool = False

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; `from_json` is the inverse."""
        values = dict(vars(self))
        values["base"] = self.base.decode()
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> MarketTask:
        """The inverse of `to_json`."""
        return cls(
            **{
                **values,
                "market": Market(*values["market"]),
                "group": tuple((root, path) for root, path in values["group"]),
                "skipped": tuple((root, path) for root, path in values["skipped"]),
                "notes": tuple(values["notes"]),
                "base": values["base"].encode(),
            }
        )


@dataclass(frozen=True)
class PlannedMarket:
    """The decision for a market: a task with shards; or nothing to read, and maybe why not.

    Attributes:
        task: None if nothing is to be read.
        shards: of the task.
        error: why the market cannot be made; None if it can or needs not.
        records: candles that are already there, and stay but for the last; quiet ones that a stream
            has written at the end count where nothing is to be read.
        notes, late_files: for the report, if nothing is to be read.
    """

    market: Market
    task: MarketTask | None = None
    shards: tuple[Shard, ...] = ()
    error: str | None = None
    records: int = 0
    notes: tuple[str, ...] = ()
    late_files: int = 0


@dataclass(frozen=True)
class PlanOptions:
    """How to plan.

    Attributes:
        out: the output root.
        settings: what the candles are made of.
        shard_bytes: a shard takes files up to this size together (a larger file is one of its own).
        force: makes every market from scratch.
        rebuild_late: makes a market from scratch when inputs were indexed late.
        rejects: where rejected rows are kept, or "": chunks made without are not reused with it.
    """

    out: str
    settings: CandleSettings
    shard_bytes: int = DEFAULT_SHARD_BYTES
    force: bool = False
    rebuild_late: bool = False
    rejects: str = ""

    @cached_property
    def output(self) -> CandleOutput:
        """What is at `out`."""
        return CandleOutput(self.out)


@dataclass
class _Base:
    """The candles that are there: a companion to go on from, or reasons why not."""

    companion: Companion | None = None
    notes: list[str] = field(default_factory=list)
    rebuilt: bool = False
    #: Candles that are there, quiet ones at the end among them.
    records: int = 0


def plan_market(
    inventory: Inventory[F], market: Market, listed: F, options: PlanOptions
) -> PlannedMarket:
    """Decides what has to be read for a market, from the inventory and its companion."""
    try:
        base = _find_base(market, options)
        if base.companion is not None and base.companion.state is not None:
            return _plan_resumed(inventory, market, listed, options, base, base.companion.state)
        return _plan_fresh(inventory, market, listed, options, base)
    except CandlebeamError as error:
        return PlannedMarket(market, error=str(error))


def _find_base(market: Market, options: PlanOptions) -> _Base:
    paths = CandlePaths.of(options.out, market)
    size = options.output.size(paths)
    has_records = size is not None
    if options.force:
        return _Base(rebuilt=has_records)
    try:
        companion = options.output.companion(paths)
    except FormatError as error:
        return _Base(notes=[f"{error}; the market was made again"], rebuilt=True)
    if companion is None:
        note = f"{paths.records} has no companion; the market was made again"
        return _Base(notes=[note] if has_records else [], rebuilt=has_records)
    if companion.state is None:
        raise CandlebeamError(
            f"{paths.companion} was written by another program, or another version of this one;"
            " --force makes the market again"
        )
    if companion.market != market:
        raise CandlebeamError(f"{paths.companion} belongs to {companion.market}, not to {market}")
    different = options.settings.differences(companion.state.settings)
    if different:
        raise CandlebeamError(
            f"{paths.records} was made with other settings ({'; '.join(different)});"
            " use those, another --out, or --force to make it again"
        )
    if size is None or size < companion.size:
        found = f"has {size} of {companion.size} bytes" if has_records else "is missing"
        if companion.state.sessions:
            raise CandlebeamError(f"{paths.records} {found}; {FROM_SESSION}")
        return _Base(notes=[f"{paths.records} {found}; the market was made again"], rebuilt=True)
    return _Base(companion.traded, records=companion.records)


def _plan_fresh(
    inventory: Inventory[F],
    market: Market,
    listed: F,
    options: PlanOptions,
    base: _Base,
) -> PlannedMarket:
    found = inventory.inputs(market, listed)
    inputs = FileRun(found.paths, found.sizes)
    return _planned(inventory, market, options, inputs, found.last, covered=len(inputs), base=base)


def _plan_resumed(
    inventory: Inventory[F],
    market: Market,
    listed: F,
    options: PlanOptions,
    base: _Base,
    state: ResumeState,
) -> PlannedMarket:
    companion = base.companion
    assert companion is not None
    if not state.files:
        return _plan_behind_session(inventory, market, listed, options, base, state)
    last_start = companion.last_input_start_ts
    found = inventory.files(market, listed, last_start)
    known = _known_inputs(
        inventory.path, state.files, [f for f in found if f.start_ts == last_start]
    )
    last = max(known)
    files = [f for f in found if f in known or f > last]
    covered = inventory.count_before(market, listed, last_start) + sum(f <= last for f in found)
    late_files = max(covered + len(state.sessions) - state.covered, 0) + sum(
        inventory.version(os.path.join(*place)) is not None for place in state.skipped
    )
    if options.rebuild_late and (late_files or state.late_trades):
        what = f"{state.late_trades} trades came"
        if late_files:
            what = f"{late_files} inputs were indexed"
        if state.sessions:
            raise CandlebeamError(f"{what} late; {FROM_SESSION}")
        note = f"{what} late; the market was made again"
        return _plan_fresh(inventory, market, listed, options, _Base(notes=[note], rebuilt=True))
    new = [f for f in files if f not in known]
    if not new and not any(_has_grown(inventory, f, known[f]) for f in files):
        return PlannedMarket(market, records=base.records, late_files=late_files)
    seen = [known[f].text_bytes if f in known else 0 for f in files]
    covered = state.covered + len(new)
    return _planned_on(inventory, companion, options, files, seen, covered, base, late_files)


def _plan_behind_session(
    inventory: Inventory[F],
    market: Market,
    listed: F,
    options: PlanOptions,
    base: _Base,
    state: ResumeState,
) -> PlannedMarket:
    """The plan for candles that end with a live session, which no file stands for.

    The inputs that can hold trades from the last candle on are read, from its start. Of the others,
    and of what is older, nothing is known: the session is taken to have had it, from the first
    candle on.
    """
    companion = base.companion
    assert companion is not None
    if inventory.source != DBN:
        raise CandlebeamError(
            f"its candles end with a live session of {state.inputs[-1].path}, and not with a file"
            f" of {inventory.path}; --force makes the market from what is there"
        )
    from_ts = companion.end_ts - companion.timeframe.ms
    found = inventory.files(market, listed)
    # What does not say where it starts has 0.
    earlier = sum(0 < file.start_ts < companion.start_ts for file in found)
    notes = []
    if earlier:
        what = "1 input begins" if earlier == 1 else f"{earlier} inputs begin"
        notes.append(f"{what} before the first candle; what is older than it is not taken in")
    if options.rebuild_late and state.late_trades:
        notes.append(f"{state.late_trades} trades came late")
    if notes and options.rebuild_late:
        raise CandlebeamError(f"{'; '.join(notes)}; {FROM_SESSION}")
    first = max(sum(file.start_ts <= from_ts for file in found) - 1, 0)
    files = found[first:]
    seen = [_ALL_SEEN if f.start_ts < companion.end_ts else 0 for f in files]
    covered = state.covered + len(found)
    base = replace(base, notes=[*base.notes, *notes])
    return _planned_on(inventory, companion, options, files, seen, covered, base)


def _planned_on(
    inventory: Inventory[F],
    companion: Companion,
    options: PlanOptions,
    files: list[ListedFile],
    seen: list[int],
    covered: int,
    base: _Base,
    late_files: int = 0,
) -> PlannedMarket:
    """The plan for candles that are gone on from: files from their last candle on.

    Args:
        seen: of each file, as `InputFile` has it.
        covered: how many inputs the candles will cover.
    """
    assert companion.state is not None
    return _planned(
        inventory,
        companion.market,
        options,
        FileRun([f.full_path for f in files], [f.size for f in files], seen),
        [f for f in files if f.start_ts == files[-1].start_ts],
        covered=covered,
        base=base,
        late_files=late_files,
        from_ts=companion.end_ts - companion.timeframe.ms,
        skipped=companion.state.skipped,
    )


def _known_inputs(
    archive: str, seen: tuple[InputState, ...], group: list[ListedFile]
) -> dict[ListedFile, InputState]:
    """The inputs of the last start as they are listed now.

    An archive that has moved is known by its relative paths, where these are clear.

    Raises:
        CandlebeamError: one is not listed.
    """
    places = {(file.root, file.path): file for file in group}
    known = {}
    for state in seen:
        file = places.get((state.root, state.path))
        moved = [f for f in group if f.path == state.path]
        if file is None and len(moved) == 1:
            file = moved[0]
        if file is None or file in known:
            raise CandlebeamError(
                f"{state.path}, the input that the candles end with, is not in {archive};"
                " add it, or use --force to make the market from what is there"
            )
        known[file] = state
    return known


def _planned(
    inventory: Inventory[F],
    market: Market,
    options: PlanOptions,
    inputs: FileRun,
    group: list[ListedFile],
    *,
    covered: int,
    base: _Base,
    late_files: int = 0,
    from_ts: int | None = None,
    skipped: tuple[tuple[str, str], ...] = (),
) -> PlannedMarket:
    """The plan for inputs that end with `group`, those of the last start."""
    # A file of several markets is a shard of each: then one worker can read it once for all.
    shard_bytes = 0 if inventory.shared else options.shard_bytes
    before = cut(inputs[: -len(group)], shard_bytes)
    runs = before + cut(inputs[-len(group) :], shard_bytes)
    names = chunk_names(
        runs,
        source=inventory.source,
        market=market,
        from_ts=from_ts,
        settings=options.settings,
        rejects=options.rejects,
    )
    shards = tuple(
        Shard(market, ordinal, run, from_ts, name, inventory.source, inventory.shared)
        for ordinal, (run, name) in enumerate(zip(runs, names, strict=True))
    )
    task = MarketTask(
        market=market,
        shards=len(shards),
        last_start_ts=group[-1].start_ts,
        group_ordinal=len(before),
        group=tuple((file.root, file.path) for file in group),
        covered=covered,
        base=base.companion.encode() if base.companion else b"",
        skipped=skipped,
        notes=tuple(base.notes),
        late_files=late_files,
        rebuilt=base.rebuilt,
    )
    records = base.companion.records if base.companion else 0
    return PlannedMarket(market, task, shards, records=records)


def _has_grown(inventory: Inventory[F], file: ListedFile, seen: InputState) -> bool:
    """Whether an input is another one than was read. One that is gone has nothing new to give."""
    version = inventory.version(os.path.join(file.root, file.path))
    return version is not None and version != (seen.name, seen.size)
