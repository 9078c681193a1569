"""Writing aligned files: what is written, and how it goes on from what is there."""

from __future__ import annotations

import json
import math
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from candlebeam.errors import CandlebeamError, FormatError, UsageError
from candlebeam.formats.aligned.file import AlignedPaths, open_aligned
from candlebeam.formats.aligned.state import (
    Sidecar,
    SourceState,
    read_index,
)
from candlebeam.io.aligned_writer import AlignedWriter
from candlebeam.model import Bars
from tests.aligned_bars import (
    Bar,
    bars_from,
    encoded,
    filled,
    gap,
    index_bytes,
    minutes,
    rows_of,
    write_aligned,
)
from tests.aligned_runs import (
    DAY,
    OLD,
    OTHER,
    SOURCE,
    WIDTH,
    Source,
    assert_settled,
    made,
    state_of,
    without_fsync,
    without_open_bar,
    write,
)
from tests.failing_disk import FailingDisk
from tests.trade_batches import MIDNIGHT

_no_power_cuts = pytest.fixture(scope="module", autouse=True)(without_fsync)


# What is written


@pytest.mark.parametrize("gaps", ["zero", "forward", "skip"])
def test_gaps_are_written_as_asked_for(tmp_path: Path, gaps: str) -> None:
    paths = AlignedPaths.of(str(tmp_path), "1m", "btcusdt")
    source = Source(minutes(0, 9, 0, 3, 4, 7))
    writer = write(paths, source, gaps, parts=3)
    assert writer.written
    assert_settled(paths, state_of(source, gaps))
    assert writer.bars == len(filled(source.rows, gaps))


def test_forward_goes_on_from_an_earlier_run(tmp_path: Path) -> None:
    paths = AlignedPaths.of(str(tmp_path), "1m", "btcusdt")
    rows = [*minutes(0, 4), *map(gap, range(4, 9))]
    for end in range(1, 10):
        write(paths, Source(rows[:end]), "forward")
    assert_settled(paths, state_of(Source(rows), "forward"))
    assert open_aligned(paths.records).ohlcv[-1].tolist() == [rows[3][4]] * 4 + [0.0]


def test_index_has_the_day_of_the_last_committed_record(tmp_path: Path) -> None:
    paths = AlignedPaths.of(str(tmp_path), "1m", "btcusdt")
    write(paths, Source(minutes(1438, 1441)))
    index = read_index(paths)
    assert index is not None
    assert index.last_date == 20_240_301
    # The record, not a gap that is left out.
    write(paths, Source([*minutes(0, 2), *map(gap, range(2, 1500)), *minutes(1500, 1502)]), "skip",
          force=True)  # fmt: skip
    index = read_index(paths)
    assert index is not None
    assert index.last_date == 20_240_302
    write(paths, Source([*minutes(0, 2), *map(gap, range(2, 1500))]), "skip", force=True)
    index = read_index(paths)
    assert index is not None
    assert index.last_date == 20_240_301


def test_last_is_the_last_committed_bar(tmp_path: Path) -> None:
    paths = AlignedPaths.of(str(tmp_path), "1m", "btcusdt")
    assert AlignedWriter(paths, source=SOURCE).last is None
    source = Source(minutes(0, 5, 4), opens=False)
    write(paths, source)
    with AlignedWriter(paths, source=SOURCE, settings={"gaps": "zero"}) as writer:
        assert writer.last is not None
        assert str(rows_of(writer.last)) == str([source.rows[4]])
        assert (writer.in_pos, writer.committed) == (50, 5)


def test_nothing_new_writes_nothing(tmp_path: Path) -> None:
    paths = AlignedPaths.of(str(tmp_path), "1m", "btcusdt")
    source = Source(minutes(0, 5))
    write(paths, source)
    with FailingDisk() as disk:
        writer = write(paths, source)
    assert disk.calls == []
    assert (writer.written, writer.bars, writer.notes) == (False, 0, [])


