"""How kernels are compiled and kept: late, once, and anew when their sources change."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

import candlebeam.kernels as kernels_module
from candlebeam.kernels import callee, kernel
from candlebeam.model import Float64Array

ROOT = Path(kernels_module.__file__).parents[1]
LINE = "compiling kernels, once on this machine..."
UNKEPT = "compiling kernels (no folder to keep them in: set NUMBA_CACHE_DIR to one)..."


@callee
def twice(x: float) -> float:
    return 2.0 * x


@kernel("float64(float64[::1])")
def doubled_sum(values: Float64Array) -> float:
    total = 0.0
    for value in values:
        total += twice(value)
    return total


def test_kernel_calls_its_callee_and_a_callee_is_plain_python_too() -> None:
    assert doubled_sum(np.array([1.0, 2.5])) == 7.0
    assert twice(1.5) == 3.0
    assert doubled_sum.__name__ == "doubled_sum"


def test_other_types_than_declared_are_refused() -> None:
    with pytest.raises(TypeError, match="No matching definition"):
        doubled_sum(np.array([1, 2]))


def test_error_in_the_code_of_a_kernel_is_shown() -> None:
    @kernel("int64(int64)")
    def broken(x: int) -> int:
        return x + "1"  # type: ignore[operator]

    with pytest.raises(Exception, match=r"(?s)Failed in nopython mode.*No implementation"):
        broken(1)


def test_kernels_are_pickled_by_name() -> None:
    assert pickle.loads(pickle.dumps(doubled_sum)) is doubled_sum  # noqa: S301
    assert pickle.loads(pickle.dumps(twice)) is twice  # noqa: S301


def test_threads_that_call_first_compile_once(monkeypatch: pytest.MonkeyPatch) -> None:
    @kernel("int64(int64)")
    def increased(x: int) -> int:
        return x + 1

    compiled = []
    compile_it = type(increased)._compile

    def counting(self: object) -> object:
        compiled.append(self)
        return compile_it(self)  # type: ignore[arg-type]

    monkeypatch.setattr(type(increased), "_compile", counting)
    together = threading.Barrier(4)
    results: list[int] = []

    def call() -> None:
        together.wait()
        results.append(increased(1))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [2] * 4
    assert compiled == [increased]


# --- in processes of their own

MAIN = """
    import sys
    from candlebeam.kernels import on_compile
    on_compile(lambda line: print("told:", line))
    import mine
    assert "numba" not in sys.modules, "numba is imported too early"
    print(mine.add(1), mine.add(1), mine.add_twice(1))
"""

MINE = """
    from candlebeam.kernels import kernel
    from other import step

    STEP = 1

    @kernel("int64(int64)")
    def add(x):
        return step(x) + STEP

    @kernel("int64(int64)")
    def add_twice(x):
        return step(step(x))
"""

OTHER = """
    from candlebeam.kernels import callee
    from third import least

    @callee
    def step(x):
        return x + least(x)
"""

THIRD = """
    from candlebeam.kernels import callee

    @callee
    def least(x):
        return 10
"""


class Program:
    """A little program with kernels, run in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "program"
        self.folder.mkdir()
        self.home = folder / "home"
        self.home.mkdir()
        self.settings: dict[str, str] = {}
        self.write(main=MAIN, mine=MINE, other=OTHER, third=THIRD)

    def write(self, **modules: str) -> None:
        for name, source in modules.items():
            (self.folder / f"{name}.py").write_text(textwrap.dedent(source))

    def run(self) -> list[str]:
        known = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA", "XDG"))}
        done = subprocess.run(
            [sys.executable, "main.py"],
            cwd=self.folder,
            env=known
            | {"HOME": str(self.home), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
            | self.settings,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout.splitlines()

    def caches(self, folder: Path) -> list[Path]:
        return sorted(folder.rglob("*.nbi"))


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


def test_user_is_told_once_when_kernels_are_compiled_and_not_when_cached(program: Program) -> None:
    assert program.run() == [f"told: {LINE}", "12 12 21"]
    assert program.run() == ["12 12 21"]
    assert len(program.caches(program.folder / "__pycache__")) == 2


def test_edit_in_a_called_module_or_constant_compiles_anew(program: Program) -> None:
    program.run()
    program.write(third=THIRD.replace("10", "20"))
    assert program.run() == [f"told: {LINE}", "22 22 41"]
    assert program.run() == ["22 22 41"]
    program.write(mine=MINE.replace("STEP = 1", "STEP = 2"))
    assert program.run() == [f"told: {LINE}", "23 23 41"]
    program.write(third=THIRD, mine=MINE)
    assert program.run()[-1] == "12 12 21"


def test_cache_folder_of_the_environment_is_used(program: Program, tmp_path: Path) -> None:
    program.settings["NUMBA_CACHE_DIR"] = str(tmp_path / "kept")
    program.run()
    assert len(program.caches(tmp_path / "kept")) == 2
    assert program.caches(program.folder) == []
    assert program.run() == ["12 12 21"]


# A file where numba wants a folder keeps even root from writing, as a read-only file system does.


def test_read_only_package_is_cached_in_the_users_folder(program: Program) -> None:
    (program.folder / "__pycache__").write_text("")
    program.run()
    assert len(program.caches(program.home)) == 2
    assert program.run() == ["12 12 21"]


def test_without_any_folder_to_write_kernels_work_uncached(program: Program) -> None:
    (program.folder / "__pycache__").write_text("")
    (program.home / ".cache").write_text("")
    for _ in range(2):
        assert program.run() == [f"told: {UNKEPT}", "12 12 21"]


def test_torn_cache_file_does_no_harm(program: Program) -> None:
    program.run()
    for path in (program.folder / "__pycache__").iterdir():
        path.write_bytes(path.read_bytes()[:-9] if path.suffix == ".nbc" else b"")
    assert program.run() == [f"told: {LINE}", "12 12 21"]
    assert program.run() == ["12 12 21"]


def test_importing_the_reader_does_not_import_numba() -> None:
    code = "import sys, candlebeam.formats.trade_log.reader; sys.exit('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert done.returncode == 0
