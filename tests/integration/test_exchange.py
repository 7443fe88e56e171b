"""Calls over one stream: each has its own reply, time, status and end, whatever becomes of the others.

The stream is one of gRPC or a local socket: where a test says nothing else it holds for both.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random

import grpc
import grpc.aio
import pytest
from mutation.mutate import mutate_bytes

from flowdex import wire
from flowdex.proto import exchange_pb2 as pb
from flowdex_orchestrator import local_socket
from flowdex_orchestrator.gateway.exchange import Exchange as Caller
from flowdex_orchestrator.gateway.exchange import NotBegun
from flowdex_orchestrator.worker.exchange import Exchange, InFlight, Invocation, Refused

WAIT = 10
Answer = Callable[[bytes, Invocation], Awaitable[bytes]]


@dataclass
class Served:
    """Both ends of an exchange in this process, over a real socket."""

    answer: Answer
    age: float | None = None
    largest: int = 1 << 20
    local: bool = False
    in_flight: InFlight = field(default_factory=InFlight)
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    streams: int = 0
    connections: list[local_socket.Connection] = field(default_factory=list)

    @property
    def _exchange(self) -> Exchange:
        return Exchange(self.answer, self.in_flight, self.draining, self.largest, self.age)

    async def _serve(self, messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> None:
        assert not self.local, "the local socket was not used"
        self.streams += 1
        await self._exchange.serve(messages, context)

    async def _serve_local(self, connection: local_socket.Connection) -> None:
        self.streams += 1
        self.connections.append(connection)
        await self._exchange.serve_local(connection)

    async def break_connection(self) -> None:
        """As if the process had been killed."""
        self.local = False
        await self.server.stop(None)
        self.local_server.close()
        for connection in self.connections:
            connection.abort()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Caller]:
        self.server = grpc.aio.server()
        service, method = wire.EXCHANGE.strip("/").split("/")
        handler = grpc.stream_stream_rpc_method_handler(self._serve)
        self.server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {method: handler})])
        port = self.server.add_insecure_port("127.0.0.1:0")
        await self.server.start()
        name = local_socket.new_name()
        assert name is not None
        self.local_server = await local_socket.serve(name, self._serve_local)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as self.channel:
            caller = Caller(self.channel)
            if self.local:
                caller.prefer_local(name)
            yield caller
            await caller.close()
        await self.server.stop(None)
        self.local_server.close()


Serve = Callable[..., Served]


@pytest.fixture(params=["grpc", "local"])
def serve(request: pytest.FixtureRequest) -> Serve:
    return partial(Served, local=request.param == "local")


async def echo(data: bytes, invocation: Invocation) -> bytes:
    await asyncio.sleep(0)
    return data + b"!"


async def ask(caller: Caller, data: bytes = b"x", timeout: float | None = WAIT) -> bytes:
    return await caller(data, timeout=timeout, metadata=(("x-request-id", "7"),))


async def test_every_call_gets_its_own_reply_over_one_stream(serve: Serve) -> None:
    async def later(data: bytes, invocation: Invocation) -> bytes:
        await asyncio.sleep(0.001 * (int(data) % 7))
        return data + b"!"

    served = serve(later)
    async with served.open() as caller:
        asked = [f"{number}".encode() for number in range(500)]
        assert await asyncio.gather(*(ask(caller, each) for each in asked)) == [each + b"!" for each in asked]
        await served.in_flight.wait_for_none()
    assert served.streams == 1


async def test_what_comes_with_a_call(serve: Serve) -> None:
    seen: list[Invocation] = []

    async def look(data: bytes, invocation: Invocation) -> bytes:
        seen.append(invocation)
        return data

    async with serve(look).open() as caller:
        await caller(b"x", timeout=7.5, metadata=(("x-request-id", "7"), ("trace-bin", b"\x00\xff")))
        await caller(b"x", timeout=None, metadata=())
    assert seen == [Invocation(7.5, (("x-request-id", "7"), ("trace-bin", b"\x00\xff"))), Invocation(None, ())]


@pytest.mark.parametrize("how", ["time-out", "cancelled"])
async def test_a_call_that_is_given_up_ends_at_the_worker_too(how: str, serve: Serve) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def slow(data: bytes, invocation: Invocation) -> bytes:
        if data == b"quick":
            return data
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        raise AssertionError

    served = serve(slow)
    async with served.open() as caller:
        call = asyncio.ensure_future(ask(caller, timeout=0.2 if how == "time-out" else None))
        await asyncio.wait_for(begun.wait(), WAIT)
        if how == "cancelled":
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        else:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(ended.wait(), WAIT)
        assert await ask(caller, b"quick") == b"quick"
        await asyncio.wait_for(served.in_flight.wait_for_none(), WAIT)


async def test_a_refusal_an_incident_and_a_large_reply_are_their_calls_own(
    caplog: pytest.LogCaptureFixture, serve: Serve
) -> None:
    async def answer(data: bytes, invocation: Invocation) -> bytes:
        if data == b"refused":
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "no")
        if data == b"incident":
            raise RuntimeError("a secret")
        return b"y" * 100_000 if data == b"large" else data

    served = serve(answer, largest=50_000)
    async with served.open() as caller:
        asked = [b"fine", b"refused", b"incident", b"large", b"fine"]
        got = await asyncio.gather(*(ask(caller, each) for each in asked), return_exceptions=True)
        await served.in_flight.wait_for_none()
    assert got[0] == got[4] == b"fine"
    codes = [(each.code(), each.details()) for each in got[1:4] if isinstance(each, grpc.aio.AioRpcError)]
    assert codes[0] == (grpc.StatusCode.INVALID_ARGUMENT, "no")
    assert codes[1][0] is grpc.StatusCode.INTERNAL
    assert "secret" not in codes[1][1]
    assert "a secret" in caplog.text
    assert codes[2][0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "message larger than max" in codes[2][1]
    assert served.streams == 1


async def test_a_draining_worker_answers_what_it_has_begun_and_begins_nothing_more(serve: Serve) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def answer(data: bytes, invocation: Invocation) -> bytes:
        begun.set()
        await go.wait()
        return data

    served = serve(answer)
    async with served.open() as caller:
        first = asyncio.ensure_future(ask(caller, b"first"))
        await asyncio.wait_for(begun.wait(), WAIT)
        served.draining.set()
        await asyncio.sleep(0.1)
        late = asyncio.ensure_future(ask(caller, b"late"))
        await asyncio.sleep(0.1)
        go.set()
        assert await first == b"first"
        with pytest.raises(NotBegun):
            await late


async def test_an_old_stream_is_followed_by_another(serve: Serve) -> None:
    served = serve(echo, age=0.2)
    async with served.open() as caller:
        assert await ask(caller) == b"x!"
        await asyncio.sleep(0.5)
        assert await ask(caller) == b"x!"
    assert served.streams == 2


async def test_when_the_connection_breaks_every_call_ends(serve: Serve) -> None:
    begun = asyncio.Event()

    async def never(data: bytes, invocation: Invocation) -> bytes:
        begun.set()
        await asyncio.sleep(60)
        return data

    served = serve(never)
    async with served.open() as caller:
        calls = [asyncio.ensure_future(ask(caller, timeout=None)) for _ in range(5)]
        await asyncio.wait_for(begun.wait(), WAIT)
        await served.break_connection()
        for each in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(each, grpc.aio.AioRpcError)
            assert not isinstance(each, NotBegun)
            assert each.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(caller)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "refused" in (caught.value.details() or "").lower()


async def test_replies_that_are_none_end_every_call_and_the_next_one_opens_another_stream() -> None:
    served = Served(echo)

    async def rubbish(messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> None:
        served.streams += 1
        async for _ in messages:
            await context.write(b"\xff\xff")

    served._serve = rubbish  # type: ignore[method-assign]
    async with served.open() as caller:
        for _ in range(2):
            for each in await asyncio.gather(*(ask(caller) for _ in range(3)), return_exceptions=True):
                assert isinstance(each, grpc.aio.AioRpcError)
                assert each.code() is grpc.StatusCode.DATA_LOSS
                assert not isinstance(each, NotBegun)
    assert served.streams == 2


async def test_closing_says_of_what_was_sent_that_it_may_have_run(serve: Serve) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def stubborn(data: bytes, invocation: Invocation) -> bytes:
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        cancelled.set()
        return data

    served = serve(stubborn)
    async with served.open() as caller:
        call = asyncio.ensure_future(ask(caller, timeout=None))
        await asyncio.wait_for(begun.wait(), WAIT)
        await caller.close()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert not isinstance(caught.value, NotBegun)
        await asyncio.wait_for(cancelled.wait(), WAIT)
        await asyncio.wait_for(served.in_flight.wait_for_none(), WAIT)


@pytest.mark.parametrize(
    "message",
    [
        b"\xff\xff\xff",
        pb.ExchangeRequestsProto(
            requests=[pb.ExchangeRequestProto(number=1, request=b"x"), pb.ExchangeRequestProto(number=1, request=b"y")]
        ).SerializeToString(),
    ],
    ids=["rubbish", "a number twice"],
)
async def test_bytes_that_are_no_exchange_end_the_stream_with_the_reason(message: bytes) -> None:
    async def slow(data: bytes, invocation: Invocation) -> bytes:
        await asyncio.sleep(0.1)
        return data

    served = Served(slow)
    async with served.open() as caller:
        stream = served.channel.stream_stream(wire.EXCHANGE)()
        await stream.write(message)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            while await stream.read() is not grpc.aio.EOF:
                pass
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "exchange" in (caught.value.details() or "")
        assert await ask(caller) == b"x"
        await asyncio.wait_for(served.in_flight.wait_for_none(), WAIT)


async def test_whatever_a_worker_answers_the_call_ends() -> None:
    """Damaged replies: each call has a reply or a status at once or at its deadline, and the next stream works."""
    sound = pb.ExchangeRepliesProto(replies=[pb.ExchangeReplyProto(number=1, reply=b"x!")]).SerializeToString()
    answers = [mutate_bytes(sound, Random(seed)) for seed in range(120)]
    answered: list[bytes] = []

    async def serve(messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> None:
        await anext(messages)
        await context.write(answers[len(answered)] if len(answered) < len(answers) else sound)
        await asyncio.sleep(0.3)  # longer than the call's deadline

    served = Served(echo)
    served._serve = serve  # type: ignore[method-assign]
    async with served.open() as caller:
        for _ in answers:
            one = Caller(served.channel)
            try:
                answered.append(await asyncio.wait_for(ask(one, timeout=0.1), WAIT))
            except (grpc.aio.AioRpcError, NotBegun):
                answered.append(b"")
            await one.close()
        assert await ask(caller) == b"x!"
    assert b"" in answered
    assert any(answered)


# ---- the local socket alone ----


@pytest.mark.parametrize("name", ["flowdex-" + "0" * 32, "flowdex-../../x", "/tmp/.X11-unix/X0", "\0"])
async def test_where_there_is_no_such_local_socket_grpc_serves(name: str) -> None:
    served = Served(echo)
    async with served.open() as caller:
        caller.prefer_local(name)
        assert await asyncio.gather(ask(caller), ask(caller)) == [b"x!", b"x!"]
    assert served.streams == 1
    assert not served.connections


async def test_calls_to_a_process_that_is_stopped_end_when_it_is_known_to_be() -> None:
    begun = asyncio.Event()

    async def never(data: bytes, invocation: Invocation) -> bytes:
        begun.set()
        await asyncio.sleep(60)
        return data

    async with Served(never, local=True).open() as caller:
        call = asyncio.ensure_future(ask(caller, timeout=None))
        await asyncio.wait_for(begun.wait(), WAIT)
        caller.lose("it answers no pings")
        with pytest.raises(grpc.aio.AioRpcError, match="no pings") as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert not isinstance(caught.value, NotBegun)


async def test_a_reply_beyond_the_limit_is_not_read() -> None:
    served = Served(echo, largest=1 << 20, local=True)
    async with served.open() as caller:
        caller._largest = 1000
        assert await ask(caller) == b"x!"
        with pytest.raises(grpc.aio.AioRpcError, match="message larger than max") as caught:
            await ask(caller, b"y" * 2000)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await ask(caller) == b"x!"
    assert served.streams == 2


async def test_bytes_that_are_no_exchange_end_a_local_stream_and_nothing_else() -> None:
    served = Served(echo, local=True)
    async with served.open() as caller:
        assert await ask(caller) == b"x!"
        for seed in range(40):
            connection = await local_socket.connect(caller._local)
            sound = pb.ExchangeRequestsProto(requests=[pb.ExchangeRequestProto(number=1, request=b"x")])
            damaged = mutate_bytes(sound.SerializeToString(), Random(seed)) or b"\xff"
            connection._writer.write(damaged if seed % 2 else len(damaged).to_bytes(4, "big") + damaged)
            await asyncio.sleep(0)
            connection.abort()
        assert await ask(caller) == b"x!"
        await asyncio.wait_for(served.in_flight.wait_for_none(), WAIT)


async def test_a_process_of_another_user_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    served = Served(echo)
    name = local_socket.new_name()
    assert name is not None
    server = await local_socket.serve(name, served._serve_local)
    try:
        own = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: own + 1)  # then the other side is another user
        with pytest.raises(PermissionError, match="another user"):
            await local_socket.connect(name)
        monkeypatch.undo()
        connection = await local_socket.connect(name)
        monkeypatch.setattr(os, "getuid", lambda: own + 1)
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(connection.read(), WAIT)
        connection.abort()
    finally:
        server.close()
    assert served.streams == 0
