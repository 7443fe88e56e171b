"""Requests through the gateway: chains, branches, parameters, results, routes, errors. Real sockets, fake executors."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest
from gateway_fakes import FakeExecutor, append, eventually, failing, result, serving, sleeping, texts_of

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex.errors import Conflict, InvalidInput
from flowdex.proto import flowdex_pb2 as pb
from flowdex_orchestrator.gateway.settings import GatewaySettings


async def test_a_chain_skips_who_does_not_bind_the_endpoint() -> None:
    a = FakeExecutor("a", {"/x": append("a"), "/y": append("a")})
    b = FakeExecutor("b", {"/y": append("b")})
    c = FakeExecutor("c", {"/default": append("c")})
    async with serving(a, b, c) as flow:
        assert texts_of(await flow.call("/x", "1", "2")) == ["1ac", "2ac"]
        assert texts_of(await flow.call("/y", "1")) == ["1abc"]
        assert texts_of(await flow.call("/other", "1")) == ["1c"]
        assert texts_of(await flow.call("/y", "1", target_executor="[ab]")) == ["1ab"]


async def test_the_reply_keeps_the_request_and_names_its_routes() -> None:
    a, b = FakeExecutor("a", {"/x": sleeping(0.05)}), FakeExecutor("b", {"/x": None})
    async with serving(a, b) as flow:
        reply = await flow.call("/x", "1", request_id="mine", parameters={"limit": 3, "deep": {"list": [1, "a", None]}})
    assert reply.header.request_id == "mine"
    assert reply.header.exec_endpoint == "/x"
    assert reply.header.status.code == wire.SUCCESS
    assert wire.dict_from_struct(reply.parameters) == {"limit": 3.0, "deep": {"list": [1.0, "a", None]}}
    assert [route.executor for route in reply.routes] == ["gateway", "a", "b"]
    times = [(route.start_time.ToNanoseconds(), route.end_time.ToNanoseconds()) for route in reply.routes]
    (start, end), (a_start, a_end), (b_start, b_end) = times
    assert start <= a_start < a_end <= b_start <= b_end <= end
    assert a_end - a_start >= 45e6


async def test_the_first_executor_gets_the_callers_own_bytes() -> None:
    a = FakeExecutor("a", {"/x": None})
    request = pb.DataRequestProto()
    request.header.exec_endpoint = "/x"
    request.header.timeout = 7
    request.data.docs.docs.add().data["blob"].blob = bytes(range(256)) * 10
    request.data.docs.docs[0].data["nested"].doc.data["x"].dict.data["y"].float = 0.5
    async with serving(a) as flow:
        reply = await flow.send(request.SerializeToString())
    assert a.seen == [request]
    assert reply.data == request.data


async def test_parameters_reach_every_executor_by_jinas_rules() -> None:
    executors = [FakeExecutor(name, {"/x": result(name, seen=True)}) for name in "abc"]
    async with serving(*executors) as flow:
        reply = await flow.call("/x", "1", parameters={"limit": 10, "b": {"limit": 5}, "c__mode": "fast"})
    seen = [wire.dict_from_struct(executor.seen[0].parameters) for executor in executors]
    assert seen == [
        {"limit": 10.0, "b": {"limit": 5.0}},
        {"limit": 5.0, "b": {"limit": 5.0}},
        {"limit": 10.0, "b": {"limit": 5.0}, "mode": "fast"},
    ]
    found = wire.dict_from_struct(reply.parameters)
    assert found.pop("__results__") == {name: {"seen": True} for name in "abc"}
    assert found == {"limit": 10.0, "b": {"limit": 5.0}, "c__mode": "fast"}


async def test_a_mention_of_results_is_no_result() -> None:
    async with serving(FakeExecutor("a", {"/x": None})) as flow:
        reply = await flow.call("/x", "1", parameters={"text": "__results__"})
    assert wire.dict_from_struct(reply.parameters) == {"text": "__results__"}


async def test_branches_run_at_the_same_time_and_their_replies_are_merged() -> None:
    def work(field: str) -> object:
        async def handler(request: pb.DataRequestProto) -> None:
            await asyncio.sleep(0.3)
            batch = DocumentBatch.from_proto(request.data.docs)
            batch.set_column(field, [f"{field}:{text}" for text in batch.texts])
            await result(field, done=1)(request)

        return handler

    split = FakeExecutor("split", {"/x": append("!")})
    left, right = FakeExecutor("left", {"/x": work("left")}), FakeExecutor("right", {"/x": work("right")})
    join = FakeExecutor("join", {"/x": None})
    needs = {"split": [], "left": ["split"], "right": ["split"], "join": ["left", "right"]}
    async with serving(split, left, right, join, needs=needs) as flow:
        reply = await flow.call("/x", "1", "2")
    batch = wire.documents_of(reply)
    assert batch.ids == ["id-0", "id-1"]
    assert batch.column("left") == ["left:1!", "left:2!"]
    assert batch.column("right") == ["right:1!", "right:2!"]
    assert len(join.seen) == 1
    assert wire.dict_from_struct(reply.parameters)["__results__"] == {"left": {"done": 1.0}, "right": {"done": 1.0}}
    assert {route.executor for route in reply.routes} == {"gateway", "split", "left", "right", "join"}
    times = {
        route.executor: (route.start_time.ToNanoseconds(), route.end_time.ToNanoseconds()) for route in reply.routes
    }
    assert times["left"][0] < times["right"][1], "the branches ran at the same time"
    assert times["right"][0] < times["left"][1], "the branches ran at the same time"


async def test_an_error_in_a_branch_ends_the_other_branch() -> None:
    left = FakeExecutor("left", {"/x": failing(Conflict("other vectors"))})
    right = FakeExecutor("right", {"/x": sleeping(30)})
    join = FakeExecutor("join", {"/x": None})
    async with serving(left, right, join, needs={"join": ["left", "right"]}) as flow:
        reply = await flow.call("/x", "1")
        with pytest.raises(Conflict, match="other vectors"):
            texts_of(reply)
        assert not join.seen
        await eventually(lambda: right.cancelled == 1 or not right.in_flight)


async def test_a_listener_does_not_hold_up_the_answer() -> None:
    a, listener, b = (FakeExecutor(name, {"/x": None}) for name in ("a", "listener", "b"))
    listener.handlers["/x"] = sleeping(0.5)
    async with serving(a, listener, b, needs={"listener": ["a"], "b": ["a"]}) as flow:
        started = time.perf_counter()
        reply = await flow.call("/x", "1")
        assert time.perf_counter() - started < 0.4
        assert [route.executor for route in reply.routes] == ["gateway", "a", "b"]
        await eventually(lambda: len(listener.seen) == 1)
        await eventually(lambda: listener.in_flight == 0)
        assert listener.cancelled == 0


async def test_the_first_error_is_the_answer() -> None:
    a = FakeExecutor("a", {"/x": append("a")})
    b = FakeExecutor("b", {"/x": failing(InvalidInput("document 1: text is blank"))})
    c = FakeExecutor("c", {"/x": append("c")})
    async with serving(a, b, c) as flow:
        method = flow.channel.unary_unary(wire.PROCESS_SINGLE_DATA)
        call = method(wire.build_request("/x", DocumentBatch.from_columns(texts=["1"])), timeout=10)
        reply = wire.read_request(await call)
        assert (await call.trailing_metadata())["is-error"] == "true"
    error = wire.error_of(reply.header)
    assert type(error) is InvalidInput
    assert error.message == "document 1: text is blank"
    assert error.executor == "b"
    assert not c.seen
    assert [route.executor for route in reply.routes] == ["gateway", "a", "b"]
    assert [route.status.code for route in reply.routes] == [wire.SUCCESS, wire.SUCCESS, wire.ERROR]


async def test_what_is_wrong_with_a_request_is_its_status() -> None:
    async with serving(FakeExecutor("a", {"/encode": None})) as flow:
        for data, code, words in [
            (wire.build_request("/encod"), grpc.StatusCode.NOT_FOUND, "did you mean '/encode'?"),
            (b"not a request", grpc.StatusCode.INVALID_ARGUMENT, "DataRequestProto"),
            (wire.build_request("/encode", target_executor="("), grpc.StatusCode.INVALID_ARGUMENT, "regular"),
            (wire.build_request("/encode", target_executor="b"), grpc.StatusCode.NOT_FOUND, "served by a"),
        ]:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await flow.send(data)
            assert caught.value.code() is code
            assert words in caught.value.details()
        assert texts_of(await flow.call("/encode", "still here")) == ["still here"]


async def test_the_deadline_is_one_for_all_hops() -> None:
    a, b = FakeExecutor("a", {"/x": sleeping(0.3)}), FakeExecutor("b", {"/x": None})
    async with serving(a, b) as flow:
        await flow.call("/x", "1", timeout=5)
        (first,), (second,) = a.time_left, b.time_left
        assert first is not None and second is not None
        assert 4 < first < 5.1
        assert first - 1 < second <= first - 0.29
        b.handlers["/x"] = sleeping(30)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await flow.call("/x", "1", timeout=0.6)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually(lambda: b.in_flight == 0)
        assert len(b.seen) == 2, "a call whose deadline passed is not tried again"


async def test_an_executors_own_time_out_caps_a_call() -> None:
    slow = FakeExecutor("slow", {"/encode": sleeping(30)})
    async with serving(slow, timeout=0.2) as flow:
        started = time.perf_counter()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await flow.call("/encode", "1", timeout=10)
        assert time.perf_counter() - started < 2
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "timeout_send of 200 ms" in caught.value.details()
    assert len(slow.seen) == 1


async def test_a_caller_that_goes_away_stops_the_work() -> None:
    a = FakeExecutor("a", {"/x": sleeping(30)})
    async with serving(a) as flow:
        call = flow.channel.unary_unary(wire.PROCESS_SINGLE_DATA)(wire.build_request("/x"))
        await eventually(lambda: a.in_flight == 1)
        call.cancel()
        await eventually(lambda: a.cancelled == 1)
        await eventually(lambda: flow.gateway.router.in_flight == 0)
        assert flow.gateway.pools["a"].replicas[0].in_flight == 0


async def test_one_request_too_many_is_refused_at_once() -> None:
    a = FakeExecutor("a", {"/x": sleeping(0.5)})
    async with serving(a, settings=GatewaySettings(max_in_flight=4)) as flow:
        working = [asyncio.ensure_future(flow.call("/x", str(number))) for number in range(4)]
        await eventually(lambda: a.in_flight == 4)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await flow.call("/x", "one more")
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "max_in_flight" in caught.value.details()
        assert int(caught.value.trailing_metadata()["retry-after-ms"]) > 0
        assert len(await asyncio.gather(*working)) == 4
        assert texts_of(await flow.call("/x", "now there is room")) == ["now there is room"]


async def test_a_request_too_large_is_told_which_setting() -> None:
    async with serving(FakeExecutor("a", {"/x": None}), settings=GatewaySettings(max_message_bytes=100_000)) as flow:
        assert len(texts_of(await flow.call("/x", "x" * 90_000))) == 1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await flow.call("/x", "x" * 110_000)
        assert caught.value.code() is grpc.StatusCode.OUT_OF_RANGE
        assert "max_message_bytes" in caught.value.details()
        with pytest.raises(grpc.aio.AioRpcError) as caught:  # far beyond: gRPC drops it unread
            await flow.call("/x", "x" * 1_000_000)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len(texts_of(await flow.call("/x", "fine"))) == 1


async def test_the_names_of_requests_are_passed_on() -> None:
    a = FakeExecutor("a", {"/x": None})
    async with serving(a) as flow:
        await flow.send(wire.build_request("/x"), metadata=(("x-request-id", "r-1"), ("authorization", "secret")))
    assert a.metadata[0]["x-request-id"] == "r-1"
    assert "authorization" not in a.metadata[0]


async def test_an_executor_that_talks_nonsense_is_named() -> None:
    a = FakeExecutor("a", {"/x": None})

    async def nonsense(data: bytes, context: object) -> bytes:
        return b"nonsense"

    a._process = nonsense  # type: ignore[method-assign]
    async with serving(a) as flow:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await flow.call("/x", "1")
    assert caught.value.code() is grpc.StatusCode.UNKNOWN
    assert f"'a' at {a.address} did not answer what it was asked" in caught.value.details()
    assert "not a DataRequestProto" in caught.value.details()
