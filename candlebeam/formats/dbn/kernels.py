"""The loop that reads Databento records, compiled."""

from __future__ import annotations

import numpy as np

from candlebeam.formats.dbn.pages import new_row
from candlebeam.formats.dbn.tables import (
    ANY_PRICE,
    BAR,
    BAR_OPEN,
    BAR_VOLUME,
    BASE,
    BATCH_FULL,
    BUY_BITS,
    DAMAGED,
    END,
    END_INTERVAL,
    FIRST_INTERVAL,
    FIRST_LATE,
    FOUND_MAPPING,
    FREE_PAGES,
    FROM_TS,
    FULL,
    LAST_PRICE,
    LAST_SIDE,
    LATE,
    LAYERS,
    MAPPING,
    MORE,
    NEXT_SLOT,
    NO_REASON,
    NOTED,
    NOTED_FULL,
    NOTED_NUMBER,
    NOTED_POS,
    NOTED_REASON,
    NOTED_RECORD,
    NOWHERE,
    NUMBER,
    ORDER,
    ORDER_ACTION_BITS,
    ORDER_PRICE,
    ORDER_SIDE_BITS,
    ORDER_SIZE,
    ORDER_TS_RECV,
    POOL_FULL,
    POS,
    PRICE,
    RECORD,
    RECORD_TYPE,
    REJECTED,
    REPEATED,
    ROW_PRICE,
    ROW_SIZE,
    ROW_TS,
    ROW_VOLUME,
    SEEN,
    SIDE,
    SIZE,
    SKIPPED,
    START,
    SYMBOL,
    TIMESTAMP,
    TRADE,
    TRADE_ACTION_BITS,
    TRADE_PRICE,
    TRADE_SIDE_BITS,
    TRADE_SIZE,
    TRADE_TS_RECV,
    TS_EVENT,
    UNDEFINED_PRICE,
    UNDEFINED_SIZE,
    UNDEFINED_TIME,
    UNEXPECTED,
    UNMAPPED,
    VOLUME,
)
from candlebeam.kernels import callee, kernel
from candlebeam.model import Float64Array, Int64Array
from candlebeam.rules.tick_test import side_of_change

_ACTION_TRADE, _SIDE_BID, _SIDE_ASK, _SIDE_NONE = 0x54, 0x42, 0x41, 0x4E
#: Times in ms, exclusive.
_EARLIEST, _LATEST = 10**11, 10**13
_NS_PER_MS = 1_000_000
_EXACT_IN_FLOAT = 2**53
_INT64_END = 2.0**63


@callee
def price_of(value: int) -> float:
    """A price in units of 1e-9 as the nearest float64."""
    if -_EXACT_IN_FLOAT <= value <= _EXACT_IN_FLOAT:
        return value / 1e9
    # Whole part and rest apart. The sum is rounded right: a rest can only be mistaken for the
    # middle between two floats if it is within 2**-54 of it, and none is that is not the middle.
    whole = abs(value) // 1_000_000_000
    result = whole + (abs(value) - whole * 1_000_000_000) / 1e9
    return result if value > 0 else -result


@callee
def hash_of(instrument: int, mask: int) -> int:
    """Where an instrument's search in `table` begins."""
    return ((instrument * 2_654_435_769) >> 20) & mask


@callee
def _find(table, instrument):  # type: ignore[no-untyped-def]
    """The first slot of an instrument; -1 if it has none."""
    mask = len(table) - 1
    place = hash_of(instrument, mask)
    while table[np.uint64(place), 0] != instrument:
        if table[np.uint64(place), 0] < 0:
            return -1
        place = (place + 1) & mask
    return table[np.uint64(place), 1]


@callee
def _number_at(slots, intervals, slot, time):  # type: ignore[no-untyped-def]
    """The market of a slot at a time in ns."""
    if slots[slot, START] <= time < slots[slot, END]:
        return slots[slot, NUMBER]
    for place in range(slots[slot, FIRST_INTERVAL], slots[slot, END_INTERVAL]):
        if intervals[place, 0] <= time < intervals[place, 1]:
            slots[slot, START] = intervals[place, 0]
            slots[slot, END] = intervals[place, 1]
            slots[slot, NUMBER] = intervals[place, 2]
            return slots[slot, NUMBER]
    return NOWHERE


