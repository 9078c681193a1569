"""Indexing an archive on S3 gives what indexing a local copy gives."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from candlebeam.catalog import Catalog, IndexSummary
from candlebeam.errors import UsageError
from candlebeam.inventory import FileVersion
from candlebeam.storage import s3_client
from tests.archives import NOISE, make_archive
from tests.command_line import run_here
from tests.object_store import Fault, ObjectStore, Request, forget_clients, object_store

GOOD = "RAM/btc/BINANCE/btcusdt/2024-03-02-00"


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    with object_store() as running:
        yield running


@pytest.fixture
def store(server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    yield server
    forget_clients()


def index(db: Path, root: object, *include: str) -> IndexSummary:
    with Catalog(str(db), create=True) as catalog:
        return catalog.index(str(root), include)


def rows(db: Path) -> list[tuple[Any, ...]]:
    """All that a catalog knows of files, but for their root."""
    connection = sqlite3.connect(db)
    try:
        return connection.execute(
            "SELECT relative_path, collector, exchange, symbol, start_ts, ext, size FROM files"
            " ORDER BY relative_path"
        ).fetchall()
    finally:
        connection.close()


def fill(root: Path, seed: int) -> None:
    archive = make_archive(Random(seed), listings=8, files=4)
    archive.files.update(dict.fromkeys(NOISE, b"1"))
    archive.files["RAM/btc/BINANCE/btcusdt/deep/another"] = b""
    archive.files["RAM/btc/BINANCE/btcusdt/deep/er/file"] = b""
    archive.files["RAM/btc/alone"] = b""
    archive.files.setdefault(GOOD, b"1704067200000 1 1 1\n")
    archive.files.setdefault(f"{GOOD}.gz", b"")  # its twin
    archive.write(root)


@pytest.mark.parametrize("seed", range(3))
def test_remote_and_local_archives_are_the_same(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    root, bucket = tmp_path / "archive", store.bucket()
    fill(root, seed)
    store.put_folder(f"{bucket}/archive", root)
    store.put(f"{bucket}/archive of another/{GOOD}", b"")
    ask = s3_client.ask

    def few(path: str, request: str, **arguments: Any) -> Any:
        more = {"MaxKeys": 7} if request == "list_objects_v2" else {}
        return ask(path, request, **arguments, **more)

    monkeypatch.setattr(s3_client, "ask", few)
    here, there = tmp_path / "here.sqlite", tmp_path / "there.sqlite"
    for _ in range(2):
        ours, theirs = index(there, f"{bucket}/archive"), index(here, root)
        assert rows(there) == rows(here)
        assert (ours.added, ours.known, ours.skipped) == (
            theirs.added, theirs.known, theirs.skipped,
        )  # fmt: skip
        assert ours.unreadable == theirs.unreadable == []
    assert theirs.known == len(rows(here)) > 10
    # All strays, where all are shown.
    monkeypatch.setattr("candlebeam.catalog.SHOWN_STRAYS", 100)
    assert sorted(index(there, f"{bucket}/archive").strays) == sorted(index(here, root).strays)


def test_an_archive_is_listed_once_and_as_it_comes(store: ObjectStore, tmp_path: Path) -> None:
    bucket = store.bucket()
    for hour in range(3):
        store.put(f"{bucket}/{GOOD[:-2]}{hour:02d}", b"")
    with store.counted() as counts:
        assert index(tmp_path / "db", bucket).added == 3
    assert counts == {"LIST": 1}
    assert index(tmp_path / "db", f"{bucket}/") == IndexSummary(known=3)


@pytest.mark.parametrize("include", ["RAM/btc/BINANCE", "RAM/btc/BINANCE/btcusdt/", "./RAM//btc"])
def test_include_lists_that_prefix_alone(store: ObjectStore, tmp_path: Path, include: str) -> None:
    bucket = store.bucket()
    for path in (GOOD, GOOD.replace("RAM", "PI"), GOOD.replace("BINANCE", "BINANCE2")):
        store.put(f"{bucket}/a/{path}", b"")
    begin = len(store.requests)
    found = index(tmp_path / "db", f"{bucket}/a", include)
    assert found.added == (1 if "BINANCE" in include else 2)
    prefixes = {request.key for request in store.requests[begin:]}
    assert prefixes == {"a/" + "/".join(p for p in include.split("/") if p not in ("", ".")) + "/"}
    assert index(tmp_path / "db", f"{bucket}/a", f"{bucket}/a/PI").added == 1


@pytest.mark.parametrize(
    ("include", "message"),
    [
        ("nothing", "--include nothing: no such folder under {root}"),
        ("../a", "--include ../a: expected a folder under {root}"),
        ("s3://other/a", "--include s3://other/a: expected a folder under {root}"),
        ("a/b/c/d/e", "--include a/b/c/d/e: deeper than collector/bucket/exchange/symbol"),
    ],
)
def test_include_that_is_not_there(
    store: ObjectStore, tmp_path: Path, include: str, message: str
) -> None:
    root = f"{store.bucket()}/a"
    store.put(f"{root}/{GOOD}", b"")
    with pytest.raises(UsageError) as caught:
        index(tmp_path / "db", root, include)
    assert str(caught.value) == message.format(root=root)
    assert rows(tmp_path / "db") == []


def test_archive_that_is_not_there(store: ObjectStore, tmp_path: Path) -> None:
    root = f"{store.bucket()}/a"
    found = run_here("index", root, "--db", tmp_path / "db").expect(2)
    assert found.stderr == f"candlebeam: {root}: expected a folder with an archive, found none\n"


def test_keys_that_no_folder_could_hold_are_strays(store: ObjectStore, tmp_path: Path) -> None:
    bucket = store.bucket()
    odd = GOOD.replace("/btc/", "//btc/")
    for key in (GOOD, f"/{GOOD}", odd, "RAM/btc/BINANCE/", f"{GOOD}/"):
        store.put(f"{bucket}/{key}", b"")
    found = index(tmp_path / "db", bucket)
    assert found.added == 1
    assert sorted(found.strays) == sorted([f"/{GOOD}", odd])


def test_listing_that_fails_in_the_middle_adds_nothing(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket, ask = store.bucket(), s3_client.ask
    for hour in range(10):
        store.put(f"{bucket}/{GOOD[:-2]}{hour:02d}", b"")
    monkeypatch.setattr(
        s3_client, "ask", lambda path, request, **more: ask(path, request, **more, MaxKeys=4)
    )

    def deny(request: Request, number: int) -> Fault | None:
        return Fault(403, "AccessDenied") if number == 2 else None

    with store.failing(deny):
        found = run_here("index", bucket, "--db", tmp_path / "db").expect(1)
    assert found.stderr == f"candlebeam: {bucket}: AccessDenied: so it is\n"
    assert rows(tmp_path / "db") == []


def test_versions_of_remote_inputs(store: ObjectStore, tmp_path: Path) -> None:
    bucket = store.bucket()
    path = f"{bucket}/{GOOD}"
    store.put(f"{path}.gz", b"123")
    index(tmp_path / "db", bucket)
    with Catalog(str(tmp_path / "db")) as catalog:
        assert catalog.version(path) == FileVersion("2024-03-02-00.gz", 3)
        store.put(path, b"12345")
        assert catalog.version(path) == FileVersion("2024-03-02-00", 5)
        assert catalog.version(f"{bucket}/nothing") is None
        catalog.look_ahead([path, f"{bucket}/nothing", path, "/not/remote"])
        with store.counted() as counts:
            assert catalog.version(path) == FileVersion("2024-03-02-00", 5)
            assert catalog.version(f"{bucket}/nothing") is None
            assert catalog.version("/not/remote") is None
        assert not counts
