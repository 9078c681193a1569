from __future__ import annotations

import gzip
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlebeam.errors import FormatError
from candlebeam.formats.chunk_file import open_chunk
from candlebeam.formats.trade_log.reader import TradeLogReader
from candlebeam.io import staging as staging_module
from candlebeam.io.staging import (
    Staging,
    list_shards,
    read_shard,
    read_task,
)
from candlebeam.model import FileOutcome, InputFile, Market
from candlebeam.outcome import MarketOutcome
from candlebeam.plan import MarketTask
from candlebeam.rules.candles import empty_candles
from candlebeam.shards import Shard
from tests.trade_batches import MARKET, MIDNIGHT


def made_up_plan(markets: int, files: int = 3) -> list[tuple[MarketTask, tuple[Shard, ...]]]:
    """Markets with 1, 2, 3, 1, 2 ... shards of so many files each."""
    plan = []
    for number in range(markets):
        market = Market("RAM", "X", f"m{number}/ü\udc80")
        shards = tuple(
            Shard(
                market,
                ordinal,
                tuple(InputFile(f"/r/{number}/{ordinal}/{n}.gz", n, n * 2) for n in range(files)),
                None if number % 2 else MIDNIGHT,
                f"{number:032x}{ordinal}",
            )
            for ordinal in range(number % 3 + 1)
        )
        task = MarketTask(
            market,
            shards=len(shards),
            last_start_ts=MIDNIGHT + number,
            group_ordinal=len(shards) - 1,
            group=(("/r", "a/b"), ("/r2", "a/b")),
            covered=files * len(shards),
            base=b'{"a": 1}' if number % 2 else b"",
            notes=("one", "two") if number % 3 else (),
            late_files=number,
            rebuilt=bool(number % 2),
            skipped=(("/r", "c"),) if number % 2 else (),
        )
        plan.append((task, shards))
    return plan


def written(folder: Path, plan: list[tuple[MarketTask, tuple[Shard, ...]]]) -> list[str]:
    staging = Staging(str(folder))
    staging.prepare()
    writer = staging.write_plan()
    for task, shards in plan:
        writer.add(task, shards)
    return writer.close()


def read_all(manifest: str) -> list[tuple[MarketTask, Shard]]:
    return [(read_task(ref), read_shard(ref)) for ref in list_shards(manifest)]


# Manifests


def test_plan_comes_back_market_by_market_and_shard_by_shard(tmp_path: Path) -> None:
    plan = made_up_plan(20)
    (manifest,) = written(tmp_path, plan)
    assert read_all(manifest) == [(task, shard) for task, shards in plan for shard in shards]


def test_plan_is_spread_over_manifests_and_a_market_stays_in_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging_module, "MANIFEST_FILES", 10)
    plan = made_up_plan(50)
    manifests = written(tmp_path, plan)
    assert len(manifests) > 15
    assert len(set(manifests)) == len(manifests)
    found = [[read_shard(ref) for ref in list_shards(manifest)] for manifest in manifests]
    assert [shard for part in found for shard in part] == [s for _, shards in plan for s in shards]
    homes = [{shard.market for shard in part} for part in found]
    assert sum(map(len, homes)) == len(plan)
    # Each is closed once it has enough; one market can take it only so far above.
    assert all(sum(len(shard.files) for shard in part) < 10 + 9 for part in found)


def test_plan_of_nothing_has_no_manifest(tmp_path: Path) -> None:
    assert written(tmp_path, []) == []


def test_manifests_are_the_same_bytes_for_the_same_plan(tmp_path: Path) -> None:
    one, other = (written(tmp_path / name, made_up_plan(9)) for name in ("one", "other"))
    assert [Path(path).read_bytes() for path in one] == [Path(path).read_bytes() for path in other]


def test_manifest_that_is_cut_anywhere_is_an_error_that_names_it(tmp_path: Path) -> None:
    (manifest,) = written(tmp_path, made_up_plan(2, files=1))
    data = Path(manifest).read_bytes()
    for length in range(len(data)):
        Path(manifest).write_bytes(data[:length])
        with pytest.raises(FormatError, match=f"^{manifest}: expected a (whole )?manifest"):
            list_shards(manifest)