@callee
def _why_not(price, float_price, size, side, ts, any_price):  # type: ignore[no-untyped-def]
    """Why a record is no trade; `NO_REASON` if it is one."""
    if not _EARLIEST < ts < _LATEST:
        return TIMESTAMP
    if price == UNDEFINED_PRICE or (price <= 0 and not any_price):
        return PRICE
    if size == UNDEFINED_SIZE:
        return SIZE
    if side != _SIDE_BID and side != _SIDE_ASK and side != _SIDE_NONE:
        return SIDE
    if not any_price and not (float_price * size) * 1e6 < _INT64_END:
        return VOLUME
    return NO_REASON


@callee
def _add_trade(  # type: ignore[no-untyped-def]
    price, size, side, ts, at, number, any_price, markets, pool, floats, next_page, control
):  # fmt: skip
    """Adds a trade to its market, unless it is late; returns why not, if it is none."""
    float_price = price_of(price)
    reason = _why_not(price, float_price, size, side, ts, any_price)
    if reason != NO_REASON:
        return reason
    # Sides and changes are as good as random: without a branch none is guessed wrong.
    changed = side_of_change(price, markets[number, LAST_PRICE], markets[number, LAST_SIDE])
    markets[number, LAST_PRICE] = price
    markets[number, LAST_SIDE] = changed
    if ts < markets[number, FROM_TS]:
        if at >= markets[number, SEEN]:
            markets[number, LATE] += 1
            markets[number, FIRST_LATE] = min(markets[number, FIRST_LATE], ts)
        return NO_REASON
    row = np.uint64(new_row(markets, next_page, control, number))
    pool[row, ROW_TS] = ts
    floats[row, ROW_PRICE] = float_price
    buy = int(side == _SIDE_BID) | (int(side == _SIDE_NONE) & changed)
    pool[row, ROW_SIZE] = size | (buy << BUY_BITS)
    return NO_REASON


@callee
def _add_bar(words, pos, ts, number, markets, pool, floats, next_page, control):  # type: ignore[no-untyped-def]
    """Adds a bar to its market; one without all of its prices is a gap, and counts as rejected."""
    if not _EARLIEST < ts < _LATEST:
        return TIMESTAMP
    whole = True
    for place in range(BAR_OPEN, BAR_OPEN + 4):
        whole = whole and words[pos + place] != UNDEFINED_PRICE
    row = new_row(markets, next_page, control, number)
    pool[row, ROW_TS] = ts
    for place in range(4):
        price = price_of(words[pos + BAR_OPEN + place]) if whole else _NAN
        floats[row, ROW_PRICE + place] = price
    volume = words[pos + BAR_VOLUME]
    # An unsigned number: halved with its last bit kept, it rounds as it would whole.
    wide = float(volume) if volume >= 0 else 2.0 * float(((volume >> 1) & _INT63) | (volume & 1))
    floats[row, ROW_VOLUME] = wide if whole else 0.0
    return NO_REASON if whole else PRICE


_NAN = float("nan")
_INT63 = 2**63 - 1


