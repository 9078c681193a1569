"""The candle files that are there, as planning looks at them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from candlebeam.formats.candles.companion import CandlePaths, Companion, read_companion
from candlebeam.market import Market
from candlebeam.storage import is_remote, storage_of

#: Requests that wait for a remote storage at the same time.
_AT_ONCE = 32


class CandleOutput:
    """An output root.

    Of a local one each file is looked at when it is asked for. A remote one is listed once: to ask
    for each file would take longer than many a run.

    Args:
        out: its full path.
    """

    def __init__(self, out: str) -> None:
        self._out = out
        self._sizes: dict[str, int] | None = None
        self._companions: dict[str, Companion | Exception | None] = {}
        if is_remote(out):
            storage = storage_of(out)
            self._sizes = {os.path.join(out, f.path): f.size for f in storage.walk(out)}

    def look_ahead(self, markets: Iterable[Market]) -> None:
        """Fetches the companions of markets that will be asked for, many at a time."""
        if self._sizes is None:
            return
        paths = [CandlePaths.of(self._out, market).companion for market in markets]
        wanted = [path for path in paths if path in self._sizes]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = pool.map(_companion_or_error, wanted)
            self._companions = dict(zip(wanted, found, strict=True))

    def may_have_leftovers(self, paths: CandlePaths) -> bool:
        """Whether a crash may have left something of a commit; see `io.candle_writer.recover`."""
        if self._sizes is None:
            return os.path.isdir(os.path.dirname(paths.stem))
        return any(path in self._sizes for path in (paths.journal, *paths.unfinished))

    def size(self, paths: CandlePaths) -> int | None:
        """Bytes of the candles of a market; None if there are none."""
        if self._sizes is not None:
            return self._sizes.get(paths.records)
        try:
            return os.path.getsize(paths.records)
        except FileNotFoundError:
            return None

    def companion(self, paths: CandlePaths) -> Companion | None:
        """The companion of a market; None if there is none. Raises `FormatError`."""
        if self._sizes is not None and paths.companion not in self._sizes:
            return None
        if paths.companion not in self._companions:
            return read_companion(paths.companion)
        found = self._companions[paths.companion]
        if isinstance(found, Exception):
            raise found
        return found


def _companion_or_error(path: str) -> Companion | Exception | None:
    try:
        return read_companion(path)
    except (ValueError, OSError) as error:
        return error
