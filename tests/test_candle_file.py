from __future__ import annotations

import re
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import candlebeam
from candlebeam.errors import FormatError, PriceScaleError, RangeError, UsageError
from candlebeam.formats.candles.companion import CandlePaths, Companion, Journal
from candlebeam.formats.candles.file import open_candles
from candlebeam.formats.candles.records import RECORD_DTYPE, encode_candles
from candlebeam.model import BLOCK_DTYPE, CandleBlock, Market
from candlebeam.rules.candles import aggregate, fill_gaps
from candlebeam.rules.price_scale import PriceScale
from tests.candle_pairs import companion_of, some_records, write_pair
from tests.trade_batches import MIDNIGHT, MINUTE, Row, batch

# Records


def test_record_is_56_little_endian_bytes_in_the_order_of_the_specification() -> None:
    assert RECORD_DTYPE.itemsize == 56
    assert RECORD_DTYPE.names == (
        "open", "high", "low", "close", "buy_volume", "sell_volume", "buy_count", "sell_count",
        "buy_liquidation", "sell_liquidation",
    )  # fmt: skip
    values = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
    assert np.array([values], RECORD_DTYPE).tobytes() == struct.pack("<4i2q2I2q", *values)


def candle_block(*rows: Row) -> CandleBlock:
    return aggregate(batch(rows), MINUTE)


def test_candles_encode_at_their_places_with_gaps_as_zero_bytes() -> None:
    block = candle_block(
        Row(MIDNIGHT, 1.5, 2.0, 1),
        Row(MIDNIGHT + 59_999, 1.25, 2.0, 0),
        Row(MIDNIGHT + 180_000, 3.0, 1.0, 0, 1),
        Row(MIDNIGHT + 180_000, 2.0, 0.5, 0),
    )
    records, exact = encode_candles(block, PriceScale(4))
    assert exact
    assert records.tolist() == [
        (15000, 15000, 12500, 12500, 3_000_000, 2_500_000, 1, 1, 0, 0),
        (0,) * 10,
        (0,) * 10,
        (20000, 20000, 20000, 20000, 0, 1_000_000, 0, 1, 0, 3_000_000),
    ]
    filled, _ = encode_candles(fill_gaps(block), PriceScale(4))
    assert filled.tobytes() == records.tobytes()


def test_liquidations_alone_have_zero_prices() -> None:
    records, exact = encode_candles(candle_block(Row(MIDNIGHT, 2.0, 1.0, 1, 1)), PriceScale(4))
    assert (records.tolist(), exact) == ([(0, 0, 0, 0, 0, 0, 0, 0, 2_000_000, 0)], True)


def test_no_candles_encode_to_no_records() -> None:
    records, exact = encode_candles(candle_block(), PriceScale(4))
    assert (len(records), records.dtype, exact) == (0, RECORD_DTYPE, True)


@pytest.mark.parametrize("name", ["buy_count", "sell_count"])
def test_largest_count_fits_and_one_more_does_not(name: str) -> None:
    block = candle_block(Row(MIDNIGHT, 2.0), Row(MIDNIGHT + 60_000, 2.0))
    block.candles[name][1] = 2**32 - 1
    assert encode_candles(block, PriceScale(4))[0][name].tolist()[1] == 2**32 - 1
    block.candles[name][1] = 2**32
    with pytest.raises(RangeError, match=r"RAM/BINANCE/btcusdt: .*00:01:00.* fit in 32 bits"):
        encode_candles(block, PriceScale(4))


@pytest.mark.parametrize("name", RECORD_DTYPE.names[4:])  # type: ignore[index]
def test_sums_keep_all_their_bits(name: str) -> None:
    largest = 2**32 - 1 if name.endswith("count") else 2**63 - 1
    block = candle_block(Row(MIDNIGHT, 2.0))
    block.candles[name] = largest
    (record,) = encode_candles(block, PriceScale(4))[0]
    assert record[name] == largest
    others = {"buy_count", "buy_volume"} - {name}
    assert [n for n in RECORD_DTYPE.names[4:] if record[n] and n != name] == sorted(  # type: ignore[index]
        others, reverse=True
    )


def test_price_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(PriceScaleError, match=r"price 3000000000\.0 .* at price scale 10000"):
        encode_candles(candle_block(Row(MIDNIGHT, 3e9)), PriceScale(4))


def test_only_prices_of_closed_candles_count_as_exact_or_not() -> None:
    block = candle_block(Row(MIDNIGHT, 2.0), Row(MIDNIGHT + 60_000, 2.00001))
    assert [encode_candles(block, PriceScale(4), closed)[1] for closed in (None, 2, 1, 0)] == [
        False, False, True, True,
    ]  # fmt: skip


def test_candles_to_encode_may_be_read_only_and_at_odd_addresses() -> None:
    block = candle_block(Row(MIDNIGHT, 2.0), Row(MIDNIGHT + 60_000, 2.5))
    odd = np.frombuffer(b"-" + block.candles.tobytes(), BLOCK_DTYPE, offset=1)
    expected = encode_candles(block, PriceScale(4))[0].tobytes()
    assert encode_candles(replace(block, candles=odd), PriceScale(4))[0].tobytes() == expected


