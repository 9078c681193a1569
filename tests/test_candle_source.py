"""Candle files as sources of bars."""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from candlebeam.errors import FormatError
from candlebeam.formats import mapped
from candlebeam.formats.bar_source import BarSource
from candlebeam.formats.candles import source as candle_source
from candlebeam.formats.candles.companion import CandlePaths, Journal
from candlebeam.formats.candles.records import RECORD_DTYPE
from candlebeam.formats.candles.source import CandleSource
from candlebeam.model import Records
from candlebeam.rules.price_scale import PriceScale
from tests.aligned_bars import Bar, rows_of
from tests.candle_pairs import SCALE, STATE, companion_of, some_records, write_pair
from tests.trade_batches import MARKET, MIDNIGHT, MINUTE


def expected_rows(records: Records, scale: PriceScale) -> list[Bar]:
    """What the candles mean, one by one."""
    rows: list[Bar] = []
    for place, record in enumerate(records):
        ts = MIDNIGHT + place * MINUTE.ms
        stored = [int(record[name]) for name in ("open", "high", "low", "close")]
        if not record["buy_count"] and not record["sell_count"] and not record["high"]:
            rows.append((ts, math.nan, math.nan, math.nan, math.nan, 0.0))
            continue
        power = 10.0 ** abs(scale.decimals)
        prices = [price / power if scale.decimals >= 0 else price * power for price in stored]
        volume = int(record["buy_volume"]) + int(record["sell_volume"])
        rows.append((ts, *prices, volume / 1_000_000))  # type: ignore[arg-type]
    return rows


def all_rows(source: BarSource, begin: int = 0) -> list[Bar]:
    return [row for piece in source.pieces(begin) for row in rows_of(piece.bars)]


def candles_at(folder: Path, records: Records, scale: PriceScale = SCALE) -> CandleSource:
    companion = companion_of(len(records), scale, STATE if len(records) else None)
    return CandleSource(write_pair(folder, companion, records).records)


def test_candles_are_bars_of_real_prices_and_quote_volume(tmp_path: Path) -> None:
    records = some_records(9)
    records[3:5] = np.zeros(2, RECORD_DTYPE)
    source: BarSource = candles_at(tmp_path, records)
    assert source.path == str(tmp_path / f"{MARKET.path}.bin")
    assert (source.market, source.timeframe) == (MARKET, MINUTE)
    assert (source.record_bytes, source.closed) == (56, 8)
    assert str(all_rows(source)) == str(expected_rows(records, SCALE))
    assert str(all_rows(source, 7)) == str(expected_rows(records, SCALE)[7:])
    assert list(source.pieces(9)) == []


def test_liquidations_alone_are_a_gap(tmp_path: Path) -> None:
    records = np.zeros(2, RECORD_DTYPE)
    records["buy_liquidation"] = 5
    assert all(
        math.isnan(row[1]) and row[5] == 0 for row in all_rows(candles_at(tmp_path, records))
    )


def test_price_that_was_rounded_to_zero_is_no_gap(tmp_path: Path) -> None:
    records = np.zeros(2, RECORD_DTYPE)
    records["sell_count"] = 1
    assert [row[1:5] for row in all_rows(candles_at(tmp_path, records))] == [(0.0,) * 4] * 2


@pytest.mark.parametrize("volumes", [((1 << 62) + 1, 1 << 62), ((1 << 63) - 1, (1 << 63) - 1)])
def test_volumes_whose_sum_is_over_64_bits(tmp_path: Path, volumes: tuple[int, int]) -> None:
    records = some_records(2)
    records["buy_volume"], records["sell_volume"] = volumes
    assert all_rows(candles_at(tmp_path, records))[0][5] == sum(volumes) / 1_000_000


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(min_size=56, max_size=56), min_size=1, max_size=6), st.integers(-4, 12))
def test_any_record_gives_what_it_means(
    tmp_path_factory: pytest.TempPathFactory, stored: list[bytes], decimals: int
) -> None:
    records = np.frombuffer(b"".join(stored), RECORD_DTYPE).copy()
    scale = PriceScale(decimals)
    source = candles_at(tmp_path_factory.mktemp("candles"), records, scale)
    assert str(all_rows(source)) == str(expected_rows(records, scale))


def test_source_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candle_source, "PIECE_BARS", 4)
    source = candles_at(tmp_path, some_records(9))
    assert [(p.begin, len(p.bars)) for p in source.pieces(2)] == [(2, 4), (6, 3)]
    assert all_rows(source) == expected_rows(some_records(9), SCALE)


@pytest.mark.parametrize("window", [1, 56, 4096, 10_000, 1 << 30])
def test_checksum_is_that_of_the_bytes_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    monkeypatch.setattr(mapped, "_WINDOW", window)
    records = some_records(1000)
    source = candles_at(tmp_path, records)
    for end in (0, 1, 999, 1000):
        assert source.checksum(end) == zlib.crc32(records[:end].tobytes())
    assert source.checksum(1001) == -1
    assert all_rows(source) == expected_rows(records, SCALE)


def test_journal_is_read_as_carried_out_however_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it changes is in memory alone, which must not be let go."""
    monkeypatch.setattr(mapped, "_WINDOW", 4096)
    records, tail = some_records(1000), some_records(1000, 2)[-1:]
    paths = write_pair(tmp_path, companion_of(1000), records)
    journal = Journal(companion_of(1000), tail.tobytes(), 999 * 56)
    Path(paths.journal).write_bytes(journal.encode())
    source = CandleSource(paths.companion)
    for _ in range(2):
        *_, last = all_rows(source)
        assert last[1:] == expected_rows(tail, SCALE)[0][1:]
        assert source.checksum(1000) == zlib.crc32(records[:-1].tobytes() + tail.tobytes())


def test_places_of_times(tmp_path: Path) -> None:
    source = candles_at(tmp_path, some_records(5))
    found = [source.place_of(MIDNIGHT + ms) for ms in (-1, 0, 1, 60_000, 240_001, 10**12)]
    assert found == [0, 0, 1, 1, 5, 5]


def test_no_candles_are_no_bars(tmp_path: Path) -> None:
    source = candles_at(tmp_path, some_records(0))
    assert (len(source), source.closed, all_rows(source)) == (0, 0, [])
    assert source.checksum(0) == 0


def test_short_file_is_an_error(tmp_path: Path) -> None:
    paths: CandlePaths = write_pair(tmp_path, companion_of(5), some_records(4))
    with pytest.raises(FormatError, match="expected 280 bytes, as its companion says, found 224"):
        CandleSource(paths.records)
