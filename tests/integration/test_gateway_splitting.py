"""A large request divided between replicas: in order, only where allowed, and with the errors of the whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from gateway_fakes import FakeExecutor, Flow, Handler, append, sleeping, texts_of
from gateway_fakes import serving as serving_some

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex.errors import InvalidInput
from flowdex.proto import flowdex_pb2 as pb
from flowdex_orchestrator.gateway.settings import GatewaySettings
from flowdex_orchestrator.traits import Traits

ENCODER = Traits(splittable=frozenset({"/encode", "/index"}))


def encoders(count: int, traits: Traits = ENCODER, **handlers: Handler) -> list[FakeExecutor]:
    return [FakeExecutor("encoder", {f"/{k}": v for k, v in handlers.items()}, traits=traits) for _ in range(count)]


@asynccontextmanager
async def serving(*executors: FakeExecutor | Sequence[FakeExecutor], **options: Any) -> AsyncIterator[Flow]:
    """As always, but every replica is ready, not only one of each executor."""
    async with serving_some(*executors, **options) as flow:
        for _ in range(500):
            if all(pool.ready_count == len(pool.replicas) for pool in flow.gateway.pools.values()):
                break
            await asyncio.sleep(0.02)
        yield flow


def texts(count: int) -> list[str]:
    return [f"text number {number:04}" for number in range(count)]


async def test_all_replicas_share_a_large_request() -> None:
    replicas = encoders(4, encode=append("!"))
    async with serving(replicas) as flow:
        reply = await flow.call("/encode", *texts(4096))
        assert texts_of(reply) == [text + "!" for text in texts(4096)]
        sizes = [len(wire.documents_of(each.seen[0])) for each in replicas]
        assert sum(sizes) == 4096
        assert min(sizes) > 990, "parts are of like size in bytes, so about 1024 texts"
        assert [route.executor for route in reply.routes] == ["gateway", *["encoder"] * 4]
        await flow.call("/encode", *texts(127))
    assert sum(len(each.seen) for each in replicas) == 5, "two parts of 64 are not to be had of 127"


async def test_the_encoders_hop_of_an_index_request_is_shared_and_the_others_are_not() -> None:
    replicas = encoders(3, index=append("-encoded"))
    segmenters = [FakeExecutor("segmenter", {"/index": append("-cut")}) for _ in range(2)]
    indexer = FakeExecutor("indexer", {"/index": append("-stored")})
    async with serving(segmenters, replicas, indexer) as flow:
        reply = await flow.call("/index", *texts(600))
    assert texts_of(reply) == [text + "-cut-encoded-stored" for text in texts(600)]
    assert sum(len(each.seen) for each in segmenters) == 1
    assert len(indexer.seen) == 1
    assert [len(each.seen) for each in replicas] == [1, 1, 1]


@pytest.mark.parametrize(
    ("traits", "settings"),
    [
        (Traits(), GatewaySettings()),
        (Traits(frozenset({"/other"})), GatewaySettings()),
        (ENCODER, GatewaySettings(split_documents=0)),
        (ENCODER, GatewaySettings(idempotent_endpoints=frozenset())),
    ],
)
async def test_only_where_it_is_allowed(traits: Traits, settings: GatewaySettings) -> None:
    replicas = encoders(2, traits, encode=append("!"))
    async with serving(replicas, settings=settings) as flow:
        assert len(texts_of(await flow.call("/encode", *texts(1000)))) == 1000
    assert sum(len(each.seen) for each in replicas) == 1


async def test_an_error_names_the_document_by_its_place_in_the_whole() -> None:
    async def refuse(request: pb.DataRequestProto) -> None:
        found = DocumentBatch.from_proto(request.data.docs).texts
        if "bad" in found:
            raise InvalidInput(f"document {found.index('bad')} cannot be encoded")

    replicas = encoders(4, encode=refuse)
    async with serving(replicas) as flow:
        many = texts(1000)
        many[900] = "bad"
        reply = await flow.call("/encode", *many)
        with pytest.raises(InvalidInput, match="document 900 cannot"):
            texts_of(reply)
        assert [route.executor for route in reply.routes] == ["gateway", "encoder"]


async def test_a_deadline_ends_all_parts() -> None:
    replicas = encoders(3, encode=sleeping(20))
    async with serving(replicas) as flow:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await flow.call("/encode", *texts(1000), timeout=0.5)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        for _ in range(200):
            if not any(each.in_flight for each in replicas):
                break
            await asyncio.sleep(0.02)
    assert [each.cancelled for each in replicas] == [1, 1, 1]
    assert not flow.gateway.router.in_flight


async def test_a_replica_that_dies_amid_its_part_loses_nothing() -> None:
    replicas = encoders(2, encode=append("!"))

    async def dies(request: pb.DataRequestProto) -> None:
        asyncio.get_running_loop().create_task(replicas[0].stop())
        await asyncio.sleep(30)

    replicas[0].handlers["/encode"] = dies
    async with serving(replicas) as flow:
        assert texts_of(await flow.call("/encode", *texts(1000))) == [text + "!" for text in texts(1000)]


async def test_parameters_and_request_id_reach_every_part() -> None:
    replicas = encoders(2, encode=append("!"))
    async with serving(replicas) as flow:
        reply = await flow.call("/encode", *texts(400), parameters={"a": 1, "encoder__b": 2})
    for each in replicas:
        assert wire.dict_from_struct(each.seen[0].parameters) == {"a": 1, "b": 2}
        assert each.seen[0].header.request_id == reply.header.request_id
