"""Trade logs as files: gzip and plain, whole and damaged, many and missing."""

from __future__ import annotations

import gzip
import os
import random
import sys
import threading
import tracemalloc
import zlib
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from candlebeam.errors import Cancelled
from candlebeam.formats.trade_log import gzip_text
from candlebeam.formats.trade_log.reader import FileRejects, RejectedRow, TradeLogReader, twin
from candlebeam.model import FileOutcome, InputFile, Market, TradeBatch
from tests.slow_gzip import gunzip
from tests.trade_log_rules import Trade, read_text, unzip

MARKET = Market("RAM", "BINANCE", "btcusdt")
TS = 1610064000000


def rows(count: int, start: int = TS) -> bytes:
    rng = random.Random(count)
    return b"".join(
        b"%d %.2f %.6f %d\n" % (start + i, rng.uniform(1, 99999), rng.random(), i & 1)
        for i in range(count)
    )


def trades_of(batches: list[TradeBatch]) -> list[Trade]:
    return [
        trade
        for batch in batches
        for trade in zip(
            batch.ts.tolist(),
            batch.price.tolist(),
            batch.size.tolist(),
            batch.buy.tolist(),
            batch.liquidation.tolist(),
            strict=True,
        )
    ]


def read_one(path: Path, **options: object) -> tuple[list[Trade], FileOutcome]:
    reader = TradeLogReader(MARKET, [InputFile(str(path))], **options)  # type: ignore[arg-type]
    trades = trades_of(list(reader))
    (outcome,) = reader.outcomes
    assert outcome.trades == len(trades)
    assert outcome.path == str(path)
    return trades, outcome


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def squeezed(text: bytes, level: int = 6) -> bytes:
    return gzip.compress(text, level, mtime=0)


# --- sound files


@pytest.mark.parametrize("packed", [False, True])
def test_outcome_tells_all_of_a_sound_file(tmp_path: Path, packed: bool) -> None:
    text = b"\xef\xbb\xbf" + rows(3) + b"\nx\n" + rows(2) + b"1610064000009 1 1 0 1"
    path = write(tmp_path / "log", squeezed(text) if packed else text)
    trades, outcome = read_one(path)
    assert trades == read_text(text).trades
    status = path.stat()
    assert outcome == FileOutcome(
        path=str(path),
        read_path=str(path),
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        text_bytes=text.rindex(b"\n") + 1,
        trades=6,
        rejected=(("fields", 1),),
    )


@pytest.mark.parametrize(
    "text", [b"", b"\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n", b" \r\n \r", b"x"]
)
@pytest.mark.parametrize("packed", [False, True])
def test_text_without_trades_gives_no_batch(tmp_path: Path, text: bytes, packed: bool) -> None:
    path = write(tmp_path / "log", squeezed(text) if packed else text)
    trades, outcome = read_one(path)
    assert trades == []
    assert outcome.text_bytes == text.rfind(b"\n") + 1
    assert outcome.rejected == ((("fields", 1),) if text == b"x" else ())
    assert (outcome.damage, outcome.error) == (None, None)


def test_members_are_one_text_and_zeros_after_them_are_nothing(tmp_path: Path) -> None:
    text = rows(2000)
    cuts = [0, 10, 10, 40_001, len(text)]
    members = b"".join(squeezed(text[a:b]) for a, b in pairwise(cuts))
    for padding in (b"", b"\0", bytes(200_000)):
        trades, outcome = read_one(write(tmp_path / "log.gz", members + padding))
        assert trades == read_text(text).trades
        assert (outcome.text_bytes, outcome.damage) == (len(text), None)
    between = squeezed(text[:10]) + bytes(77) + squeezed(text[10:])
    assert read_one(write(tmp_path / "log.gz", between))[0] == read_text(text).trades


def test_many_members_cost_no_recursion(tmp_path: Path) -> None:
    text = rows(3000)
    lines = text.splitlines(keepends=True)
    data = b"".join(squeezed(line, 1) for line in lines)
    trades, outcome = read_one(write(tmp_path / "log.gz", data))
    assert trades == read_text(text).trades
    assert outcome.damage is None


