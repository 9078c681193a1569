"""From what a market's candles have become to its committed candle file, again and again."""

from __future__ import annotations

import json
import os
from itertools import chain

from candlebeam.errors import CandlebeamError
from candlebeam.feeds.going_on import checked_state
from candlebeam.formats.candles.companion import (
    CandlePaths,
    Companion,
    InputState,
    ResumeState,
    read_companion,
)
from candlebeam.formats.candles.records import encode_candles
from candlebeam.io.candle_writer import overwrite, recover, write_anew
from candlebeam.io.rescaled import rescaled
from candlebeam.rules.open_candles import CandleUpdate, InputMark, LateTrade
from candlebeam.settings import CandleSettings
from candlebeam.storage import storage_of
from candlebeam.storage.durable import write_atomic

#: What to do where records are missing.
_CURE = "stop the stream, and `candlebeam backfill` makes the market again"


class LiveCommit:
    """Writes the candles of a stream; one writer a market.

    Args:
        out: the output root.
        settings: what the candles are made of.
        quiet_candles: whether quiet candles that the files have at the end stay, also where an
            update does not know of them yet; otherwise those are taken off.
    """

    def __init__(self, out: str, settings: CandleSettings, *, quiet_candles: bool = False) -> None:
        self._out, self._settings = out, settings
        self._quiet_candles = quiet_candles
        self._recovered: set[str] = set()

    def __call__(self, update: CandleUpdate) -> bool:
        """Brings a market's pair of files to an update.

        Returns:
            Whether it was done. It is not where the files are further already: a stream that
            starts again from a checkpoint goes through what it has committed, and changes nothing.

        Raises:
            CandlebeamError: the files are others than the stream has made, or went on from.
            OSError: they cannot be read or written; the same update can be given again.
        """
        paths = CandlePaths.of(self._out, update.block.market)
        is_first = paths.stem not in self._recovered
        # A commit that fails may have been decided: the next one ends it first.
        self._recovered.discard(paths.stem)
        if is_first and (os.path.isdir(os.path.dirname(paths.stem)) or not _is_local(paths)):
            recover(paths)
        is_done = self._commit(paths, update, is_first)
        self._recovered.add(paths.stem)
        return is_done

    def _commit(self, paths: CandlePaths, update: CandleUpdate, is_first: bool) -> bool:
        old = read_companion(paths.companion)
        if old is not None:
            checked_state(old, paths, update.block.market, self._settings, _CURE)
        if old is not None and _is_ahead(old.traded, update):
            self._write_late(paths, update, is_first, keeps_later=True)
            return False
        first_ts = int(update.block.candles["time"][0])
        place = (first_ts - update.start_ts) // update.block.timeframe.ms
        self._check_place(paths, old, place, update)
        records, _ = encode_candles(update.block, update.scale)
        self._write_late(paths, update, is_first, keeps_later=False)
        new = self._companion(update, old)
        if old is None or (place == 0 and _differ(old, new)):
            write_anew(paths, [(0, records)], new.size, lambda: new)
        elif old.scale == new.scale:
            overwrite(paths, old, place, records, new)
        else:
            kept = ((at, piece) for at, piece, _ in rescaled(paths, old, place, new.scale))
            write_anew(paths, chain(kept, [(place, records)]), new.size, lambda: new)
        return True

    def _check_place(
        self, paths: CandlePaths, old: Companion | None, place: int, update: CandleUpdate
    ) -> None:
        """Raises `CandlebeamError` where candles before those of an update cannot stay."""
        if place == 0:
            return
        if old is None:
            raise CandlebeamError(f"{paths.companion} is gone: start the stream again")
        if old.start_ts != update.start_ts or place >= old.traded.records:
            raise CandlebeamError(
                f"{paths.companion} is not the one that the stream went on from, or its last"
                " inputs have changed: stop the stream, and `candlebeam backfill` brings it up to"
                " date"
            )
        if old.scale != update.scale and old.scale.decimals < update.decimals_kept:
            raise CandlebeamError(
                f"{paths.records}: new prices need price scale {update.scale.value}, the candles"
                f" have {old.scale.value} and prices that are rounded at it: stop the stream, and"
                " `candlebeam backfill` makes the market again"
            )

    def _companion(self, update: CandleUpdate, old: Companion | None) -> Companion:
        timeframe = update.block.timeframe
        end_ts = update.end_ts
        if old is not None and self._quiet_candles:
            # What readers have been told of stays.
            end_ts = max(end_ts, old.end_ts)
        return Companion(
            market=update.block.market,
            timeframe=timeframe,
            start_ts=update.start_ts,
            end_ts=end_ts,
            scale=update.scale,
            records=(end_ts - update.start_ts) // timeframe.ms,
            last_input_start_ts=update.inputs[0].start_ts if update.inputs else update.start_ts,
            state=ResumeState(
                settings=self._settings,
                inputs=tuple(_input_state(mark, update.traded_end_ts) for mark in update.inputs),
                covered=update.covered,
                skipped=update.skipped,
                late_trades=update.late_trades,
                tail=update.tail,
                prices=update.prices,
                exact=update.exact,
                quiet=(end_ts - update.traded_end_ts) // timeframe.ms,
            ),
        )

    def _write_late(
        self, paths: CandlePaths, update: CandleUpdate, is_first: bool, *, keeps_later: bool
    ) -> None:
        """Brings the file of trades that came too late to an update, each trade once.

        Args:
            keeps_later: whether it may have trades that the update does not know of yet.
        """
        if not (update.late or is_first):
            return
        storage = storage_of(paths.late)
        if is_first:
            storage.remove(paths.hidden(".late.new"))
        try:
            before = storage.read(paths.late)
        except FileNotFoundError:
            before = b""
        lines = _by_number(before)
        if not keeps_later:
            lines = {number: line for number, line in lines.items() if number <= update.late_trades}
        lines.update((number, _line(number, trade)) for number, trade in update.late)
        after = b"".join(lines[number] for number in sorted(lines))
        if after != before:
            storage.make_folder(os.path.dirname(paths.late))
            if storage.is_local:
                write_atomic(paths.late, after, temporary=paths.hidden(".late.new"))
            else:
                storage.write(paths.late, after)


