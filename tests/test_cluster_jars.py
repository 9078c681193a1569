"""Where the jar of a job server comes from, and what is told if it comes from nowhere."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from candlebeam.cluster import jars
from candlebeam.cluster.jars import Patience, damage, job_server_jar
from candlebeam.errors import CandlebeamError, UsageError
from tests.fake_programs import shell_program
from tests.loopback import Answer, rest_server

NAME = "beam-runners-flink-1.19-job-server-2.77.0.jar"
ARTIFACT = "org.apache.beam:beam-runners-flink-1.19-job-server:2.77.0"
NO_BEAM = "import sys; sys.exit('HTTPError: HTTP Error 403: Forbidden')"

# A Maven that reads its arguments, and copies $JAR, or half of it, to where it is told.
MAVEN = """
for word in "$@"; do
  case $word in
    -DoutputDirectory=*) folder=${word#*=} ;;
    -Dartifact=*) artifact=${word#*=} ;;
  esac
done
echo "$@" >> "$CALLS"
rest=${artifact#*:}
"""


def make_jar(path: Path, manifest: str | None = None, *names: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as jar:
        if manifest is not None:
            jar.writestr("META-INF/MANIFEST.MF", manifest)
        for name in names:
            jar.writestr(name, os.urandom(4000))
    return path


@pytest.fixture
def good(tmp_path: Path) -> Path:
    main = "Manifest-Version: 1.0\r\nMain-Class: org.X\r\n"
    return make_jar(tmp_path / "good.jar", main, "org/apache/beam/runners/X.class")


class Place:
    """A cache, and a PATH on which a Maven may be put."""

    def __init__(self, folder: Path) -> None:
        self.cache = folder / "cache" / "jars"
        self.bin = folder / "bin"
        self.calls = folder / "calls"
        self.said: list[str] = []

    def maven(self, script: str) -> None:
        shell_program(self.bin / "mvn", MAVEN + script)

    def jar(self, given: object = None, **options: Any) -> str:
        return job_server_jar(
            "flink",
            "1.19",
            given=None if given is None else str(given),
            beam_version="2.77.0",
            cache=str(self.cache),
            say=self.said.append,
            patience=Patience(maven=60, beam=120),
            **options,
        )


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    found = Place(tmp_path)
    found.bin.mkdir()
    monkeypatch.setenv("PATH", f"{found.bin}:{os.defpath}")
    monkeypatch.setenv("CALLS", str(found.calls))
    monkeypatch.setattr(jars, "_BEAM_DOWNLOAD", NO_BEAM)
    # A Maven of this machine is not to be asked.
    found.maven("echo '[ERROR] this Maven brings nothing' >&2; exit 1")
    return found


# Given


def test_jar_that_is_given_is_taken(place: Place, good: Path) -> None:
    assert place.jar(good) == str(good)
    assert not place.cache.exists()
    assert place.said == []


@pytest.mark.parametrize(
    ("manifest", "names"),
    [("A: b\nMain-Class: x\n", ()), (None, ("org/apache/beam/X.class",))],
)
def test_jar_needs_a_main_class_or_beam(
    tmp_path: Path, place: Place, manifest: str | None, names: tuple[str, ...]
) -> None:
    path = make_jar(tmp_path / "some.jar", manifest, *names)
    assert place.jar(path) == str(path)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda path: None, "is not there"),
        (lambda path: path.mkdir(), "cannot be read: Is a directory"),
        (lambda path: path.write_text("hello"), r"is no whole jar \(File is not a zip file\)"),
        (lambda path: path.write_bytes(b""), r"is no whole jar \(File is not a zip file\)"),
        (lambda path: make_jar(path, "A: b\n", "x.class"), "is no job server: it has neither"),
        (lambda path: make_jar(path, "A: Main-Class: x\n"), "is no job server: it has neither"),
    ],
)
def test_jar_that_will_not_do_is_refused(
    tmp_path: Path, place: Place, make: Any, problem: str
) -> None:
    path = tmp_path / "given.jar"
    make(path)
    with pytest.raises(CandlebeamError, match=f"--flink_job_server_jar: {path} {problem}"):
        place.jar(path)


def test_home_is_understood(place: Place, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(good.parent))
    assert place.jar("~/good.jar") == str(good)


def test_option_of_spark_is_named() -> None:
    with pytest.raises(CandlebeamError, match="--spark_job_server_jar: /no/jar is not there"):
        job_server_jar("spark", "3", given="/no/jar", beam_version="2.77.0")


# In the cache


def test_jar_in_the_cache_is_taken(place: Place, good: Path) -> None:
    place.cache.mkdir(parents=True)
    good.rename(place.cache / NAME)
    assert place.jar() == str(place.cache / NAME)
    assert not place.calls.exists()
    assert place.said == []


def test_default_cache_is_that_of_beam(
    place: Place, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(good.parent))
    cache = good.parent / ".apache_beam/cache/jars"
    cache.mkdir(parents=True)
    path = good.rename(cache / NAME)
    assert job_server_jar("flink", "1.19", given=None, beam_version="2.77.0") == str(path)


def test_damage_in_the_cache_is_told_and_replaced(place: Place, good: Path) -> None:
    place.cache.mkdir(parents=True)
    (place.cache / NAME).write_bytes(good.read_bytes()[:-30])
    place.maven(f"cp {good} $folder/{NAME}")
    assert place.jar() == str(place.cache / NAME)
    assert (place.cache / NAME).read_bytes() == good.read_bytes()
    assert "is no whole jar (File is not a zip file): it is not used" in place.said[0]


# Fetched


def test_maven_brings_the_jar_into_the_cache(place: Place, good: Path) -> None:
    place.maven(f"cp {good} $folder/{NAME}")
    assert place.jar() == str(place.cache / NAME)
    assert [p.name for p in place.cache.iterdir()] == [NAME]
    assert place.said == [f"fetching {ARTIFACT} with Maven into {place.cache}"]
    assert f"-Dartifact={ARTIFACT} " in place.calls.read_text()
    assert place.jar() == str(place.cache / NAME)
    assert len(place.calls.read_text().splitlines()) == 1


def test_maven_does_not_read_the_project_of_the_working_folder(
    tmp_path: Path, place: Place, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place.maven(f"pwd > {tmp_path}/pwd; cp {good} $folder/{NAME}")
    place.jar()
    assert (tmp_path / "pwd").read_text().startswith(f"{place.cache}/.fetching-")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 0", f"mvn: what it brought as {NAME} is not there"),
        ("exit 3", "mvn: exit code 3"),
        (f"head -c 999 $JAR > $folder/{NAME}", f"mvn: what it brought as {NAME} is no whole jar"),
        (
            (
                r"printf '\033[31m[ERROR]\033[0m Failed to execute goal a:b:1:copy (default-cli) "
                r"on project standalone-pom: Unable to find it -> [Help 1]\n[ERROR] more\n'; exit 1"
            ),
            "mvn: Unable to find it; Beam",
        ),
        ("echo Error: JAVA_HOME is not defined correctly; exit 1", "mvn: Error: JAVA_HOME is not"),
    ],
)
def test_maven_that_fails_is_told_and_beam_is_tried(
    place: Place, good: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    monkeypatch.setenv("JAR", str(good))
    place.maven(script)
    with pytest.raises(CandlebeamError) as error:
        place.jar()
    message = str(error.value)
    assert message.startswith(f"there is no job server for Flink 1.19, {ARTIFACT} (")
    assert f"{place.cache}/{NAME} is not there; " in message
    assert reason in message
    assert "Beam's own download: HTTP Error 403: Forbidden)" in message
    assert f"-Dartifact={ARTIFACT} -DoutputDirectory={place.cache}`" in message
    assert message.endswith("--flink_job_server_jar=PATH")
    assert "\n" not in message
    assert "\x1b" not in message
    assert list(place.cache.iterdir()) == []


def test_byte_that_was_turned_over_on_the_way_is_found(
    place: Place, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytearray(good.read_bytes())
    data[2000] ^= 1
    good.write_bytes(data)
    assert damage(str(good)) == ""
    place.maven(f"cp {good} $folder/{NAME}")
    with pytest.raises(CandlebeamError, match="is no whole jar"):
        place.jar()
    assert list(place.cache.iterdir()) == []


def test_maven_that_hangs_is_given_up(place: Place) -> None:
    place.maven("sleep 100")
    with pytest.raises(CandlebeamError, match=r"mvn: given up after 0\.5 s"):
        job_server_jar(
            "flink",
            "1.19",
            given=None,
            beam_version="2.77.0",
            cache=str(place.cache),
            patience=Patience(maven=0.5, beam=20),
        )


def test_without_maven_beam_downloads(
    place: Place, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place.bin / "mvn").unlink()
    monkeypatch.setenv("PATH", str(place.bin))
    monkeypatch.setattr(
        jars,
        "_BEAM_DOWNLOAD",
        "import shutil, sys\n"
        "assert sys.argv[1:3] == ['target', ':runners:flink:1.19:job-server:shadowJar']\n"
        f"print(shutil.copy({str(good)!r}, sys.argv[3] + '/{NAME}'))",
    )
    assert place.jar() == str(place.cache / NAME)
    assert place.said == [f"fetching {ARTIFACT} as Beam does into {place.cache}"]


def test_download_that_stands_still_is_given_up(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jars, "_BEAM_DOWNLOAD", "import time; time.sleep(100)")
    with pytest.raises(
        CandlebeamError, match=r"Beam's own download: given up after 0\.5 s without a byte"
    ):
        job_server_jar(
            "flink",
            "1.19",
            given=None,
            beam_version="2.77.0",
            cache=str(place.cache),
            patience=Patience(maven=20, beam=0.5),
        )
    assert list(place.cache.iterdir()) == []


def test_slow_download_that_goes_on_is_waited_for(
    place: Place, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        jars,
        "_BEAM_DOWNLOAD",
        f"""
import sys, time
with open({str(good)!r}, "rb") as source, open(sys.argv[3] + "/{NAME}", "wb") as target:
    while piece := source.read(150):
        target.write(piece)
        target.flush()
        time.sleep(0.15)
print(target.name)
""",
    )
    path = job_server_jar(
        "flink",
        "1.19",
        given=None,
        beam_version="2.77.0",
        cache=str(place.cache),
        patience=Patience(maven=20, beam=3),
    )
    assert Path(path).read_bytes() == good.read_bytes()


def test_cache_that_cannot_be_made_is_told(place: Place) -> None:
    place.cache.parent.parent.mkdir(exist_ok=True)
    place.cache.parent.write_text("a file where a folder is needed")
    with pytest.raises(CandlebeamError, match=f"mvn: cannot write {place.cache}: "):
        place.jar()


def test_interrupted_fetching_leaves_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(jars, "run_program", interrupted)
    with pytest.raises(KeyboardInterrupt):
        place.jar()
    assert list(place.cache.iterdir()) == []


# From a URL, by Beam itself


def test_url_is_fetched_by_beam_into_the_cache(
    place: Place, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("no_proxy", "*")
    with rest_server() as server:
        server.answers["GET /some/my.jar"] = Answer(good.read_bytes(), kind="application/zip")
        url = f"http://{server.address}/some/my.jar"
        assert place.jar(url) == str(place.cache / "my.jar")
        assert place.jar(url) == str(place.cache / "my.jar")
        assert server.requests == ["GET /some/my.jar"]
    assert (place.cache / "my.jar").read_bytes() == good.read_bytes()
    assert place.said == [f"fetching {url}"]


def test_url_where_nobody_answers_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    said = (
        "RuntimeError: Unable to fetch remote job server jar at http://h/my.jar: <urlopen error "
        "[Errno 111] Connection refused>. If no Internet access at runtime, stage the jar at /x"
    )
    monkeypatch.setattr(jars, "_BEAM_DOWNLOAD", f"import sys; sys.exit({said!r})")
    with pytest.raises(
        CandlebeamError,
        match=r"--flink_job_server_jar: cannot fetch http://h/my\.jar: Connection refused$",
    ):
        place.jar("http://h/my.jar")


@pytest.mark.parametrize("version", ["", "abc", "1.19;rm", "../3", "1."])
def test_version_that_is_none_is_refused(place: Place, version: str) -> None:
    with pytest.raises(UsageError, match="is no version of Flink"):
        job_server_jar("flink", version, given=None, beam_version="2.77.0")
