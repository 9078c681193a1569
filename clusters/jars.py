"""The jars that clusters and job servers are made of: built once, kept in a cache.

The cache is `candlebeam-clusters` in `$XDG_CACHE_HOME` or `~/.cache`. Names in it carry a digest of
what they were made from, so that another version is another file. Processes that want the same
thing at the same time make it once.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from filelock import FileLock

from clusters import maven
from clusters.errors import ClusterError

_HERE = Path(__file__).resolve().parent
#: Seconds for which it is not asked again whether an artifact exists that did not.
_ABSENT = 24 * 3600
_FLINK_VERSION = (".flink-runtime.version.properties", "project.version")
_SPARK_VERSION = ("spark-version-info.properties", "version")


def flink_job_server() -> Path:
    """The jar of Beam's job server for Flink: published, or else put together from its parts.

    Raises:
        ClusterError: there is no Maven, or it failed.
    """
    return _job_server("flink", "beam-runners-flink-1.19-job-server")


def spark_job_server() -> Path:
    """The jar of Beam's job server for Spark; see `flink_job_server`."""
    return _job_server("spark", "beam-runners-spark-3-job-server")


def flink_version() -> str:
    """The version of Flink that the job server was built with, as `1.19.3`."""
    return _version_in(flink_job_server(), *_FLINK_VERSION)


def spark_version() -> str:
    """The version of Spark that the job server was built with, as `3.5.7`."""
    return _version_in(spark_job_server(), *_SPARK_VERSION)


def flink_libraries() -> list[Path]:
    """The jars of a Flink cluster, of the job server's version, sorted by name."""
    return _libraries("flink", flink_version())


def spark_libraries() -> list[Path]:
    """The jars of a Spark cluster, of the job server's version, sorted by name."""
    return _libraries("spark", spark_version())


def _job_server(engine: str, published: str) -> Path:
    beam_version = metadata.version("apache-beam")
    artifact = f"org.apache.beam:{published}:{beam_version}"
    found = _kept(f"{published}-{beam_version}.jar", lambda empty: _published(artifact, empty))
    if found is not None:
        return found
    pom = _HERE / "job_servers" / engine / "pom.xml"

    def build(empty: Path) -> Path:
        return maven.package(Path(shutil.copy(pom, empty)), f"the job server for {engine}")

    built = _kept(f"{engine}-job-server-{_digest(pom.read_bytes())}.jar", build)
    assert built is not None
    return built


def _libraries(engine: str, version: str) -> list[Path]:
    pom = _HERE / "libraries" / engine / "pom.xml"
    digest = _digest(pom.read_bytes(), version.encode())

    def build(empty: Path) -> Path:
        folder = empty / engine
        folder.mkdir()
        maven.copy_dependencies(pom, version, folder, f"the jars of {engine} {version}")
        return folder

    folder = _kept(f"{engine}-libraries-{version}-{digest}", build)
    assert folder is not None
    return sorted(folder.glob("*.jar"))


def _published(artifact: str, empty: Path) -> Path | None:
    try:
        return maven.copy_artifact(artifact, empty)
    except maven.NotFound:
        return None


def _kept(name: str, make: Callable[[Path], Path | None]) -> Path | None:
    """A file or folder of the cache.

    Args:
        make: makes it in an empty folder it is given; None says that there is no such thing.
    """
    path = _cache() / name
    if path.exists():
        return path
    absent = path.with_name(f"{name}.absent")
    with FileLock(path.with_name(f"{name}.lock")):
        if path.exists():
            return path
        if absent.exists() and time.time() - absent.stat().st_mtime < _ABSENT:
            return None
        with _empty_folder() as empty:
            made = make(empty)
            if made is None:
                absent.touch()
                return None
            os.replace(made, path)
        absent.unlink(missing_ok=True)
    return path


@contextmanager
def _empty_folder() -> Iterator[Path]:
    folder = tempfile.mkdtemp(prefix=".making-", dir=_cache())
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "candlebeam-clusters"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _version_in(jar: Path, member: str, key: str) -> str:
    try:
        with zipfile.ZipFile(jar) as archive:
            text = archive.read(member).decode()
    except (KeyError, zipfile.BadZipFile, OSError) as error:
        raise ClusterError(f"{jar}: cannot read {member}: {error}") from error
    found = re.search(rf"^{re.escape(key)}=(?P<version>\S+)$", text, re.MULTILINE)
    if found is None:
        raise ClusterError(f"{jar}: {member} does not say {key}")
    return found["version"]


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:12]
