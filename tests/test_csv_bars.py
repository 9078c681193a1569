"""CSV files of bars: what is written, what is read, and that the two are inverses."""

from __future__ import annotations

import math
import pickle
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from candlebeam.errors import CandlebeamError, FormatError, RangeError, UsageError
from candlebeam.formats.bar_source import BarSource
from candlebeam.formats.csv import reader as csv_reader
from candlebeam.formats.csv import text as csv_text
from candlebeam.formats.csv.bars import CsvBars, CsvName, csv_path, encode_csv, open_csv
from candlebeam.formats.csv.text import END_TS, FIRST_TS, HEADER
from candlebeam.model import BAR_COLUMNS, Bars, Market, Timeframe
from candlebeam.rules.periods import Period
from tests.bar_rows import bars_from, exact

MIDNIGHT = 1_704_067_200_000
NUMBERS = BAR_COLUMNS[1:]
FINITE = st.floats(allow_nan=False, allow_infinity=False)
#: What prices look like, and everything that float64 holds.
PRICES = FINITE | st.integers(-(10**9), 10**9).map(lambda n: n / 10_000)


def bars_of(*rows: tuple[float, ...]) -> Bars:
    return bars_from(rows)


def read_all(source: BarSource, begin: int = 0) -> Bars:
    pieces = list(source.pieces(begin))
    place = begin
    for piece in pieces:
        assert piece.begin == place
        place += len(piece.bars)
    return Bars.join([piece.bars for piece in pieces])


def source_of(folder: Path, text: str | bytes, name: str = "x.csv", **options: Any) -> CsvBars:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return CsvBars((str(path),), **options)


GAP = (math.nan,) * 4 + (0.0,)
BAR = st.tuples(PRICES, PRICES, PRICES, PRICES, PRICES) | st.just(GAP)
BARS = st.dictionaries(st.integers(FIRST_TS, END_TS - 1), BAR, max_size=12).map(
    lambda found: bars_of(*((ts, *found[ts]) for ts in sorted(found)))
)


# Writing


def test_text_of_bars() -> None:
    bars = bars_of(
        (MIDNIGHT, 42283.58, 42554.57, 42261.02, 42475.0, 1271.68108),
        (MIDNIGHT + 60_000, *GAP),
        (MIDNIGHT + 120_000, -37.63, 0.0, -40.32, 5e-7, 1e21),
    )
    assert encode_csv(bars) == (
        b"timestamp,open,high,low,close,volume\n"
        b"2024-01-01 00:00:00+00:00,42283.58,42554.57,42261.02,42475,1271.68108\n"
        b"2024-01-01 00:01:00+00:00,,,,,0\n"
        b"2024-01-01 00:02:00+00:00,-37.63,0,-40.32,0.0000005,1000000000000000000000\n"
    )


def test_no_bars_are_a_header_or_nothing() -> None:
    assert encode_csv(bars_of()) == HEADER
    assert encode_csv(bars_of(), header=False) == b""


def test_decimals_are_the_fewest_that_a_price_has() -> None:
    bars = bars_of((MIDNIGHT, 1.5, 200.0, 0.123456, 0.0, 7.0))
    text = encode_csv(bars, 4, header=False)
    assert text == b"2024-01-01 00:00:00+00:00,1.5000,200.0000,0.123456,0.0000,7\n"


@given(PRICES, st.integers(0, 20))
def test_decimals_never_change_the_price(price: float, decimals: int) -> None:
    text = encode_csv(bars_of((MIDNIGHT, *[price] * 5)), decimals, header=False).decode()
    _, *prices, volume = text.strip().split(",")
    for number in prices:
        assert float(number) == price
        assert len(number.partition(".")[2]) >= decimals
    assert prices[0].rstrip("0").rstrip(".") == volume.rstrip("0").rstrip(".") or "." not in volume


def shortest(number: float) -> str:
    """The digits of Python's own `repr`, without an exponent."""
    text = format(Decimal(repr(number)), "f")
    return text.removesuffix(".0")


EDGES = [0.0, -0.0, 5e-324, 2.2250738585072014e-308, 2.225073858507201e-308, 1.7976931348623157e308]
EDGES += [2.0**53, 2.0**53 + 2, 1e22, 1e23, 9.5367431640625e-07, 0.3, 100.0, 8.41e21, 2.0**-1074]


