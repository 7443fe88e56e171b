"""The encoder under load, through the running flow: who waits for whom, and what happens to callers that go."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from flowdex import AsyncClient, Client, InvalidInput

if TYPE_CHECKING:
    from flow_support import RunningFlow

SENTENCE = "a sentence of the bulk that keeps the compute threads busy for a while, number {} "


def bulk(count: int) -> list[str]:
    return [SENTENCE.format(index) * 4 for index in range(count)]


async def encoder_status(client: AsyncClient) -> dict[str, object]:
    status = await client.status()
    return dict(next(each.status for each in status.executors if each.name == "encoder"))


async def test_status(default_flow: RunningFlow) -> None:
    async with AsyncClient(default_flow.grpc_url) as client:
        before = await encoder_status(client)
        await client.encode(["one", "two"])
        after = await encoder_status(client)
    expected = {"model": "all-MiniLM-L6-v2", "dimensions": 384, "max_tokens": 256, "normalize": True}
    assert {key: after[key] for key in expected} == expected
    assert (after["pooling"], after["backend"], after["queue"]) == (["mean"], "packed and onnx", 0)
    assert after["documents_encoded"] == before["documents_encoded"] + 2  # type: ignore[operator]


async def test_a_query_overtakes_a_bulk_request(default_flow: RunningFlow) -> None:
    async with AsyncClient(default_flow.grpc_url) as client:
        await client.encode(["warm"])
        work = asyncio.create_task(client.encode(bulk(256), batch_size=256))
        while (await encoder_status(client))["queue"] == 0:
            assert not work.done(), "the bulk request was over before it was seen: make it larger"
            await asyncio.sleep(0.01)
        waited = []
        for _ in range(5):
            start = time.monotonic()
            await client.encode(["a short query"])
            waited.append(time.monotonic() - start)
        assert not work.done(), f"the queries waited for all of the bulk: {waited}"
        assert (await work).shape == (256, 384)


async def test_the_work_of_a_caller_that_has_gone_is_dropped(default_flow: RunningFlow) -> None:
    async with AsyncClient(default_flow.grpc_url) as client:
        before = await encoder_status(client)
        work = asyncio.create_task(client.encode(bulk(2000), batch_size=2000))
        while (await encoder_status(client))["queue"] == 0:
            assert not work.done()
            await asyncio.sleep(0.01)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        start = time.monotonic()
        while (await encoder_status(client))["queue"] != 0:
            assert time.monotonic() - start < 15, "the queue is still worked off"
            await asyncio.sleep(0.05)
        assert (await encoder_status(client))["documents_encoded"] == before["documents_encoded"]


def test_long_and_blank_texts(default_flow: RunningFlow) -> None:
    with Client(default_flow.http_url) as client:
        start = time.monotonic()
        long = client.encode(["all of this text is one sentence. " * 150_000])
        assert time.monotonic() - start < 10
        np.testing.assert_allclose(long, client.encode(["all of this text is one sentence. " * 100]), atol=1e-5)
        with pytest.raises(InvalidInput, match="blank"):
            client.encode(["fine", " "])
