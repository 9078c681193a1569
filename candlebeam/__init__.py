"""Exact candle files from archives of exchange trades. docs/design.md says how it is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from candlebeam.formats.aligned_file import AlignedBars as AlignedBars
    from candlebeam.formats.aligned_file import open_aligned as open_aligned
    from candlebeam.formats.candle_file import Candles as Candles
    from candlebeam.formats.candle_file import open_candles as open_candles

#: Loaded when they are used, so that `import candlebeam` costs nothing.
_PUBLIC = {
    "AlignedBars": "candlebeam.formats.aligned_file",
    "Candles": "candlebeam.formats.candle_file",
    "open_aligned": "candlebeam.formats.aligned_file",
    "open_candles": "candlebeam.formats.candle_file",
}
__all__ = ["AlignedBars", "Candles", "__version__", "open_aligned", "open_candles"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PUBLIC[name]), name)
