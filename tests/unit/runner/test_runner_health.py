"""Probes against small servers in the test's own loop."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from flowdex_orchestrator.runner.health import GrpcProbe, HttpProbe
from flowdex_orchestrator.runner.ports import free_ports


async def test_grpc_becomes_ready_and_stops_being_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # is not for us
    port = free_ports(1)[0]
    probe = GrpcProbe("127.0.0.1", port)
    assert not await probe.ready(timeout=0.5)  # nobody listens
    server = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    assert not await probe.ready()
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    for _ in range(50):
        if await probe.ready():
            break
        await asyncio.sleep(0.05)
    else:
        pytest.fail("never ready")
    await probe.close()
    await probe.close()
    await server.stop(0)
    assert not await probe.ready(timeout=0.5)
    await probe.close()


async def test_a_grpc_server_without_health_service_counts_as_ready() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    probe = GrpcProbe("127.0.0.1", port)
    assert await probe.ready()
    await probe.close()
    await server.stop(0)


async def test_a_server_that_hangs_is_not_ready() -> None:
    async with await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        for probe in (GrpcProbe("127.0.0.1", port), HttpProbe("127.0.0.1", port)):
            assert not await asyncio.wait_for(probe.ready(timeout=0.2), 3)
            await probe.close()


@pytest.mark.parametrize(
    ("answer", "ready"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", False),
        (b"", False),
        (b"x\r\n", False),
    ],
)
async def test_http(answer: bytes, ready: bool) -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await reader.readline()).startswith(b"GET /health/ready HTTP/1.1")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(respond, "127.0.0.1", 0) as server:
        probe = HttpProbe("127.0.0.1", server.sockets[0].getsockname()[1])
        assert await probe.ready() is ready
        await probe.close()
    assert not await HttpProbe("127.0.0.1", free_ports(1)[0]).ready()
