"""What is run where candlebeam is deployed: its commands, its folders, its health checks."""

from __future__ import annotations

import http.server
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import candlebeam
from candlebeam.pipelines.beam_options import beam_options, unknown_words
from tests import deploy_files as files

PORT = "50000"
VERSION = candlebeam.__version__
BASH = shutil.which("bash")


def test_every_command_and_option_exists() -> None:
    from candlebeam.cli import main

    for name, *words in files.commands():
        if name.startswith("-"):
            continue
        command = main.commands[name]
        own = {option for parameter in command.params for option in parameter.opts}
        given = [word for word in words if word.startswith("--")]
        others = [word for word in given if word.partition("=")[0] not in own]
        if name == "backfill":
            assert unknown_words(others) == []
        else:
            assert others == []


def test_backfill_takes_the_options_of_both_clusters(tmp_path: Path) -> None:
    path = tmp_path / files.CONFIG.name
    path.write_text(files.the("ConfigMap")["data"][files.CONFIG.name], encoding="utf-8")
    own = [f"--{name}={files.kubernetes_config()[name]}" for name in files.OWN_OPTIONS]
    assert unknown_words(own) == []
    words = files.compose()["services"]["backfill"]["command"]
    beams = [word for word in words if word[2:].partition("=")[0] in files.OWN_OPTIONS]
    assert len(beams) == len(files.OWN_OPTIONS)
    for options in (beam_options([], str(path)), beam_options(beams, str(files.CONFIG))):
        values = options.get_all_options()
        assert values["runner"] == "FlinkRunner"
        assert values["environment_type"] == "EXTERNAL"
        assert values["flink_master"].endswith(":8081")


def test_every_path_in_a_command_is_mounted_or_in_the_image() -> None:
    targets = [c.words()[-1] for c in files.instructions("COPY", "driver")]
    for name in ("index", "backfill"):
        mounts = [m["mountPath"] for m in files.container(name)["volumeMounts"]]
        for path in _paths(files.container(name)["args"]):
            assert _under(path, mounts + targets), path
    mounts = [volume.split(":")[1] for volume in files.compose()["services"]["backfill"]["volumes"]]
    for words in files.commands():
        for path in _paths(words):
            assert _under(path, [*mounts, *targets, "/catalog", "/etc/candlebeam"]), path
    jar = files.kubernetes_config()["flink_job_server_jar"]
    assert jar in targets
    assert f"--flink_job_server_jar={jar}" in files.compose()["services"]["backfill"]["command"]


def test_the_runner_config_is_found_where_it_is_said_to_be() -> None:
    [words] = [c for c in files.commands() if any("/etc/candlebeam" in word for word in c)]
    [mount] = [
        m for m in files.container("backfill")["volumeMounts"] if m["name"] == "runner-config"
    ]
    assert f"--runner-config={mount['mountPath']}/{files.CONFIG.name}" in words
    [copying] = [c for c in files.instructions("COPY", "driver") if "runner_configs" in c.value]
    command = files.compose()["services"]["backfill"]["command"]
    assert f"--runner-config={copying.words()[-1]}/{files.CONFIG.name}" in command


def test_every_mount_is_used_and_every_volume_mounted() -> None:
    claims = {o["metadata"]["name"] for o in files.objects() if o["kind"].endswith("Claim")}
    claimed = set()
    [worker_command] = files.instructions("CMD", "worker")
    used = [
        *_paths(worker_command.words()),
        *(p for words in files.commands() for p in _paths(words)),
    ]
    for pod in files.pods():
        mounts = [m for c in pod.containers for m in c.get("volumeMounts", [])]
        assert {mount["name"] for mount in mounts} == set(pod.volumes)
        for mount in mounts:
            assert any(_under(path, [mount["mountPath"]]) for path in used), mount
        for volume in pod.volumes.values():
            if "configMap" in volume:
                assert volume["configMap"]["name"] == files.the("ConfigMap")["metadata"]["name"]
            if "persistentVolumeClaim" in volume:
                claimed.add(volume["persistentVolumeClaim"]["claimName"])
    assert claimed == claims
    volumes = files.compose()["services"]["worker"]["volumes"]
    for volume in volumes:
        assert any(_under(path, [volume.split(":")[1]]) for path in used), volume
    assert {v.split(":")[0] for v in volumes if v[0] not in "./"} == set(files.compose()["volumes"])


