"""A worker that is stopped (SIGSTOP): it hangs, its connection stays, and the calls that it has are asked elsewhere."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from gateway_fakes import eventually

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex_orchestrator.gateway.replicas import ReplicaPool

SOURCE = """
import asyncio
from docarray import DocList
from docarray.documents import TextDoc
from jina import Executor, requests


class Tested(Executor):
    @requests(on="/encode")
    async def encode(self, docs: DocList[TextDoc], **kwargs) -> DocList[TextDoc]:
        await asyncio.sleep(0.05)
        return docs
"""
DEADLINE = 10.0


@pytest.mark.parametrize("size", [10, 100_000], ids=["on the stream", "by themselves"])
async def test_calls_on_a_stopped_replica_are_asked_elsewhere(start_worker: Callable[..., Any], size: int) -> None:
    workers = [start_worker(SOURCE).wait_ready() for _ in range(2)]
    pool = ReplicaPool("tested", [f"127.0.0.1:{worker.port}" for worker in workers])
    request = wire.build_request("/encode", DocumentBatch.from_columns(texts=["x" * size]))
    durations: list[float] = []

    async def ask(until: float) -> None:
        while (began := time.monotonic()) < until:
            answer = await pool.call(request, deadline=began + DEADLINE, idempotent=True, documents=1)
            assert not answer.is_error
            durations.append(time.monotonic() - began)

    try:
        await eventually(lambda: pool.ready_count == 2, 60)
        tasks = [asyncio.create_task(ask(time.monotonic() + 9)) for _ in range(6)]
        await asyncio.sleep(1)
        os.kill(workers[0].process.pid, signal.SIGSTOP)
        await asyncio.gather(*tasks)
    finally:
        os.kill(workers[0].process.pid, signal.SIGCONT)
        await pool.close()
    slow = sorted(each for each in durations if each > 1)
    assert 1 <= len(slow) <= 6, "those that the stopped one had, and no others"
    assert slow[-1] < 9
