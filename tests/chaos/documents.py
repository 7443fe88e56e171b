"""Documents that cannot be encoded, memory that runs out, and an indexing run that is cut in two."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from pathlib import Path

import numpy as np

from chaos.faults import Row, Setting, fault
from chaos.flow import BUCKETS, ChaosFlow, flow_yaml, known_vectors
from chaos.hungry_encoder import POISON
from chaos.load import Load
from flowdex import AsyncClient, Document
from flowdex.errors import ExecutorError

BATCH = 256
CORPUS = 4000

HUNGRY = f"""\
  - name: encoder
    uses: HungryEncoder
    py_modules: [{Path(__file__).parent}/hungry_encoder.py]
    replicas: 2
    uses_with: {{buckets: {BUCKETS}}}
"""


@fault("memory", most=20)
async def memory(setting: Setting) -> list[Row]:
    """An encoder without memory for a batch, and for one document in 256 not even by itself."""
    row = Row(f"no memory for a batch; one document of {BATCH} for which there is none at all", setting.rounds)
    chance = random.Random(12 + 100 * setting.seed)
    async with ChaosFlow.started(setting.folder, flow_yaml(encoder=HUNGRY)) as flow:
        load = Load(flow, row.tally)
        expected: set[str] = set()
        async with load.running(), AsyncClient(flow.running.grpc_url, retries=0) as client:
            for number in range(setting.rounds):
                fault = time.monotonic()
                poison = chance.randrange(BATCH)
                batch = [
                    Document(f"{POISON if each == poison else 'food'} {each} of round {number}", id=f"r{number}-{each}")
                    for each in range(BATCH)
                ]
                row.tally.sent += 1
                result = await client.index(batch, batch_size=BATCH, on_error="collect", timeout=60)
                (failure,) = result.failures
                assert (result.documents, failure.id) == (BATCH - 1, f"r{number}-{poison}"), result
                assert isinstance(failure.error, ExecutorError), failure
                assert "no memory" in failure.error.message, failure
                row.tally.count_failure(f"{failure.error.name} (the document)")
                expected |= {str(each.id) for each in batch if each.id != failure.id}
                texts = [f"text {each}" for each in range(BATCH)]
                row.tally.sent += 1
                vectors = await client.encode(texts, batch_size=BATCH, timeout=60)
                assert np.allclose(vectors, known_vectors(texts), atol=1e-4)
                await load.recovered(fault)
            stored = {str(each.id) async for each in client.scroll() if str(each.id).startswith("r")}
            row.tally.lost += len(expected - stored)
            assert stored <= expected
        assert [each.restarts for each in flow.processes()] == [0] * len(flow.processes())
        await load.verify()
    row.note = f"{BATCH - 1} of {BATCH} are stored each time; the time is that of both large requests"
    return [row]


@fault("resume", most=10)
async def resume(setting: Setting) -> list[Row]:
    """`flowdex index`, the whole flow killed in the middle, and `flowdex index --resume` once it runs again."""
    row = Row(f"the flow is killed while {CORPUS} documents are indexed, then `index --resume`", setting.rounds)
    chance = random.Random(13 + 100 * setting.seed)
    for number in range(setting.rounds):
        async with ChaosFlow.started(setting.folder / str(number)) as flow:
            corpus = flow.running.folder / "corpus.jsonl"
            lines = [{"id": f"c{each}", "text": f"line {each} says number {each}"} for each in range(CORPUS)]
            await asyncio.to_thread(corpus.write_text, "".join(json.dumps(each) + "\n" for each in lines))
            first = await flowdex(flow, "index", str(corpus))
            async with AsyncClient(flow.running.grpc_url, retries=0) as client:
                wanted = chance.randrange(200, CORPUS // 2)
                while (written := await count(client)) < wanted:
                    assert first.returncode is None, "it was over before"
                    await asyncio.sleep(0.01)
            for name in ("runner", "gateway"):
                flow.kill(name, chance)
            code = await first.wait()
            assert code != 0, "it cannot have succeeded"
            fault = time.monotonic()
            await flow.up_again()
            second = await flowdex(flow, "index", str(corpus), "--resume", "--json")
            output = await second.communicate()
            assert second.returncode == 0, output
            row.tally.recoveries.append(time.monotonic() - fault)
            row.tally.sent += 2
            row.tally.count_failure("Unavailable (the first run)")
            async with AsyncClient(flow.running.grpc_url) as client:
                found = [each.id async for each in client.scroll()]
            row.tally.lost += len({each["id"] for each in lines} - set(found))
            row.tally.duplicated += len(found) - len(set(found))
            unchanged = json.loads(output[0])["unchanged"]
            assert unchanged >= written, "what was stored is not sent again"
    row.note = "each document is there once; the time is that of starting the flow and of the second run"
    return [row]


async def flowdex(flow: ChaosFlow, *arguments: str) -> asyncio.subprocess.Process:
    """Start a command of the client."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "flowdex", *arguments),
        cwd=flow.running.folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "FLOWDEX_URL": flow.running.grpc_url},
    )


async def count(client: AsyncClient) -> int:
    """Documents that are stored; 0 before there is a collection."""
    from flowdex.errors import NotFound

    try:
        return await client.count()
    except NotFound:
        return 0
