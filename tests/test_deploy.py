"""What people deploy with, held against schemas, linters, and what the rest of candlebeam says.

Nothing here starts a container: no engine is needed, and nothing is fetched.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml

import candlebeam
from tests import deploy_files as files
from tests.deploy_schemas import compose_problems, kubernetes_problems

PORT = "50000"
VERSION = candlebeam.__version__
SLOT_BYTES = 512 << 20


@pytest.mark.parametrize("path", files.YAML_FILES, ids=lambda path: path.name)
def test_yaml_parses_and_has_no_key_twice(path: Path) -> None:
    assert all(isinstance(document, dict) for document in files.documents(path))


def test_a_key_twice_is_found() -> None:
    with pytest.raises(yaml.YAMLError, match="twice in one mapping: a"):
        files.parse("x: {a: 1, b: 2, a: 3}")


def test_compose_file_fits_the_specification() -> None:
    [raw] = files.documents(files.COMPOSE)
    assert compose_problems(raw) == []
    assert compose_problems(files.compose()) == []
    wrong = copy.deepcopy(raw)
    wrong["services"]["worker"]["netwerk_mode"] = "host"
    assert compose_problems(wrong) != []


@pytest.mark.parametrize(
    "thing", files.objects(), ids=lambda thing: f"{thing['kind']}-{thing['metadata']['name']}"
)
def test_kubernetes_objects_fit_their_schemas(thing: dict[str, Any]) -> None:
    assert kubernetes_problems(thing) == []
    assert kubernetes_problems(thing | {"spek": {}}) != []


@pytest.mark.parametrize(
    "place",
    [
        ["spec"],
        ["spec", "taskManager"],
        ["spec", "taskManager", "podTemplate"],
        ["spec", "taskManager", "podTemplate", "spec", "initContainers", 0],
        ["spec", "taskManager", "podTemplate", "spec", "initContainers", 0, "startupProbe"],
    ],
    ids=lambda place: str(place[-1]),
)
def test_a_field_that_the_operator_would_drop_is_found(place: list[str | int]) -> None:
    thing = copy.deepcopy(files.the("FlinkDeployment"))
    inner: Any = thing
    for key in place:
        inner = inner[key]
    inner["replikas"] = 2
    assert any("replikas" in problem for problem in kubernetes_problems(thing))


def test_hadolint_has_nothing_against_the_dockerfile(tmp_path: Path) -> None:
    hadolint = os.path.join(sysconfig.get_path("scripts"), "hadolint")
    done = subprocess.run(
        [hadolint, "--no-color", str(files.DOCKERFILE)],
        cwd=tmp_path,
        env={"HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_docker_compose_takes_the_file() -> None:
    docker = shutil.which("docker")
    compose = [docker or "", "compose"]
    try:
        files.printed(*compose, "version")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("there is no Docker Compose here; its schema is checked all the same")
    config = files.printed(*compose, "--file", str(files.COMPOSE), "--profile", "*", "config")
    assert set(yaml.safe_load(config)["services"]) == set(files.compose()["services"])


def test_kustomize_renders_everything_with_the_images_of_the_registry() -> None:
    kubectl = shutil.which("kubectl")
    if not kubectl:
        pytest.skip("there is no kubectl here; what it would read is checked all the same")
    rendered = list(yaml.safe_load_all(files.printed(kubectl, "kustomize", str(files.KUBERNETES))))
    assert len(rendered) == len(files.objects())
    assert {thing["metadata"]["namespace"] for thing in rendered} == {"candlebeam"}
    assert not any(kubernetes_problems(thing) for thing in rendered)
    images = re.findall(r"image: (\S*candlebeam\S*)", yaml.safe_dump_all(rendered))
    ours = [c for pod in files.pods() for c in pod.containers if c["name"] != files.FLINK_CONTAINER]
    assert len(images) == len(ours)
    assert all(image.startswith("registry.example.com/") for image in images)


def test_the_flink_version_is_the_same_everywhere() -> None:
    version = str(files.runner_config()["flink_version"])
    assert str(files.kubernetes_config()["flink_version"]) == version
    assert files.build_arguments()["FLINK_VERSION"] == version
    assert files.flink()["flinkVersion"] == "v" + version.replace(".", "_")
    assert files.flink()["image"] == f"flink:{version}-java17"
    flinks = {s["image"] for s in files.compose()["services"].values() if "image" in s}
    assert {i for i in flinks if i.startswith("flink:")} == {f"flink:{version}-java17"}


def test_the_port_of_the_pool_is_the_same_everywhere() -> None:
    address = f"localhost:{PORT}"
    probe = f"</dev/tcp/localhost/{PORT}"
    assert files.runner_config()["environment_config"] == address
    assert files.kubernetes_config()["environment_config"] == address
    [exposed] = files.instructions("EXPOSE", "worker")
    assert exposed.value == PORT
    [command] = files.instructions("CMD", "worker")
    assert command.words()[:2] == ["--port", PORT]
    [health] = files.instructions("HEALTHCHECK", "worker")
    assert health.value.endswith(json.dumps(["bash", "-c", probe]))
    assert files.container("worker")["startupProbe"]["exec"]["command"] == ["bash", "-c", probe]


def test_the_address_of_the_cluster_is_the_same_everywhere() -> None:
    name = files.the("FlinkDeployment")["metadata"]["name"]
    address = f"{name}-rest:8081"
    assert files.kubernetes_config()["flink_master"] == address
    assert files.container("wait-for-slots")["command"][3] == address
    words = files.compose()["services"]["backfill"]["command"]
    assert "--flink_master=jobmanager:8081" in words


def test_the_runner_config_of_kubernetes_is_the_one_of_the_checkout() -> None:
    theirs, ours = files.runner_config(), files.kubernetes_config()
    assert _shared(ours) == _shared(theirs)
    assert set(ours) >= files.OWN_OPTIONS


def _shared(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in files.OWN_OPTIONS}


def test_slots_are_the_same_everywhere() -> None:
    replicas = files.flink()["taskManager"]["replicas"]
    slots = int(files.flink()["flinkConfiguration"]["taskmanager.numberOfTaskSlots"])
    config = files.kubernetes_config()
    assert config["parallelism"] == replicas * slots
    assert config["sdk_worker_parallelism"] == slots
    assert files.container("wait-for-slots")["command"][4] == str(replicas * slots)
    worker = files.container("worker")["resources"]
    assert worker["requests"]["cpu"] == str(slots)
    assert memory(worker["limits"]["memory"]) == slots * SLOT_BYTES

    compose = files.compose()["services"]
    properties = yaml.safe_load(compose["taskmanager"]["environment"]["FLINK_PROPERTIES"])
    slots = properties["taskmanager.numberOfTaskSlots"]
    assert memory(compose["worker"]["mem_limit"]) == slots * SLOT_BYTES
    assert f"--parallelism={slots}" in compose["backfill"]["command"]
    assert f"--sdk_worker_parallelism={slots}" in compose["backfill"]["command"]


def test_both_clusters_are_configured_alike() -> None:
    compose = yaml.safe_load(
        files.compose()["services"]["jobmanager"]["environment"]["FLINK_PROPERTIES"]
    )
    own = {"jobmanager.rpc.address", "taskmanager.memory.process.size"}
    assert {k: str(v) for k, v in compose.items() if k not in own} == files.flink()[
        "flinkConfiguration"
    ]


def test_images_are_those_of_this_version() -> None:
    names = [
        *re.findall(r"candlebeam-(?:worker|driver):\S+", files.COMPOSE.read_text()),
        *re.findall(r"candlebeam-(?:worker|driver):\S+", files.DOCKERFILE.read_text()),
        *re.findall(r"candlebeam-(?:worker|driver):\S+", files.KUSTOMIZATION.read_text()),
        *(
            c["image"]
            for pod in files.pods()
            for c in pod.containers
            if c["name"] != files.FLINK_CONTAINER
        ),
    ]
    assert {name.partition(":")[2] for name in names} == {VERSION}
    [kustomization] = files.documents(files.KUSTOMIZATION)
    assert [image["newTag"] for image in kustomization["images"]] == [VERSION, VERSION]
    stages = {i.stage for i in files.instructions("FROM")}
    targets = {i["name"].removeprefix("candlebeam-") for i in kustomization["images"]}
    assert targets == {"worker", "driver"} <= stages


def memory(text: str) -> int:
    units = {"m": 1 << 20, "mi": 1 << 20, "g": 1 << 30, "gi": 1 << 30}
    number, unit = re.fullmatch(r"(\d+)([a-z]+)", text.lower()).groups()  # type: ignore[union-attr]
    return int(number) * units[unit]