def test_workers_and_driver_see_the_same_paths() -> None:
    all_services = [*files.services(f"candlebeam-worker:{VERSION}").values()]
    all_services += files.services(f"candlebeam-driver:{VERSION}").values()
    assert len(all_services) == 4
    assert len({json.dumps(service["volumes"]) for service in all_services}) == 1
    data = [
        {m["mountPath"] for m in files.container(name)["volumeMounts"] if m["name"] == "data"}
        for name in ("worker", "index", "backfill")
    ]
    assert data == [{"/data"}] * 3


def _paths(words: list[str]) -> list[str]:
    return [path for word in words if (path := word.rpartition("=")[2]).startswith("/")]


def _under(path: str, folders: list[str]) -> bool:
    return any(path == folder or path.startswith(folder + "/") for folder in folders)


def test_variables_of_the_compose_file_have_defaults_and_are_explained() -> None:
    text = files.COMPOSE.read_text(encoding="utf-8")
    head, _, body = text.partition("\nname: candlebeam\n")
    used = set(re.findall(r"\$\{(\w+)", body))
    assert used == set(re.findall(r"\$\{(\w+):-[^}]+\}", body))
    assert used == set(re.findall(r"CANDLEBEAM_[A-Z_]+", head))


def test_every_taskmanager_shares_the_network_of_a_worker_of_its_own() -> None:
    workers = files.services(f"candlebeam-worker:{VERSION}")
    modes = [s["network_mode"] for s in files.compose()["services"].values() if "network_mode" in s]
    assert sorted(modes) == sorted(f"service:{name}" for name in workers)
    pod = files.flink()["taskManager"]["podTemplate"]["spec"]
    assert [c["name"] for c in pod["containers"]] == [files.FLINK_CONTAINER]
    [worker] = pod["initContainers"]
    assert (worker["name"], worker["restartPolicy"]) == ("worker", "Always")


# Health checks, and waiting


@pytest.mark.skipif(not BASH, reason="there is no bash here")
def test_health_checks_tell_a_port_that_is_open_from_one_that_is_not() -> None:
    jobmanager = files.compose()["services"]["jobmanager"]["healthcheck"]["test"]
    probe = files.container("worker")["startupProbe"]["exec"]["command"]
    for command, port in ((jobmanager[1:], "8081"), (probe, PORT)):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            free = str(listener.getsockname()[1])
            words = [word.replace(f"localhost/{port}", f"127.0.0.1/{free}") for word in command]
            assert words != command
            assert _ends_well(words)
        assert not _ends_well(words)


@pytest.mark.skipif(not BASH, reason="there is no bash here")
def test_a_taskmanager_is_healthy_once_it_is_registered() -> None:
    test = files.compose()["services"]["taskmanager"]["healthcheck"]["test"]
    with jobmanager_of(slots=[2]) as port:
        words = [w.replace("jobmanager/8081", f"127.0.0.1/{port}") for w in test[1:]]
        assert words != test[1:]
        assert _ends_well(words)
    with jobmanager_of(slots=[0]) as port:
        words = [w.replace("jobmanager/8081", f"127.0.0.1/{port}") for w in test[1:]]
        assert not _ends_well(words)
    assert not _ends_well(words)


def test_the_driver_waits_until_all_slots_are_there() -> None:
    _, option, script, _, wanted = files.container("wait-for-slots")["command"]
    assert option == "-c"
    assert script.count("time.sleep(5)") == 1
    quick = script.replace("time.sleep(5)", "time.sleep(0.01)")
    with jobmanager_of(slots=[None, 0, 2, 4]) as port:
        said = files.printed(sys.executable, "-c", quick, f"127.0.0.1:{port}", wanted).splitlines()
    assert "503" in said[0]
    assert said[1:] == [f"{n} of 4 slots are there" for n in (0, 2, 4)]


def _ends_well(words: list[str]) -> bool:
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=30
    )
    return done.returncode == 0


@contextmanager
def jobmanager_of(slots: list[int | None]) -> Iterator[int]:
    """What answers as a JobManager, at a port: with as many slots each time, at last the same.

    None is a JobManager that is not ready yet.
    """
    left = list(slots)

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            count = left.pop(0) if len(left) > 1 else left[0]
            found = {"taskmanagers": (count or 0) // 2, "slots-total": count}
            answer = {"slots-available": count, "flink-version": "1.19.3", **found}
            body = json.dumps({"errors": ["not yet"]} if count is None else answer).encode()
            self.send_response(503 if count is None else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            serving.join()