@given(st.lists(FINITE, min_size=1, max_size=50))
@example(EDGES)
@example([2.0**power for power in range(-1074, 1024)])
@example([10.0**power for power in range(-323, 309)])
@example([np.nextafter(10.0**power, 0) for power in range(-323, 309)])
def test_numbers_are_the_shortest_that_read_back(numbers: list[float]) -> None:
    rows = [(MIDNIGHT + place, *[number] * 5) for place, number in enumerate(numbers)]
    lines = encode_csv(bars_of(*rows), header=False).decode().splitlines()
    for line, number in zip(lines, numbers, strict=True):
        assert set(line.split(",")[1:]) == {shortest(float(number))}


@given(st.lists(st.integers(FIRST_TS, END_TS - 1), min_size=1, max_size=20))
@example([FIRST_TS, -1, 0, 951_782_400_000, 951_868_799_999, 4_107_542_400_000, END_TS - 1])
def test_times_are_iso_dates_in_utc(times: list[int]) -> None:
    lines = encode_csv(bars_of(*((ts, *GAP) for ts in times)), header=False).decode().splitlines()
    digits = 23 if any(ts % 1_000 for ts in times) else 19
    for line, ts in zip(lines, times, strict=True):
        moment = str(np.datetime64(ts, "ms")).replace("T", " ")
        assert line.partition(",")[0] == moment[:digits] + "+00:00"


def test_milliseconds_are_written_where_they_are_wanted() -> None:
    text = encode_csv(bars_of((MIDNIGHT, *GAP)), header=False, milliseconds=True)
    assert text == b"2024-01-01 00:00:00.000+00:00,,,,,0\n"


def test_gaps_are_left_out_on_request() -> None:
    some = (math.nan, 1.0, 1.0, 1.0, 1.0)
    bars = bars_of((0, *GAP), (1_000, *some), (2_000, *GAP))
    assert (
        encode_csv(bars, keep_gaps=False, header=False) == b"1970-01-01 00:00:01+00:00,,1,1,1,1\n"
    )


@pytest.mark.parametrize("column", range(5))
@pytest.mark.parametrize("number", [math.inf, -math.inf])
def test_infinite_number_is_refused_by_name(column: int, number: float) -> None:
    numbers = [1.0] * 5
    numbers[column] = number
    bars = bars_of((MIDNIGHT, *[1.0] * 5), (MIDNIGHT + 60_000, *numbers))
    message = f"^{NUMBERS[column]} of the bar at 2024-01-01T00:01:00.000Z: expected a finite number"
    with pytest.raises(RangeError, match=message):
        encode_csv(bars)


@pytest.mark.parametrize("ts", [FIRST_TS - 1, END_TS, 2**62, -(2**63)])
def test_time_that_four_digits_of_a_year_cannot_tell_is_refused(ts: int) -> None:
    with pytest.raises(RangeError, match=f"^time {ts} ms: expected one in the years 1 to 9999$"):
        encode_csv(bars_of((0, *GAP), (ts, *GAP)))


# Inverses


@given(BARS, st.integers(0, 6))
def test_what_is_written_reads_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, bars: Bars, decimals: int
) -> None:
    folder = tmp_path_factory.getbasetemp()
    found = read_all(source_of(folder, encode_csv(bars, decimals)))
    assert exact(found) == exact(bars)


def test_pieces_and_blocks_make_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(1)
    prices = random.normal(size=(5, 700))
    prices[:4, 100:300] = np.nan
    prices[4, 100:300] = 0
    bars = Bars(MIDNIGHT + np.arange(700) * 60_000, *prices)
    source = source_of(tmp_path, encode_csv(bars))
    crc = [source.checksum(end) for end in (0, 1, 350, 700, 9_999)]
    for piece, block in [(1, 200), (64, 331), (700, 1 << 20)]:
        monkeypatch.setattr(csv_reader, "PIECE_BARS", piece)
        monkeypatch.setattr(csv_reader, "BLOCK", block)
        monkeypatch.setattr(csv_reader, "_NOTES", 5)
        monkeypatch.setattr(csv_text, "_RUN", piece)
        assert encode_csv(bars) == Path(source.path).read_bytes()
        for begin in (0, 1, 99, 350, 699, 700, 701):
            assert exact(read_all(source, begin)) == exact(bars.part(slice(begin, None)))
        assert [source.checksum(end) for end in (0, 1, 350, 700, 9_999)] == crc


