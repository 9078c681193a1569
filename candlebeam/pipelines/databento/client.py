"""Databento's historical API, asked again until it answers.

All requests go through the `databento` library. What it raises becomes a `CandlebeamError` that
says what was asked and what came back; the key is in none of them.
"""

from __future__ import annotations

import base64
import math
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import databento
import requests
from databento.common.error import BentoError, BentoHttpError, BentoWarning
from databento.historical.api.metadata import MetadataHttpAPI
from databento.historical.api.symbology import SymbologyHttpAPI
from databento.historical.api.timeseries import TimeseriesHttpAPI

from candlebeam.errors import FormatError, UsageError
from candlebeam.pipelines.databento.failures import (
    LONGEST_WAIT,
    ApiError,
    NotWhole,
    Patience,
    failure_of,
    one_line,
)
from candlebeam.rules.contracts import INSTRUMENT_ID, RAW_SYMBOL
from candlebeam.rules.months import Span, date_text, parse_moment
from candlebeam.storage.durable import remove

T = TypeVar("T")

#: Symbols that an error names.
_NAMED = 5
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Query(NamedTuple):
    """Some data of one symbol: what is priced, counted and downloaded."""

    dataset: str
    schema: str
    symbol: str
    stype_in: str
    span: Span

    def arguments(self) -> dict[str, Any]:
        """As the library takes it. A number is a time in ns there, which is exact."""
        return {
            "dataset": self.dataset,
            "schema": self.schema,
            "symbols": [self.symbol],
            "stype_in": self.stype_in,
            "start": self.span.start,
            "end": self.span.end,
        }


def checked_gateway(url: str) -> str:
    """A gateway's address with its scheme; https unless it says otherwise.

    The key travels with every request, so plain http is for this machine alone.

    Raises:
        UsageError: it is no address, or would send the key in clear over a network.

    >>> checked_gateway("hist.example.com/"), checked_gateway("http://127.0.0.1:8080")
    ('https://hist.example.com', 'http://127.0.0.1:8080')
    """
    full = url if "://" in url else f"https://{url}"
    try:
        parts = urlsplit(full)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or parts.query or parts.username:
        raise UsageError(f"gateway {url!r}: expected an address such as https://hist.databento.com")
    if parts.scheme == "http" and host not in _LOOPBACK:
        raise UsageError(
            f"gateway {url!r}: http would send the key in clear; use https"
            " (http is taken for this machine alone)"
        )
    return full.rstrip("/")


class Interval(NamedTuple):
    """Days in which a symbol stands for another one.

    Attributes:
        days: whole days, in ns.
        symbol: what it stands for.
    """

    days: Span
    symbol: str


class Availability(NamedTuple):
    """When there is data.

    Attributes:
        span: of the dataset.
        schemas: of each schema that is told apart.
    """

    span: Span
    schemas: dict[str, Span]

    def of(self, schema: str) -> Span:
        """When a schema has data."""
        return self.schemas.get(schema, self.span)


class Resolution(NamedTuple):
    """What became of symbols that were asked for.

    Attributes:
        intervals: by symbol, in the API's order.
        partial: symbols that stand for something in a part of the time alone.
        not_found: symbols that stand for nothing.
    """

    intervals: dict[str, list[Interval]]
    partial: tuple[str, ...]
    not_found: tuple[str, ...]


