"""Clients that misbehave beside others that do not: slow ones, ones that vanish, thousands that only stand there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import resource
import socket
import struct
import time
import urllib.request
from pathlib import Path

from chaos.faults import Row, Setting, Skipped, fault
from chaos.flow import ChaosFlow, flow_yaml
from chaos.load import Load

SLOW_CLIENTS, SLOW_SECONDS = 20, 8.0
VANISHING = 200
IDLE = 5000  # of each protocol
# HTTP/2's preface and empty settings (RFC 9113, section 3.4).
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


def large_request(texts: int) -> bytes:
    """An HTTP request whose answer is some megabytes."""
    body = json.dumps({"texts": [f"text {number}" for number in range(texts)]}).encode()
    head = f"POST /encode HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def descriptors(pid: int) -> int:
    """How many files and sockets a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def in_flight(url: str) -> float:
    """How many requests the gateway says that it works on."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as reply:
        found = re.search(r"^flowdex_requests_in_flight(?:\{\})? (\S+)", reply.read().decode(), re.MULTILINE)
    assert found
    return float(found[1])


async def settled(flow: ChaosFlow, before: int, spare: int = 20) -> int:
    """Wait until the gateway works on nothing and holds no more descriptors than before; how many it holds."""
    (pid,) = flow.pids("gateway")
    end = time.monotonic() + 60
    while True:
        held = descriptors(pid)
        if held <= before + spare and not await asyncio.to_thread(in_flight, flow.running.http_url):
            return held
        assert time.monotonic() < end, f"{held} descriptors are open, {before} were before"
        await asyncio.sleep(0.2)


async def drip(port: int, until: float) -> int:
    """Ask for much, and read a few bytes at a time; how many."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    read = 0
    try:
        writer.write(large_request(2000))
        await writer.drain()
        while time.monotonic() < until and (piece := await reader.read(512)):
            read += len(piece)
            await asyncio.sleep(0.05)
    except ConnectionError:
        pass  # the gateway has had enough
    finally:
        writer.transport.abort()
    return read


async def vanish(port: int, after: float) -> None:
    """Ask for much, and go away in the middle."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(large_request(500))
    with contextlib.suppress(ConnectionError):
        await writer.drain()
    await asyncio.sleep(after)
    # No farewell: the connection is reset.
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@fault("slow-client", most=5)
async def slow(setting: Setting) -> list[Row]:
    """Clients that read a large answer by drips."""
    row = Row(f"{SLOW_CLIENTS} clients read 10 KB a second of a large answer", setting.rounds)
    async with ChaosFlow.started(setting.folder) as flow:
        load = Load(flow, row.tally)
        async with load.running():
            (pid,) = flow.pids("gateway")
            before = descriptors(pid)
            for _ in range(setting.rounds):
                until = time.monotonic() + SLOW_SECONDS
                read = await asyncio.gather(*(drip(flow.running.http_port, until) for _ in range(SLOW_CLIENTS)))
                assert min(read) > 0
            await load.all_well(time.monotonic())
        await settled(flow, before)
        await load.verify()
    row.note = f"longest pause of the others {row.tally.gap:.1f} s"
    return [row]


@fault("vanishing-client", most=10)
async def vanishing(setting: Setting) -> list[Row]:
    """Clients that go away in the middle of their request."""
    row = Row(f"{VANISHING} clients reset their connection in mid-request", setting.rounds)
    async with ChaosFlow.started(setting.folder) as flow:
        load = Load(flow, row.tally)
        async with load.running():
            (pid,) = flow.pids("gateway")
            before = descriptors(pid)
            for _ in range(setting.rounds):
                for start in range(0, VANISHING, 20):
                    port = flow.running.http_port
                    await asyncio.gather(*(vanish(port, number / 400) for number in range(start, start + 20)))
            gone = time.monotonic()
            await load.all_well(gone)
        held = await settled(flow, before)
        row.tally.recoveries.append(time.monotonic() - gone)
        await load.verify()
    row.note = f"descriptors of the gateway: {before} before, {held} after; no request is left in flight"
    return [row]


@fault("idle-connections", most=1)
async def idle(setting: Setting) -> list[Row]:
    """Thousands of connections on which nothing is said."""
    row = Row(f"{IDLE} idle connections over HTTP and {IDLE} over gRPC", 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * IDLE + 1000
    if hard < wanted:
        raise Skipped(f"a process may have {hard} open files here, and {wanted} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    sockets: list[socket.socket] = []
    text = flow_yaml(gateway=f"  uses_with: {{max_connections: {IDLE + 1000}, client_timeout: 0}}\n")
    try:
        async with ChaosFlow.started(setting.folder, text) as flow:
            load = Load(flow, row.tally)
            async with load.running():
                (pid,) = flow.pids("gateway")
                before = descriptors(pid)
                for _ in range(IDLE // 100):
                    for port, hello in ((flow.running.http_port, b""), (flow.running.grpc_port, _PREFACE)):
                        sockets += await asyncio.to_thread(connect, port, hello, 100)
                await asyncio.sleep(5)
                held = descriptors(pid)
                assert held > before + 1.9 * IDLE, f"only {held - before} connections are open"
                await load.all_well(time.monotonic())
                memory = _resident(pid)
                for each in sockets:
                    each.close()
            await settled(flow, before)
            await load.verify()
    finally:
        for each in sockets:
            each.close()
    row.note = f"longest pause of the others {row.tally.gap:.1f} s; the gateway took {memory} MiB with them"
    return [row]


def connect(port: int, hello: bytes, count: int) -> list[socket.socket]:
    """Open connections and say hello on each."""
    found = []
    for _ in range(count):
        each = socket.create_connection(("127.0.0.1", port), timeout=30)
        if hello:
            each.sendall(hello)
        found.append(each)
    return found


def _resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found
    return int(found[1]) // 1024
