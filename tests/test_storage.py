"""What every storage does: this machine's, S3, and any that Beam knows."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from candlebeam.storage import Storage, is_remote, s3, s3_client, storage_of
from tests.beam_files import KeptFiles, TreeFiles
from tests.loopback import free_port, silent_server
from tests.object_store import Fault, ObjectStore, Request, forget_clients, object_store

#: Names that some store or some layer of a client could take for something else.
ODD_NAMES = (
    "with space", "50%", "%2F", "a+b", "a&b=c", "ünï-✓", "a:b", "a?b", "a#b", "a'b\"c", "*[x]{y}",
    "~", "$", "a;b", "a@b", "a,b", "-", "a\\b", "x.gz", "...", "<&>", "tab\there",
)  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    with object_store() as running:
        yield running


@pytest.fixture
def store(server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """The S3 server, found by the environment, whose clients do not pause for long."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(s3_client, "PAUSE_SECONDS", 0.0001)
    yield server
    forget_clients()


@pytest.fixture(params=["local", "s3", "kept", "tree"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, store: ObjectStore) -> Iterator[str]:
    """A folder that is there where there are such."""
    if request.param == "local":
        yield str(tmp_path)
    elif request.param == "s3":
        yield f"{store.bucket()}/some folder"
    else:
        yield f"{request.param}://bucket/folder"
        KeptFiles.held.clear()
        TreeFiles.held.clear()


def put(storage: Storage, path: str, data: bytes) -> None:
    storage.make_folder(os.path.dirname(path))
    storage.write(path, data)


def write_placed(path: str, data: bytes) -> None:
    with storage_of(path).placing(path) as descriptor:
        os.write(descriptor, data)


def read_by(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def test_what_was_written_is_read(folder: str) -> None:
    storage, path = storage_of(folder), f"{folder}/a/b"
    assert storage.is_local is not is_remote(folder)
    put(storage, path, b"0123456789")
    assert storage.read(path) == b"0123456789"
    assert storage.read(path, 3) == b"3456789"
    assert storage.read(path, 3, 4) == b"3456"
    assert storage.read(path, 8, 10) == b"89"
    assert storage.read(path, 10) == storage.read(path, 50, 3) == storage.read(path, 2, 0) == b""
    put(storage, path, b"another")
    assert storage.read(path) == b"another"


def test_empty_files(folder: str) -> None:
    storage, path = storage_of(folder), f"{folder}/empty"
    put(storage, path, b"")
    with storage.placing(f"{folder}/placed"):
        pass
    for written in (path, f"{folder}/placed"):
        assert storage.read(written) == b""
        assert storage.exists(written)
        opened = storage.open_input(written)
        assert read_by(opened.descriptor) == b""
        assert opened.size == storage.state(written).size == 0
    storage.replace(path, f"{folder}/placed")
    assert [found.size for found in storage.walk(folder)] == [0]


def test_inputs(folder: str) -> None:
    storage, path = storage_of(folder), f"{folder}/input"
    data = Random(1).randbytes(3_000_001)
    put(storage, path, data)
    opened = storage.open_input(path)
    assert (opened.size, opened.mtime_ns) == storage.state(path)
    assert abs(opened.mtime_ns / 1e9 - time.time()) < 60
    assert read_by(opened.descriptor) == data
    ranges = [(5, 10), (1_000_000, 1_500_000), (2_999_999, 50), (4_000_000, 1), (0, 0)]
    opened = storage.open_input(path, ranges)
    assert opened.size == len(data)
    for offset, length in ranges:
        assert os.pread(opened.descriptor, length, offset) == data[offset : offset + length]
    os.close(opened.descriptor)
    opened = storage.open_input(path, [])
    assert opened.size == os.fstat(opened.descriptor).st_size == len(data)
    os.close(opened.descriptor)


def test_of_a_remote_file_what_is_not_asked_for_reads_as_zeros(store: ObjectStore) -> None:
    for folder in (store.bucket(), "kept://bucket/zeros"):
        path = f"{folder}/input"
        put(storage_of(path), path, b"x" * 100)
        opened = storage_of(path).open_input(path, [(10, 20), (50, 1)])
        expected = bytes(10) + b"x" * 20 + bytes(20) + b"x" + bytes(49)
        assert read_by(opened.descriptor) == expected
    KeptFiles.held.clear()


def test_state_changes_with_the_file(folder: str) -> None:
    storage, path = storage_of(folder), f"{folder}/file"
    put(storage, path, b"one")
    before = storage.state(path)
    assert storage.state(path) == before
    put(storage, path, b"two")
    assert storage.state(path) != before


def test_files_are_listed_at_any_depth(folder: str) -> None:
    storage = storage_of(folder)
    names = ["z", "a/b/c", "a/b-c", "a/.hidden", "0"]
    for number, name in enumerate(names):
        put(storage, f"{folder}/{name}", b"x" * number)
    # A neighbour whose name begins alike is not below it.
    put(storage, f"{folder}er/z", b"")
    found = {each.path: each.size for each in storage.walk(folder)}
    assert found == {name: number for number, name in enumerate(names)}
    assert sorted(storage.names(folder)) == sorted(names)
    assert list(storage.names(f"{folder}/a/b")) == ["c"]
    assert list(storage.names(f"{folder}/nothing")) == []
    assert storage.exists(f"{folder}/a/b/c")
    assert not storage.exists(f"{folder}/a/b/d")


def test_odd_names(folder: str) -> None:
    storage = storage_of(folder)
    for name in ODD_NAMES:
        path = f"{folder}/{name}/{name}"
        put(storage, path, name.encode())
        assert storage.read(path) == name.encode()
        assert storage.state(path).size == len(name.encode())
        assert storage.exists(path)
    assert sorted(storage.names(folder)) == sorted(f"{name}/{name}" for name in ODD_NAMES)
    for name in ODD_NAMES:
        storage.replace(f"{folder}/{name}/{name}", f"{folder}/{name}/new {name}")
        assert storage.read(f"{folder}/{name}/new {name}") == name.encode()
    assert sorted(storage.names(folder)) == sorted(f"{name}/new {name}" for name in ODD_NAMES)
    for name in ODD_NAMES[::2]:
        storage.remove(f"{folder}/{name}/new {name}")
    storage.remove_tree(folder)
    assert list(storage.names(folder)) == []


def test_fetched_files_can_be_read_by_their_paths(folder: str) -> None:
    storage = storage_of(folder)
    paths = [f"{folder}/{number}" for number in range(20)]
    for number, path in enumerate(paths):
        put(storage, path, b"%d" % number)
    with storage.fetched(paths) as local:
        assert [Path(path).read_bytes() for path in local] == [b"%d" % n for n in range(20)]
        with pytest.raises(FileNotFoundError) as caught, storage.fetched([f"{folder}/no"]) as none:
            Path(none[0]).read_bytes()
        assert caught.value.filename == f"{folder}/no"
    with storage.fetched([]) as local:
        assert local == []
    if not storage.is_local:
        assert not any(os.path.exists(path) for path in local)


def test_a_file_is_placed_at_the_end_of_the_with_or_not_at_all(folder: str) -> None:
    storage, path = storage_of(folder), f"{folder}/placed"
    with storage.placing(path, durable=False) as descriptor:
        os.write(descriptor, b"12345")
        os.pwrite(descriptor, b"X", 2)
        assert not storage.exists(path)
    assert storage.read(path) == b"12X45"
    with suppress(RuntimeError), storage.placing(path) as descriptor:
        os.write(descriptor, b"other")
        raise RuntimeError
    assert storage.read(path) == b"12X45"
    assert list(storage.names(folder)) == ["placed"]


def test_a_file_replaces_another(folder: str) -> None:
    storage, old, new = storage_of(folder), f"{folder}/old", f"{folder}/new"
    put(storage, old, b"old")
    put(storage, new, b"new")
    storage.replace(new, old)
    assert storage.read(old) == b"new"
    assert list(storage.names(folder)) == ["old"]
    put(storage, new, b"newer")
    storage.replace(new, f"{folder}/first")
    assert storage.read(f"{folder}/first") == b"newer"
    with pytest.raises(FileNotFoundError):
        storage.replace(new, old)
    assert storage.read(old) == b"new"


def test_removing_what_is_not_there_does_nothing(folder: str) -> None:
    storage = storage_of(folder)
    storage.remove(f"{folder}/nothing")
    storage.remove_tree(f"{folder}/nothing")
    put(storage, f"{folder}/a/b", b"1")
    put(storage, f"{folder}/a/c/d", b"2")
    put(storage, f"{folder}/ab", b"3")
    storage.remove_tree(f"{folder}/a")
    assert list(storage.names(folder)) == ["ab"]
    storage.remove(f"{folder}/ab")
    assert list(storage.names(folder)) == []


def test_a_missing_file_is_named(folder: str) -> None:
    storage, path = storage_of(folder), f"{folder}/missing"
    for look in (storage.read, storage.state, storage.open_input):
        with pytest.raises(FileNotFoundError) as caught:
            look(path)
        assert caught.value.filename == path
        assert caught.value.strerror == "No such file or directory"
    assert not storage.exists(path)


def test_a_scheme_that_nobody_knows() -> None:
    path = "nonesuch://bucket/file"
    with pytest.raises(OSError, match="no Beam filesystem for this scheme is installed") as caught:
        storage_of(path).read(path)
    assert caught.value.filename == path


# S3


def test_more_objects_than_one_request_lists_or_removes(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "_REMOVED_AT_ONCE", 7)
    bucket = store.bucket()
    names = sorted(f"{n:02d}" for n in range(25))
    for name in names:
        store.put(f"{bucket}/all/{name}", b"")
    store.put(f"{bucket}/all/folder/", b"")  # as those make who look for folders
    store.put(f"{bucket}/allother", b"")
    real = s3_client.ask

    def few(path: str, request: str, **arguments: object) -> object:
        few = {"MaxKeys": 10} if request == "list_objects_v2" else {}
        return real(path, request, **arguments, **few)

    monkeypatch.setattr(s3_client, "ask", few)
    storage = storage_of(bucket)
    with store.counted() as counts:
        assert list(storage.names(f"{bucket}/all")) == names
    assert counts == {"LIST": 3}
    storage.remove_tree(f"{bucket}/all")
    assert store.read_all(bucket).keys() == {f"{bucket}/allother", f"{bucket}/all/folder/"}


def test_large_objects_are_sent_and_copied_in_parts(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", 5 << 20)  # S3 takes no smaller ones
    path, data = f"{store.bucket()}/large", Random(2).randbytes((11 << 20) + 1)
    storage = storage_of(path)
    with store.counted() as counts, storage.placing(path) as descriptor:
        os.write(descriptor, data)
    assert counts == {"PARTS": 5}
    assert store.read(path) == data
    with store.counted() as counts:
        storage.replace(path, path + "2")
    assert counts["PARTS"] == 5
    assert counts["COPY"] == 0
    assert store.read_all(path.rpartition("/")[0]) == {path + "2": data}


def test_an_upload_in_parts_that_fails_leaves_the_old_object_and_no_parts(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", 5 << 20)
    monkeypatch.setattr(s3_client, "ATTEMPTS", 1)
    path = f"{store.bucket()}/large"
    store.put(path, b"old")
    failing = store.failing(lambda request, number: Fault(503) if number == 3 else None)
    with failing, pytest.raises(OSError, match="so it is") as caught:
        write_placed(path, bytes(11 << 20))
    assert caught.value.filename == path
    assert store.read(path) == b"old"
    bucket = path.removeprefix("s3://").partition("/")[0]
    assert not store.client.list_multipart_uploads(Bucket=bucket).get("Uploads")


@pytest.mark.parametrize(
    "fault",
    [
        Fault(500),
        Fault(503, "SlowDown"),
        Fault(429, "TooManyRequests"),
        Fault(0),
        Fault(0, done=True),
    ],
    ids=str,
)
def test_what_fails_for_a_while_is_done_again(store: ObjectStore, fault: Fault) -> None:
    folder = store.bucket()
    storage = storage_of(folder)

    def twice(request: Request, number: int) -> Fault | None:
        return fault if number % 3 else None

    with store.failing(twice):
        storage.write(f"{folder}/a", b"data")
        storage.write(f"{folder}/b", b"data")
        storage.replace(f"{folder}/a", f"{folder}/c")
        assert storage.read(f"{folder}/c") == b"data"
        assert storage.read(f"{folder}/c", 1, 2) == b"at"
        assert storage.state(f"{folder}/c").size == 4
        assert sorted(storage.names(folder)) == ["b", "c"]
        storage.remove(f"{folder}/b")
        storage.remove_tree(folder)
        assert list(storage.names(folder)) == []


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault(500), "InternalError: so it is"),
        (Fault(503, "SlowDown"), "SlowDown: so it is"),
        (Fault(0), "Connection was closed before we received a valid response"),
        (Fault(501, "NotImplemented"), "NotImplemented: so it is"),
    ],
    ids=str,
)
def test_what_goes_on_failing_is_told(store: ObjectStore, fault: Fault, reason: str) -> None:
    path = f"{store.bucket()}/file"
    storage = storage_of(path)
    store.put(path, b"data")
    storage.read(path)  # somebody answers
    with store.counted() as counts, store.failing(lambda *_: fault):
        with pytest.raises(OSError, match=reason) as caught:
            storage.read(path)
        assert caught.value.filename == path
        assert "\n" not in str(caught.value.strerror)
    assert counts["GET"] == (1 if fault.status == 501 else s3_client.ATTEMPTS)
    with store.failing(lambda *_: fault):
        for do in (
            lambda: storage.write(path, b"other"),
            lambda: storage.remove(path),
            lambda: storage.exists(path),
            lambda: list(storage.walk(path)),
            lambda: storage.replace(path, path + "2"),
        ):
            with pytest.raises(OSError):  # noqa: PT011  of each kind of request its own words
                do()
    assert store.read_all(path.rpartition("/")[0]) == {path: b"data"}


def test_an_answer_that_is_cut_off_is_gone_on_with(store: ObjectStore) -> None:
    path, data = f"{store.bucket()}/file", Random(3).randbytes(500_000)
    store.put(path, data)
    storage = storage_of(path)
    cuts = iter([100_000, 1, 0, 0, 150_000])

    def cut(request: Request, _: int) -> Fault | None:
        length = next(cuts, None) if request.kind == "GET" else None
        return None if length is None else Fault(cut=length)

    with store.failing(cut):
        assert read_by(storage.open_input(path).descriptor) == data
    assert next(cuts, None) is None
    cuts = iter([10, 5])
    with store.failing(cut):
        assert storage.read(path, 100, 50) == data[100:150]
    failing = store.failing(lambda request, _: Fault(cut=0) if request.kind == "GET" else None)
    with failing, pytest.raises(OSError, match="the connection broke at byte 0") as caught:
        storage.read(path)
    assert caught.value.filename == path


def test_an_object_that_is_replaced_while_it_is_read(store: ObjectStore) -> None:
    path = f"{store.bucket()}/file"
    store.put(path, b"a" * 200_000)

    def replace(request: Request, number: int) -> Fault | None:
        if request.kind != "GET":
            return None
        if number == 1:
            return Fault(cut=100_000)
        store.fault = None
        store.put(path, b"b" * 200_000)
        return None

    with store.failing(replace), pytest.raises(OSError, match="replaced while it was read"):
        storage_of(path).open_input(path)


def test_an_upload_whose_answer_is_lost_is_done_again(store: ObjectStore) -> None:
    path = f"{store.bucket()}/file"
    lost = Fault(0, done=True)
    with store.failing(lambda _, number: lost if number == 1 else None):
        storage_of(path).write(path, b"data")
    assert store.read(path) == b"data"


def test_wrong_keys(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{store.bucket()}/file"
    store.put(path, b"data")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    with store.counted() as counts:
        with pytest.raises(PermissionError, match="InvalidAccessKeyId: so it is") as caught:
            storage_of(path).read(path)
        assert caught.value.filename == path
        with pytest.raises(PermissionError, match=r"Forbidden|so it is"):
            storage_of(path).state(path)
        with pytest.raises(PermissionError):
            list(storage_of(path).walk(path))
    assert counts.total() == 3


def test_no_keys(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(OSError, match="Unable to locate credentials") as caught:
        storage_of("s3://bucket").read("s3://bucket/file")
    assert caught.value.filename == "s3://bucket/file"


def test_no_such_bucket(store: ObjectStore) -> None:
    path = "s3://no-such-bucket/file"
    storage = storage_of(path)
    for look in (storage.read, storage.open_input, lambda p: storage.write(p, b"")):
        with pytest.raises(OSError, match="NoSuchBucket: The specified bucket does not") as caught:
            look(path)
        assert not isinstance(caught.value, FileNotFoundError)
        assert caught.value.filename == path
    with pytest.raises(OSError, match="NoSuchBucket"):
        list(storage.walk(path))


@pytest.mark.parametrize("bucket", ["A B", "", "x" * 300])
def test_what_cannot_be_a_bucket(store: ObjectStore, bucket: str) -> None:
    path = f"s3://{bucket}/file"
    with pytest.raises(OSError, match=r"[Bb]ucket") as caught:
        storage_of(path).read(path)
    assert caught.value.filename == path


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:{port}", "no address", "http://"])
def test_a_wrong_address_is_told_soon(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint.format(port=free_port()))
    with pytest.raises(OSError, match=r"Could not connect|Invalid endpoint") as caught:
        storage_of("s3://bucket").read("s3://bucket/file")
    assert caught.value.filename == "s3://bucket/file"


def test_who_has_never_answered_is_not_waited_for(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client, "_READ_SECONDS", 0.2)
    monkeypatch.setattr(s3_client, "FIRST_SECONDS", 0.1)
    with silent_server() as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{port}")
        with pytest.raises(OSError, match="Read timeout") as caught:
            storage_of("s3://bucket").read("s3://bucket/file")
    assert caught.value.filename == "s3://bucket/file"


def test_options_of_beam_count_more_than_the_environment(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from apache_beam.options.pipeline_options import PipelineOptions

    from candlebeam.storage.remote import use_options

    path = f"{store.bucket()}/file"
    for name in store.environment:
        monkeypatch.setenv(name, "http://nowhere.invalid" if "URL" in name else "nothing")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    use_options(PipelineOptions([*store.options, "--s3_verify=False", "--s3_disable_ssl"]))
    storage_of(path).write(path, b"data")
    assert store.read(path) == b"data"


def test_without_boto3_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "boto3.exceptions", None)
    with pytest.raises(OSError, match=r"s3:// wants boto3: install candlebeam\[s3\]"):
        storage_of("s3://bucket").read("s3://bucket/file")
