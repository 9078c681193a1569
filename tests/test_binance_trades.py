"""Binance's own files: every layout is read, and every number exactly as its text says."""

from __future__ import annotations

import gzip
import io
import zipfile
from decimal import Decimal
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlebeam.errors import FormatError
from candlebeam.formats.agg2.binance_trades import BinanceTrades, RejectedLine
from tests.trade_batches import MIDNIGHT

FUTURES = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker"
#: A row as a record: id, price, quantity, first id, count, flags, time, side.
Record = tuple[int, ...]


def read(path: Path, **options: int) -> tuple[list[Record], BinanceTrades]:
    source = BinanceTrades(str(path), **options)
    return [tuple(row[:-1]) for batch in source for row in batch.tolist()], source


def read_text(folder: Path, text: str, **options: int) -> tuple[list[Record], BinanceTrades]:
    path = folder / "trades.csv"
    path.write_bytes(text.encode())
    return read(path, **options)


def some_lines(count: int, seed: int = 1, *, best_match: bool = False) -> list[str]:
    random = Random(seed)
    return [
        f"{100 + i},{random.randrange(1, 10**7) / 100:.2f},{random.randrange(10**5) / 1000:.3f},"
        f"{3 * i},{3 * i + random.randrange(4)},{MIDNIGHT + i},{random.choice(['true', 'false'])}"
        + ",true"
        * best_match
        for i in range(count)
    ]


def record_of(line: str) -> Record:
    """A sound line by the rules, in Python alone."""
    fields = line.split(",")
    maker = fields[6].lower() in ("true", "1")
    first, last = int(fields[3]), int(fields[4])
    ts = int(fields[5])
    return (
        int(fields[0]),
        int(Decimal(fields[1]) * 10**8),
        int(Decimal(fields[2]) * 10**8),
        first,
        min(last - first + 1, 65_535),
        int(maker),
        ts // 1000 if ts > 10**14 else ts,
        int(not maker),
    )


# Layouts


@pytest.mark.parametrize("best_match", [False, True], ids=["futures", "spot"])
@pytest.mark.parametrize("header", [False, True])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_columns_stand_as_binance_has_them(
    tmp_path: Path, best_match: bool, header: bool, end: str
) -> None:
    lines = some_lines(20, best_match=best_match)
    head = [FUTURES + ",is_best_match" * best_match] * header
    records, source = read_text(tmp_path, end.join([*head, *lines, ""]))
    assert records == [record_of(line) for line in lines]
    assert (source.rows, source.rejected, source.rejects) == (20, {}, [])


@pytest.mark.parametrize(
    "header",
    [
        "aggTradeId,price,quantity,firstTradeId,lastTradeId,transactTime,isBuyerMaker",
        "id,price,qty,first_id,last_id,time,is_buyer_maker",
        "a,p,q,f,l,T,m,M",
        ",".join(f'"{name}"' for name in FUTURES.split(",")),
        "Agg_Trade_ID, Price, Quantity, First_Trade_ID, Last_Trade_ID, Timestamp, Is_Buyer_Maker",
    ],
)
def test_headers_have_many_spellings(tmp_path: Path, header: str) -> None:
    lines = some_lines(3, best_match=header.count(",") == 7)
    records, _ = read_text(tmp_path, "\n".join([header, *lines]))
    assert records == [record_of(line) for line in lines]


def test_a_header_says_where_the_columns_stand(tmp_path: Path) -> None:
    text = "transact_time,x,is_buyer_maker,price,quantity,last_trade_id,first_trade_id,id\n"
    records, _ = read_text(tmp_path, f"{text}{MIDNIGHT},any,true,0.29,1.5,9,7,5\n")
    assert records == [(5, 29_000_000, 150_000_000, 7, 3, 1, MIDNIGHT, 0)]


def test_headers_in_the_midst_and_empty_lines_are_nothing(tmp_path: Path) -> None:
    lines = some_lines(4)
    text = "\n".join(["", *lines[:2], " ", *lines[2:], "", ""])
    records, source = read_text(tmp_path, text)
    assert records == [record_of(line) for line in lines]
    text = "\n".join([FUTURES, *lines[:2], FUTURES, *lines[2:]])
    records, again = read_text(tmp_path, text)
    assert records == [record_of(line) for line in lines]
    assert source.rejected == again.rejected == {}


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    for head in ("", FUTURES + "\n"):
        line = some_lines(1)[0]
        records, _ = read_text(tmp_path, f"\ufeff{head}{line}\n")
        assert records == [record_of(line)]


