"""A commit that fails or is killed at any call leaves the old pair of files or the new one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from candlebeam.errors import FormatError
from candlebeam.formats.candles.companion import CandlePaths, Companion, Journal, read_companion
from candlebeam.formats.candles.file import open_candles
from candlebeam.formats.candles.records import RECORD_DTYPE
from candlebeam.io.candle_writer import Placed, append, recover, write_anew
from candlebeam.model import Records
from candlebeam.rules.price_scale import PriceScale
from tests.candle_pairs import companion_of, some_records, write_pair
from tests.failing_disk import FailingDisk
from tests.trade_batches import MARKET

#: A companion and its records; None where there is no pair that can be read.
Pair = tuple[Companion, bytes] | None
OLD, NEW = some_records(5, 1), some_records(10, 2)


def nothing(_: CandlePaths) -> None:
    pass


@dataclass(frozen=True)
class Case:
    """A commit: what is there before it, what it writes, and what is there after it.

    Attributes:
        old: the pair that is there.
        new: the pair that is committed.
        pieces: (begin, end) of the runs of records that are given; the others are gaps.
        appends: whether the new pair goes on from the old one.
        before: what else is done to the old files.
    """

    old: tuple[Companion, Records] | None
    new: tuple[Companion, Records]
    pieces: tuple[tuple[int, int], ...]
    appends: bool = False
    before: Callable[[CandlePaths], object] = field(default=nothing)

    def prepare(self, folder: Path) -> CandlePaths:
        paths = CandlePaths.of(str(folder), MARKET)
        if self.old:
            write_pair(folder, *self.old)
        self.before(paths)
        return paths

    def commit(self, paths: CandlePaths, *, broken: bool = False) -> None:
        companion, records = self.new
        done = False

        def placed() -> Iterator[Placed]:
            nonlocal done
            for begin, end in self.pieces:
                yield begin, records[begin:end]
                if broken:
                    raise ValueError("no such candle")
            done = True

        def settled() -> Companion:
            assert done, "the companion was asked for before all records were taken"
            return companion

        if self.appends:
            assert self.old is not None
            append(paths, self.old[0], placed(), records.nbytes, settled)
        else:
            write_anew(paths, placed(), records.nbytes, settled)

    @property
    def after(self) -> Pair:
        return self.new[0], self.new[1].tobytes()


def with_gaps(records: Records, *gaps: int) -> Records:
    found: Records = records.copy()
    found[list(gaps)] = np.zeros(1, RECORD_DTYPE)
    return found


def grown(last: Records, count: int, *gaps: int) -> Records:
    """The old records with another last one, or the same, and new ones behind."""
    return with_gaps(np.concatenate([OLD[:4], last, NEW[5:count]]), *gaps)


OLD_PAIR = companion_of(5), OLD
SCALE = PriceScale(6)
CASES = {
    "fresh": Case(None, (companion_of(10), with_gaps(NEW, 3, 4)), ((0, 3), (5, 10))),
    "fresh beside a lone .bin": Case(
        OLD_PAIR,
        (companion_of(10), NEW),
        ((0, 10),),
        before=lambda paths: os.unlink(paths.companion),
    ),
    "append with a changed last record": Case(
        OLD_PAIR, (companion_of(10), grown(NEW[4:5], 10, 7)), ((4, 7), (8, 10)), appends=True
    ),
    "append without": Case(
        OLD_PAIR, (companion_of(10), grown(OLD[4:5], 10, 5)), ((4, 5), (6, 10)), appends=True
    ),
    "append of a changed last record alone": Case(
        OLD_PAIR, (companion_of(5, SCALE), grown(NEW[4:5], 5)), ((4, 5),), appends=True
    ),
    "append of nothing but another companion": Case(
        OLD_PAIR, (companion_of(5, SCALE), OLD), ((4, 5),), appends=True
    ),
    "rewrite at another scale": Case(
        OLD_PAIR, (companion_of(10, SCALE), with_gaps(NEW, 4)), ((0, 4), (5, 10))
    ),
    "rebuild with fewer records": Case(OLD_PAIR, (companion_of(3), NEW[:3]), ((0, 3),)),
    "rebuild over a damaged companion": Case(
        OLD_PAIR,
        (companion_of(7), NEW[:7]),
        ((0, 7),),
        before=lambda paths: Path(paths.companion).write_bytes(b"{"),
    ),
    "rebuild without a .bin": Case(
        OLD_PAIR,
        (companion_of(7), NEW[:7]),
        ((0, 7),),
        before=lambda paths: os.unlink(paths.records),
    ),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def seen(paths: CandlePaths) -> Pair:
    """What a reader sees."""
    try:
        found = open_candles(paths.records)
    except (FileNotFoundError, FormatError):
        return None
    return found.companion, found.records.tobytes()


def left_behind(folder: Path) -> list[str]:
    names = [path.name for path in folder.rglob("*") if path.is_file()]
    return sorted(set(names) - {"btcusdt.bin", "btcusdt.json"})


def assert_settled(paths: CandlePaths, folder: Path) -> None:
    """Nothing is left to be recovered."""
    assert left_behind(folder) == []
    if seen(paths) is not None:
        companion = read_companion(paths.companion)
        assert companion is not None
        assert os.path.getsize(paths.records) == companion.size


def test_commit_gives_the_new_pair_and_leaves_nothing_behind(case: Case, tmp_path: Path) -> None:
    paths = case.prepare(tmp_path)
    case.commit(paths)
    assert seen(paths) == case.after
    assert_settled(paths, tmp_path)
    assert recover(paths) == []


def test_commit_again_changes_nothing(case: Case, tmp_path: Path) -> None:
    paths = case.prepare(tmp_path)
    case.commit(paths)
    case.commit(paths)
    assert seen(paths) == case.after
    assert_settled(paths, tmp_path)


@pytest.mark.parametrize("kill", [False, True], ids=["fails", "is killed"])
def test_commit_that_ends_at_any_call_leaves_the_old_pair_or_the_new(
    case: Case, tmp_path: Path, kill: bool
) -> None:
    ends = []
    for at in range(1, 100):
        folder = tmp_path / str(at)
        paths = case.prepare(folder)
        before = seen(paths)
        with FailingDisk(at, kill=kill) as disk:
            case.commit(paths)
        if not disk.failed:
            break
        found = seen(paths)
        assert found in (before, case.after), disk.calls
        recover(paths)
        recovered = seen(paths)
        assert recovered == found, disk.calls
        assert_settled(paths, folder)
        case.commit(paths)
        assert seen(paths) == case.after, disk.calls
        assert_settled(paths, folder)
        ends.append(found == case.after)
    # Once the new pair is there it stays; both ends occur.
    assert ends == sorted(ends)
    assert len(ends) >= 6
    assert {True, False} == set(ends)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kill", [False, True], ids=["fails", "is killed"])
def test_recovery_that_ends_at_any_call_is_taken_up_by_the_next(
    case: Case, tmp_path: Path, kill: bool
) -> None:
    states: list[dict[str, bytes]] = []
    for at in range(1, 100):
        for then in range(1, 100):
            folder = tmp_path / f"{at}-{then}"
            paths = case.prepare(folder)
            with FailingDisk(at, kill=True) as commit:
                case.commit(paths)
            if then == 1:
                if snapshot(folder) in states:
                    break
                states.append(snapshot(folder))
            found = seen(paths)
            with FailingDisk(then, kill=kill) as recovery:
                recover(paths)
            calls = commit.calls, recovery.calls
            assert seen(paths) == found, calls
            recover(paths)
            assert seen(paths) == found, calls
            assert_settled(paths, folder)
            if not recovery.failed:
                break
        if not commit.failed:
            break
    assert len(states) >= 4


def test_nothing_counts_before_it_is_on_disk(case: Case, tmp_path: Path) -> None:
    """Files are forced to disk before they are renamed or decided on, and so are the names."""
    paths = case.prepare(tmp_path)
    with FailingDisk() as disk:
        case.commit(paths)
    folder = os.path.dirname(paths.records)
    unsynced: set[str] = set()
    for call, path in disk.calls:
        assert path is not None
        if call == "fsync":
            unsynced.discard(path)
            continue
        if path == paths.records or call == "unlink":
            # What was decided before stands in the folder.
            assert folder not in unsynced, disk.calls
        if call == "replace":
            # Nothing is pending but names.
            assert unsynced <= {folder}, disk.calls
        unsynced.add(folder if call in ("replace", "unlink") else path)
    assert unsynced == set(), disk.calls


def test_records_that_cannot_be_made_leave_the_old_pair(case: Case, tmp_path: Path) -> None:
    paths = case.prepare(tmp_path)
    before = seen(paths)
    with pytest.raises(ValueError, match="no such candle"):
        case.commit(paths, broken=True)
    assert seen(paths) == before
    recover(paths)
    assert seen(paths) == before
    assert_settled(paths, tmp_path)


# Recovering


def test_recovery_of_a_market_that_never_was_does_nothing(tmp_path: Path) -> None:
    assert recover(CandlePaths(str(tmp_path / "x"))) == []
    assert list(tmp_path.iterdir()) == []


def test_recovery_says_what_it_has_done(tmp_path: Path) -> None:
    paths = write_pair(tmp_path, companion_of(5), NEW)
    assert recover(paths) == [f"{paths.records}: 280 bytes behind the last candle were cut"]
    journal = Journal(companion_of(5, SCALE), NEW[4:5].tobytes(), 4 * 56)
    Path(paths.journal).write_bytes(journal.encode())
    assert recover(paths) == [
        f"{paths.records}: a commit that had been interrupted was carried out"
    ]
    assert seen(paths) == (companion_of(5, SCALE), NEW[:5].tobytes())


def test_damaged_journal_is_set_aside_and_the_pair_stays(tmp_path: Path) -> None:
    paths = write_pair(tmp_path, companion_of(5), OLD)
    Path(paths.journal).write_bytes(b"{}")
    (note,) = recover(paths)
    assert note.startswith(f"{paths.journal}: expected a commit journal, found ")
    assert note.endswith("it was set aside")
    assert seen(paths) == (companion_of(5), OLD.tobytes())
    assert left_behind(tmp_path) == [".btcusdt.journal.damaged"]
    assert recover(paths) == []


@pytest.mark.parametrize("damage", ["bad companion", "no companion", "no records", "short"])
def test_damaged_pair_is_left_to_the_plan(tmp_path: Path, damage: str) -> None:
    paths = write_pair(tmp_path, companion_of(5), OLD)
    companion, records = Path(paths.companion), Path(paths.records)
    if damage == "bad companion":
        companion.write_bytes(b"{")
    elif damage == "no companion":
        companion.unlink()
    elif damage == "no records":
        records.unlink()
    else:
        records.write_bytes(bytes(9))
    before = snapshot(tmp_path)
    assert recover(paths) == []
    assert snapshot(tmp_path) == before


def test_other_markets_beside_it_are_left_alone(tmp_path: Path) -> None:
    paths = write_pair(tmp_path, companion_of(5), OLD)
    other = Path(paths.records).with_name("btcusdt2.bin")
    other.write_bytes(b"x")
    hidden = other.with_name(".btcusdt2.bin.new")
    hidden.write_bytes(b"x")
    recover(paths)
    assert other.read_bytes() == hidden.read_bytes() == b"x"
