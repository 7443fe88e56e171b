"""Replicas: who gets a call, what happens when one dies, comes back, is added or removed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from gateway_fakes import FakeExecutor, append, eventually, serving, sleeping, texts_of

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex.errors import DeadlineExceeded, Unavailable
from flowdex.proto import flowdex_pb2 as pb
from flowdex_orchestrator.gateway.replicas import ReplicaPool
from flowdex_orchestrator.gateway.settings import GatewaySettings
from flowdex_orchestrator.traits import Traits


def pair(**handlers: Any) -> list[FakeExecutor]:
    return [FakeExecutor("e", dict(handlers)), FakeExecutor("e", dict(handlers))]


def dies(executor: FakeExecutor) -> Callable[[pb.DataRequestProto], Awaitable[None]]:
    """A handler in which the whole server goes away."""

    async def handler(request: pb.DataRequestProto) -> None:
        asyncio.get_running_loop().create_task(executor.stop())
        await asyncio.sleep(30)

    return handler


async def test_calls_go_to_the_least_loaded() -> None:
    slow, fast = pair(**{"/encode": None})
    slow.handlers["/encode"], fast.handlers["/encode"] = sleeping(0.5), sleeping(0.01)
    async with serving([slow, fast]) as flow:

        async def worker() -> None:
            for _ in range(10):
                await flow.call("/encode", "1")

        await asyncio.gather(worker(), worker(), worker())
    assert len(slow.seen) + len(fast.seen) == 30
    assert 1 <= len(slow.seen) <= 10, "half would be 15: the slow replica has calls in flight and gets no more"


async def test_equally_loaded_replicas_share_by_chance() -> None:
    first, second = pair(**{"/encode": None})
    async with serving([first, second]) as flow:
        for _ in range(60):
            await flow.call("/encode", "1")
    assert min(len(first.seen), len(second.seen)) >= 10


async def test_a_replica_takes_calls_only_while_it_is_serving() -> None:
    first, second = pair(**{"/encode": None})
    await first.start(serving=False)
    async with serving([first, second]) as flow:
        for _ in range(10):
            await flow.call("/encode", "1")
        assert not first.seen
        first.health.set(True)
        (watched,) = [each for each in flow.gateway.pools["e"].replicas if each.address == first.address]
        await eventually(lambda: watched.ready)
        second.health.set(False)
        await eventually(lambda: sum(each.ready for each in flow.gateway.pools["e"].replicas) == 1)
        for _ in range(10):
            await flow.call("/encode", "1")
        assert len(first.seen) == 10


async def test_a_killed_replica_under_load_loses_no_request() -> None:
    first, second = pair(**{"/encode": None})
    first.handlers["/encode"] = second.handlers["/encode"] = append("!")
    async with serving([first, second]) as flow:
        failures: list[BaseException] = []
        done = 0

        async def worker(end: float) -> None:
            nonlocal done
            while time.monotonic() < end:
                try:
                    assert texts_of(await flow.call("/encode", "1")) == ["1!"]
                    done += 1
                except BaseException as error:
                    failures.append(error)
                    raise

        workers = [asyncio.ensure_future(worker(time.monotonic() + 3)) for _ in range(16)]
        for executor in (first, second, first):
            await asyncio.sleep(0.5)
            await executor.stop(grace=None)  # at once: calls in flight are dropped
            await asyncio.sleep(0.2)
            await executor.start()
        await asyncio.gather(*workers, return_exceptions=True)
    assert not failures
    assert done > 100


async def test_all_replicas_down_for_a_moment_is_only_a_pause() -> None:
    a = FakeExecutor("a", {"/encode": append("!")})
    async with serving(a) as flow:
        await a.stop(grace=None)
        await eventually(lambda: not flow.gateway.ready)
        waiting = [asyncio.ensure_future(flow.call("/encode", str(number))) for number in range(5)]
        await asyncio.sleep(0.5)
        assert not any(task.done() for task in waiting)
        await a.start()
        assert [texts_of(reply) for reply in await asyncio.gather(*waiting)] == [[f"{number}!"] for number in range(5)]
        assert flow.gateway.ready


async def test_waiting_for_a_replica_is_bounded() -> None:
    a = FakeExecutor("a", {"/encode": None})
    async with serving(a, settings=GatewaySettings(replica_wait=0.5)) as flow:
        await a.stop(grace=None)
        started = time.perf_counter()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await flow.call("/encode", "1")
        assert 0.3 < time.perf_counter() - started < 3
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "'a'" in caught.value.details()
        assert "refused" in caught.value.details().lower()
        started = time.perf_counter()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await flow.call("/encode", "1", timeout=0.1)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_call_that_kills_every_replica_gives_up() -> None:
    executors = [FakeExecutor("e", {"/encode": None}) for _ in range(4)]
    for executor in executors:
        executor.handlers["/encode"] = dies(executor)
    async with serving(executors) as flow:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await flow.call("/encode", "poison")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "tried 3 times" in caught.value.details()
    assert sum(len(executor.seen) for executor in executors) == 3


async def test_what_may_have_run_is_tried_again_only_if_it_is_harmless() -> None:
    executors = pair(**{"/train": None})
    for executor in executors:
        executor.handlers["/train"] = dies(executor)
    async with serving(executors) as flow:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await flow.call("/train", "1")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "idempotent_endpoints" in caught.value.details()
    assert sum(len(executor.seen) for executor in executors) == 1


async def test_what_cannot_have_run_is_always_tried_again() -> None:
    first, second = pair(**{"/train": None})
    async with serving([first, second]) as flow:
        pool = flow.gateway.pools["e"]
        (gone,) = [each for each in pool.replicas if each.address == first.address]
        await first.stop(grace=None)
        await eventually(lambda: not gone.ready)
        gone.ready = True  # as if nobody had noticed yet
        for _ in range(5):
            assert texts_of(await flow.call("/train", "1")) == ["1"]


async def test_a_replica_that_comes_back_is_asked_for_its_endpoints_again() -> None:
    a = FakeExecutor("a", {"/encode": None})
    async with serving(a) as flow:
        await flow.call("/encode", "1")
        await a.stop(grace=None)
        a.handlers = {"/other": append("?")}
        await a.start()
        await eventually(lambda: "/other" in flow.gateway.router.endpoints())
        assert texts_of(await flow.call("/other", "1")) == ["1?"]
        with pytest.raises(grpc.aio.AioRpcError, match="no executor serves"):
            await flow.call("/encode", "1")


async def test_replicas_come_and_go_at_run_time() -> None:
    first, second = pair(**{"/encode": sleeping(0.3)})
    await second.start()
    async with serving([first]) as flow:
        pool = flow.gateway.pools["e"]
        pool.add(second.address)
        pool.add(second.address)
        assert len(pool.replicas) == 2
        await eventually(lambda: all(replica.ready for replica in pool.replicas))
        working = [asyncio.ensure_future(flow.call("/encode", "1")) for _ in range(4)]
        await eventually(lambda: first.in_flight == 2 and second.in_flight == 2)
        await pool.remove(first.address)
        assert first.in_flight == 0, "it was drained first"
        assert first.cancelled == 0
        await asyncio.gather(*working)
        seen = len(first.seen)
        for _ in range(5):
            await flow.call("/encode", "1")
        assert len(first.seen) == seen
        assert flow.gateway.ready
        await pool.remove(second.address)
        await pool.remove("127.0.0.1:1")
        assert not flow.gateway.ready
        pool.add(first.address)
        await eventually(lambda: flow.gateway.ready)
    await second.stop()


async def test_a_request_before_the_executors_are_there_waits_for_them() -> None:
    a = FakeExecutor("a", {"/encode": append("!")})
    await a.start(serving=False)
    async with serving(a, ready=False) as flow:
        call = asyncio.ensure_future(flow.call("/encode", "1"))
        await asyncio.sleep(0.3)
        assert not call.done()
        a.health.set(True)
        assert texts_of(await call) == ["1!"]


async def test_a_server_that_does_not_answer_is_not_ready() -> None:
    """Something listens, but speaks no gRPC."""

    async def ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    server = await asyncio.start_server(ignore, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    pool = ReplicaPool("a", [f"127.0.0.1:{port}"], wait=0.3)
    try:
        with pytest.raises(Unavailable):
            await pool.call(wire.build_request("/x"))
        with pytest.raises(DeadlineExceeded):
            await pool.call(wire.build_request("/x"), deadline=time.monotonic() + 0.1)
    finally:
        await pool.close()
        server.close()


RUBBISH = {
    "no message": b"\xff\x00rubbish",
    "an empty message": b"",
    "cut off": wire.build_request("/encode", DocumentBatch.from_columns(texts=["x" * 300]))[:-100],
    "no documents": wire.build_request("/encode", DocumentBatch.from_columns(texts=[])),
    "another number of documents": wire.build_request("/encode", DocumentBatch.from_columns(texts=["a", "b"])),
}


@pytest.mark.parametrize("rubbish", RUBBISH.values(), ids=RUBBISH)
async def test_what_is_no_answer_is_asked_for_elsewhere(rubbish: bytes) -> None:
    traits = Traits(splittable=frozenset({"/encode"}))
    broken, sound = (FakeExecutor("e", {"/encode": append("!"), "/once": None}, traits=traits) for _ in range(2))
    broken.answers = rubbish
    async with serving([broken, sound]) as flow:
        replies = [await flow.call("/encode", "1") for _ in range(60)]
        assert [texts_of(reply) for reply in replies] == [["1!"]] * 60
        assert 3 <= len(broken.seen) <= 6, "it is put aside after three such answers"
        (watched,) = [each for each in flow.gateway.pools["e"].replicas if each.address == broken.address]
        assert "3 times in a row" in watched.failure


async def test_what_is_no_answer_is_an_error_where_nobody_else_can_be_asked() -> None:
    (broken,) = (FakeExecutor("e", {"/encode": append("!")}) for _ in range(1))
    broken.answers = b"\xff\x00rubbish"
    async with serving(broken) as flow:
        for _ in range(5):  # the only one is not put aside
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await flow.call("/encode", "1")
            assert caught.value.code() is grpc.StatusCode.UNKNOWN
            assert f"'e' at {broken.address} did not answer what it was asked" in (caught.value.details() or "")
        broken.answers = None
        assert texts_of(await flow.call("/encode", "1")) == ["1!"]


async def test_too_large_an_answer_is_asked_for_elsewhere_and_is_the_error_in_the_end() -> None:
    broken, sound = pair(**{"/encode": append("!")})
    broken.handlers["/encode"] = append("!" * 100_000)
    async with serving([broken, sound], settings=GatewaySettings(max_reply_bytes=50_000)) as flow:
        assert [texts_of(await flow.call("/encode", "1")) for _ in range(20)] == [["1!"]] * 20
    await broken.start()
    async with serving(broken, settings=GatewaySettings(max_reply_bytes=50_000)) as flow:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await flow.call("/encode", "1")
        assert caught.value.code() is grpc.StatusCode.OUT_OF_RANGE
        assert "more than 50000 bytes (gateway.uses_with.max_reply_bytes)" in (caught.value.details() or "")


async def test_a_replica_that_is_always_late_is_put_aside() -> None:
    late, sound = pair(**{"/encode": append("!")})
    late.handlers["/encode"] = sleeping(30)
    async with serving([late, sound], timeout=1.0) as flow:
        failures = 0
        for _ in range(40):
            try:
                assert texts_of(await flow.call("/encode", "1")) == ["1!"]
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                failures += 1
        assert failures == len(late.seen)
        assert 3 <= failures <= 12, "as many more as came before another one had answered"
        (watched,) = [each for each in flow.gateway.pools["e"].replicas if each.address == late.address]
        assert "times in a row" in watched.failure


async def test_a_server_that_says_nonsense_of_itself_is_not_ready() -> None:
    odd, sound = pair(**{"/encode": append("!")})
    odd.describes = b"\xff\xff"
    async with serving([odd, sound]) as flow:
        (watched,) = [each for each in flow.gateway.pools["e"].replicas if each.address == odd.address]
        await eventually(lambda: watched.failure == "it does not answer as an executor does")
        assert texts_of(await flow.call("/encode", "1")) == ["1!"]
        odd.describes = None
        await eventually(lambda: watched.ready)


async def test_a_streaming_call_moves_on_only_before_its_first_reply() -> None:
    first, second = pair(**{"/stream": None})
    async with serving([first, second]) as flow:
        (gone,) = [each for each in flow.gateway.pools["e"].replicas if each.address == first.address]
        await first.stop(grace=None)
        await eventually(lambda: not gone.ready)
        request = pb.SingleDocumentRequestProto()
        request.header.exec_endpoint = "/stream"
        method = flow.channel.unary_stream(wire.STREAM_DOC)
        for _ in range(5):
            gone.ready = True
            replies = [reply async for reply in method(request.SerializeToString(), timeout=10)]
            assert len(replies) == 3
