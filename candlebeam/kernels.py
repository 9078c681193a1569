"""Compiled loops over arrays: numba, but only once the first of them is called.

Importing numba takes longer than many a command runs, so nothing here imports it before a kernel
is called. A kernel is compiled for the one signature it declares and kept in numba's cache: beside
its module, or in the user's cache folder where that cannot be written, or nowhere at all. Processes
that need it at the same time wait for the one that compiles it.

A kernel is a plain function of numbers and arrays:

    @callee
    def square(x: float) -> float:
        return x * x

    @kernel("float64(float64[::1])")
    def energy(samples: Float64Array) -> float:
        ...  # may call square()
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, Generic, ParamSpec, TypeVar, cast

import numpy as np

P = ParamSpec("P")
R = TypeVar("R")

_LOG = logging.getLogger(__name__)
_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "boundscheck": False,
    # Kernels allocate nothing, and counting references to arrays costs more than many a callee.
    "_nrt": False,
}
#: In numba's cache: held by the process that compiles.
_LOCK_NAME = "candlebeam-compiling.lock"
_LOCK_SECONDS = 60

# Held while anything is bound or compiled. Reentrant, as a kernel may call another one.
_lock = threading.RLock()
_callbacks: list[Callable[[str], None]] = []
_announced = False


def on_compile(callback: Callable[[str], None]) -> None:
    """Has `callback` called with one line for the user before this process first compiles.

    It is called at most once in a process, and not at all where all kernels come out of the cache.
    Without any callback the line is logged at INFO.
    """
    _callbacks.append(callback)


def _announce(cached: bool) -> None:
    global _announced
    if _announced:
        return
    _announced = True
    line = (
        "compiling kernels, once on this machine..."
        if cached
        else "compiling kernels (no folder to keep them in: set NUMBA_CACHE_DIR to one)..."
    )
    for callback in _callbacks or [_LOG.info]:
        callback(line)


class Deferred:
    """A name in a module that imports numba: looked up when a kernel that uses it is compiled.

    Args:
        module: the full name of the module.
        name: the name in it, usually of an intrinsic.
    """

    def __init__(self, module: str, name: str) -> None:
        self.module = module
        self.name = name

    def resolve(self) -> Any:
        """What a kernel sees in the place of this object."""
        return getattr(importlib.import_module(self.module), self.name)

    def sources(self) -> Iterator[bytes]:
        """What the compiled code depends on: here the whole module."""
        found = importlib.util.find_spec(self.module)
        if found is not None and found.origin is not None and Path(found.origin).is_file():
            yield Path(found.origin).read_bytes()


class Callee(Generic[P, R]):
    """A function that kernels may call. From Python it runs uncompiled."""

    __name__: str

    def __init__(self, function: Callable[P, R]) -> None:
        functools.update_wrapper(self, function)
        self._function = cast(FunctionType, function)
        self._dispatcher: Any = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return cast(R, self._function(*args, **kwargs))

    def __reduce__(self) -> str:
        return self._function.__qualname__

    def resolve(self) -> Any:
        """The compiled function that a kernel sees in the place of this object."""
        with _lock:
            if self._dispatcher is None:
                numba = importlib.import_module("numba")
                self._dispatcher = numba.njit(**_OPTIONS)(_bound(self._function, ""))
            return self._dispatcher

    def sources(self) -> Iterator[bytes]:
        """What the compiled code depends on: this function, the constants and callees it names."""
        yield from _sources(self._function)


class Kernel(Callee[P, R]):
    """A compiled entry point; see `kernel`."""

    def __init__(self, function: Callable[P, R], signature: str) -> None:
        super().__init__(function)
        self.signature = signature
        self._compiled: Callable[P, R] | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        compiled = self._compiled
        if compiled is None:
            compiled = self.compiled()
        return compiled(*args, **kwargs)

    def compiled(self) -> Callable[P, R]:
        """The function itself, compiled or taken from the cache. Safe to call from any thread."""
        with _lock:
            if self._compiled is None:
                self._compiled = self._compile()
            return self._compiled

    def _compile(self) -> Callable[P, R]:
        numba = importlib.import_module("numba")
        # numba stamps a cached function with its own source file alone. The digest in the name
        # covers what is called in other files, and how, so an edit there compiles it anew.
        parts = (self.signature.encode(), repr(_OPTIONS).encode(), *self.sources())
        digest = hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]
        # A cache file that a crash has torn keeps failing: the second try is under another name.
        for name in (digest, f"{digest}r"):
            bound = _bound(self._function, name)
            try:
                return self._out_of_cache(numba, bound)
            except Exception as error:  # noqa: BLE001
                # Also where no folder can be written, or the disk is full. If it is the code that
                # is wrong, compiling it uncached raises the same again.
                _LOG.debug("kernel %s cannot be cached: %s", self._function.__qualname__, error)
        with _WhenCompiling(lambda: _announce(cached=False)):
            return cast(Callable[P, R], numba.njit([self.signature], **_OPTIONS)(bound))

    def _out_of_cache(self, numba: Any, bound: FunctionType) -> Callable[P, R]:
        """The function out of the cache; compiled into it, by one process alone, if need be."""
        compiler = functools.partial(numba.njit, cache=True, **_OPTIONS)
        try:
            with _WhenCompiling(_refuse):
                return cast(Callable[P, R], compiler([self.signature])(bound))
        except _NotCachedError:
            folder = compiler()(bound).stats.cache_path
        # Who had to wait finds in the cache what the other has compiled.
        with _alone(folder), _WhenCompiling(lambda: _announce(cached=True)):
            return cast(Callable[P, R], compiler([self.signature])(bound))


def callee(function: Callable[P, R]) -> Callee[P, R]:
    """Marks a function that kernels call: compiled into them, plain Python elsewhere."""
    return Callee(function)


def kernel(signature: str) -> Callable[[Callable[P, R]], Kernel[P, R]]:
    """Makes a function of numbers and arrays a compiled one that runs without the GIL.

    It may use constants (numbers, arrays) of its module, numpy, math, and what is marked with
    `callee`, `kernel` or `Deferred`. Array indices are not checked; a division by zero gives inf.

    Args:
        signature: the types in numba's notation, such as `"int64(uint8[::1], int64)"`. Calls with
            anything else raise TypeError.
    """

    def decorate(function: Callable[P, R]) -> Kernel[P, R]:
        return Kernel(function, signature)

    return decorate


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _bound(function: FunctionType, digest: str) -> FunctionType:
    """The function with its callees compiled; `digest` becomes part of its cache file's name."""
    scope = dict(function.__globals__)
    for name in _names(function.__code__):
        value = scope.get(name)
        if isinstance(value, Callee | Deferred):
            scope[name] = value.resolve()
    bound = FunctionType(function.__code__, scope, function.__name__, function.__defaults__)
    bound.__module__ = function.__module__
    bound.__qualname__ = f"{function.__qualname__}_{digest}" if digest else function.__qualname__
    return bound


