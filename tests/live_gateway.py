"""A gateway on the loopback that speaks the protocol of Databento's live API.

It serves what it is given, as often as it is asked, and does wrong what it is told to do wrong:
one `Fault` a connection. Source of the protocol: Databento's description of its raw API. The lines
before the records are `key=value` joined by `|`; the answer to a challenge is the SHA-256 of
`challenge|key` in hex, a dash, and the last five characters of the key.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from databento_dbn import ErrorCode, ErrorMsg, Metadata, SType, SystemCode, SystemMsg

KEY = "db-Kq7xXyZ0123456789abcdefGHJK12"
_BUCKET = 5
_MAPPING = 0x16
_EVENT, _ASKED = slice(8, 16), slice(17, 88)


def event_of(item: bytes) -> int:
    """The `ts_event` of a record."""
    return int(struct.unpack("<Q", item[_EVENT])[0])


def system(ns: int, text: str, code: Any = None) -> bytes:
    """A system message."""
    return bytes(SystemMsg(ns, text, code=code))


def error(ns: int, text: str, code: Any = None) -> bytes:
    """An error of the gateway."""
    return bytes(ErrorMsg(ns, text, code=code))


@dataclass
class Fault:
    """What goes wrong with one connection.

    Attributes:
        hang_up: it ends at once.
        early: it ends in the middle of the greeting.
        mute: nothing is ever said.
        refusal: of the key, whatever it is.
        cut_after: it ends after so many bytes of the stream.
        reset: ... by a reset, not in an orderly way.
        silent: nothing more is said once everything is sent; no heartbeats either.
        piece: how many bytes are sent at once.
        pause: seconds between such pieces.
        message: a record that follows behind `message_after` records.
        hang_up_then: whether the connection ends behind it.
        unsorted: seed of the order in which records of one `ts_event` come.
        everything: the replay ignores `start` and has all.
        only_from: the replay goes back no further than this.
        untold: no system message tells that the replay is complete.
    """

    hang_up: bool = False
    early: bool = False
    mute: bool = False
    refusal: str | None = None
    cut_after: int | None = None
    reset: bool = False
    silent: bool = False
    piece: int = 1 << 16
    pause: float = 0.0
    message: bytes | None = None
    message_after: int = 0
    hang_up_then: bool = False
    unsorted: int | None = None
    everything: bool = False
    only_from: int = 0
    untold: bool = False


class _HungUp(Exception):
    """The connection is over."""


@dataclass
class LiveGateway:
    """What is served, and what came of it.

    Attributes:
        items: records in the order in which they were received: trades and mappings.
        now_ns: the gateway's clock: what heartbeats say.
        dataset, key: whom it lets in.
        heartbeat_s: seconds from one heartbeat to the next.
        known: symbols that resolve; None resolves all.
        faults: of the connections to come, one each.
        requests: the lines of each connection, in order, as they came.
        mappings: by `stype_in_symbol`, mappings that hold at the start of each session; None takes
            those of `items` that stand before the first record that is sent.
    """

    items: list[bytes] = field(default_factory=list)
    now_ns: int = 0
    dataset: str = "XNAS.ITCH"
    key: str = KEY
    heartbeat_s: float = 0.02
    known: set[str] | None = None
    faults: list[Fault] = field(default_factory=list)
    requests: list[list[dict[str, str]]] = field(default_factory=list)
    mappings: list[bytes] | None = None

    def __post_init__(self) -> None:
        self._changed = threading.Condition()
        self._over = False
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.port = 0

    # What a test does with it

    def send(self, *items: bytes) -> None:
        """Adds records to those that are served; who is connected gets them."""
        with self._changed:
            self.items.extend(items)
            self._changed.notify_all()

    def cut(self) -> None:
        """Ends all connections."""
        with self._changed:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def wait_for_sessions(self, count: int) -> None:
        """Until so many connections have asked for records."""
        with self._changed:
            done = self._changed.wait_for(
                lambda: (
                    sum("start_session" in lines[-1] for lines in self.requests if lines) >= count
                ),
                60,
            )
        assert done, f"{len(self.requests)} connections"

    def subscriptions(self) -> list[dict[str, str]]:
        """All that were asked for."""
        return [line for lines in list(self.requests) for line in lines if "schema" in line]

    def listen(self) -> None:
        """Takes connections; at the same port as before, if there was one."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        thread = threading.Thread(target=self._accept, args=(self._listener,))
        self._threads.append(thread)
        thread.start()

    def refuse(self) -> None:
        """Takes no connections any more, and ends those there are."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.cut()

    def close(self) -> None:
        """Ends everything."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
        self.refuse()
        while self._threads:
            self._threads.pop().join()

    # What a connection sees

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self._changed:
                if self._over:
                    connection.close()
                    return
                fault = self.faults.pop(0) if self.faults else Fault()
                lines: list[dict[str, str]] = []
                self.requests.append(lines)
                self._open.add(connection)
                thread = threading.Thread(target=self._serve, args=(connection, fault, lines))
                self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket, fault: Fault, lines: list[dict[str, str]]) -> None:
        try:
            with connection, contextlib.suppress(OSError, _HungUp):
                _Conversation(self, connection, fault, lines).hold()
        finally:
            with self._changed:
                self._open.discard(connection)


