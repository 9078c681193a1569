"""Beam's job servers as jars: given, already here, or fetched."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from candlebeam.cluster.programs import run_program
from candlebeam.errors import CandlebeamError, UsageError

_NAMES = {"flink": "Flink", "spark": "Spark"}
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
_LONGEST = 200

# Run by another Python, which can be killed: a download by Beam has no end of its own where a
# firewall drops what it sends.
_BEAM_DOWNLOAD = """
import logging, sys
logging.disable(logging.WARNING)
from apache_beam.utils.subprocess_server import JavaJarServer
kind, what, folder = sys.argv[1:]
url = JavaJarServer.path_to_beam_jar(what) if kind == "target" else what
print(JavaJarServer.local_jar(url, folder))
"""


@dataclass(frozen=True)
class Patience:
    """How long fetching may take, in seconds: Maven in all, Beam without a byte more."""

    maven: float = 900
    beam: float = 60


def job_server_jar(
    kind: str,
    version: str,
    *,
    given: str | None,
    beam_version: str,
    cache: str | None = None,
    say: Callable[[str], None] | None = None,
    patience: Patience | None = None,
) -> str:
    """The path of a job server's jar.

    What is given counts; else what lies in the cache, else what a Maven client brings, else what
    Beam downloads. What is fetched goes to the cache, once it is whole.

    Args:
        kind: "flink" or "spark".
        version: of Flink "1.19", of Spark "3".
        given: the path or the URL of a jar.
        beam_version: of Beam's Python package, as "2.77.0".
        cache: a folder; by default Beam's own.
        say: gets a line before something slow is begun, and when the cache holds damage.

    Raises:
        UsageError: the version is none.
        CandlebeamError: what is given is no such jar; or there is none and none can be fetched.
    """
    if not re.fullmatch(r"\d+(\.\d+)*", version):
        raise UsageError(f"{version!r} is no version of {_NAMES[kind]}")
    wanted = _Wanted(kind, version, beam_version)
    fetching = _Fetching(
        os.path.expanduser(cache or os.path.join("~", ".apache_beam", "cache", "jars")),
        say or _silent,
        patience or Patience(),
    )
    if given and "://" in given:
        return fetching.from_url(given, wanted)
    if given:
        path = os.path.expanduser(given)
        if problem := damage(path):
            raise CandlebeamError(f"{wanted.option}: {path} {problem}")
        return path
    return fetching.from_anywhere(wanted)


def damage(path: str) -> str:
    """What keeps a file from being a job server's jar: "is no zip file (…)"; "" if nothing does."""
    try:
        with zipfile.ZipFile(path) as jar:
            names = jar.NameToInfo
            if "META-INF/MANIFEST.MF" in names:
                manifest = jar.read("META-INF/MANIFEST.MF")
                if re.search(rb"^Main-Class:", manifest, re.MULTILINE):
                    return ""
            if any(name.startswith("org/apache/beam/") for name in names):
                return ""
    except FileNotFoundError:
        return "is not there"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        return f"is no whole jar ({_short(str(error))})"
    return "is no job server: it has neither a Main-Class nor classes of Beam"


def _whole(path: str) -> str:
    """As `damage`, reading all that is in it."""
    if problem := damage(path):
        return problem
    try:
        with zipfile.ZipFile(path) as jar:
            bad = jar.testzip()
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        return f"is no whole jar ({_short(str(error))})"
    return f"is no whole jar ({bad} is damaged)" if bad else ""


@dataclass(frozen=True)
class _Wanted:
    """The job server of a run."""

    kind: str
    version: str
    beam_version: str

    @property
    def artifact(self) -> str:
        return f"beam-runners-{self.kind}-{self.version}-job-server"

    @property
    def coordinates(self) -> str:
        return f"org.apache.beam:{self.artifact}:{self.beam_version}"

    @property
    def file_name(self) -> str:
        return f"{self.artifact}-{self.beam_version}.jar"

    @property
    def target(self) -> str:
        """Its name in Beam's build."""
        return f":runners:{self.kind}:{self.version}:job-server:shadowJar"

    @property
    def option(self) -> str:
        return f"--{self.kind}_job_server_jar"

    def maven_command(self, folder: str) -> list[str]:
        return [
            *("mvn", "-q", "-B", "-U", _COPY),
            f"-Dartifact={self.coordinates}",
            f"-DoutputDirectory={folder}",
        ]


