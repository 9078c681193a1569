"""What the documents say, held against the program.

The blocks of a document run in order, in one temporary folder beside `examples/` and
`runner_configs/`:

- `console`: commands behind `$ ` (continued behind `> `), each with its whole output, standard
  error included, as a terminal shows it. A command ends with 0, or says `# exit code 1`.
- `pycon`: Python with its output. Names last from block to block.
- `python`: a program that has to end well.

Output must be equal line by line, but for spaces at a line's end, for `...`, which stands for
anything within a line, and for how long a run took. Lines that a terminal does not show, or not
every time, are left out: progress as it is written to a log, and that kernels are being compiled.
Blocks of any other kind (`sh`, `text`) do not run.
"""

from __future__ import annotations

import doctest
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest

from candlebeam.cli import main
from candlebeam.formats.candles.companion import Companion, Journal, ResumeState
from candlebeam.formats.candles.records import RECORD_DTYPE
from candlebeam.formats.trade_log.rows import REASONS
from candlebeam.model import BLOCK_DTYPE, FileOutcome, Market, Timeframe
from candlebeam.outcome import MarketOutcome
from candlebeam.pipelines.report import Report
from candlebeam.pipelines.runner_config import load_runner_config, option_names
from candlebeam.rules.corrections import CORRECTIONS
from candlebeam.rules.price_scale import PriceScale
from candlebeam.settings import CandleSettings
from tests.command_line import PATIENCE, PROJECT, environment
from tests.databento_runs import serving

DOCUMENTS = sorted(
    path.relative_to(PROJECT).as_posix()
    for folder in ("", "docs", "examples", "benchmarks")
    for path in (PROJECT / folder).glob("*.md")
)
GUIDES = [name for name in DOCUMENTS if name == "README.md" or name.startswith("docs/")]
RUNNER_CONFIGS = sorted(path.name for path in (PROJECT / "runner_configs").glob("*.yaml"))

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9_-]*")
_EXIT_CODE = re.compile(r"  # exit code (\d+)$")
_DURATION = re.compile(r" in (\d+ min )?\d+(\.\d)? s$")
_NOT_SHOWN = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ |compiling kernels")


@dataclass(frozen=True)
class Block:
    """A fenced block: its kind, its text, and the line of the document it begins at."""

    kind: str
    text: str
    line: int


@dataclass(frozen=True)
class Command:
    """A command of a `console` block, and what it should come to."""

    text: str
    output: list[str]
    code: int