def test_gzip_is_known_by_its_bytes_and_not_by_its_name(tmp_path: Path) -> None:
    text = rows(5)
    assert read_one(write(tmp_path / "packed", squeezed(text)))[0] == read_text(text).trades
    assert read_one(write(tmp_path / "plain.gz", text))[0] == read_text(text).trades


def test_header_with_all_optional_parts_is_read(tmp_path: Path) -> None:
    text = rows(50)
    body = squeezed(text)[10:]
    header = b"\x1f\x8b\x08\x1e\0\0\0\0\0\xff" + b"\x03\0abc" + b"name\0" + b"comment\0"
    header += (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little")
    trades, outcome = read_one(write(tmp_path / "log.gz", header + body))
    assert trades == read_text(text).trades
    assert outcome.damage is None


@pytest.mark.parametrize("compressor", [0, 1, 6, 9])
def test_large_file_is_read_whole_with_any_window(tmp_path: Path, compressor: int) -> None:
    text = rows(40_000)
    path = write(tmp_path / "log.gz", squeezed(text, compressor))
    expected = read_text(text).trades
    for window in (1000, 1 << 18, 1 << 23):
        assert read_one(path, window=window, batch_trades=10_000)[0] == expected


# --- batches


def test_batches_are_full_but_the_last_and_cross_files(tmp_path: Path) -> None:
    texts = [rows(n) for n in (30, 0, 1, 100, 29, 7)]
    files = [write(tmp_path / f"{i}", squeezed(text)) for i, text in enumerate(texts)]
    reader = TradeLogReader(MARKET, [InputFile(str(f)) for f in files], batch_trades=40)
    batches = list(reader)
    assert [len(batch) for batch in batches] == [40, 40, 40, 40, 7]
    assert trades_of(batches) == [t for text in texts for t in read_text(text).trades]
    assert [outcome.trades for outcome in reader.outcomes] == [30, 0, 1, 100, 29, 7]
    assert all(batch.market == MARKET and batch.count is None for batch in batches)


def test_batches_share_no_memory(tmp_path: Path) -> None:
    path = write(tmp_path / "log", rows(100))
    batches = list(TradeLogReader(MARKET, [InputFile(str(path))], batch_trades=30))
    for batch in batches:
        batch.ts[:] = 0
        batch.price[:] = 0
    assert [len(batch) for batch in batches] == [30, 30, 30, 10]
    assert batches[-1].ts.base is None, "the last one does not keep a full column alive"


def test_thousands_of_small_files_keep_their_order(tmp_path: Path) -> None:
    texts = [
        rows(1 + i % 3, TS + 10 * i) + (b"bad\n" if i % 100 == 7 else b"") for i in range(1500)
    ]
    files = [write(tmp_path / f"{i}", squeezed(t, 1)) for i, t in enumerate(texts)]
    reader = TradeLogReader(MARKET, [InputFile(str(f)) for f in files], keep_rejects=True)
    assert trades_of(list(reader)) == [t for text in texts for t in read_text(text).trades]
    assert [outcome.path for outcome in reader.outcomes] == [str(f) for f in files]
    assert [outcome.text_bytes for outcome in reader.outcomes] == [len(text) for text in texts]
    bad = [(str(files[i]), 2 + i % 3) for i in range(7, 1500, 100)]
    assert [(path, found[0].line) for path, found in reader.rejects] == bad


# --- the point of resumption


def test_older_rows_are_left_out_and_late_where_they_are_new(tmp_path: Path) -> None:
    lines = [b"%d 1 1 0\n" % (TS + ms) for ms in (5, 0, 9, 3, 2, 10, 1, 8)]
    lines[4] = lines[4].replace(b" 1 1", b"  1 1")
    text = b"".join(lines)
    path = str(write(tmp_path / "log", text))
    starts = [sum(map(len, lines[:i])) for i in range(len(lines) + 1)]
    for count, seen in enumerate([*starts, 1 << 62]):
        for window in (1, 1 << 18):
            reader = TradeLogReader(
                MARKET, [InputFile(path, 0, seen)], from_ts=TS + 5, window=window
            )
            assert [t[0] - TS for t in trades_of(list(reader))] == [5, 9, 10, 8]
            new = [ms for ms in (5, 0, 9, 3, 2, 10, 1, 8)[count:] if ms < 5]
            (outcome,) = reader.outcomes
            assert (outcome.trades, outcome.late) == (4, len(new))
            assert outcome.first_late_ts == (TS + min(new) if new else None)
            assert outcome.rejected == ()


# --- rejected rows


def test_rejects_hold_line_reason_and_raw_row(tmp_path: Path) -> None:
    text = b"\n" + rows(1) + b"a b\r\n" + b"1610064000000 0 1 0\n" + b"z" * 5000 + b"\n" + b"tail"
    path = str(write(tmp_path / "log", text))
    other = str(write(tmp_path / "other", b"?"))
    files = [InputFile(path), InputFile(other), InputFile(path)]
    expected = [
        RejectedRow(3, "fields", b"a b"),
        RejectedRow(4, "price", b"1610064000000 0 1 0"),
        RejectedRow(5, "fields", b"z" * 4096),
        RejectedRow(6, "fields", b"tail"),
    ]
    reader = TradeLogReader(MARKET, files, keep_rejects=True, window=50)
    assert len(trades_of(list(reader))) == 2
    assert reader.rejects == [
        FileRejects(path, expected),
        FileRejects(other, [RejectedRow(1, "fields", b"?")]),
        FileRejects(path, expected),
    ]
    assert reader.outcomes[0].rejected == (("fields", 3), ("price", 1))
    counting = TradeLogReader(MARKET, files)
    list(counting)
    assert counting.rejects == []
    assert counting.outcomes == reader.outcomes


def test_rejects_may_be_handed_over_as_they_are_found(tmp_path: Path) -> None:
    text = b"".join(b"bad %d\n" % i for i in range(5000))
    path = str(write(tmp_path / "log", text))
    taken: list[FileRejects] = []
    reader = TradeLogReader(MARKET, [InputFile(path)], on_rejects=taken.append, window=1000)
    assert list(reader) == []
    assert reader.rejects == []
    assert len(taken) > 1
    found = [row for part in taken for row in part.rows]
    assert found == [RejectedRow(i + 1, "fields", b"bad %d" % i) for i in range(5000)]


# --- files that cannot be read


def test_missing_and_unreadable_files_do_not_stop_the_others(tmp_path: Path) -> None:
    good = write(tmp_path / "good", rows(3))
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    paths = [str(tmp_path / name) for name in ("none.gz", "folder", "pipe", "good/x", "good")]
    reader = TradeLogReader(MARKET, [InputFile(path) for path in paths])
    assert len(trades_of(list(reader))) == 3
    assert [(o.read_path, o.error) for o in reader.outcomes] == [
        (None, "missing: neither it nor none"),
        (paths[1], "not a file: a folder"),
        (paths[2], "not a file: no regular file"),
        (paths[3], "NotADirectoryError: Not a directory"),
        (str(good), None),
    ]
    assert [(o.path, o.trades, o.damage) for o in reader.outcomes] == [
        (path, 3 if path == str(good) else 0, None) for path in paths
    ]


def test_file_without_permission_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "log.gz", squeezed(rows(3)))
    write(tmp_path / "log", rows(1))
    real = os.open

    def refusing(name: str, *rest: int) -> int:
        if name == str(path):
            raise PermissionError(13, "Permission denied", name)
        return real(name, *rest)

    monkeypatch.setattr(os, "open", refusing)
    trades, outcome = read_one(path)
    assert trades == []
    assert outcome.error == "PermissionError: Permission denied"
    assert outcome.read_path == str(path)