def test_a_header_without_a_column_is_refused(tmp_path: Path) -> None:
    header = FUTURES.replace("price,", "")
    with pytest.raises(
        FormatError, match=r"expected one column each of id, price, .* found a head"
    ):
        read_text(tmp_path, header + "\n1,2\n")
    with pytest.raises(FormatError, match="expected one column each"):
        read_text(tmp_path, FUTURES + ",price\n")


def test_no_text_is_no_rows(tmp_path: Path) -> None:
    assert read_text(tmp_path, "")[0] == []
    assert read_text(tmp_path, FUTURES)[0] == []
    assert read_text(tmp_path, "\n")[0] == []


# Values


@pytest.mark.parametrize("truth", ["true", "True", "TRUE", "1", "false", "False", "FALSE", "0"])
def test_truth_has_many_spellings(tmp_path: Path, truth: str) -> None:
    records, _ = read_text(tmp_path, f"1,2,3,4,5,{MIDNIGHT},{truth}\n")
    maker = truth.lower() in ("true", "1")
    assert records == [(1, 2 * 10**8, 3 * 10**8, 4, 2, maker, MIDNIGHT, not maker)]


def test_microseconds_become_milliseconds(tmp_path: Path) -> None:
    records, _ = read_text(tmp_path, f"1,2,3,4,5,{MIDNIGHT * 1000 + 999},true\n")
    assert records[0][6] == MIDNIGHT


def test_counts_are_as_high_as_they_go(tmp_path: Path) -> None:
    text = "".join(f"{i},2,3,10,{9 + n},{MIDNIGHT},0\n" for i, n in enumerate((0, 65_535, 65_536)))
    records, _ = read_text(tmp_path, text)
    assert [record[4] for record in records] == [0, 65_535, 65_535]


@given(
    st.integers(0, 2**64 - 1) | st.integers(0, 10**9),
    st.integers(0, 12),
    st.sampled_from(["{:f}", "{:e}", "{:E}", "0{:f}", "{:f}00", "+{:f}", " {:f} ", '"{:f}"']),
)
def test_numbers_are_their_texts(
    tmp_path_factory: pytest.TempPathFactory, scaled: int, shift: int, form: str
) -> None:
    """Whether the fast way takes the text or the other one, the number is the same."""
    number = Decimal(scaled).scaleb(-8 - shift + 4)
    text = form.format(number)
    if form == "{:f}00" and "." not in text:
        text = form.format(number).removesuffix("00")
    exact = Decimal(text.strip().strip('"')) * 10**8
    records, source = read_text(
        tmp_path_factory.mktemp("numbers"), f"1,1,{text},4,5,{MIDNIGHT},true\n"
    )
    if exact == exact.to_integral_value() and exact < 2**64:
        assert [record[2] for record in records] == [int(exact)]
    else:
        assert records == []
        assert source.rejected == {"size": 1}


BAD = {
    "0.123456789": "price",
    "-1": "price",
    "-0.5": "price",
    "0": "price",
    "0.000": "price",
    "": "price",
    ".": "price",
    "1.2.3": "price",
    "1,2": "fields",
    "abc": "price",
    "nan": "price",
    "inf": "price",
    "1e999999999": "price",
    "1e-999999999": "price",
    "1_0": "price",
    "0x10": "price",
    "\u0661": "price",
    "184467440738": "price",
}


@pytest.mark.parametrize("text", BAD)
def test_prices_that_cannot_be_taken_are_named(tmp_path: Path, text: str) -> None:
    good = some_lines(2)
    lines = [good[0], f"7,{text},1,1,1,{MIDNIGHT},true", good[1]]
    records, source = read_text(tmp_path, "\n".join([FUTURES, *lines, ""]))
    assert records == [record_of(line) for line in good]
    (reject,) = source.rejects
    assert (reject.line, reject.reason) == (3, BAD[text])
    assert text in reject.found
    assert source.rejected == {BAD[text]: 1}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("-1,2,3,4,5,{ts},true", "id"),
        ("1.5,2,3,4,5,{ts},true", "id"),
        ("18446744073709551616,2,3,4,5,{ts},true", "id"),
        ("1,2,-3,4,5,{ts},true", "size"),
        ("1,2,3,-1,-1,{ts},true", "first id"),
        ("1,2,3,4,-1,{ts},true", "last id"),
        ("1,2,3,4,5,5,true", "timestamp"),
        ("1,2,3,4,5,,true", "timestamp"),
        ("1,2,3,4,5,17092512000000000,true", "timestamp"),
        ("1,2,3,4,5,{ts},yes", "side"),
        ("1,2,3,4,5,{ts},", "side"),
        ("1,2,3,9,7,{ts},true", "count"),
        ("1,2,3,4,5,{ts}", "fields"),
        ("1,2,3,4,5,{ts},true,false,0", "fields"),
        ("1", "fields"),
    ],
)
def test_rows_that_cannot_be_taken_have_a_reason(tmp_path: Path, line: str, reason: str) -> None:
    text = "\n".join([*some_lines(2), line.format(ts=MIDNIGHT), *some_lines(1, 3)])
    records, source = read_text(tmp_path, text)
    assert len(records) == 3
    assert [(reject.line, reject.reason) for reject in source.rejects] == [(3, reason)]