@pytest.mark.parametrize(
    "data",
    [b"", b"CBPLAN02", b"x" * 100, b"CBPLAN02" + b"x" * 100],
    ids=lambda data: repr(data[:12]),
)
def test_what_is_no_manifest_is_an_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "manifest"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"expected a (whole )?manifest"):
        list_shards(str(path))


def test_manifest_with_trailing_bytes_is_an_error(tmp_path: Path) -> None:
    (manifest,) = written(tmp_path, made_up_plan(2))
    with open(manifest, "ab") as file:
        file.write(b"\0")
    with pytest.raises(FormatError, match="expected a whole manifest, found one that is cut off"):
        list_shards(manifest)


@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_manifest_with_any_bit_flipped_is_found_out(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int
) -> None:
    plan = made_up_plan(3, files=1)
    (manifest,) = written(tmp_path_factory.getbasetemp() / "damaged-manifest", plan)
    data = bytearray(Path(manifest).read_bytes())
    data[place % len(data)] ^= 1 << bit
    Path(manifest).write_bytes(bytes(data))
    with pytest.raises(FormatError, match=f"^{manifest}"):
        read_all(manifest)


def test_damaged_record_is_named_with_its_place(tmp_path: Path) -> None:
    (manifest,) = written(tmp_path, made_up_plan(1))
    (ref,) = list_shards(manifest)
    data = bytearray(Path(manifest).read_bytes())
    data[ref.shard_offset + 3] ^= 0xFF
    Path(manifest).write_bytes(bytes(data))
    with pytest.raises(FormatError, match=f"{manifest} at byte {ref.shard_offset}: expected a rec"):
        read_shard(ref)
    assert read_task(ref) == made_up_plan(1)[0][0]


def test_path_that_no_system_has_is_not_read_as_two(tmp_path: Path) -> None:
    ((task, shards),) = made_up_plan(1, files=1)
    torn = replace(shards[0], files=(InputFile("/r/one\0/r/two", 1),))
    (manifest,) = written(tmp_path, [(task, (torn,))])
    (ref,) = list_shards(manifest)
    with pytest.raises(FormatError, match=f"{manifest} at byte .*: expected a record of a man.*, "):
        read_shard(ref)


# Chunks


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    folder = Staging(str(tmp_path / "staging"))
    folder.prepare()
    return folder


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    paths = []
    for hour, name in enumerate(("2024-03-01-00", "2024-03-01-01.gz")):
        text = b"".join(b"%d 1.5 2 1\n" % (MIDNIGHT + hour * 3_600_000 + n) for n in range(3))
        path = tmp_path / name
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
        paths.append(str(path))
    return Shard(MARKET, 0, tuple(InputFile(path) for path in paths), None, "a" * 32)


def read_outcomes(shard: Shard) -> list[FileOutcome]:
    reader = TradeLogReader(shard.market, shard.files)
    assert sum(len(batch) for batch in reader) == 6
    return reader.outcomes


def stage(staging: Staging, shard: Shard) -> None:
    staging.write_chunk(shard.market, shard.name, read_outcomes(shard), empty_candles(0, 3))


def test_chunk_is_found_while_its_inputs_are_as_they_were(staging: Staging, shard: Shard) -> None:
    assert not staging.find_chunk(shard)
    stage(staging, shard)
    assert staging.find_chunk(shard)
    assert open_chunk(staging.chunk_path(shard.market, shard.name)).length == 3
    assert not staging.find_chunk(replace(shard, name="b" * 32))
    assert not staging.find_chunk(replace(shard, market=Market("PI", "BINANCE", "btcusdt")))
    assert not staging.find_chunk(replace(shard, files=shard.files[:1]))
    assert not staging.find_chunk(replace(shard, files=shard.files[::-1]))


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("change", ["grows", "is touched", "goes", "is another of the same size"])
def test_chunk_is_not_found_once_an_input_changes(
    staging: Staging, shard: Shard, number: int, change: str
) -> None:
    stage(staging, shard)
    path = Path(shard.files[number].path)
    stat = path.stat()
    if change == "grows":
        path.write_bytes(path.read_bytes() + b"\n")
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    elif change == "is touched":
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    elif change == "goes":
        path.unlink()
    else:
        path.write_bytes(b"x" * stat.st_size)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))
    assert not staging.find_chunk(shard)