@pytest.mark.parametrize("packed", [False, True])
def test_failing_read_keeps_whole_rows_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    text = rows(20_000)
    data = squeezed(text) if packed else text
    path = write(tmp_path / "log", data)
    good = write(tmp_path / "good", rows(3))
    real = os.read
    reads = 0

    def failing(descriptor: int, count: int) -> bytes:
        nonlocal reads
        reads += 1
        if reads == 3:
            raise OSError(5, "Input/output error")
        return real(descriptor, count)

    monkeypatch.setattr(os, "read", failing)
    reader = TradeLogReader(MARKET, [InputFile(str(path)), InputFile(str(good))])
    trades = trades_of(list(reader))
    outcome = reader.outcomes[0]
    assert outcome.error == "OSError: Input/output error"
    had = unzip(data[: 2 << 16])[0] if packed else data[: 2 << 16]
    expected = read_text(had[: outcome.text_bytes])
    assert outcome.text_bytes > len(had) - 70_000
    assert trades[:-3] == expected.trades
    assert reader.outcomes[1].trades == 3


def test_twin_is_read_where_the_file_is_gone(tmp_path: Path) -> None:
    plain, packed = tmp_path / "2021-01-08-00", tmp_path / "2021-01-08-00.gz"
    assert (twin(str(plain)), twin(str(packed))) == (str(packed), str(plain))
    write(packed, squeezed(rows(3)))
    trades, outcome = read_one(plain)
    assert (len(trades), outcome.read_path, outcome.size) == (3, str(packed), packed.stat().st_size)
    write(plain, rows(4))
    assert len(read_one(plain)[0]) == 4
    assert len(read_one(packed)[0]) == 3
    packed.unlink()
    trades, outcome = read_one(packed)
    assert (len(trades), outcome.read_path) == (4, str(plain))


