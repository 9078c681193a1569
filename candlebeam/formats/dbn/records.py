"""One pass over the records of a Databento file, for any number of markets at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np

from candlebeam.errors import Cancelled, FormatError
from candlebeam.formats.dbn import tables as t
from candlebeam.formats.dbn.ahead import ReadAhead
from candlebeam.formats.dbn.instruments import Instruments, cache_lines, with_room
from candlebeam.formats.dbn.kernels import walk_records
from candlebeam.formats.dbn.layout import record_text, record_types
from candlebeam.formats.dbn.metadata import DbnFile, SymbolInterval, databento_dbn, read_head
from candlebeam.formats.dbn.pages import take_bars, take_trades
from candlebeam.formats.dbn.stream import DbnStream
from candlebeam.model import Bars, Int64Array, Uint8Array
from candlebeam.rules.tick_test import TickState

#: Rows of a full batch.
BATCH_ROWS = 1 << 17
_POOL_BYTES = 1 << 26
_MOST_PAGE_BITS, _LEAST_PAGE_BITS = 12, 4
_NOTED = 1024
_INT64 = np.iinfo(np.int64)
_NO_LIMIT = int(_INT64.min)


class Choice(NamedTuple):
    """How a market is read.

    Attributes:
        from_ts: rows older than this (ms) are left out.
        seen: place in the stream up to which records are known to an earlier run.
    """

    from_ts: int | None = None
    seen: int = 0


class Words(Protocol):
    """Where records come from, as 64-bit words, piece by piece."""

    def next_words(self, carry: Int64Array) -> Int64Array | None:
        """The next piece behind `carry`, the unread end of the one before; None at the end."""
        ...


class Note(NamedTuple):
    """A rejected record: the market's number or `NOWHERE`, its own from 1, why, and what it was."""

    number: int
    record: int
    reason: str
    text: str


