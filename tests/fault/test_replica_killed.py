"""An encoder replica is killed under load: no request is lost, and the replica comes back."""

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
from flow_support import ROOT, RunningFlow, run_flowdex, start_flow, stop_flow

from flowdex import AsyncClient


@pytest.fixture
def two_encoders(tmp_path: Path) -> Iterator[RunningFlow]:
    flow = start_flow(tmp_path, (ROOT / "flow.yml").read_text(), "--replicas", "encoder=2")
    yield flow
    stop_flow(flow)


def encoder_processes(flow: RunningFlow) -> list[dict[str, object]]:
    done = run_flowdex("ps", str(flow.flow_file), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    rows = found["processes"] if isinstance(found, dict) else found
    return [row for row in rows if row["name"] == "encoder"]


@pytest.mark.timeout(240)
async def test_killing_a_replica_under_load_loses_no_request(two_encoders: RunningFlow) -> None:
    texts = [f"a sentence about topic number {index}" for index in range(8)]
    before = encoder_processes(two_encoders)
    assert len(before) == 2
    victim = int(str(before[0]["pid"]))
    answered, failures = 0, []
    end = time.monotonic() + 12

    # No retries in the client: the service itself must not let a request fail.
    async with AsyncClient(two_encoders.grpc_url, retries=0) as client:
        expected = await client.encode(texts)

        async def caller() -> None:
            nonlocal answered
            while time.monotonic() < end:
                try:
                    vectors = await client.encode(texts, timeout=30)
                    assert np.allclose(vectors, expected, atol=1e-5)
                    answered += 1
                except Exception as error:
                    failures.append(repr(error))

        async def killer() -> None:
            await asyncio.sleep(3)
            os.kill(victim, signal.SIGKILL)

        await asyncio.gather(killer(), *(caller() for _ in range(8)))

    assert not failures
    assert answered > 50
    for _ in range(150):
        after = encoder_processes(two_encoders)
        if all(row["state"] == "ready" for row in after) and victim not in [row["pid"] for row in after]:
            break
        await asyncio.sleep(0.2)
    assert [row["state"] for row in after] == ["ready", "ready"]
    assert sum(int(str(row["restarts"])) for row in after) == 1
