"""A replica whose device hangs, or whose weights are spoilt, takes no requests until it is right again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from flow_support import RunningFlow, start_flow, stop_flow
from prometheus_client.parser import text_string_to_metric_families

from flowdex import Client

ENCODER = """
import os
import time
from pathlib import Path

import numpy as np

from flowdex_executors.encoder import Encoder


class Tested(Encoder):
    def __init__(self, **options):
        super().__init__(threads=1, **options)
        self.weights = np.random.default_rng(7).normal(size=(256, 8))
        self.right = self.weights

    def encode_batch(self, batch):
        while Path(f"hang-{os.getpid()}").exists():
            time.sleep(0.01)
        spoilt = Path(f"spoilt-{os.getpid()}").exists()
        self.weights = np.roll(self.right, 1, axis=1) if spoilt else self.right
        counts = np.array([np.bincount(list(text.encode()), minlength=256) for text in batch])
        return (counts @ self.weights).astype(np.float32)
"""
FLOW = """
jtype: Flow
with: {port: [51000, 8080], protocol: [grpc, http]}
executors:
  - {name: encoder, uses: Tested, py_modules: [tested.py], replicas: 2, canary: 300}
"""


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFlow]:
    folder = tmp_path_factory.mktemp("canary")
    (folder / "tested.py").write_text(ENCODER)
    flow = start_flow(folder, FLOW)
    yield flow
    for file in folder.glob("hang-*"):
        file.unlink()
    stop_flow(flow)


def processes(flow: RunningFlow, name: str = "encoder") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(flow.flowdex("ps", "--json").stdout)["processes"]
    return [each for each in found if each["name"] == name]


def replica(flow: RunningFlow, port: int) -> dict[str, Any]:
    (encoder,) = httpx.get(f"{flow.http_url}/status", trust_env=False).json()["executors"]
    found: dict[str, Any] = next(each for each in encoder["replicas"] if each["address"].endswith(f":{port}"))
    return found


def canary_ok(process: dict[str, Any]) -> float:
    reply = httpx.get(f"http://127.0.0.1:{process['metrics_port']}/metrics", trust_env=False)
    families = {family.name: family for family in text_string_to_metric_families(reply.text)}
    (sample,) = families["flowdex_canary_ok"].samples
    return sample.value


def eventually(condition: Callable[[], object], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("spoilt", "its canary has another vector than at the start"),
        ("hang", "its canary has not come back within 1 s"),
    ],
)
def test_a_replica_that_does_not_work_is_left_out_until_it_does(flow: RunningFlow, fault: str, reason: str) -> None:
    ill, _ = processes(flow)
    port, file = ill["port"], Path(flow.folder, f"{fault}-{ill['pid']}")
    assert replica(flow, port)["canary"]["ok"]
    assert canary_ok(ill) == 1
    with Client(flow.grpc_url) as client:
        right = client.encode(["some text"])
        file.touch()
        eventually(lambda: not replica(flow, port)["ready"])
        said = replica(flow, port)
        assert said["canary"]["problem"].startswith(reason)
        assert said["versions"]["flowdex"] and said["versions"]["python"] and said["restarts"] == 0
        assert canary_ok(ill) == 0
        for _ in range(20):  # all from the other one
            np.testing.assert_allclose(client.encode(["some text"]), right, rtol=1e-6)
        eventually(lambda: f"encoder-0: {reason}" in flow.flowdex("ps").stdout)
        assert processes(flow)[0]["state"] == "unready"
        file.unlink()
        eventually(lambda: replica(flow, port)["ready"])
        assert replica(flow, port)["canary"]["ok"]
        assert canary_ok(ill) == 1
        eventually(lambda: processes(flow)[0]["state"] == "ready")
        assert processes(flow)[0]["restarts"] == 0, "it is not started again for that"


def test_a_gateway_without_a_replica_says_what_it_waits_for(flow: RunningFlow) -> None:
    files = [Path(flow.folder, f"spoilt-{each['pid']}") for each in processes(flow)]
    for file in files:
        file.touch()
    eventually(lambda: [each["state"] for each in processes(flow)] == ["unready"] * 2)
    eventually(lambda: processes(flow, "gateway")[0]["state"] != "ready")
    (gateway,) = processes(flow, "gateway")
    # It answers: nobody is to take it for a process that hangs.
    assert (gateway["state"], gateway["cause"]) == ("unready", "no replica is ready of executor encoder")
    for file in files:
        file.unlink()
    eventually(lambda: processes(flow, "gateway")[0]["state"] == "ready")
    assert processes(flow, "gateway")[0]["restarts"] == 0
