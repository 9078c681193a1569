"""Kernels on a machine with many workers: all are there before they start, compiled once."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

from candlebeam.worker.backfill_kernels import backfill_kernels
from tests.agg2_archive import BlobArchive, day_rows
from tests.command_line import PATIENCE, PROJECT, environment
from tests.worker_pools import MODULE, wait_until, wait_until_gone

_BACKFILLS = """
import json, sys
from candlebeam.cli import main
from candlebeam.kernels import Kernel

for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit as end:
        assert not end.code, arguments
used = [
    f"{value.__module__}.{value.__name__}"
    for name, module in list(sys.modules.items())
    if name.startswith("candlebeam.")
    for value in vars(module).values()
    if isinstance(value, Kernel) and value._compiled is not None
]
print(json.dumps(sorted(set(used))))
"""


def kernels_used(*commands: list[str]) -> list[str]:
    """The kernels that a process has called that has run commands."""
    done = subprocess.run(
        [sys.executable, "-c", _BACKFILLS, json.dumps(commands)],
        env=environment(CANDLEBEAM_IN_PROCESS="1"),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_kernels_that_backfills_use_are_compiled_beforehand(tmp_path: Path) -> None:
    blobs = BlobArchive(tmp_path / "agg2")
    for day in (1, 2):
        blobs.add("BTCUSDT", day, day_rows(day, 100))
    trades = PROJECT / "examples/databento/XNAS.ITCH.trades.dbn.zst"
    db, out = (str(tmp_path / name) for name in ("db", "out"))
    # Any option of how to run, and there are no processes that begin early.
    backfill = ["backfill", "--out", out, "--direct_num_workers=1", "--shard-bytes=1000"]
    used = kernels_used(
        ["index", str(PROJECT / "examples/archive"), "--db", db],
        [*backfill, "--db", db],
        [*backfill, "--agg2", str(blobs.base)],
        [*backfill, "--dbn", str(trades)],
    )
    compiled = {f"{kernel.__module__}.{kernel.__name__}" for kernel in backfill_kernels()}
    assert {name.rpartition(".")[2] for name in used} >= {"parse_rows", "take_held", "take_trades"}
    assert compiled.issuperset(used)


_COMPILE = """
import sys, time
from pathlib import Path
from candlebeam.kernels import on_compile
from some_kernels import first, second

Path(sys.argv[1]).touch()
while not Path("go").exists():
    time.sleep(0.001)
lines = []
on_compile(lines.append)
print(first(1.0), second(1.0), lines)
"""


def test_processes_that_start_together_compile_once(tmp_path: Path) -> None:
    (tmp_path / "some_kernels.py").write_text(
        textwrap.dedent(
            """
            from candlebeam.kernels import kernel

            @kernel("float64(float64)")
            def first(x):
                return x + 1.0

            @kernel("float64(float64)")
            def second(x):
                return x * 4.0
            """
        )
    )
    names = ["a", "b", "c"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _COMPILE, name],
            cwd=tmp_path,
            env=environment(NUMBA_CACHE_DIR=str(tmp_path / "cache")),
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    wait_until(lambda: all((tmp_path / name).exists() for name in names), "all are ready")
    (tmp_path / "go").touch()
    outputs = [process.communicate(timeout=PATIENCE)[0] for process in processes]
    quiet, told = "2.0 4.0 []\n", "2.0 4.0 ['compiling kernels, once on this machine...']\n"
    assert set(outputs) <= {quiet, told}
    compiled = list((tmp_path / "cache").rglob("*.nbc"))
    assert len(compiled) == 2
    # Each of the two kernels was compiled by one of them.
    assert 1 <= outputs.count(told) <= 2


def test_pool_that_is_ended_while_it_compiles_leaves_nothing(tmp_path: Path) -> None:
    with (tmp_path / "errors").open("wb") as errors:
        pool = subprocess.Popen(
            [*MODULE, "--port=0", f"--log-dir={tmp_path / 'logs'}"],
            env=environment(NUMBA_CACHE_DIR=str(tmp_path / "cache")),
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    try:
        wait_until(lambda: b"compiling" in (tmp_path / "errors").read_bytes(), "it compiles")
        compiler = child_of(pool.pid)
        pool.terminate()
        output, _ = pool.communicate(timeout=PATIENCE)
    finally:
        pool.kill()
    assert (pool.returncode, output) == (0, b"")
    wait_until_gone(compiler)


def child_of(pid: int) -> int:
    found = subprocess.run(
        ["pgrep", "-P", str(pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    assert len(found) == 1
    return int(found[0])


def test_compiling_alone_compiles_and_ends(tmp_path: Path) -> None:
    done = subprocess.run(
        [*MODULE, "--compile-only"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
