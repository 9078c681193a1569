"""The distributions hold the package and what explains it, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.command_line import PROJECT, environment

PACKAGE = PROJECT / "candlebeam"
#: What lies about in a checkout that is worked in, and must not go out with it.
JUNK = (
    ".env",
    "candles/RAM/BINANCE/btcusdt.bin",
    "index.sqlite",
    "candlebeam/__pycache__/model.cpython-311.pyc",
    "candlebeam/formats/trade_rows.parse-1.py311.nbi",
    "candlebeam/formats/.candle_file.py.123.tmp",
    "docs/notes.log",
    "tests/data/some.dbn.zst",
    "examples/archive/x.gz",
    "benchmarks/data.csv",
)
KEPT = ("setup.py", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "MANIFEST.in")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with both distributions, built from a copy of the checkout with junk in it."""
    checkout = tmp_path_factory.mktemp("dist") / "checkout"
    ignored = shutil.ignore_patterns("__pycache__", "*.nbi", "*.nbc")
    for name in ("candlebeam", "docs", "runner_configs", "requirements"):
        shutil.copytree(PROJECT / name, checkout / name, ignore=ignored)
    for name in (*KEPT, "Makefile"):
        shutil.copy(PROJECT / name, checkout / name)
    for name in JUNK:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("junk")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", "."],
        cwd=checkout,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return checkout / "dist"


def modules() -> set[str]:
    return {f"candlebeam/{path.relative_to(PACKAGE)}" for path in PACKAGE.rglob("*.py")}


def test_wheel_is_the_package_alone(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == {*modules(), "candlebeam/py.typed"}


def test_sdist_has_the_package_and_its_documents(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        files = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert modules() <= files
    assert {*KEPT, "docs/formats.md", "runner_configs/direct.yaml"} <= files
    assert not files & set(JUNK)
    tops = {name.split("/")[0] for name in files if "/" in name}
    assert tops == {"candlebeam", "candlebeam.egg-info", "docs", "requirements", "runner_configs"}
