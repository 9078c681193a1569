"""How far the price scale of stored candles can go down before their prices are rounded."""

from __future__ import annotations

import numpy as np

from candlebeam.formats.candles.companion import CandlePaths, Companion
from candlebeam.formats.candles.records import RECORD_DTYPE
from candlebeam.rules.price_scale import MAX_DECIMALS, PRICE_FIELDS, decimals_kept
from candlebeam.storage import storage_of

_READ_RECORDS = 1 << 16


def stored_decimals_kept(paths: CandlePaths, companion: Companion) -> int:
    """The least decimals of a scale that the prices of all candles but the last can be had back
    from; those prices can be had back from their records.

    As a rule the first candles tell it.

    Raises:
        OSError: the candles cannot be read.
    """
    storage = storage_of(paths.records)
    decimals = -MAX_DECIMALS
    for place in range(0, companion.records - 1, _READ_RECORDS):
        count = min(_READ_RECORDS, companion.records - 1 - place)
        size = RECORD_DTYPE.itemsize
        records = np.frombuffer(
            storage.read(paths.records, place * size, count * size), RECORD_DTYPE
        )
        stored = np.stack([records[name] for name in PRICE_FIELDS])
        decimals = max(decimals, decimals_kept(stored, companion.scale))
        if decimals == companion.scale.decimals:
            break
    return decimals