# --- damage


def test_empty_file_named_gz_is_damaged_and_a_plain_one_is_not(tmp_path: Path) -> None:
    assert read_one(write(tmp_path / "log.gz", b""))[1].damage == "empty: no gzip header"
    assert read_one(write(tmp_path / "log", b""))[1].damage is None


@pytest.mark.parametrize("level", [0, 1, 6])
def test_gzip_cut_at_any_byte_gives_every_whole_row_before(tmp_path: Path, level: int) -> None:
    data = squeezed(rows(20), level)
    for size in range(2, len(data)):
        trades, outcome = read_one(write(tmp_path / "log.gz", data[:size]))
        text, _ = unzip(data[:size])
        expected = read_text(text, torn=True)
        assert trades == expected.trades, size
        assert outcome.text_bytes == expected.text_bytes
        assert outcome.rejected == ()
        assert outcome.damage == (
            f"gzip damaged at byte {size}, after {len(text)} bytes of text: cut off"
        )


def test_gzip_with_any_bit_flipped_gives_every_whole_row_before(tmp_path: Path) -> None:
    text = rows(14)
    data = squeezed(text)
    for place in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[place >> 3] ^= 1 << (place & 7)
        if not flipped.startswith(b"\x1f\x8b"):
            continue
        trades, outcome = read_one(write(tmp_path / "log.gz", bytes(flipped)))
        had, _ = gunzip(bytes(flipped))
        expected = read_text(had, torn=True)
        if outcome.damage is None and trades == read_text(text).trades:
            continue
        assert trades == expected.trades, place
        assert sum(n for _, n in outcome.rejected) == len(expected.rejects)
        assert outcome.text_bytes == expected.text_bytes
        assert outcome.damage is not None, place


@pytest.mark.parametrize(
    ("after", "place"),
    [(b"x", 0), (b"\0\0x", 2), (b"\x1f", 0), (bytes(150_000) + b"\x1f?", 150_000)],
)
def test_other_bytes_after_the_last_member_are_told(
    tmp_path: Path, after: bytes, place: int
) -> None:
    data = squeezed(rows(7))
    trades, outcome = read_one(write(tmp_path / "log.gz", data + after))
    assert len(trades) == 7
    assert outcome.damage == f"trailing bytes at byte {len(data) + place}: no gzip member"


def test_wrong_checksum_keeps_the_rows_and_ends_the_file(tmp_path: Path) -> None:
    text = rows(3000) + b"1610064000000 1 1"
    data = bytearray(squeezed(text))
    data[-8] ^= 1
    trades, outcome = read_one(write(tmp_path / "log.gz", bytes(data) + squeezed(rows(3))))
    assert trades == read_text(text, torn=True).trades
    assert outcome.damage is not None
    assert outcome.damage.endswith(f"after {len(text)} bytes of text: incorrect data check")
    assert f"at byte {len(data) - 5}," in outcome.damage


