"""The indexer, or its engine, is killed while a client indexes: what was acknowledged is there, once, and can be found.

client --index, with retries--> gateway --> indexer (killed) --> engine (killed)
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flow_support import RunningFlow, run_flowdex, start_flow, stop_flow

from flowdex import AsyncClient, Document

FLOW = """
jtype: Flow
gateway:
  protocol: [grpc, http]
  port: [51000, 8080]
executors:
  - name: indexer
    uses: flowdex_executors.QdrantIndexer
    uses_with:
      uri: edge://.flowdex/index
"""
DIMENSIONS = 16
BATCH = 20


@pytest.fixture
def flow(tmp_path: Path) -> Iterator[RunningFlow]:
    started = start_flow(tmp_path, FLOW)
    yield started
    stop_flow(started)


def document(number: int) -> Document:
    """A document with a vector that no other one has."""
    vector = np.random.default_rng(number).standard_normal(DIMENSIONS).astype(np.float32)
    return Document(f"text of number{number}", id=f"d{number}", tags={"n": number}, embedding=vector)


def indexer_pid(flow: RunningFlow) -> int | None:
    found = json.loads(run_flowdex("ps", str(flow.flow_file), "--json").stdout)
    rows = found["processes"] if isinstance(found, dict) else found
    return next((int(row["pid"]) for row in rows if row["name"] == "indexer" and row["state"] == "ready"), None)


def children(pid: int) -> list[int]:
    """The processes that it started, of all threads: the engine's shards among them."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


async def victims(flow: RunningFlow, victim: str, killed: set[int]) -> list[int]:
    """Processes to kill, other ones than before: the table of processes may lag behind."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        pid = await asyncio.to_thread(indexer_pid, flow)
        try:
            found = [] if pid is None else [pid] if victim == "indexer" else children(pid)
        except FileNotFoundError:
            found = []
        if found and not killed.intersection(found):
            return found
        await asyncio.sleep(0.1)
    raise AssertionError("the indexer did not come back")


@pytest.mark.timeout(240)
@pytest.mark.parametrize("victim", ["indexer", "engine"])
async def test_what_was_acknowledged_survives_a_kill_and_is_there_once(flow: RunningFlow, victim: str) -> None:
    acknowledged = 0
    stop = False
    killed: set[int] = set()

    async with AsyncClient(flow.grpc_url, retries=20) as client:

        async def write() -> None:
            nonlocal acknowledged
            while not stop:
                batch = [document(number) for number in range(acknowledged, acknowledged + BATCH)]
                assert (await client.index(batch)).documents == BATCH
                acknowledged += BATCH

        writing = asyncio.create_task(write())
        for _ in range(2):
            seen = acknowledged
            while acknowledged < seen + 5 * BATCH and not writing.done():  # noqa: ASYNC110 - the writer is watched
                await asyncio.sleep(0.02)
            targets = await victims(flow, victim, killed)
            killed.update(targets)
            for target in targets:
                os.kill(target, signal.SIGKILL)
        seen = acknowledged
        while acknowledged < seen + 2 * BATCH and not writing.done():  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.02)
        stop = True
        await writing

        stored = sorted([each async for each in client.scroll(embeddings=True)], key=lambda each: each.tags["n"])
        assert [each.id for each in stored] == [f"d{number}" for number in range(acknowledged)], "each once"
        assert await client.count() == acknowledged
        assert all(each.text == f"text of number{each.tags['n']}" for each in stored)
        for number in range(0, acknowledged, max(1, acknowledged // 20)):
            expected = document(number).embedding
            assert expected is not None
            found = stored[number].embedding
            np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=1e-5)
            result = await client.search(f"number{number}", mode="sparse")
            assert [hit.id for hit in result] == [f"d{number}#0"], "a passage: there is no ranker"
        # A run that was interrupted goes on where it was: nothing of this is sent again.
        again = await client.index([document(number) for number in range(acknowledged + BATCH)], resume=True)
        assert (again.documents, again.unchanged) == (BATCH, acknowledged)
