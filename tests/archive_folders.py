"""Archives of files without trades, and what a catalog makes of them."""

from __future__ import annotations

from pathlib import Path

from candlebeam.catalog import Catalog


def fill(root: Path, *paths: str, size: int = 10) -> Path:
    """Makes files of so many bytes under a root, which it gives back."""
    for path in paths:
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"x" * size)
    return root


def all_files(catalog: Catalog) -> dict[str, list[str]]:
    """Path and extension of every input, by market."""
    return {
        str(market): [file.path + file.ext for file in catalog.files(market, ranges)]
        for market, ranges in catalog.markets().items()
    }
