"""The errors that Candlebeam raises on purpose. All derive from `CandlebeamError`.

The command line turns each of them into one line on standard error; anything else that escapes
is a bug and shows its traceback.
"""

from __future__ import annotations


class CandlebeamError(Exception):
    """Base of every error whose message is meant for the user."""


class UsageError(CandlebeamError):
    """The command or the configuration asks for something that makes no sense (exit code 2)."""


class FormatError(CandlebeamError, ValueError):
    """Bytes that are not what their format says.

    Args:
        path: the file, as the user knows it.
        expected: what should have been there.
        found: what was there.
        offset: the place in the file in bytes, where one is known.
    """

    def __init__(self, path: str, expected: str, found: str, offset: int | None = None) -> None:
        place = "" if offset is None else f" at byte {offset}"
        super().__init__(f"{path}{place}: expected {expected}, found {found}")
        self.path = path
        self.expected = expected
        self.found = found
        self.offset = offset

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.path, self.expected, self.found, self.offset)


class PriceScaleError(CandlebeamError, ValueError):
    """A price does not fit into int32 at the price scale that was asked for."""


class RangeError(CandlebeamError, OverflowError):
    """A sum or a count does not fit into its field."""


class Cancelled(CandlebeamError):
    """The caller asked for the work to stop before its end; what was handed out is valid."""


def os_reason(error: OSError) -> str:
    """Why the system did not do it, without the file: `PermissionError: Permission denied`."""
    reason = error.strerror or str(error)
    return f"{type(error).__name__}: {reason}" if error.errno else reason