def test_chunk_made_from_a_twin_is_found_while_the_twin_is_there(
    staging: Staging, shard: Shard
) -> None:
    path = Path(shard.files[0].path)
    twin = Path(f"{path}.gz")
    twin.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    stage(staging, shard)
    assert staging.find_chunk(shard)
    twin.unlink()
    assert not staging.find_chunk(shard)


def test_chunk_of_an_input_that_could_not_be_read_is_not_found(
    staging: Staging, shard: Shard
) -> None:
    first, second = read_outcomes(shard)
    for wrong in (replace(first, error="no permission"), FileOutcome(first.path, error="gone")):
        staging.write_chunk(shard.market, shard.name, [wrong, second], empty_candles())
        assert not staging.find_chunk(shard)
    salvaged = replace(first, damage="cut off")
    staging.write_chunk(shard.market, shard.name, [salvaged, second], empty_candles())
    assert staging.find_chunk(shard)


def test_torn_chunk_is_not_found(staging: Staging, shard: Shard) -> None:
    stage(staging, shard)
    path = Path(staging.chunk_path(shard.market, shard.name))
    path.write_bytes(path.read_bytes()[:-1])
    assert not staging.find_chunk(shard)


def test_chunks_tell_their_heads_once(staging: Staging, shard: Shard) -> None:
    stage(staging, shard)
    known: set[str] = set()
    (head,) = staging.chunks(known)
    assert head.trades == 6
    assert list(staging.chunks(known)) == []
    stage(staging, replace(shard, name="b" * 32))
    Path(staging.chunk_path(shard.market, "torn")).write_bytes(b"CBCH")
    Path(staging.chunk_path(shard.market, ".c.tmp")).write_bytes(b"")
    assert len(list(staging.chunks(known))) == 1
    assert list(Staging(str(staging.path) + "-not-there").chunks(set())) == []


def test_removing_the_chunks_of_a_market_leaves_those_of_others(
    staging: Staging, shard: Shard
) -> None:
    other = replace(shard, market=Market("PI", "BINANCE", "btcusdt"))
    stage(staging, shard)
    stage(staging, other)
    staging.remove_chunks(shard.market)
    staging.remove_chunks(Market("never", "was", "there"))
    assert not staging.find_chunk(shard)
    assert staging.find_chunk(other)


# Outcomes, and the folder itself


def test_outcome_comes_back_and_is_counted(staging: Staging) -> None:
    outcome = MarketOutcome(str(MARKET), rejected={"side": 2}, missing=["/ü\udc80"], records=7)
    assert staging.read_outcome(MARKET) is None
    staging.write_outcome(MARKET, outcome)
    assert staging.read_outcome(MARKET) == outcome
    assert staging.read_outcome(Market("PI", "X", "y")) is None
    assert staging.count_outcomes() == 1


def test_preparing_again_keeps_chunks_and_forgets_plan_and_outcomes(
    staging: Staging, shard: Shard
) -> None:
    stage(staging, shard)
    staging.write_outcome(MARKET, MarketOutcome(str(MARKET)))
    writer = staging.write_plan()
    for task, shards in made_up_plan(1):
        writer.add(task, shards)
    (manifest,) = writer.close()
    staging.prepare()
    assert not Path(manifest).exists()
    assert staging.count_outcomes() == 0
    assert staging.find_chunk(shard)


def test_folder_is_removed_only_when_no_chunk_is_left(staging: Staging, shard: Shard) -> None:
    stage(staging, shard)
    staging.remove_plan()
    staging.remove_if_empty()
    assert staging.find_chunk(shard)
    staging.remove_chunks(shard.market)
    staging.remove_if_empty()
    assert not Path(staging.path).exists()
