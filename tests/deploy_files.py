"""The files of deploy/, read as what they are: a Dockerfile, a compose file, Kubernetes objects."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.command_line import PROJECT

DEPLOY = PROJECT / "deploy"
DOCKERFILE = DEPLOY / "worker" / "Dockerfile"
COMPOSE = DEPLOY / "compose.yaml"
KUBERNETES = DEPLOY / "kubernetes"
KUSTOMIZATION = KUBERNETES / "kustomization.yaml"
YAML_FILES = sorted(DEPLOY.rglob("*.yaml"))
CONFIG = PROJECT / "runner_configs" / "flink-cluster.yaml"

#: What a cluster has options of its own for; the others are those of `CONFIG`.
OWN_OPTIONS = {"flink_master", "flink_job_server_jar", "parallelism", "sdk_worker_parallelism"}
#: The name of Flink's own container in a pod.
FLINK_CONTAINER = "flink-main-container"


class _Loader(yaml.SafeLoader):
    """YAML in which no mapping has a key twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise yaml.constructor.ConstructorError(
                None, None, f"twice in one mapping: {', '.join(twice)}", node.start_mark
            )
        return super().construct_mapping(node, deep)


def documents(path: Path) -> list[Any]:
    """The documents of a YAML file.

    Raises:
        yaml.YAMLError: it is no YAML, or a mapping has a key twice.
    """
    return parse(path.read_text(encoding="utf-8"))


def parse(text: str) -> list[Any]:
    """The documents of a text; see `documents`."""
    return list(yaml.load_all(text, _Loader))


def compose() -> dict[str, Any]:
    """The compose file, with every variable at its default."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", COMPOSE.read_text(encoding="utf-8"))
    [found] = parse(text)
    return dict(found)


def objects() -> list[dict[str, Any]]:
    """All Kubernetes objects, in the order in which they are applied."""
    [kustomization] = documents(KUSTOMIZATION)
    return [o for name in kustomization["resources"] for o in documents(KUBERNETES / name)]


def the(kind: str) -> dict[str, Any]:
    """The one Kubernetes object of a kind."""
    [found] = [o for o in objects() if o["kind"] == kind]
    return found


def printed(*command: str) -> str:
    """What a command prints.

    Raises:
        subprocess.CalledProcessError: it fails.
    """
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


class Pod(NamedTuple):
    """What a pod template says: all of its containers, and its volumes by name."""

    containers: list[dict[str, Any]]
    volumes: dict[str, dict[str, Any]]


def pods() -> list[Pod]:
    """Every pod template."""
    specs = [
        the("FlinkDeployment")["spec"]["taskManager"]["podTemplate"]["spec"],
        the("Job")["spec"]["template"]["spec"],
    ]
    return [
        Pod(s["initContainers"] + s["containers"], {v["name"]: v for v in s["volumes"]})
        for s in specs
    ]


def runner_config() -> dict[str, Any]:
    """The runner config of the checkout."""
    [found] = documents(CONFIG)
    return dict(found)


def kubernetes_config() -> dict[str, Any]:
    """The runner config of Kubernetes."""
    [found] = parse(the("ConfigMap")["data"][CONFIG.name])
    return dict(found)


def flink() -> dict[str, Any]:
    """What the FlinkDeployment asks for."""
    return dict(the("FlinkDeployment")["spec"])


def container(name: str) -> dict[str, Any]:
    """The one container of a name in all pods."""
    [found] = [c for pod in pods() for c in pod.containers if c["name"] == name]
    return dict(found)


def services(image: str) -> dict[str, dict[str, Any]]:
    """The compose services of an image, by name; what they extend is in them."""
    found = compose()["services"]
    return {
        name: found[service["extends"]] | service if "extends" in service else service
        for name, service in found.items()
        if (found[service["extends"]] if "extends" in service else service)["image"] == image
    }


def commands() -> list[list[str]]:
    """The words after `candlebeam` of every command that is run, and of those in comments."""
    found = [container("index")["args"], container("backfill")["args"]]
    backfill = compose()["services"]["backfill"]
    found.append([*backfill["entrypoint"], *backfill["command"]][1:])
    text = COMPOSE.read_text(encoding="utf-8")
    found += [
        line.split() for line in re.findall(r"^#.* run --rm candlebeam (.+)$", text, re.MULTILINE)
    ]
    return [[str(word) for word in words] for words in found]


class Instruction(NamedTuple):
    """An instruction of the Dockerfile, and the name of the stage it stands in ("" before any)."""

    stage: str
    name: str
    value: str

    def words(self) -> list[str]:
        """Its value as a list: of the JSON form, or by spaces, without flags."""
        if self.value.startswith("["):
            return list(json.loads(self.value))
        return [word for word in self.value.split() if not word.startswith("--")]


def instructions(name: str, stage: str | None = None) -> list[Instruction]:
    """The instructions of a name in the Dockerfile, of one stage or of all."""
    return [i for i in _instructions() if i.name == name and stage in (None, i.stage)]


def _instructions() -> Iterator[Instruction]:
    lines = DOCKERFILE.read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    stage = ""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        name, _, value = line.strip().partition(" ")
        if name == "FROM":
            stage = value.split()[-1]
        if name:
            yield Instruction(stage, name, value.strip())


def environment(stage: str) -> dict[str, str]:
    """What ENV sets in a stage itself."""
    return {
        key: value
        for instruction in instructions("ENV", stage)
        for key, _, value in (word.partition("=") for word in instruction.value.split())
    }


def build_arguments() -> dict[str, str]:
    """The build arguments and their defaults."""
    found = (i.value.partition("=") for i in instructions("ARG", ""))
    return {key: value for key, _, value in found}