class _Conversation:
    """One connection."""

    def __init__(
        self,
        gateway: LiveGateway,
        connection: socket.socket,
        fault: Fault,
        lines: list[dict[str, str]],
    ) -> None:
        self.gateway, self.connection, self.fault, self.lines = gateway, connection, fault, lines
        self.text = connection.makefile("rb")
        self.sent = 0

    def hold(self) -> None:
        with self.text:
            if self.fault.hang_up:
                return
            if self.fault.mute:
                self._wait_forever()
            if not self._let_in():
                return
            asked: list[dict[str, str]] = []
            while "start_session" not in (line := self._line()):
                asked.append(line)
            self._stream(asked)

    def _line(self) -> dict[str, str]:
        text = self.text.readline()
        if not text.endswith(b"\n"):
            raise _HungUp
        pairs = (pair.partition("=") for pair in text.decode().strip().split("|"))
        line = {name: value for name, _, value in pairs}
        with self.gateway._changed:
            self.lines.append(line)
            self.gateway._changed.notify_all()
        return line

    def _let_in(self) -> bool:
        gateway = self.gateway
        challenge = secrets.token_hex(16)
        greeting = f"lsg_version=0.6.0\ncram={challenge}\n".encode()
        if self.fault.early:
            self.connection.sendall(greeting[:25])
            return False
        self.connection.sendall(greeting)
        line = self._line()
        digest = hashlib.sha256(f"{challenge}|{gateway.key}".encode()).hexdigest()
        refusal = self.fault.refusal
        if refusal is None and line["auth"] != f"{digest}-{gateway.key[-_BUCKET:]}":
            refusal = "Authentication failed."
        if refusal is None and line["dataset"] != gateway.dataset:
            refusal = f"Unknown dataset {line['dataset']}"
        assert line["encoding"] == "dbn", line
        assert line["ts_out"] == "0", line
        if refusal is not None:
            self.connection.sendall(f"success=0|error={refusal}\n".encode())
            return False
        self.connection.sendall(b"success=1|session_id=1710000000\n")
        return True

    def _stream(self, asked: list[dict[str, str]]) -> None:
        gateway = self.gateway
        with gateway._changed:
            known = len(gateway.items)
        starts = [int(line["start"]) for line in asked if "start" in line]
        start = min(starts) if starts else None
        head = Metadata(
            dataset=gateway.dataset, start=start or gateway.now_ns, stype_in=None,
            stype_out=SType.INSTRUMENT_ID, schema=None,
        )  # fmt: skip
        self._send(bytes(head.encode()))
        if any(line["schema"] not in ("trades", "tbbo", "mbo") for line in asked):
            self._send(error(gateway.now_ns, "Invalid schema", ErrorCode.INVALID_SUBSCRIPTION))
            return
        symbols = [symbol for line in asked for symbol in line["symbols"].split(",")]
        for symbol in symbols:
            if gateway.known is not None and symbol not in gateway.known:
                text = f"Failed to resolve symbol: {symbol}"
                code = ErrorCode.SYMBOL_RESOLUTION_FAILED
                self._send(error(gateway.now_ns, text, code))
        text = f"Subscription request 0 for {asked[0]['schema']} data succeeded"
        self._send(system(gateway.now_ns, text, SystemCode.SUBSCRIPTION_ACK))
        records = 0
        for item in self._replay(start, known):
            self._send(item)
            records += 1
            self._interrupt(records)
        if start is not None and not self.fault.untold:
            text = f"Finished {asked[0]['schema']} replay"
            self._send(system(gateway.now_ns, text, SystemCode.REPLAY_COMPLETED))
        self._live(known, records)

    def _replay(self, start: int | None, known: int) -> Iterator[bytes]:
        """What is there when a session begins: first the mappings that hold by then."""
        fault = self.fault
        items = self.gateway.items[:known]
        first = known
        if start is not None:
            first = next(
                (
                    place
                    for place, item in enumerate(items)
                    if item[1] != _MAPPING and self._wanted(item, start)
                ),
                known,
            )
        held: dict[bytes, bytes] = {}
        for item in items[:first]:
            if item[1] == _MAPPING:
                held[item[4:8] + item[_ASKED]] = item
        yield from held.values() if self.gateway.mappings is None else self.gateway.mappings
        replayed = [
            item
            for item in items[first:]
            if item[1] == _MAPPING or (start is not None and self._wanted(item, start))
        ]
        if fault.unsorted is not None:
            replayed = _shuffled(replayed, fault.unsorted)
        yield from replayed

    def _wanted(self, item: bytes, start: int) -> bool:
        event = event_of(item)
        return event >= self.fault.only_from and (self.fault.everything or event >= start)

    def _live(self, at: int, records: int) -> None:
        gateway = self.gateway
        while True:
            with gateway._changed:
                if self.fault.silent:
                    gateway._changed.wait_for(lambda: gateway._over)
                elif len(gateway.items) <= at and not gateway._over:
                    gateway._changed.wait(gateway.heartbeat_s)
                if gateway._over:
                    return
                new, at = gateway.items[at:], len(gateway.items)
            for item in new:
                self._send(item)
                records += 1
                self._interrupt(records)
            if not new:
                self._send(system(gateway.now_ns, "Heartbeat", SystemCode.HEARTBEAT))

    def _interrupt(self, records: int) -> None:
        fault = self.fault
        if fault.message is not None and records == fault.message_after:
            self._send(fault.message)
            if fault.hang_up_then:
                raise _HungUp

    def _send(self, data: bytes) -> None:
        fault = self.fault
        if fault.cut_after is not None and self.sent + len(data) >= fault.cut_after:
            self.connection.sendall(data[: max(fault.cut_after - self.sent, 0)])
            if fault.reset:
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            raise _HungUp
        for begin in range(0, len(data), fault.piece):
            self.connection.sendall(data[begin : begin + fault.piece])
            if fault.pause:
                threading.Event().wait(fault.pause)
        self.sent += len(data)

    def _wait_forever(self) -> None:
        with self.gateway._changed:
            self.gateway._changed.wait_for(lambda: self.gateway._over)


def _shuffled(items: list[bytes], seed: int) -> list[bytes]:
    """Neighbours of one `ts_event` in another order; mappings stay where they are."""
    order = np.random.default_rng(seed)
    result: list[bytes] = []
    run: list[bytes] = []
    for item in [*items, b""]:
        if run and (not item or item[1] == _MAPPING or event_of(item) != event_of(run[0])):
            result += [run[place] for place in order.permutation(len(run))]
            run = []
        if item and item[1] == _MAPPING:
            result.append(item)
        elif item:
            run.append(item)
    return result


@contextmanager
def live_gateway(*items: bytes, **options: Any) -> Iterator[LiveGateway]:
    """A gateway that listens."""
    gateway = LiveGateway(list(items), **options)
    gateway.listen()
    try:
        yield gateway
    finally:
        gateway.close()
