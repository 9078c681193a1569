"""A sink for streams: candle files that grow, and change, as the candles of a market close."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import apache_beam as beam
from apache_beam import pvalue

from candlebeam.errors import CandlebeamError
from candlebeam.feeds.stream_errors import told_errors
from candlebeam.io.live_commit import LiveCommit
from candlebeam.io.staging import Staging
from candlebeam.model import Market
from candlebeam.rules.open_candles import CandleUpdate
from candlebeam.settings import CandleSettings

if TYPE_CHECKING:
    from typing import Any

_LOG = logging.getLogger("candlebeam")
#: Errors that pass, as a rule: the stream waits for that.
_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EROFS, errno.EMFILE)
#: How long it waits before it gives up, and the runner starts it again from a checkpoint, s.
_PATIENCE_SECONDS = 300.0
_RETRY_SECONDS = 1.0


class CommitCandles(beam.PTransform):
    """Writes what candles have become to the candle files of an output root.

    In: a PCollection of (`Market`, `CandleUpdate`), those of a market in order. Out: a PCollection
    of (`Market`, ms up to where it is committed). Doing it again changes nothing.

    A disk that is full is waited for. A market whose files are not what the stream expects is told
    in the log, and left alone until the stream is started again; the others go on.

    Args:
        out, settings, quiet_candles: as those of `LiveCommit`.
        staging: the staging folder.
        run: the name of the run: nothing is written once another has begun (`Staging.begin`); ""
            for none.
    """

    def __init__(
        self,
        out: str,
        settings: CandleSettings,
        *,
        staging: str = "",
        run: str = "",
        quiet_candles: bool = False,
    ) -> None:
        super().__init__()
        self._commit = _Commit(out, settings, staging, run, quiet_candles=quiet_candles)

    def expand(self, updates: pvalue.PCollection) -> pvalue.PCollection:
        return updates | "Commit" >> beam.ParDo(self._commit).with_output_types(tuple[Market, int])


class _Commit(beam.DoFn):
    def __init__(
        self,
        out: str,
        settings: CandleSettings,
        staging: str = "",
        run: str = "",
        *,
        quiet_candles: bool = False,
    ) -> None:
        super().__init__()
        self._out, self._settings = out, settings
        self._staging, self._run = Staging(staging), run
        self._quiet_candles = quiet_candles

    def setup(self) -> None:
        self._commit = LiveCommit(self._out, self._settings, quiet_candles=self._quiet_candles)
        self._given_up: dict[Market, str] = {}

    def process(self, element: tuple[Market, CandleUpdate]) -> Iterator[tuple[Market, int]]:
        market, update = element
        with told_errors(f"{market} cannot be written"):
            try:
                committed = _patiently(lambda: self._committed(market, update), market)
            except CandlebeamError as error:
                if self._given_up.get(market) != str(error):
                    self._given_up[market] = str(error)
                    _LOG.error("%s is not written any more: %s", market, error)
                return
        if committed:
            self._given_up.pop(market, None)
            yield market, update.end_ts

    def _committed(self, market: Market, update: CandleUpdate) -> bool:
        with self._staging.committing(market, self._run):
            return self._commit(update)


def _patiently(commit: Callable[[], Any], market: Market) -> Any:
    """Tries again where an error may pass."""
    begun = told = 0.0
    while True:
        try:
            done = commit()
        except OSError as error:
            now = time.monotonic()
            begun = begun or now
            if error.errno not in _PASSING or now - begun > _PATIENCE_SECONDS:
                raise
            if not told or now - told > 60:
                told = now
                _LOG.warning("%s cannot be written: %s; it is tried again", market, error)
            time.sleep(_RETRY_SECONDS)
            continue
        if told:
            _LOG.warning("%s is written again", market)
        return done
