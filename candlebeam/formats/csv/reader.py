"""One CSV file of bars: what its header says, and its rows as `Bars`."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

import numpy as np

from candlebeam.errors import FormatError
from candlebeam.formats.csv import rows
from candlebeam.formats.decimal_numbers import WORD_PAD
from candlebeam.model import BAR_COLUMNS, Bars, Float64Array, Int64Array, Timeframe

#: Bars of a full piece.
PIECE_BARS = 1 << 16
#: Bytes that are read at a time; no line is longer.
BLOCK = 1 << 20

_NOTES = 1 << 12
_TIMES = ("timestamp", "time", "datetime", "date", "ts", "ts_event")
_WHOLE = re.compile(r"-?\d+")
_UNITS = {1: "seconds", 1_000: "ms", 1_000_000: "µs", 1_000_000_000: "ns"}
#: Databento's record types of bars.
_BAR_TYPES = {"32": "1s", "33": "1m", "34": "1h", "35": "1d", "36": "1d"}
_SHOWN = 60


class CsvHead(NamedTuple):
    """What the first lines of a file say.

    Attributes:
        columns: what stands in each column, for `csv_rows.read_rows`.
        names: what the columns are called.
        size, lines: bytes and lines up to the first row.
        unit, fixed: of times and prices, for `csv_rows`.
        constant: the text of the column that tells instruments apart; None without one.
        symbol: None where there is no column that says it.
        timeframe: None where no column says it.
    """

    columns: list[int]
    names: list[str]
    size: int
    lines: int
    unit: int
    fixed: bool
    constant: bytes | None
    symbol: str | None
    timeframe: Timeframe | None

    @classmethod
    def read(cls, path: str, data: bytes) -> CsvHead:
        """Reads the first lines of a file from its first bytes; raises `FormatError`."""
        size = lines = 0
        while True:
            end = data.find(b"\n", size) + 1 or len(data)
            line, size, lines = data[size:end], end, lines + 1
            if line.strip() or size == len(data):
                break
        names = [name.strip().lower() for name in _fields(line.removeprefix(b"\xef\xbb\xbf"))]
        columns = _columns(path, names, line)
        if not line.endswith(b"\n"):
            _refuse_cut(path, line, lines, size - len(line))
        following = next((row for row in data[size:].split(b"\n", 64) if row.strip()), b"")
        first = [text.strip() for text in _fields(following)]
        # A row that is too short is found to be when it is read.
        values = dict(zip(names, first, strict=False))
        time = values.get(names[columns.index(rows.TIME)], "")
        databento = "rtype" in names or "ts_event" in names
        prices = [values.get(name, "") for name in BAR_COLUMNS[1:5]]
        constant = None
        for name in ("symbol", *(["instrument_id"] if databento else [])):
            if name in values:
                columns[names.index(name)] = rows.CONSTANT
                constant = values[name].replace('"', '""').encode()
                break
        return cls(
            columns=columns,
            names=names,
            size=size,
            lines=lines,
            unit=_unit(path, time, size) if _WHOLE.fullmatch(time) else 0,
            fixed=databento and all(_WHOLE.fullmatch(price) for price in prices),
            constant=constant,
            symbol=values.get("symbol") or None,
            timeframe=_bar_type(path, values.get("rtype"), size),
        )


def _fields(line: bytes) -> list[str]:
    text = line.decode("utf-8", "backslashreplace").strip("\r\n")
    try:
        return next(csv.reader([text], skipinitialspace=True), [])
    except csv.Error:
        return [text]


def _columns(path: str, names: list[str], line: bytes) -> list[int]:
    wanted = [[name] for name in BAR_COLUMNS]
    wanted[rows.TIME] = list(_TIMES)
    columns = [rows.IGNORED] * len(names)
    for meaning, known in enumerate(wanted):
        places = [place for place, name in enumerate(names) if name in known]
        if len(places) != 1:
            what = "timestamp" if meaning == rows.TIME else known[0]
            found = "none" if not places else " and ".join(names[place] for place in places)
            if found == "none" or len(set(names)) < len(names):
                found = _shown(line)
            raise FormatError(path, f"a header with one column {what}", found, 0)
        columns[places[0]] = meaning
    return columns


def _unit(path: str, time: str, offset: int) -> int:
    """The units of a second in which a time is told as a number, by its size."""
    size = abs(int(time))
    if not 10**8 <= size < 2**63:
        raise FormatError(path, "a time in seconds, ms, µs or ns since 1970", repr(time), offset)
    ends = (10**11, 10**14, 10**17, 2**63)
    return next(unit for unit, end in zip(_UNITS, ends, strict=True) if size < end)


def _bar_type(path: str, kind: str | None, offset: int) -> Timeframe | None:
    if kind is None:
        return None
    if kind not in _BAR_TYPES:
        raise FormatError(path, "bars: an rtype from 32 to 36", repr(kind), offset)
    return Timeframe.parse(_BAR_TYPES[kind])


class CsvReader:
    """Reads the rows of one file as `Bars` of at most `PIECE_BARS`; iterate it, once.

    Attributes:
        last: the time of the last bar so far.
    """

    def __init__(self, path: str, last: int, strict: bool) -> None:
        self._path, self._strict = path, strict
        self.last = last
        self._base = 0  # a place in the buffer plus this is the place in the file

    def __iter__(self) -> Iterator[Bars]:
        with open(self._path, "rb", buffering=0) as file:
            data = file.read(BLOCK)
            self._head = head = CsvHead.read(self._path, data)
            self._control = np.zeros(rows.CONTROL_SIZE, np.int64)
            for place, value in (
                (rows.POS, head.size), (rows.LINE, head.lines), (rows.LAST, self.last),
                (rows.UNIT, head.unit), (rows.FIXED, head.fixed), (rows.STRICT, self._strict),
            ):  # fmt: skip
                self._control[place] = value
            self._notes = np.zeros((_NOTES, rows.NOTE_COLUMNS), np.int64)
            self._new_columns()
            rest = b""
            while data:
                following = file.read(BLOCK)
                text = rest + data
                yield from self._rows(text, text.rfind(b"\n") + 1)
                used = int(self._control[rows.POS])
                rest = text[used:]
                self._base += used
                self._control[rows.POS] = 0
                data = following
                if len(rest) > BLOCK:
                    expected = f"a line of at most {BLOCK} bytes as line {self._line}"
                    raise FormatError(self._path, expected, "a longer one", self._base)
            if rest.strip():
                _refuse_cut(self._path, rest, self._line, self._base)
            if self._control[rows.FILLED]:
                yield self._take()

    @property
    def _line(self) -> int:
        return int(self._control[rows.LINE]) + 1

    def _rows(self, text: bytes, end: int) -> Iterator[Bars]:
        buffer = np.frombuffer(bytearray(text) + bytes(WORD_PAD), np.uint8)
        columns = np.array(self._head.columns, np.int64)
        constant = np.frombuffer(bytearray(self._head.constant or b""), np.uint8)
        while True:
            status = rows.read_rows(
                buffer, end, columns, constant, self._times, self._numbers, self._notes,
                self._control,
            )  # fmt: skip
            if status >= rows.BAD_FIELDS:
                raise self._error(status, text)
            self._answer(text)
            if status == rows.DONE:
                return
            if status == rows.COLUMNS_FULL:
                yield self._take()

    def _answer(self, text: bytes) -> None:
        count = int(self._control[rows.NOTED])
        for slot, number, begin, end in self._notes[:count].tolist():
            digits = text[begin:end].decode()
            fixed = self._head.fixed and number + 1 != rows.VOLUME
            self._numbers[number, slot] = float(digits + "e-9" if fixed else digits)
        self._control[rows.NOTED] = 0

    def _new_columns(self) -> None:
        self._times: Int64Array = np.empty(PIECE_BARS, np.int64)
        self._numbers: Float64Array = np.empty((rows.VOLUME, PIECE_BARS))
        self._control[rows.FILLED] = 0

    def _take(self) -> Bars:
        count = int(self._control[rows.FILLED])
        bars = Bars(self._times[:count], *self._numbers[:, :count])
        self.last = int(self._control[rows.LAST])
        self._new_columns()
        return bars

    def _error(self, status: int, text: bytes) -> FormatError:
        control, head = self._control, self._head
        field_number, begin, end = control[[rows.FIELD, rows.BEGIN, rows.END]].tolist()
        start = int(control[rows.POS])
        on = f"on line {self._line}"
        place, found = begin, _shown(text[begin:end])
        if status == rows.BAD_FIELDS:
            expected, found = f"{len(head.columns)} fields {on}", str(field_number)
            place = start
        elif status == rows.BAD_QUOTES:
            expected = f"a field that ends with its quotes {on}"
        elif status == rows.BAD_TIME:
            what = "a time such as 2024-01-31 00:00:00+00:00"
            if head.unit:
                what = f"a time in {_UNITS[head.unit]} since 1970"
            expected = f"{what}, of whole milliseconds, {on}"
        elif status == rows.BAD_NUMBER:
            whole = head.fixed and head.columns[field_number] != rows.VOLUME
            kind = "a whole number of 1e-9" if whole else "a number"
            expected = f"{kind} as {head.names[field_number]} {on}"
        elif status == rows.BAD_CONSTANT:
            known = _shown(head.constant or b"")
            expected = f"one {head.names[field_number]} in all of the file, {known}, {on}"
        else:
            place, found = start, _shown(text[start:end])
            expected = f"a bar after {_moment(int(control[rows.LAST]))} {on}"
            if status == rows.BAD_BAR:
                expected = f"all prices and a volume, or no price at all, {on}"
        return FormatError(self._path, expected, found, self._base + place)


def _refuse_cut(path: str, line: bytes, number: int, offset: int) -> NoReturn:
    expected = f"a line feed at the end of line {number}: the file may be cut off"
    raise FormatError(path, expected, _shown(line), offset)


def _shown(data: bytes) -> str:
    cut = data.strip()
    more = "..." if len(cut) > _SHOWN else ""
    return repr(cut[:_SHOWN].decode("utf-8", "backslashreplace")) + more


def _moment(ts: int) -> str:
    return f"{np.datetime64(ts, 'ms')}Z"
