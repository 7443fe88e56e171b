"""A load generator for HTTP embedding services: one process, raw keep-alive HTTP/1.1, OpenAI's request and reply.

    bulk        requests of 32 texts, 8 in flight          texts/s, and the vectors against a reference
    sequential  one short query at a time                  p50 and p99, ms
    concurrent  one short query a request, 32 in flight    requests/s, p50 and p99

A client library would cost more than some of the servers do on a small machine, so requests are written by hand and
replies are only parsed where their vectors are looked at. `python http_load.py --help`; it prints one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
import urllib.parse
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np

BULK = (32, 8)  # texts a request, requests in flight
CONCURRENT = (600, 32)  # requests, of them in flight
SEQUENTIAL = 150


class Connection:
    """A keep-alive connection."""

    def __init__(self, host: str, port: int, path: str) -> None:
        self._address = (host, port)
        self._head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"

    async def open(self) -> Connection:
        """Connect."""
        self._reader, self._writer = await asyncio.open_connection(*self._address, limit=1 << 24)
        return self

    async def post(self, body: bytes) -> bytes:
        """Send a request; the body of its reply.

        Raises:
            SystemExit: The server has answered with an error.
        """
        self._writer.write(f"{self._head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        fields = dict(line.split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
        if b"chunked" in fields.get(b"transfer-encoding", b""):
            reply = b"".join([chunk async for chunk in self._chunks()])
        else:
            reply = await self._reader.readexactly(int(fields[b"content-length"]))
        if head.split()[1] != b"200":
            raise SystemExit(f"{head.split()[1].decode()}: {reply[:300].decode(errors='replace')}")
        if b"close" in fields.get(b"connection", b""):
            await self.open()
        return reply

    async def _chunks(self) -> Any:
        while size := int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16):
            yield (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readexactly(2)


class Load:
    """Sends requests to one address."""

    def __init__(self, url: str) -> None:
        parsed = urllib.parse.urlsplit(url)
        self._address = (parsed.hostname or "", parsed.port or 80, parsed.path)

    async def send(self, requests: list[list[str]], in_flight: int) -> Sent:
        """Keep `in_flight` requests going until all are answered.

        Returns:
            Seconds in all, milliseconds of each request (sorted), the replies.
        """
        bodies = [json.dumps({"model": "model", "input": texts}).encode() for texts in requests]
        replies: list[bytes] = [b""] * len(bodies)
        times: list[float] = []
        waiting = iter(enumerate(bodies))

        async def caller(connection: Connection) -> None:
            for index, body in waiting:
                start = time.perf_counter()
                replies[index] = await connection.post(body)
                times.append(1e3 * (time.perf_counter() - start))

        connections = [await Connection(*self._address).open() for _ in range(in_flight)]
        start = time.perf_counter()
        await asyncio.gather(*(caller(connection) for connection in connections))
        return time.perf_counter() - start, sorted(times), replies


Sent = tuple[float, list[float], list[bytes]]


async def run_parts(
    send: Callable[[list[list[str]], int], Awaitable[Sent]],
    texts: list[str],
    queries: list[str],
    reference: Path | None = None,
) -> dict[str, float]:
    """All parts, after some requests to warm up; `send` is `Load.send`, or does the same in another way."""

    def some_queries(count: int) -> list[list[str]]:
        return [[query] for query in (queries * (count // len(queries) + 1))[:count]]

    bulk = [texts[start : start + BULK[0]] for start in range(0, len(texts), BULK[0])]
    await send(some_queries(64), 8)
    await send(bulk[:2], 2)
    seconds, _, replies = await send(bulk, BULK[1])
    found = {"bulk_texts_s": len(texts) / seconds}
    if reference is not None:
        found["cosine"] = least_cosine(replies, np.load(reference))
    _, times, _ = await send(some_queries(SEQUENTIAL), 1)
    found |= {"sequential_p50_ms": quantile(times, 0.5), "sequential_p99_ms": quantile(times, 0.99)}
    seconds, times, _ = await send(some_queries(CONCURRENT[0]), CONCURRENT[1])
    found |= {"concurrent_rps": CONCURRENT[0] / seconds, "concurrent_p50_ms": quantile(times, 0.5)}
    return found | {"concurrent_p99_ms": quantile(times, 0.99)}


def quantile(ordered: list[float], share: float) -> float:
    """The value below which `share` of the sorted values lie."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def least_cosine(replies: list[bytes], expected: Any) -> float:
    """The lowest cosine of a vector in the replies to its reference (float32 [n, dimensions])."""
    rows = [row["embedding"] for reply in replies for row in json.loads(reply)["data"]]
    vectors = np.asarray(rows, dtype=np.float32)
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(expected, axis=1)
    return float(((vectors * expected).sum(axis=1) / norms).min())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="where requests go: http://HOST:PORT/PATH")
    parser.add_argument("workload", type=Path, help="JSON file of texts and queries")
    parser.add_argument("--reference", type=Path, help="float32 .npy of the texts' vectors")
    options = parser.parse_args()
    work = json.loads(options.workload.read_text(encoding="utf-8"))
    used = time.process_time()
    found = asyncio.run(run_parts(Load(options.url).send, work["texts"], work["queries"], options.reference))
    json.dump({**found, "client_cpu_s": time.process_time() - used, "cores": os.cpu_count()}, sys.stdout)


if __name__ == "__main__":
    main()