def test_ids_of_64_bits_are_taken(tmp_path: Path) -> None:
    last = 2**64 - 1
    records, _ = read_text(tmp_path, f"{last},1,1,{last},{last},{MIDNIGHT},1\n")
    assert records == [(last, 10**8, 10**8, last, 1, 1, MIDNIGHT, 0)]


def test_only_the_first_rejects_are_kept_but_all_are_counted(tmp_path: Path) -> None:
    _, source = read_text(tmp_path, "1,2,3,4,5,6,7\n" * 1_500)
    assert source.rejected == {"timestamp": 1_500}
    assert [reject.line for reject in source.rejects] == list(range(1, 1_001))


# Pieces


@pytest.mark.parametrize("window", [1, 90, 200, 1 << 20])
@pytest.mark.parametrize("batch_rows", [1, 7, 1 << 16])
def test_pieces_change_nothing(tmp_path: Path, window: int, batch_rows: int) -> None:
    lines = some_lines(40)
    lines[9] = lines[9].replace("true", "yes").replace("false", "no")
    path = tmp_path / "trades.csv"
    path.write_text("\n".join([FUTURES, *lines]))
    sizes = [len(batch) for batch in BinanceTrades(str(path), batch_rows=batch_rows)]
    assert all(size == batch_rows for size in sizes[:-1])
    records, source = read(path, window=window, batch_rows=batch_rows)
    assert records == [record_of(line) for line in lines[:9] + lines[10:]]
    assert [reject.line for reject in source.rejects] == [11]


def test_a_line_without_end_is_rejected_and_the_others_are_read(tmp_path: Path) -> None:
    lines = some_lines(3)
    long = "9" * 5_000_000
    text = "\n".join([lines[0], long, lines[1], long, lines[2]])
    records, source = read_text(tmp_path, text)
    assert records == [record_of(line) for line in lines]
    assert source.rejects == [
        RejectedLine(2, "length", "9" * 200),
        RejectedLine(4, "length", "9" * 200),
    ]


# Files


def zipped(text: str, *names: str, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name in names:
            archive.writestr(name, text)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["deflated", "stored", "bzip2", "gzip"])
def test_compressed_files_are_read(tmp_path: Path, kind: str) -> None:
    lines = some_lines(50)
    text = "\n".join([FUTURES, *lines, ""])
    methods = {"deflated": zipfile.ZIP_DEFLATED, "stored": zipfile.ZIP_STORED}
    methods["bzip2"] = zipfile.ZIP_BZIP2
    path = tmp_path / "x"
    if kind == "gzip":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_bytes(zipped(text, "a/x.csv", "readme.txt", method=methods[kind]))
    assert read(path)[0] == [record_of(line) for line in lines]


@pytest.mark.parametrize(
    ("names", "found"), [((), "found none"), (("a.csv", "B.CSV"), "found a.csv, B.CSV")]
)
def test_a_zip_holds_one_file(tmp_path: Path, names: tuple[str, ...], found: str) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(zipped("1\n", *names))
    with pytest.raises(FormatError, match=f"expected a zip of one CSV file, {found}"):
        read(path)


@pytest.mark.parametrize("kind", ["zip", "gzip"])
def test_nothing_is_taken_of_a_damaged_file(tmp_path: Path, kind: str) -> None:
    text = "\n".join([FUTURES, *some_lines(5_000), ""])
    data = zipped(text, "x.csv") if kind == "zip" else gzip.compress(text.encode())
    path = tmp_path / "x"
    broken = bytearray(data)
    broken[len(data) // 2] ^= 0x55
    for damaged in (bytes(broken), data[: len(data) // 2]):
        path.write_bytes(damaged)
        source = BinanceTrades(str(path))
        with pytest.raises(FormatError, match=f"{path}: expected a whole {kind} file, found"):
            next(iter(source))
        assert source.rows == 0


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "nothing.csv")
