"""What must hold of a candle file: of the pair of files, and of what the companion says.

Checks, and what a finding of each is:

- `journal`: there is none that can be read (an error), or a commit that waits to be carried out
  (information; the candles are taken as it makes them, which is how every reader takes them);
- `companion`: it is missing, damaged, or says what the candles do not;
- `size`: candles that are shorter than the companion says, or not there; longer is information;
- `leftovers`: files that a crash has left beside the pair (information);
- `ends`: a gap as the first or the last candle;
- `price-scale`: prices have too few digits at this scale (a warning);
- `negative-prices`, `negative-volumes` (of either side, and of liquidations);
- `zero-prices`: trades, but a price of 0: too small for the price scale (a warning);
- `volume-without-trades`: a volume on a side without trades (a warning, as archives can lack
  counts);
- `prices-without-trades`: as in a minute of liquidations alone, which has no prices.
"""

from __future__ import annotations

import os
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from candlebeam.errors import FormatError
from candlebeam.formats.candles import check_kernels as kernels
from candlebeam.formats.candles.companion import (
    CandlePaths,
    Companion,
    Journal,
    ResumeState,
    read_companion,
    read_journal,
)
from candlebeam.formats.candles.file import Candles
from candlebeam.formats.candles.records import RECORD_DTYPE
from candlebeam.formats.mapped import MappedBytes
from candlebeam.model import BLOCK_DTYPE, VOLUME_SCALE, Market, Records
from candlebeam.rules.checks import (
    ERROR,
    INFORMATION,
    KEPT_PLACES,
    WARNING,
    Finding,
    Place,
    format_ts,
    one,
)
from candlebeam.rules.price_scale import PRICE_FIELDS, PriceScale

#: The checks of `check_pair` and of `check_candles`, in the order of their findings.
PAIR_CHECKS = ("journal", "companion", "size", "leftovers")
CANDLE_CHECKS = (
    "companion", "ends", "price-scale", "negative-prices", "zero-prices", "negative-volumes",
    "volume-without-trades", "prices-without-trades",
)  # fmt: skip

_PIECE = 65_536
#: Prices all below this, as they are stored, have fewer than four digits.
_FEW_DIGITS = 1_000


class _Check(NamedTuple):
    severity: str
    name: str
    message: str
    expected: str
    fields: tuple[str, ...]


_VOLUMES = ("buy_volume", "sell_volume", "buy_liquidation", "sell_liquidation")
_TRADED = ("buy_volume", "buy_count", "sell_volume", "sell_count")
_CHECKS = {
    kernels.NEGATIVE_PRICE: _Check(
        ERROR, "negative-prices", "price below 0", "prices of at least 0", PRICE_FIELDS
    ),
    kernels.LOST_PRICE: _Check(
        WARNING, "zero-prices", "trades at a price of 0: the price scale is too small for them",
        "prices above 0", PRICE_FIELDS,
    ),
    kernels.NEGATIVE_VOLUME: _Check(
        ERROR, "negative-volumes", "volume below 0", "volumes of at least 0", _VOLUMES
    ),
    kernels.UNCOUNTED: _Check(
        WARNING, "volume-without-trades", "volume of a side that has no trades",
        "trades for each volume", _TRADED,
    ),
    kernels.UNTRADED: _Check(
        ERROR, "prices-without-trades", "prices, but neither trades nor volume",
        "no prices without trades", PRICE_FIELDS,
    ),
}  # fmt: skip


def check_pair(paths: CandlePaths) -> list[Finding]:
    """Checks the files of a candle file against each other, without its candles.

    Where this finds no error, `open_candles` can open it.

    Raises:
        OSError: a file cannot be read.
    """
    findings = []
    journal: Journal | None = None
    try:
        journal = read_journal(paths)
    except FormatError as error:
        findings.append(_damaged("journal", "damaged journal of a commit", error))
    if journal is not None:
        findings.append(
            one(
                INFORMATION,
                "journal",
                "a commit waits for the next backfill to carry it out; checked as it will be",
                "no journal",
                paths.journal,
            )
        )
    companion = journal.companion if journal else None
    if companion is None:
        try:
            companion = read_companion(paths.companion)
        except FormatError as error:
            findings.append(_damaged("companion", "damaged companion", error))
        else:
            if companion is None:
                findings.append(
                    one(ERROR, "companion", "no companion", paths.companion, "no such file")
                )
    if companion is not None:
        findings += _check_size(paths, companion, journal)
    left = [
        path
        for path in (*paths.unfinished, paths.hidden(".journal.damaged"))
        if os.path.exists(path) and not (journal and journal.replaces and path == paths.replacement)
    ]
    if left:
        message = "files of a commit that was interrupted, or is going on"
        places = tuple(Place(None, None, "no such file", path) for path in left)
        findings.append(Finding(INFORMATION, "leftovers", len(left), message, places))
    return findings


def _damaged(check: str, message: str, error: FormatError) -> Finding:
    return one(ERROR, check, message, error.expected, error.found)


def _check_size(paths: CandlePaths, companion: Companion, journal: Journal | None) -> list[Finding]:
    path = paths.records
    if journal and journal.replaces and os.path.exists(paths.replacement):
        path = paths.replacement
    expected = f"{companion.size} bytes for {companion.records} candles"
    try:
        size = os.path.getsize(path)
    except FileNotFoundError:
        return [one(ERROR, "size", "no candles", path, "no such file")]
    if size < companion.size:
        return [one(ERROR, "size", "shorter than the companion says", expected, f"{size} bytes")]
    if size > companion.size:
        message = "longer than the companion says: the next backfill cuts it"
        return [one(INFORMATION, "size", message, expected, f"{size} bytes")]
    return []


