"""The loop behind `candle_checks`, compiled.

Records come in as two views of one read-only array of `candle_records.RECORD_DTYPE`: int32 of shape
(records, 14) and int64 of shape (records, 7).
"""

from __future__ import annotations

from candlebeam.kernels import callee, kernel

#: The checks: rows of what the loop counts into.
NEGATIVE_PRICE, LOST_PRICE, NEGATIVE_VOLUME, UNCOUNTED, UNTRADED = range(5)
CHECKS = 5

# Places in a record: prices and counts in units of four bytes, volumes in units of eight.
_COUNTS, _VOLUMES, _LIQUIDATIONS = 8, 2, 5
_NARROW = "Array(int32, 2, 'C', readonly=True)"
_WIDE = "Array(int64, 2, 'C', readonly=True)"


@callee
def _note(check, place, counts, places):  # type: ignore[no-untyped-def]
    found = counts[check]
    if found < places.shape[1]:
        places[check, found] = place
    counts[check] = found + 1


@kernel(f"int64({_NARROW},{_WIDE},int64,int64[::1],int64[:,::1])")
def check_records(narrow, wide, begin, counts, places):  # type: ignore[no-untyped-def]
    """Checks each record by itself.

    Args:
        narrow, wide: the views of the records.
        begin: the place of the first of them in the file.
        counts: findings of each check so far.
        places: for each check the places, in the file, of the first of them.

    Returns:
        The highest price.
    """
    highest = 0
    for i in range(len(narrow)):
        bought, sold = wide[i, _VOLUMES], wide[i, _VOLUMES + 1]
        forced = wide[i, _LIQUIDATIONS] | wide[i, _LIQUIDATIONS + 1]
        buys, sells = narrow[i, _COUNTS], narrow[i, _COUNTS + 1]
        opened, high, low, closed = narrow[i, 0], narrow[i, 1], narrow[i, 2], narrow[i, 3]
        prices = opened | high | low | closed
        highest = max(highest, int(high))
        # A sum of bits has the sign of the least.
        if prices < 0:
            _note(NEGATIVE_PRICE, begin + i, counts, places)
        if (bought | sold | forced) < 0:
            _note(NEGATIVE_VOLUME, begin + i, counts, places)
        if (buys | sells) != 0 and (opened == 0 or high == 0 or low == 0 or closed == 0):
            _note(LOST_PRICE, begin + i, counts, places)
        if (bought != 0 and buys == 0) or (sold != 0 and sells == 0):
            _note(UNCOUNTED, begin + i, counts, places)
        elif (buys | sells) == 0 and prices != 0:
            _note(UNTRADED, begin + i, counts, places)
    return highest
