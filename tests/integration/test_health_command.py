"""`flowdex health`, as a container runs it, against servers in every state."""

from __future__ import annotations

import asyncio
import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc.aio
import pytest
from click.testing import CliRunner, Result
from flow_support import free_ports, run_flowdex

from flowdex.cli.main import main
from flowdex_orchestrator.health import HealthService


@contextmanager
def grpc_server(*, serving: bool) -> Iterator[str]:
    """A server with the health service that gateway and executors have."""
    (port,) = free_ports(1)
    loop, started, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def serve() -> None:
        service = HealthService()
        service.set(serving)
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((service.handler(),))
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        started.set()
        await stop.wait()
        await server.stop(0)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert started.wait(10)
        yield f"grpc://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


@contextmanager
def http_server(status: int) -> Iterator[str]:
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/prefix/health/ready" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/prefix"
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def health(*arguments: str, **env: str) -> Result:
    return CliRunner(env={"FLOWDEX_HEALTH_URL": None, "FLOWDEX_URL": None, **env}).invoke(main, ["health", *arguments])


def test_a_server_that_is_ready() -> None:
    with grpc_server(serving=True) as url:
        assert health(url).exit_code == 0
        assert health(FLOWDEX_HEALTH_URL=url).exit_code == 0
        assert health(FLOWDEX_URL=url).exit_code == 0
        # What a container checks is itself, though its FLOWDEX_URL names the gateway of its flow.
        assert health(FLOWDEX_HEALTH_URL=url, FLOWDEX_URL="grpc://127.0.0.1:1").exit_code == 0
    with http_server(200) as url:
        assert health(url).exit_code == 0


def test_a_server_that_is_not_ready() -> None:
    with grpc_server(serving=False) as url:
        done = health(url)
        assert (done.exit_code, "it is not ready" in done.output) == (1, True), done.output
    with http_server(503) as url:
        done = health(url)
        assert (done.exit_code, "status 503" in done.output) == (1, True), done.output


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_nothing_listens(scheme: str) -> None:
    done = health(f"{scheme}://127.0.0.1:{free_ports(1)[0]}")
    assert done.exit_code == 1
    assert "takes no requests" in done.output


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_server_that_does_not_answer_in_time(scheme: str) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        done = health(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}", "--timeout", "0.3")
    assert done.exit_code == 1
    assert time.monotonic() - started < 3


def test_the_process_ends_with_the_exit_code_that_containers_look_at() -> None:
    with grpc_server(serving=True) as url:
        assert run_flowdex("health", url).returncode == 0
    done = run_flowdex("health", url)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