def test_checksum_is_that_of_the_bars_and_not_of_their_text(tmp_path: Path) -> None:
    one = source_of(tmp_path, "timestamp,open,high,low,close,volume\n2024-01-01,1,2,0.5,1,3\n")
    other = source_of(
        tmp_path, "close,TIME,low,high,open,volume\n1.0,1704067200,5e-1,2,1,3.\n", "other.csv"
    )
    changed = source_of(
        tmp_path, "time,open,high,low,close,volume\n2024-01-01,1,2,0.5,1,4\n", "c.csv"
    )
    assert one.checksum(1) == other.checksum(1) != changed.checksum(1)
    assert one.checksum(0) == changed.checksum(0) == 0


# Reading what others have written


def one_row(folder: Path, time: str, numbers: str = "1,2,0.5,1.5,10", **options: Any) -> Bars:
    return read_all(
        source_of(folder, f"time,open,high,low,close,volume\n{time},{numbers}\n", **options)
    )


@pytest.mark.parametrize(
    ("text", "ts"),
    [
        ("2024-01-01", MIDNIGHT),
        ("2024-01-01 00:00", MIDNIGHT),
        ("2024-01-01 00:00:00", MIDNIGHT),
        ("2024-01-01T00:00:00Z", MIDNIGHT),
        ("2024-01-01T00:00:00.000000000Z", MIDNIGHT),
        ("2024-01-01 00:00:00.120+00:00", MIDNIGHT + 120),
        ("2024-01-01 00:00:00.12+00", MIDNIGHT + 120),
        ("2024-01-01 05:30:00+05:30", MIDNIGHT),
        ("2023-12-31 19:00:00-0500", MIDNIGHT),
        ("2024-02-29T23:59:59Z", MIDNIGHT + 60 * 86_400_000 - 1_000),
        ("1969-12-31 23:59:59", -1_000),
        ("0001-01-01", FIRST_TS),
        ("9999-12-31 23:59:59.999", END_TS - 1),
        ("1704067200", MIDNIGHT),
        ("1704067200120", MIDNIGHT + 120),
        ("1704067200120000", MIDNIGHT + 120),
        ("1704067200120000000", MIDNIGHT + 120),
        ('"2024-01-01"', MIDNIGHT),
        ("  2024-01-01\t", MIDNIGHT),
        (' " 1704067200" ', None),
    ],
)
def test_times_in_many_forms(tmp_path: Path, text: str, ts: int | None) -> None:
    if ts is None:
        with pytest.raises(FormatError, match="expected a time"):
            one_row(tmp_path, text)
        return
    assert one_row(tmp_path, text).ts.tolist() == [ts]


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "20240101", "2024-13-01", "2024-00-01", "2024-02-30", "2023-02-29",
        "1900-02-29", "2024-01-00", "2024-1-1", "0000-01-01", "2024-01-01x", "2024-01-01 24:00",
        "2024-01-01 00:60", "2024-01-01 00:00:60", "2024-01-01 00", "2024-01-01 00:00:00.",
        "2024-01-01 00:00:00.0000001", "2024-01-01 00:00:00.0000000000",
        "2024-01-01 00:00:00+1", "2024-01-01 00:00:00+25:00",
        "2024-01-01 00:00:00+05-30", "2024-01-01 00:00:00 UTC", "2024-01-01 00:00:", "1704067200.5",
        "1704067200120500", "1704067200000000001", "99999999999999999999", "-5", "1e9",
        "9999-12-31 23:59:59-01:00", "0001-01-01 00:00+00:01",
    ],
)  # fmt: skip
def test_what_is_no_time_of_whole_milliseconds_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(
        FormatError, match=r"x.csv at byte \d+: expected a time .*, found '"
    ) as error:
        one_row(tmp_path, text)
    assert repr(text[:60]) in str(error.value)


def test_unit_of_times_is_told_by_the_first_row(tmp_path: Path) -> None:
    text = "ts,open,high,low,close,volume\n1704067200000,1,1,1,1,1\n1704067260,1,1,1,1,1\n"
    with pytest.raises(
        FormatError, match=r"expected a bar after 2024-01-01T00:00:00.000Z on line 3"
    ):
        read_all(source_of(tmp_path, text))


