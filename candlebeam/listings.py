"""Listing archives of few large files, when a run begins: AGG2 and Databento."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from typing import NamedTuple

from candlebeam.errors import CandlebeamError, UsageError
from candlebeam.formats.visible_files import visible_files
from candlebeam.inventory import AGG2, DBN, ListedFile, ListedInventory
from candlebeam.market import Market
from candlebeam.storage import storage_of
from candlebeam.storage.folders import Folder
from candlebeam.storage.paths import real

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
    from candlebeam.formats.agg2.index import DATA_NAME, list_days

    base = real(base)
    if not Folder(base):
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
    from candlebeam.formats.dbn.reader import describe_dbn

    spans: dict[Market, list[_Span]] = {}
    skipped: list[str] = []
    notes: list[str] = []
    problems: list[str] = []
    for path in _dbn_files(paths, skipped):
        try:
            described = describe_dbn(path)
            size = storage_of(path).state(path).size
        except (CandlebeamError, OSError) as error:
            problems.append(str(error))
            continue
        if not described.has_trades:
            use = "; `resample` and `export` read bars" if described.timeframe else ""
            notes.append(f"{path}: {described.schema} records are no trades{use}")
            continue
        if not described.symbols:
            notes.append(f"{path}: it names no instrument, so none of its records can be read")
        folder, name = os.path.split(path)
        file = ListedFile(described.start_ts or 0, name, folder, "", size)
        schema = described.schema or "live"
        span = _Span(_PREFERRED.index(schema), schema, path, described.end_ts, file)
        for symbol in described.symbols:
            spans.setdefault(described.market(symbol), []).append(span)
    inputs: dict[Market, list[ListedFile]] = {}
    conflicts: dict[Market, str] = {}
    left_out: dict[str, None] = {}
    for market, found in spans.items():
        kept = inputs.setdefault(market, [])
        for span, other in _each_once(found):
            if other is None:
                kept.append(span.file)
            elif other.schema == span.schema:
                conflicts[market] = (
                    f"{other.path} and {span.path} both hold trades at"
                    f" {_moment(max(span.file.start_ts, other.file.start_ts))};"
                    " name only one of them"
                )
            else:
                left_out[f"{span.path}: left out where {other.path} has the same trades"] = None
    return ListedInventory(
        ", ".join(paths),
        DBN,
        inputs,
        shared=True,
        notes=[*_skipped_note(skipped, "no Databento files"), *notes, *left_out],
        problems=problems,
        conflicts=conflicts,
    )


#: Of files that hold the same trades, the first of these is read: from the plainest on.
_PREFERRED = ("trades", "tbbo", "tcbbo", "mbp-1", "cmbp-1", "mbp-10", "mbo", "live")


class _Span(NamedTuple):
    """A Databento file as a market sees it; `end_ts` is None where the file does not say."""

    rank: int
    schema: str
    path: str
    end_ts: int | None
    file: ListedFile


def _each_once(spans: list[_Span]) -> Iterator[tuple[_Span, _Span | None]]:
    """Each file of a market, with the one that holds trades of the same time and is read instead.

    Where two of one kind overlap, the later one is given with the other.
    """
    kept: list[_Span] = []
    preferred = 0  # of these, how many are of kinds that go before
    for span in sorted(spans, key=lambda each: (each.rank, each.file)):
        if kept and kept[-1].rank != span.rank:
            preferred = len(kept)
        # Those of its own kind do not overlap, so that the last one is enough.
        against = [*kept[:preferred], *kept[preferred:][-1:]]
        other = next((each for each in against if _overlap(each, span)), None)
        if other is None:
            kept.append(span)
        yield span, other


def _overlap(one: _Span, other: _Span) -> bool:
    if one.end_ts is None or other.end_ts is None:
        return False
    return one.file.start_ts < other.end_ts and other.file.start_ts < one.end_ts


def _dbn_files(paths: Sequence[str], skipped: list[str]) -> Iterator[str]:
    seen = set()
    for path in paths:
        here = real(path)
        is_file = storage_of(here).exists(here) and not os.path.isdir(here)
        if not is_file and not Folder(here):
            raise UsageError(f"{path}: no such file or folder")
        for found in [here] if is_file else visible_files(here):
            full = real(found)
            if not is_file and not full.endswith((".dbn", ".dbn.zst")):
                skipped.append(found[len(here) :].lstrip("/"))
            elif full not in seen:
                seen.add(full)
                yield full


def _moment(ts: int) -> str:
    return datetime.fromtimestamp(ts / 1000, timezone.utc).isoformat().replace("+00:00", "Z")


def _skipped_note(names: Sequence[str], what: str) -> list[str]:
    if not names:
        return []
    more = ", ..." if len(names) > _SHOWN else ""
    return [f"{len(names):,} skipped, {what}: {', '.join(names[:_SHOWN])}{more}"]
