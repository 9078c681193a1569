"""The compiled loops that a backfill needs, of any archive.

`python -m candlebeam.worker.backfill_kernels PID` compiles them, or finds them compiled, so that
the workers of this machine find them in numba's cache. It ends with the process PID.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from candlebeam.kernels import Kernel, on_compile
from candlebeam.worker.parent import end_with_parent

_MODULES = (
    "candlebeam.formats.trade_log.rows",
    "candlebeam.formats.agg2.held_kernels",
    "candlebeam.formats.agg2.kernels",
    "candlebeam.formats.agg2.survey_kernels",
    "candlebeam.formats.dbn.kernels",
    "candlebeam.formats.dbn.pages",
    "candlebeam.formats.candles.record_kernels",
    "candlebeam.rules.candle_kernels",
    "candlebeam.rules.price_kernels",
    "candlebeam.rules.tick_test",
)


def backfill_kernels() -> list[Kernel[..., Any]]:
    """All of them, in an order that is the same in every process."""
    modules = [importlib.import_module(name) for name in _MODULES]
    return [
        found
        for module in modules
        for found in vars(module).values()
        if isinstance(found, Kernel) and found.__module__ == module.__name__
    ]


def main() -> None:
    """Loads them, and says on standard error if that takes longer."""
    if len(sys.argv) > 1:
        end_with_parent(int(sys.argv[1]))
    on_compile(lambda line: print(f"candlebeam: {line}", file=sys.stderr, flush=True))
    for kernel in backfill_kernels():
        kernel.compiled()


if __name__ == "__main__":
    main()
