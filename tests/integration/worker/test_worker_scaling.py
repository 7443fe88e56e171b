"""What a worker tells gateway and runner: its traits, and how long requests wait in it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from flowdex import wire
from flowdex_orchestrator import local_socket
from flowdex_orchestrator.runner.replica import replica_queue_ms, replica_traits
from flowdex_orchestrator.tls import Hop
from flowdex_orchestrator.traits import Traits

SOURCE = """
import time
from jina import Executor, requests
from flowdex_executors import DocumentColumns

class Tested(Executor):
    splittable = {"/slow"}
    embedded = True

    @requests(on="/slow")
    def slow(self, docs: DocumentColumns, **kwargs) -> DocumentColumns:
        time.sleep(0.2)
        return docs
"""


@pytest.mark.slow
async def test_traits_and_load(start_worker):
    worker = start_worker(SOURCE).wait_ready()
    address = f"127.0.0.1:{worker.port}"
    traits = await replica_traits(address, Hop())
    assert traits == Traits(frozenset({"/slow"}), embedded=True, exchange=True, local_socket=traits.local_socket)
    (await local_socket.connect(traits.local_socket)).abort()
    assert await replica_queue_ms(address, Hop()) == 0.0
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda _: worker.post("/slow", ["a"]), range(5)))
    found = json.loads(worker.channel.unary_unary(wire.LOAD)(b"", timeout=5))
    assert 250 < found["queue_ms"] < 900  # they waited 0, 200, ..., 800 ms
    assert found["in_flight"] == 0
    worker.terminate()
    assert worker.wait() == 0
    assert await replica_traits(address, Hop()) == Traits()
    assert await replica_queue_ms(address, Hop()) is None