class DbnRecords:
    """Reads a file once, and gathers rows by market; iterate it, once.

    Args:
        path: the file.
        choose: called once for each symbol; answers how it is read and under which key, or None
            to leave it. Symbols of one key are one market.
        any_price: whether prices of zero and less are good.
        bars: whether bars are good as well, and not only trades.
        keep_rejects: whether rejected records are noted.
        batch_rows: rows at which a market's are to be taken; a power of two.
        cancelled: asked now and then; once it says True, iterating raises `Cancelled`.

    Attributes:
        head: what the file says of itself, once the iteration has begun.
        keys: by number, the key of a market.
        markets: by number, its counts; see the columns in `dbn_tables`.
        mapped: instruments and symbols that records of the file have told, in order.
        notes: noted rejects; the caller may take them out.
        size, mtime_ns: of the file when it was opened.
        text_bytes: bytes of the stream up to the end of the last whole record.
        damage: why the file could not be read to its end; None if it could.

    Iterating yields numbers of markets, whose rows the caller then takes by `take_trades` or
    `take_bars`; those of one market come in file order.

    Raises, when iterated:
        OSError: the file cannot be opened.
        FormatError: its head is damaged, it is no such file, or one of other records.
    """

    def __init__(
        self,
        path: str,
        choose: Callable[[DbnFile, str], tuple[Any, Choice] | None],
        *,
        any_price: bool = False,
        bars: bool = False,
        keep_rejects: bool = False,
        batch_rows: int = BATCH_ROWS,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        self.path = path
        self.head: DbnFile | None = None
        self.keys: list[Any] = []
        self.markets: Int64Array = cache_lines(0, t.MARKET_COLUMNS)
        self.mapped: dict[int, list[str]] = {}
        self.notes: list[Note] = []
        self.size = self.mtime_ns = self.text_bytes = 0
        self.damage: str | None = None
        self._choose, self._cancelled = choose, cancelled
        self._batch_rows, self._bars = batch_rows, bars
        self._numbers: dict[str, int] = {}
        self._number_of_key: dict[Any, int] = {}
        self._instruments = Instruments()
        self._control: Int64Array = np.zeros(t.CONTROL_SIZE, np.int64)
        self._control[t.ANY_PRICE] = any_price
        self._noted: Int64Array = np.zeros((_NOTED * keep_rejects, t.NOTED_COLUMNS), np.int64)

    @property
    def unmapped(self) -> int:
        """Records rejected because their instrument has no symbol."""
        return int(self._control[t.UNMAPPED])

    def __iter__(self) -> Iterator[int]:
        with DbnStream(self.path) as stream:
            self.size, self.mtime_ns = stream.size, stream.mtime_ns
            self.head = head = read_head(stream, self.path)
            if not (head.has_trades or (self._bars and head.timeframe)):
                expected = "records of trades" + " or bars" * self._bars
                raise FormatError(self.path, expected, f"schema {head.schema}")
            self.text_bytes = head.head_bytes
            self._instruments.add(head, self._number)
            kinds, lengths = record_types(head.schema)
            self._new_pool(t.BAR_ROW if head.timeframe else t.TRADE_ROW)
            with ReadAhead(stream) as ahead:
                yield from self._walk(ahead, kinds, lengths)
                if self.damage is None:
                    self.damage = stream.damage
                loose = self._left * 8 + ahead.loose
                if self.damage is None and loose:
                    self.damage = f"cut off: its last record has {loose} bytes"
        yield from np.flatnonzero(self.markets[:, t.ROWS]).tolist()

    def take_trades(self, number: int) -> tuple[Any, Any, Any, Uint8Array]:
        """The rows of a market as columns: ts, price, size and buy, as in `TradeBatch`."""
        rows = int(self.markets[number, t.ROWS])
        ts, price, size = np.empty(rows, np.int64), np.empty(rows), np.empty(rows)
        buy = np.empty(rows, np.uint8)
        take_trades(*self._rows, self.markets, self._control, number, ts, price, size, buy)
        return ts, price, size, buy

    def take_bars(self, number: int) -> Bars:
        """The rows of a market as bars; of trades, each is one."""
        rows = int(self.markets[number, t.ROWS])
        if self._rows[0].shape[1] == t.TRADE_ROW:
            ts, price, size, _ = self.take_trades(number)
            return Bars(ts, price, price.copy(), price.copy(), price.copy(), size)
        ts, columns = np.empty(rows, np.int64), np.empty((5, rows))
        take_bars(*self._rows, self.markets, self._control, number, ts, columns)
        return Bars(ts, *columns)

    def rejected(self, number: int) -> tuple[tuple[str, int], ...]:
        """What was rejected of a market, by reason."""
        counts = self.markets[number, t.REJECTED : t.REJECTED + len(t.REASONS)].tolist()
        return tuple((r, n) for r, n in zip(t.REASONS, counts, strict=True) if n)

    def _new_pool(self, row_words: int) -> None:
        rows = _POOL_BYTES // (8 * row_words)
        bits = (rows // (4 * max(len(self.keys), 64))).bit_length() - 1
        bits = max(min(bits, _MOST_PAGE_BITS, self._batch_rows.bit_length() - 1), _LEAST_PAGE_BITS)
        pages = max(rows >> bits, 4 * self._instruments.layers, 2 * self._batch_rows >> bits)
        pool = np.empty((pages << bits, row_words), np.int64)
        next_page = np.arange(1, pages + 1, dtype=np.int64)
        self._rows = (pool, pool.view(np.float64), next_page)
        control = self._control
        control[t.FREE_PAGE], control[t.FREE_PAGES], control[t.PAGE_BITS] = 0, pages, bits
        control[t.BATCH_ROWS] = self._batch_rows

    def _walk(self, ahead: Words, kinds: Int64Array, lengths: Int64Array) -> Iterator[int]:
        control, known = self._control, self._instruments
        self._left = 0
        words = ahead.next_words(np.empty(0, np.int64))
        while words is not None:
            if self._cancelled is not None and self._cancelled():
                raise Cancelled("reading of Databento files was cancelled")
            control[t.POS], control[t.BASE] = 0, self.text_bytes
            status = -1
            while status != t.MORE:
                control[t.LAYERS] = known.layers
                status = walk_records(
                    words, kinds, lengths, known.table, known.slots, known.intervals,
                    self.markets, *self._rows, self._noted, control,
                )  # fmt: skip
                if status in (t.BATCH_FULL, t.POOL_FULL):
                    yield from self._due(status)
                elif status == t.NOTED_FULL:
                    self._take_notes(words)
                elif status == t.FOUND_MAPPING and not self._map(words):
                    status = t.DAMAGED
                if status == t.DAMAGED:
                    self.damage = self._no_record(words)
                    break
            self._take_notes(words)
            read = int(control[t.POS])
            self.text_bytes = int(control[t.BASE]) + 8 * read
            if status == t.DAMAGED:
                return
            self._left = len(words) - read
            words = ahead.next_words(words[read:])

    def _due(self, status: int) -> Iterator[int]:
        """The markets whose rows are to be taken; of a full pool, the largest that hold half."""
        rows = self.markets[:, t.ROWS]
        if status == t.BATCH_FULL:
            yield from np.flatnonzero(rows >= self._batch_rows).tolist()
            return
        order = np.argsort(-rows, kind="stable")
        held = np.cumsum(rows[order])
        yield from order[: int(np.searchsorted(held, held[-1] // 2)) + 1].tolist()

    def _number(self, symbol: str) -> int:
        """The number of a symbol's market, or `UNWANTED`."""
        number = self._numbers.get(symbol)
        if number is not None:
            return number
        assert self.head is not None
        chosen = self._choose(self.head, symbol)
        if chosen is None:
            self._numbers[symbol] = t.UNWANTED
            return t.UNWANTED
        key, choice = chosen
        number = self._number_of_key.setdefault(key, len(self.keys))
        self._numbers[symbol] = number
        if number == len(self.keys):
            self.keys.append(key)
            self.markets = with_room(self.markets, number)
            market = self.markets[number]
            market[t.FROM_TS] = _NO_LIMIT if choice.from_ts is None else choice.from_ts
            market[t.SEEN] = choice.seen
            market[t.FIRST_LATE] = _INT64.max
            market[t.LAST_PRICE], market[t.LAST_SIDE] = TickState()
        return number

    def _map(self, words: Int64Array) -> bool:
        """Takes the mapping at POS; False if it is none."""
        library = databento_dbn()
        pos = int(self._control[t.POS])
        length = int(words[pos] & 0xFF) >> 1
        raw = words[pos : pos + length].tobytes()
        for message in (library.SymbolMappingMsg, library.SymbolMappingMsgV1):
            dtype = np.dtype(message._dtypes)
            if len(raw) - dtype.itemsize in (0, 8):
                break
        else:
            return False
        record = np.frombuffer(raw, dtype, 1)[0]
        asked, symbol = (
            bytes(record[name]).partition(b"\0")[0].decode(errors="backslashreplace")
            for name in ("stype_in_symbol", "stype_out_symbol")
        )
        # A number is no symbol; the library decides alike.
        symbol = asked if symbol.isdigit() or not symbol else symbol
        instrument = int(record["instrument_id"])
        symbols = self.mapped.setdefault(instrument, [])
        if not symbols or symbols[-1] != symbol:
            symbols.append(symbol)
        self._instruments.map(instrument, self._number(symbol))
        self._control[t.POS] += length
        self._control[t.RECORD] += 1
        return True

    def _take_notes(self, words: Int64Array) -> None:
        count = int(self._control[t.NOTED])
        for number, record, reason, pos in self._noted[:count].tolist():
            self.notes.append(Note(number, record + 1, t.REASONS[reason], record_text(words, pos)))
        self._control[t.NOTED] = 0

    def _no_record(self, words: Int64Array) -> str:
        pos = int(self._control[t.POS])
        head = int(words[pos])
        place = int(self._control[t.BASE]) + 8 * pos
        return (
            f"no record of this file at byte {place} of its decompressed data:"
            f" {4 * (head & 0xFF)} bytes of type {head >> 8 & 0xFF}"
        )


def describe_dbn(path: str) -> DbnFile:
    """What a file says of itself. Files of live sessions are read to their end for their symbols.

    Raises:
        FormatError: it is empty, no Databento file, of a newer version, or its head is damaged.
        CandlebeamError: the library is not installed.
        OSError: it cannot be opened.
    """
    with DbnStream(path) as stream:
        head = read_head(stream, path)
    if head.schema is not None:
        return head
    records = DbnRecords(path, lambda head, symbol: None)
    for _ in records:
        pass
    told = {
        instrument: tuple(SymbolInterval(None, None, symbol) for symbol in symbols)
        for instrument, symbols in records.mapped.items()
    }
    return replace(head, intervals={**head.intervals, **told})