class Client:
    """One user of the API.

    Args:
        key: never shown.
        gateway: from `checked_gateway`; None means Databento's own.
        patience: how long to try.
        tell: is called with a sentence when there is something to know on the way: that an attempt
            is repeated, or what the API warns of.
    """

    def __init__(
        self,
        key: str,
        gateway: str | None = None,
        patience: Patience | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._secrets = (key, base64.b64encode(f"{key}:".encode()).decode())
        self._patience = patience or Patience()
        self._tell = tell
        self._api = databento.Historical(key, gateway or databento.HistoricalGateway.BO1)
        if gateway and gateway.startswith("http://"):
            # The client makes any gateway https; its parts take one as it is.
            self._api.metadata = MetadataHttpAPI(key, gateway)
            self._api.symbology = SymbologyHttpAPI(key, gateway)
            self._api.timeseries = TimeseriesHttpAPI(key, gateway)
        for part in (self._api.metadata, self._api.symbology, self._api.timeseries):
            part.TIMEOUT = self._patience.timeout

    def datasets(self) -> list[str]:
        """The codes of all datasets."""
        return self._call("the datasets", self._api.metadata.list_datasets, _names)

    def schemas(self, dataset: str) -> list[str]:
        """The schemas of a dataset."""
        request = partial(self._api.metadata.list_schemas, dataset)
        return self._call(f"the schemas of {dataset}", request, _names)

    def unit_prices(self, dataset: str) -> dict[str, float]:
        """US dollars a gigabyte of streaming from history, by schema; empty if none are told."""
        request = partial(self._api.metadata.list_unit_prices, dataset)
        return self._call(f"the prices of {dataset}", request, _prices)

    def available(self, dataset: str) -> Availability:
        """When a dataset has data that this key may have."""
        request = partial(self._api.metadata.get_dataset_range, dataset)
        return self._call(f"the range of {dataset}", request, _availability)

    def cost(self, query: Query) -> float:
        """US dollars that downloading it costs."""
        request = partial(self._api.metadata.get_cost, **query.arguments())
        return self._call(f"the cost of {query.symbol} {query.span}", request, _dollars)

    def record_count(self, query: Query) -> int:
        """How many records it has."""
        request = partial(self._api.metadata.get_record_count, **query.arguments())
        return self._call(f"the record count of {query.symbol} {query.span}", request, int)

    def resolve(
        self, dataset: str, symbols: Sequence[str], stype_in: str, days: Span
    ) -> Resolution:
        """What symbols stand for, day by day.

        Args:
            stype_in: their type. Instruments resolve to raw symbols, everything else to
                instruments.
            days: whole days.
        """
        request = partial(
            self._api.symbology.resolve,
            dataset=dataset,
            symbols=list(symbols),
            stype_in=stype_in,
            stype_out=RAW_SYMBOL if stype_in == INSTRUMENT_ID else INSTRUMENT_ID,
            start_date=date_text(days.start),
            end_date=date_text(days.end),
        )
        names = ", ".join(symbols[:_NAMED]) + (", ..." if len(symbols) > _NAMED else "")
        return self._call(f"the symbols {names}", request, _resolution)

    def download(self, query: Query, path: str, check: Callable[[], T]) -> T:
        """Streams data into a file as it comes, until a download passes a check.

        Args:
            path: is overwritten. After a failure it may hold a part.
            check: looks at the file; what it returns is returned. `NotWhole` and `FormatError` from
                it mean that the download is to be made again.

        Raises:
            ApiError: the API refuses, or all attempts failed.
            OSError: the file cannot be written. Nothing is tried again then.
        """

        def once() -> T:
            remove(path)
            self._stream(query, path)
            return check()

        return self._ask(f"{query.symbol} {query.span}", once)

    def _stream(self, query: Query, path: str) -> None:
        """One download; a `requests.RequestException` or a `BentoHttpError` is the network's."""
        with open(path, "wb"):
            pass  # what cannot be written is not to be asked for: it costs
        remove(path)
        try:
            self._api.timeseries.get_range(**query.arguments(), path=path)
        except (BentoHttpError, requests.RequestException):
            raise
        except Exception as error:  # noqa: BLE001  all of it is raised again, as something
            # The library leaves its file open when a stream breaks: these frames hold it. It tells
            # what broke in words alone.
            traceback.clear_frames(error.__traceback__)
            cause = error if isinstance(error, OSError) else error.__context__
            if isinstance(cause, OSError) and not isinstance(
                cause, (ConnectionError, TimeoutError)
            ):
                raise cause from None
            raise NotWhole(str(error) or type(error).__name__) from None
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)
            raise

    def _call(self, what: str, request: Callable[[], Any], read: Callable[[Any], T]) -> T:
        """One answer of the library, read."""

        def once() -> Any:
            try:
                return request()
            except requests.RequestException:
                raise
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                # What the library makes of an argument, or of an error, that it does not expect.
                message = f"{what}: {one_line(error) or type(error).__name__}"
                raise ApiError(self._hidden(message)) from None

        answer = self._ask(what, once)
        try:
            return read(answer)
        except (ValueError, TypeError, KeyError, AttributeError, UsageError):
            message = f"{what}: an answer of unexpected form: {one_line(answer)}"
            raise ApiError(self._hidden(message)) from None

    def _ask(self, what: str, request: Callable[[], T]) -> T:
        """Makes a request until it is answered, as often as patience has it."""
        for attempt in range(self._patience.retries + 1):
            try:
                with self._warnings_told():
                    return request()
            except (BentoError, requests.RequestException, NotWhole, FormatError) as error:
                failure = failure_of(error)
            wait = self._patience.before(attempt) if failure.wait is None else failure.wait
            if not failure.passing or attempt == self._patience.retries or wait > LONGEST_WAIT:
                break
            self._tell(self._hidden(f"{what}: {failure.message}; again in {wait:.1f} s"))
            time.sleep(wait)
        message = f"{what}: {failure.message}"
        if failure.passing and wait > LONGEST_WAIT:
            message += f"; it asks to come back in {wait:.0f} s only"
        elif attempt:
            message += f" (after {attempt + 1} attempts)"
        raise ApiError(self._hidden(message), failure.status)

    @contextmanager
    def _warnings_told(self) -> Iterator[None]:
        """The API's own warnings are sentences; those of Python about files left open are none."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                yield
            finally:
                told = [w for w in caught if issubclass(w.category, BentoWarning)]
                for warning in told:
                    self._tell(self._hidden(f"Databento warns: {warning.message}"))

    def _hidden(self, text: object) -> str:
        """A text without the key, whoever put it there."""
        shown = str(text)
        for secret in self._secrets:
            shown = shown.replace(secret, "***")
        return shown


def _names(answer: Any) -> list[str]:
    if not isinstance(answer, list):
        raise TypeError
    return [str(name) for name in answer]


def _prices(answer: Any) -> dict[str, float]:
    modes = {str(entry["mode"]): entry["unit_prices"] for entry in answer}
    prices = modes.get("historical-streaming") or modes.get("historical") or {}
    return {str(schema): float(price) for schema, price in prices.items()}


def _dollars(answer: Any) -> float:
    cost = float(answer)
    if not (math.isfinite(cost) and cost >= 0):
        raise ValueError
    return cost


def _availability(answer: Any) -> Availability:
    schemas = {str(name): _span(each) for name, each in answer.get("schema", {}).items()}
    return Availability(_span(answer), schemas)


def _span(values: Any) -> Span:
    start = values.get("start") or values["start_date"]
    end = values.get("end") or values["end_date"]
    return Span(parse_moment(str(start)), parse_moment(str(end)))


def _resolution(answer: Any) -> Resolution:
    intervals = {
        str(symbol): [_interval(each) for each in entries]
        for symbol, entries in answer["result"].items()
    }
    return Resolution(
        intervals, tuple(answer.get("partial", ())), tuple(answer.get("not_found", ()))
    )


def _interval(values: Any) -> Interval:
    days = Span(parse_moment(str(values["d0"])), parse_moment(str(values["d1"])))
    return Interval(days, str(values["s"]))
