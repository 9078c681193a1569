"""Companions: the JSON beside a candle file that says what it is, and how a later run goes on.

A commit that has to change companion and candles at once writes a journal first, which stands for
both until it has been carried out. docs/formats.md has every field.
"""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass, field, replace
from typing import Any

from candlebeam.errors import FormatError, UsageError
from candlebeam.formats.candles.records import RECORD_DTYPE
from candlebeam.model import BLOCK_DTYPE, VOLUME_SCALE, Market, Timeframe
from candlebeam.rules.price_scale import PriceScale, PriceState
from candlebeam.settings import CandleSettings
from candlebeam.storage import storage_of

#: Version of what Candlebeam adds to a companion.
STATE_VERSION = 1
#: What stands for the root of an input that is a live session, and for its name.
SESSION_ROOT, SESSION_NAME = "databento:", "live"


@dataclass(frozen=True)
class InputState:
    """How far one of the last inputs has been read.

    Attributes:
        root: the root it was found under.
        path: relative to that, without `.gz`.
        name: the file name that was read.
        size: its bytes when it was read.
        text_bytes: bytes of its text up to the end of its last whole row; of a live session the
            latest time of its trades, ns.
    """

    root: str
    path: str
    name: str
    size: int
    text_bytes: int

    @property
    def is_session(self) -> bool:
        """Whether it is a live session, which cannot be read again."""
        return self.root == SESSION_ROOT


