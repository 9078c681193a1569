"""Rows and numbers: the kernel against Python's own reading of both."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from candlebeam.formats.decimal_numbers import NO_NUMBER, PARSED, UNDECIDED, WORD_PAD, parse_number
from candlebeam.formats.trade_log import rows as trade_rows
from candlebeam.formats.trade_log.reader import TradeLogReader
from candlebeam.kernels import kernel
from candlebeam.model import Float64Array, InputFile, Int64Array, Market, Uint8Array
from tests.trade_log_rules import MAX_ROW, Trade, read_row, read_text

MARKET = Market("RAM", "BINANCE", "btcusdt")


@kernel("void(uint8[::1], int64[::1], uint8[::1], float64[::1])")
def parse_all(
    text: Uint8Array, starts: Int64Array, verdicts: Uint8Array, out: Float64Array
) -> None:
    for i in range(len(verdicts)):
        verdict, value = parse_number(text, starts[i], starts[i + 1])
        verdicts[i] = verdict
        out[i] = value


def parsed(texts: list[bytes]) -> tuple[Uint8Array, Float64Array]:
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    verdicts = np.zeros(len(texts), np.uint8)
    values = np.zeros(len(texts))
    text = np.frombuffer(bytearray(b"".join(texts) + bytes(WORD_PAD)), np.uint8)
    parse_all(text, starts, verdicts, values)
    return verdicts, values


def assert_as_python(texts: list[bytes]) -> int:
    """Compares bit for bit; returns how many were left to `float()`."""
    verdicts, values = parsed(texts)
    assert not (verdicts == NO_NUMBER).any(), texts[int(np.argmax(verdicts == NO_NUMBER))]
    expected = np.fromiter(map(float, texts), np.float64, len(texts))
    wrong = (values.view(np.int64) != expected.view(np.int64)) & (verdicts == PARSED)
    assert not wrong.any(), texts[int(np.argmax(wrong))]
    return int((verdicts == UNDECIDED).sum())


def javascript(value: float) -> bytes:
    """As JavaScript writes it: 5e-7 and 1e+21, where Python has 5e-07."""
    return (
        repr(value).replace("e-0", "e-").replace(".0", "" if value.is_integer() else ".0").encode()
    )


def test_random_doubles_in_shortest_form_equal_float() -> None:
    bits = np.random.default_rng(1).integers(0, 0x7FF0 << 48, 700_000, np.int64)
    assert_as_python([javascript(value) for value in bits.view(np.float64).tolist()])


def test_prices_and_sizes_in_shortest_form_equal_float_without_its_help() -> None:
    rng = np.random.default_rng(2)
    values = rng.random(500_000) * 10.0 ** rng.integers(-12, 22, 500_000)
    assert assert_as_python([javascript(value) for value in values.tolist()]) == 0


def test_plain_decimals_equal_float_without_its_help() -> None:
    rng = random.Random(3)
    texts = [
        b"%.*f" % (rng.randrange(16), rng.random() * 10 ** rng.randrange(9)) for _ in range(400_000)
    ]
    assert assert_as_python(texts) == 0


def digit_strings(rng: random.Random, count: int) -> Iterator[bytes]:
    for _ in range(count):
        digits = str(rng.randrange(10 ** rng.randrange(1, 40))).zfill(rng.randrange(1, 41))
        dot = rng.randrange(len(digits) + 1)
        text = f"{rng.choice('+- ')}{digits[:dot]}{rng.choice(('', '.'))}{digits[dot:]}".strip()
        if rng.random() < 0.5:
            text += f"{rng.choice('eE')}{rng.choice(('', '+', '-'))}{rng.randrange(350)}"
        yield text.encode()


def test_random_digits_and_exponents_equal_float() -> None:
    assert_as_python(list(digit_strings(random.Random(4), 400_000)))


def test_halfway_cases_and_their_neighbours_equal_float() -> None:
    rng = random.Random(5)
    texts: list[bytes] = []
    for _ in range(40_000):
        # Exactly between two neighbours, written out, and a hair beside it.
        power = rng.randrange(-80, 80)
        halfway = (rng.randrange(1 << 52, 1 << 53) << 1) + 1
        if power >= 0:
            digits, exponent = halfway << power, 0
        else:
            digits, exponent = halfway * 5**-power, power
        texts.extend(b"%de%d" % (near, exponent) for near in range(digits - 1, digits + 2))
        texts.append(b"%d%s1e%d" % (digits, b"0" * rng.randrange(30), exponent))
    assert_as_python(texts)


@pytest.mark.parametrize(
    "text",
    [
        "0", "-0", "+0", "0.0", "00000000000000000000000000", "0e999999999999", ".5", "5.", "1e5",
        "1E+05", "1e-400", "1e400", "-1e400", "1.7976931348623157e308", "1.7976931348623159e308",
        "4.9e-324", "2.4703282292062327e-324", "2.4703282292062328e-324", "2.2250738585072011e-308",
        "2.2250738585072014e-308", "9007199254740993", "9007199254740992.99999999999999999999",
        "9007199254740993.00000000000000000000000000000000001", "18446744073709551616",
        "99999999999999999999999999999999999999", "1e22", "1e23", "123456789012345678901234567890",
        "0." + "0" * 400 + "1e401", "1" + "0" * 400 + "e-400", "1e99999999999999999999",
        "1e-99999999999999999999", "5e-7", "9.81e-8", "100.10000000000001", "1610064000278",
    ],
)  # fmt: skip
def test_number_at_an_edge_equals_float(text: str) -> None:
    (verdict,), (value,) = parsed([text.encode()])
    assert verdict in (PARSED, UNDECIDED)
    if verdict == PARSED:
        assert struct.pack("<d", value) == struct.pack("<d", float(text))


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "+", "-", "e5", ".e5", "1e", "1e+", "1e-", "1e5.", "1.2.3", "..1", "1..", "--1",
        "+-1", "1-", "1 ", " 1", "1_0", "0x10", "inf", "nan", "infinity", "1e5e5", "1,5", "1\x00",
        "\x001", "1f", "1e 5", "\xb2",
    ],
)  # fmt: skip
def test_what_is_no_number_is_refused(text: str) -> None:
    (verdict,), _ = parsed([text.encode("latin-1")])
    assert verdict == NO_NUMBER


# --- rows


def read(
    folder: Path, text: bytes, **options: object
) -> tuple[list[Trade], list[tuple[int, str, bytes]]]:
    """The trades and the rejects of one plain file."""
    path = folder / "rows"
    path.write_bytes(text)
    reader = TradeLogReader(MARKET, [InputFile(str(path))], keep_rejects=True, **options)  # type: ignore[arg-type]
    trades: list[Trade] = []
    for batch in reader:
        columns = (batch.ts, batch.price, batch.size, batch.buy, batch.liquidation)
        trades.extend(zip(*(column.tolist() for column in columns), strict=True))
    (outcome,) = reader.outcomes
    rejects = [tuple(row) for _, found in reader.rejects for row in found]
    assert outcome.trades == len(trades)
    assert sum(count for _, count in outcome.rejected) == len(rejects)
    return trades, rejects  # type: ignore[return-value]


GOOD = b"1610064000278 39432.48 0.000263 1"
GOOD_TRADE = (1610064000278, 39432.48, 0.000263, 1, 0)


@pytest.mark.parametrize(
    ("row", "found"),
    [
        (GOOD, GOOD_TRADE),
        (GOOD + b" 0", GOOD_TRADE),
        (GOOD + b" 1", (*GOOD_TRADE[:4], 1)),
        (b"\t 1610064000278  39432.48\t0.000263 \t1  ", GOOD_TRADE),
        (b"1610064000278.9 39432.48 0.000263 1", GOOD_TRADE),
        (b"1.610064000278e12 3943248e-2 +.000263 1", GOOD_TRADE),
        (b"1610064000278 1 0 0", (1610064000278, 1.0, 0.0, 0, 0)),
        (b"1610064000278 1. -0 0", (1610064000278, 1.0, -0.0, 0, 0)),
        (b"1610064000278 5e-7 9.81e-8 0", (1610064000278, 5e-7, 9.81e-8, 0, 0)),
        (
            b"1610064000278 100.10000000000001 0.30000000000000004 0",
            (1610064000278, 100.10000000000001, 0.30000000000000004, 0, 0),
        ),
        (b"1610064000278 12345678.87654321 1 0", (1610064000278, 12345678.87654321, 1.0, 0, 0)),
        (b"1610064000278 99999999.99999999 1 0", (1610064000278, 99999999.99999999, 1.0, 0, 0)),
        (b"1610064000278 123456789.1 1 0", (1610064000278, 123456789.1, 1.0, 0, 0)),
        (b"1610064000278 1 0.123456789 0", (1610064000278, 1.0, 0.123456789, 0, 0)),
        (b"100000000001 1 1 0", (100000000001, 1.0, 1.0, 0, 0)),
        (b"0100000000001 1 1 0", (100000000001, 1.0, 1.0, 0, 0)),
        (b"9999999999999 1 1 0", (9999999999999, 1.0, 1.0, 0, 0)),
        (b"100000000000 1 1 0", "timestamp"),
        (b"0100000000000 1 1 0", "timestamp"),
        (b"10000000000000 1 1 0", "timestamp"),
        (b"9999999999999.9999999 1 1 0", "timestamp"),
        (b"1610064000 1 1 0", "timestamp"),
        (b"161006400027x 1 1 0", "timestamp"),
        (b"161006400027: 1 1 0", "timestamp"),
        (b"-161006400027 1 1 0", "timestamp"),
        (b"inf 1 1 0", "timestamp"),
        (b"1610064000278 0 1 0", "price"),
        (b"1610064000278 0.00 1 0", "price"),
        (b"1610064000278 -1 1 0", "price"),
        (b"1610064000278 1e-400 1 0", "price"),
        (b"1610064000278 1e400 1 0", "price"),
        (b"1610064000278 nan 1 0", "price"),
        (b"1610064000278 . 1 0", "price"),
        (b"1610064000278 1.2.3 1 0", "price"),
        (b"1610064000278 1:2 1 0", "price"),
        (b"1610064000278 1 -1 0", "size"),
        (b"1610064000278 1 1/2 0", "size"),
        (b"1610064000278 1 .. 0", "size"),
        (b"1610064000278 1 1 2", "side"),
        (b"1610064000278 1 1 x", "side"),
        (b"1610064000278 1 1 01", "side"),
        (b"1610064000278 1 1 1\x00", "side"),
        (b"1610064000278 1 1 1 2", "liquidation"),
        (b"1610064000278 1 1 1 1611064000278", "liquidation"),
        (b"1610064000278 1 1 1 1 1", "fields"),
        (b"1610064000278 1 1", "fields"),
        (b"1610064000278", "fields"),
        (b"x", "fields"),
        (b"\x00", "fields"),
        (b"", None),
        (b" \t ", None),
        (b"1610064000278\r1 1 1 0", "timestamp"),
        (b"1610064000278 9223372 1000000 0", (1610064000278, 9223372.0, 1e6, 0, 0)),
        (b"1610064000278 9223373 1000000 0", "volume"),
        (b"1610064000278 1e200 1e200 0", "volume"),
        (b"1610064000278 x x x", "price"),
        (b"x x x x", "timestamp"),
    ],
)
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
def test_row_is_a_trade_or_rejected_with_its_reason(
    tmp_path: Path, row: bytes, found: Trade | str | None, end: bytes
) -> None:
    trades, rejects = read(tmp_path, GOOD + b"\n" + row + end)
    assert repr(trades[1:]) == (repr([found]) if isinstance(found, tuple) else "[]")
    assert rejects == ([(2, found, row)] if isinstance(found, str) else [])
    assert trades[0] == GOOD_TRADE
    if found is not None:
        assert repr(read_row(row)) == repr(found), "the naive reading agrees"


def test_one_cr_before_the_end_is_dropped_and_another_is_not(tmp_path: Path) -> None:
    trades, rejects = read(tmp_path, b"\r\n\r\r\n" + GOOD + b"\r\r\n" + GOOD + b"\r")
    assert trades == [GOOD_TRADE]
    assert rejects == [(2, "fields", b"\r"), (3, "side", GOOD + b"\r")]


def test_numbers_left_to_python_are_read_in_every_field(tmp_path: Path) -> None:
    # All of these lie exactly between two floats, or are subnormal.
    numbers = b"1610064000278.0001220703125000000000", b"9007199254740993.0000000000000000000000001"
    row = b" ".join((*numbers, b"3e-320", b"1"))
    trades, rejects = read(tmp_path, (row + b"\n") * 3 + GOOD)
    assert trades == [(1610064000278, 9007199254740994.0, 3e-320, 1, 0)] * 3 + [GOOD_TRADE]
    assert rejects == []


def test_row_of_a_mebibyte_is_read_and_a_longer_one_is_not(tmp_path: Path) -> None:
    row = GOOD.replace(b" ", b" " * (MAX_ROW - len(GOOD) + 1), 1)
    assert len(row) == MAX_ROW
    for window in (1 << 12, 1 << 22):
        for end in (b"\n", b""):
            assert read(tmp_path, row + end, window=window) == ([GOOD_TRADE], [])
            assert read(tmp_path, row[1:] + b"\r" + end, window=window)[1] == []
            for longer in (b" " + row, row + b"\r"):
                _, rejects = read(tmp_path, GOOD + b"\n" + longer + end, window=window)
                assert rejects == [(2, "length", longer[:4096])]


@pytest.mark.parametrize("window", [1 << 12, 1 << 18, 1 << 23])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"", b"\r"])
def test_long_row_of_blanks_is_an_empty_line(tmp_path: Path, window: int, end: bytes) -> None:
    text = GOOD + b"\n" + b" \t" * (2 * MAX_ROW) + end
    assert read(tmp_path, text, window=window) == ([GOOD_TRADE], [])
    after = text + (GOOD if end.endswith(b"\n") else b"x\n" + GOOD)
    trades, rejects = read(tmp_path, after, window=window)
    assert trades == [GOOD_TRADE] * 2
    assert [(line, reason) for line, reason, _ in rejects] == (
        [] if end.endswith(b"\n") else [(2, "length")]
    )


def test_what_is_left_of_a_long_row_is_no_row(tmp_path: Path) -> None:
    text = b"x" * (3 * MAX_ROW) + b" \n" + GOOD + b"\n" + b"y" * (3 * MAX_ROW - 7)
    for window in (1 << 10, 1 << 17):
        trades, rejects = read(tmp_path, text.replace(b"x \n", b"x " + GOOD + b"\n"), window=window)
        assert trades == [GOOD_TRADE]
        assert rejects == [(1, "length", b"x" * 4096), (3, "length", b"y" * 4096)]


# --- anything at all


def bits(trades: list[Trade]) -> list[tuple[object, ...]]:
    return [(t[0], struct.pack("<2d", t[1], t[2]), t[3], t[4]) for t in trades]


numbers = st.one_of(
    st.floats(allow_nan=True).map(repr),
    st.floats(1e-9, 1e9).map(repr),
    st.decimals(0, 10**6, places=4).map(str),
    st.integers(0, 10**20).map(str),
    st.text("0123456789.e+-", max_size=25),
)
fields = st.tuples(
    st.sampled_from(["1610064000278", "1610064000279.5", "1e12", "100000000000", "9999999999999"]),
    numbers,
    numbers,
    st.sampled_from(["0", "1", "2", ""]),
    st.sampled_from(["", "", "0", "1", "x"]),
)
row_texts = st.builds(
    lambda parts, gap, end: gap.join(parts).encode() + end,
    fields,
    st.sampled_from([" ", " ", " ", "\t", "  ", "\r", "\0"]),
    st.sampled_from([b"\n", b"\n", b"\n", b"\r\n", b"", b" \n", b"\n\n"]),
)
texts = st.one_of(
    st.lists(row_texts, max_size=12).map(b"".join),
    st.binary(max_size=300),
    st.text("01. \t\r\n\x00e", max_size=200).map(str.encode),
).filter(lambda text: not text.startswith(b"\x1f\x8b"))


@settings(max_examples=400)
@given(text=texts, bom=st.booleans(), window=st.sampled_from([1, 2, 3, 5, 64, 100, 1 << 18]))
@example(text=b"\xef\xbb", bom=False, window=1)
@example(text=GOOD * 2, bom=True, window=1)
def test_any_text_is_read_as_the_rules_say(
    tmp_path_factory: pytest.TempPathFactory, text: bytes, bom: bool, window: int
) -> None:
    if bom:
        text = b"\xef\xbb\xbf" + text
    expected = read_text(text)
    trades, rejects = read(tmp_path_factory.getbasetemp(), text, window=window)
    assert bits(trades) == bits(expected.trades)
    assert rejects == expected.rejects


def test_reasons_are_in_the_order_of_the_checks() -> None:
    assert trade_rows.REASONS == (
        "length", "fields", "timestamp", "price", "size", "side", "liquidation", "volume"
    )  # fmt: skip
    assert trade_rows.MAX_ROW == MAX_ROW
