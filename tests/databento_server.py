"""A server on the loopback that speaks the endpoints of Databento's historical API.

What it serves is made by rule, and encoded by Databento's own library: see `bars` and `trades`.
What it does wrong is asked for with `Server.will`, request by request.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import zstandard
from databento_dbn import Action, Metadata, OHLCVMsg, Schema, Side, SType, TradeMsg

KEY = "db-Kq7xXyZ0123456789abcdefGHJ"
SECOND = 1_000_000_000
DAY = 86_400 * SECOND
PRICE = 1_000_000_000
GET_RANGE = "timeseries.get_range"


def ns(text: str) -> int:
    """A time in UTC as ns."""
    moment = datetime.fromisoformat(text).replace(tzinfo=timezone.utc)
    return int(moment.timestamp()) * SECOND


class Listing(NamedTuple):
    """Days in which a symbol stands for an instrument; the last is not one of them."""

    first: str
    last: str
    instrument: int


#: By symbology type and symbol.
LISTED: dict[str, dict[str, list[Listing]]] = {
    "raw_symbol": {
        "SPY": [Listing("2018-05-01", "2030-01-01", 15144)],
        "QQQ": [Listing("2018-05-01", "2030-01-01", 13340)],
        "BTC/USD": [Listing("2018-05-01", "2030-01-01", 77)],
        "../../EVIL": [Listing("2018-05-01", "2030-01-01", 78)],
        "ESH4": [Listing("2023-12-01", "2024-03-16", 17077)],
        "ESM4": [Listing("2023-12-01", "2024-06-22", 5602)],
    },
    "continuous": {
        symbol: [
            Listing("2023-12-01", "2024-03-16", 17077), Listing("2024-03-16", "2024-06-22", 5602)
        ]
        for symbol in ("ES.c.0", "ES.v.0", "ES.n.0")
    },
    "parent": {
        "ES.FUT": [
            Listing("2023-12-01", "2024-03-16", 17077), Listing("2023-12-01", "2024-06-22", 5602)
        ]
    },
}  # fmt: skip
NAMES = {
    listing.instrument: symbol
    for symbol, listings in LISTED["raw_symbol"].items()
    for listing in listings
}
LISTED["instrument_id"] = {
    str(number): LISTED["raw_symbol"][name] for number, name in NAMES.items()
}


class Bar(NamedTuple):
    """A bar as the server makes it: its time in ns, prices in units of 1e-9, and its volume."""

    ts: int
    open: int
    high: int
    low: int
    close: int
    volume: int


def bars(instrument: int, start: int, end: int) -> list[Bar]:
    """Three bars a day in a range, the last of them in the day's last second."""
    times = [day + at for day in _days(start, end) for at in (0, DAY // 2, DAY - SECOND)]
    return [_bar(instrument, ts) for ts in times if start <= ts < end]


def _bar(instrument: int, ts: int) -> Bar:
    low = (instrument + ts // SECOND % 97) * PRICE // 100
    return Bar(ts, low + PRICE, low + 2 * PRICE, low, low + PRICE // 2, ts // SECOND % 1009)


def trades(instrument: int, start: int, end: int) -> list[Bar]:
    """A trade for each bar, at its open, received in the last ns of its second."""
    found = bars(instrument, start - SECOND, end)
    return [bar for bar in found if start <= bar.ts + SECOND - 1 < end]


def _days(start: int, end: int) -> Iterator[int]:
    yield from range(start // DAY * DAY, end, DAY)


class Query(NamedTuple):
    """A request for data, with its times in ns."""

    dataset: str
    schema: str
    symbol: str
    stype_in: str
    start: int
    end: int

    @classmethod
    def of(cls, values: dict[str, str]) -> Query:
        return cls(
            values["dataset"], values["schema"], values["symbols"], values["stype_in"],
            int(values["start"]), int(values["end"]),
        )  # fmt: skip

    def listings(self) -> list[Listing]:
        if self.symbol == "ALL_SYMBOLS":
            return [listing for found in LISTED["raw_symbol"].values() for listing in found]
        return LISTED[self.stype_in].get(self.symbol, [])

    def records(self) -> list[bytes]:
        """All records of the range, in order of time."""
        found: list[tuple[int, bytes]] = []
        for listing in self.listings():
            start = max(self.start, ns(listing.first))
            end = min(self.end, ns(listing.last))
            make = trades if self.schema == "trades" else bars
            found += [
                (bar.ts, encode(self.schema, listing.instrument, bar))
                for bar in make(listing.instrument, start, end)
            ]
        return [data for _, data in sorted(found, key=lambda each: each[0])]

    def _name(self, listing: Listing) -> str:
        """What an instrument is called in the metadata."""
        several = self.stype_in == "parent" or self.symbol == "ALL_SYMBOLS"
        return NAMES[listing.instrument] if several else self.symbol

    def dbn(self) -> bytes:
        """What the API delivers: the metadata and the records in one zstd frame."""
        names: dict[str, list[Listing]] = {}
        for listing in self.listings():
            name = self._name(listing)
            names.setdefault(name, []).append(listing)
        metadata = Metadata(
            dataset=self.dataset,
            start=self.start,
            stype_in=SType.from_str(self.stype_in),
            stype_out=SType.INSTRUMENT_ID,
            schema=Schema.from_str(self.schema),
            symbols=[self.symbol],
            partial=[],
            not_found=[],
            mappings=[_Mapping(name, listings) for name, listings in names.items()],
            end=self.end,
        )
        return compressed(bytes(metadata) + b"".join(self.records()))


class _Mapping:
    def __init__(self, symbol: str, listings: list[Listing]) -> None:
        self.raw_symbol = symbol
        self.intervals = [_MappingInterval(listing) for listing in listings]


class _MappingInterval:
    def __init__(self, listing: Listing) -> None:
        self.start_date = date.fromisoformat(listing.first)
        self.end_date = date.fromisoformat(listing.last)
        self.symbol = str(listing.instrument)


def encode(schema: str, instrument: int, bar: Bar) -> bytes:
    """One record."""
    if schema == "trades":
        return bytes(
            TradeMsg(
                publisher_id=2, instrument_id=instrument, ts_event=bar.ts, price=bar.open,
                size=bar.volume, action=Action.TRADE, side=Side.BID, depth=0,
                ts_recv=bar.ts + SECOND - 1,
            )
        )  # fmt: skip
    kind = {"ohlcv-1s": 32, "ohlcv-1m": 33, "ohlcv-1h": 34, "ohlcv-1d": 35}[schema]
    return bytes(
        OHLCVMsg(
            rtype=kind, publisher_id=2, instrument_id=instrument, ts_event=bar.ts, open=bar.open,
            high=bar.high, low=bar.low, close=bar.close, volume=bar.volume,
        )
    )  # fmt: skip


def compressed(data: bytes) -> bytes:
    """One zstd frame."""
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


@dataclass
class Fault:
    """What goes wrong with one request.

    Attributes:
        status: of the answer.
        detail: of an error.
        headers: of the answer.
        body: instead of the right one.
        cut: the connection ends after this many bytes of the body.
        told: whether the length is told, or the body has an end that can be seen; where not, it
            ends where the connection does.
        hold: waits for it in the middle of the body.
        delay: seconds to wait before the answer.
    """

    status: int = 200
    detail: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    cut: int | None = None
    told: bool = True
    hold: threading.Event | None = None
    delay: threading.Event | None = None


class Request(NamedTuple):
    """A request as it came: the endpoint, and its parameters."""

    endpoint: str
    values: dict[str, str]


class Server:
    """The server; a context manager. It can be changed while it runs.

    Attributes:
        requests: all that came, in order.
        begin, end: the range of all datasets, as text.
        price: US dollars a record.
        counts: what the API says instead of the right record counts.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.begin, self.end = "2018-05-01T00:00:00.000000000Z", "2024-06-20T00:00:00.000000000Z"
        self.price = 0.001
        self.counts: Callable[[int], int] = lambda count: count
        self._faults: dict[str, list[Fault]] = {}
        self._always: dict[str, Fault] = {}

    def __enter__(self) -> Server:
        handler = type("Handler", (_Handler,), {"api": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def will(self, endpoint: str, *faults: Fault) -> None:
        """The next requests to an endpoint go wrong like this, one after the other."""
        self._faults.setdefault(endpoint, []).extend(faults)

    def always(self, endpoint: str, fault: Fault) -> None:
        """All requests to an endpoint go wrong like this."""
        self._always[endpoint] = fault

    def fault(self, endpoint: str) -> Fault:
        waiting = self._faults.get(endpoint)
        return waiting.pop(0) if waiting else self._always.get(endpoint, Fault())

    def asked(self, endpoint: str) -> list[dict[str, str]]:
        """The parameters of all requests to an endpoint."""
        return [request.values for request in self.requests if request.endpoint == endpoint]

    def ranges(self) -> list[tuple[str, str, str]]:
        """Symbol, start and end of all data that was asked for, as dates or times."""
        queries = [Query.of(values) for values in self.asked(GET_RANGE)]
        return [(query.symbol, _text(query.start), _text(query.end)) for query in queries]

    def answer(self, endpoint: str, values: dict[str, str]) -> Any:
        """The right answer: bytes, or what becomes JSON."""
        if endpoint == "metadata.list_datasets":
            return ["XNAS.ITCH", "GLBX.MDP3", "NEWX.NEW"]
        if endpoint == "metadata.list_schemas":
            return ["trades", "ohlcv-1s", "ohlcv-1d"]
        if endpoint == "metadata.list_unit_prices":
            return [
                {"mode": "historical", "unit_prices": {"trades": 1.0}},
                {"mode": "historical-streaming", "unit_prices": {"trades": 28.0, "ohlcv-1s": 280}},
            ]
        if endpoint == "metadata.get_dataset_range":
            later = {"start": "2019-01-01", "end": self.end}
            return {"start": self.begin, "end": self.end, "schema": {"ohlcv-1d": later}}
        if endpoint == "symbology.resolve":
            return _resolve(values)
        query = Query.of(values)
        if not query.records() and not query.listings():
            raise Refusal(422, "symbology_invalid_symbol", "None of the symbols could be resolved")
        if query.end > ns(self.end[:19]) + int(self.end[20:29]):
            raise Refusal(422, "data_end_after_available_end", "Try again with an earlier end")
        if endpoint == "metadata.get_cost":
            return self.price * len(query.records())
        if endpoint == "metadata.get_record_count":
            return self.counts(len(query.records()))
        assert endpoint == GET_RANGE, endpoint
        return query.dbn()


class Refusal(Exception):
    """An error as the API words it."""

    def __init__(self, status: int, case: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.detail = {
            "case": case, "message": message, "status_code": status, "docs": "https://docs",
        }  # fmt: skip


def _text(time: int) -> str:
    seconds, rest = divmod(time, SECOND)
    moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=seconds)
    text = moment.strftime("%Y-%m-%dT%H:%M:%S" if time % DAY else "%Y-%m-%d")
    return text + (f".{rest:09}" if rest else "")


def _resolve(values: dict[str, str]) -> dict[str, Any]:
    first, last = values["start_date"], values["end_date"]
    result: dict[str, list[dict[str, str]]] = {}
    partial, missing = [], []
    for symbol in values["symbols"].split(","):
        found = []
        for listing in LISTED[values["stype_in"]].get(symbol, []):
            begin, end = max(first, listing.first), min(last, listing.last)
            if begin < end:
                number = listing.instrument
                other = NAMES[number] if values["stype_out"] == "raw_symbol" else str(number)
                found.append({"d0": begin, "d1": end, "s": other})
        if not found:
            missing.append(symbol)
        else:
            result[symbol] = found
            if min(f["d0"] for f in found) > first or max(f["d1"] for f in found) < last:
                partial.append(symbol)
    return {
        "result": result, "symbols": values["symbols"].split(","), "partial": partial,
        "not_found": missing, "message": "OK", "status": 0,
    }  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    api: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve(dict(parse_qsl(urlsplit(self.path).query)))

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self._serve(dict(parse_qsl(self.rfile.read(length).decode())))

    def _serve(self, values: dict[str, str]) -> None:
        endpoint = urlsplit(self.path).path.removeprefix("/v0/")
        self.api.requests.append(Request(endpoint, values))
        fault = self.api.fault(endpoint)
        if fault.delay is not None:
            fault.delay.wait(30)
        try:
            status, body = self._answer(endpoint, values, fault)
            self._send(status, body, fault)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the other side has gone
        self.close_connection = True

    def _answer(self, endpoint: str, values: dict[str, str], fault: Fault) -> tuple[int, bytes]:
        secret = base64.b64encode(f"{KEY}:".encode()).decode()
        try:
            if self.headers.get("Authorization") != f"Basic {secret}":
                raise Refusal(401, "auth_authentication_failed", "Authentication failed.")
            if fault.status != 200:
                detail = {"detail": fault.detail}
                return fault.status, json.dumps(detail).encode()
            if fault.body is not None:
                return 200, fault.body
            answer = self.api.answer(endpoint, values)
        except Refusal as refusal:
            return refusal.status, json.dumps({"detail": refusal.detail}).encode()
        return 200, answer if isinstance(answer, bytes) else json.dumps(answer).encode()

    def _send(self, status: int, body: bytes, fault: Fault) -> None:
        self.send_response(status)
        for name, value in fault.headers.items():
            self.send_header(name, value)
        chunked = fault.told and self.path.endswith(GET_RANGE) and status == 200
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif fault.told:
            self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        sent = body if fault.cut is None else body[: fault.cut]
        middle = len(sent) // 2
        for piece in (sent[:middle], sent[middle:]):
            if piece:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                self.wfile.flush()
            if fault.hold is not None and piece is not sent[middle:]:
                fault.hold.wait(30)
        if chunked and fault.cut is None:
            self.wfile.write(b"0\r\n\r\n")
