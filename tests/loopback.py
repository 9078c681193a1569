"""Servers on the loopback that answer, refuse, hang and talk nonsense."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What a server says to a request."""

    body: bytes
    status: int = 200
    kind: str = "application/json"


def json_answer(value: Any, status: int = 200) -> Answer:
    return Answer(json.dumps(value).encode(), status)


class RestServer(ThreadingHTTPServer):
    """Answers by method and path, as in `answers["GET /overview"]`; with 404 what is not there."""

    daemon_threads = False
    request_queue_size = 16

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, Answer] = {}
        self.missing = json_answer({"errors": ["Not found."]}, 404)
        self.requests: list[str] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: RestServer

    def _answer(self) -> None:
        request = f"{self.command} {self.path}"
        self.server.requests.append(request)
        answer = self.server.answers.get(request, self.server.missing)
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_PATCH = _answer  # noqa: N815  names that http.server looks for

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@contextmanager
def rest_server() -> Iterator[RestServer]:
    """A server that answers in the background."""
    with RestServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def free_port() -> int:
    """A port of the loopback at which nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def raw_server(*pieces: bytes, pause: float = 0, close: bool = True) -> Iterator[int]:
    """A port that sends the pieces to the first who connects, whatever that one says.

    Args:
        pause: seconds before each piece.
        close: whether the connection is closed then, not at the end of the `with`.
    """
    over = threading.Event()

    def serve() -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.settimeout(5)
            try:
                connection.recv(1 << 16)
                for piece in pieces:
                    if over.wait(pause):
                        return
                    connection.sendall(piece)
            except OSError:
                return
            if not close:
                over.wait(60)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@contextmanager
def silent_server() -> Iterator[int]:
    """A port where connections are taken and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]
