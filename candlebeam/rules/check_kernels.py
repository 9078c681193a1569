"""The loop behind `rules.checks`, compiled.

Per check it counts what it finds and notes the first places of it, as many as there is room for.
"""

from __future__ import annotations

import math

from candlebeam.kernels import callee, kernel

#: The checks: rows of what the loop counts into.
(
    DUPLICATE,
    ORDER,
    MISALIGNED,
    NOT_FINITE,
    UNPRICED_VOLUME,
    HIGH,
    LOW,
    NEGATIVE_PRICE,
    ZERO_PRICE,
    NEGATIVE_VOLUME,
    LONG_GAP,
) = range(11)
CHECKS = 11

#: Fields of the state: bars so far, those with prices, the time of the last bar, time and period of
#: the latest bar with prices, gaps, periods in them, and the longest gap: its periods, the time of
#: the bar before it and of the bar behind it.
(
    BARS,
    PRICED,
    LAST_TS,
    PRICED_TS,
    PRICED_PERIOD,
    GAPS,
    MISSING,
    LONGEST,
    LONGEST_FROM,
    LONGEST_TO,
) = range(10)
FIELDS = 10

#: What times mean: trades may share theirs and have no gaps; bars of a fixed length stand at its
#: multiples; others do not, and may be numbered by a calendar.
TRADES, FIXED, CALENDAR = range(3)

_NEVER = -(2**63)
_FAR = 2**62


@callee
def _note(check, i, against, counts, places, others):  # type: ignore[no-untyped-def]
    found = counts[check]
    if found < places.shape[1]:
        places[check, found] = i
        others[check, found] = against
    counts[check] = found + 1


@callee
def _check_gap(  # type: ignore[no-untyped-def]
    i, t, period, step, state, counts, places, others
):
    """Notes the gap before a bar with prices, if there is one, and that the bar is the latest."""
    if state[PRICED] > 0:
        before = state[PRICED_PERIOD]
        if period <= before:
            return
        if step > 0:
            # Part by part: the difference of two times need not fit in int64.
            steps = period // step - before // step
            beyond = period % step - before % step
            if beyond < 0:
                steps -= 1
                beyond += step
            if steps > 1:
                state[GAPS] += 1
                state[MISSING] += steps - 1
                if steps - 1 > state[LONGEST]:
                    state[LONGEST] = steps - 1
                    state[LONGEST_FROM], state[LONGEST_TO] = state[PRICED_TS], t
            if steps > 2 or (steps == 2 and beyond > 0):
                _note(LONG_GAP, i, state[PRICED_TS], counts, places, others)
    state[PRICED_TS], state[PRICED_PERIOD] = t, period


@callee
def _check_prices(  # type: ignore[no-untyped-def]
    i, opened, highest, lowest, closed, positive, counts, places, others
):
    if highest < opened or highest < lowest or highest < closed:
        _note(HIGH, i, 0, counts, places, others)
    if lowest > opened or lowest > closed:
        _note(LOW, i, 0, counts, places, others)
    least = min(opened, highest, lowest, closed)
    if least < 0.0:
        _note(NEGATIVE_PRICE, i, 0, counts, places, others)
    elif least == 0.0 and positive:
        _note(ZERO_PRICE, i, 0, counts, places, others)


@kernel(
    "void(int64[::1],int64[::1],float64[::1],float64[::1],float64[::1],float64[::1],float64[::1],"
    "int64,int64,boolean,int64[::1],int64[::1],int64[:,::1],int64[:,::1])"
)
def check_bars(  # type: ignore[no-untyped-def]
    ts, period, open_, high, low, close, volume,
    mode, step, positive, state, counts, places, others
):  # fmt: skip
    """Checks bars, and how they go on from those before.

    Args:
        period: what gaps are counted in: the times themselves, or the numbers of calendar periods.
        mode: `TRADES`, `FIXED` or `CALENDAR`.
        step: the distance of two neighbours in `period`; 0 where gaps are not to be found.
        positive: whether prices of 0 are to be noted.
        state: `FIELDS` numbers, zeros at first.
        counts: findings of each check so far.
        places, others: for each check, at the number of a finding: its place in this piece, and the
            time of the bar that it contradicts.
    """
    # The time at which the next bar starts if all is well; then its times need no further look.
    expected = _NEVER
    for i in range(len(ts)):
        t = ts[i]
        opened, highest, lowest, closed = open_[i], high[i], low[i], close[i]
        traded = volume[i]
        good = (lowest > 0.0) & (lowest <= opened) & (lowest <= closed) & (opened <= highest)
        good &= (closed <= highest) & (highest < math.inf) & (traded >= 0.0) & (traded < math.inf)
        if good and t == expected:
            expected += step
            state[PRICED] += 1
            state[LAST_TS] = t
            state[PRICED_TS] = t
            state[PRICED_PERIOD] = t
            continue

        if state[BARS] + i > 0:
            last = state[LAST_TS]
            if t < last:
                _note(ORDER, i, last, counts, places, others)
            elif t == last and mode != TRADES:
                _note(DUPLICATE, i, last, counts, places, others)
        state[LAST_TS] = t
        aligned = mode != FIXED or t % step == 0
        if not aligned:
            _note(MISALIGNED, i, t - t % step, counts, places, others)

        priced = not (
            math.isnan(opened) and math.isnan(highest) and math.isnan(lowest) and math.isnan(closed)
        )
        if not priced:
            if math.isinf(traded):
                _note(NOT_FINITE, i, 0, counts, places, others)
            elif traded < 0.0:
                _note(NEGATIVE_VOLUME, i, 0, counts, places, others)
            elif traded > 0.0:
                _note(UNPRICED_VOLUME, i, 0, counts, places, others)
        elif opened == 0.0 and highest == 0.0 and lowest == 0.0 and closed == 0.0 and traded == 0.0:
            priced = False
        else:
            _check_gap(i, t, period[i], step, state, counts, places, others)
            state[PRICED] += 1
            if not (math.isfinite(opened) and math.isfinite(highest) and math.isfinite(lowest)
                    and math.isfinite(closed) and math.isfinite(traded)):  # fmt: skip
                _note(NOT_FINITE, i, 0, counts, places, others)
            else:
                _check_prices(i, opened, highest, lowest, closed, positive, counts, places, others)
                if traded < 0.0:
                    _note(NEGATIVE_VOLUME, i, 0, counts, places, others)
        latest = priced and mode == FIXED and aligned and state[PRICED_TS] == t
        expected = t + step if latest and -_FAR < t < _FAR else _NEVER
    state[BARS] += len(ts)
