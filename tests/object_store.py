"""An S3 server on the loopback that counts requests and can be made to fail.

    python -m tests.object_store PORT

is one for other programs. What it does not do as S3 does, where that could hide a mistake, is done
in front of it: keys are looked at, and an upload in parts must have some.

Where `CANDLEBEAM_TEST_S3` is the URL of another server, with the keys and the region that stand
below, that one is used instead.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote
from uuid import uuid4

_OWN_HEADERS = ("connection", "date", "keep-alive", "server", "transfer-encoding")
KEY_ID, SECRET, REGION = "the-key", "the-secret", "eu-central-1"


class Request(NamedTuple):
    """What somebody wants: one of GET, HEAD, PUT, COPY, LIST, DELETE, PARTS, OTHER; of which key.

    PARTS are the requests of an upload in parts. The key of LIST is the prefix; DELETE of many has
    none.
    """

    kind: str
    bucket: str
    key: str


@dataclass(frozen=True)
class Fault:
    """What goes wrong with a request.

    Attributes:
        status: to answer with, and nothing is done; 0 breaks the connection.
        code: S3's name of the error.
        done: whether the request is carried out before.
        cut: breaks the connection behind so many bytes of the right answer's body.
        pause: seconds to wait before all that.
    """

    status: int | None = None
    code: str = "InternalError"
    done: bool = False
    cut: int | None = None
    pause: float = 0


@dataclass
class ObjectStore:
    """A running server.

    Attributes:
        endpoint: its URL.
        requests: all there were, in order.
        fault: asked for each request, with its number since it was set, from 1.
    """

    endpoint: str
    requests: list[Request] = field(default_factory=list)
    fault: Callable[[Request, int], Fault | None] | None = None

    def __post_init__(self) -> None:
        self._faulty = 0
        self._lock = threading.Lock()
        self._client: Any = None

    # For programs

    @property
    def environment(self) -> dict[str, str]:
        """What has AWS's libraries use it."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    @property
    def options(self) -> tuple[str, ...]:
        """The same as options of Beam."""
        return (
            f"--s3_endpoint_url={self.endpoint}",
            f"--s3_access_key_id={KEY_ID}",
            f"--s3_secret_access_key={SECRET}",
            f"--s3_region_name={REGION}",
        )

    # For tests

    @property
    def client(self) -> Any:
        """A client of boto3."""
        if self._client is None:
            import boto3

            self._client = boto3.session.Session().client(
                "s3",
                endpoint_url=self.endpoint,
                region_name=REGION,
                aws_access_key_id=KEY_ID,
                aws_secret_access_key=SECRET,
            )
        return self._client

    def bucket(self) -> str:
        """A new bucket, as `s3://name`."""
        name = f"test-{uuid4().hex}"
        self.client.create_bucket(
            Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        return f"s3://{name}"

    def put(self, path: str, data: bytes) -> None:
        bucket, _, key = path.removeprefix("s3://").partition("/")
        self.client.put_object(Bucket=bucket, Key=key, Body=data)

    def put_folder(self, path: str, folder: Path) -> None:
        """Puts the files below a folder in the place of what is below a prefix."""
        kept = {f"{path}/{f.relative_to(folder).as_posix()}": f.read_bytes()
                for f in sorted(folder.rglob("*")) if f.is_file()}  # fmt: skip
        for other in self.read_all(path).keys() - kept.keys():
            self.delete(other)
        for name, data in kept.items():
            self.put(name, data)

    def read(self, path: str) -> bytes:
        bucket, _, key = path.removeprefix("s3://").partition("/")
        with self.client.get_object(Bucket=bucket, Key=key)["Body"] as body:
            data: bytes = body.read()
        return data

    def read_all(self, path: str) -> dict[str, bytes]:
        """The objects below a prefix, by their paths."""
        bucket, _, prefix = path.removeprefix("s3://").partition("/")
        prefix = f"{prefix}/" if prefix else ""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [found["Key"] for page in pages for found in page.get("Contents", ())]
        return {f"s3://{bucket}/{key}": self.read(f"s3://{bucket}/{key}") for key in keys}

    def delete(self, path: str) -> None:
        bucket, _, key = path.removeprefix("s3://").partition("/")
        self.client.delete_object(Bucket=bucket, Key=key)

    @contextmanager
    def counted(self) -> Iterator[Counter[str]]:
        """How many requests of each kind come inside the `with`; complete at its end."""
        found: Counter[str] = Counter()
        begin = len(self.requests)
        yield found
        found.update(request.kind for request in self.requests[begin:])

    @contextmanager
    def failing(self, fault: Callable[[Request, int], Fault | None]) -> Iterator[None]:
        """Has requests fail inside the `with`."""
        self._faulty, self.fault = 0, fault
        try:
            yield
        finally:
            self.fault = None

    def note(self, request: Request) -> Fault | None:
        """Called by the server for each request."""
        with self._lock:
            self.requests.append(request)
            self._faulty += 1
            number, fault = self._faulty, self.fault
        return fault(request, number) if fault else None


class _Front:
    """What stands in front of the server: a WSGI application."""

    def __init__(self, store: ObjectStore, behind: Any) -> None:
        self._store, self._behind = store, behind

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        request = _request(environ)
        fault = self._store.note(request)
        if fault is None:
            return self._answer(request, environ, start)
        time.sleep(fault.pause)
        if fault.done:
            b"".join(self._behind(environ, lambda *_: None))
        if fault.status == 0:
            _break(environ)
            return ()
        if fault.status is not None:
            return _error(environ, start, fault.status, fault.code)
        answer = self._answer(request, environ, start)
        return answer if fault.cut is None else _cut(environ, answer, fault.cut)

    def _answer(self, request: Request, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        # The server behind takes any key.
        used = re.search(r"Credential=([^/]+)/|AWS ([^:]+):", environ.get("HTTP_AUTHORIZATION", ""))
        if used is None:
            return _error(environ, start, 403, "AccessDenied")
        if KEY_ID not in used.groups():
            return _error(environ, start, 403, "InvalidAccessKeyId")
        if request.kind == "PARTS" and "uploadId=" in environ["QUERY_STRING"]:
            # It would also complete an upload of no parts, which S3 does not.
            length = int(environ.get("CONTENT_LENGTH") or 0)
            if environ["REQUEST_METHOD"] == "POST" and length < len("<Part></Part>"):
                return _error(environ, start, 400, "MalformedXML")
        answer: Iterable[bytes] = self._behind(environ, start)
        return answer


class _Other:
    """Hands requests on to another server, as they are: they are signed."""

    def __init__(self, url: str) -> None:
        self._address = url.removeprefix("http://").rstrip("/")

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        headers = {
            name.removeprefix("HTTP_").replace("_", "-"): value
            for name, value in environ.items()
            if name.startswith("HTTP_") or name in ("CONTENT_TYPE", "CONTENT_LENGTH")
        }
        headers.pop("EXPECT", None)
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length) if length else None
        connection = HTTPConnection(self._address)
        with closing(connection):
            connection.request(environ["REQUEST_METHOD"], environ["REQUEST_URI"], body, headers)
            answer = connection.getresponse()
            kept = [pair for pair in answer.getheaders() if pair[0].lower() not in _OWN_HEADERS]
            data = answer.read()
        if environ["REQUEST_METHOD"] != "HEAD":
            kept = [pair for pair in kept if pair[0].lower() != "content-length"]
            kept.append(("Content-Length", str(len(data))))
        start(f"{answer.status} {answer.reason}", kept)
        return [data]


def _request(environ: dict[str, Any]) -> Request:
    path = environ["PATH_INFO"].encode("latin-1").decode()
    bucket, _, key = path.lstrip("/").partition("/")
    query = parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
    method = environ["REQUEST_METHOD"]
    if "uploads" in query or "uploadId" in query:
        return Request("PARTS", bucket, key)
    if method == "GET" and not key:
        prefix = unquote(query.get("prefix", [""])[0])
        return Request("LIST" if "list-type" in query else "OTHER", bucket, prefix)
    if method == "POST" and "delete" in query:
        return Request("DELETE", bucket, "")
    if method == "PUT" and "HTTP_X_AMZ_COPY_SOURCE" in environ:
        return Request("COPY", bucket, key)
    return Request(method if key else "OTHER", bucket, key)


def _error(environ: dict[str, Any], start: Any, status: int, code: str) -> list[bytes]:
    if int(environ.get("CONTENT_LENGTH") or 0):
        environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>so it is</Message></Error>"
    data = b"" if environ["REQUEST_METHOD"] == "HEAD" else body.encode()
    headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(data)))]
    start(f"{status} Error", headers)
    return [data]