@given(FINITE)
def test_numbers_are_the_nearest_float64(
    tmp_path_factory: pytest.TempPathFactory, number: float
) -> None:
    texts = (repr(number), f"{number:.25e}", f"{number:+.1E}", f" {number!r} ", f'"{number!r}"')
    for text in texts:
        expected = float(text.strip(' "'))
        folder = tmp_path_factory.getbasetemp()
        if math.isinf(expected):
            with pytest.raises(FormatError, match="expected a number as open on line 2"):
                one_row(folder, "2024-01-01", f"{text},1,1,1,1")
            continue
        found = one_row(folder, "2024-01-01", f"{text},1,1,1,1").open[0]
        assert np.float64(found).tobytes() == np.float64(expected).tobytes()


@pytest.mark.parametrize(
    "text", ["x", "inf", "-inf", "1e999", "1,5", "--1", "1_0", "0x1", ".", "na"]
)
@pytest.mark.parametrize("column", range(5))
def test_what_is_no_number_is_refused_by_place(tmp_path: Path, text: str, column: int) -> None:
    numbers = ["1"] * 5
    numbers[column] = f'"{text}"'
    good = "2024-01-01,1,1,1,1,1\n"
    source = source_of(
        tmp_path,
        f"time,open,high,low,close,volume\n{good}\n2024-01-02,{','.join(numbers)}\n",
    )
    with pytest.raises(FormatError) as error:
        read_all(source)
    place = Path(source.path).read_text().index(f'"{text}"') + 1
    expected = f"a number as {NUMBERS[column]} on line 4"
    assert str(error.value) == (
        f"{source.path} at byte {place}: expected {expected}, found {text!r}"
    )


@pytest.mark.parametrize("empty", ["", "nan", "NaN", "null", "NULL", '""', "  "])
def test_row_without_prices_is_a_gap(tmp_path: Path, empty: str) -> None:
    for volume in ("0", empty):
        bars = one_row(tmp_path, "2024-01-01", ",".join([empty] * 4 + [volume]))
        assert exact(bars) == exact(bars_of((MIDNIGHT, *GAP)))


HALF = ["1,,1,1,1", "1,2,3,nan,1", ",,,1,1", "1,1,1,1,"]


@pytest.mark.parametrize("numbers", HALF)
def test_row_that_is_half_a_bar_is_refused(tmp_path: Path, numbers: str) -> None:
    with pytest.raises(
        FormatError,
        match=r"x.csv at byte 32: expected all prices and a volume, or no price at all, on line 2,"
        r" found '2024-01-01,",
    ):
        one_row(tmp_path, "2024-01-01", numbers)


@pytest.mark.parametrize("numbers", HALF)
def test_row_that_is_half_a_bar_is_given_where_that_is_wanted(tmp_path: Path, numbers: str) -> None:
    bars = one_row(tmp_path, "2024-01-01", numbers, strict=False)
    found = [getattr(bars, name)[0] for name in NUMBERS]
    expected = [math.nan if text in ("", "nan") else float(text) for text in numbers.split(",")]
    assert np.array_equal(found, expected, equal_nan=True)


UNORDERED = (
    "timestamp,open,high,low,close,volume\n"
    "2024-01-02,1,1,1,1,1\n2024-01-01,2,2,2,2,2\n2024-01-01,3,3,3,3,3\n"
)


def test_times_must_ascend(tmp_path: Path) -> None:
    source = source_of(tmp_path, UNORDERED)
    with pytest.raises(
        FormatError,
        match=r"^.*x.csv at byte 58: expected a bar after 2024-01-02T00:00:00.000Z on line 3,"
        " found '2024-01-01,2,2,2,2,2'$",
    ):
        read_all(source)


