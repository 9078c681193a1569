"""The bytes of AGG2 archives, and what planning sees of them."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from candlebeam.errors import CandlebeamError, FormatError
from candlebeam.formats.agg2 import reader as agg2
from candlebeam.formats.agg2.blob import HEADER, HEADER_BYTES
from candlebeam.formats.agg2.index import CHECKED_HEADER, CHECKED_ROW, ROW
from candlebeam.formats.agg2.reader import (
    AGG2_ROW_DTYPE,
    AGG3_ROW_DTYPE,
    IndexRow,
    encode_day,
    list_days,
    parse_index,
)
from tests.agg2_blobs import (
    DAY,
    AggRow,
    MonthFolder,
    blob,
    some_rows,
)
from tests.command_line import environment
from tests.trade_batches import MIDNIGHT


@pytest.fixture
def month(tmp_path: Path) -> MonthFolder:
    return MonthFolder(tmp_path)


# The bytes


def test_records_have_their_sizes_and_places() -> None:
    assert HEADER.size == AGG2_ROW_DTYPE.itemsize == AGG3_ROW_DTYPE.itemsize == 48
    assert (ROW.size, CHECKED_HEADER.size, CHECKED_ROW.size) == (18, 16, 26)
    for magic, dtype in ((b"AGG2", AGG2_ROW_DTYPE), (b"AGG3", AGG3_ROW_DTYPE)):
        row = AggRow(1, 2, 3, 4, 5, 1, 7)
        found = np.frombuffer(row.pack(magic), dtype)[0].tolist()
        assert found[:-1] == (1, 2, 3, 4, 5, 1, 7, 0)[: len(found) - 1]


def test_encoded_day_is_a_header_and_the_rows() -> None:
    rows = some_rows(3)
    records = np.frombuffer(b"".join(row.pack() for row in rows), AGG2_ROW_DTYPE)
    assert encode_day(records, DAY) == blob(rows, padding=b"exact")
    assert encode_day(records[:0], 31) == blob([], 31, padding=b"exact")
    with pytest.raises(ValueError, match="expected records of AGG2_ROW_DTYPE"):
        encode_day(np.zeros(1, AGG3_ROW_DTYPE), DAY)


def test_index_rows_round_trip() -> None:
    rows = [IndexRow(1, 0, 7), IndexRow(31, 2**63, 2**64 - 1), IndexRow(1, 7, 0)]
    index = parse_index(b"".join(row.encode() for row in rows), "i")
    assert (index.rows, index.checked, index.damage) == (rows, False, None)
    assert index.of_day(1) == [rows[0], rows[2]]
    assert parse_index(b"", "i").rows == []


@pytest.mark.parametrize("checked", [False, True])
def test_index_that_is_cut_anywhere_keeps_its_whole_rows(checked: bool) -> None:
    rows = [IndexRow(day, day, 7, 9 if checked else None) for day in (1, 2, 3)]
    if checked:
        data = struct.pack("<4sIQ", b"QIDX", 1, 3)
        data += b"".join(struct.pack("<HQQQ", r.day, r.offset, r.length, 9) for r in rows)
        begin, size = 16, 26
    else:
        data = b"".join(row.encode() for row in rows)
        begin, size = 0, 18
    for cut in range(begin, len(data)):
        index = parse_index(data[:cut], "i")
        whole, torn = divmod(cut - begin, size)
        assert index.rows == rows[:whole]
        if torn:
            assert index.damage is not None
            assert f"torn row of {torn} bytes at byte {cut - torn}" in index.damage
        elif checked:
            assert index.damage == f"expected 3 rows as its header says, found {whole}"
        else:
            assert index.damage is None
    assert parse_index(data, "i").damage is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"QIDX" + bytes(3), "i at byte 0: expected a header of 16 bytes, found 7 bytes"),
        (CHECKED_HEADER.pack(b"QIDX", 2, 0), "i at byte 4: expected QIDX version 1, found vers"),
        (b"QID2" + bytes(40), r"i at byte 0: expected rows of a day .* found b'QID2'"),
        (bytes(18), r"i at byte 0: expected rows of a day from 1 to 31 each, or QIDX, found b'"),
    ],
)
def test_another_kind_of_index_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        parse_index(data, "i")


def test_index_row_without_a_day_is_left_out_and_named() -> None:
    data = IndexRow(1, 0, 7).encode() + bytes(18) + IndexRow(2, 7, 7).encode()
    index = parse_index(data, "i")
    assert [row.day for row in index.rows] == [1, 2]
    assert index.damage == "expected a day from 1 to 31 at byte 18, found 0"


# Planning


def test_days_are_listed_by_symbol_and_time(tmp_path: Path) -> None:
    for symbol, year, month, days in (
        ("ETHUSDT", 2024, 3, (2, 1)),
        ("BTCUSDT", 2024, 12, (31,)),
        ("BTCUSDT", 2024, 1, (9, 10)),
        ("BTCUSDT", 2023, 12, (31,)),
    ):
        folder = MonthFolder(tmp_path, symbol, year, month)
        for day in days:
            folder.add(b"x" * day, day)
    found = list(list_days(str(tmp_path)))
    assert [(day.path, day.size) for day in found] == [
        ("BTCUSDT/2023/12/31", 31),
        ("BTCUSDT/2024/01/09", 9),
        ("BTCUSDT/2024/01/10", 10),
        ("BTCUSDT/2024/12/31", 31),
        ("ETHUSDT/2024/03/01", 1),
        ("ETHUSDT/2024/03/02", 2),
    ]
    assert found[4].start_ts == MIDNIGHT
    assert {day.symbol for day in list_days(str(tmp_path), "ETHUSDT")} == {"ETHUSDT"}
    assert list(list_days(str(tmp_path), "XRPUSDT")) == []


def test_the_version_of_a_day_changes_with_its_rows(month: MonthFolder, tmp_path: Path) -> None:
    def day() -> tuple[int, str]:
        (found,) = list_days(str(tmp_path))
        return found.size, found.version

    month.add(b"123", length=5)
    assert day() == (3, "0+5!")
    month.data.write_bytes(b"12345")
    assert day() == (5, "0+5")
    month.add(b"1234567")
    assert day() == (5, "0+5,5+7")
    month.data.unlink()
    assert day() == (0, "0+5!,5+7!")


def test_what_is_no_part_of_the_archive_is_named(tmp_path: Path) -> None:
    MonthFolder(tmp_path, "BTCUSDT", 2024, 2).add(b"1", 30)
    for name in ("notes.txt", "BTCUSDT/2024/02/data.bak", "BTCUSDT/24/x", "BTCUSDT/2024/13/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".candlebeam.lock").touch()
    (tmp_path / "BTCUSDT/2024/04").mkdir()
    MonthFolder(tmp_path, "ETHUSDT", 2024, 1).index.unlink()
    MonthFolder(tmp_path, "ETHUSDT", 2024, 2).index.write_bytes(b"QIX9" + bytes(50))
    MonthFolder(tmp_path, "ETHUSDT", 2024, 3).index.write_bytes(b"\1")
    strays: list[str] = []
    problems: list[str] = []
    days = list_days(str(tmp_path), on_stray=strays.append, on_problem=problems.append)
    assert list(days) == []
    assert strays == [
        "notes.txt",
        "BTCUSDT/24",
        "BTCUSDT/2024/13",
        "BTCUSDT/2024/02/data.bak",
        "BTCUSDT/2024/04",
    ]
    root = f"{tmp_path}/"
    refused = " at byte 0: expected rows of a day from 1 to 31 each, or QIDX, found b'QIX9'"
    assert [problem.removeprefix(root) for problem in problems] == [
        "BTCUSDT/2024/02/index.quantdev: expected days up to 29, found 30",
        "ETHUSDT/2024/01: data.quantdev without index.quantdev",
        f"ETHUSDT/2024/02/index.quantdev{refused}",
        "ETHUSDT/2024/03/index.quantdev: torn row of 1 bytes at byte 0",
    ]


def test_a_base_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CandlebeamError, match="nothing: no such folder"):
        list(list_days(str(tmp_path / "nothing")))


def test_listing_loads_nothing_that_decompresses(month: MonthFolder, tmp_path: Path) -> None:
    month.add_rows(some_rows(3))
    code = (
        "import sys; from candlebeam.formats.agg2.index import list_days;"
        f"assert len(list(list_days({str(tmp_path)!r}))) == 1;"
        "assert not {'zstandard', 'numba', 'numpy', 'isal'} & set(sys.modules);"
        "import candlebeam.formats.agg2.reader;"
        "assert not {'zstandard', 'numba'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True)


def test_public_names_are_there() -> None:
    assert all(hasattr(agg2, name) for name in agg2.__all__)
    assert HEADER_BYTES == 48
