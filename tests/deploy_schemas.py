"""What Docker Compose and Kubernetes take: their published schemas, kept in tests/data/deploy.

`python -m tests.deploy_schemas WHEEL` makes `kubernetes.json` anew, from a wheel of the package
`kubernetes-validate`; the README beside it says where the others come from.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

_FOLDER = Path(__file__).parent / "data" / "deploy"
_KUBERNETES_VERSION = "v1.32.0"
_POD_TEMPLATE = "io.k8s.api.core.v1.PodTemplateSpec"
_KINDS = {
    ("v1", "ConfigMap"): "io.k8s.api.core.v1.ConfigMap",
    ("v1", "PersistentVolumeClaim"): "io.k8s.api.core.v1.PersistentVolumeClaim",
    ("v1", "ServiceAccount"): "io.k8s.api.core.v1.ServiceAccount",
    ("batch/v1", "Job"): "io.k8s.api.batch.v1.Job",
}
_FLINK = ("flink.apache.org/v1beta1", "FlinkDeployment")


def compose_problems(compose: Any) -> list[str]:
    """What the Compose Specification has against a file."""
    return _problems(_compose(), compose)


def kubernetes_problems(thing: dict[str, Any]) -> list[str]:
    """What Kubernetes, or Flink's operator, has against an object. Unknown fields count."""
    kind = thing["apiVersion"], thing["kind"]
    if kind == _FLINK:
        return _flink_problems(thing)
    return _problems(_kubernetes(_KINDS[kind]), thing)


def _flink_problems(thing: dict[str, Any]) -> list[str]:
    """The operator's own schema, and that of pods for the templates, which knows more."""
    found = _problems(_flink(), thing)
    for part in (thing["spec"], thing["spec"].get("jobManager"), thing["spec"].get("taskManager")):
        if part and "podTemplate" in part:
            found += _problems(_kubernetes(_POD_TEMPLATE), part["podTemplate"])
    return found


def _problems(schema: Draft202012Validator, thing: Any) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in schema.iter_errors(thing)]


@cache
def _compose() -> Draft202012Validator:
    schema = json.loads((_FOLDER / "compose-spec.json").read_text(encoding="utf-8"))
    return Draft202012Validator(schema)


@cache
def _kubernetes(definition: str) -> Draft202012Validator:
    definitions = json.loads((_FOLDER / "kubernetes.json").read_text(encoding="utf-8"))
    return Draft202012Validator({"$ref": f"#/$defs/{definition}", "$defs": definitions})


@cache
def _flink() -> Draft202012Validator:
    [path] = _FOLDER.glob("flinkdeployments.*.yml.gz")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    resource = yaml.load(gzip.decompress(path.read_bytes()), loader)
    [version] = resource["spec"]["versions"]
    assert (f"{resource['spec']['group']}/{version['name']}", "FlinkDeployment") == _FLINK
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    for name in ("apiVersion", "kind", "metadata"):
        schema["properties"][name] = {}
    _close(schema)
    return Draft202012Validator(schema)


def _close(schema: Any) -> None:
    """Kubernetes drops fields that a schema does not have, without a word; here they are errors."""
    if isinstance(schema, list):
        for item in schema:
            _close(item)
    elif isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict):
            if not schema.get("x-kubernetes-preserve-unknown-fields"):
                schema.setdefault("additionalProperties", False)
            for item in schema["properties"].values():
                _close(item)
        for name in ("items", "additionalProperties"):
            _close(schema.get(name))


def _reachable(definitions: dict[str, Any]) -> dict[str, Any]:
    """The definitions that those of this module lead to, without their descriptions."""
    found: dict[str, Any] = {}
    wanted = [*_KINDS.values(), _POD_TEMPLATE]
    while wanted:
        name = wanted.pop()
        if name not in found:
            found[name] = _without_descriptions(definitions[name])
            wanted += re.findall(r'"#/\$defs/([^"]+)"', json.dumps(found[name]))
    return dict(sorted(found.items()))


def _without_descriptions(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_descriptions(item) for item in schema]
    if isinstance(schema, dict):
        return {
            name: _without_descriptions(item)
            for name, item in schema.items()
            if not (name == "description" and isinstance(item, str))
        }
    return schema


def _extract(wheel: str) -> None:
    folder = f"kubernetes_validate/kubernetes-json-schema/{_KUBERNETES_VERSION}-local-strict"
    with zipfile.ZipFile(wheel) as archive:
        definitions = json.loads(archive.read(f"{folder}/_definitions.json"))["$defs"]
    found = _reachable(definitions)
    lines = [f"{json.dumps(name)}: {json.dumps(schema)}" for name, schema in found.items()]
    (_FOLDER / "kubernetes.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    _extract(sys.argv[1])