def read(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


def blocks(document: str) -> Iterator[Block]:
    for match in _BLOCK.finditer(document):
        yield Block(match[1], match[2], document.count("\n", 0, match.start(2)) + 1)


def commands(block: Block) -> Iterator[Command]:
    text: list[str] = []
    output: list[str] = []
    code = 0
    for line in [*block.text.splitlines(), "$ "]:
        if line.startswith("$ "):
            if text:
                yield Command("\n".join(text), output, code)
            stated = _EXIT_CODE.search(line)
            text, output, code = [line[2:]], [], int(stated[1]) if stated else 0
        elif line.startswith("> ") and not output:
            text.append(line[2:])
        else:
            assert text, f"line {block.line}: output without a command: {line}"
            output.append(line)


def matches(expected: list[str], found: list[str]) -> bool:
    """Whether output is as a document has it; see the top of this module."""
    return len(expected) == len(found) and all(
        re.fullmatch(".*".join(map(re.escape, _settled(want).split("..."))), _settled(got))
        for want, got in zip(expected, found, strict=True)
    )


def _settled(line: str) -> str:
    return _DURATION.sub(" in SOME TIME", line.rstrip())


class _Checker(doctest.OutputChecker):
    def check_output(self, want: str, got: str, _: int) -> bool:
        return matches(want.splitlines(), got.splitlines())


class Session:
    """A temporary folder in which the blocks of one document run."""

    def __init__(self, folder: Path) -> None:
        self.work = folder / "work"
        self.names: dict[str, Any] = {}
        for name in ("examples", "runner_configs"):
            shutil.copytree(PROJECT / name, self.work / name)
        programs = folder / "bin"
        programs.mkdir()
        candlebeam = programs / "candlebeam"
        candlebeam.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m candlebeam "$@"\n')
        candlebeam.chmod(0o755)
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        # Unbuffered, both streams come in the order in which a terminal shows them.
        self.environment = environment(PATH=path, PYTHONUNBUFFERED="1")

    def run(self, block: Block, name: str) -> None:
        if block.kind == "console":
            for command in commands(block):
                self._run_command(command, f"{name}:{block.line}")
        elif block.kind == "pycon":
            self._run_examples(block, name)
        elif block.kind == "python":
            code, output = self._run_process([sys.executable, "-c", block.text])
            assert code == 0, f"{name}:{block.line}:\n{output}"

    def _run_command(self, command: Command, place: str) -> None:
        code, output = self._run_process(["bash", "-c", command.text])
        shown = [line for line in output.splitlines() if not _NOT_SHOWN.match(line)]
        expected = "\n".join(command.output)
        found = "\n".join(shown)
        assert code == command.code, f"{place}: {command.text}\nended with {code}:\n{found}"
        assert matches(command.output, shown), (
            f"{place}: {command.text}\n--- documented\n{expected}\n--- found\n{found}"
        )

    def _run_process(self, arguments: list[str]) -> tuple[int, str]:
        done = subprocess.run(
            arguments,
            cwd=self.work,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return done.returncode, done.stdout

    def _run_examples(self, block: Block, name: str) -> None:
        examples = doctest.DocTestParser().get_doctest(
            block.text, self.names, name, name, block.line - 1
        )
        assert examples.examples, f"{name}:{block.line}: no example"
        told: list[str] = []
        result = doctest.DocTestRunner(_Checker()).run(examples, out=told.append, clear_globs=False)
        self.names = examples.globs
        assert not result.failed, "".join(told)


def test_output_matches_line_by_line() -> None:
    assert matches(["1 file in 1.4 s"], ["1 file in 1 min 12 s"])
    assert matches([".../a.gz\tfields", ""], ["/tmp/x/a.gz\tfields", "  "])
    assert not matches(["1 file in 1.4 s"], ["2 files in 1.4 s"])
    assert not matches(["a ... c"], ["a b", "c"])
    assert not matches(["a"], ["a", "b"])


def test_commands_are_told_from_their_output() -> None:
    block = Block("console", "$ cat << E\n> x\n> E\nx\n$ false  # exit code 1\n", 1)
    assert list(commands(block)) == [
        Command("cat << E\nx\nE", ["x"], 0),
        Command("false  # exit code 1", [], 1),
    ]


@pytest.mark.parametrize("name", GUIDES)
def test_blocks_run_as_documented(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [b for b in blocks(read(name)) if b.kind in ("console", "pycon", "python")]
    if not found:
        return
    # The documented downloads come from a server of this process.
    with serving(tmp_path):
        session = Session(tmp_path)
        monkeypatch.chdir(session.work)
        for block in found:
            session.run(block, name)


def test_first_screen_shows_a_command_and_its_output() -> None:
    begin = read("README.md").splitlines()[:20]
    assert begin[0] == "# Candlebeam"
    assert any(line.startswith("$ candlebeam backfill") for line in begin)


def _all_commands(group: click.Group, above: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command by its whole name, such as `agg2 pack`; groups are none themselves."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from _all_commands(command, f"{above}{name} ")
        else:
            yield above + name, command


COMMANDS = dict(_all_commands(main))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_documented(name: str) -> None:
    text = "\n".join(map(read, GUIDES))
    documented = set(_OPTION.findall(text))
    assert re.search(rf"`(candlebeam )?{name}\b", text), f"candlebeam {name} is not documented"
    options = {
        word
        for parameter in COMMANDS[name].params
        if isinstance(parameter, click.Option)
        for word in parameter.opts
        if word.startswith("--")
    }
    assert options, f"candlebeam {name} has no options: is this test still looking at them?"
    assert options <= documented, f"not documented: {sorted(options - documented)}"


def test_readme_names_no_option_that_does_not_exist() -> None:
    known = {"--help", "--version"}
    known |= {word for c in COMMANDS.values() for p in c.params for word in p.opts}
    known |= {f"--{name}" for name in _beam_options_in_use()}
    assert set(_OPTION.findall(read("README.md"))) <= known


def _beam_options_in_use() -> set[str]:
    return {
        name
        for config in RUNNER_CONFIGS
        for name in option_names(load_runner_config(str(PROJECT / "runner_configs" / config)))
    }


@pytest.mark.parametrize("name", RUNNER_CONFIGS)
def test_every_line_of_a_runner_config_is_explained(name: str) -> None:
    lines = read(f"runner_configs/{name}").splitlines()
    for place, line in enumerate(lines):
        if line and not line.startswith("#"):
            assert lines[place - 1].startswith("#"), f"{name}:{place + 1}: {line}"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    folder = (PROJECT / name).parent
    for target in _LINK.findall(_FENCED.sub("", read(name))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (folder / path).resolve() if path else PROJECT / name
        assert file.is_relative_to(PROJECT), f"{name}: {target} leads out of the repository"
        assert file.exists(), f"{name}: {target} is not there"
        if anchor:
            assert anchor in _anchors(file.read_text(encoding="utf-8")), f"{name}: {target}"


def _anchors(document: str) -> set[str]:
    headings = _HEADING.findall(_FENCED.sub("", document))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_make_targets_exist(name: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    for target in re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)`", read(name), re.MULTILINE):
        assert set(filter(None, target)) <= targets, f"{name}: make {target}"


def test_readme_names_every_correction() -> None:
    rows = re.findall(r"^\| `([a-z0-9]+-[a-z0-9-]+)` \|", read("README.md"), re.MULTILINE)
    assert rows == [*CORRECTIONS]


@pytest.mark.parametrize("name", ["README.md", "docs/formats.md"])
def test_record_layout_is_documented(name: str) -> None:
    rows = re.findall(r"^\| (\d+-\d+) \| (\w+) \| (\w+) \|", read(name), re.MULTILINE)
    assert rows == [
        (f"{offset}-{offset + dtype.itemsize - 1}", field, dtype.name)
        for field, (dtype, offset, *_) in (RECORD_DTYPE.fields or {}).items()
    ]


def test_design_names_every_module() -> None:
    named = set(re.findall(r"[a-z0-9_]+", _layout()))
    modules = {path.stem for path in _modules()}
    assert modules <= named, f"not in the layout: {sorted(modules - named)}"


def test_imports_point_from_the_bottom_of_the_layout_to_its_top() -> None:
    layers = re.findall(r"^  ([a-z_]+)", _layout(), re.MULTILINE)
    for path in _modules():
        layer = path.relative_to(PROJECT / "candlebeam").parts[0].removesuffix(".py")
        above = layers[: layers.index(layer) + 1]
        for line in path.read_text(encoding="utf-8").splitlines():
            found = re.match(r"\s*(?:from|import) candlebeam\.(\w+)", line)
            assert not found or found[1] in above, f"{path}: {line.strip()}"


def _layout() -> str:
    return next(b.text for b in blocks(read("docs/design.md")) if b.text.startswith("candlebeam/"))


def _modules() -> list[Path]:
    found = (PROJECT / "candlebeam").rglob("*.py")
    return [path for path in found if not path.name.startswith("__")]


@pytest.mark.parametrize("what", ["companion", "journal", "report", "reasons", "block", "outcome"])
def test_every_field_is_documented(what: str) -> None:
    companion = Companion(
        Market("C", "E", "S"), Timeframe(1000), 0, 1000, PriceScale(4), 1, 0,
        ResumeState(CandleSettings(), quiet=1),
    )  # fmt: skip
    report = Report([MarketOutcome("C/E/S")]).to_json()
    fields: dict[str, set[str]] = {
        "companion": _keys(companion.to_json()),
        "journal": _keys(json.loads(Journal(companion).encode())),
        "report": _keys(report) | _keys(report["totals"]) | _keys(report["markets"][0]),
        "reasons": set(REASONS),
        "block": set(BLOCK_DTYPE.names or ()),
        "outcome": _keys(vars(FileOutcome(""))),
    }
    named = set(re.findall(r"`([A-Za-z_]+)`", read("docs/formats.md")))
    assert fields[what] <= named, f"not documented: {sorted(fields[what] - named)}"


def _keys(values: dict[str, Any]) -> set[str]:
    """The names in a JSON object, and in those within it."""
    inner = [_keys(value) for value in values.values() if isinstance(value, dict)]
    return set(values).union(*inner)
