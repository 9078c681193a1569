"""The candle files that are there, as planning looks at them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from candlebeam.formats.candles.companion import CandlePaths, Companion, read_companion
from candlebeam.market import Market
from candlebeam.storage import is_remote, storage_of
from candlebeam.storage.ahead import asked_ahead

#: What is not listed: locks, and what is made on the way.
_NO_MARKETS = ".candlebeam"


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
            self._sizes = {
                os.path.join(out, found.path): found.size
                for found in storage.walk(out)
                if not found.path.startswith(_NO_MARKETS)
            }

    def look_ahead(self, markets: Iterable[Market]) -> None:
        """Fetches the companions of markets that will be asked for, many at a time."""
        if self._sizes is None:
            return
        paths = [CandlePaths.of(self._out, market).companion for market in markets]
        wanted = [path for path in paths if path in self._sizes]
        self._companions = dict(zip(wanted, asked_ahead(_companion_or_error, wanted), strict=True))

    def last_inputs(self) -> Iterator[tuple[str, str]]:
        """The folders and names (without `.gz`) of inputs that planning will look at again.

        Of the companions that were fetched.
        """
        for companion in self._companions.values():
            if isinstance(companion, Companion) and companion.state is not None:
                yield from ((each.root, each.path) for each in companion.state.files)
                yield from companion.state.skipped

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
