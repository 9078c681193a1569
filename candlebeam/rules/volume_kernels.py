"""The loop behind `rules.volumes`, compiled."""

from __future__ import annotations

from candlebeam.kernels import kernel

#: Fields of the state: the next row of the source, the bar it came to, rows that belong to no bar.
ROW, BAR, OUTSIDE = range(3)
STATE_SIZE = 3


@kernel(
    "void(int64[::1],int64[::1],int64[::1],float64[::1],int64,int64,int64,"
    "float64[::1],float64[::1],int64[::1],int64[::1])"
)
def add_volumes(  # type: ignore[no-untyped-def]
    bar_ts, bar_end, ts, volume, first_ts, end_ts, stop_ts, sums, lost, state, outside
):
    """Adds the volumes of rows, from `state[ROW]` on, to the bars that they are in.

    Args:
        bar_ts: when bars start, ascending; at least one.
        bar_end: when they end; the next one may start before.
        ts, volume: rows of the source, nearly ascending.
        first_ts, end_ts: rows before the one, or not before the other, are passed over.
        stop_ts: in front of the first row at or after this, it stops.
        sums: of each bar so far.
        lost: what the sums have lost to rounding.
        outside: places of the first rows with a volume that belong to no bar.
    """
    bars = len(bar_ts)
    bar = state[BAR]
    for i in range(state[ROW], len(ts)):
        t = ts[i]
        if t >= stop_ts:
            state[ROW], state[BAR] = i, bar
            return
        if t < first_ts or t >= end_ts:
            continue
        while bar + 1 < bars and bar_ts[bar + 1] <= t:
            bar += 1
        while bar > 0 and bar_ts[bar] > t:
            bar -= 1
        if bar_ts[bar] <= t < bar_end[bar]:
            # Kahan's sum.
            wanted = volume[i] - lost[bar]
            grown = sums[bar] + wanted
            lost[bar] = (grown - sums[bar]) - wanted
            sums[bar] = grown
        elif volume[i] != 0.0:
            if state[OUTSIDE] < len(outside):
                outside[state[OUTSIDE]] = i
            state[OUTSIDE] += 1
    state[ROW], state[BAR] = len(ts), bar