def test_order_is_left_alone_where_that_is_wanted(tmp_path: Path) -> None:
    source = source_of(tmp_path, UNORDERED, strict=False)
    assert read_all(source).open.tolist() == [1, 2, 3]
    assert source.timeframe == Timeframe.parse("1d")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("2024-01-01,1,1,1,1", "at byte 37: expected 6 fields on line 2, found 5"),
        ("2024-01-01,1,1,1,1,1,", "at byte 37: expected 6 fields on line 2, found 7"),
        ("2024-01-01", "at byte 37: expected 6 fields on line 2, found 1"),
        (
            '2024-01-01,1,1,"1,1,1',
            "at byte 53: expected a field that ends with its quotes on line 2",
        ),
        ('2024-01-01,1,1,"1"2,1,1', "expected a field that ends with its quotes on line 2"),
    ],
)
def test_row_of_another_shape_is_refused(tmp_path: Path, row: str, expected: str) -> None:
    source = source_of(tmp_path, f"timestamp,open,high,low,close,volume\n{row}\n")
    with pytest.raises(FormatError) as error:
        read_all(source)
    assert expected in str(error.value)


def test_lines_may_end_with_crlf_be_blank_and_begin_with_a_mark(tmp_path: Path) -> None:
    text = "\ufeffTimestamp,OPEN,High,low,close,Volume\r\n\r\n2024-01-01,1,2,0.5,1.5,10\r\n \r\n"
    assert exact(read_all(source_of(tmp_path, text))) == exact(
        bars_of((MIDNIGHT, 1, 2, 0.5, 1.5, 10))
    )


@pytest.mark.parametrize(
    "text",
    [
        "timestamp,open,high,low,close,volume",
        "timestamp,open,high,low,close,volume\n2024-01-01,1,1,1,1,123",
        "timestamp,open,high,low,close,volume\n2024-01-01,1,1,1,1,1\n2024-01-02,1",
    ],
)
def test_last_line_without_line_feed_is_refused(tmp_path: Path, text: str) -> None:
    source = source_of(tmp_path, text)
    line = text.count("\n") + 1
    with pytest.raises(FormatError, match=f"expected a line feed at the end of line {line}: "):
        read_all(source)


def test_line_that_never_ends_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_reader, "BLOCK", 64)
    source = source_of(tmp_path, HEADER + b"2024-01-01" + b" " * 1_000 + b",1,1,1,1,1\n")
    with pytest.raises(FormatError, match="expected a line of at most 64 bytes as line 2"):
        read_all(source)


@pytest.mark.parametrize(
    ("header", "column"),
    [
        ("", "timestamp"),
        ("\n\n", "timestamp"),
        ("1704067200,1,2,3,4,5\n", "timestamp"),
        ("timestamp;open;high;low;close;volume\n", "timestamp"),
        ("timestamp,open,high,low,close\n", "volume"),
        ("timestamp,open,high,low,close,volume,open\n", "open"),
        ("date,time,open,high,low,close,volume\n", "timestamp"),
        ("ts_event,price,size\n", "open"),
        ("\x1f\x8b\x08\x00\n", "timestamp"),
        ('"timestamp,open\n', "timestamp"),
    ],
)
def test_file_with_another_header_is_refused(tmp_path: Path, header: str, column: str) -> None:
    source = source_of(tmp_path, header)
    with pytest.raises(FormatError, match="a header with one column") as error:
        read_all(source)
    expected = f"x.csv at byte 0: expected a header with one column {column}, found "
    assert expected in str(error.value)


# Databento's own CSV

DATABENTO = "ts_event,rtype,publisher_id,instrument_id,open,high,low,close,volume"


def test_databento_with_fixed_prices(tmp_path: Path) -> None:
    text = f"{DATABENTO}\n1704067200000000000,33,2,7,422570000000,9007199254740993,1,-5,120\n"
    source = source_of(tmp_path, text)
    expected = (MIDNIGHT, 422.57, 9007199.254740993, 1e-9, -5e-9, 120)
    assert exact(read_all(source)) == exact(bars_of(expected))
    assert source.timeframe == Timeframe.parse("1m")


def test_databento_with_decimals_dates_and_symbols(tmp_path: Path) -> None:
    text = (
        f"{DATABENTO},symbol\n"
        "2024-01-01T00:00:00.000000000Z,32,2,7,422.570000000,423,422.5,423.000000000,120,BRK.B\n"
        "2024-01-01T00:00:05.000000000Z,32,2,9,422.570000000,423,422.5,423.000000000,120,BRK.B\n"
    )
    source = source_of(tmp_path, text, "XNAS.csv")
    assert read_all(source).high.tolist() == [423, 423]
    assert source.market == Market("", "", "BRK.B")
    assert source.timeframe == Timeframe.parse("1s")


