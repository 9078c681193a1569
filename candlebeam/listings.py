"""Listing archives of few large files, when a run begins: AGG2 and Databento."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from itertools import pairwise

from candlebeam.errors import CandlebeamError, UsageError
from candlebeam.inventory import AGG2, DBN, ListedFile, ListedInventory
from candlebeam.market import Market

AGG2_COLLECTOR = "QUANTDEV"
AGG2_EXCHANGE = "BINANCE_FUTURES"
#: How many names of skipped files are shown.
_SHOWN = 5


def list_agg2(
    base: str, *, exchange: str | None = None, symbol: str | None = None
) -> ListedInventory:
    """The days of an AGG2 archive, each an input of its symbol's market.

    Args:
        base: the folder that holds `{symbol}/{YYYY}/{MM}/`.
        exchange: which exchange the trades are from; the archive does not say.
        symbol: lists this one alone.

    Raises:
        UsageError: there is no such folder.
    """
    from candlebeam.formats.agg2_index import DATA_NAME, list_days

    base = os.path.realpath(base)
    if not os.path.isdir(base):
        raise UsageError(f"{base}: expected a folder with an AGG2 archive, found none")
    inputs: dict[Market, list[ListedFile]] = {}
    skipped: list[str] = []
    problems: list[str] = []
    days = list_days(base, symbol, on_stray=skipped.append, on_problem=problems.append)
    for day in days:
        market = Market(AGG2_COLLECTOR, (exchange or AGG2_EXCHANGE).upper(), day.symbol)
        inputs.setdefault(market, []).append(ListedFile(day.start_ts, day.path, base, "", day.size))
    return ListedInventory(
        base,
        AGG2,
        inputs,
        notes=_skipped_note(skipped, "no AGG2 archive"),
        problems=problems,
        part_of=DATA_NAME,
    )


def list_dbn(paths: Sequence[str]) -> ListedInventory:
    """Databento files of trades, each an input of every market in it.

    Args:
        paths: files, or folders with `.dbn` and `.dbn.zst` files at any depth.

    Raises:
        UsageError: a path is not there.
    """
    from candlebeam.formats.dbn import describe_dbn

    inputs: dict[Market, list[ListedFile]] = {}
    ranges: dict[Market, list[tuple[int, int, str]]] = {}
    skipped: list[str] = []
    notes: list[str] = []
    problems: list[str] = []
    for path in _dbn_files(paths, skipped):
        try:
            described = describe_dbn(path)
            size = os.path.getsize(path)
        except (CandlebeamError, OSError) as error:
            problems.append(str(error))
            continue
        if not described.has_trades:
            use = "; `resample` and `export` read bars" if described.timeframe else ""
            notes.append(f"{path}: {described.schema} records are no trades{use}")
            continue
        folder, name = os.path.split(path)
        for symbol in described.symbols:
            market = described.market(symbol)
            start, end = described.start_ts or 0, described.end_ts
            inputs.setdefault(market, []).append(ListedFile(start, name, folder, "", size))
            if end is not None:
                ranges.setdefault(market, []).append((start, end, path))
    return ListedInventory(
        ", ".join(paths),
        DBN,
        inputs,
        shared=True,
        notes=[*_skipped_note(skipped, "no Databento files"), *notes],
        problems=problems,
        conflicts=_overlaps(ranges),
    )


def _dbn_files(paths: Sequence[str], skipped: list[str]) -> Iterator[str]:
    seen = set()
    for path in paths:
        if not os.path.exists(path):
            raise UsageError(f"{path}: no such file or folder")
        for found in _below(os.path.realpath(path)) if os.path.isdir(path) else [path]:
            full = os.path.realpath(found)
            if os.path.isdir(path) and not full.endswith((".dbn", ".dbn.zst")):
                skipped.append(os.path.relpath(found, os.path.realpath(path)))
            elif full not in seen:
                seen.add(full)
                yield full


def _below(folder: str) -> Iterator[str]:
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield os.path.join(here, name)


def _overlaps(ranges: dict[Market, list[tuple[int, int, str]]]) -> dict[Market, str]:
    """Markets of which two files hold the same time: their trades would count twice."""
    conflicts = {}
    for market, spans in ranges.items():
        spans.sort()
        for (_, end, first), (start, _, second) in pairwise(spans):
            if start < end:
                conflicts[market] = (
                    f"{first} and {second} both hold trades at {_moment(start)};"
                    " name only one of them"
                )
    return conflicts


def _moment(ts: int) -> str:
    return datetime.fromtimestamp(ts / 1000, timezone.utc).isoformat().replace("+00:00", "Z")


def _skipped_note(names: Sequence[str], what: str) -> list[str]:
    if not names:
        return []
    more = ", ..." if len(names) > _SHOWN else ""
    return [f"{len(names):,} skipped, {what}: {', '.join(names[:_SHOWN])}{more}"]
