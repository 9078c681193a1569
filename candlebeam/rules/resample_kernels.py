"""The loop behind `rules.resample`, compiled.

All periods go forward together over the input, a run of bars at a time: one that ends where the
next bar of any period begins. What the run comes to is then added to every period.

The state is two arrays with a row a period, the int64 one with the columns `END` to `ROWS`, the
float64 one with `OPEN` to `LOST`; the latter has rows enough for whole groups of `LANES`. Closed
bars go to `out_ts`, and to `out` with a row for each of the five values.
"""

from __future__ import annotations

import math

from candlebeam.kernels import callee, kernel

#: How many sums go forward at a time. Eight do not wait for each other.
LANES = 8

#: Columns of a period: its bar begins and ends there (ms); the number of the bar's first input,
#: `NO_BAR` before there is one; its length below a day, else 0; where its boundaries begin and end
#: in the array of all; where its next closed bar goes.
BEGIN, END, FIRST, STEP, EDGE, LAST_EDGE, ROW = range(7)
INT_FIELDS = 7
#: `LOST` is what the sum has lost to rounding so far.
OPEN, HIGH, LOW, CLOSE, VOLUME, LOST = range(6)
FLOAT_FIELDS = 6
NO_BAR = -1

#: How `fold_bars` ends: well; at a bar that lacks some prices; at one that ends after that of a
#: period it belongs to.
DONE, PARTIAL, STRADDLES = range(3)


@callee
def _add(total, lost, value):  # type: ignore[no-untyped-def]
    """Kahan's sum: gives the total and what it has lost."""
    wanted = value - lost
    grown = total + wanted
    return grown, (grown - total) - wanted


@callee
def _is_gap(opens, high, low, close, i):  # type: ignore[no-untyped-def]
    """Whether a bar has no price at all."""
    return opens[i] != opens[i] and high[i] != high[i] and low[i] != low[i] and close[i] != close[i]


@callee
def _fold_run(  # type: ignore[no-untyped-def]
    ts, opens, high, low, close, volume, i, end, floats, lane
):
    """Takes in the bars from `i` on that begin before `end`; adds their volumes to eight periods.

    Returns (the place after them, of the first and the last with prices or -1, highest, lowest,
    whether it stopped at one with some prices only).
    """
    s0, c0 = floats[lane, VOLUME], floats[lane, LOST]
    s1, c1 = floats[lane + 1, VOLUME], floats[lane + 1, LOST]
    s2, c2 = floats[lane + 2, VOLUME], floats[lane + 2, LOST]
    s3, c3 = floats[lane + 3, VOLUME], floats[lane + 3, LOST]
    s4, c4 = floats[lane + 4, VOLUME], floats[lane + 4, LOST]
    s5, c5 = floats[lane + 5, VOLUME], floats[lane + 5, LOST]
    s6, c6 = floats[lane + 6, VOLUME], floats[lane + 6, LOST]
    s7, c7 = floats[lane + 7, VOLUME], floats[lane + 7, LOST]
    highest, lowest = -math.inf, math.inf
    first = last = -1
    partial = False
    stop = len(ts)
    for place in range(i, len(ts)):
        if ts[place] >= end:
            stop = place
            break
        h, l = high[place], low[place]  # noqa: E741
        # One that is NaN makes the sum NaN.
        prices = opens[place] + h + l + close[place]
        if prices != prices:
            if _is_gap(opens, high, low, close, place):
                continue
            partial = True
            stop = place
            break
        if first < 0:
            first = place
        last = place
        if h > highest:
            highest = h
        if l < lowest:
            lowest = l
        v = volume[place]
        s0, c0 = _add(s0, c0, v)
        s1, c1 = _add(s1, c1, v)
        s2, c2 = _add(s2, c2, v)
        s3, c3 = _add(s3, c3, v)
        s4, c4 = _add(s4, c4, v)
        s5, c5 = _add(s5, c5, v)
        s6, c6 = _add(s6, c6, v)
        s7, c7 = _add(s7, c7, v)
    floats[lane, VOLUME], floats[lane, LOST] = s0, c0
    floats[lane + 1, VOLUME], floats[lane + 1, LOST] = s1, c1
    floats[lane + 2, VOLUME], floats[lane + 2, LOST] = s2, c2
    floats[lane + 3, VOLUME], floats[lane + 3, LOST] = s3, c3
    floats[lane + 4, VOLUME], floats[lane + 4, LOST] = s4, c4
    floats[lane + 5, VOLUME], floats[lane + 5, LOST] = s5, c5
    floats[lane + 6, VOLUME], floats[lane + 6, LOST] = s6, c6
    floats[lane + 7, VOLUME], floats[lane + 7, LOST] = s7, c7
    return stop, first, last, highest, lowest, partial


