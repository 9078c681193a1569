"""Whether a Databento file is whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from databento_dbn import Metadata, SType
from hypothesis import given
from hypothesis import strategies as st

from candlebeam.errors import FormatError
from candlebeam.formats.dbn.whole import check_dbn
from candlebeam.formats.fetched_file import Fetched, read_fetched
from tests.databento_server import Query, compressed, ns

QUERY = Query("XNAS.ITCH", "ohlcv-1s", "SPY", "raw_symbol", ns("2024-01-01"), ns("2024-01-11"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "SPY.dbn.zst"


def plain() -> bytes:
    """A file's bytes without compression."""
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj().decompress(QUERY.dbn())


def test_a_whole_file_tells_its_request_and_its_records(path: Path) -> None:
    path.write_bytes(QUERY.dbn())
    found = check_dbn(str(path))
    assert found.records == len(QUERY.records()) == 30
    assert (found.dataset, found.schema, *found.symbols, found.stype_in) == QUERY[:4]
    assert (found.start, found.end) == QUERY[4:]
    assert found.limit is None


def test_a_file_of_several_frames_is_whole(path: Path) -> None:
    data = plain()
    path.write_bytes(compressed(data[:500]) + compressed(data[500:]))
    assert check_dbn(str(path)).records == 30


def test_a_file_without_records_is_whole(path: Path) -> None:
    path.write_bytes(compressed(plain()[: -30 * 56]))
    assert check_dbn(str(path)).records == 0


def test_a_file_cut_anywhere_is_not_whole(path: Path) -> None:
    data = QUERY.dbn()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(FormatError):
            check_dbn(str(path))


@pytest.mark.parametrize("size", [1, 55, 57])
def test_a_frame_that_ends_within_a_record_is_not_whole(path: Path, size: int) -> None:
    path.write_bytes(compressed(plain()[:-size]))
    with pytest.raises(FormatError, match=r"a whole record, found [0-9]+ bytes of one"):
        check_dbn(str(path))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "found an empty file"),
        (b"<html>busy</html>", "expected a zstd frame"),
        (plain(), "expected a zstd frame, found b'DBN"),
        (compressed(b"timestamp,open\n"), "expected a Databento file"),
        (QUERY.dbn() + b"more", "expected a whole Databento file"),
        (compressed(plain() + bytes(56)), "expected the length of a record, found 0"),
    ],
)
def test_something_else_is_named(path: Path, data: bytes, message: str) -> None:
    path.write_bytes(data)
    with pytest.raises(FormatError, match=message) as caught:
        check_dbn(str(path))
    assert str(path) in str(caught.value)


@given(st.lists(st.tuples(st.integers(1, 255), st.integers(1, 3000)), max_size=12))
def test_records_of_any_lengths_are_counted(
    tmp_path_factory: pytest.TempPathFactory, runs: list[tuple[int, int]]
) -> None:
    metadata = Metadata(
        dataset="D", start=0, stype_in=None, stype_out=SType.INSTRUMENT_ID, schema=None
    )
    body = b"".join(bytes([words] + [7] * (words * 4 - 1)) * count for words, count in runs)
    path = tmp_path_factory.getbasetemp() / "any.dbn.zst"
    path.write_bytes(compressed(bytes(metadata) + body))
    assert check_dbn(str(path)).records == sum(count for _, count in runs)


FETCHED = Fetched("D", "trades", "A/B", "raw_symbol", 1, 2, 3, 4)


def test_a_note_reads_back() -> None:
    for fetched in (FETCHED, FETCHED.with_csv(5)):
        assert Fetched.decode(fetched.encode()) == fetched


def test_a_note_counts_for_data_of_its_size_only(tmp_path: Path) -> None:
    note, data = tmp_path / ".x.json", tmp_path / "x"
    assert read_fetched(str(note), str(data)) is None
    note.write_bytes(FETCHED.encode())
    assert read_fetched(str(note), str(data)) is None
    data.write_bytes(b"1234")
    assert read_fetched(str(note), str(data)) == FETCHED
    data.write_bytes(b"12345")
    assert read_fetched(str(note), str(data)) is None


@pytest.mark.parametrize(
    "damage",
    [
        b"", b"{", b"[]", b"{}", b'{"version": 2}', b'{"version": 1}',
        FETCHED.encode().replace(b"4", b'"4"'), FETCHED.encode().replace(b'"D"', b"1"),
        FETCHED.encode().replace(b"null", b"true"), FETCHED.encode().replace(b"size", b"sizes"),
    ],
)  # fmt: skip
def test_a_damaged_note_says_nothing(tmp_path: Path, damage: bytes) -> None:
    note, data = tmp_path / ".x.json", tmp_path / "x"
    data.write_bytes(b"1234")
    note.write_bytes(damage)
    assert read_fetched(str(note), str(data)) is None