# Opening


def test_hidden_files_of_a_market_are_its_own() -> None:
    paths = CandlePaths.of("out", Market("RAM", "X", "a/b"))
    assert (paths.records, paths.companion) == ("out/RAM/X/a%2Fb.bin", "out/RAM/X/a%2Fb.json")
    hidden = {paths.journal, *paths.unfinished}
    assert len(hidden) == 4
    assert all(path.startswith("out/RAM/X/.a%2Fb.") for path in hidden)


@pytest.mark.parametrize("suffix", [".bin", ".json"])
def test_opens_by_either_of_its_names(tmp_path: Path, suffix: str) -> None:
    records = some_records(3)
    stem = write_pair(tmp_path, companion_of(3), records).stem
    for path in (stem + suffix, Path(stem + suffix)):
        found = candlebeam.open_candles(path)
        assert isinstance(found, candlebeam.Candles)
        assert len(found) == 3
        assert found.companion == companion_of(3)
        assert found.records.tobytes() == records.tobytes()
        assert found.records.high[1] == records["high"][1]


def test_mapped_records_cannot_be_written(tmp_path: Path) -> None:
    found = open_candles(write_pair(tmp_path, companion_of(3), some_records(3)).records)
    with pytest.raises(ValueError, match="read-only"):
        found.records["open"][0] = 1


def test_what_stands_behind_the_last_candle_is_not_seen(tmp_path: Path) -> None:
    records = some_records(4)
    found = open_candles(write_pair(tmp_path, companion_of(3), records).records)
    assert found.records.tobytes() == records[:3].tobytes()


@pytest.mark.parametrize("size", [0, 1, 56, 167])
def test_shorter_than_its_companion_says_is_an_error(tmp_path: Path, size: int) -> None:
    paths = write_pair(tmp_path, companion_of(3), some_records(3))
    Path(paths.records).write_bytes(bytes(size))
    message = f"{paths.records}: expected 168 bytes, as its companion says, found {size}"
    with pytest.raises(FormatError, match=f"^{re.escape(message)}$"):
        open_candles(paths.records)


def test_file_of_no_candles_opens(tmp_path: Path) -> None:
    found = open_candles(write_pair(tmp_path, companion_of(0, state=None), some_records(0)).records)
    assert len(found) == len(found.times()) == found.to_arrow().num_rows == 0


def test_other_suffix_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match=r"x\.csv: expected the \.bin or the \.json of a candle"):
        open_candles("x.csv")


def test_missing_half_of_a_pair_is_named(tmp_path: Path) -> None:
    paths = write_pair(tmp_path, companion_of(3), some_records(3))
    Path(paths.records).unlink()
    with pytest.raises(FileNotFoundError, match=r"btcusdt\.bin"):
        open_candles(paths.companion)
    Path(paths.companion).unlink()
    with pytest.raises(
        FileNotFoundError, match=r"btcusdt\.json: no such file; a candle file needs"
    ):
        open_candles(paths.records)


def test_journal_with_a_tail_is_read_as_carried_out(tmp_path: Path) -> None:
    old, new = some_records(4, 1), some_records(4, 2)
    paths = write_pair(tmp_path, companion_of(3), np.concatenate([old[:3], new[3:]]))
    journal = Journal(companion_of(4), new[2:3].tobytes(), 2 * 56)
    Path(paths.journal).write_bytes(journal.encode())
    found = open_candles(paths.records)
    assert found.companion == journal.companion
    assert found.records.tobytes() == np.concatenate([old[:2], new[2:]]).tobytes()
    assert Path(paths.records).read_bytes()[:168] == old[:3].tobytes()


@pytest.mark.parametrize("renamed", [False, True])
def test_journal_that_replaces_is_read_as_carried_out(tmp_path: Path, renamed: bool) -> None:
    old, new = some_records(3, 1), some_records(2, 2)
    paths = write_pair(tmp_path, companion_of(3), old)
    journal = Journal(companion_of(2, PriceScale(6)), replaces=True)
    Path(paths.journal).write_bytes(journal.encode())
    Path(paths.records if renamed else paths.replacement).write_bytes(new.tobytes())
    found = open_candles(paths.companion)
    assert found.companion == journal.companion
    assert found.records.tobytes() == new.tobytes()


def test_damaged_journal_is_an_error(tmp_path: Path) -> None:
    paths = write_pair(tmp_path, companion_of(3), some_records(3))
    Path(paths.journal).write_bytes(b"{")
    with pytest.raises(FormatError, match=r"\.btcusdt\.journal: expected a commit journal"):
        open_candles(paths.records)