@callee
def _turn(t, edges, ints, floats, k):  # type: ignore[no-untyped-def]
    """Begins the bar of period `k` that holds time `t`, with nothing in it."""
    step = ints[k, STEP]
    if step > 0:
        begin = ints[k, END]
        # Mostly it is the next one. A division takes as long as all the rest.
        if t - begin >= step:
            begin = t - t % step
        ints[k, BEGIN], ints[k, END] = begin, begin + step
    else:
        low, high = ints[k, EDGE], ints[k, LAST_EDGE]
        while high - low > 1:
            middle = (low + high) // 2
            if edges[middle] <= t:
                low = middle
            else:
                high = middle
        ints[k, BEGIN], ints[k, END] = edges[low], edges[low + 1]
    ints[k, FIRST] = NO_BAR
    floats[k, VOLUME], floats[k, LOST] = 0.0, 0.0


@callee
def _close(ints, floats, out_ts, out, k):  # type: ignore[no-untyped-def]
    """Gives out the bar of period `k`, if there is one."""
    if ints[k, FIRST] == NO_BAR:
        return
    row = ints[k, ROW]
    out_ts[row] = ints[k, BEGIN]
    for field in range(LOST):
        out[field, row] = floats[k, field]
    ints[k, ROW] = row + 1
    ints[k, FIRST] = NO_BAR


@callee
def _extend(  # type: ignore[no-untyped-def]
    ints, floats, k, number, opened, highest, lowest, closed
):
    """Adds the prices of a run to the bar of period `k`."""
    if ints[k, FIRST] == NO_BAR:
        ints[k, FIRST] = number
        floats[k, OPEN] = opened
        floats[k, HIGH], floats[k, LOW] = highest, lowest
    else:
        floats[k, HIGH] = max(floats[k, HIGH], highest)
        floats[k, LOW] = min(floats[k, LOW], lowest)
    floats[k, CLOSE] = closed


@kernel(
    "UniTuple(int64,2)(int64[::1],float64[::1],float64[::1],float64[::1],float64[::1],"
    "float64[::1],int64,int64,int64[::1],int64[:,::1],float64[:,::1],int64[::1],float64[:,::1])"
)
def fold_bars(  # type: ignore[no-untyped-def]
    ts, opens, high, low, close, volume, number, length, edges, ints, floats, out_ts, out
):
    """Takes in bars, and gives out those of all periods that they close.

    Those with prices ascend by time; gaps are passed over, wherever they stand.

    Args:
        number: of the first of them, among all input.
        length: of each in ms; 0 for trades.
        edges: of the periods of a day and more, where their bars begin.

    Returns:
        How it ended, and the place of the bar it ended at. Those before a `PARTIAL` one are all
        taken in; after `STRADDLES` the state is of no use.
    """
    periods = len(ints)
    total = len(ts)
    i = 0
    while i < total:
        if _is_gap(opens, high, low, close, i):
            i += 1
            continue
        end = ints[0, END]
        for k in range(periods):
            if ts[i] >= ints[k, END]:
                _close(ints, floats, out_ts, out, k)
                _turn(ts[i], edges, ints, floats, k)
            end = ints[k, END] if k == 0 else min(end, ints[k, END])
        if i + 1 < total and ts[i + 1] >= end:
            # A run of one, as where 1m is made from 1m, is not worth eight registers.
            prices = opens[i] + high[i] + low[i] + close[i]
            if prices == prices:
                if ts[i] + length > end:
                    return STRADDLES, i
                for k in range(periods):
                    _extend(ints, floats, k, number + i, opens[i], high[i], low[i], close[i])
                    floats[k, VOLUME], floats[k, LOST] = _add(
                        floats[k, VOLUME], floats[k, LOST], volume[i]
                    )
                i += 1
                continue
        begin = i
        for lane in range(0, periods, LANES):
            i, first, last, highest, lowest, partial = _fold_run(
                ts, opens, high, low, close, volume, begin, end, floats, lane
            )
        if first >= 0:
            if ts[last] + length > end:
                return STRADDLES, last
            for k in range(periods):
                _extend(ints, floats, k, number + first, opens[first], highest, lowest, close[last])
        if partial:
            return PARTIAL, i
    return DONE, total
