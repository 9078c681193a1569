"""What is kept beside a downloaded file: the request it answers, and how to know it is all there.

The file stands beside the data as `.{name}.json`. It counts only for data of just that size, so
that it may be older than the data and never claims more than there is.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace

from candlebeam.rules.months import Span

_VERSION = 1


@dataclass(frozen=True)
class Fetched:
    """One downloaded file.

    Attributes:
        dataset, schema, symbol, stype_in: what was asked for.
        start, end: from when to before when, in ns.
        records: how many records the file holds.
        size: its length in bytes.
        csv_size: the length in bytes of the CSV file made of it; None if there is none.
    """

    dataset: str
    schema: str
    symbol: str
    stype_in: str
    start: int
    end: int
    records: int
    size: int
    csv_size: int | None = None

    @property
    def span(self) -> Span:
        return Span(self.start, self.end)

    def with_csv(self, size: int) -> Fetched:
        """Itself, with a CSV file."""
        return replace(self, csv_size=size)

    def encode(self) -> bytes:
        """As JSON; `decode` is the inverse."""
        return json.dumps({"version": _VERSION, **asdict(self)}, indent=2).encode() + b"\n"

    @classmethod
    def decode(cls, data: bytes) -> Fetched:
        """Raises `ValueError` for bytes that `encode` did not make."""
        try:
            values = json.loads(data)
        except RecursionError as error:
            raise ValueError(str(error)) from None
        if not isinstance(values, dict) or values.pop("version", None) != _VERSION:
            raise ValueError(f"expected an object of version {_VERSION}")
        try:
            found = cls(**values)
        except TypeError as error:
            raise ValueError(str(error)) from None
        numbers = (found.start, found.end, found.records, found.size)
        texts = (found.dataset, found.schema, found.symbol, found.stype_in)
        if not all(type(number) is int for number in numbers):
            raise ValueError("expected whole numbers")
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("expected texts")
        if found.csv_size is not None and type(found.csv_size) is not int:
            raise ValueError("expected a whole number or null as csv_size")
        return found


def read_fetched(path: str, data_path: str) -> Fetched | None:
    """What is known of the data at `data_path`; None if nothing, or nothing of these bytes."""
    try:
        with open(path, "rb") as file:
            found = Fetched.decode(file.read())
        return found if os.path.getsize(data_path) == found.size else None
    except (FileNotFoundError, ValueError):
        return None
