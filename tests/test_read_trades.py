"""The transforms from manifests to trades, each alone, on a few literal elements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

from candlebeam.io.cancellation import cancel
from candlebeam.io.read_trades import FindStaged, ListShards, ReadTrades, ShardPart
from candlebeam.io.staging import ChunkRef, ShardRef, Staging
from candlebeam.model import Market, TradeBatch
from candlebeam.rules.candles import empty_candles
from tests.in_process import assert_makes, pipeline
from tests.staged_shards import outcomes_of, text_of, write_manifest, write_shards
from tests.trade_batches import MARKET, MIDNIGHT, Row, rows_of

ROWS = [Row(MIDNIGHT + n * 20_000, n + 1.0, 2.0, n % 2) for n in range(9)]
OTHER = Market("PI", "KRAKEN", "XBT-USDT")
REJECTED = (("fields", 1),)


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    found = Staging(str(tmp_path / "staging"))
    found.prepare()
    return found


# ListShards and FindStaged


def test_list_shards_gives_the_shards_of_every_manifest(tmp_path: Path) -> None:
    expected: list[ShardRef] = []
    manifests = []
    for name in ("one", "other"):
        market = Market("RAM", "X", name)
        planned = write_shards(tmp_path, [[text_of(ROWS)], [b""]], market)
        manifest, refs = write_manifest(Staging(str(tmp_path / f"s-{name}")), planned)
        manifests.append(manifest)
        expected += refs
    assert len(expected) == 4
    assert_makes(ListShards(), manifests, expected)


def found_staged(staging: Staging, refs: list[ShardRef], to_read: Any, staged: Any) -> None:
    with pipeline() as running:
        found = running | beam.Create(refs) | FindStaged(staging=staging.path)
        assert_that(found.to_read, equal_to(to_read), label="CheckToRead")
        assert_that(found.staged, equal_to(staged), label="CheckStaged")


def test_find_staged_tells_finished_shards_from_others(tmp_path: Path, staging: Staging) -> None:
    planned = write_shards(tmp_path, [[text_of(ROWS)]] * 3)
    _, refs = write_manifest(staging, planned)
    shard = planned[1][1]
    staging.write_chunk(MARKET, shard.name, outcomes_of(shard), empty_candles())
    chunk = ChunkRef(refs[1], 1, shard.name, reused=True)
    found_staged(staging, refs, [refs[0], refs[2]], [(MARKET, chunk)])


def test_find_staged_reads_a_shard_again_whose_input_has_changed(
    tmp_path: Path, staging: Staging
) -> None:
    planned = write_shards(tmp_path, [[text_of(ROWS)]])
    _, refs = write_manifest(staging, planned)
    (shard,) = planned[1]
    staging.write_chunk(MARKET, shard.name, outcomes_of(shard), empty_candles())
    Path(shard.files[0].path).write_bytes(text_of(ROWS[:3]))
    found_staged(staging, refs, refs, [])


# ReadTrades


def part_and_rows(element: tuple[ShardPart, TradeBatch]) -> Any:
    part, trades = element
    files = None if part.files is None else [(f.path, f.trades, f.rejected) for f in part.files]
    return part.shard, part.market, part.ordinal, part.name, part.part, files, rows_of(trades)


def test_read_trades_gives_each_shard_in_parts_and_the_last_says_how_it_went(
    tmp_path: Path, staging: Staging
) -> None:
    one = write_shards(tmp_path, [[text_of(ROWS[:4]), text_of(ROWS[4:])]])
    other = write_shards(tmp_path, [[b"bad row\n" + text_of(ROWS[:2])], [b""]], OTHER)
    _, refs = write_manifest(staging, one, other)
    paths = [[file.path for file in shard.files] for _, shards in (one, other) for shard in shards]
    expected = [
        (refs[0], MARKET, 0, "btcusdt-0", 0, None, ROWS),
        (refs[0], MARKET, 0, "btcusdt-0", 1, [(paths[0][0], 4, ()), (paths[0][1], 5, ())], []),
        (refs[1], OTHER, 0, "XBT-USDT-0", 0, None, ROWS[:2]),
        (refs[1], OTHER, 0, "XBT-USDT-0", 1, [(paths[1][0], 2, REJECTED)], []),
        (refs[2], OTHER, 1, "XBT-USDT-1", 0, [(paths[2][0], 0, ())], []),
    ]
    with pipeline() as running:
        parts = running | beam.Create(refs) | ReadTrades()
        assert_that(parts | beam.Map(part_and_rows), equal_to(expected))


def test_read_trades_goes_on_without_a_file_that_is_not_there(
    tmp_path: Path, staging: Staging
) -> None:
    planned = write_shards(tmp_path, [[text_of(ROWS[:4]), text_of(ROWS[4:])]])
    _, refs = write_manifest(staging, planned)
    Path(planned[1][0].files[0].path).unlink()
    with pipeline() as running:
        parts = running | beam.Create(refs) | ReadTrades()
        errors = (
            parts
            | beam.FlatMap(lambda element: element[0].files or ())
            | beam.Map(lambda file: (file.trades, file.read_path is None, bool(file.error)))
        )
        assert_that(errors, equal_to([(0, True, True), (5, False, False)]))


def test_read_trades_keeps_rejected_rows_in_a_folder(tmp_path: Path, staging: Staging) -> None:
    planned = write_shards(tmp_path, [[text_of(ROWS[:1]) + b"bad row\n"]])
    _, refs = write_manifest(staging, planned)
    rejects = tmp_path / "rejects"
    with pipeline() as running:
        _ = running | beam.Create(refs) | ReadTrades(rejects=str(rejects))
    (kept,) = (rejects / MARKET.path).iterdir()
    path = planned[1][0].files[0].path
    assert kept.name.startswith("0-0.")
    assert kept.read_bytes() == f"{path}\t2\tfields\tbad row\n".encode()


def test_read_trades_says_of_a_shard_that_its_rejected_rows_cannot_be_kept(
    tmp_path: Path, staging: Staging
) -> None:
    planned = write_shards(tmp_path, [[b"bad row\n"]])
    _, refs = write_manifest(staging, planned)
    (tmp_path / "file").touch()
    with pipeline() as running:
        parts = running | beam.Create(refs) | ReadTrades(rejects=str(tmp_path / "file"))
        assert_that(
            parts | beam.Map(lambda element: element[0].error.startswith("cannot write")),
            equal_to([True]),
        )


def test_read_trades_stops_when_its_run_is_cancelled(tmp_path: Path, staging: Staging) -> None:
    _, refs = write_manifest(staging, write_shards(tmp_path, [[text_of(ROWS)]]))
    cancel("a-run-to-cancel")
    with pytest.raises(Exception, match="reading of trade logs was cancelled"):
        assert_makes(ReadTrades(run="a-run-to-cancel"), refs, [])
    assert_makes(ReadTrades(run="another-run") | beam.Map(type), refs, [tuple, tuple])