def _break(environ: dict[str, Any]) -> None:
    with suppress(OSError):
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)


def _cut(environ: dict[str, Any], answer: Iterable[bytes], length: int) -> Iterator[bytes]:
    yield b"".join(answer)[:length]
    _break(environ)


def _server_behind() -> Any:
    if url := os.environ.get("CANDLEBEAM_TEST_S3"):
        return _Other(url)
    from moto.server import DomainDispatcherApplication, create_backend_app

    return DomainDispatcherApplication(create_backend_app)


@contextmanager
def object_store(port: int = 0) -> Iterator[ObjectStore]:
    """A server that is empty at first, and gone at the end of the `with`."""
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, *_: object) -> None:
            pass

        def connection_dropped(self, *_: object) -> None:
            pass

    store = ObjectStore("")
    front = _Front(store, _server_behind())
    server = make_server("127.0.0.1", port, front, threaded=True, request_handler=Quiet)
    store.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield store
    finally:
        forget_clients()
        if store._client is not None:
            store._client.close()
        server.shutdown()
        thread.join()
        server.server_close()


def forget_clients() -> None:
    """Has storages of this process begin anew: other keys, another server."""
    from candlebeam.storage import s3_client

    for client in s3_client._clients.values():
        client.close()
    s3_client._clients.clear()
    s3_client._answered.clear()
    beam: Any = sys.modules.get("apache_beam.io.filesystems")
    if beam is not None:
        beam.FileSystems._pipeline_options = None


if __name__ == "__main__":
    with object_store(int(sys.argv[1])) as running:
        print(running.endpoint, running.bucket(), flush=True)
        threading.Event().wait()