def _sources(function: FunctionType, seen: set[int] | None = None) -> Iterator[bytes]:
    seen = set() if seen is None else seen
    if id(function) in seen:
        return
    seen.add(id(function))
    try:
        yield inspect.getsource(function).encode()
    except OSError:
        yield function.__code__.co_code
    for name in sorted(set(_names(function.__code__))):
        value = function.__globals__.get(name)
        if isinstance(value, Callee):
            yield from _sources(value._function, seen)
        elif isinstance(value, Deferred):
            yield from value.sources()
        elif isinstance(value, np.ndarray):
            yield name.encode() + value.dtype.str.encode() + value.tobytes()
        elif isinstance(value, bool | int | float | str | bytes | tuple | np.generic):
            yield f"{name}={value!r}".encode()


class _NotCachedError(Exception):
    """A kernel would have to be compiled."""


def _refuse() -> None:
    raise _NotCachedError


@contextlib.contextmanager
def _alone(folder: str) -> Iterator[None]:
    """While it is open, no other process compiles into a folder.

    Where there are no locks, or somebody keeps one for a minute, the kernel is compiled twice.
    """
    from filelock import FileLock

    lock = FileLock(os.path.join(folder, _LOCK_NAME))
    with contextlib.suppress(OSError, NotImplementedError):
        lock.acquire(timeout=_LOCK_SECONDS)
    try:
        yield
    finally:
        lock.release()


class _WhenCompiling:
    """While it is open, calls a function when numba begins to compile instead of finding a cache.

    What the function raises comes out of the call that would have compiled.
    """

    def __init__(self, call: Callable[[], None]) -> None:
        event = importlib.import_module("numba.core.event")
        # numba tells of what any thread compiles.
        thread = threading.get_ident()

        class Caller(event.Listener):  # type: ignore[name-defined]
            def on_start(self, event: Any) -> None:
                if threading.get_ident() == thread:
                    call()

            def on_end(self, event: Any) -> None:
                pass

        self._installed = event.install_listener("numba:compile", Caller())

    def __enter__(self) -> None:
        self._installed.__enter__()

    def __exit__(self, *failure: Any) -> None:
        self._installed.__exit__(*failure)
