"""A commit to S3 that ends before any of its requests leaves the old pair or the new one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from candlebeam.errors import FormatError
from candlebeam.formats.candles.companion import CandlePaths, read_bytes, read_companion
from candlebeam.io.candle_writer import recover
from candlebeam.storage import s3_client
from tests.object_store import ObjectStore, forget_clients, object_store
from tests.test_commit_protocol import CASES, Case, Pair
from tests.trade_batches import MARKET


class Crash(BaseException):
    """The process ends here."""


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


def pair(paths: CandlePaths) -> Pair:
    """What a reader finds; None if that is no whole pair."""
    try:
        companion = read_companion(paths.companion)
    except FormatError:
        return None
    data = read_bytes(paths.records)
    if companion is None or data is None or len(data) < companion.size:
        return None
    return companion, data


#: Those that differ where nothing is written in part.
DIFFERENT = (
    "fresh",
    "fresh beside a lone .bin",
    "append with a changed last record",
    "rewrite at another scale",
    "rebuild over a damaged companion",
    "rebuild without a .bin",
)


@pytest.fixture(params=DIFFERENT)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@contextmanager
def crashing(at: int = 0, path: str = "") -> Iterator[None]:
    """The request of this number is not made any more, nor is one that writes this object."""
    numbers, ask = count(1), s3_client.ask

    def crash(about: str, request: str, **more: Any) -> Any:
        if next(numbers) == at or (about == path and request == "put_object"):
            raise Crash
        return ask(about, request, **more)

    with pytest.MonkeyPatch.context() as patch, suppress(Crash):
        patch.setattr(s3_client, "ask", crash)
        yield


def test_crash_before_any_request(store: ObjectStore, tmp_path: Path, case: Case) -> None:
    case.prepare(tmp_path)
    out = store.bucket()
    paths = CandlePaths.of(out, MARKET)
    ended = False
    for crash_at in count(1):
        store.put_folder(out, tmp_path)
        before = pair(paths)
        with crashing(crash_at):
            case.commit(paths)
            ended = True
        recover(paths)
        assert pair(paths) in ([case.after] if ended else [before, case.after])
        assert store.read_all(out).keys() <= {paths.records, paths.companion}
        if ended:
            break
        if pair(paths) == before:
            case.commit(paths)
        assert pair(paths) == case.after
    assert crash_at > 3
    assert store.read_all(out).keys() == {paths.records, paths.companion}


def test_recovery_can_crash_as_often_as_it_likes(
    store: ObjectStore, tmp_path: Path, case: Case
) -> None:
    case.prepare(tmp_path)
    out = store.bucket()
    store.put_folder(out, tmp_path)
    paths = CandlePaths.of(out, MARKET)
    with crashing(path=paths.companion):
        case.commit(paths)
    if paths.journal not in store.read_all(out):
        assert pair(paths) is None  # a first pair needs none
        return
    ended = False
    crashes = 0
    while not ended:
        with crashing(crashes + 1):
            recover(paths)
            ended = True
        crashes += not ended
    assert crashes > 3
    assert pair(paths) == case.after
    assert store.read_all(out).keys() == {paths.records, paths.companion}