@given(st.integers(-(2**63) + 1, 2**63 - 2))
def test_databento_prices_are_the_nearest_float64(
    tmp_path_factory: pytest.TempPathFactory, price: int
) -> None:
    text = f"{DATABENTO}\n1704067200000000000,33,2,7,{price},1,1,1,120\n"
    bars = read_all(source_of(tmp_path_factory.getbasetemp(), text))
    assert bars.open[0] == float(f"{price}e-9")


def test_databento_price_that_is_undefined_is_none(tmp_path: Path) -> None:
    nothing = ",".join([str(2**63 - 1)] * 4)
    text = f"{DATABENTO}\n1704067200000000000,33,2,7,{nothing},0\n"
    assert exact(read_all(source_of(tmp_path, text))) == exact(bars_of((MIDNIGHT, *GAP)))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("1704067200000000000,0,2,7,1,1,1,1,1", "expected bars: an rtype from 32 to 36, found '0'"),
        (
            "1704067200000000000,33,2,7,1,1,1,1,1\n1704067260000000000,33,2,8,1,1,1,1,1",
            "expected one instrument_id in all of the file, '7', on line 3, found '8'",
        ),
        (
            "1704067200000000000,33,2,7,1,1,1,1,1\n1704067260000000000,33,2,7,1.5,1,1,1,1",
            "expected a whole number of 1e-9 as open on line 3, found '1.5'",
        ),
    ],
)
def test_databento_rows_that_do_not_go_together(tmp_path: Path, rows: str, expected: str) -> None:
    with pytest.raises(FormatError) as error:
        read_all(source_of(tmp_path, f"{DATABENTO}\n{rows}\n"))
    assert expected in str(error.value)


# Names, timeframes and folders


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("SPY_2024_01.csv", CsvName("SPY", "2024_01")),
        ("a/15s/SPY_2024_12_15s.csv", CsvName("SPY", "2024_12", Period.parse("15s"))),
        ("SPY_2024_01_1min.csv", CsvName("SPY", "2024_01", Period.parse("1m"))),
        ("A_B_2024_01_1h.csv", CsvName("A_B", "2024_01", Period.parse("1h"))),
        ("SPY_2024_01_1w.csv", CsvName("SPY", "2024_01", Period.parse("1w"))),
        ("SPY_2024_01_1M.csv", CsvName("SPY", "2024_01", Period.parse("1M"))),
        ("SPY_2024_01_7h.csv", CsvName("SPY", "2024_01")),
        ("SPY_2024_13.csv", CsvName("SPY_2024_13")),
        ("SPY.csv", CsvName("SPY")),
        ("%2E%2E%2Fx%25_2024_01.csv", CsvName("../x%", "2024_01")),
        ("ES%2G.csv", CsvName("ES%2G")),
    ],
)
def test_names_of_files(path: str, name: CsvName) -> None:
    assert CsvName.of(path) == name


HOSTILE = ["..", ".", "/etc/x", "a/../../b", "a b", "%2F", ".x", "ES.v.0", "a\\b", "x\ny", "ä€"]


@given(st.text(min_size=1, max_size=12) | st.sampled_from(HOSTILE), st.sampled_from([None, "15s"]))
def test_path_of_any_symbol_stays_in_its_folder_and_tells_the_symbol(
    symbol: str, timeframe: str | None
) -> None:
    path = csv_path(symbol, MIDNIGHT, timeframe)
    folder, _, name = path.partition("/")
    assert "/" not in name
    assert folder not in ("", ".", "..")
    assert not any(ord(letter) < 32 for letter in path)
    found = CsvName.of(path)
    assert found.symbol == symbol
    assert found.month == "2024_01"
    assert str(found.period) == str(timeframe)


def test_symbol_without_a_name_has_no_path() -> None:
    with pytest.raises(UsageError, match="expected a symbol, found ''"):
        csv_path("", MIDNIGHT)


def minutes(count: int, step: int = 60_000, start: int = MIDNIGHT) -> bytes:
    return encode_csv(bars_of(*((start + n * step, 1, 1, 1, 1, n) for n in range(count))))


