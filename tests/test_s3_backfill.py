"""Backfills with an archive, a staging folder and an output on S3 give what local ones give."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from candlebeam.errors import CandlebeamError
from candlebeam.pipelines import lock
from candlebeam.storage import s3_client
from tests.agg2_archive import BlobArchive, day_rows
from tests.archives import make_archive
from tests.beam_files import KeptFiles, TreeFiles
from tests.command_line import Outcome, Workspace, leftovers, run_here
from tests.dbn_files import days, trade, write_dbn
from tests.deliveries import make_delivery, sync
from tests.faults import NEVER, KillHost
from tests.object_store import Fault, ObjectStore, Request, forget_clients, object_store
from tests.worker_pools import Pool

#: One worker, so that the nth request of a run is always the same one.
STEADY = ("--direct_num_workers", 1, "--direct_running_mode", "in_memory", "--shard_bytes", 400)
#: Kills of one run, spread evenly; with HYPOTHESIS_PROFILE=deep one at every request.
KILLS = 5


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    with object_store() as running:
        yield running


@pytest.fixture
def store(server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """The S3 server, found by the environment; locks are taken without a pause."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(s3_client, "PAUSE_SECONDS", 0.0001)
    monkeypatch.setattr(lock, "_SETTLE_SECONDS", 0)
    yield server
    forget_clients()


