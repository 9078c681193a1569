"""Lets tests hold the workers of a backfill where they want: see `tests.gates`.

Python runs it at its start in every process that has this folder on PYTHONPATH.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_HERE = os.path.dirname(os.path.abspath(__file__))
_LOOK = 0.02
_written = 0


def _hold(folder: str, gate: str, allowed: Callable[[str], bool] = lambda _: False) -> None:
    """Waits while a gate is closed."""
    closed = os.path.join(folder, f"{gate}.closed")
    while True:
        try:
            with open(closed, encoding="ascii") as file:
                text = file.read()
        except FileNotFoundError:
            return
        if allowed(text):
            return
        _leave(folder, f"{gate}.{os.getpid()}.held")
        time.sleep(_LOOK)


def _leave(folder: str, name: str, text: str = "") -> None:
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        file.write(text)


def _in_staging(module: Any, folder: str) -> None:
    write_chunk, write_outcome = module.Staging.write_chunk, module.Staging.write_outcome

    def write_chunk_when_open(*arguments: Any) -> None:
        global _written
        _hold(folder, "chunks", lambda most: _written < int(most or 0))
        write_chunk(*arguments)
        _written += 1

    def write_outcome_when_open(*arguments: Any) -> None:
        _hold(folder, "outcome")
        write_outcome(*arguments)

    module.Staging.write_chunk = write_chunk_when_open
    module.Staging.write_outcome = write_outcome_when_open


def _in_market_commit(module: Any, folder: str) -> None:
    commit_market = module.commit_market

    @functools.wraps(commit_market)
    def commit_when_open(*arguments: Any) -> Any:
        _hold(folder, "candles")
        return commit_market(*arguments)

    module.commit_market = commit_when_open


def _in_commit_markets(module: Any, folder: str) -> None:
    commit_chunks = module.commit_chunks

    @functools.wraps(commit_chunks)
    def commit_when_open(*arguments: Any) -> Any:
        _hold(folder, "commit")
        found = "committed"
        try:
            return commit_chunks(*arguments)
        except BaseException as error:
            found = f"{type(error).__name__}: {error}"
            raise
        finally:
            _leave(folder, f"commit.{os.getpid()}.ended", found)

    module.commit_chunks = commit_when_open


_CHANGES = {
    "candlebeam.io.staging": _in_staging,
    "candlebeam.io.market_commit": _in_market_commit,
    "candlebeam.io.commit_markets": _in_commit_markets,
}


class _Changing(Loader):
    """Loads a module, and changes it then."""

    def __init__(self, loader: Loader, change: Callable[[ModuleType], None]) -> None:
        self._loader, self._change = loader, change

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._change(module)


class _Finder(MetaPathFinder):
    def __init__(self, folder: str) -> None:
        self._folder = folder

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        change = _CHANGES.get(name)
        spec = PathFinder.find_spec(name, path) if change else None
        if change is None or spec is None or spec.loader is None:
            return None
        spec.loader = _Changing(spec.loader, functools.partial(change, folder=self._folder))
        return spec


def _run_the_other() -> None:
    """Runs the sitecustomize that this one stands before."""
    elsewhere = [path for path in sys.path if os.path.abspath(path) != _HERE]
    spec = PathFinder.find_spec("sitecustomize", elsewhere)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


if gates := os.environ.get("CANDLEBEAM_GATES"):
    sys.meta_path.insert(0, _Finder(gates))
    _run_the_other()
