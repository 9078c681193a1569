"""What an export has written: a hidden JSON file beside the files of a market.

It says of each month what the file was made from, so that a later run leaves alone what would come
out the same. docs/formats.md has every field.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from candlebeam.errors import FormatError

STATE_VERSION = 1

_MONTH = re.compile(r"-?\d{4,}-\d\d")
_LIMIT = 1 << 62


class ExportedMonth(NamedTuple):
    """One month that has been written.

    Attributes:
        checksum: CRC-32 of the bars it was made from.
        size: bytes of its file; None where it has no bars to write, and so no file.
        bars: how many are in the file.
    """

    checksum: int
    size: int | None
    bars: int


@dataclass(frozen=True)
class ExportState:
    """All months of a market that have been written.

    Attributes:
        source: whose bars, and how long they are; not to be mixed with others.
        options: how they are written: the months of other options do not count.
        months: by month, such as 2024-01.
    """

    source: str
    options: dict[str, Any]
    months: dict[str, ExportedMonth] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The bytes of the file; `decode` is the inverse."""
        body = {
            "version": STATE_VERSION,
            "source": self.source,
            "options": self.options,
            "months": {month: list(done) for month, done in sorted(self.months.items())},
        }
        return json.dumps({**body, "crc32": _checksum(body)}, indent=1).encode() + b"\n"

    @classmethod
    def decode(cls, data: bytes, path: str) -> ExportState:
        """Raises `FormatError`, naming `path`, for bytes that `encode` did not make."""
        try:
            body = json.loads(data)
            if body.pop("crc32") != _checksum(body):
                raise ValueError("one that is damaged")
            if body["version"] != STATE_VERSION:
                raise ValueError(f"version {body['version']!r}, not {STATE_VERSION}")
            source, options = body["source"], body["options"]
            if not isinstance(source, str) or not isinstance(options, dict):
                raise ValueError(f"{source!r} and {options!r}")
            months = {month: _month(month, values) for month, values in body["months"].items()}
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            found = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise FormatError(path, "the state of an export", found) from None
        return cls(source, options, months)


def _month(name: str, values: Any) -> ExportedMonth:
    checksum, size, bars = values
    numbers = [checksum, bars, *([] if size is None else [size])]
    if not _MONTH.fullmatch(name) or not all(
        type(number) is int and 0 <= number < _LIMIT for number in numbers
    ):
        raise ValueError(f"month {name!r} with {values!r}")
    return ExportedMonth(checksum, size, bars)


def _checksum(body: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(body, sort_keys=True).encode())
