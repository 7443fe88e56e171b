"""A closed-loop load generator over one gRPC channel, shared by the benchmarks.

    request bytes --n in flight--> server --> latencies, requests/s, CPU of the servers' processes

Requests are serialised once and replies are not decoded, so that what is measured is the service and not the client.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
import numpy as np

Metadata = tuple[tuple[str, str], ...]
MESSAGE_LIMIT = 256 * 2**20
CHANNEL_OPTIONS = [("grpc.max_send_message_length", MESSAGE_LIMIT), ("grpc.max_receive_message_length", MESSAGE_LIMIT)]


@dataclass(frozen=True)
class Load:
    """What one run of load measured.

    Attributes:
        latencies_ms: One value a request, in milliseconds.
        seconds: Wall time of the run.
        cpu_ms: CPU time of the servers' processes for one request, in milliseconds.
    """

    latencies_ms: np.ndarray
    seconds: float
    cpu_ms: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.latencies_ms) / self.seconds

    def percentile(self, percent: float) -> float:
        """A latency percentile, in milliseconds."""
        return float(np.percentile(self.latencies_ms, percent))


def cpu_seconds(pids: Sequence[int]) -> float:
    """CPU time that processes have used so far, user and system, from /proc."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


async def drive(
    target: str,
    method: str,
    request: bytes,
    *,
    in_flight: int,
    seconds: float,
    pids: Sequence[int] = (),
    credentials: grpc.ChannelCredentials | None = None,
    metadata: Metadata = (),
) -> Load:
    """Send `request` again and again, `in_flight` at a time, for `seconds`; every reply must be a success."""
    latencies: list[float] = []
    async with _channel(target, credentials) as channel:
        call = channel.unary_unary(method)
        reply = await call(request, wait_for_ready=True, timeout=60, metadata=metadata)
        _assert_success(reply)
        cpu, start = cpu_seconds(pids), time.perf_counter()
        end = start + seconds

        async def caller() -> None:
            while (begin := time.perf_counter()) < end:
                await call(request, timeout=60, metadata=metadata)
                latencies.append((time.perf_counter() - begin) * 1e3)

        await asyncio.gather(*(caller() for _ in range(in_flight)))
        elapsed = time.perf_counter() - start
        cpu = cpu_seconds(pids) - cpu
    return Load(np.asarray(latencies), elapsed, cpu * 1e3 / max(len(latencies), 1))


def _channel(target: str, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)
    return grpc.aio.secure_channel(target, credentials, options=CHANNEL_OPTIONS)


def _assert_success(reply: bytes) -> None:
    from flowdex import wire

    error = wire.error_of(wire.read_head(reply).header)
    if error is not None:
        raise error
