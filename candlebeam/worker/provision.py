"""What a runner tells a worker that starts, and what Beam's worker reads of it."""

from __future__ import annotations

import argparse
import json
from typing import Any

import grpc
from apache_beam.portability import common_urns
from apache_beam.portability.api import (
    beam_provision_api_pb2,
    beam_provision_api_pb2_grpc,
    beam_runner_api_pb2,
    endpoints_pb2,
)
from apache_beam.runners.worker.channel_factory import GRPCChannelFactory
from google.protobuf import json_format, text_format  # type: ignore[import-untyped]

from candlebeam.errors import CandlebeamError

#: Beam's Python stages it with every job: a list of what the submitting machine has installed.
_ALWAYS_STAGED = "submission_environment_dependencies.txt"


def ask(endpoint: str, worker_id: str, seconds: float) -> Any:
    """Asks a provision service for a worker's `ProvisionInfo`.

    Raises:
        CandlebeamError: there is no answer.
    """
    with GRPCChannelFactory.insecure_channel(endpoint) as channel:
        try:
            response = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel).GetProvisionInfo(
                beam_provision_api_pb2.GetProvisionInfoRequest(),
                metadata=(("worker_id", worker_id),),
                timeout=seconds,
            )
        except grpc.RpcError as error:
            raise CandlebeamError(
                f"the runner's provision service at {endpoint} does not answer: "
                f"{error.code().name} {error.details()}"
            ) from None
    return response.info


def environment_of(info: Any, given: argparse.Namespace) -> dict[str, str]:
    """The environment variables that `apache_beam.runners.worker.sdk_worker_main` reads.

    Args:
        info: what the runner says, which counts more.
        given: the arguments, with the endpoints that the runner leaves out.

    Raises:
        CandlebeamError: there is no control endpoint.
    """
    control = info.control_endpoint.url or given.control_endpoint
    if not control:
        raise CandlebeamError(
            f"no control endpoint: expected one from {given.provision_endpoint} or as "
            "--control_endpoint"
        )
    found = {
        "PIPELINE_OPTIONS": options_json(info.pipeline_options),
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
        "CONTROL_API_SERVICE_DESCRIPTOR": _descriptor(control),
    }
    if logging := info.logging_endpoint.url or given.logging_endpoint:
        found["LOGGING_API_SERVICE_DESCRIPTOR"] = _descriptor(logging)
    if status := info.status_endpoint.url or given.status_endpoint:
        found["STATUS_API_SERVICE_DESCRIPTOR"] = _descriptor(status)
    if given.semi_persist_dir:
        found["SEMI_PERSISTENT_DIRECTORY"] = given.semi_persist_dir
    for key in ("job_name", "job_id"):
        if key in info.metadata:
            found[key.upper()] = info.metadata[key]
    return found


def options_json(options: Any) -> str:
    """Pipeline options as the JSON that Beam's worker takes.

    On the way every number is a float; one that is whole is written as such again, as Beam takes
    no `--parallelism=2.0`.
    """
    return json.dumps(_with_whole_numbers(json_format.MessageToDict(options)))


def staged_files(info: Any) -> list[str]:
    """The names of what the job has staged for its workers, but for what every job stages."""
    names = []
    for artifact in info.dependencies:
        if artifact.role_urn == common_urns.artifact_roles.STAGING_TO.urn:
            payload = beam_runner_api_pb2.ArtifactStagingToRolePayload.FromString(
                artifact.role_payload
            )
            names.append(str(payload.staged_name))
    return [name for name in names if name != _ALWAYS_STAGED]


def _with_whole_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_whole_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_whole_numbers(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _descriptor(url: str) -> str:
    return str(text_format.MessageToString(endpoints_pb2.ApiServiceDescriptor(url=url)))
