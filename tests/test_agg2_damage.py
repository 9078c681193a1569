"""Of damaged days every whole row is read, and what is wrong with them is named."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

from tests.agg2_blobs import (
    MonthFolder,
    blob,
    expected,
    read,
    read_day,
    some_rows,
    zstd,
)


@pytest.fixture
def month(tmp_path: Path) -> MonthFolder:
    return MonthFolder(tmp_path)


# Which blob


def test_the_first_whole_row_of_a_day_is_taken_and_no_other(month: MonthFolder) -> None:
    first, second = some_rows(5, 1), some_rows(9, 2)
    month.add_rows(first)
    month.add_rows(some_rows(3), 2)
    month.add_rows(second)
    trades, outcome = read_day(month)
    assert trades == expected(first)
    assert (outcome.damage, outcome.notes) == (None, ())


WRONG = {
    "beyond the end": (zstd(blob(some_rows(9))), 10**6, "found the end of the data at"),
    "not compressed": (blob(some_rows(9)), None, "expected a zstd frame or a zlib stream"),
    "empty": (b"", None, "found nothing"),
    "another day": (zstd(blob(some_rows(9), 2)), None, "a blob of day 1, found one of day 2"),
    "another magic": (zstd(blob(some_rows(9), magic=b"\1\2\3\4")), None, "expected magic AGG2"),
    "too few rows": (zstd(blob(some_rows(9))[:-48]), None, "expected 9 rows, found 8"),
    "too many rows": (zstd(blob(some_rows(9)) + bytes(48)), None, "expected 9 rows, found 10"),
    "a torn row": (zstd(blob(some_rows(9))[:-1]), None, "expected 9 rows, found 8 and 47 bytes"),
    "a few bytes": (zstd(b"AGG2"), None, "expected a header of 48 bytes, found 4"),
    "cut": (zstd(blob(some_rows(9)))[:-9], None, "zstd frame is"),
    "without its checksum": (zstd(blob(some_rows(9)))[:-4], None, "zstd frame is cut off at byte"),
}


@pytest.mark.parametrize("name", WRONG)
def test_rows_that_are_not_whole_are_passed_over(month: MonthFolder, name: str) -> None:
    data, length, message = WRONG[name]
    month.add(data, length=length)
    good = some_rows(5, 2)
    month.add_rows(good)
    month.add_rows(some_rows(4, 3))
    trades, outcome = read_day(month)
    assert trades == expected(good)
    assert outcome.damage is None
    (note,) = outcome.notes
    assert note.startswith("passed over index row 1 of 3: ")
    assert message in note


@pytest.mark.parametrize("name", WRONG)
def test_a_row_that_is_not_whole_gives_what_can_be_read_of_it(
    month: MonthFolder, name: str
) -> None:
    data, length, _ = WRONG[name]
    month.add(data, length=length)
    trades, outcome = read_day(month)
    assert outcome.damage is not None
    assert outcome.error is None
    found = {
        "beyond the end": 9,
        "too few rows": 8,
        "a torn row": 8,
        "without its checksum": 9,
    }.get(name, 0)
    if name == "too many rows":
        assert outcome.rejected == (("timestamp", 1),)
        found = 9
    assert trades == expected(some_rows(9)[:found])
    assert outcome.text_bytes == (48 + 48 * (found + (name == "too many rows")) if found else 0)


def blocks(raw: bytes, size: int = 480) -> bytes:
    """A zstd frame of many blocks, which end where they are flushed."""
    import zstandard

    compressor = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    data = b""
    for at in range(0, len(raw), size):
        data += compressor.compress(raw[at : at + size])
        data += compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    return data + compressor.flush()


def test_of_a_day_cut_at_any_byte_every_whole_row_is_read(tmp_path: Path) -> None:
    rows = some_rows(40)
    data = blocks(blob(rows), 100)
    counts = []
    for cut in range(0, len(data), 3):
        month = MonthFolder(tmp_path / str(cut))
        month.add(data[:cut], length=len(data))
        trades, outcome = read_day(month)
        assert trades == expected(rows[: len(trades)])
        counts.append(len(trades))
        assert outcome.damage is not None
        if outcome.text_bytes:
            assert outcome.damage == (
                f"expected 40 rows, found {len(trades)}"
                + (f" and {torn} bytes" if (torn := _torn(data[:cut])) else "")
                + f" before the zstd frame is cut off at byte {cut}"
            )
    assert counts == sorted(counts)
    assert counts[0] == 0
    assert counts[-1] == 40
    assert len(set(counts)) > 15


def _torn(data: bytes) -> int:
    import zstandard

    return len(zstandard.ZstdDecompressor().decompressobj().decompress(data)) % 48


def test_of_a_day_damaged_at_any_byte_no_row_before_the_damage_is_lost(tmp_path: Path) -> None:
    random = Random(3)
    rows = some_rows(400)
    raw = blob(rows)
    data = blocks(raw)
    whole = set()
    for at in range(0, len(data), 37):
        month = MonthFolder(tmp_path / str(at))
        broken = bytearray(data)
        broken[at] ^= 1 << random.randrange(8)
        month.add(bytes(broken))
        trades, outcome = read_day(month)
        assert outcome.error is None
        if _is_whole(bytes(broken), raw):
            assert outcome.damage is None
            continue
        assert outcome.damage is not None
        # What the blocks before the damaged one hold.
        safe = len(_decoded(data[: max(0, at - 60)])) // 48 - 1
        assert trades[: max(safe, 0)] == expected(rows[: max(safe, 0)])
        assert len(trades) >= safe - 10
        whole.add(len(trades))
    assert len(whole) > 10


def _is_whole(data: bytes, raw: bytes) -> bool:
    """Whether a change has hit a bit that means nothing."""
    import zstandard

    try:
        return _decoded(data) == raw
    except zstandard.ZstdError:
        return False


def _decoded(data: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj().decompress(data) if data else b""


def test_damage_is_named_with_its_place_in_the_data_file(month: MonthFolder) -> None:
    month.add_rows(some_rows(9), 2)
    before = month.data.stat().st_size
    data = bytearray(blocks(blob(some_rows(100)), 480))
    # A block of the reserved type behind the first 480 bytes, which are nine rows.
    place = 12 + 3 + (int.from_bytes(data[12:15], "little") >> 3)
    first = _first_block_end(bytes(data))
    data[first] |= 6
    month.add(bytes(data))
    trades, outcome = read_day(month)
    assert place
    assert trades == expected(some_rows(100)[:9])
    assert outcome.damage is not None
    assert outcome.damage.startswith("expected 100 rows, found 9 before the zstd frame is damaged")
    damaged = int(outcome.damage.split(" at byte ")[1].split(":")[0])
    assert before + first <= damaged <= before + first + 3


def _first_block_end(data: bytes) -> int:
    import zstandard

    head = zstandard.frame_header_size(data)
    return head + 3 + (int.from_bytes(data[head : head + 3], "little") >> 3)


@pytest.mark.parametrize("more", [b"x", zstd(blob(some_rows(2))), bytes(20)], ids=len)
def test_bytes_behind_a_frame_do_not_count(month: MonthFolder, more: bytes) -> None:
    rows = some_rows(9)
    month.add(zstd(blob(rows)) + more)
    trades, outcome = read_day(month)
    assert trades == expected(rows)
    assert (outcome.damage, outcome.length) == (None, month.data.stat().st_size)


def test_a_frame_whose_checksum_is_wrong_is_damaged(month: MonthFolder) -> None:
    rows = some_rows(9)
    data = bytearray(zstd(blob(rows)))
    data[-1] ^= 1
    month.add(bytes(data))
    trades, outcome = read_day(month)
    assert trades == expected(rows)
    assert outcome.damage is not None
    assert outcome.damage.startswith("expected 9 rows, found 9 before the zstd frame is damaged at")
    assert "checksum" in outcome.damage


def test_several_damaged_rows_give_the_first_whose_header_is_right(month: MonthFolder) -> None:
    month.add(zstd(blob(some_rows(9), 7)))
    month.add(zstd(blob(some_rows(5, 2))[:-48]))
    month.add(zstd(blob(some_rows(9, 3))[:-48]))
    trades, outcome = read_day(month)
    assert trades == expected(some_rows(5, 2)[:4])
    assert outcome.damage == "expected 5 rows, found 4"
    assert outcome.notes[0].startswith("passed over index row 1 of 3: expected a blob of day 1,")


def test_a_header_that_claims_any_number_of_rows_is_no_trouble(month: MonthFolder) -> None:
    rows = some_rows(5)
    for count in (2**64 - 1, 2**40, 0):
        month.data.write_bytes(b"")
        month.index.write_bytes(b"")
        month.add(zstd(blob(rows, row_count=count)))
        trades, outcome = read_day(month)
        assert trades == expected(rows)
        assert outcome.damage == f"expected {count} rows, found 5"


def test_one_bad_day_does_not_stop_the_others(month: MonthFolder) -> None:
    month.add_rows(some_rows(5), 1)
    month.add(b"nonsense", 2)
    month.add_rows(some_rows(6, 2), 3)
    trades, outcomes = read(*(month.file(n) for n in (1, 2, 3)))
    assert trades == expected(some_rows(5)) + expected(some_rows(6, 2))
    assert [outcome.trades for outcome in outcomes] == [5, 0, 6]
    assert outcomes[1].damage == (
        "no blob of the day can be read: index row 1 of 1: expected a zstd frame or a zlib stream"
        f" at byte {outcomes[0].length}, found 6e 6f 6e 73"
    )


def test_a_torn_index_row_is_named_with_the_last_day(month: MonthFolder) -> None:
    month.add_rows(some_rows(5), 1)
    month.add_rows(some_rows(6, 2), 2)
    with month.index.open("ab") as index:
        index.write(b"\3\0\0")
    _, outcomes = read(month.file(1), month.file(2))
    assert [outcome.damage for outcome in outcomes] == [
        None,
        "index.quantdev: torn row of 3 bytes at byte 36",
    ]
    assert [outcome.trades for outcome in outcomes] == [5, 6]


# Files that cannot be read


def test_missing_files_are_missing(month: MonthFolder) -> None:
    month.add_rows(some_rows(3))
    outcome = read(month.file(9))[1][0]
    assert (outcome.error, outcome.read_path) == (
        "missing: index.quantdev has no row of day 9",
        None,
    )
    month.data.unlink()
    outcome = read_day(month)[1]
    assert (outcome.error, outcome.read_path) == ("missing: no data.quantdev", None)
    month.index.unlink()
    assert read_day(month)[1].error == "missing: no index.quantdev"


@pytest.mark.parametrize("name", ["data", "index"])
def test_a_folder_in_the_place_of_a_file_is_an_error(month: MonthFolder, name: str) -> None:
    month.add_rows(some_rows(3))
    path = getattr(month, name)
    path.unlink()
    path.mkdir()
    outcome = read_day(month)[1]
    assert outcome.read_path == str(path)
    assert outcome.error is not None
    assert "folder" in outcome.error or "directory" in outcome.error


def test_a_pipe_in_the_place_of_the_data_does_not_hang(month: MonthFolder) -> None:
    month.add_rows(some_rows(3))
    month.data.unlink()
    os.mkfifo(month.data)
    assert read_day(month)[1].error == "not a file: no regular file"
