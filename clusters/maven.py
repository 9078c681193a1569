"""What Maven is asked for."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from clusters.errors import ClusterError

#: Seconds that a first run may take, which downloads everything.
_PATIENCE = 1800
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
_ERROR = re.compile(r"^\[ERROR\] +(?P<text>\S.*)$", re.MULTILINE)
_ABSENT = re.compile(r"Could not find artifact|was not found in")


class NotFound(ClusterError):
    """Maven was answered, and what it asked for does not exist."""


def package(pom: Path, name: str) -> Path:
    """Builds the jar of a project; what it writes is beside its `pom.xml`, in `target/`.

    Args:
        name: what errors call it.
    """
    _run(pom.parent, ["--file", str(pom), "package"], f"build {name}")
    [jar] = [path for path in (pom.parent / "target").glob("*.jar") if "original-" not in path.name]
    return jar


def copy_dependencies(pom: Path, version: str, folder: Path, name: str) -> None:
    """Copies the jars that a project needs into a folder.

    Args:
        name: what errors call them.
        version: what `cluster.version` stands for in the project.
    """
    where = [f"-DoutputDirectory={folder}", "-DincludeScope=runtime"]
    arguments = ["--file", str(pom), f"-Dcluster.version={version}", *where]
    _run(folder, [*arguments, f"{_COPY}:copy-dependencies"], f"get {name}")


def copy_artifact(artifact: str, folder: Path) -> Path:
    """Copies the jar of a published artifact into an empty folder.

    Args:
        artifact: `group:name:version`.

    Raises:
        NotFound: there is no such artifact.
    """
    arguments = [f"-Dartifact={artifact}", f"-DoutputDirectory={folder}"]
    _run(folder, [*arguments, f"{_COPY}:copy"], f"get {artifact}")
    [jar] = folder.glob("*.jar")
    return jar


def _run(folder: Path, arguments: Sequence[str], what: str) -> None:
    program = shutil.which("mvn")
    if program is None:
        raise ClusterError(f"cannot {what}: there is no mvn here; on Debian: apt-get install maven")
    command = [program, "--batch-mode", "--quiet", "-Dstyle.color=never", *arguments]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(f"cannot {what}: mvn did not end in {_PATIENCE} seconds") from None
    if done.returncode == 0:
        return
    output = _ESCAPES.sub("", done.stdout)
    said = _ERROR.search(output)
    reason = said["text"] if said else f"mvn ended with code {done.returncode}"
    raise (NotFound if _ABSENT.search(output) else ClusterError)(f"cannot {what}: {reason}")