@kernel(
    "int64(int64[::1], int64[::1], int64[::1], int64[:, ::1], int64[:, ::1], int64[:, ::1],"
    " int64[:, ::1], int64[:, ::1], float64[:, ::1], int64[::1], int64[:, ::1], int64[::1])"
)
def walk_records(
    words: Int64Array,
    kinds: Int64Array,
    lengths: Int64Array,
    table: Int64Array,
    slots: Int64Array,
    intervals: Int64Array,
    markets: Int64Array,
    pool: Int64Array,
    floats: Float64Array,
    next_page: Int64Array,
    noted: Int64Array,
    control: Int64Array,
) -> int:
    """Reads records until there is something to do for the caller, and returns what.

    Args:
        words: the records, from POS on.
        kinds: by record type, what it is to the reader.
        lengths: by record type, its words; 0 where any number is good. One more is good as well:
            live files can have the time of sending behind each record.
        table: a hash table of instruments and their first slots, of a power of two rows; those
            without any have the instrument -1.
        slots, intervals, markets: see the names of their columns.
        pool, floats: the rows of all pages, as int64 and as float64.
        next_page: by page, the one behind it.
        noted: takes the rejected records, if it has any room at all.
        control: see the names of its places.
    """
    count = len(words)
    pos = control[POS]
    record = control[RECORD]
    layers, any_price = control[LAYERS], control[ANY_PRICE] != 0
    noting, noted_count = len(noted), control[NOTED]
    control[FULL] = -1
    status = MORE
    while pos < count:
        head = words[pos]
        units = head & 0xFF
        record_type = (head >> 8) & 0xFF
        length = units >> 1
        kind = kinds[record_type]
        wanted_length = lengths[record_type]
        wrong = wanted_length != 0 and length != wanted_length and length != wanted_length + 1
        if units < 4 or units & 1 or kind == UNEXPECTED or wrong:
            status = DAMAGED
            break
        if pos + length > count:
            break
        if kind == SKIPPED:
            pos += length
            record += 1
            continue
        if kind == MAPPING:
            status = FOUND_MAPPING
            break
        if kind == TRADE:
            price = words[pos + TRADE_PRICE]
            packed = words[pos + TRADE_SIZE]
            time = words[pos + TRADE_TS_RECV]
            action = (packed >> TRADE_ACTION_BITS) & 0xFF
            side = (packed >> TRADE_SIDE_BITS) & 0xFF
        elif kind == ORDER:
            price = words[pos + ORDER_PRICE]
            packed = words[pos + ORDER_SIZE]
            time = words[pos + ORDER_TS_RECV]
            action = (packed >> ORDER_ACTION_BITS) & 0xFF
            side = (packed >> ORDER_SIDE_BITS) & 0xFF
        else:
            price = packed = side = 0
            time = UNDEFINED_TIME
            action = _ACTION_TRADE
        if action != _ACTION_TRADE:
            pos += length
            record += 1
            continue
        # Each symbol of the instrument takes at most a page and a note.
        if control[FREE_PAGES] < layers:
            status = POOL_FULL
            break
        if noting > 0 and noted_count + layers > noting:
            status = NOTED_FULL
            break
        if time < 0:
            time = words[pos + TS_EVENT]
        slot = _find(table, (head >> 32) & 0xFFFFFFFF)
        repeated = False
        if slot >= 0:
            if slots[slot, RECORD_TYPE] < 0:
                slots[slot, RECORD_TYPE] = record_type
            repeated = slots[slot, RECORD_TYPE] != record_type
        ts = time // _NS_PER_MS
        mapped = False
        while slot >= 0:
            # A record without any time goes with what its instrument is first, to be counted there.
            number = slots[slot, NUMBER] if time < 0 else _number_at(slots, intervals, slot, time)
            mapped = mapped or number != NOWHERE
            slot = slots[np.uint64(slot), NEXT_SLOT]
            if number < 0:
                continue
            market = np.uint64(number)
            if repeated:
                markets[market, REPEATED] += 1
                continue
            if kind == BAR:
                reason = _add_bar(words, pos, ts, market, markets, pool, floats, next_page, control)
            else:
                reason = _add_trade(
                    price, packed & 0xFFFFFFFF, side, ts, control[BASE] + 8 * pos, market,
                    any_price, markets, pool, floats, next_page, control,
                )  # fmt: skip
            if reason >= 0:
                markets[market, REJECTED + reason] += 1
                if noting > 0:
                    noted[noted_count, NOTED_NUMBER] = number
                    noted[noted_count, NOTED_RECORD] = record
                    noted[noted_count, NOTED_REASON] = reason
                    noted[noted_count, NOTED_POS] = pos
                    noted_count += 1
        if not mapped:
            control[UNMAPPED] += 1
            if noting > 0:
                noted[noted_count, NOTED_NUMBER] = NOWHERE
                noted[noted_count, NOTED_RECORD] = record
                noted[noted_count, NOTED_REASON] = SYMBOL
                noted[noted_count, NOTED_POS] = pos
                noted_count += 1
        pos += length
        record += 1
        if control[FULL] >= 0:
            status = BATCH_FULL
            break
    control[POS] = pos
    control[RECORD] = record
    control[NOTED] = noted_count
    return status