def files_of(folder: Path) -> dict[str, bytes]:
    """The files below a folder, but for hidden ones, by path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def local_objects(folder: Path) -> dict[str, bytes]:
    """The files that readers see of an output, by path."""
    assert leftovers(folder) == []
    return files_of(folder)


def remote_objects(store: ObjectStore, folder: str) -> dict[str, bytes]:
    """All objects below a prefix, by path."""
    return {path[len(folder) + 1 :]: data for path, data in store.read_all(folder).items()}


@dataclass(frozen=True)
class Archive:
    """An archive on this machine, and the words that name it to `backfill`."""

    folder: Path
    kind: str

    def words(self, place: object, db: Path) -> tuple[object, ...]:
        if self.kind != "--db":
            return (self.kind, place)
        run_here("index", place, "--db", db).expect()
        return ("--db", db)


def trade_logs(folder: Path) -> None:
    make_archive(Random(11), listings=5, files=3, rows=20).write(folder)


def day_blobs(folder: Path) -> None:
    archive = BlobArchive(folder)
    for day in (1, 2, 4):
        archive.add("BTCUSDT", day, day_rows(day, 200))
    archive.add("ETHUSDT", 3, day_rows(3, 200))


def databento(folder: Path) -> None:
    folder.mkdir()
    mappings = (days("ABC", (0, 100, 7)), days("D/E F", (0, 100, 8)))
    for name, dataset in (("plain.dbn", "XNAS.ITCH"), ("packed.dbn.zst", "GLBX.MDP3")):
        rows = [
            trade(step * 37 * 10**9, 10**9 * (100 + step), instrument=7 + step % 2)
            for step in range(50)
        ]
        compressed = name.endswith(".zst")
        write_dbn(folder / name, rows, mappings, compressed=compressed, dataset=dataset)


ARCHIVES = {"--db": trade_logs, "--agg2": day_blobs, "--dbn": databento}


@pytest.fixture(scope="module", params=ARCHIVES)
def archive(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    folder = tmp_path_factory.mktemp("archive") / "archive"
    ARCHIVES[request.param](folder)
    return Archive(folder, request.param)


@pytest.fixture(scope="module")
def made_here(archive: Archive) -> dict[str, bytes]:
    """What a local backfill makes."""
    place = archive.folder.parent
    words = archive.words(archive.folder, place / "index.sqlite")
    run_here("backfill", *words, "--out", place / "out", *STEADY).expect()
    found = local_objects(place / "out")
    assert len(found) >= 4
    return found


#: Where the archive, the output and the staging folder are; None puts it into the output.
MIXES = (
    ("s3", "s3", None),
    ("s3", "here", None),
    ("here", "s3", "here"),
    ("s3", "here", "s3"),
)


@pytest.mark.parametrize("mix", MIXES, ids=str)
def test_every_mix_gives_the_same_bytes(
    store: ObjectStore,
    tmp_path: Path,
    archive: Archive,
    made_here: dict[str, bytes],
    mix: tuple[str, str, str | None],
) -> None:
    bucket = store.bucket()
    places = [f"{bucket}/{name}" if where == "s3" else str(tmp_path / name) if where else None
              for where, name in zip(mix, ("archive", "out", "staging"), strict=True)]  # fmt: skip
    root, out, staging = places
    assert out is not None
    if root != str(tmp_path / "archive"):
        store.put_folder(f"{bucket}/archive", archive.folder)
    else:
        root = str(archive.folder)
    words = archive.words(root, tmp_path / "index.sqlite")
    words = ("backfill", *words, "--out", out, *(("--staging", staging) if staging else ()))
    outcome = run_here(*words, *STEADY).expect()
    assert outcome.stderr.count("\n") <= 3, outcome.stderr  # progress
    found = remote_objects(store, out) if mix[1] == "s3" else local_objects(tmp_path / "out")
    # All that may differ is the name of the archive.
    name, expected = str(root).encode(), str(archive.folder).encode()
    assert {path: data.replace(name, expected) for path, data in found.items()} == made_here
    assert store.read_all(f"{bucket}/staging") == {}
    again = run_here(*words, *STEADY).expect()
    assert "up to date" in again.stdout
    assert (remote_objects(store, out) if mix[1] == "s3" else local_objects(Path(out))) == found


@dataclass
class Remote:
    """An archive on this machine, whose copy on S3 is backfilled to S3."""

    store: ObjectStore
    folder: Path
    bucket: str

    @property
    def here(self) -> Workspace:
        return Workspace(self.folder)

    @property
    def archive(self) -> str:
        return f"{self.bucket}/archive"

    @property
    def out(self) -> str:
        return f"{self.bucket}/out"

    @property
    def db(self) -> Path:
        return self.folder / "remote.sqlite"

    def deliver(self, files: dict[str, bytes]) -> None:
        """Has the archive hold these files, here and on S3, and both indexed."""
        sync(self.here.archive, files)
        self.store.put_folder(self.archive, self.here.archive)
        self.here.index().expect()
        run_here("index", self.archive, "--db", self.db).expect()

    @property
    def arguments(self) -> tuple[object, ...]:
        report = self.folder / "remote.json"
        return ("backfill", "--db", self.db, "--out", self.out, "--report", report)

    def backfill(self, *options: object) -> Outcome:
        return run_here(*self.arguments, *STEADY, *options)

    def fresh(self) -> dict[str, bytes]:
        """What a local backfill of all files makes of them at once."""
        shutil.rmtree(self.here.out, ignore_errors=True)
        self.here.backfill(*STEADY).expect()
        return local_objects(self.here.out)

    def found(self) -> dict[str, bytes]:
        """What is there, as if it had been made of the local archive."""
        here = str(self.here.archive).encode()
        objects = remote_objects(self.store, self.out)
        return {path: data.replace(self.archive.encode(), here) for path, data in objects.items()}


@pytest.fixture
def remote(store: ObjectStore, tmp_path: Path) -> Remote:
    return Remote(store, tmp_path, store.bucket())


@pytest.mark.parametrize(
    ("seed", "regimes", "late"),
    [(1, ("plain",), 0.0), (2, ("plain", "tiny", "huge", "limit"), 0.0), (3, ("plain",), 0.2)],
    ids=["appended", "other price scales", "late rows"],
)
def test_resumed_runs_equal_a_fresh_one(
    remote: Remote, seed: int, regimes: tuple[str, ...], late: float
) -> None:
    delivery = make_delivery(Random(seed), regimes, late)
    del delivery.streams[3:]
    for files in delivery.steps(2):
        remote.deliver(files)
        remote.backfill("--late", "rebuild").expect()
    found, expected = remote.found(), remote.fresh()
    assert found.keys() == expected.keys()
    for name, data in expected.items():
        if name.endswith(".bin"):
            assert found[name] == data, name


def test_nothing_new_asks_for_little(remote: Remote) -> None:
    (files,) = make_delivery(Random(1), ("plain",)).steps(1)
    remote.deliver(files)
    markets = len(remote.backfill().expect().stdout and remote.fresh()) // 2
    with remote.store.counted() as counts:
        assert "up to date" in remote.backfill().expect().stdout
    # A companion each; the last inputs, with and without .gz; and what does not grow with them.
    assert markets >= 7
    assert counts["GET"] <= markets + 4
    assert counts["HEAD"] <= 2 * markets + 4
    assert counts["LIST"] <= 8
    assert counts.total() <= 3 * markets + 30
    assert counts["PUT"] <= 4
    remote.store.requests.clear()
    with remote.store.counted() as counts:
        run_here("index", remote.archive, "--db", remote.db).expect()
    assert counts == {"LIST": 1}


# Killed runs


@pytest.fixture(scope="module")
def host(server: ObjectStore) -> Iterator[KillHost]:
    # A lock that is free at once, and that is not renewed, however slow the machine is: so that
    # the nth request is the same in every run.
    names = {"LEASE_SECONDS": -60.0, "_SETTLE_SECONDS": 0.0, "_RENEW_SECONDS": 3600.0}
    values = {f"{lock.__name__}.{name}": value for name, value in names.items()}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        with KillHost(requests=True, values=values) as running:
            yield running


def kill_places(calls: int) -> list[int]:
    if os.environ.get("HYPOTHESIS_PROFILE") == "deep":
        return list(range(1, calls + 1))
    return [1 + number * (calls - 1) // (KILLS - 1) for number in range(KILLS)]


@pytest.mark.parametrize("regimes", [None, ("plain", "tiny", "huge")], ids=["first", "resumed"])
def test_killed_at_any_request_the_next_run_ends_with_the_same_bytes(
    host: KillHost, remote: Remote, regimes: tuple[str, ...] | None
) -> None:
    if regimes is None:
        make_archive(Random(1), listings=4, files=2, rows=20, damages=False).write(
            remote.here.archive
        )
        remote.deliver(files_of(remote.here.archive))
    else:
        delivery = make_delivery(Random(4), regimes)
        del delivery.streams[3:]
        steps = delivery.steps(2)
        remote.deliver(next(steps))
        remote.backfill().expect()
        remote.deliver(next(steps))
    before = remote_objects(remote.store, remote.out)

    def start_over() -> None:
        for path in remote.store.read_all(remote.out).keys() - {
            f"{remote.out}/{n}" for n in before
        }:
            remote.store.delete(path)
        for name, data in before.items():
            remote.store.put(f"{remote.out}/{name}", data)

    arguments = (*remote.arguments, *STEADY)
    assert host.run(arguments, NEVER) == 0
    calls = host.calls
    assert calls > 40
    expected = remote_objects(remote.store, remote.out)
    assert {n: d for n, d in remote.found().items() if n.endswith(".bin")} == {
        n: d for n, d in remote.fresh().items() if n.endswith(".bin")
    }
    for at in kill_places(calls):
        start_over()
        assert host.run(arguments, at) == -signal.SIGKILL
        assert host.run(arguments, NEVER) == 0
        assert remote_objects(remote.store, remote.out) == expected, at


# One writer


def test_second_run_on_an_output_is_refused(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    (files,) = make_delivery(Random(1), ("plain",)).steps(1)
    remote.deliver(files)
    monkeypatch.setattr(lock, "_RENEW_SECONDS", 0.01)
    with lock.output_lock(remote.out):
        refused = remote.backfill().expect(1)
        host, pid = socket.gethostname(), os.getpid()
        message = f"{remote.out}: another run is writing here (process {pid} on {host}, "
        assert f"candlebeam: {message}" in refused.stderr
        assert "if it was killed, this ends within 60 s" in refused.stderr
        # It is renewed while it is held.
        path = f"{remote.out}/{lock.LOCK_NAME}"
        puts = [Request("PUT", *path.removeprefix("s3://").split("/", 1))] * 3
        deadline = time.monotonic() + 60
        while [r for r in remote.store.requests if r == puts[0]] < puts:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert remote_objects(remote.store, remote.out) == {}
    remote.backfill().expect()


def test_lock_that_a_killed_run_has_left_is_taken_over_in_time(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"{remote.out}/{lock.LOCK_NAME}"
    remote.store.put(path, json.dumps({"mark": "x", "pid": 1, "host": "there"}).encode())
    expected = re.escape(f"{remote.out}: another run is writing here (process 1 on there, ")
    with pytest.raises(CandlebeamError, match=expected), lock.output_lock(remote.out):
        pass
    monkeypatch.setattr(lock, "LEASE_SECONDS", -60.0)
    with lock.output_lock(remote.out):
        assert b"there" not in remote.store.read(path)
    assert remote_objects(remote.store, remote.out) == {}


def test_lock_that_was_taken_over_ends_the_run_that_had_it(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_RENEW_SECONDS", 0.01)
    asked = threading.Event()
    monkeypatch.setattr(lock, "cancel_all", asked.set)
    path = f"{remote.out}/{lock.LOCK_NAME}"

    def hold() -> None:
        with lock.output_lock(remote.out):
            remote.store.put(path, b"another's")
            assert asked.wait(60)

    with pytest.raises(CandlebeamError, match="another run has begun, since nothing was heard of"):
        hold()
    assert remote.store.read(path) == b"another's"


def test_of_two_that_take_a_lock_at_the_same_time_one_has_it(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_SETTLE_SECONDS", 0.5)
    both, held = threading.Barrier(2), []

    def take() -> None:
        both.wait()
        try:
            with lock.output_lock(remote.out):
                held.append(1)
                assert len(held) == 1
                both.wait()
        except CandlebeamError:
            both.wait()

    threads = [threading.Thread(target=take) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert held == [1]


# What goes wrong


def test_damaged_and_missing_objects_are_told_as_local_ones_are(remote: Remote) -> None:
    make_archive(Random(5), listings=6, files=3, rows=12).write(remote.here.archive)
    remote.deliver(files_of(remote.here.archive))
    gone = max(path for path in remote.here.archive.rglob("2*") if path.is_file())
    name = gone.relative_to(remote.here.archive).as_posix().removesuffix(".gz")
    for twin in (name, f"{name}.gz"):
        (remote.here.archive / twin).unlink(missing_ok=True)
        remote.store.delete(f"{remote.archive}/{twin}")
    here = remote.here.backfill(*STEADY)
    there = remote.backfill()
    assert (here.code, there.code) == (1, 1)
    roots = (remote.archive, str(remote.here.archive))
    outs = (remote.out, str(remote.here.out))
    said = there.stderr.replace(*roots).replace(*outs)

    def without_times(text: str) -> list[str]:
        return sorted(line for line in text.splitlines() if line.startswith("candlebeam: "))

    assert without_times(said) == without_times(here.stderr)
    assert f"{remote.archive}/{name}" in there.stderr
    assert "missing" in there.stderr
    ours = json.loads((remote.folder / "remote.json").read_text().replace(*roots))
    assert ours["markets"] == here.report["markets"]
    assert any(row["damaged"] for row in ours["markets"])


def test_errors_are_one_line(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    (files,) = make_delivery(Random(1), ("plain",)).steps(1)
    remote.deliver(files)
    denied = run_here("backfill", "--db", remote.db, "--out", "s3://no-such-bucket/out").expect(1)
    assert denied.stderr == (
        "candlebeam: cannot write s3://no-such-bucket/out:"
        " NoSuchBucket: The specified bucket does not exist\n"
    )
    found = run_here("index", "s3://no-such-bucket/archive", "--db", remote.db).expect(1)
    assert found.stderr == (
        "candlebeam: s3://no-such-bucket/archive:"
        " NoSuchBucket: The specified bucket does not exist\n"
    )
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    forget_clients()
    denied = remote.backfill().expect(1)
    assert denied.stderr == (
        f"candlebeam: cannot write {remote.out}: InvalidAccessKeyId: so it is\n"
    )


def test_output_that_fails_in_the_middle_fails_its_markets_and_goes_on_later(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    (files,) = make_delivery(Random(1), ("plain",)).steps(1)
    remote.deliver(files)

    def fail(request: Request, _: int) -> Fault | None:
        return (
            Fault(500) if request.kind == "PUT" and request.key.endswith("ethusdt.json") else None
        )

    with remote.store.failing(fail):
        outcome = remote.backfill().expect(1)
    row = outcome.markets["RAM/BINANCE/ethusdt"] if outcome.report else None
    place = f"{remote.out}/RAM/BINANCE/ethusdt.json"
    assert f"cannot write {place}: InternalError: so it is" in outcome.stderr, row
    again = remote.backfill().expect()
    assert "Traceback" not in again.output
    objects, fresh = remote.found(), remote.fresh()
    assert objects == fresh


@pytest.mark.parametrize("scheme", ["kept", "tree"])
def test_any_filesystem_of_beam_gives_the_same_bytes(
    tmp_path: Path, made_here: dict[str, bytes], archive: Archive, scheme: str
) -> None:
    files = {"kept": KeptFiles, "tree": TreeFiles}[scheme].held
    root = f"{scheme}://bucket"
    for path, data in files_of(archive.folder).items():
        files[f"{root}/archive/{path}"] = data, 1.0
    words = archive.words(f"{root}/archive", tmp_path / "index.sqlite")
    for expected in ("written", "up to date"):
        outcome = run_here("backfill", *words, "--out", f"{root}/out", *STEADY).expect()
        assert expected in outcome.stdout
    name, here = f"{root}/archive".encode(), str(archive.folder).encode()
    out = f"{root}/out/"
    found = {path[len(out) :]: data for path, (data, _) in files.items() if path.startswith(out)}
    files.clear()
    assert {path: data.replace(name, here) for path, data in found.items()} == made_here


def test_backfill_by_workers_of_a_pool(remote: Remote, tmp_path: Path) -> None:
    (files,) = make_delivery(Random(1), ("plain",)).steps(1)
    remote.deliver(files)
    # The workers learn of the store by the options of the pipeline alone.
    nothing = {name: "nothing" for name in remote.store.environment if "FILE" not in name}
    with Pool(tmp_path, **nothing) as pool:
        outcome = run_here(*remote.arguments, *pool.options, *remote.store.options).expect()
    assert "written" in outcome.stdout
    assert remote.found() == remote.fresh()


@pytest.mark.parametrize(
    "words",
    [
        "show s3://bucket/x.bin",
        "resample s3://bucket/out --timeframes 5m --to {}",
        "export s3://bucket/out --to csv --out {}",
        "clear --out s3://bucket/out --collector RAM --exchange X --symbol y",
    ],
)
def test_what_maps_files_expects_local_ones(tmp_path: Path, words: str) -> None:
    outcome = run_here(*words.format(tmp_path / "new").split()).expect(2)
    assert "s3://bucket/" in outcome.stderr
    assert "expected a local path; only index and backfill reach others" in outcome.stderr