def check_candles(candles: Candles, path: str, *, keep: int = KEPT_PLACES) -> list[Finding]:
    """Checks the candles of a file against its companion, and each of them by itself.

    Args:
        path: of the candles; names their market, where it is that of an output.
        keep: how many places of each check are kept.
    """
    if not len(candles):
        return []
    records = candles.records.view(RECORD_DTYPE, np.ndarray)
    companion = candles.companion
    counts = np.zeros(kernels.CHECKS, np.int64)
    places = np.empty((kernels.CHECKS, keep), np.int64)
    mapped = MappedBytes(records)
    closed = highest = 0
    # The last candle with trades by itself: what the companion knows of prices leaves it out.
    traded = companion.traded.records
    edges = {*range(0, traded - 1, _PIECE), traded - 1, *range(traded, len(records), _PIECE)}
    for begin, end in pairwise(sorted({*edges, len(records)})):
        part = records[begin:end]
        if begin == traded - 1:
            closed = highest
        found = kernels.check_records(
            part.view(np.int32).reshape(len(part), -1),
            part.view(np.int64).reshape(len(part), -1),
            begin,
            counts,
            places,
        )
        highest = max(highest, int(found))
        mapped.let_go(end * RECORD_DTYPE.itemsize)
    findings = _check_companion(companion, path, closed)
    findings += _check_ends(companion, records)
    if 0 < highest < _FEW_DIGITS and not _has_every_digit(companion):
        findings.append(
            one(
                WARNING,
                "price-scale",
                "prices have fewer than four digits",
                f"a price scale above {companion.scale.value}",
                f"prices of up to {_price(highest, companion.scale)}, stored as {highest}",
            )
        )
    for number, check in _CHECKS.items():
        count = int(counts[number])
        if count:
            noted = tuple(
                _place(companion, records, int(place), check)
                for place in places[number, : min(count, keep)]
            )
            findings.append(Finding(check.severity, check.name, count, check.message, noted))
    return findings


def _check_companion(companion: Companion, path: str, highest: int) -> list[Finding]:
    """What the companion says of the market, and of the state that a later run goes on from."""
    findings = []
    name = os.path.splitext(os.path.basename(path))[0]
    symbol = companion.market.symbol
    if name != Market("", "", symbol).path.rpartition("/")[2]:
        message = "the files have another name than the symbol in the companion"
        findings.append(one(WARNING, "companion", message, f"symbol {name}", symbol))
    wrong = _check_state(companion, companion.state, highest) if companion.state else []
    if wrong:
        message = "the companion is not of these candles"
        findings.append(Finding(ERROR, "companion", len(wrong), message, tuple(wrong)))
    return findings


def _check_state(companion: Companion, state: ResumeState, highest: int) -> list[Place]:
    wrong = []
    timeframe = state.settings.timeframe
    if timeframe != companion.timeframe:
        wrong.append(
            Place(None, None, f"settings of candles of {companion.timeframe}", str(timeframe))
        )
    last_ts = companion.traded.end_ts - companion.timeframe.ms
    if state.tail:
        tail_ts = int(np.frombuffer(state.tail, BLOCK_DTYPE)["time"][0])
        if tail_ts != last_ts:
            wrong.append(
                Place(None, None, f"a tail of the last candle, {format_ts(last_ts)}",
                      format_ts(tail_ts))
            )  # fmt: skip
    stored = _stored(state.prices.highest, companion.scale)
    if stored != highest:
        wrong.append(
            Place(None, None, f"highestPrice {_price(highest, companion.scale)}",
                  repr(state.prices.highest))
        )  # fmt: skip
    return wrong


def _check_ends(companion: Companion, records: Records) -> list[Finding]:
    traded = companion.traded.records
    ends = {0: "first", traded - 1: "last"}
    places = tuple(
        Place(place, _ts(companion, place), f"something in the {name} candle", "a gap")
        for place, name in ends.items()
        if not any(records[place : place + 1].tobytes())
    )
    findings = []
    if places:
        message = "the file begins or ends with a gap"
        findings.append(Finding(ERROR, "ends", len(places), message, places))
    if records[traded:].view(np.uint8).any():
        findings.append(
            one(
                ERROR,
                "ends",
                "a candle at the end is not quiet",
                f"{len(records) - traded} candles without anything in them, as quietRecords says",
                "one with something",
            )
        )
    return findings


def _has_every_digit(companion: Companion) -> bool:
    """Whether the scale was chosen so that every price of the market comes back exactly."""
    state = companion.state
    return state is not None and state.settings.price_scale is None and state.exact


def _stored(price: float, scale: PriceScale) -> int:
    scaled = price * scale.power if scale.multiplies else price / scale.power
    return int(np.floor(scaled)) + int(scaled - np.floor(scaled) >= 0.5)


def _price(stored: int, scale: PriceScale) -> float:
    return stored / scale.power if scale.multiplies else stored * scale.power


def _ts(companion: Companion, place: int) -> int:
    return companion.start_ts + place * companion.timeframe.ms


def _place(companion: Companion, records: Records, place: int, check: _Check) -> Place:
    record = records[place]
    values = []
    for name in check.fields:
        value = int(record[name])
        if name in PRICE_FIELDS:
            values.append(f"{name} {_price(value, companion.scale)!r}")
        elif name.endswith("_count"):
            values.append(f"{name} {value}")
        else:
            values.append(f"{name} {value / VOLUME_SCALE!r}")
    return Place(place, _ts(companion, place), check.expected, ", ".join(values))