def test_timeframe_is_given_or_named_or_the_common_step(tmp_path: Path) -> None:
    five = Timeframe.parse("5m")
    assert source_of(tmp_path, minutes(3), named_timeframe=five).timeframe == five
    assert source_of(tmp_path, minutes(3), "x_2024_01_5m.csv").timeframe == five
    assert source_of(tmp_path, minutes(3, 300_000)).timeframe == five
    sparse = bars_of(*((MIDNIGHT + n * 300_000, 1, 1, 1, 1, 1) for n in (0, 2, 5)))
    assert source_of(tmp_path, encode_csv(sparse)).timeframe == five


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (HEADER, "x.csv"),
        (minutes(1), "x.csv"),
        (minutes(3, 7_000), "x.csv"),
        (minutes(3, 500), "x.csv"),
        (minutes(3, 7 * 86_400_000), "x.csv"),
        (minutes(3), "x_2024_01_1w.csv"),
        (minutes(3), "x_2024_01_1M.csv"),
    ],
)
def test_timeframe_that_cannot_be_told_is_none(tmp_path: Path, text: bytes, name: str) -> None:
    assert source_of(tmp_path, text, name).timeframe is None


def test_folder_is_one_source_for_each_symbol_and_timeframe(tmp_path: Path) -> None:
    month = 31 * 86_400_000
    for name, start in [
        ("SPY/SPY_2024_02.csv", MIDNIGHT + month),
        ("SPY/SPY_2024_01.csv", MIDNIGHT),
        ("1m/SPY_2024_01_1m.csv", MIDNIGHT),
        ("1m/QQQ_2024_01_1m.csv", MIDNIGHT),
        ("lone.csv", MIDNIGHT),
        (".hidden/SPY_2024_03.csv", MIDNIGHT),
        ("SPY/.SPY_2024_03.csv.0.tmp", MIDNIGHT),
        ("SPY/notes.txt", MIDNIGHT),
        ("1m/SPY_1m_open.csv", MIDNIGHT),
    ]:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(minutes(2, start=start))
    found = {
        tuple(Path(path).relative_to(tmp_path).as_posix() for path in source.paths): source
        for source in open_csv(str(tmp_path))
    }
    assert list(found) == [
        ("lone.csv",),
        ("1m/QQQ_2024_01_1m.csv",),
        ("1m/SPY_2024_01_1m.csv",),
        ("SPY/SPY_2024_01.csv", "SPY/SPY_2024_02.csv"),
    ]
    spy = found["SPY/SPY_2024_01.csv", "SPY/SPY_2024_02.csv"]
    assert spy.market == Market("", "", "SPY")
    assert (spy.record_bytes, spy.closed) == (1, None)
    bars = read_all(spy)
    assert len(bars) == 4
    for begin in range(6):
        assert exact(read_all(spy, begin)) == exact(bars.part(slice(begin, None)))


def test_months_must_follow_each_other(tmp_path: Path) -> None:
    for month in ("01", "02"):
        (tmp_path / f"SPY_2024_{month}.csv").write_bytes(minutes(2))
    (source,) = open_csv(str(tmp_path))
    with pytest.raises(
        FormatError, match=r"SPY_2024_02.csv at byte 37: expected a bar after 2024-01"
    ):
        read_all(source)


def test_one_file_is_one_source_with_the_names_that_are_given(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(minutes(2))
    (source,) = open_csv(str(path), symbol="SPY", timeframe=Timeframe(1_000), strict=False)
    assert (source.market.symbol, source.timeframe, source.strict) == (
        "SPY", Timeframe(1_000), False,
    )  # fmt: skip
    assert pickle.loads(pickle.dumps(source)) == source  # noqa: S301


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_csv(str(tmp_path / "x.csv"))
    with pytest.raises(ValueError, match="no files"):
        CsvBars(())


# Damage


@given(st.data())
def test_damage_is_told_or_gives_bars(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    text = bytearray(minutes(4))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(text) - 1))
        text[place] = data.draw(st.integers(0, 255))
    source = source_of(tmp_path_factory.getbasetemp(), bytes(text))
    try:
        bars = read_all(source)
    except CandlebeamError as error:
        assert source.path in str(error)  # noqa: PT017
    else:
        assert (np.diff(bars.ts) > 0).all()
        assert all(np.isfinite(getattr(bars, name)).all() | (name != "volume") for name in NUMBERS)