def test_damage_in_a_later_member_keeps_all_before(tmp_path: Path) -> None:
    first, second = rows(3000), rows(9000, TS + 10_000)
    packed = squeezed(second)
    for size in (3, 11, 1000, len(packed) - 9, len(packed) - 1):
        data = squeezed(first[:-5]) + squeezed(first[-5:]) + packed[:size]
        trades, outcome = read_one(write(tmp_path / "log.gz", data))
        assert trades == read_text(unzip(data)[0], torn=True).trades
        assert len(trades) >= 3000
        assert outcome.damage is not None
        assert outcome.damage.startswith(f"gzip damaged at byte {len(data)}, ")


def test_damage_deep_in_a_large_file_keeps_all_before(tmp_path: Path) -> None:
    text = rows(60_000)
    packed = bytearray(squeezed(text))
    place = len(packed) // 2
    packed[place : place + 40] = bytes(40)
    trades, outcome = read_one(write(tmp_path / "log.gz", bytes(packed)))
    had, _ = unzip(bytes(packed))
    assert trades == read_text(had, torn=True).trades
    assert len(trades) > 25_000
    assert outcome.damage is not None


def test_next_file_is_read_after_a_damaged_one(tmp_path: Path) -> None:
    torn = write(tmp_path / "a", squeezed(rows(50))[:-40])
    good = write(tmp_path / "b", squeezed(rows(2)))
    reader = TradeLogReader(MARKET, [InputFile(str(torn)), InputFile(str(good))])
    trades = trades_of(list(reader))
    assert reader.outcomes[0].damage is not None
    assert reader.outcomes[1].damage is None
    assert trades[-2:] == read_text(rows(2)).trades
    assert [o.rejected for o in reader.outcomes] == [(), ()]


# --- size, cancelling, threads


