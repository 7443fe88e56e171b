"""Descriptors for gRPC reflection: our messages under the names that Jina gives them.

    flowdex.proto (package flowdex.v1) --rename--> docarray.proto (package docarray) + jina.proto (package jina)
                                                    + the services, from the method paths of flowdex.wire

Reflection answers with the descriptors of the services a server offers. Those services are Jina's, so their messages
must be called `jina.DataRequestProto` and `docarray.DocProto`, whereas our generated code lives in a package of its own
so that both can be loaded in one process. The descriptors are therefore built in a private pool, which no other module
sees: `ReflectionServicer(GATEWAY_SERVICES, pool=descriptor_pool())`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from google.protobuf import empty_pb2, struct_pb2, timestamp_pb2
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

from flowdex import wire
from flowdex.proto import flowdex_pb2 as pb

__all__ = ["EXECUTOR_SERVICES", "GATEWAY_SERVICES", "descriptor_pool"]


class _Method(NamedTuple):
    path: str
    request: str
    response: str
    client_streaming: bool = False
    server_streaming: bool = False

    @property
    def service(self) -> str:
        """The full name of the service, such as `jina.JinaRPC`."""
        return self.path.split("/")[1]

    @property
    def name(self) -> str:
        """The name of the method within its service."""
        return self.path.split("/")[2]


_EMPTY = ".google.protobuf.Empty"
_METHODS = (
    _Method(wire.PROCESS_DATA, ".jina.DataRequestListProto", ".jina.DataRequestProto"),
    _Method(wire.PROCESS_SINGLE_DATA, ".jina.DataRequestProto", ".jina.DataRequestProto"),
    _Method(
        wire.STREAM_DOC, ".jina.SingleDocumentRequestProto", ".jina.SingleDocumentRequestProto", server_streaming=True
    ),
    _Method(
        wire.CALL, ".jina.DataRequestProto", ".jina.DataRequestProto", client_streaming=True, server_streaming=True
    ),
    _Method(wire.ENDPOINT_DISCOVERY, _EMPTY, ".jina.EndpointsProto"),
    _Method(wire.DRY_RUN, _EMPTY, ".jina.StatusProto"),
    _Method(wire.INFO_STATUS, _EMPTY, ".jina.JinaInfoProto"),
)

_ALL_SERVICES = tuple(method.service for method in _METHODS)
_DRY_RUN_SERVICE = wire.DRY_RUN.split("/")[1]
_PROCESS_DATA_SERVICE = wire.PROCESS_DATA.split("/")[1]

# What each kind of server answers on; health and reflection name themselves (grpc_health, grpc_reflection).
GATEWAY_SERVICES: tuple[str, ...] = tuple(name for name in _ALL_SERVICES if name != _PROCESS_DATA_SERVICE)
EXECUTOR_SERVICES: tuple[str, ...] = tuple(name for name in _ALL_SERVICES if name != _DRY_RUN_SERVICE)

_OLD = "Old"
_DOCARRAY_MESSAGES = frozenset(
    {
        "DenseNdArrayProto",
        "NdArrayProto",
        "NodeProto",
        "DocProto",
        "DictOfAnyProto",
        "ListOfAnyProto",
        "DocListProto",
    }
)


def descriptor_pool(more: Iterable[FileDescriptor] = ()) -> DescriptorPool:
    """Build a pool that describes Jina's services and messages.

    Args:
        more: Descriptors of further services the server offers, such as `health_pb2.DESCRIPTOR`; their dependencies
            must be among Jina's (struct, timestamp, empty) or come before them.

    Returns:
        A new pool, for `grpc_reflection.v1alpha.reflection.ReflectionServicer(service_names, pool=...)`.
    """
    ours = FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(ours)
    docarray = FileDescriptorProto(
        name="docarray.proto", package="docarray", syntax="proto3", dependency=[struct_pb2.DESCRIPTOR.name]
    )
    jina = FileDescriptorProto(name="jina.proto", package="jina", syntax="proto3")
    jina.dependency.extend(
        [timestamp_pb2.DESCRIPTOR.name, struct_pb2.DESCRIPTOR.name, empty_pb2.DESCRIPTOR.name, docarray.name]
    )
    for message in ours.message_type:
        if message.name.startswith(_OLD):  # no service says that it takes them
            continue
        _rename(message)
        (docarray if message.name in _DOCARRAY_MESSAGES else jina).message_type.append(message)
    for method in _METHODS:
        jina.service.add(name=method.service.removeprefix("jina.")).method.add(
            name=method.name,
            input_type=method.request,
            output_type=method.response,
            client_streaming=method.client_streaming,
            server_streaming=method.server_streaming,
        )

    pool = DescriptorPool()
    for module in (struct_pb2, timestamp_pb2, empty_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    for file in (docarray, jina):
        pool.AddSerializedFile(file.SerializeToString())
    for descriptor in more:
        pool.AddSerializedFile(descriptor.serialized_pb)
    return pool


def _rename(message: DescriptorProto) -> None:
    """Point every type that `message` mentions from our package to Jina's or docarray's."""
    prefix = f".{pb.DESCRIPTOR.package}."
    for field in message.field:
        if field.type_name.startswith(prefix):
            name = field.type_name.removeprefix(prefix)
            package = "docarray" if name.split(".")[0] in _DOCARRAY_MESSAGES else "jina"
            field.type_name = f".{package}.{name}"
    for nested in message.nested_type:
        _rename(nested)
