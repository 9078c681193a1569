"""The messages between a runner and a worker pool.

Beam has classes for them, but they bring all of Beam along: a second of start and 140 MB for a pool
that only starts processes. The messages are Beam's (beam_fn_api.proto, endpoints.proto), with the
fields that a pool has a use for.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import (  # type: ignore[import-untyped]
    descriptor_pb2,
    descriptor_pool,
    message_factory,
)

#: The name of the service, which has the methods StartWorker and StopWorker.
SERVICE = "org.apache.beam.model.fn_execution.v1.BeamFnExternalWorkerPool"

_PACKAGE = "candlebeam.worker"
_ENDPOINT = f".{_PACKAGE}.Endpoint"
#: The fields of each message: name, number, and the type where it is not a string.
_MESSAGES: dict[str, list[tuple[str, int, str]]] = {
    "Endpoint": [("url", 1, "")],
    "StartWorkerRequest": [
        ("worker_id", 1, ""),
        ("control_endpoint", 2, _ENDPOINT),
        ("logging_endpoint", 3, _ENDPOINT),
        ("artifact_endpoint", 4, _ENDPOINT),
        ("provision_endpoint", 5, _ENDPOINT),
    ],
    "StartWorkerResponse": [("error", 1, "")],
    "StopWorkerRequest": [("worker_id", 1, "")],
    "StopWorkerResponse": [("error", 1, "")],
}


def _build() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="candlebeam/worker_pool.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            added = message.field.add(name=field, number=number, type_name=kind or None)
            added.label = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
            added.type = (
                descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
                if kind
                else descriptor_pb2.FieldDescriptorProto.TYPE_STRING
            )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _MESSAGES
    }


_classes = _build()

StartWorkerRequest = _classes["StartWorkerRequest"]
StartWorkerResponse = _classes["StartWorkerResponse"]
StopWorkerRequest = _classes["StopWorkerRequest"]
StopWorkerResponse = _classes["StopWorkerResponse"]
