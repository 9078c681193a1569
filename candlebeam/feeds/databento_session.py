"""One connection to Databento's live gateway, from its beginning to its end."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from candlebeam.errors import CandlebeamError
from candlebeam.feeds.inbox import HEAD, MAPPING, SYSTEM, TRADES, Inbox
from candlebeam.formats.dbn.metadata import databento_dbn

#: How a session ended.
CUT = "cut"  #: another one may fare better
REFUSED = "refused"  #: none will
AGED_OUT = "aged out"  #: the replay reaches back too far
CLOSED = "closed"  #: on our side

_ERROR, _MAPPING, _SYSTEM = 0x15, 0x16, 0x17
_DEFAULT_PORT = 13_000
#: Codes of the gateway's errors.
_AUTH_FAILED, _KEY_DEACTIVATED, _NOT_RESOLVED, _INVALID, _AGED_OUT = 1, 2, 4, 5, 8
_HEARTBEAT, _REPLAY_COMPLETED, _UNSET = 0, 3, 255
#: Refusals that pass: sessions of before the cut may be counted for a while.
_PASSING = ("limit", "too many", "try again", "unavailable")


@dataclass(frozen=True)
class Wish:
    """What is asked of a gateway.

    Attributes:
        dataset, schema, symbols, stype_in: as Databento names them.
        gateway, port: where it is; None means Databento's own.
        heartbeat_interval_s: seconds after which the gateway speaks up if it has nothing to say.
        silence_s: seconds without a word after which the connection is given up.
        start_ns: replay from this `ts_event` on; 0 means all there is; None means none.
    """

    dataset: str
    schema: str
    symbols: tuple[str, ...]
    stype_in: str
    gateway: str | None
    port: int | None
    heartbeat_interval_s: int
    silence_s: float
    start_ns: int | None


@dataclass(frozen=True)
class Ending:
    """How a session ended, and why, in words; `heard` is whether it brought any record."""

    kind: str
    reason: str
    heard: bool = False


@dataclass(frozen=True)
class SystemText:
    """A system message: when it was sent (ns), what it says, and what it means."""

    ts_ns: int
    text: str
    heartbeat: bool
    replay_completed: bool


def read_system(record: bytes) -> SystemText:
    """What a system message says."""
    row = np.frombuffer(record, np.dtype(databento_dbn().SystemMsg._dtypes), 1)[0]
    text, code = _text(row["msg"]), int(row["code"])
    told = code == _UNSET
    return SystemText(
        int(row["ts_event"]),
        text,
        code == _HEARTBEAT or (told and text == "Heartbeat"),
        code == _REPLAY_COMPLETED or (told and text.startswith("Finished") and "replay" in text),
    )


class Session:
    """A connection; `run` it, once, in a thread of its own.

    Args:
        wish: what is asked for.
        key: never shown.
        trade_type: the type of the records that may hold trades.
        inbox: gets what comes.
        log: is called with a sentence when the gateway says something; from another thread.
    """

    def __init__(
        self, wish: Wish, key: str, trade_type: int, inbox: Inbox, log: Callable[[str], None]
    ) -> None:
        self._wish, self._key, self._inbox, self._log = wish, key, inbox, log
        self._trade_type = trade_type
        self._stopped = threading.Event()
        self._changed = threading.Event()
        self._ending: Ending | None = None
        self._unresolved = 0
        self._heard = False
        self._last = time.monotonic()
        self._loop: _Loop | None = None

    def stop(self) -> None:
        """Ends it soon; callable from any thread."""
        self._stopped.set()
        self._changed.set()
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # closed meanwhile
                loop.call_soon_threadsafe(loop.give_up)

    def run(self) -> Ending:
        """Connects, and waits for the end; afterwards nothing of it is left."""
        self._loop = loop = _Loop()
        thread = threading.Thread(target=loop.run_forever, name="databento-live", daemon=True)
        thread.start()
        live: Any = None
        try:
            live = self._client(loop)
            failure = self._connect(live, loop)
            return failure if failure is not None else self._wait(live, loop)
        finally:
            loop.end(live)
            thread.join()
            loop.close()

    def _client(self, loop: _Loop) -> Any:
        databento = _library()
        wish = self._wish
        options: dict[str, Any] = {}
        if "slow_reader_behavior" in inspect.signature(databento.Live.__init__).parameters:
            options["slow_reader_behavior"] = "warn"
        live = databento.Live(
            key=self._key,
            gateway=wish.gateway,
            port=wish.port or _DEFAULT_PORT,
            heartbeat_interval_s=wish.heartbeat_interval_s,
            loop=loop,
            **options,
        )
        live.add_stream(_Stream(self._take))
        return live

    def _connect(self, live: Any, loop: _Loop) -> Ending | None:
        """Up to the start of the stream; why not, if it could not."""
        if self._stopped.is_set():
            return Ending(CLOSED, "")
        wish = self._wish
        try:
            live.subscribe(
                dataset=wish.dataset,
                schema=wish.schema,
                symbols=list(wish.symbols),
                stype_in=wish.stype_in,
                start=wish.start_ns,
            )
        except (ValueError, TypeError) as error:
            return Ending(REFUSED, self._hidden(f"the subscription: {_words(error)}"))
        except (_library().BentoError, OSError, CancelledError, _EarlyCut) as error:
            if self._stopped.is_set():
                return Ending(CLOSED, "")
            refusal = loop.refusal()
            if refusal is None:
                return Ending(CUT, self._hidden(_words(error)))
            passing = any(word in refusal.lower() for word in _PASSING)
            reason = f"the gateway does not let us in: {refusal or 'no reason given'}"
            return Ending(CUT if passing else REFUSED, self._hidden(reason))
        try:
            live.start()
        except ValueError:
            return Ending(CUT, "the gateway closed the connection")
        return None

    def _wait(self, live: Any, loop: _Loop) -> Ending:
        closed = asyncio.run_coroutine_threadsafe(live.wait_for_close(), loop)
        closed.add_done_callback(lambda _: self._changed.set())
        while True:
            self._changed.clear()
            if self._stopped.is_set():
                return Ending(CLOSED, "", self._heard)
            if self._ending is not None:
                return self._ending
            if closed.done():
                error = None if closed.cancelled() else closed.exception()
                reason = "the gateway closed the connection" if error is None else _words(error)
                return Ending(CUT, self._hidden(reason), self._heard)
            silent = 0.0 if self._inbox.full else time.monotonic() - self._last
            if silent >= self._wish.silence_s:
                return Ending(CUT, f"not a word from the gateway for {silent:.0f} s", self._heard)
            self._changed.wait(min(self._wish.silence_s - silent, 1.0))

    def _take(self, data: bytes) -> None:
        """One record, or what stands in front of the first; in the thread of the loop."""
        if self._ending is not None or self._stopped.is_set():
            return
        try:
            self._put(data)
        except Exception as error:  # noqa: BLE001  the client only logs what its streams raise
            self._ending = Ending(CUT, self._hidden(_words(error)), self._heard)
            self._changed.set()

    def _put(self, data: bytes) -> None:
        kind = data[1]
        if not self._heard and data[:3] == b"DBN":
            self._inbox.put(HEAD, data)
        elif kind == self._trade_type:
            self._inbox.put(TRADES, data)
        elif kind == _MAPPING:
            self._inbox.put(MAPPING, data)
        elif kind == _SYSTEM:
            message = read_system(data)
            if not message.heartbeat:
                self._log(self._hidden(f"the gateway says: {message.text}"))
            self._inbox.put(SYSTEM, data)
        elif kind == _ERROR:
            self._error(data)
        self._heard = True
        self._last = time.monotonic()

    def _error(self, data: bytes) -> None:
        row = np.frombuffer(data, np.dtype(databento_dbn().ErrorMsg._dtypes), 1)[0]
        text, code = self._hidden(_text(row["err"])), int(row["code"])
        self._log(f"the gateway reports an error: {text}")
        if code == _NOT_RESOLVED:
            self._unresolved += 1
            if self._unresolved < len(self._wish.symbols):
                return  # the others go on
        reasons = {_AGED_OUT: AGED_OUT}
        reasons |= dict.fromkeys((_AUTH_FAILED, _KEY_DEACTIVATED, _NOT_RESOLVED, _INVALID), REFUSED)
        kind = reasons.get(code, CUT)
        reason = f"the gateway refuses the subscription: {text}" if kind == REFUSED else text
        self._ending = Ending(kind, reason, self._heard)
        self._changed.set()

    def _hidden(self, text: str) -> str:
        return text.replace(self._key, "***")


class _Loop(asyncio.SelectorEventLoop):
    """An event loop of one connection, which leaves nothing open behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.name_threads = ThreadPoolExecutor(1, thread_name_prefix="databento-live-name")
        self.set_default_executor(self.name_threads)
        # What futures hold that nobody asks any more was told already.
        self.set_exception_handler(lambda loop, context: None)
        self.gave_up = self.ending = False
        self.opened: list[asyncio.Transport] = []
        self.answer: asyncio.Future[Any] | None = None

    async def create_connection(self, *arguments: Any, **named: Any) -> Any:
        """As it is, but what is opened is known, and an early cut is noticed at once."""
        if self.gave_up:
            raise ConnectionAbortedError("closed")
        transport, protocol = await super().create_connection(*arguments, **named)
        self.opened.append(transport)
        self.answer = authenticated = protocol.authenticated

        def cut(_: Any) -> None:
            if not authenticated.done():
                authenticated.set_exception(_EarlyCut("the gateway closed the connection early"))

        protocol.disconnected.add_done_callback(cut)
        return transport, protocol

    def refusal(self) -> str | None:
        """What the gateway said when it did not take the key; None if it said nothing."""
        future = self.answer
        if future is None or not future.done() or future.cancelled():
            return None
        error = future.exception()
        return None if error is None or isinstance(error, _EarlyCut) else str(error)

    def give_up(self) -> None:
        """Ends whatever is waited for, unless that is being done already."""
        if self.ending:
            return
        self.gave_up = True
        for transport in self.opened:
            transport.abort()
        for task in asyncio.all_tasks(self):
            task.cancel()

    def end(self, live: Any) -> None:
        """Closes all there is, and stops; from another thread."""

        async def finish() -> None:
            if live is not None:
                live.terminate()
            for transport in self.opened:
                transport.abort()
            own = asyncio.current_task()
            others = [task for task in asyncio.all_tasks() if task is not own]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await asyncio.sleep(0)

        self.ending = True
        done = asyncio.run_coroutine_threadsafe(finish(), self)
        try:
            done.result()
        finally:
            self.call_soon_threadsafe(self.stop)
            self.name_threads.shutdown(wait=False, cancel_futures=True)


class _EarlyCut(Exception):
    """The connection ended before the gateway had answered."""


class _Stream:
    """What `databento.Live` writes records to, one a call."""

    closed = False

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:
        self._take(data)
        return len(data)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


def _library() -> Any:
    try:
        import databento
    except ImportError as error:
        raise CandlebeamError(
            "this needs the databento library: pip install 'candlebeam[databento]'"
        ) from error
    # What it logs is told by us; of what goes over the wire it logs a part of the key.
    logging.getLogger("databento.live").setLevel(logging.CRITICAL + 1)
    return databento


def _text(value: bytes) -> str:
    return bytes(value).partition(b"\0")[0].decode(errors="backslashreplace").strip()


def _words(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
