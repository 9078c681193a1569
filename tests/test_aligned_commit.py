"""Aligned files are written whole or not at all, and many runs give what one gives."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from candlebeam.errors import FormatError
from candlebeam.formats.aligned.file import AlignedIndex, AlignedPaths, open_aligned
from candlebeam.formats.aligned.state import (
    AlignedJournal,
    Sidecar,
    SourceState,
)
from candlebeam.io.aligned_commit import recover_aligned
from candlebeam.io.aligned_writer import AlignedWriter
from tests.aligned_bars import (
    bars_from,
    minutes,
)
from tests.aligned_runs import (
    DAY,
    OLD,
    OTHER,
    SOURCE,
    Source,
    State,
    assert_settled,
    made,
    seen,
    state_of,
    without_fsync,
    without_open_bar,
    write,
)
from tests.failing_disk import FailingDisk

_no_power_cuts = pytest.fixture(scope="module", autouse=True)(without_fsync)


def nothing(_: AlignedPaths) -> None:
    pass


def with_leftovers(paths: AlignedPaths) -> None:
    with open(paths.records, "ab") as file:
        file.write(bytes(100))


@dataclass(frozen=True)
class Case:
    """A run: what is there before it, and what it reads.

    Attributes:
        old: what the file was made from.
        new: what it is made from now.
        gaps: how gaps were written, and are.
        force: whether all is made again.
        before: what else is done to the old files.
    """

    old: Source | None
    new: Source
    gaps: tuple[str, str] = ("forward", "forward")
    force: bool = False
    before: Callable[[AlignedPaths], object] = field(default=nothing)

    def prepare(self, folder: Path) -> AlignedPaths:
        paths = AlignedPaths.of(str(folder), "1m", "btcusdt")
        if self.old:
            write(paths, self.old, self.gaps[0])
            self.before(paths)
        return paths

    def run(self, paths: AlignedPaths) -> None:
        write(paths, self.new, self.gaps[1], force=self.force, parts=3)

    @property
    def after(self) -> State:
        return state_of(self.new, self.gaps[1])


CASES = {
    "fresh": Case(None, OLD),
    "fresh, of an open bar alone": Case(None, Source(minutes(0, 1))),
    "goes on": Case(OLD, Source(minutes(0, 12, 2, 7))),
    "goes on from nothing but an open bar": Case(
        Source(minutes(0, 1)), Source(minutes(0, 9)), before=without_open_bar
    ),
    "goes on and ends without an open bar": Case(OLD, Source(minutes(0, 8, 2), opens=False)),
    "closes the open bar": Case(OLD, Source(minutes(0, 5, 2), opens=False)),
    "takes the open bar away": Case(OLD, Source(minutes(0, 4, 2), opens=False)),
    "another open bar": Case(OLD, Source([*minutes(0, 4, 2), *minutes(4, 5, seed=9)])),
    "goes on without an open bar": Case(OLD, Source(minutes(0, 12, 2)), before=without_open_bar),
    "goes on over leftovers": Case(OLD, Source(minutes(0, 6, 2)), before=with_leftovers),
    "other bars": Case(OLD, OTHER),
    "fewer other bars": Case(OTHER, OLD),
    "another source by force": Case(OLD, Source(OTHER.rows, name="x"), force=True),
    "other gaps by force": Case(
        OLD, Source(minutes(0, 7, 2)), gaps=("forward", "skip"), force=True
    ),
    "records by force": Case(OLD, OTHER, force=True, before=lambda paths: os.unlink(paths.index)),
    "no index": Case(OLD, OTHER, before=lambda paths: os.unlink(paths.index)),
    "by force after a run that was killed": Case(
        OLD, OTHER, force=True, before=lambda paths: Path(paths.writing).touch()
    ),
    "a short file": Case(OLD, OTHER, before=lambda paths: os.truncate(paths.records, 130)),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def seen_or_refused(paths: AlignedPaths) -> State | str | None:
    """What a reader sees, or is told."""
    try:
        return seen(paths)
    except FormatError as error:
        return str(error)


def assert_old_or_new(paths: AlignedPaths, case: Case, before: State | str | None) -> bool:
    """Whether what a reader sees is the new file; if not it must be the old one.

    Where a run is writing, there may be no open bar to be seen; and leftovers may be gone.
    """
    found = seen_or_refused(paths)
    if found == before != case.after:
        return False
    assert isinstance(found, State), found
    old = [state_of(case.old, case.gaps[0])] if case.old else []
    old += [before] if isinstance(before, State) else []
    for state in (case.after, *old):
        if found == state or found == replace(state, open_bar=b""):
            return state is case.after
    raise AssertionError(f"neither old nor new: {found}")


def test_run_gives_the_new_file_and_leaves_nothing_behind(case: Case, tmp_path: Path) -> None:
    paths = case.prepare(tmp_path)
    case.run(paths)
    assert seen(paths) == case.after
    assert_settled(paths, case.after)
    case.run(paths)
    assert_settled(paths, case.after)


@pytest.mark.parametrize("kill", [False, True], ids=["fails", "is killed"])
def test_run_that_ends_at_any_call_leaves_the_old_file_or_the_new(
    case: Case, tmp_path: Path, kill: bool
) -> None:
    ends = []
    for at in range(1, 100):
        paths = case.prepare(tmp_path / str(at))
        before = seen_or_refused(paths)
        with FailingDisk(at, kill=kill) as disk:
            case.run(paths)
        if not disk.failed:
            break
        ends.append(assert_old_or_new(paths, case, before))
        case.run(paths)
        assert_settled(paths, case.after)
    # Once the new file is there it stays.
    assert ends == sorted(ends)
    assert len(ends) >= 4
    assert False in ends


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def put_back(folder: Path, files: dict[str, bytes], paths: AlignedPaths) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(os.path.dirname(paths.index))
    places = (paths.records, paths.replacement)
    for name, data in files.items():
        found = [path for path in places if os.path.basename(path) == name]
        place = found[0] if found else os.path.join(os.path.dirname(paths.index), name)
        Path(place).write_bytes(data)


@pytest.mark.parametrize("name", ["fresh", "goes on", "another open bar", "other bars"])
def test_next_run_that_ends_at_any_call_is_taken_up_by_the_one_after(
    name: str, tmp_path: Path
) -> None:
    case, states = CASES[name], []
    for at in range(1, 100):
        paths = case.prepare(tmp_path / str(at))
        before = seen_or_refused(paths)
        with FailingDisk(at, kill=True) as first:
            case.run(paths)
        if not first.failed:
            break
        left = snapshot(tmp_path / str(at))
        if left in states:
            continue
        states.append(left)
        for then in range(1, 100):
            put_back(tmp_path / str(at), left, paths)
            with FailingDisk(then, kill=True) as second:
                case.run(paths)
            assert_old_or_new(paths, case, before)
            if not second.failed:
                break
            case.run(paths)
            assert_settled(paths, case.after)
    assert len(states) >= 4


def test_run_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    paths = CASES["goes on"].prepare(tmp_path)
    new = Source([*OLD.rows[:4], *minutes(4, 12, seed=9)])

    def fail(writer: AlignedWriter) -> None:
        writer.append(bars_from(new.rows[4:8]))
        raise ZeroDivisionError

    with (
        pytest.raises(ZeroDivisionError),
        AlignedWriter(paths, source=SOURCE, settings={"gaps": "forward"}) as writer,
    ):
        fail(writer)
    assert_settled(paths, state_of(OLD, "forward"))
    with pytest.raises(ZeroDivisionError), AlignedWriter(paths, source="x", force=True) as writer:
        fail(writer)
    assert_settled(paths, state_of(OLD, "forward"))


def test_nothing_counts_before_it_is_on_disk(case: Case, tmp_path: Path) -> None:
    """Files are forced to disk before anything that makes them count."""
    paths = case.prepare(tmp_path)
    with FailingDisk() as disk:
        case.run(paths)
    index_folder = os.path.dirname(paths.index)
    counts = {paths.journal, paths.index, paths.source}
    unsynced: set[str] = set()
    for call, path in disk.calls:
        assert path is not None
        if call == "fsync":
            unsynced.discard(path)
        elif call == "replace":
            if path in counts:
                assert unsynced <= {index_folder}, disk.calls
            unsynced.add(os.path.dirname(path))
        elif call == "unlink":
            if path == paths.journal:
                assert not unsynced, disk.calls
            if path != paths.writing:
                unsynced.add(os.path.dirname(path))
        elif path != paths.writing:
            unsynced.add(path)
            if call == "open" and path == paths.replacement:
                unsynced.add(paths.folder)
    # Whether the marker is there after a power cut does not matter.
    assert unsynced <= {index_folder}


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[int, int | None, bool]]:
    """Runs: the bars there are, at which call the run ends if it does, and whether one is open."""
    run = st.tuples(st.integers(0, 12), st.one_of(st.none(), st.integers(1, 25)), st.booleans())
    runs = draw(st.lists(run, min_size=1, max_size=6))
    return sorted(runs, key=lambda found: found[0])


@settings(max_examples=60, deadline=None)
@given(histories(), st.sets(st.integers(0, 11)), st.sampled_from(["zero", "forward", "skip"]))
def test_any_runs_with_crashes_give_what_one_run_gives(
    runs: list[tuple[int, int | None, bool]], gaps_at: set[int], gaps: str
) -> None:
    rows = minutes(0, 12, *gaps_at)
    with tempfile.TemporaryDirectory() as folder:
        paths = AlignedPaths.of(folder, "1m", "btcusdt")
        for count, at, opens in runs:
            with FailingDisk(at or 0, kill=True):
                write(paths, Source(rows[:count], opens), gaps, parts=2)
        last = Source(rows)
        write(paths, last, gaps)
        assert_settled(paths, state_of(last, gaps))


# Recovering


def test_recovery_of_a_file_that_never_was_does_nothing(tmp_path: Path) -> None:
    assert recover_aligned(AlignedPaths.of(str(tmp_path), "1m", "x")) == []
    assert list(tmp_path.iterdir()) == []


def test_recovery_carries_a_journal_out(tmp_path: Path) -> None:
    paths = made(tmp_path)
    new = state_of(OTHER)
    state = SourceState(new.in_pos, len(new.committed), OTHER.checksum(OTHER.closed))
    journal = AlignedJournal(
        AlignedIndex(DAY, new.in_pos, len(new.committed)),
        Sidecar(SOURCE, {"gaps": "zero"}, (state,)),
    )
    Path(paths.replacement).write_bytes(new.committed + new.open_bar)
    Path(paths.journal).write_bytes(journal.encode())
    assert recover_aligned(paths) == [
        f"{paths.records}: a commit that had been interrupted was carried out"
    ]
    assert_settled(paths, new)
    assert not write(paths, OTHER).written


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"index": "00", "sidecar": {}}'])
def test_damaged_journal_is_set_aside_and_the_file_stays(tmp_path: Path, data: bytes) -> None:
    paths = made(tmp_path)
    Path(paths.journal).write_bytes(data)
    with pytest.raises(FormatError, match=re.escape(paths.journal)):
        open_aligned(paths.records)
    (note,) = recover_aligned(paths)
    assert note.endswith("; it was set aside")
    assert Path(f"{paths.journal}.damaged").read_bytes() == data
    assert seen(paths) == state_of(OLD)


def test_other_files_beside_it_are_left_alone(tmp_path: Path) -> None:
    paths = made(tmp_path)
    other = AlignedPaths.of(str(tmp_path), "1m", "btcusdt2")
    for path in (other.records, other.index, *other.unfinished, other.writing):
        Path(path).write_bytes(b"x")
    write(paths, OTHER)
    assert all(
        Path(path).read_bytes() == b"x"
        for path in (other.records, other.index, *other.unfinished, other.writing)
    )
