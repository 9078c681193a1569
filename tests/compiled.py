"""Compiles every kernel before the tests: `python -m tests.compiled`.

A command says on standard error when it compiles; what tests expect there must not depend on which
of them comes first.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from concurrent.futures import ProcessPoolExecutor

import candlebeam
from candlebeam.kernels import Kernel
from candlebeam.pipelines.quiet import without_warnings


def compile_kernels(name: str) -> int:
    """Compiles those of a module, or finds them compiled; how many it has."""
    with without_warnings():
        module = importlib.import_module(name)
    kernels = [
        found
        for found in vars(module).values()
        if isinstance(found, Kernel) and found.__module__ == name
    ]
    for kernel in kernels:
        kernel.compiled()
    return len(kernels)


def main() -> None:
    with without_warnings():
        names = [
            module.name for module in pkgutil.walk_packages(candlebeam.__path__, "candlebeam.")
        ]
    names = [name for name in names if not name.endswith("__main__")]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        print(f"{sum(pool.map(compile_kernels, names))} kernels are compiled")


if __name__ == "__main__":
    main()
