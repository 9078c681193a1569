"""Which Java is found, and what is told of one that will not do."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from candlebeam.cluster.java import MODULE_OPTIONS, Java, find_java, major_version
from candlebeam.errors import CandlebeamError
from tests.fake_programs import shell_program


def fake_java(folder: Path, version: str = "17.0.15") -> Path:
    return shell_program(folder / "bin" / "java", f"""echo 'openjdk version "{version}"' >&2""")


@pytest.fixture(autouse=True)
def _no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither JAVA_HOME nor PATH names one; PATH keeps what scripts need."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")


def test_java_of_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = fake_java(tmp_path)
    monkeypatch.setenv("PATH", str(java.parent))
    assert find_java() == Java(str(java), 17)


def test_java_home_goes_before_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(fake_java(tmp_path / "a").parent))
    java = fake_java(tmp_path / "b", "21.0.1")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "b"))
    assert find_java() == Java(str(java), 21)


def test_launcher_goes_before_java_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "a").parents[1]))
    java = fake_java(tmp_path / "b", "11.0.2")
    assert find_java(str(java)) == Java(str(java), 11)


def test_empty_java_home_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = fake_java(tmp_path)
    monkeypatch.setenv("JAVA_HOME", "")
    monkeypatch.setenv("PATH", str(java.parent))
    assert find_java().path == str(java)


def test_no_java_says_what_to_do() -> None:
    with pytest.raises(
        CandlebeamError, match=r"found no Java: .* no java on PATH; install Java 11"
    ):
        find_java()


def test_java_home_without_java_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(CandlebeamError, match=f"JAVA_HOME is {tmp_path}, but there is no"):
        find_java()


def test_launcher_that_is_none_is_named() -> None:
    with pytest.raises(CandlebeamError, match="launcher /no/java is no program"):
        find_java("/no/java")


def test_too_old_java_is_refused(tmp_path: Path) -> None:
    java = fake_java(tmp_path, "1.8.0_402")
    with pytest.raises(
        CandlebeamError, match=f"{java} is Java 8; Flink and Spark need Java 11 or newer: set JAVA"
    ):
        find_java(str(java))
    assert find_java(str(java), least=8).major == 8


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo; echo 'no runtime here' >&2; exit 3", r"exit code 3 \(no runtime here\)"),
        ("exit 1", r"exit code 1 \(nothing\)"),
        ("echo hello", "told no version but 'hello'"),
        ("kill -9 $$", "exit code -9"),
    ],
)
def test_java_that_does_not_tell_its_version(tmp_path: Path, script: str, message: str) -> None:
    java = shell_program(tmp_path / "java", script)
    with pytest.raises(CandlebeamError, match=message) as error:
        find_java(str(java))
    assert "set JAVA_HOME" in str(error.value)
    assert "\n" not in str(error.value)


def test_java_that_cannot_be_run(tmp_path: Path) -> None:
    java = tmp_path / "java"
    java.write_bytes(b"\x7fELF is how it begins")
    java.chmod(0o755)
    with pytest.raises(CandlebeamError, match=f"cannot run {java}: "):
        find_java(str(java))


def test_java_that_hangs_is_killed_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.defpath)
    pids = tmp_path / "pids"
    java = shell_program(tmp_path / "java", f"sleep 100 & echo $! > {pids}; wait")
    with pytest.raises(CandlebeamError, match=r"did not end within 0.5 s"):
        find_java(str(java), seconds=0.5)
    assert ends(int(pids.read_text()))


def ends(pid: int) -> bool:
    """Whether a process that was killed is gone, or a zombie whose parent is another's concern."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        stat = Path(f"/proc/{pid}/stat")
        if stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize(
    ("output", "major"),
    [
        ('openjdk version "17.0.15" 2025-04-15\nOpenJDK Runtime Environment', 17),
        ('java version "1.8.0_402"', 8),
        ('openjdk version "21-ea" 2023-09-19', 21),
        ('openjdk version "9"', 9),
        ('openjdk version "25" 2025-09-16', 25),
        ('Picked up JAVA_TOOL_OPTIONS: -Dversion="3"\nopenjdk version "11.0.2" 2019', 11),
        ('openjdk version "seventeen"', None),
        ("", None),
    ],
)
def test_versions_are_understood(output: str, major: int | None) -> None:
    assert major_version(output) == major


def test_module_options_open_modules_for_all() -> None:
    assert all(
        o.startswith(("--add-opens=", "--add-exports=", "-D")) and o == o.strip()
        for o in MODULE_OPTIONS
    )
    assert len(set(MODULE_OPTIONS)) == len(MODULE_OPTIONS)
    assert "--add-opens=java.base/java.nio=ALL-UNNAMED" in MODULE_OPTIONS
