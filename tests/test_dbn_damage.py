"""Databento files that are cut off or damaged: every whole record before it, and what it was."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.dbn_data import encode_head, write_dbn_trades
from candlebeam.formats.dbn import ahead as dbn_ahead
from candlebeam.formats.dbn.reader import DbnReader, WantedMarket
from candlebeam.formats.dbn.stream import DbnStream
from candlebeam.model import FileOutcome, Market
from tests.dbn_files import ONE, record, trade, write_dbn

ABC = Market("DATABENTO", "XNAS.ITCH", "ABC")
WANTED = {"ABC": WantedMarket(ABC)}
RECORDS = [trade(n * 10**6, (100 + n % 7) * 10**9, n + 1) for n in range(2_000)]
HEAD = encode_head(ONE, days=100)
WHOLE = HEAD + b"".join(RECORDS)
RECORD = len(RECORDS[0])


def sizes_of(path: Path) -> tuple[list[float], FileOutcome]:
    """The sizes of the trades, which number them, and what became of the file."""
    reader = DbnReader(str(path), WANTED)
    sizes = [size for batch in reader for size in batch.size.tolist()]
    return sizes, reader.outcomes[ABC]


def decodable(data: bytes) -> bytes:
    """What a decompressor gives of the front of a zstd stream, fed byte by byte."""
    whole = b""
    while data:
        decompressor = zstandard.ZstdDecompressor().decompressobj()
        for place in range(len(data)):
            try:
                whole += decompressor.decompress(data[place : place + 1])
            except zstandard.ZstdError:
                return whole
            if decompressor.eof:
                data = data[place + 1 :]
                break
        else:
            return whole
    return whole


def expect(path: Path, text: bytes, damage: str | None) -> None:
    """Every whole record of `text` is there, and the damage is told."""
    sizes, outcome = sizes_of(path)
    count = max(len(text) - len(HEAD), 0) // RECORD
    assert sizes == [float(n + 1) for n in range(count)]
    assert outcome.trades == count
    assert outcome.error is None
    if damage is None:
        assert outcome.damage is None
    else:
        assert outcome.damage is not None
        assert damage in outcome.damage
    if count:
        assert outcome.text_bytes == len(HEAD) + count * RECORD


@pytest.mark.parametrize("part", range(50))
def test_plain_file_cut_off_gives_every_whole_record(tmp_path: Path, part: int) -> None:
    path = tmp_path / "x.dbn"
    text = WHOLE[: len(WHOLE) * part // 50 + part]
    path.write_bytes(text)
    loose = (len(text) - len(HEAD)) % RECORD
    whole = f"cut off: its last record has {loose} bytes" if loose else None
    if len(text) < len(HEAD):
        whole = "expected"
    expect(path, text, whole)


@pytest.mark.parametrize("part", range(50))
@pytest.mark.parametrize("checksum", [False, True])
def test_zstd_file_cut_off_gives_every_record_that_can_be_decompressed(
    tmp_path: Path, part: int, checksum: bool
) -> None:
    path = tmp_path / "x.dbn.zst"
    packed = _blocks(WHOLE, checksum)
    data = packed[: len(packed) * part // 50]
    path.write_bytes(data)
    text = decodable(data)
    damage = "" if len(text) < len(HEAD) else f"goes on behind the end at byte {len(data)}"
    expect(path, text, damage)


def _blocks(text: bytes, checksum: bool = False) -> bytes:
    """One zstd frame of blocks of 1,000 bytes, so that a cut leaves most of them."""
    packer = zstandard.ZstdCompressor(write_checksum=checksum).compressobj()
    packed = b""
    for begin in range(0, len(text), 1_000):
        packed += packer.compress(text[begin : begin + 1_000])
        packed += packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    return packed + packer.flush()


@pytest.mark.parametrize("piece", [1 << 21, 1 << 10, 64])
def test_block_that_is_damaged_costs_only_what_stands_behind_it(tmp_path: Path, piece: int) -> None:
    path = tmp_path / "x.dbn.zst"
    packed = bytearray(_blocks(WHOLE))
    place = len(packed) // 2
    packed[place : place + 400] = b"\xff" * 400
    path.write_bytes(packed)
    text = decodable(bytes(packed))
    assert len(HEAD) < len(text) < len(WHOLE)
    with mock.patch.object(dbn_ahead, "PIECE", piece):
        expect(path, text, f"damaged zstd data after {len(text)} bytes: ")


@given(st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_file_with_other_bytes_gives_what_stands_before_them(
    tmp_path: Path, data: st.DataObject
) -> None:
    packed = bytearray(_blocks(WHOLE[: len(HEAD) + 100 * RECORD]))
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "x.dbn.zst"
    path.write_bytes(packed)
    text = decodable(bytes(packed)) if packed[:4] == b"\x28\xb5\x2f\xfd" else b""
    with DbnStream(str(path)) as stream:
        given = stream.read(1 << 20)
        damage = stream.damage
    if stream.compressed:
        assert given == text
        assert (damage is None) == _is_whole(bytes(packed))
    sizes_of(path)


def _is_whole(packed: bytes) -> bool:
    while packed:
        decompressor = zstandard.ZstdDecompressor().decompressobj()
        try:
            decompressor.decompress(packed)
        except zstandard.ZstdError:
            return False
        if not decompressor.eof:
            return False
        packed = decompressor.unused_data
    return True


def test_frames_one_after_the_other_are_one_stream(tmp_path: Path) -> None:
    path = tmp_path / "x.dbn.zst"
    pack = zstandard.ZstdCompressor().compress
    skippable = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"extra"
    half = len(WHOLE) // 2 + 5
    path.write_bytes(pack(WHOLE[:half]) + skippable + pack(WHOLE[half:]))
    expect(path, WHOLE, None)
    path.write_bytes(pack(WHOLE[:half]) + skippable[:-1])
    expect(path, WHOLE[:half], "goes on behind the end")
    path.write_bytes(pack(WHOLE) + b"garbage")
    expect(path, WHOLE, f"damaged zstd data after {len(WHOLE)} bytes: ")


@pytest.mark.parametrize("wrong", [b"\0", b"\xff", b"\x0d"])
@pytest.mark.parametrize("piece", [1 << 21, 64])
def test_garbage_between_records_ends_the_file_there(
    tmp_path: Path, wrong: bytes, piece: int
) -> None:
    path = tmp_path / "x.dbn"
    text = bytearray(WHOLE)
    place = len(HEAD) + 700 * RECORD
    text[place : place + 30] = wrong * 30
    path.write_bytes(text)
    with mock.patch.object(dbn_ahead, "PIECE", piece):
        expect(path, WHOLE[:place], f"no record of this file at byte {place} of its decompressed")


def test_record_of_another_schema_is_no_record_of_the_file(tmp_path: Path) -> None:
    other = trade(5, kind="mbo")
    path = Path(write_dbn(tmp_path / "x", [*RECORDS[:3], other, *RECORDS[3:]]))
    expect(path, WHOLE[: len(HEAD) + 3 * RECORD], "56 bytes of type 160")


def test_messages_of_the_gateway_between_records_are_no_damage(tmp_path: Path) -> None:
    path = Path(write_dbn(tmp_path / "x", [RECORDS[0], record("system"), *RECORDS[1:3]]))
    sizes, outcome = sizes_of(path)
    assert sizes == [1.0, 2.0, 3.0]
    assert outcome.damage is None


def test_trades_of_many_markets_before_damage_are_all_there(tmp_path: Path) -> None:
    path = tmp_path / "x.dbn.zst"
    write_dbn_trades(path, 30_000, instruments=200, seed=3, days=2)
    packed = path.read_bytes()
    whole = sum(map(len, DbnReader(str(path))))
    assert whole == 30_000
    path.write_bytes(packed[: len(packed) * 2 // 3])
    with DbnStream(str(path)) as stream:
        text = stream.read(1 << 24)
    head = 8 + int.from_bytes(text[4:8], "little")
    reader = DbnReader(str(path))
    assert sum(map(len, reader)) == (len(text) - head) // RECORD
    assert len({outcome.damage for outcome in reader.outcomes.values()}) == 1
    assert sum(outcome.trades for outcome in reader.outcomes.values()) > 10_000
