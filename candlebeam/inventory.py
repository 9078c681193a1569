"""What there is to read: the inputs of every market of an archive.

A backfill is planned from an `Inventory`. Trade logs have a catalog (`catalog.Catalog`), since
there are millions of them; archives of few large files are listed when a run begins (`listings`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

from candlebeam.errors import CandlebeamError
from candlebeam.market import Market
from candlebeam.storage import is_remote, storage_of
from candlebeam.storage.ahead import asked_ahead

#: The kinds of inputs, by the names that the plan and the report have for them.
TRADE_LOG = "trade-log"
AGG2 = "agg2"
DBN = "dbn"

F = TypeVar("F")


class ListedFile(NamedTuple):
    """One input of a market. They sort in file order.

    Attributes:
        start_ts: where it starts, ms.
        path: relative to the root, without `.gz` where that may come and go.
        root: where the archive is.
        ext: "" or ".gz": what to read besides.
        size: bytes when it was found.
    """

    start_ts: int
    path: str
    root: str
    ext: str
    size: int

    @property
    def full_path(self) -> str:
        """Where the file to read stands."""
        return os.path.join(self.root, self.path + self.ext)


class MarketInputs(NamedTuple):
    """All inputs of a market in file order, as columns: there may be very many.

    Attributes:
        paths: where the files to read stand (absolute).
        sizes: their bytes when they were found.
        last: those of the last start once more; the columns end with them.
    """

    paths: list[str]
    sizes: list[int]
    last: list[ListedFile]


class FileVersion(NamedTuple):
    """Tells an input from what it was: the name of the file that is read, and its size."""

    name: str
    size: int


class Inventory(Protocol[F]):
    """The markets of an archive, and their inputs. `F` is what it knows of a market.

    Attributes:
        path: the archive or the catalog, for messages.
        source: the kind of its inputs: `TRADE_LOG`, `AGG2` or `DBN`.
        shared: whether an input can hold several markets, so that it is better read once for all.
        notes: what the user should know of it, in sentences.
        problems: what of it could not be read, in sentences: the run has failed in part.
    """

    @property
    def path(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def shared(self) -> bool: ...
    @property
    def notes(self) -> list[str]: ...
    @property
    def problems(self) -> list[str]: ...

    def markets(
        self, collector: str | None = None, exchange: str | None = None, symbol: str | None = None
    ) -> dict[Market, F]:
        """The markets in order. Collector and exchange filter without regard to case."""
        ...

    def files(self, market: Market, found: F, from_ts: int | None = None) -> list[ListedFile]:
        """A market's inputs in file order; `from_ts` leaves out those that start before it.

        Raises:
            CandlebeamError: they cannot be told, or do not go together.
        """
        ...

    def inputs(self, market: Market, found: F) -> MarketInputs:
        """All of a market's inputs; raises as `files` does."""
        ...

    def count_before(self, market: Market, found: F, before_ts: int) -> int:
        """How many inputs of a market start before a moment."""
        ...

    def version(self, path: str) -> FileVersion | None:
        """The version of the input at a full path (without `.gz`) as it is now; None if gone."""
        ...

    def look_ahead(self, paths: Iterable[str]) -> None:
        """Looks at the versions of remote inputs that will be asked for, many at a time."""
        ...


class Versions:
    """Versions of inputs; what was looked at ahead is not looked at again.

    Args:
        look: gives the version of an input at a full path, or None.
    """

    def __init__(self, look: Callable[[str], FileVersion | None]) -> None:
        self._look = look
        self._known: dict[str, FileVersion | None] = {}

    def __call__(self, path: str) -> FileVersion | None:
        return self._known[path] if path in self._known else self._look(path)

    def look_ahead(self, paths: Iterable[str]) -> None:
        """See `Inventory.look_ahead`."""
        wanted = [path for path in dict.fromkeys(paths) if is_remote(path)]
        self._known = dict(zip(wanted, asked_ahead(self._look, wanted), strict=True))


class ListedInventory:
    """An `Inventory` of inputs that are all known beforehand.

    Args:
        path, source, shared, notes, problems: as for `Inventory`.
        inputs: those of each market, in any order.
        conflicts: markets whose inputs do not go together, and why.
        part_of: the name of the file that holds an input, where the input itself is no file: it
            stands in the folder above.
    """

    def __init__(
        self,
        path: str,
        source: str,
        inputs: Mapping[Market, Sequence[ListedFile]],
        *,
        shared: bool = False,
        notes: Sequence[str] = (),
        problems: Sequence[str] = (),
        conflicts: Mapping[Market, str] | None = None,
        part_of: str | None = None,
    ) -> None:
        self.path, self.source, self.shared = path, source, shared
        self.notes, self.problems = list(notes), list(problems)
        self._conflicts = conflicts or {}
        self._inputs = {market: sorted(inputs[market]) for market in sorted(inputs)}
        self._part_of = part_of
        self._versions = Versions(self._version)

    def markets(
        self, collector: str | None = None, exchange: str | None = None, symbol: str | None = None
    ) -> dict[Market, list[ListedFile]]:
        """The markets in order, with all of their inputs in file order."""
        return {
            market: files
            for market, files in self._inputs.items()
            if (not collector or market.collector == collector.upper())
            and (not exchange or market.exchange.upper() == exchange.upper())
            and (not symbol or market.symbol == symbol)
        }

    def files(
        self, market: Market, found: Sequence[ListedFile], from_ts: int | None = None
    ) -> list[ListedFile]:
        """A market's inputs in file order; `from_ts` leaves out those that start before it.

        Raises:
            CandlebeamError: they do not go together.
        """
        if market in self._conflicts:
            raise CandlebeamError(self._conflicts[market])
        return [file for file in found if from_ts is None or file.start_ts >= from_ts]

    def inputs(self, market: Market, found: Sequence[ListedFile]) -> MarketInputs:
        """All of a market's inputs; raises as `files` does."""
        files = self.files(market, found)
        return MarketInputs(
            [file.full_path for file in files],
            [file.size for file in files],
            [file for file in files if file.start_ts == files[-1].start_ts],
        )

    def count_before(self, market: Market, found: Sequence[ListedFile], before_ts: int) -> int:
        """How many inputs of a market start before a moment."""
        return sum(file.start_ts < before_ts for file in found)

    def version(self, path: str) -> FileVersion | None:
        """The version of the file that holds an input; None if it is gone."""
        return self._versions(path)

    def look_ahead(self, paths: Iterable[str]) -> None:
        """See `Inventory.look_ahead`."""
        self._versions.look_ahead(paths)

    def _version(self, path: str) -> FileVersion | None:
        if self._part_of is not None:
            path = os.path.join(os.path.dirname(path), self._part_of)
        try:
            return FileVersion(os.path.basename(path), storage_of(path).state(path).size)
        except OSError:
            return None
