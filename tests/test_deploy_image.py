"""The Dockerfile: what it copies, runs and sets."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from tests import deploy_files as files
from tests.command_line import PROJECT


def test_what_the_dockerfile_copies_is_in_the_checkout_and_not_ignored() -> None:
    allowed = {line[1:] for line in _ignored() if line.startswith("!")}
    sources = {
        source.rstrip("/")
        for copying in files.instructions("COPY")
        if "--from=" not in copying.value
        for source in copying.words()[:-1]
    }
    assert all((PROJECT / source).exists() for source in sources)
    assert sources == allowed
    assert _ignored()[0] == "*"


def _ignored() -> list[str]:
    path = files.DOCKERFILE.with_name("Dockerfile.dockerignore")
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_stages_copy_from_stages_before_them_or_from_images() -> None:
    seen: list[str] = []
    for stage in files.instructions("FROM"):
        seen.append(stage.stage)
        for copying in files.instructions("COPY", stage.stage):
            if found := re.match(r"--from=(\S+)", copying.value):
                assert found[1] in seen[:-1] or ":" in found[1]
    assert seen[-1] == "worker", "the stage that is built without --target"


def test_the_python_of_the_images_is_one_that_candlebeam_takes() -> None:
    version = files.build_arguments()["PYTHON_VERSION"]
    assert version in SpecifierSet(metadata.metadata("candlebeam")["Requires-Python"])
    images = [i.value.split()[0] for i in files.instructions("FROM") if "python:" in i.value]
    assert set(images) == {"python:${PYTHON_VERSION}-slim-bookworm"}


@pytest.mark.parametrize("stage", ["worker", "driver"])
def test_images_do_not_run_as_root(stage: str) -> None:
    [user] = files.instructions("USER")
    assert user.stage == "runtime"
    assert user.value == "10001:10001"
    [base] = files.instructions("FROM", stage)
    assert base.value.startswith("runtime ")
    assert files.container("worker")["securityContext"]["runAsUser"] == 10001
    pod = files.the("Job")["spec"]["template"]["spec"]["securityContext"]
    assert (pod["runAsUser"], pod["fsGroup"]) == (10001, 10001)


def test_setuptools_is_taken_from_the_lock_with_its_hashes(tmp_path: Path) -> None:
    [script] = _sed_scripts("requirements/dev.lock")
    found = files.printed("sed", "-n", script, str(PROJECT / "requirements" / "dev.lock"))
    first, *rest = [line.rstrip("\\").strip() for line in found.splitlines()]
    assert re.fullmatch(r"setuptools==[\d.]+", first)
    assert rest
    assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", line) for line in rest)
    assert not found.rstrip().endswith("\\")


def test_the_job_server_is_that_of_the_locked_beam() -> None:
    [script] = _sed_scripts("runtime.lock")
    found = files.printed("sed", "-n", script, str(PROJECT / "requirements" / "runtime.lock"))
    assert found.strip() == metadata.version("apache-beam")


def _sed_scripts(name: str) -> list[str]:
    runs = " ".join(i.value for i in files.instructions("RUN"))
    return re.findall(rf"sed -n '([^']+)' {re.escape(name)}", runs)


def test_the_worker_starts_the_pool_with_options_that_it_has() -> None:
    from candlebeam.worker.__main__ import main

    options = {name for parameter in main.params for name in parameter.opts}
    [entry] = files.instructions("ENTRYPOINT", "worker")
    assert entry.words() == ["python", "-m", "candlebeam.worker"]
    [command] = files.instructions("CMD", "worker")
    runs = " ".join(i.value for i in files.instructions("RUN"))
    words = [*command.words(), *re.findall(r"-m candlebeam\.worker (--\S+)", runs)]
    assert "--compile-only" in words
    assert {word for word in words if word.startswith("--")} <= options


def test_the_driver_runs_candlebeam() -> None:
    [entry] = files.instructions("ENTRYPOINT", "driver")
    assert entry.words() == ["candlebeam"]
    scripts = metadata.distribution("candlebeam").entry_points.select(group="console_scripts")
    assert "candlebeam" in scripts.names


# Variables


def _installed(package: str, name: str) -> str:
    return Path(str(metadata.distribution(package).locate_file(name))).read_text(encoding="utf-8")


def _pip_variables() -> str:
    options = re.findall(
        r"--([a-z-]+)", files.printed(sys.executable, "-m", "pip", "install", "--help")
    )
    return " ".join("PIP_" + option.upper().replace("-", "_") for option in options)


#: Who reads the variables that are set, as a file that has their name in it.
READERS: dict[str, Callable[[], str]] = {
    "NUMBA_CACHE_DIR": lambda: _installed("numba", "numba/core/config.py"),
    "JAVA_HOME": lambda: (PROJECT / "candlebeam/cluster/java.py").read_text(encoding="utf-8"),
    "PYTHONUNBUFFERED": lambda: files.printed(sys.executable, "-h"),
    "PYTHONDONTWRITEBYTECODE": lambda: files.printed(sys.executable, "-h"),
    "PIP_DISABLE_PIP_VERSION_CHECK": _pip_variables,
    "PIP_NO_CACHE_DIR": _pip_variables,
}
#: Read by every program, by the image of Flink, by boto3: nothing installed here can tell.
UNCHECKED = {"HOME", "PATH", "FLINK_PROPERTIES"}


def test_every_variable_has_a_reader() -> None:
    names = {
        name for stage in files.instructions("FROM") for name in files.environment(stage.stage)
    }
    for service in files.compose()["services"].values():
        names |= set(service.get("environment", {}))
    for pod in files.pods():
        names |= {variable["name"] for c in pod.containers for variable in c.get("env", [])}
    assert names - UNCHECKED == set(READERS)
    assert [name for name, text in READERS.items() if name not in text()] == []