def test_settings_compare_as_they_are_stored(tmp_path: Path) -> None:
    paths = AlignedPaths.of(str(tmp_path), "1m", "btcusdt")
    for _ in range(2):
        with AlignedWriter(paths, source=SOURCE, settings={"of": ("a", 1)}) as writer:
            writer.append(bars_from(minutes(0, 0)))
            writer.commit(0, 0)


def test_bars_that_are_left_out_alone_still_move_the_source_on(tmp_path: Path) -> None:
    paths = AlignedPaths.of(str(tmp_path), "1m", "btcusdt")
    source = Source([gap(0), gap(1), *minutes(2, 3)])
    write(paths, source, "skip")
    assert_settled(paths, state_of(source, "skip"))
    source = Source([gap(0), gap(1), *minutes(2, 5)])
    write(paths, source, "skip")
    assert_settled(paths, state_of(source, "skip"))


@pytest.mark.parametrize(
    "bar",
    [
        minutes(3, 4)[0],
        minutes(4, 5)[0],
        (-1, 1.0, 1.0, 1.0, 1.0, 1.0),
        (253_402_300_800_000, 1.0, 1.0, 1.0, 1.0, 1.0),
        *(
            (MIDNIGHT * 2, *(bad if place == i else 1.0 for i in range(5)))
            for place in range(5)
            for bad in (math.nan, math.inf, -math.inf)
        ),
    ],
)
def test_what_is_no_bar_is_refused_and_the_file_stays(tmp_path: Path, bar: Bar) -> None:
    paths = AlignedPaths.of(str(tmp_path), "1m", "btcusdt")
    source = Source(minutes(0, 5))
    write(paths, source)
    message = f"^{SOURCE}: expected a bar after {MIDNIGHT + 300_000} up to 253402300799999, all of"
    with pytest.raises(CandlebeamError, match=f"{message} it numbers, found ts {bar[0]}, open"):
        write(paths, Source([*minutes(0, 6), bar, *minutes(7, 9)]))
    assert_settled(paths, state_of(source))


def test_huge_numbers_whose_sum_is_none_are_bars(tmp_path: Path) -> None:
    paths = AlignedPaths.of(str(tmp_path), "1m", "btcusdt")
    source = Source([(1, 1e308, 1e308, 1e308, 1e308, 1e308), (2, -5.0, 0.0, -9.0, -1.0, 0.0)])
    write(paths, source)
    assert Path(paths.records).read_bytes() == encoded(source.rows)


def test_bars_may_be_read_only_and_more_than_a_piece(tmp_path: Path) -> None:
    paths = AlignedPaths.of(str(tmp_path), "1m", "btcusdt")
    count = 70_000
    column = np.arange(2 * count, dtype=np.float64)[::2]
    ts = np.arange(1, count + 1)
    ts.flags.writeable = column.flags.writeable = False
    with AlignedWriter(paths, source=SOURCE) as writer:
        writer.append(Bars(ts, column, column, column, column, column))
        writer.commit(0, 0)
    found = open_aligned(paths.records)
    assert found.records["ts"].tolist() == ts.tolist()
    assert (found.ohlcv == column[:, None]).all()


def test_unknown_gaps_are_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="gaps 'x': expected forward, zero, skip"):
        AlignedWriter(AlignedPaths.of(str(tmp_path), "1m", "x"), source=SOURCE, gaps="x")


# What is there


