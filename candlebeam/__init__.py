"""Exact candle files from archives of exchange trades. docs/design.md says how it is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from candlebeam.version import __version__

if TYPE_CHECKING:
    from candlebeam.formats.aligned.file import AlignedBars as AlignedBars
    from candlebeam.formats.aligned.file import open_aligned as open_aligned
    from candlebeam.formats.candles.file import Candles as Candles
    from candlebeam.formats.candles.file import open_candles as open_candles

#: Loaded when they are used, so that `import candlebeam` costs nothing.
_PUBLIC = {
    "AlignedBars": "candlebeam.formats.aligned.file",
    "Candles": "candlebeam.formats.candles.file",
    "open_aligned": "candlebeam.formats.aligned.file",
    "open_candles": "candlebeam.formats.candles.file",
}
__all__ = ["AlignedBars", "Candles", "__version__", "open_aligned", "open_candles"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PUBLIC[name]), name)
