"""What reflection says about our services is what Jina's own descriptors say, and both live in one process."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from flowdex import wire
from flowdex.proto import flowdex_pb2 as pb
from flowdex.proto.reflection import EXECUTOR_SERVICES, GATEWAY_SERVICES, descriptor_pool

MESSAGES = [
    f"{package}.{name}"
    for package, names in {
        "docarray": (
            "DenseNdArrayProto",
            "NdArrayProto",
            "NodeProto",
            "DocProto",
            "DictOfAnyProto",
            "ListOfAnyProto",
            "DocListProto",
        ),
        "jina": (
            "StatusProto",
            "RouteProto",
            "HeaderProto",
            "DataRequestProto",
            "DataRequestProtoWoData",
            "DataRequestListProto",
            "SingleDocumentRequestProto",
            "EndpointsProto",
            "JinaInfoProto",
        ),
    }.items()
    for name in names
]
HEALTH = "grpc.health.v1.Health"
SERVICES = sorted({*GATEWAY_SERVICES, *EXECUTOR_SERVICES})


@pytest.fixture(scope="module")
def served_pool() -> Iterator[DescriptorPool]:
    """A pool that knows nothing but what a reflection server answers."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    servicer = reflection.ReflectionServicer([*SERVICES, HEALTH], pool=descriptor_pool([health_pb2.DESCRIPTOR]))
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            assert sorted(database.get_services()) == sorted([*SERVICES, HEALTH])
            yield DescriptorPool(database)
    finally:
        server.stop(0).wait(5)


@pytest.fixture(scope="module")
def jina_pool() -> DescriptorPool:
    """The pool of the installed jina and docarray: loading it next to ours must not clash."""
    from jina.proto import jina_pb2

    return jina_pb2.DESCRIPTOR.pool


def field_signature(field: FieldDescriptor) -> tuple[object, ...]:
    message, enum, oneof = field.message_type, field.enum_type, field.containing_oneof
    return (
        field.name,
        field.number,
        field.type,
        field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED,
        field.has_presence,
        message and message.full_name,
        enum and (enum.full_name, sorted((value.name, value.number) for value in enum.values)),
        oneof and oneof.name,
    )


def message_signature(message: Descriptor) -> dict[str, object]:
    return {
        "name": message.full_name,
        "fields": sorted(map(field_signature, message.fields)),
        "nested": {nested.name: message_signature(nested) for nested in message.nested_types},
    }


def service_signature(service: ServiceDescriptor) -> list[tuple[object, ...]]:
    return sorted(
        (
            method.name,
            method.input_type.full_name,
            method.output_type.full_name,
            method.client_streaming,
            method.server_streaming,
        )
        for method in service.methods
    )


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_are_jinas(name: str, served_pool: DescriptorPool, jina_pool: DescriptorPool) -> None:
    ours, theirs = served_pool.FindMessageTypeByName(name), jina_pool.FindMessageTypeByName(name)
    assert ours is not theirs
    assert message_signature(ours) == message_signature(theirs)


def test_no_message_of_ours_is_left_out() -> None:
    # Old documents are named by no service.
    ours = [name for name in pb.DESCRIPTOR.message_types_by_name if not name.startswith("Old")]
    assert sorted(name.split(".")[1] for name in MESSAGES) == sorted(ours)


@pytest.mark.parametrize("name", SERVICES)
def test_services_are_jinas(name: str, served_pool: DescriptorPool, jina_pool: DescriptorPool) -> None:
    assert service_signature(served_pool.FindServiceByName(name)) == service_signature(
        jina_pool.FindServiceByName(name)
    )


def test_every_method_path_is_described(served_pool: DescriptorPool) -> None:
    for path in (
        wire.PROCESS_SINGLE_DATA,
        wire.PROCESS_DATA,
        wire.CALL,
        wire.STREAM_DOC,
        wire.ENDPOINT_DISCOVERY,
        wire.DRY_RUN,
        wire.INFO_STATUS,
    ):
        _, service, method = path.split("/")
        assert method in served_pool.FindServiceByName(service).methods_by_name


def test_further_services_can_be_added(served_pool: DescriptorPool) -> None:
    assert [method.name for method in served_pool.FindServiceByName(HEALTH).methods] == ["Check", "Watch"]


def test_symbols_resolve_to_their_file(served_pool: DescriptorPool) -> None:
    assert served_pool.FindFileContainingSymbol("jina.JinaRPC").name == "jina.proto"
    assert served_pool.FindFileContainingSymbol("docarray.DocProto").name == "docarray.proto"


def test_pools_are_private() -> None:
    first, second = descriptor_pool(), descriptor_pool()
    assert first.FindMessageTypeByName("jina.HeaderProto") is not second.FindMessageTypeByName("jina.HeaderProto")