def refused(paths: AlignedPaths, message: str, source: Source = OLD) -> None:
    """A run is refused and changes nothing; by force it is not."""
    files = [path for path in Path(paths.folder).rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    with pytest.raises(CandlebeamError, match=message):
        write(paths, source)
    files = [path for path in Path(paths.folder).rglob("*") if path.is_file()]
    assert {path: path.read_bytes() for path in files} == before
    write(paths, source, force=True)
    assert_settled(paths, state_of(source))


def test_another_source_is_refused(tmp_path: Path) -> None:
    paths = made(tmp_path)
    message = rf"btcusdt\.bin: made from {SOURCE}, not PI/B/c; --force makes it again$"
    refused(paths, message, Source(OLD.rows, name="PI/B/c"))


def test_other_settings_are_refused(tmp_path: Path) -> None:
    paths = made(tmp_path, gaps="skip")
    refused(paths, r"made with gaps skip, not gaps zero; --force makes it again$")


def test_other_settings_of_a_damaged_file_are_refused(tmp_path: Path) -> None:
    paths = made(tmp_path, gaps="skip")
    os.truncate(paths.records, 100)
    refused(paths, r"made with gaps skip, not gaps zero; --force makes it again$")


def test_records_of_somebody_else_are_refused(tmp_path: Path) -> None:
    paths = write_aligned(tmp_path, encoded(OLD.rows), None)
    refused(paths, rf"^{paths.index}: expected the index of an aligned file, found 320 bytes of"
                   r" bars without it; --force makes the file again$")  # fmt: skip


@pytest.mark.parametrize("size", [0, 64, 255])
def test_file_of_somebody_else_that_is_short_is_refused(tmp_path: Path, size: int) -> None:
    paths = write_aligned(tmp_path, encoded(OLD.rows)[:size], index_bytes(DAY, 0, 256))
    refused(paths, rf"expected 256 bytes, as its index says, found {size}; --force makes")


@pytest.mark.parametrize("index", [b"", b"x" * 20, index_bytes(DAY, 0, 100)])
def test_damaged_index_of_somebody_else_is_refused(tmp_path: Path, index: bytes) -> None:
    paths = write_aligned(tmp_path, encoded(OLD.rows), index)
    refused(paths, r"expected an index of .*, found .* bytes; --force makes the file again$")


def test_file_of_somebody_else_cannot_be_told_to_go_on(tmp_path: Path) -> None:
    paths = write_aligned(tmp_path, encoded(OLD.rows), index_bytes(DAY, 40, 256))
    message = r"btcusdt\.bin: nothing says what it was made from; --force makes it again$"
    refused(paths, message)


def test_time_of_the_last_record_that_is_none_is_refused(tmp_path: Path) -> None:
    data = bytearray(encoded(OLD.rows))
    data[192:200] = b"\xff" * 8
    paths = write_aligned(tmp_path, bytes(data), index_bytes(DAY, 40, 256))
    refused(paths, rf"at byte 192: expected a time in ms, found {(1 << 64) - 1}; --force")


def test_file_of_somebody_else_without_anything_committed_is_replaced(tmp_path: Path) -> None:
    paths = write_aligned(tmp_path, encoded(OLD.rows[:1]), index_bytes(0, 17, 0))
    write(paths, OTHER)
    assert_settled(paths, state_of(OTHER))


def test_empty_file_without_an_index_is_replaced(tmp_path: Path) -> None:
    paths = write_aligned(tmp_path, b"", None)
    write(paths, OTHER)
    assert_settled(paths, state_of(OTHER))


DAMAGES: dict[str, tuple[Callable[[AlignedPaths], object], str]] = {
    "no index": (lambda paths: os.unlink(paths.index), "found 320 bytes of bars without it"),
    "half an index": (lambda paths: os.truncate(paths.index, 12), "found 12 bytes"),
    "another index": (
        lambda paths: Path(paths.index).write_bytes(index_bytes(DAY, 40, 230)),
        "expected an index of whole records of 64 bytes, found 230 bytes",
    ),
    "no records": (
        lambda paths: os.unlink(paths.records),
        "expected 256 bytes, as its index says, found 0",
    ),
    "short records": (
        lambda paths: os.truncate(paths.records, 200),
        "expected 256 bytes, as its index says, found 200",
    ),
    "in_pos within a record": (
        lambda paths: (
            Path(paths.index).write_bytes(index_bytes(DAY, 41, 256)),
            Path(paths.source).write_bytes(
                Sidecar(SOURCE, {"gaps": "zero"}, (SourceState(41, 256, OLD.checksum(4)),)).encode()
            ),
        ),
        "other bars",
    ),
    "in_pos behind the source": (
        lambda paths: (
            Path(paths.index).write_bytes(index_bytes(DAY, 1 << 63, 256)),
            Path(paths.source).write_bytes(
                Sidecar(SOURCE, {"gaps": "zero"}, (SourceState(1 << 63, 256, 0),)).encode()
            ),
        ),
        "other bars",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_file_of_a_known_source_is_made_again(tmp_path: Path, damage: str) -> None:
    paths = made(tmp_path)
    harm, note = DAMAGES[damage]
    harm(paths)
    writer = write(paths, OLD)
    assert_settled(paths, state_of(OLD))
    (found,) = writer.notes
    assert re.search(rf"{re.escape(note)}; {paths.records} was made again$", found)


def test_short_file_is_never_extended(tmp_path: Path) -> None:
    """Not even for a moment: no call before the commit touches it."""
    paths = made(tmp_path)
    os.truncate(paths.records, 100)
    with FailingDisk() as disk:
        write(paths, OLD)
    touched = [call for call, path in disk.calls if path == paths.records]
    assert touched == ["replace"]


@pytest.mark.parametrize("tail", [1, 63, 65, 128, 1000])
def test_leftovers_are_cut(tmp_path: Path, tail: int) -> None:
    paths = made(tmp_path)
    with open(paths.records, "r+b") as file:
        file.seek(256)
        file.write(b"x" * tail)
        file.truncate()
    writer = write(paths, OLD)
    assert writer.notes == [f"{paths.records}: {tail} bytes behind the last committed bar were cut"]
    assert_settled(paths, state_of(OLD))


def test_leftovers_of_a_run_that_was_killed_are_no_open_bar(tmp_path: Path) -> None:
    paths = made(tmp_path)
    Path(paths.writing).touch()
    writer = write(paths, Source(OLD.rows[:4], opens=False))
    assert "64 bytes behind the last committed bar were cut" in writer.notes[0]
    assert_settled(paths, state_of(Source(OLD.rows[:4], opens=False)))


@pytest.mark.parametrize("new", [OLD, Source(minutes(0, 8, 2))], ids=["open bar", "more"])
def test_legacy_index_migrates_at_the_first_write(tmp_path: Path, new: Source) -> None:
    paths = made(tmp_path)
    legacy = struct.pack("<QQ", 40, 256)
    Path(paths.index).write_bytes(legacy)
    assert not write(paths, OLD).written
    assert Path(paths.index).read_bytes() == legacy
    without_open_bar(paths)
    write(paths, new)
    assert_settled(paths, state_of(new))


def adopt(paths: AlignedPaths, source: Source, place: int, gaps: str = "zero") -> list[str]:
    with AlignedWriter(paths, source=SOURCE, settings={"gaps": gaps}, gaps=gaps) as writer:
        foreign = [writer.foreign]
        part = [
            bars_from(source.rows[begin : min(begin + 2, place)]) for begin in range(0, place, 2)
        ]
        writer.adopt(part, place * WIDTH, source.checksum(place))
        assert [*foreign, writer.foreign] == [True, False]
        assert writer.continues(source.checksum, WIDTH)
        writer.append(bars_from(source.rows[place : source.closed]))
        writer.commit(
            source.closed * WIDTH, source.checksum(source.closed), bars_from(source.open_row)
        )
        return writer.notes


@pytest.mark.parametrize("index", [index_bytes(DAY, 999, 384), struct.pack("<QQ", 999, 384)])
@pytest.mark.parametrize("gaps", ["forward", "zero"])
def test_file_of_somebody_else_goes_on_if_its_last_bar_is_the_source_s(
    tmp_path: Path, gaps: str, index: bytes
) -> None:
    source = Source(minutes(0, 9, 5))
    data = encoded(source.rows[:6], gaps)
    paths = write_aligned(tmp_path, data, index)
    (note,) = adopt(paths, source, 6, gaps)
    assert note == (
        f"{paths.records}: nothing says what it was made from; its last bar, at"
        f" 2024-03-01T00:05:00.000Z, is that of {SOURCE}, so it goes on from there"
    )
    assert_settled(paths, state_of(source, gaps))
    assert not write(paths, source, gaps).written


def test_legacy_file_of_nothing_new_migrates_as_it_is_adopted(tmp_path: Path) -> None:
    source = Source(minutes(0, 6), opens=False)
    paths = write_aligned(tmp_path, encoded(source.rows), struct.pack("<QQ", 0, 384))
    adopt(paths, source, 6)
    assert_settled(paths, state_of(source))


@pytest.mark.parametrize(("place", "found"), [(6, "100.0"), (5, "none"), (0, "none")])
def test_file_of_somebody_else_with_another_last_bar_is_refused(
    tmp_path: Path, place: int, found: str
) -> None:
    rows = minutes(0, 9)
    other = [*rows[:5], (rows[5][0], 100.0, 100.0, 100.0, 100.0, 1.0)]
    paths = write_aligned(tmp_path, encoded(rows[:6]), index_bytes(DAY, 60, 384))
    with pytest.raises(
        CandlebeamError,
        match=r"at 2024-03-01T00:05:00.000Z, is 101.625, 102.125, 101.375, 101.75, 16.0, but that"
        rf" of {SOURCE} is {found}.*; --force makes the file again$",
    ):
        adopt(paths, Source(other), place)
    assert Path(paths.records).read_bytes() == encoded(rows[:6])


def test_index_that_another_program_has_moved_on_is_found_out(tmp_path: Path) -> None:
    paths = made(tmp_path)
    with open(paths.records, "r+b") as file:
        file.write(encoded(minutes(0, 8)))
    Path(paths.index).write_bytes(index_bytes(DAY, 70, 448))
    refused(paths, "nothing says what it was made from", OTHER)


def test_damaged_sidecar_is_as_none(tmp_path: Path) -> None:
    paths = made(tmp_path)
    Path(paths.source).write_bytes(b"{}")
    notes = adopt(paths, OLD, 4)
    assert notes[0] == (
        f"{paths.source}: expected the source of an aligned file, found no 'version';"
        " taken as if it were not there"
    )
    assert_settled(paths, state_of(OLD))


# What is stored beside the records

STATE_OF = (
    '{"version": 1, "source": "x", "settings": {},'
    ' "states": [{"inPos": %s, "outPos": 0, "checksum": 0}]}'
)


def test_sidecar_is_what_the_page_of_formats_says(tmp_path: Path) -> None:
    paths = AlignedPaths.of(str(tmp_path), "1m", "btcusdt")
    write(paths, OLD)
    new = Source(minutes(0, 8, 2))
    write(paths, new)
    assert json.loads(Path(paths.source).read_text()) == {
        "version": 1,
        "source": SOURCE,
        "settings": {"gaps": "zero"},
        "states": [
            {"inPos": 40, "outPos": 256, "checksum": OLD.checksum(4)},
            {"inPos": 70, "outPos": 448, "checksum": new.checksum(7)},
        ],
    }


@pytest.mark.parametrize(
    "values",
    [
        "",
        "[]",
        "{}",
        '{"version": 2}',
        '{"version": 1, "source": 1, "settings": {}, "states": []}',
        '{"version": 1, "source": "x", "settings": [], "states": []}',
        '{"version": 1, "source": "x", "settings": {}, "states": [{}]}',
        '{"version": 1, "source": "x", "settings": {}, "states": [[]]}',
        STATE_OF % "-1",
        STATE_OF % "1.5",
        STATE_OF % "true",
        STATE_OF % str(1 << 64),
    ],
)
def test_what_is_no_sidecar_is_an_error(values: str) -> None:
    with pytest.raises(FormatError, match=r"^x: expected the source of an aligned file, found "):
        Sidecar.decode(values.encode(), "x")
