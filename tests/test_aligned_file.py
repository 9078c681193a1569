"""Aligned files as their readers see them."""

from __future__ import annotations

import gc
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

import candlebeam
from candlebeam.errors import FormatError, UsageError
from candlebeam.formats.aligned import file as aligned_file
from candlebeam.formats.aligned import state as aligned_state
from candlebeam.formats.aligned.file import (
    ALIGNED_DTYPE,
    AlignedIndex,
    AlignedPaths,
    AlignedSource,
    bars_of,
)
from candlebeam.formats.aligned.state import AlignedJournal, Sidecar, SourceState
from candlebeam.formats.bar_source import BarSource
from candlebeam.market import Market, Timeframe
from tests.aligned_bars import encoded, gap, index_bytes, minutes, rows_of, write_aligned
from tests.trade_batches import MIDNIGHT, MINUTE

DAY = 20_240_301
ROWS = minutes(0, 5, 2)


# The bytes


def test_record_is_64_little_endian_bytes_as_the_specification_says() -> None:
    assert ALIGNED_DTYPE.itemsize == 64
    expected = [("ts", "<u8"), ("ohlcv", "<f8", (5,)), ("padding", "<u8", (2,))]
    assert np.dtype(expected) == ALIGNED_DTYPE
    assert [ALIGNED_DTYPE.fields[name][1] for name in ("ts", "ohlcv", "padding")] == [0, 8, 48]  # type: ignore[index]


def test_index_is_24_bytes_as_the_specification_says() -> None:
    index = AlignedIndex(20240301, 560, 640)
    assert index.encode() == bytes.fromhex("ad d7 34 01 00000000 3002000000000000 8002000000000000")
    assert AlignedIndex.decode(index.encode(), "x") == index


def test_index_of_16_bytes_has_no_date() -> None:
    index = AlignedIndex.decode(struct.pack("<QQ", 560, 640), "x")
    assert index == AlignedIndex(None, 560, 640)
    with pytest.raises(ValueError, match="an index needs the date of its last record"):
        index.encode()


@pytest.mark.parametrize("size", [0, 1, 15, 17, 23, 25, 48])
def test_index_of_any_other_size_is_an_error(size: int) -> None:
    with pytest.raises(FormatError, match=rf"^x: expected an index of 24 or 16 .* {size} bytes$"):
        AlignedIndex.decode(bytes(size), "x")


def test_paths() -> None:
    paths = AlignedPaths.of("to", "1m", "EUR-USD")
    assert paths.records == "to/1m/EUR-USD.bin"
    assert paths.index == "to/1m/index/EUR-USD.idx"
    assert paths.source == "to/1m/index/EUR-USD.source.json"
    assert AlignedPaths.beside(paths.records) == paths
    for path in (paths.journal, paths.writing, *paths.unfinished):
        assert os.path.basename(path).startswith(".EUR-USD.")


# Opening


def opened(folder: Path, size: int = 0, committed: int = 4) -> candlebeam.AlignedBars:
    data = encoded(ROWS)
    index = index_bytes(DAY, 0, 64 * committed)
    paths = write_aligned(folder, data[: size or len(data)], index)
    return candlebeam.open_aligned(paths.records)


def test_open_gives_the_records_of_the_file(tmp_path: Path) -> None:
    bars = opened(tmp_path)
    assert bars.records.tobytes() == encoded(ROWS)
    assert len(bars) == 5
    assert bars.times().dtype == "datetime64[ms]"
    assert bars.times().astype(np.int64).tolist() == [MIDNIGHT + i * 60_000 for i in range(5)]
    assert bars.ohlcv.shape == (5, 5)
    assert bars.ohlcv[0].tolist() == list(ROWS[0][1:])
    assert rows_of(bars_of(bars.records))[3:] == ROWS[3:]


def test_nothing_is_copied_and_nothing_can_be_written(tmp_path: Path) -> None:
    bars = opened(tmp_path)
    for view in (bars.records, bars.times(), bars.ohlcv):
        assert np.shares_memory(view, bars.records)
        with pytest.raises(ValueError, match="read-only"):
            view[:] = view[:]


def test_open_bar_is_the_record_behind_what_is_committed(tmp_path: Path) -> None:
    bars = opened(tmp_path)
    assert bars.committed == 4
    assert bars.open_bar is not None
    assert bars.open_bar.tobytes() == encoded(ROWS[4:])
    assert not np.shares_memory(bars.open_bar, bars.records)
    bars = opened(tmp_path, size=256)
    assert (bars.committed, bars.open_bar, len(bars)) == (4, None, 4)


def test_more_than_one_record_behind_is_not_seen(tmp_path: Path) -> None:
    bars = opened(tmp_path, committed=2)
    assert len(bars) == 3


