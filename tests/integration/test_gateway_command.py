"""`flowdex gateway` as a process: start, readiness, drain, errors, orphans, what it imports."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import httpx
import pytest
from gateway_fakes import FakeExecutor, append, eventually, sleeping, texts_of

from flowdex import wire
from flowdex.documents import DocumentBatch

FLOW = """
jtype: Flow
with: {{protocol: [grpc, http], port: [{grpc}, {http}]}}
executors:
  - {{name: a, uses: some.Executor, port: {a}}}
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def write_flow(folder: Path, **ports: int) -> Path:
    path = folder / "flow.yml"
    path.write_text(FLOW.format(**ports))
    return path


@asynccontextmanager
async def gateway(flow: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the command; it is killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "flowdex", "gateway", "--flow", str(flow), *arguments, stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def http_status(port: int, path: str) -> int:
    async with httpx.AsyncClient(trust_env=False) as client:
        try:
            return (await client.get(f"http://127.0.0.1:{port}{path}", timeout=2)).status_code
        except httpx.TransportError:
            return 0


async def wait_for_status(port: int, path: str, status: int) -> None:
    end = time.monotonic() + 30
    while await http_status(port, path) != status:
        assert time.monotonic() < end, f"{path} is not {status}"
        await asyncio.sleep(0.05)


async def run(flow: Path, arguments: Sequence[str] = ()) -> tuple[int | None, str]:
    """Run a command that is expected to end by itself; its exit code and what it says."""
    async with gateway(flow, *arguments) as process:
        _, errors = await asyncio.wait_for(process.communicate(), 30)
        return process.returncode, errors.decode()


async def test_from_start_to_drain(tmp_path: Path) -> None:
    grpc_port, http_port, port = free_ports(3)
    flow = write_flow(tmp_path, grpc=grpc_port, http=http_port, a=port)
    executor = FakeExecutor("a", {"/encode": append("!"), "/slow": sleeping(1.5), "/search": sleeping(1.5)}, port)
    async with gateway(flow) as process, grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
        call = channel.unary_unary(wire.PROCESS_SINGLE_DATA)
        await wait_for_status(http_port, "/health/live", 200)
        assert await http_status(http_port, "/health/ready") == 503
        await executor.start()
        await wait_for_status(http_port, "/health/ready", 200)
        request = wire.build_request("/encode", DocumentBatch.from_columns(texts=["a"]))
        assert texts_of(wire.read_request(await call(request, timeout=10))) == ["a!"]

        slow = asyncio.ensure_future(call(wire.build_request("/slow"), timeout=20))
        async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
            over_http = asyncio.ensure_future(
                client.post(f"http://127.0.0.1:{http_port}/search", json={"query": "slow too"})
            )
            await eventually(lambda: executor.in_flight == 2)
            process.send_signal(signal.SIGTERM)
            await wait_for_status(http_port, "/health/live", 0)  # nothing new is accepted
            assert not slow.done()
            assert (await over_http).status_code == 200
        assert wire.error_of(wire.read_request(await slow).header) is None, "what was in flight is finished"
        assert await asyncio.wait_for(process.wait(), 10) == 0
        assert process.stderr is not None
        assert b"Traceback" not in await process.stderr.read()
    await executor.stop()


async def test_ctrl_c_ends_it_quietly_and_addresses_come_from_the_command_line(tmp_path: Path) -> None:
    grpc_port, http_port, unused = free_ports(3)
    executors = [await FakeExecutor("a", {"/encode": None}).start() for _ in range(2)]
    flow = write_flow(tmp_path, grpc=1, http=2, a=unused)
    arguments = [f"--address=a={executor.address}" for executor in executors]
    async with gateway(flow, "--port-grpc", str(grpc_port), "--port-http", str(http_port), *arguments) as process:
        await wait_for_status(http_port, "/health/ready", 200)
        async with httpx.AsyncClient(trust_env=False) as client:
            status = (await client.get(f"http://127.0.0.1:{http_port}/status")).json()
        found = {replica["address"] for replica in status["executors"][0]["replicas"]}
        assert found == {executor.address for executor in executors}
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 10) == 0
        assert process.stderr is not None
        assert b"Traceback" not in await process.stderr.read()
    for executor in executors:
        await executor.stop()


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_a_port_in_use_is_named(tmp_path: Path, protocol: str) -> None:
    ports = dict(zip(("grpc", "http", "a"), free_ports(3), strict=True))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports[protocol]))
        taken.listen()
        code, errors = await run(write_flow(tmp_path, **ports))
    assert code == 1
    (line,) = errors.strip().splitlines()
    assert line.startswith("Error:")
    assert str(ports[protocol]) in line
    assert f"--port-{protocol}" in line


async def test_mistakes_on_the_command_line(tmp_path: Path) -> None:
    flow = write_flow(tmp_path, grpc=0, http=0, a=1)
    code, errors = await run(flow, ["--address", "b=127.0.0.1:1"])
    assert code == 1
    assert "no executor 'b'" in errors
    code, errors = await run(flow, ["--address", "nonsense"])
    assert code == 2
    assert "NAME=HOST:PORT" in errors
    flow.write_text(flow.read_text() + "gateway: {uses_with: {max_inflight: 5}}\n")
    code, errors = await run(flow)
    assert code == 1
    assert "did you mean 'max_in_flight'?" in errors


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
async def test_it_ends_when_its_parent_is_gone(tmp_path: Path) -> None:
    grpc_port, http_port, port = free_ports(3)
    flow = write_flow(tmp_path, grpc=grpc_port, http=http_port, a=port)
    program = (
        "import os, subprocess, sys, time;"
        "print(subprocess.Popen([*sys.argv[1:], '--parent-pid', str(os.getpid())]).pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-m", "flowdex", "gateway", "--flow", str(flow)]
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, *command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    try:
        await wait_for_status(http_port, "/health/live", 200)
        parent.kill()
        await parent.wait()
        await wait_for_status(http_port, "/health/live", 0)
        await eventually(lambda: not alive(child))
    finally:
        if alive(child):
            os.kill(child, signal.SIGKILL)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_gateway_imports_neither_jina_nor_torch() -> None:
    program = (
        "import sys;"
        "import flowdex_orchestrator.gateway.cli, flowdex_orchestrator.gateway.server;"
        "import flowdex_orchestrator.gateway.http.server;"
        "heavy = ('jina', 'docarray', 'torch', 'transformers', 'qdrant_client');"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
