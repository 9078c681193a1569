"""Times that occur more than once anywhere in bars that are not in order, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from candlebeam.model import Int64Array
from candlebeam.rules.checks import ERROR, KEPT_PLACES, Finding, Place, format_ts

#: How many times are held at once.
_ROOM = 1 << 23

_MIX = np.uint64(0x9E3779B97F4A7C15)


def repeated_times(
    times: Callable[[], Iterable[tuple[int, Int64Array]]],
    total: int,
    *,
    keep: int = KEPT_PLACES,
    room: int = _ROOM,
) -> list[Finding]:
    """The finding `duplicates` of bars in any order: every bar that starts when an earlier one did.

    `BarChecker` holds each bar against the one in front of it, which is enough where they ascend.

    Args:
        times: gives the starts of the bars, piece by piece, each with the place of its first one.
            Called as often as needed.
        total: how many there are.
        keep: how many places are kept.
        room: how many times to hold at once: they are looked through in several passes, each with
            some of them, if there are more.

    Returns:
        One finding, or none.
    """
    passes = np.uint64(-(-total // room) or 1)
    count = 0
    kept: list[tuple[int, int]] = []
    for number in range(int(passes)):
        chosen: list[Int64Array] = []
        places: list[Int64Array] = []
        for begin, ts in times():
            mine = np.flatnonzero(_spread(ts) % passes == number)
            chosen.append(ts[mine])
            places.append(mine + begin)
        if not chosen:
            break
        ts, place = np.concatenate(chosen), np.concatenate(places)
        order = np.argsort(ts, kind="stable")
        ts = ts[order]
        again = np.flatnonzero(ts[1:] == ts[:-1]) + 1
        count += len(again)
        repeated = place[order[again]]
        first = np.argsort(repeated)[:keep]
        kept += zip(repeated[first].tolist(), ts[again[first]].tolist(), strict=True)
    if not count:
        return []
    found = tuple(
        Place(place, ts, "no bar in front of it that starts then", format_ts(ts))
        for place, ts in sorted(kept)[:keep]
    )
    return [Finding(ERROR, "duplicates", count, "starts when a bar in front of it does", found)]


def _spread(ts: Int64Array) -> npt.NDArray[np.uint64]:
    """Numbers that have nothing to do with the steps in which times come."""
    numbers: npt.NDArray[np.uint64] = (ts.view(np.uint64) * _MIX) >> np.uint64(33)
    return numbers