@pytest.mark.parametrize("packed", [False, True])
def test_row_of_100_megabytes_is_skipped_without_being_held(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "log"
    piece = b"y" * (1 << 20)
    with gzip.open(path, "wb", 1) if packed else path.open("wb") as file:
        file.write(rows(2))
        for _ in range(100):
            file.write(piece)
        file.write(b"\n" + rows(3))
    read_one(write(tmp_path / "warm", rows(1)))
    tracemalloc.start()
    try:
        reader = TradeLogReader(MARKET, [InputFile(str(path))], keep_rejects=True)
        trades = trades_of(list(reader))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(trades) == 5
    assert reader.rejects == [FileRejects(str(path), [RejectedRow(3, "length", b"y" * 4096)])]
    assert reader.outcomes[0].text_bytes == len(rows(2) + rows(3)) + (100 << 20) + 1
    assert peak < 16 << 20


def test_cancelling_ends_the_iteration(tmp_path: Path) -> None:
    path = write(tmp_path / "log", rows(30_000))
    stop = threading.Event()
    reader = TradeLogReader(
        MARKET, [InputFile(str(path))], cancelled=stop.is_set, batch_trades=1000, window=1 << 14
    )
    batches = iter(reader)
    next(batches)
    stop.set()
    with pytest.raises(Cancelled, match="cancelled"):
        for _ in batches:
            pass


def test_descriptors_are_closed_whatever_happens(tmp_path: Path) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("counts /proc/self/fd")
    path = write(tmp_path / "log", rows(30_000))
    before = len(os.listdir("/proc/self/fd"))
    read_one(path)
    batches = iter(TradeLogReader(MARKET, [InputFile(str(path))], batch_trades=10, window=100))
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("options", [{"batch_trades": 0}, {"window": 0}])
def test_sizes_below_one_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected at least 1"):
        TradeLogReader(MARKET, [], **options)  # type: ignore[arg-type]


def test_no_files_give_nothing() -> None:
    reader = TradeLogReader(MARKET, [])
    assert (list(reader), reader.outcomes, reader.rejects) == ([], [], [])


# --- anything, split anyhow


texts = st.lists(
    st.one_of(
        st.integers(0, 40).map(rows),
        st.binary(max_size=60),
        st.sampled_from(
            [b"", b"\r\n", b"1610064000000 5e-7 1 0 1\n", b"bad\n", b" \n", b"\xef\xbb\xbf"]
        ),
    ),
    max_size=5,
).map(b"".join)


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(
    parts=st.lists(st.tuples(texts, st.integers(0, 3), st.integers(0, 3000)), max_size=5),
    window=st.sampled_from([1, 64, 1000, 1 << 18]),
    batch_trades=st.sampled_from([1, 7, 1000]),
    from_ts=st.sampled_from([None, TS + 3, TS + 20]),
)
def test_any_files_are_read_as_the_rules_say(
    tmp_path_factory: pytest.TempPathFactory,
    parts: list[tuple[bytes, int, int]],
    window: int,
    batch_trades: int,
    from_ts: int | None,
) -> None:
    folder = tmp_path_factory.getbasetemp()
    files, expected, torns = [], [], []
    for number, (text, how, seen) in enumerate(parts):
        data, torn = text, False
        if how or text.startswith(b"\x1f\x8b"):
            data = squeezed(text[:seen], 1) + squeezed(text[seen:], 1)
        if how == 3:
            data = data[: max(2, len(data) - seen % 60 - 1)]
            text, sound = unzip(data)
            torn = not sound
        path = write(folder / f"part{number}", data)
        files.append(InputFile(str(path), len(data), seen))
        torns.append(torn)
        expected.append(read_text(text, torn=torn, from_ts=from_ts, seen=seen))
    reader = TradeLogReader(
        MARKET, files, from_ts=from_ts, keep_rejects=True, batch_trades=batch_trades, window=window
    )
    batches = list(reader)
    assert all(len(batch) == batch_trades for batch in batches[:-1])
    assert repr(trades_of(batches)) == repr([t for e in expected for t in e.trades])
    assert len(reader.outcomes) == len(files)
    rejects = {path: [tuple(row) for row in found] for path, found in reader.rejects}
    for file, outcome, naive, torn in zip(files, reader.outcomes, expected, torns, strict=True):
        assert rejects.get(file.path, []) == naive.rejects
        assert (outcome.damage is not None) == torn
        found = (outcome.trades, outcome.text_bytes, outcome.late, outcome.first_late_ts)
        assert found == (len(naive.trades), naive.text_bytes, naive.late, naive.first_late_ts)


def pieces_of(data: bytes, path: Path) -> tuple[bytes, str | None]:
    descriptor = os.open(write(path, data), os.O_RDONLY)
    text = b""
    try:
        for piece in gzip_text.text_pieces(descriptor, len(data), "log"):
            text += piece
    except gzip_text.DamageError as damage:
        return text, str(damage)
    finally:
        os.close(descriptor)
    return text, None


def test_every_byte_before_damage_is_had_to_the_last_bit(tmp_path: Path) -> None:
    # Short codes, so that a byte of the file ends some symbols and holds all of a bad one.
    rng = random.Random(7)
    for _ in range(1500):
        text = bytes(rng.choice(b"ab\n") for _ in range(rng.randrange(200)))
        packer = zlib.compressobj(rng.choice([1, 9]), zlib.DEFLATED, 31, 8, rng.choice([0, 2, 4]))
        data = bytearray(packer.compress(text) + packer.flush())
        place = rng.randrange(16, 8 * len(data))
        data[place >> 3] ^= 1 << (place & 7)
        had, damage = pieces_of(bytes(data), tmp_path / "log")
        # Where a code is not as zlib wants it but the text still has its checksum, it is sound.
        assert (had, damage) == (text, None) or (had, damage is not None) == gunzip(bytes(data))


def test_pieces_are_never_empty_nor_too_long(tmp_path: Path) -> None:
    for data in (squeezed(bytes(1 << 22), 9), bytes(1 << 20), squeezed(bytes(1 << 22), 9)[:-1]):
        path = write(tmp_path / "log", data)
        descriptor = os.open(path, os.O_RDONLY)
        try:
            sizes: list[int] = []
            with suppress(gzip_text.DamageError):
                sizes.extend(map(len, gzip_text.text_pieces(descriptor, len(data), "log")))
        finally:
            os.close(descriptor)
        assert min(sizes) > 0
        assert max(sizes) <= gzip_text.PIECE