def test_pair_that_changes_while_it_is_opened_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole commit between reading the companion and mapping the candles."""
    old, new = some_records(3, 1), some_records(2, 2)
    paths = write_pair(tmp_path, companion_of(3), old)
    original = Companion.decode
    changes = iter([companion_of(2, PriceScale(6))])

    def decode(data: bytes, path: str) -> Companion:
        found = original(data, path)
        for changed in changes:
            write_pair(tmp_path, changed, new)
        return found

    monkeypatch.setattr(Companion, "decode", decode)
    found = open_candles(paths.records)
    assert found.companion == companion_of(2, PriceScale(6))
    assert found.records.tobytes() == new.tobytes()


# Using


def opened(folder: Path, *rows: Row, scale: int = 4) -> candlebeam.Candles:
    records, _ = encode_candles(candle_block(*rows), PriceScale(scale))
    companion = companion_of(len(records), PriceScale(scale))
    return open_candles(write_pair(folder, companion, records).records)


@pytest.mark.parametrize(
    ("start", "end", "places"),
    [
        (None, None, (0, 5)),
        (MIDNIGHT, MIDNIGHT + 300_000, (0, 5)),
        (0, 2**60, (0, 5)),
        (MIDNIGHT + 60_000, None, (1, 5)),
        (MIDNIGHT + 60_001, None, (2, 5)),
        (MIDNIGHT + 59_999, None, (1, 5)),
        (None, MIDNIGHT + 60_000, (0, 1)),
        (None, MIDNIGHT + 60_001, (0, 2)),
        (None, MIDNIGHT, (0, 0)),
        (None, -(2**60), (0, 0)),
        (MIDNIGHT + 300_000, None, (5, 5)),
    ],
)
def test_between_starts_at_or_after_and_ends_before(
    tmp_path: Path, start: int | None, end: int | None, places: tuple[int, int]
) -> None:
    found = open_candles(write_pair(tmp_path, companion_of(5), some_records(5)).records)
    assert found.between(start, end) == slice(*places)


def test_times_are_the_starts_of_the_candles(tmp_path: Path) -> None:
    found = open_candles(write_pair(tmp_path, companion_of(2), some_records(2)).records)
    assert found.times().astype(str).tolist() == [
        "2024-03-01T00:00:00.000",
        "2024-03-01T00:01:00.000",
    ]


def test_arrow_table_has_real_prices_and_nulls_where_there_are_none(tmp_path: Path) -> None:
    table = opened(
        tmp_path,
        Row(MIDNIGHT, 1.1, 2.0),
        Row(MIDNIGHT + 120_000, 4.0, 0.5, 0, 1),
        Row(MIDNIGHT + 180_000, 0.00001, 1.0, 0),
    ).to_arrow()
    assert [str(field.type) for field in table.schema] == [
        "timestamp[ms, tz=UTC]", *["double"] * 6, *["uint32"] * 2, *["double"] * 2,
    ]  # fmt: skip
    columns = table.to_pydict()
    assert [time.isoformat() for time in columns["time"]] == [
        f"2024-03-01T00:0{minute}:00+00:00" for minute in range(4)
    ]
    for name in ("open", "high", "low", "close"):
        assert columns[name] == [1.1, None, None, 0.0]
    assert columns["buy_volume"] == [2.2, 0.0, 0.0, 0.0]
    assert columns["sell_volume"] == [0.0, 0.0, 0.0, 0.00001]
    assert columns["buy_count"] == [1, 0, 0, 0]
    assert columns["sell_count"] == [0, 0, 0, 1]
    assert columns["sell_liquidation"] == [0.0, 0.0, 2.0, 0.0]


def test_arrow_table_of_a_part(tmp_path: Path) -> None:
    rows = [Row(MIDNIGHT + n * 60_000, n + 1.5) for n in range(6)]
    found = opened(tmp_path, *rows, scale=6)
    assert found.to_arrow(slice(2, 4))["close"].to_pylist() == [3.5, 4.5]
    assert found.to_arrow(slice(None, None, 3))["close"].to_pylist() == [1.5, 4.5]
    assert found.to_arrow(slice(4, 4)).num_rows == 0
    times = found.to_arrow(slice(5, 6))["time"].to_pylist()
    assert [time.minute for time in times] == [5]


def test_pandas_frame_is_indexed_by_time(tmp_path: Path) -> None:
    rows = [Row(MIDNIGHT, 2.5), Row(MIDNIGHT + 120_000, 3.5, 2.0, 0)]
    frame = opened(tmp_path, *rows).to_pandas()
    assert str(frame.index.tz) == "UTC"  # type: ignore[attr-defined]
    assert frame.index.name == "time"
    assert frame["close"].tolist()[::2] == [2.5, 3.5]
    assert frame["close"].isna().tolist() == [False, True, False]
    assert frame["sell_volume"].sum() == 7.0


def test_prices_at_a_scale_below_one(tmp_path: Path) -> None:
    found = opened(tmp_path, Row(MIDNIGHT, 3e12), scale=-4)
    assert found.records["open"].tolist() == [300_000_000]
    assert found.to_arrow()["open"].to_pylist() == [3e12]
