from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlebeam.errors import FormatError
from candlebeam.formats.chunk_file import (
    HEAD_BYTES,
    MAGIC,
    ChunkHead,
    decode_head,
    encode_chunk,
    open_chunk,
)
from candlebeam.model import BLOCK_DTYPE, FileOutcome, Records
from candlebeam.rules.candles import empty_candles

FILES = (
    FileOutcome("/a/2024-03-01-00.gz", "/a/2024-03-01-00", 123, 456, 789, 10, (("side", 2),)),
    FileOutcome("/a/ü\udcff", error="no such file"),
    FileOutcome("/a/x", "/a/x", 5, 2**62, late=3, first_late_ts=-7, damage="cut off at byte 3"),
)


def candles(count: int) -> Records:
    random = np.random.default_rng(1)
    records = empty_candles(1_700_000_000_000, count)
    records["open"], records["buy_volume"] = random.random(count), random.integers(0, 9, count)
    return records


def chunk_at(folder: Path, data: bytes) -> str:
    path = folder / "chunk"
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize("files", [(), FILES[:1], FILES], ids=len)
@pytest.mark.parametrize("count", [0, 1, 300])
def test_round_trip(tmp_path: Path, files: tuple[FileOutcome, ...], count: int) -> None:
    records = candles(count)
    chunk = open_chunk(chunk_at(tmp_path, encode_chunk(files, records)))
    assert chunk.files == files
    assert chunk.length == count
    assert chunk.read(0, count).tobytes() == records.tobytes()
    assert chunk.read(0, count).dtype == BLOCK_DTYPE


OUTCOMES = st.builds(
    FileOutcome,
    path=st.text(),
    read_path=st.none() | st.text(),
    size=st.integers(0, 2**50),
    mtime_ns=st.integers(0, 2**62),
    text_bytes=st.integers(0, 2**50),
    trades=st.integers(0, 2**50),
    rejected=st.lists(st.tuples(st.text(), st.integers(0, 2**40)), max_size=3).map(tuple),
    late=st.integers(0, 2**40),
    first_late_ts=st.none() | st.integers(),
    damage=st.none() | st.text(),
    error=st.none() | st.text(),
)


@given(st.lists(OUTCOMES, max_size=4))
def test_outcomes_of_files_come_back_equal(
    tmp_path_factory: pytest.TempPathFactory, files: list[FileOutcome]
) -> None:
    path = tmp_path_factory.getbasetemp() / "chunk-of-outcomes"
    path.write_bytes(encode_chunk(files, candles(1)))
    assert open_chunk(str(path)).files == tuple(files)


def test_equal_chunks_are_equal_bytes() -> None:
    assert encode_chunk(FILES, candles(9)) == encode_chunk(list(FILES), candles(9))


def test_any_run_of_records_can_be_read(tmp_path: Path) -> None:
    records = candles(50)
    chunk = open_chunk(chunk_at(tmp_path, encode_chunk(FILES, records)))
    for begin, end in ((0, 1), (49, 50), (10, 20), (5, 5), (0, 50)):
        assert chunk.read(begin, end).tobytes() == records[begin:end].tobytes()


def test_head_says_how_much_work_the_chunk_stands_for() -> None:
    data = encode_chunk(FILES, candles(3))
    assert decode_head(data[:HEAD_BYTES], "x") == ChunkHead(128, 10)
    assert data[:HEAD_BYTES][:-4] == struct.pack(
        "<8sIIQQ", b"CBCHUNK2", len(data) - HEAD_BYTES - 3 * 104, 3, 128, 10
    )


def test_cut_at_every_byte(tmp_path: Path) -> None:
    data = encode_chunk(FILES[:1], candles(2))
    for length in range(len(data)):
        path = chunk_at(tmp_path, data[:length])
        with pytest.raises(FormatError, match=f"^{path}: expected a chunk"):
            open_chunk(path)


def test_flipped_bit_in_any_byte_is_found(tmp_path: Path) -> None:
    data = encode_chunk(FILES[:1], candles(2))
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        path = chunk_at(tmp_path, bytes(flipped))
        with pytest.raises(FormatError, match=f"^{path}: expected a chunk"):
            open_chunk(path)


@pytest.mark.parametrize("more", [b"\0", b"x" * 104, bytes(1 << 20)], ids=len)
def test_trailing_bytes(tmp_path: Path, more: bytes) -> None:
    data = encode_chunk(FILES, candles(2))
    path = chunk_at(tmp_path, data + more)
    message = f"expected a chunk of {len(data)} bytes, found {len(data + more)}"
    with pytest.raises(FormatError, match=message):
        open_chunk(path)


def test_wrong_magic(tmp_path: Path) -> None:
    data = encode_chunk(FILES, candles(2))
    path = chunk_at(tmp_path, b"CBCHUNK9" + data[len(MAGIC) :])
    with pytest.raises(FormatError, match="begins with b'CBCHUNK2', found b'CBCHUNK9'"):
        open_chunk(path)


def test_wrong_checksum_is_told_with_both(tmp_path: Path) -> None:
    data = encode_chunk((), candles(1))
    path = chunk_at(tmp_path, data[:-1] + b"\xff")
    with pytest.raises(FormatError, match=r"a chunk with checksum [0-9a-f]{8}, found [0-9a-f]{8}"):
        open_chunk(path)


def test_large_chunk_is_checked_to_its_end(tmp_path: Path) -> None:
    data = bytearray(encode_chunk((), candles(30_000)))
    assert len(data) > 2 << 20
    path = chunk_at(tmp_path, bytes(data))
    assert open_chunk(path).length == 30_000
    data[-1] ^= 1
    with pytest.raises(FormatError, match="checksum"):
        open_chunk(chunk_at(tmp_path, bytes(data)))


def test_missing_chunk_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_chunk(str(tmp_path / "chunk"))