def test_open_bar_that_is_not_later_is_none(tmp_path: Path) -> None:
    data = encoded(ROWS[:3]) + bytes(64)
    paths = write_aligned(tmp_path, data, index_bytes(DAY, 0, 192))
    bars = candlebeam.open_aligned(paths.records)
    assert (bars.open_bar, len(bars)) == (None, 3)


def test_file_without_an_index_is_all_records(tmp_path: Path) -> None:
    paths = write_aligned(tmp_path, encoded(ROWS), None)
    bars = candlebeam.open_aligned(Path(paths.records))
    assert (len(bars), bars.committed, bars.open_bar) == (5, None, None)


def test_legacy_index_is_read(tmp_path: Path) -> None:
    paths = write_aligned(tmp_path, encoded(ROWS), struct.pack("<QQ", 17, 128))
    assert candlebeam.open_aligned(paths.records).committed == 2


def test_empty_file_opens(tmp_path: Path) -> None:
    paths = write_aligned(tmp_path, b"", index_bytes(0, 0, 0))
    bars = candlebeam.open_aligned(paths.records)
    assert (len(bars), bars.committed, bars.open_bar) == (0, 0, None)
    assert bars.to_pandas().empty


@pytest.mark.parametrize("index", [None, 0, 2])
@pytest.mark.parametrize("cut", [1, 63, 65])
def test_file_that_is_cut_within_a_record_is_an_error(
    tmp_path: Path, index: int | None, cut: int
) -> None:
    data = encoded(ROWS)[:-cut]
    found = None if index is None else index_bytes(DAY, 0, 64 * index)
    paths = write_aligned(tmp_path, data, found)
    message = f"{paths.records}: expected a multiple of 64 bytes, found {len(data)}"
    with pytest.raises(FormatError, match=f"^{message}$"):
        candlebeam.open_aligned(paths.records)


@pytest.mark.parametrize("size", [0, 1, 64, 255])
def test_file_shorter_than_its_index_says_is_an_error(tmp_path: Path, size: int) -> None:
    paths = write_aligned(tmp_path, encoded(ROWS)[:size], index_bytes(DAY, 0, 256))
    message = f"{paths.records}: expected 256 bytes, as its index says, found {size}"
    with pytest.raises(FormatError, match=f"^{message}$"):
        candlebeam.open_aligned(paths.records)


def test_index_of_half_a_record_is_an_error(tmp_path: Path) -> None:
    paths = write_aligned(tmp_path, encoded(ROWS), index_bytes(DAY, 0, 100))
    with pytest.raises(FormatError, match="expected an index of whole records of 64 bytes, found"):
        candlebeam.open_aligned(paths.records)


def test_damaged_index_is_an_error(tmp_path: Path) -> None:
    paths = write_aligned(tmp_path, encoded(ROWS), b"12345")
    with pytest.raises(FormatError, match=f"^{paths.index}: expected an index of 24 or 16 bytes"):
        candlebeam.open_aligned(paths.records)


@pytest.mark.parametrize("size", [300, 320, 321, 500])
def test_what_a_run_is_writing_behind_is_not_looked_at(tmp_path: Path, size: int) -> None:
    data = encoded([*ROWS, *minutes(5, 9)])[:size]
    paths = write_aligned(tmp_path, data, index_bytes(DAY, 0, 256))
    Path(paths.writing).touch()
    bars = candlebeam.open_aligned(paths.records)
    assert bars.records.tobytes() == data[:256]
    assert bars.open_bar is None


def test_missing_file_and_other_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        candlebeam.open_aligned(tmp_path / "1m/x.bin")
    for name in ("x.idx", "x.json"):
        with pytest.raises(UsageError, match=r"expected the \.bin of an aligned file"):
            candlebeam.open_aligned(tmp_path / name)


@pytest.mark.parametrize("renamed", [False, True])
def test_journal_is_read_as_carried_out(tmp_path: Path, renamed: bool) -> None:
    paths = write_aligned(tmp_path, encoded(ROWS), index_bytes(DAY, 0, 256))
    new = encoded(minutes(0, 3, seed=9))
    state = SourceState(7, 128, 5)
    journal = AlignedJournal(AlignedIndex(DAY, 7, 128), Sidecar("x", {}, (state,)))
    Path(paths.records if renamed else paths.replacement).write_bytes(new)
    Path(paths.journal).write_bytes(journal.encode())
    bars = candlebeam.open_aligned(paths.records)
    assert (bars.committed, bars.records.tobytes()) == (2, new)


