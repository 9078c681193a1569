"""Running the command line from tests: as a process of its own, or in this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from click.testing import CliRunner

PROJECT = Path(__file__).resolve().parent.parent
COMMAND = (sys.executable, "-m", "candlebeam")
#: Longer than any run takes on a machine that is busy with something else.
PATIENCE = 300


@dataclass(frozen=True)
class Outcome:
    """How a command ended. `report` is the JSON of `--report`, empty where there is none."""

    code: int
    stdout: str
    stderr: str
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def output(self) -> str:
        return self.stdout + self.stderr

    @property
    def markets(self) -> dict[str, dict[str, Any]]:
        """The rows of the report, by market."""
        return {row["market"]: row for row in self.report["markets"]}

    @property
    def totals(self) -> dict[str, Any]:
        return dict(self.report["totals"])

    def expect(self, code: int = 0) -> Outcome:
        """Itself, where it ended as expected and showed no traceback."""
        assert self.code == code, f"exit code {self.code}, not {code}:\n{self.output}"
        assert "Traceback" not in self.output, self.output
        return self


def environment(**more: str) -> dict[str, str]:
    """The environment for a process of the command line."""
    paths = [str(PROJECT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **more}


def run_process(*arguments: object, env: Mapping[str, str] | None = None, **popen: Any) -> Outcome:
    """Runs `candlebeam` as a process of its own. `popen` goes to `subprocess.run`."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env=environment(**(env or {})),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        **popen,
    )
    return Outcome(done.returncode, done.stdout, done.stderr, report_of(arguments))


def run_here(*arguments: object) -> Outcome:
    """Runs `candlebeam` in this process, which saves the second that a start takes."""
    from candlebeam.cli import main

    runner = CliRunner(env={"CANDLEBEAM_IN_PROCESS": "1"})
    done = runner.invoke(main, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Outcome(done.exit_code, done.stdout, done.stderr, report_of(arguments))


def report_of(arguments: Sequence[object]) -> dict[str, Any]:
    """The report that a command was told to write; empty where there is none."""
    if "--report" not in arguments:
        return {}
    path = Path(str(arguments[arguments.index("--report") + 1]))
    if not path.is_file():
        return {}
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@dataclass(frozen=True)
class Workspace:
    """One archive and what is made of it: `archive/`, `index.sqlite`, `out/`, `report.json`."""

    folder: Path

    @property
    def archive(self) -> Path:
        return self.folder / "archive"

    @property
    def db(self) -> Path:
        return self.folder / "index.sqlite"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def report(self) -> Path:
        return self.folder / "report.json"

    def index(self, *options: object) -> Outcome:
        return run_here("index", self.archive, "--db", self.db, *options)

    def backfill_arguments(self, *options: object) -> tuple[object, ...]:
        files = ("--db", self.db, "--out", self.out, "--report", self.report)
        return ("backfill", *files, *options)

    def backfill(self, *options: object) -> Outcome:
        self.report.unlink(missing_ok=True)
        return run_here(*self.backfill_arguments(*options))

    def backfill_process(
        self, *options: object, env: Mapping[str, str] | None = None, **popen: Any
    ) -> Outcome:
        self.report.unlink(missing_ok=True)
        return run_process(*self.backfill_arguments(*options), env=env, **popen)

    def run(self, *options: object) -> Outcome:
        """Indexes and backfills; both must end well."""
        self.index().expect()
        return self.backfill(*options).expect()


def contents(out: Path) -> dict[str, bytes]:
    """The candle files under an output root, by market path."""
    return {
        path.relative_to(out).as_posix().removesuffix(".bin"): path.read_bytes()
        for path in sorted(out.rglob("*.bin"))
    }


def companions(out: Path) -> dict[str, dict[str, Any]]:
    """The companions under an output root, by market path."""
    return {
        path.relative_to(out).as_posix().removesuffix(".json"): json.loads(path.read_bytes())
        for path in sorted(out.rglob("*.json"))
    }


def leftovers(out: Path) -> list[str]:
    """Files under an output root that a finished run has no business leaving there."""
    return [
        path.relative_to(out).as_posix()
        for path in sorted(out.rglob("*"))
        if path.is_file()
        and (path.suffix not in (".bin", ".json") or path.name.startswith("."))
        and not path.name.endswith(".lock")
    ]