@dataclass(frozen=True)
class ResumeState:
    """What a later run needs to go on as if there had been one run only.

    Attributes:
        settings: what the candles were made with.
        inputs: the files that start at `lastInputStartTs`, in file order. They are read again. Live
            sessions that the candles have trades of stand before them.
        covered: how many inputs the candles cover, those included.
        skipped: folder and name of covered files that were not there, and so were left out.
        late_trades: trades that came too late in all runs so far, and were left out.
        tail: what all other files gave to the last candle, as one record of `BLOCK_DTYPE`, or none.
        prices: the state of the prices of every candle but the last.
        exact: whether every one of these prices can be had back from its record.
        quiet: how many of the last records have no trades: a stream has written them as time
            passed. All else here is said of the candles before them.
    """

    settings: CandleSettings
    inputs: tuple[InputState, ...] = ()
    covered: int = 0
    skipped: tuple[tuple[str, str], ...] = ()
    late_trades: int = 0
    tail: bytes = b""
    prices: PriceState = field(default_factory=PriceState)
    exact: bool = True
    quiet: int = 0

    @property
    def sessions(self) -> tuple[InputState, ...]:
        """The live sessions among the inputs."""
        return tuple(each for each in self.inputs if each.is_session)

    @property
    def files(self) -> tuple[InputState, ...]:
        """The files among the inputs."""
        return tuple(each for each in self.inputs if not each.is_session)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; `from_json` is the inverse."""
        return {
            "version": STATE_VERSION,
            "settings": self.settings.to_json(),
            "inputs": [[i.root, i.path, i.name, i.size, i.text_bytes] for i in self.inputs],
            "coveredFiles": self.covered,
            "skippedFiles": self.skipped,
            "lateTrades": self.late_trades,
            "tail": base64.b64encode(self.tail).decode(),
            "priceDecimals": self.prices.decimals,
            "highestPrice": self.prices.highest,
            "pricesExact": self.exact,
            **({"quietRecords": self.quiet} if self.quiet else {}),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ResumeState:
        """Raises `ValueError`, `KeyError` or `TypeError` where a value is not what it should be."""
        if values["version"] != STATE_VERSION:
            raise ValueError(f"state version {values['version']!r}, not {STATE_VERSION}")
        tail = base64.b64decode(values["tail"], validate=True)
        if len(tail) not in (0, BLOCK_DTYPE.itemsize):
            raise ValueError(f"a tail of {len(tail)} bytes, not {BLOCK_DTYPE.itemsize}")
        inputs = tuple(
            InputState(_text(root), _text(path), _text(name), _whole(size), _whole(text))
            for root, path, name, size, text in values["inputs"]
        )
        if not inputs:
            raise ValueError("a state without inputs")
        covered = _whole(values["coveredFiles"])
        if covered < len(inputs):
            raise ValueError(f"{covered} files covered, {len(inputs)} of them last")
        return cls(
            settings=CandleSettings.from_json(values["settings"]),
            inputs=inputs,
            covered=covered,
            late_trades=_count(values["lateTrades"]),
            skipped=tuple((_text(root), _text(path)) for root, path in values["skippedFiles"]),
            tail=tail,
            prices=PriceState(_whole(values["priceDecimals"]), float(values["highestPrice"])),
            exact=values["pricesExact"] is True,
            quiet=_count(values.get("quietRecords", 0)),
        )


@dataclass(frozen=True)
class Companion:
    """The JSON beside a candle file. Times in ms; `end_ts` is the end of the last candle.

    `state` is None where another program than Candlebeam, or another version of it, wrote the file.
    """

    market: Market
    timeframe: Timeframe
    start_ts: int
    end_ts: int
    scale: PriceScale
    records: int
    last_input_start_ts: int
    state: ResumeState | None = None

    @property
    def size(self) -> int:
        """The bytes of `.bin` that count."""
        return self.records * RECORD_DTYPE.itemsize

    @property
    def traded(self) -> Companion:
        """Without the quiet records at the end: what whoever goes on from it begins with."""
        if self.state is None or not self.state.quiet:
            return self
        quiet = self.state.quiet
        return replace(
            self,
            end_ts=self.end_ts - quiet * self.timeframe.ms,
            records=self.records - quiet,
            state=replace(self.state, quiet=0),
        )

    def to_json(self) -> dict[str, Any]:
        """The object that is stored."""
        return {
            "collector": self.market.collector,
            "exchange": self.market.exchange,
            "symbol": self.market.symbol,
            "timeframe": str(self.timeframe),
            "timeframeMs": self.timeframe.ms,
            "startTs": self.start_ts,
            "endTs": self.end_ts,
            "priceScale": self.scale.value,
            "volumeScale": VOLUME_SCALE,
            "records": self.records,
            "lastInputStartTs": self.last_input_start_ts,
            **({} if self.state is None else {"candlebeam": self.state.to_json()}),
        }

    def encode(self) -> bytes:
        """The bytes of the file; `decode` is the inverse."""
        return (json.dumps(self.to_json(), indent=2) + "\n").encode()

    @classmethod
    def decode(cls, data: bytes, path: str) -> Companion:
        """Raises `FormatError`, naming `path`, where the bytes are no companion."""
        try:
            values = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise FormatError(path, "JSON of a candle file", str(error)) from None
        try:
            return cls._from_json(values)
        except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
            found = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise FormatError(path, "the companion of a candle file", found) from None

    @classmethod
    def _from_json(cls, values: dict[str, Any]) -> Companion:
        timeframe = Timeframe.parse(str(values["timeframe"]))
        companion = cls(
            market=Market(
                _text(values.get("collector", "")),
                _text(values["exchange"]),
                _text(values["symbol"]),
            ),
            timeframe=timeframe,
            start_ts=_whole(values["startTs"]),
            end_ts=_whole(values["endTs"]),
            scale=PriceScale.parse(values["priceScale"]),
            records=_whole(values["records"]),
            last_input_start_ts=_whole(values["lastInputStartTs"]),
        )
        length = companion.end_ts - companion.start_ts
        if companion.records < 0 or length != companion.records * timeframe.ms:
            raise ValueError(
                f"{companion.records} records from {companion.start_ts} to {companion.end_ts}"
            )
        if values["volumeScale"] != VOLUME_SCALE:
            raise ValueError(f"volumeScale {values['volumeScale']!r}, not {VOLUME_SCALE}")
        state = values.get("candlebeam")
        if isinstance(state, dict) and state.get("version") == STATE_VERSION:
            if not companion.records:
                raise ValueError("no records")
            companion = replace(companion, state=ResumeState.from_json(state))
            if companion.traded.records <= 0:
                raise ValueError(f"{companion.records} records, none of them before quiet ones")
        return companion


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 1 << 62:
        raise ValueError(f"{value!r} for a whole number")
    return value


def _count(value: Any) -> int:
    if _whole(value) < 0:
        raise ValueError(f"{value!r} for a number of things")
    return int(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} for a text")
    return value


@dataclass(frozen=True)
class CandlePaths:
    """The files of one market's candles: `stem` is the path without suffix."""

    stem: str

    @classmethod
    def of(cls, out: str, market: Market) -> CandlePaths:
        """Those of a market under an output root."""
        return cls(os.path.join(out, *market.path.split("/")))

    @property
    def records(self) -> str:
        """The candles."""
        return self.stem + ".bin"

    @property
    def companion(self) -> str:
        """What they are."""
        return self.stem + ".json"

    @property
    def late(self) -> str:
        """Trades that came too late for a stream, a line of JSON each."""
        return self.stem + ".late"

    def hidden(self, suffix: str) -> str:
        """A file that only a commit uses, beside them."""
        folder, name = os.path.split(self.stem)
        return os.path.join(folder, f".{name}{suffix}")

    @property
    def journal(self) -> str:
        """A commit that has been decided but maybe not carried out."""
        return self.hidden(".journal")

    @property
    def replacement(self) -> str:
        """The candles that a journal puts in place of `records`."""
        return self.hidden(".bin.new")

    @property
    def unfinished(self) -> tuple[str, ...]:
        """What a commit writes beside its place first, and a crash may leave behind."""
        return self.replacement, self.temporary(self.companion), self.temporary(self.journal)

    def temporary(self, path: str) -> str:
        """Where one of the files is written before it is renamed."""
        return self.hidden(".json.new" if path == self.companion else ".journal.new")


