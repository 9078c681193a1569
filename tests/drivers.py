"""Backfills as processes that go on while a test does something to them or to their cluster."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from tests.command_line import COMMAND, PATIENCE, Outcome, Workspace, environment, report_of


class Driver:
    """A command of `candlebeam` that runs from `with` to its end, at the latest that of the `with`.

    Args:
        folder: where its output goes; it is made.
        arguments: of the command.
        env: what its environment has more than that of this process.
    """

    def __init__(
        self, folder: Path, arguments: tuple[object, ...], env: Mapping[str, str] | None = None
    ) -> None:
        # What it has there is left where it is killed.
        temporary = folder / "tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._arguments = arguments
        self._env = {"TMPDIR": str(temporary), **(env or {})}

    @classmethod
    def backfill(
        cls, work: Workspace, *options: object, env: Mapping[str, str] | None = None
    ) -> Driver:
        """A backfill of a workspace."""
        work.report.unlink(missing_ok=True)
        return cls(work.folder / "driver", work.backfill_arguments(*options), env)

    @classmethod
    def attach(cls, work: Workspace) -> Driver:
        """A command that waits for a backfill of a workspace."""
        work.report.unlink(missing_ok=True)
        arguments = ("attach", "--out", work.out, "--report", work.report)
        return cls(work.folder / "attached", arguments)

    @classmethod
    def stream(cls, work: Workspace, *options: object) -> Driver:
        """A stream of the archive of a workspace to its output."""
        arguments = ("stream", "--root", work.archive, "--out", work.out, *options)
        return cls(work.folder / "streamed", arguments)

    def __enter__(self) -> Self:
        with (self._folder / "stdout").open("w") as out, (self._folder / "stderr").open("w") as err:
            self.process = subprocess.Popen(
                [*COMMAND, *map(str, self._arguments)],
                env=environment(**self._env),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def stderr(self) -> str:
        """What it has said so far."""
        return (self._folder / "stderr").read_text(encoding="utf-8")

    def wait(self, seconds: float = PATIENCE) -> Outcome:
        """How it ended, once it has."""
        code = self.process.wait(seconds)
        stdout = (self._folder / "stdout").read_text(encoding="utf-8")
        return Outcome(code, stdout, self.stderr, report_of(self._arguments))