def _differ(old: Companion, new: Companion) -> bool:
    """Whether none of the old records can stay as they are."""
    return (old.scale, old.start_ts) != (new.scale, new.start_ts)


def _input_state(mark: InputMark, end_ts: int) -> InputState:
    # What has trades that are not in the candles yet must not look as if it had been used up.
    name, size = (mark.name, mark.size) if mark.last_ts < end_ts else ("", 0)
    return InputState(mark.root, mark.path, name, size, mark.text_bytes)


def _is_local(paths: CandlePaths) -> bool:
    return storage_of(paths.stem).is_local


def _is_ahead(old: Companion, update: CandleUpdate) -> bool:
    """Whether the files have more in them than an update knows of, quiet candles apart."""
    if old.end_ts != update.traded_end_ts:
        return old.end_ts > update.traded_end_ts
    if old.state is None or not update.known:
        return False
    known = {(mark.root, mark.path): mark.text_bytes for mark in update.known}
    latest = max(mark.start_ts for mark in update.known)
    return any(
        each.text_bytes > known[each.root, each.path]
        if (each.root, each.path) in known
        # An input that an update does not know is one that it has forgotten, or has not come to.
        else old.last_input_start_ts > latest
        for each in old.state.inputs
    )


def _line(number: int, trade: LateTrade) -> bytes:
    return (json.dumps({"number": number, **trade._asdict()}) + "\n").encode()


def _by_number(lines: bytes) -> dict[int, bytes]:
    """The lines of a file of late trades; what is none is left out."""
    found = {}
    for line in lines.splitlines(keepends=True):
        try:
            found[int(json.loads(line)["number"])] = line
        except (ValueError, KeyError, TypeError):
            continue
    return found