def test_file_that_changes_while_it_is_opened_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_aligned(tmp_path, encoded(ROWS), index_bytes(DAY, 0, 256))
    real, calls = aligned_state.read_index, 0

    def read_index(found: AlignedPaths) -> AlignedIndex | None:
        nonlocal calls
        calls += 1
        index = real(found)
        if calls == 1:
            write_aligned(tmp_path, encoded(ROWS[:2]), index_bytes(DAY, 0, 128))
        return index

    monkeypatch.setattr(aligned_file, "read_index", read_index)
    assert len(candlebeam.open_aligned(paths.records)) == 2
    assert calls == 2


# Closing


def open_files() -> int:
    return len(os.listdir("/dev/fd"))


def test_closing_raises_nothing_while_views_are_alive_and_they_stay_valid(tmp_path: Path) -> None:
    before = open_files()
    with opened(tmp_path) as bars:
        views = [bars.records, bars.times(), bars.ohlcv[:, 3], bars.records["ts"][1:]]
        expected = [view.copy() for view in views]
    bars.close()
    for view, copy in zip(views, expected, strict=True):
        assert view.tobytes() == copy.tobytes()
    with pytest.raises(ValueError, match=r"1m/btcusdt\.bin is closed"):
        _ = bars.records
    with pytest.raises(ValueError, match="is closed"):
        bars.to_arrow()
    del view, views
    gc.collect()
    assert open_files() == before


def test_closing_without_views_lets_the_file_go(tmp_path: Path) -> None:
    before = open_files()
    for _ in range(3):
        opened(tmp_path).close()
    assert open_files() == before


# As tables


def test_arrow_table_has_nulls_where_there_are_no_prices(tmp_path: Path) -> None:
    table = opened(tmp_path).to_arrow(slice(1, 4))
    assert table.column_names == ["time", "open", "high", "low", "close", "volume"]
    assert str(table.schema.field("time").type) == "timestamp[ms, tz=UTC]"
    assert table["close"].to_pylist() == [ROWS[1][4], None, ROWS[3][4]]
    assert table["volume"].to_pylist() == [ROWS[1][5], 0.0, ROWS[3][5]]


def test_pandas_frame_is_indexed_by_time(tmp_path: Path) -> None:
    frame = opened(tmp_path).to_pandas()
    assert str(frame.index[0]) == "2024-03-01 00:00:00+00:00"
    assert frame["high"].isna().tolist() == [False, False, True, False, False]


# As a source


def test_source_gives_bars_and_gaps(tmp_path: Path) -> None:
    opened(tmp_path)
    source: BarSource = AlignedSource(tmp_path / "1m/btcusdt.bin")
    assert source.path == str(tmp_path / "1m/btcusdt.bin")
    assert source.market == Market("", "", "btcusdt")
    assert (source.timeframe, source.record_bytes, source.closed) == (MINUTE, 64, 4)
    (piece,) = source.pieces(1)
    assert piece.begin == 1
    assert str(rows_of(piece.bars)) == str(minutes(1, 5, 2))
    assert source.checksum(3) == zlib.crc32(encoded(ROWS[:3]))
    assert source.checksum(6) == -1
    piece.bars.close[:] = 0  # its own


def test_source_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aligned_file, "PIECE_BARS", 2)
    opened(tmp_path)
    pieces = list(AlignedSource(tmp_path / "1m/btcusdt.bin").pieces())
    assert [(piece.begin, len(piece.bars)) for piece in pieces] == [(0, 2), (2, 2), (4, 1)]
    assert [rows_of(piece.bars)[0][0] for piece in pieces] == [ROWS[i][0] for i in (0, 2, 4)]


def test_source_without_an_index_is_closed(tmp_path: Path) -> None:
    paths = write_aligned(tmp_path, encoded(ROWS), None)
    assert AlignedSource(paths.records).closed is None


@pytest.mark.parametrize(
    ("folder", "rows", "timeframe"),
    [
        ("4h", ROWS, Timeframe(14_400_000)),
        ("bars", ROWS, MINUTE),
        ("bars", [ROWS[0], ROWS[2], ROWS[3]], MINUTE),
        ("bars", ROWS[:1], None),
        ("bars", [], None),
        ("1w", [gap(0), gap(7 * 1440)], None),
    ],
)
def test_timeframe_is_the_name_of_the_folder_or_the_least_distance(
    tmp_path: Path, folder: str, rows: list[tuple[float, ...]], timeframe: Timeframe | None
) -> None:
    paths = write_aligned(tmp_path, encoded(rows), None, folder)  # type: ignore[arg-type]
    assert AlignedSource(paths.records).timeframe == timeframe


def test_time_that_is_none_is_an_error(tmp_path: Path) -> None:
    data = encoded(ROWS[:2]) + b"\xff" * 8 + bytes(56)
    paths = write_aligned(tmp_path, data, None)
    message = rf"^{paths.records} at byte 128: expected a time in ms, found {(1 << 64) - 1}$"
    with pytest.raises(FormatError, match=message):
        list(AlignedSource(paths.records).pieces())
