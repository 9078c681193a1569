"""The transforms from candles to candle files, each alone, on a few literal elements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

from candlebeam.errors import RangeError
from candlebeam.formats.candles.file import open_candles
from candlebeam.formats.chunk_file import open_chunk
from candlebeam.io.cancellation import cancel
from candlebeam.io.commit_markets import CommitMarkets
from candlebeam.io.market_commit import CommitOptions
from candlebeam.io.read_trades import ShardPart
from candlebeam.io.stage_chunks import StageChunks
from candlebeam.io.staging import ChunkRef, ShardRef, Staging
from candlebeam.model import CandleBlock, FileOutcome, Market
from candlebeam.outcome import EMPTY, FAILED, WRITTEN, MarketOutcome
from candlebeam.rules.candles import aggregate, empty_candles, merge
from candlebeam.settings import CandleSettings
from tests.in_process import assert_makes, pipeline
from tests.staged_shards import outcomes_of, text_of, write_manifest, write_shards
from tests.trade_batches import MARKET, MIDNIGHT, MINUTE, Row, batch

ROWS = [Row(MIDNIGHT + n * 20_000, n + 1.0, 2.0, n % 2) for n in range(9)]
OTHER = Market("PI", "KRAKEN", "XBT-USDT")


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    found = Staging(str(tmp_path / "staging"))
    found.prepare()
    return found


# StageChunks

REF = ShardRef("manifest", 1, 2, 3, 4)
DONE = (FileOutcome("/a/b", "/a/b", 10, 20, trades=9),)


def part(number: int, files: Any = None, ordinal: int = 0, error: str = "") -> ShardPart:
    return ShardPart(REF, MARKET, ordinal, f"chunk-{ordinal}", number, files, error)


def test_stage_chunks_merges_the_parts_of_each_shard(staging: Staging) -> None:
    blocks = [aggregate(batch(ROWS[n : n + 3]), MINUTE) for n in (6, 0, 3)]
    nothing = CandleBlock(MARKET, MINUTE, empty_candles())
    assert_makes(
        StageChunks(staging=staging.path),
        [
            (part(0), blocks[0]), (part(1), blocks[1]), (part(2), blocks[2]),
            (part(3, DONE), nothing), (part(0, (), 1), nothing),
        ],
        [
            (MARKET, ChunkRef(REF, 0, "chunk-0", reused=False)),
            (MARKET, ChunkRef(REF, 1, "chunk-1", reused=False)),
        ],
    )  # fmt: skip
    chunk = open_chunk(staging.chunk_path(MARKET, "chunk-0"))
    assert chunk.files == DONE
    assert chunk.read(0, chunk.length).tobytes() == merge(blocks).candles.tobytes()
    assert open_chunk(staging.chunk_path(MARKET, "chunk-1")).length == 0


def test_stage_chunks_written_twice_are_the_same_bytes(staging: Staging) -> None:
    elements = [
        (part(0), aggregate(batch(ROWS), MINUTE)),
        (part(1, DONE), aggregate(batch([]), MINUTE)),
    ]
    contents = set()
    for _ in range(2):
        assert_makes(
            StageChunks(staging=staging.path),
            elements,
            [(MARKET, ChunkRef(REF, 0, "chunk-0", reused=False))],
        )
        contents.add(Path(staging.chunk_path(MARKET, "chunk-0")).read_bytes())
    assert len(contents) == 1


def test_stage_chunks_makes_no_chunk_of_a_shard_with_an_error_but_of_the_next(
    staging: Staging,
) -> None:
    block, nothing = aggregate(batch(ROWS), MINUTE), aggregate(batch([]), MINUTE)
    assert_makes(
        StageChunks(staging=staging.path),
        [
            (part(0), RangeError("too much")), (part(1), block), (part(2, DONE), nothing),
            (part(0, DONE, 1, "cannot write rejects"), block), (part(0, DONE, 2), block),
        ],
        [
            (MARKET, ChunkRef(REF, 0, "chunk-0", False, "too much")),
            (MARKET, ChunkRef(REF, 1, "chunk-1", False, "cannot write rejects")),
            (MARKET, ChunkRef(REF, 2, "chunk-2", False)),
        ],
    )  # fmt: skip
    folder = Path(staging.chunk_path(MARKET, "chunk-2")).parent
    assert [path.name for path in folder.iterdir()] == ["chunk-2"]


def test_stage_chunks_finds_an_overflow_of_parts_together(staging: Staging) -> None:
    half = aggregate(batch([Row(MIDNIGHT, 6e12, 1.0)]), MINUTE)
    message = f"{MARKET}: the volume of the candle at {MIDNIGHT} does not fit in 64 bits"
    assert_makes(
        StageChunks(staging=staging.path),
        [(part(0), half), (part(1, DONE), half)],
        [(MARKET, ChunkRef(REF, 0, "chunk-0", False, message))],
    )


def test_stage_chunks_that_cannot_be_written_say_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pipeline() as running:
        chunks = (
            running
            | beam.Create([(part(0, DONE), aggregate(batch(ROWS), MINUTE))])
            | StageChunks(staging=str(tmp_path / "file"))
        )
        assert_that(
            chunks | beam.MapTuple(lambda market, chunk: chunk.error[:12]),
            equal_to(["cannot write"]),
        )


@pytest.mark.parametrize("numbers", [(1,), (0, 2), (0, 0)])
def test_stage_chunks_refuses_parts_out_of_order(
    staging: Staging, numbers: tuple[int, ...]
) -> None:
    block = aggregate(batch(ROWS), MINUTE)
    with pytest.raises(Exception, match="the runner must not split reading from staging"):
        assert_makes(StageChunks(staging=staging.path), [(part(n), block) for n in numbers], [])


# CommitMarkets


class Committing:
    """A market of two shards, staged, and where it is to be committed."""

    def __init__(self, folder: Path, staging: Staging, market: Market = MARKET) -> None:
        self.staging, self.market = staging, market
        self.out = folder / "out"
        planned = write_shards(folder, [[text_of(ROWS[:5])], [text_of(ROWS[5:])]], market)
        _, refs = write_manifest(staging, planned)
        self.chunks = []
        for ref, shard, rows in zip(refs, planned[1], (ROWS[:5], ROWS[5:]), strict=True):
            candles = aggregate(batch(rows, market), MINUTE).candles
            staging.write_chunk(market, shard.name, outcomes_of(shard), candles)
            self.chunks.append((market, ChunkRef(ref, shard.ordinal, shard.name, reused=False)))

    @property
    def transform(self) -> CommitMarkets:
        options = CommitOptions(str(self.out), CandleSettings())
        return CommitMarkets(staging=self.staging.path, options=options)

    @property
    def records(self) -> Path:
        return self.out / f"{self.market.path}.bin"

    def outcome(self, **values: Any) -> MarketOutcome:
        return MarketOutcome(str(self.market), **values)


@pytest.fixture
def committing(tmp_path: Path, staging: Staging) -> Committing:
    return Committing(tmp_path, staging)


WRITTEN_OUTCOME = {
    "status": WRITTEN, "files": 2, "candles": 3, "records": 3, "chunks_made": 2,
}  # fmt: skip


@pytest.mark.parametrize("step", [1, -1])
def test_commit_markets_writes_the_candles_and_removes_the_chunks(
    committing: Committing, step: int
) -> None:
    size = sum(
        file.size
        for _, chunk in committing.chunks
        for file in open_chunk(committing.staging.chunk_path(MARKET, chunk.name)).files
    )
    outcome = committing.outcome(**WRITTEN_OUTCOME, bytes_read=size)
    assert_makes(committing.transform, committing.chunks[::step], [outcome])
    found = open_candles(committing.records)
    assert found.records["close"].tolist() == [30_000, 60_000, 90_000]
    assert found.companion.state is not None
    assert [Path(i.path).name for i in found.companion.state.inputs] == ["1-0"]
    assert list(committing.staging.chunks(set())) == []


def test_commit_markets_twice_gives_the_first_outcome_again(committing: Committing) -> None:
    with pipeline() as running:
        _ = running | beam.Create(committing.chunks) | committing.transform
    first = committing.staging.read_outcome(MARKET)
    assert first is not None
    before = committing.records.stat().st_mtime_ns
    assert_makes(committing.transform, committing.chunks, [first])
    assert committing.records.stat().st_mtime_ns == before


def test_commit_markets_counts_reused_chunks(committing: Committing) -> None:
    (first, second) = committing.chunks
    reused = (MARKET, second[1]._replace(reused=True))
    with pipeline() as running:
        outcomes = running | beam.Create([first, reused]) | committing.transform
        counts = outcomes | beam.Map(lambda outcome: (outcome.chunks_made, outcome.chunks_reused))
        assert_that(counts, equal_to([(1, 1)]))


def test_commit_markets_takes_a_chunk_that_arrives_twice_once(committing: Committing) -> None:
    with pipeline() as running:
        outcomes = running | beam.Create(committing.chunks * 2) | committing.transform
        assert_that(
            outcomes | beam.Map(lambda outcome: (outcome.status, outcome.files)),
            equal_to([(WRITTEN, 2)]),
        )


def test_commit_markets_writes_nothing_until_every_chunk_is_there(committing: Committing) -> None:
    outcome = committing.outcome(chunks_made=1).fail("1 of 2 shards have arrived")
    assert_makes(committing.transform, committing.chunks[1:], [outcome])
    assert not committing.out.exists()
    assert len(list(committing.staging.chunks(set()))) == 2


def test_commit_markets_fails_with_the_error_of_a_chunk(committing: Committing) -> None:
    first, (market, chunk) = committing.chunks
    wrong = (market, chunk._replace(error="too much"))
    outcome = committing.outcome(chunks_made=2).fail("too much")
    assert_makes(committing.transform, [first, wrong], [outcome])
    assert not committing.out.exists()


def test_commit_markets_fails_with_a_chunk_that_is_torn(committing: Committing) -> None:
    path = Path(committing.staging.chunk_path(MARKET, "btcusdt-1"))
    path.write_bytes(path.read_bytes()[:-1])
    with pipeline() as running:
        outcomes = running | beam.Create(committing.chunks) | committing.transform
        errors = outcomes | beam.Map(lambda outcome: (outcome.status, outcome.error))
        size = path.stat().st_size
        message = f"{path}: expected a chunk of {size + 1} bytes, found {size}"
        assert_that(errors, equal_to([(FAILED, message)]))
    assert not committing.out.exists()


def test_commit_markets_commits_others_beside_one_that_fails(
    tmp_path: Path, staging: Staging
) -> None:
    planned = [
        write_shards(tmp_path, [[text_of(ROWS)]]),
        write_shards(tmp_path, [[b""]], OTHER),
        write_shards(tmp_path, [[b""]], Market("RAM", "X", "gone")),
    ]
    _, refs = write_manifest(staging, *planned)
    chunks = []
    for (task, (shard,)), ref, rows in zip(planned, refs, (ROWS, [], []), strict=True):
        files = outcomes_of(shard)
        if task.market.symbol == "gone":
            files = [FileOutcome("/gone", error="no such file")]
        candles = aggregate(batch(rows, task.market), MINUTE).candles
        staging.write_chunk(task.market, shard.name, files, candles)
        chunks.append((task.market, ChunkRef(ref, 0, shard.name, reused=False)))
    options = CommitOptions(str(tmp_path / "out"), CandleSettings())
    with pipeline() as running:
        outcomes = (
            running
            | beam.Create(chunks)
            | CommitMarkets(staging=staging.path, options=options)
            | beam.Map(lambda outcome: (outcome.market, outcome.status, outcome.error))
        )
        expected = [
            ("RAM/BINANCE/btcusdt", WRITTEN, None),
            ("PI/KRAKEN/XBT-USDT", EMPTY, None),
            ("RAM/X/gone", FAILED, "/gone: no such file"),
        ]
        assert_that(outcomes, equal_to(expected))
    assert len(list(staging.chunks(set()))) == 1


def test_commit_markets_stops_when_its_run_is_cancelled(committing: Committing) -> None:
    cancel("a-commit-to-cancel")
    options = CommitOptions(str(committing.out), CandleSettings())
    transform = CommitMarkets(
        staging=committing.staging.path, options=options, run="a-commit-to-cancel"
    )
    with pytest.raises(Exception, match="the run was cancelled"):
        assert_makes(transform, committing.chunks, [])
    assert not committing.out.exists()