@dataclass(frozen=True)
class Journal:
    """A commit that has been decided: what the pair of files is from now on.

    Attributes:
        companion: the new one.
        tail: bytes to be written at `tail_offset` of the candles; none if the candles are replaced.
        replaces: whether `CandlePaths.replacement` takes the place of the candles.
    """

    companion: Companion
    tail: bytes = b""
    tail_offset: int = 0
    replaces: bool = False

    def encode(self) -> bytes:
        """The bytes of the file; `decode` is the inverse."""
        values = {
            "companion": self.companion.to_json(),
            "tail": base64.b64encode(self.tail).decode(),
            "tailOffset": self.tail_offset,
            "replaces": self.replaces,
        }
        return json.dumps(values).encode()

    @classmethod
    def decode(cls, data: bytes, path: str) -> Journal:
        """Raises `FormatError`, naming `path`, where the bytes are no journal."""
        try:
            values = json.loads(data)
            journal = cls(
                Companion.decode(json.dumps(values["companion"]).encode(), path),
                base64.b64decode(values["tail"], validate=True),
                _whole(values["tailOffset"]),
                bool(values["replaces"]),
            )
            end = journal.tail_offset + len(journal.tail)
            if journal.tail_offset < 0 or end > journal.companion.size:
                raise ValueError(f"a tail from {journal.tail_offset} to {end}")
            return journal
        except FormatError:
            raise
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise FormatError(path, "a commit journal", str(error)) from None


def read_companion(path: str) -> Companion | None:
    """The companion at `path`; None if there is none. Raises `FormatError`."""
    data = read_bytes(path)
    return None if data is None else Companion.decode(data, path)


def read_journal(paths: CandlePaths) -> Journal | None:
    """The journal beside a candle file; None if there is none. Raises `FormatError`."""
    data = read_bytes(paths.journal)
    return None if data is None else Journal.decode(data, paths.journal)


def read_bytes(path: str) -> bytes | None:
    """The bytes of a file; None if it is not there."""
    try:
        return storage_of(path).read(path)
    except FileNotFoundError:
        return None