@dataclass(frozen=True)
class _Fetching:
    """Ways to a jar that is not given as a file."""

    cache: str
    say: Callable[[str], None]
    patience: Patience

    def from_url(self, url: str, wanted: _Wanted) -> str:
        """A jar from a URL, by way of the cache."""
        name = os.path.basename(url.partition("?")[0].rstrip("/"))
        path = os.path.join(self.cache, name)
        if name and not damage(path):
            return path
        self.say(f"fetching {url}")
        try:
            return self._by_beam("url", url)
        except _NotFetched as error:
            raise CandlebeamError(f"{wanted.option}: cannot fetch {url}: {error}") from None

    def from_anywhere(self, wanted: _Wanted) -> str:
        """The published jar, from the first place that has it."""
        path = os.path.join(self.cache, wanted.file_name)
        problem = damage(path)
        if not problem:
            return path
        if os.path.lexists(path):
            self.say(f"{path} {problem}: it is not used")
        tried = [f"{path} {problem}"]
        for name, way in (("mvn", self._by_maven), ("Beam's own download", self._published)):
            try:
                return way(wanted)
            except _NotFetched as error:
                tried.append(f"{name}: {error}")
        command = " ".join(wanted.maven_command(self.cache))
        raise CandlebeamError(
            f"there is no job server for {_NAMES[wanted.kind]} {wanted.version}, "
            f"{wanted.coordinates} ({'; '.join(tried)}): on a machine that can fetch it run "
            f"`{command}`, then lay it there, or name it with {wanted.option}=PATH"
        )

    def _by_maven(self, wanted: _Wanted) -> str:
        if not shutil.which("mvn"):
            raise _NotFetched("there is none on PATH")
        self.say(f"fetching {wanted.coordinates} with Maven into {self.cache}")

        def fetch(folder: str) -> str:
            self._run(wanted.maven_command(folder), self.patience.maven, folder)
            return os.path.join(folder, wanted.file_name)

        return self._into_cache(fetch)

    def _published(self, wanted: _Wanted) -> str:
        self.say(f"fetching {wanted.coordinates} as Beam does into {self.cache}")
        return self._by_beam("target", wanted.target)

    def _by_beam(self, kind: str, what: str) -> str:
        def fetch(folder: str) -> str:
            command = [sys.executable, "-c", _BEAM_DOWNLOAD, kind, what, folder]
            output = self._run(command, self.patience.beam, folder, watched=True)
            return output.strip().splitlines()[-1] if output.strip() else ""

        return self._into_cache(fetch)

    def _run(self, command: list[str], seconds: float, folder: str, watched: bool = False) -> str:
        try:
            ended = run_program(
                command,
                seconds,
                folder=folder,
                progress=(lambda: _size(folder)) if watched else None,
            )
        except TimeoutError:
            raise _NotFetched(
                f"given up after {seconds:g} s{' without a byte' if watched else ''}"
            ) from None
        except OSError as error:
            raise _NotFetched(f"cannot be run: {error.strerror or error}") from None
        if ended.code != 0:
            raise _NotFetched(_complaint(ended.output) or f"exit code {ended.code}")
        return ended.output

    def _into_cache(self, fetch: Callable[[str], str]) -> str:
        """Has a jar fetched into a folder of its own, and puts it in place if it is whole."""
        try:
            os.makedirs(self.cache, exist_ok=True)
            folder = tempfile.mkdtemp(prefix=".fetching-", dir=self.cache)
        except OSError as error:
            raise _NotFetched(f"cannot write {self.cache}: {error.strerror or error}") from None
        try:
            fetched = fetch(folder)
            if os.path.dirname(fetched) != folder:
                # Beam takes what it was built with where that is at hand.
                return fetched
            if problem := _whole(fetched):
                raise _NotFetched(f"what it brought as {os.path.basename(fetched)} {problem}")
            path = os.path.join(self.cache, os.path.basename(fetched))
            os.replace(fetched, path)
            return path
        except OSError as error:
            raise _NotFetched(f"cannot write {self.cache}: {error.strerror or error}") from None
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class _NotFetched(Exception):
    """One way did not bring the jar; the message says why."""


def _size(folder: str) -> int:
    """The bytes of the files in a folder."""
    total = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                total += entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                continue
    return total


def _complaint(output: str) -> str:
    """The line that says what went wrong in the output of Maven or of Python."""
    lines = [line for line in _ESCAPES.sub("", output).splitlines() if line.strip()]
    errors = [line.partition("[ERROR]")[2].strip() for line in lines if "[ERROR]" in line]
    line = errors[0] if errors else lines[-1] if lines else ""
    # Urllib's reasons stand among Beam's words, Maven's after the goal that failed.
    if reason := re.search(
        r"HTTP Error \d+: [\w ]+|<urlopen error (?:\[Errno \d+\] )?(.+?)>", line
    ):
        return _short(reason[1] or reason[0])
    line = re.sub(r"^Failed to execute goal \S+ \([^)]*\) on project \S+: ", "", line)
    return _short(line.removesuffix(" -> [Help 1]"))


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _LONGEST else words[: _LONGEST - 1] + "…"


def _silent(line: str) -> None:
    pass
