"""What must hold of bars: a checker that takes them piece by piece, in one pass.

The checks, and what a finding of each is:

- `bars`: there are none at all (an error), or none with prices (a warning);
- `order`: a bar that starts before the one in front of it;
- `duplicates`: a bar that starts when the one in front of it does;
- `alignment`: a bar that does not start where bars of its timeframe start (a warning);
- `finite`: a bar with NaN or an infinite number in some of its columns;
- `volume-without-prices`: a volume other than 0 where all prices are NaN;
- `high`, `low`: a high below, or a low above, another price of its bar;
- `negative-prices`: errors, or information where prices can be negative;
- `zero-prices`: a bar with a price of 0 (a warning), where they cannot;
- `negative-volumes`;
- `gaps`: places without bars between two bars with prices (information).

A bar without any price (all four NaN), or of nothing but zeros, is a gap. Gaps are counted between
a bar and the latest one in front of it. What is finite alone is held against the rules of prices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from candlebeam.model import Bars, Int64Array, Timeframe, for_kernels
from candlebeam.rules import check_kernels as kernels

ERROR, WARNING, INFORMATION = "error", "warning", "information"
SEVERITIES = (ERROR, WARNING, INFORMATION)

#: How many places of a check are kept by default.
KEPT_PLACES = 5

_FIRST_TS, _END_TS = (int(np.datetime64(year, "ms").astype(np.int64)) for year in ("0000", "10000"))


class Place(NamedTuple):
    """Where something was found.

    Attributes:
        place: of the bar, from 0; None where it is about no single one.
        ts: the start of the bar in ms; None where none is known.
        expected, found: what should have been there, and what was.
    """

    place: int | None
    ts: int | None
    expected: str
    found: str


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        severity: "error", "warning" or "information".
        check: the name of the check.
        count: how often it was found.
        message: what it is, without numbers that `count` has.
        places: the first of them.
    """

    severity: str
    check: str
    count: int
    message: str
    places: tuple[Place, ...] = ()

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ValueError(f"severity {self.severity!r}: expected one of {', '.join(SEVERITIES)}")

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; `from_json` is the inverse."""
        return {**asdict(self), "places": [place._asdict() for place in self.places]}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Finding:
        """The finding of what `to_json` gave."""
        places = tuple(Place(**place) for place in values["places"])
        return cls(**{**values, "places": places})


class Calendar(Protocol):
    """Timeframes whose bars are not all of one length: days, weeks and months of a time zone."""

    def periods(self, ts: Int64Array) -> tuple[Int64Array, Int64Array]:
        """For each time the number of its period, and when that starts in ms.

        The numbers of neighbours differ by 1.
        """
        ...


def one(severity: str, check: str, message: str, expected: str, found: str) -> Finding:
    """A finding about a whole file."""
    return Finding(severity, check, 1, message, (Place(None, None, expected, found),))


def format_ts(ts: int) -> str:
    """A time in ms as text, in UTC; as the number where it is not in the years 0 to 9999.

    >>> format_ts(1_709_251_200_000), format_ts(1_709_251_200_007), format_ts(1 << 60)
    ('2024-03-01 00:00:00', '2024-03-01 00:00:00.007', '1152921504606846976 ms')
    """
    if not _FIRST_TS <= ts < _END_TS:
        return f"{ts} ms"
    moment = np.datetime64(ts, "ms")
    return str(np.datetime_as_string(moment, unit="ms" if ts % 1000 else "s")).replace("T", " ")


class _Check(NamedTuple):
    severity: str
    name: str
    message: str
    expected: Callable[[_Bar], str]
    found: Callable[[_Bar], str]


class _Bar:
    """The bar of a finding, and the time of the other bar it is about."""

    def __init__(self, bars: Bars, place: int, other_ts: int) -> None:
        self.ts = int(bars.ts[place])
        self.open, self.high = float(bars.open[place]), float(bars.high[place])
        self.low, self.close = float(bars.low[place]), float(bars.close[place])
        self.volume = float(bars.volume[place])
        self.other_ts = other_ts

    @property
    def prices(self) -> tuple[float, float, float, float]:
        return self.open, self.high, self.low, self.close


def _columns(bar: _Bar) -> str:
    names = ("open", "high", "low", "close", "volume")
    return ", ".join(f"{name} {getattr(bar, name)!r}" for name in names)


def _least(bar: _Bar) -> str:
    name = min(("low", "open", "close", "high"), key=lambda name: float(getattr(bar, name)))
    return f"{name} {getattr(bar, name)!r}"


_CHECKS = {
    kernels.ORDER: _Check(
        ERROR, "order", "starts before the bar in front of it",
        lambda bar: f"a start after {format_ts(bar.other_ts)}", lambda bar: format_ts(bar.ts),
    ),
    kernels.DUPLICATE: _Check(
        ERROR, "duplicates", "starts when a bar in front of it does",
        lambda bar: f"a start after {format_ts(bar.other_ts)}", lambda bar: format_ts(bar.ts),
    ),
    kernels.MISALIGNED: _Check(
        WARNING, "alignment", "does not start where bars of the timeframe do",
        lambda bar: f"a start at {format_ts(bar.other_ts)}", lambda bar: format_ts(bar.ts),
    ),
    kernels.NOT_FINITE: _Check(
        ERROR, "finite", "some of its numbers are not finite",
        lambda bar: "finite numbers, or no prices at all", _columns,
    ),
    kernels.UNPRICED_VOLUME: _Check(
        ERROR, "volume-without-prices", "volume without prices",
        lambda bar: "volume 0.0 without prices", lambda bar: f"volume {bar.volume!r}",
    ),
    kernels.HIGH: _Check(
        ERROR, "high", "high below open, low or close",
        lambda bar: f"high of at least {max(bar.prices)!r}", lambda bar: repr(bar.high),
    ),
    kernels.LOW: _Check(
        ERROR, "low", "low above open or close",
        lambda bar: f"low of at most {min(bar.open, bar.close)!r}", lambda bar: repr(bar.low),
    ),
    kernels.NEGATIVE_PRICE: _Check(
        ERROR, "negative-prices", "price below 0", lambda bar: "prices of at least 0", _least,
    ),
    kernels.ZERO_PRICE: _Check(
        WARNING, "zero-prices", "price of 0", lambda bar: "prices above 0", _least,
    ),
    kernels.NEGATIVE_VOLUME: _Check(
        ERROR, "negative-volumes", "volume below 0",
        lambda bar: "volume of at least 0", lambda bar: repr(bar.volume),
    ),
    kernels.LONG_GAP: _Check(
        INFORMATION, "gaps", "",
        lambda bar: f"bars between {format_ts(bar.other_ts)} and {format_ts(bar.ts)}",
        lambda bar: "none",
    ),
}  # fmt: skip


class BarChecker:
    """Checks bars that come piece by piece; memory does not grow with their number.

    Args:
        timeframe: the length of a bar; None where they are trades (which may share times, need not
            all be in order, and have no gaps), or where one of the next two says more.
        calendar: what the bars are periods of.
        any_length: whether they are bars of lengths that nobody knows: neither their alignment nor
            gaps are checked.
        any_price: whether prices can be zero or negative, as those of futures spreads.
        keep: how many places of each check are kept.

    Attributes:
        bars: how many have been added.
        first_ts, last_ts: the starts of the first and the last of them, as they stand; None
            without any.

    Example:
        >>> checker = BarChecker(Timeframe.parse("1m"))
        >>> prices = np.array([1.0, 2.0])
        >>> ts = np.array([60_000, 60_000])
        >>> checker.add(0, Bars(ts, prices, prices, prices, prices, np.ones(2)))
        >>> [(finding.check, finding.count) for finding in checker.finish()]
        [('duplicates', 1)]
    """

    def __init__(
        self,
        timeframe: Timeframe | None,
        *,
        calendar: Calendar | None = None,
        any_length: bool = False,
        any_price: bool = False,
        keep: int = KEPT_PLACES,
    ) -> None:
        if (timeframe is not None) + (calendar is not None) + any_length > 1:
            raise ValueError("expected one of timeframe, calendar and any_length, found several")
        self._calendar, self._any_price, self._keep = calendar, any_price, keep
        self._mode, self._step = kernels.TRADES, 0
        if timeframe is not None:
            self._mode, self._step = kernels.FIXED, timeframe.ms
        elif calendar is not None:
            self._mode, self._step = kernels.CALENDAR, 1
        elif any_length:
            self._mode = kernels.CALENDAR
        self._state = np.zeros(kernels.FIELDS, np.int64)
        self._counts = np.zeros(kernels.CHECKS, np.int64)
        self._places: list[list[Place]] = [[] for _ in range(kernels.CHECKS)]
        self.first_ts: int | None = None
        self.last_ts: int | None = None

    @property
    def bars(self) -> int:
        return int(self._state[kernels.BARS])

    @property
    def priced(self) -> int:
        """How many of them have prices."""
        return int(self._state[kernels.PRICED])

    @property
    def checks(self) -> tuple[str, ...]:
        """The names of the checks that are made, in the order of their findings."""
        return ("bars", *(_CHECKS[number].name for number in self._made))

    @property
    def _made(self) -> tuple[int, ...]:
        left_out = set()
        if self._mode == kernels.TRADES:
            left_out |= {kernels.DUPLICATE, kernels.HIGH, kernels.LOW}
        if not self._step:
            left_out |= {kernels.MISALIGNED, kernels.LONG_GAP}
        if self._any_price:
            left_out.add(kernels.ZERO_PRICE)
        return tuple(number for number in _CHECKS if number not in left_out)

    def add(self, begin: int, bars: Bars) -> None:
        """Checks some bars, and how they go on from those before.

        Args:
            begin: the place of the first of them.
        """
        if not len(bars):
            return
        ts = for_kernels(bars.ts)
        periods, starts = (ts, ts) if self._calendar is None else self._calendar.periods(ts)
        before = self._counts.tolist()
        places = np.empty((kernels.CHECKS, self._keep), np.int64)
        others = np.empty_like(places)
        kernels.check_bars(
            ts,
            for_kernels(periods),
            for_kernels(bars.open),
            for_kernels(bars.high),
            for_kernels(bars.low),
            for_kernels(bars.close),
            for_kernels(bars.volume),
            self._mode,
            self._step,
            not self._any_price,
            self._state,
            self._counts,
            places,
            others,
        )
        if self._calendar is not None:
            self._note_misaligned(np.flatnonzero(starts != ts), starts, places, others)
        for check, found in enumerate(self._counts.tolist()):
            for number in range(before[check], min(found, self._keep)):
                place = int(places[check, number])
                bar = _Bar(bars, place, int(others[check, number]))
                described = _CHECKS[check]
                self._places[check].append(
                    Place(begin + place, bar.ts, described.expected(bar), described.found(bar))
                )
        self.first_ts = int(ts[0]) if self.first_ts is None else self.first_ts
        self.last_ts = int(ts[-1])

    def _note_misaligned(
        self, wrong: Int64Array, starts: Int64Array, places: Int64Array, others: Int64Array
    ) -> None:
        found = int(self._counts[kernels.MISALIGNED])
        room = max(self._keep - found, 0)
        kept = wrong[:room]
        places[kernels.MISALIGNED, found : found + len(kept)] = kept
        others[kernels.MISALIGNED, found : found + len(kept)] = starts[kept]
        self._counts[kernels.MISALIGNED] += len(wrong)

    def finish(self) -> list[Finding]:
        """What was found, in the order of `checks`. More bars may be added afterwards."""
        findings = []
        if not self.bars:
            findings.append(one(ERROR, "bars", "no bars at all", "bars", "none"))
        elif not self.priced:
            findings.append(
                one(WARNING, "bars", "no bar has prices", "bars with prices",
                    f"{self.bars} without")
            )  # fmt: skip
        for number in self._made:
            count = int(self._counts[number])
            if number == kernels.LONG_GAP:
                findings += self._gaps()
            elif count:
                check = _CHECKS[number]
                findings.append(
                    Finding(
                        self._severity(number),
                        check.name,
                        count,
                        check.message,
                        tuple(self._places[number]),
                    )
                )
        return findings

    def _severity(self, number: int) -> str:
        if number == kernels.NEGATIVE_PRICE and self._any_price:
            return INFORMATION
        if number == kernels.ORDER and self._mode == kernels.TRADES:
            return INFORMATION
        return _CHECKS[number].severity

    def _gaps(self) -> list[Finding]:
        state = self._state
        if not state[kernels.GAPS]:
            return []
        longest = (
            f"{state[kernels.LONGEST]} from {format_ts(int(state[kernels.LONGEST_FROM]))}"
            f" to {format_ts(int(state[kernels.LONGEST_TO]))}"
        )
        message = (
            f"bars missing: {state[kernels.MISSING]}; the longest: {longest};"
            f" over twice the timeframe: {self._counts[kernels.LONG_GAP]}"
        )
        check = _CHECKS[kernels.LONG_GAP]
        places = tuple(self._places[kernels.LONG_GAP])
        return [Finding(check.severity, check.name, int(state[kernels.GAPS]), message, places)]


def check_bars(
    bars: Bars,
    timeframe: Timeframe | None,
    *,
    any_price: bool = False,
    keep: int = KEPT_PLACES,
) -> list[Finding]:
    """What is wrong with some bars; see `BarChecker`."""
    checker = BarChecker(timeframe, any_price=any_price, keep=keep)
    checker.add(0, bars)
    return checker.finish()
