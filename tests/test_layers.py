"""Imports point one way, and Beam is imported by what needs it alone."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import candlebeam
from tests.command_line import PROJECT, Workspace, environment
from tests.staged_shards import text_of
from tests.trade_batches import MARKET, MIDNIGHT, Row

PACKAGE = PROJECT / "candlebeam"
#: What stands on one line does not import each other; all import from the lines above.
LAYERS = (
    ("errors", "kernels", "version"),
    ("market",),
    ("model",),
    ("rules",),
    ("settings", "outcome"),
    ("storage",),
    ("inventory",),
    ("formats",),
    ("archive_walk",),
    ("catalog", "listings"),
    ("shards",),
    ("plan",),
    ("feeds",),
    ("transforms", "io"),
    ("cluster",),
    ("pipelines", "worker"),
    ("cli",),
    ("__main__",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
#: Storage reaches for it where a path has a scheme, and only then.
WITH_BEAM = {"storage", "transforms", "io", "pipelines", "worker"}


class Import(NamedTuple):
    """A module that imports another, by their full names."""

    importer: str
    imported: str


def module_name(path: Path) -> str:
    parts = path.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports_of(module: str) -> Iterator[Import]:
    """All of its imports, wherever in the file they stand."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield Import(module, inner if inner in MODULES else node.module or "")


ALL = [found for module in MODULES for found in imports_of(module)]
OURS = [found for found in ALL if found.imported.split(".")[0] == "candlebeam"]


def part(module: str) -> str:
    """The part of the package that a module belongs to; "" for the package itself."""
    return [*module.split("."), ""][1]


def test_every_module_has_its_layer() -> None:
    assert {part(module) for module in MODULES} == {"", *LEVEL}


def test_imports_point_one_way() -> None:
    wrong = [
        f"{importer} imports {imported}"
        for importer, imported in OURS
        if part(importer)
        and part(imported)
        and part(importer) != part(imported)
        and LEVEL[part(imported)] >= LEVEL[part(importer)]
    ]
    assert wrong == []


def test_no_module_imports_itself_in_a_circle() -> None:
    imported = {m: {i for f, i in OURS if f == m and i != "candlebeam"} for m in MODULES}
    del imported["candlebeam"]
    while free := [module for module, others in imported.items() if not others & imported.keys()]:
        for module in free:
            del imported[module]
    assert imported == {}


def test_package_itself_gives_the_public_names_and_imports_them_when_they_are_used() -> None:
    assert sorted(candlebeam.__all__) == sorted(
        ["AlignedBars", "Candles", "__version__", "open_aligned", "open_candles"]
    )
    assert all(getattr(candlebeam, name) for name in candlebeam.__all__)
    with pytest.raises(AttributeError, match="module 'candlebeam' has no attribute 'nothing'"):
        _ = candlebeam.nothing
    inner = [i.importer for i in OURS if i.imported == "candlebeam" and i.importer != "candlebeam"]
    assert set(inner) <= {"candlebeam.cli"}


def test_beam_is_imported_by_transforms_io_and_pipelines_alone() -> None:
    wrong = [
        importer
        for importer, imported in ALL
        if imported.split(".")[0] == "apache_beam" and part(importer) not in WITH_BEAM
    ]
    assert wrong == []


def test_tests_are_not_imported_by_the_package() -> None:
    roots = {found.imported.split(".")[0] for found in ALL}
    assert not roots & {"tests", "benchmarks", "pytest", "hypothesis"}


# What is really loaded

_RUN = """
import json, sys
from candlebeam.cli import main
try:
    main(json.loads(sys.argv[1]))
except SystemExit as end:
    code = end.code
print(json.dumps([code, sorted(name for name in sys.modules if "." not in name)]))
"""
HEAVY = {"apache_beam", "numba", "pandas", "pyarrow", "grpc"}


def loaded_by(*arguments: object) -> set[str]:
    """The top-level modules in a process that has run a command, which must end well."""
    done = subprocess.run(
        [sys.executable, "-c", _RUN, json.dumps([str(argument) for argument in arguments])],
        env=environment(CANDLEBEAM_IN_PROCESS="1"),
        capture_output=True,
        text=True,
        check=True,
    )
    code, names = json.loads(done.stdout.splitlines()[-1])
    assert code in (0, None), done.stderr
    return set(names)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """An archive of one file, with its candles."""
    found = Workspace(tmp_path_factory.mktemp("layers"))
    path = found.archive / "RAM/b" / MARKET.exchange / MARKET.symbol / "2024-03-01"
    path.parent.mkdir(parents=True)
    path.write_bytes(text_of([Row(MIDNIGHT, 2.0)]))
    found.run()
    return found


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["backfill", "--help"], ["index", "--help"]]
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    loaded = loaded_by(*arguments)
    assert "candlebeam" in loaded
    assert not loaded & (HEAVY | {"numpy"})


def test_index_loads_nothing_heavy(work: Workspace) -> None:
    loaded = loaded_by("index", work.archive, "--db", work.folder / "other.sqlite")
    assert not loaded & (HEAVY | {"numpy"})


def test_backfill_of_nothing_new_loads_nothing_heavy(work: Workspace) -> None:
    loaded = loaded_by(*work.backfill_arguments())
    assert json.loads(work.report.read_text())["totals"]["up_to_date"] == 1
    assert not loaded & HEAVY


def test_show_loads_nothing_heavy(work: Workspace) -> None:
    assert not loaded_by("show", work.out / f"{MARKET.path}.bin") & HEAVY


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, candlebeam; print(sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert not set(ast.literal_eval(done.stdout)) & (HEAVY | {"numpy", "candlebeam.model"})
