"""An unmodified bert-serving-client 1.10 against a running flow: all that its BertClient and ConcurrentBertClient do.

The flow runs once, as `flowdex up` starts it; other flags are served by further gateways in front of the same encoder.
"""

from __future__ import annotations

import asyncio
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flow_support import RunningFlow, free_ports, run_flowdex, stop_flow

from flowdex import Client
from flowdex_orchestrator.flow.bert import Bert
from flowdex_orchestrator.gateway.server import Gateway
from flowdex_orchestrator.gateway.settings import ExecutorTarget, GatewaySettings

pytest.importorskip("zmq")
bert_client = pytest.importorskip("bert_serving.client")

FLOW = """
jtype: Flow
with:
  protocol: [grpc, http, bert]
  port: [{grpc}, {http}, {bert}]
gateway:
  bert:
    port_out: {out}
executors:
  - name: encoder
    uses: flowdex_executors.BertEncoder
"""
TEXTS = ["Apollo 11 landed on the Moon", "bread", "First do it, then do it right, then do it better."]
SECONDS = 30_000  # milliseconds: no test waits for ever


@dataclass(frozen=True)
class BertFlow:
    flow: RunningFlow
    ports: tuple[int, int]

    def client(self, **options: Any) -> Any:
        return connect(self.ports, **options)


def connect(ports: tuple[int, int], **options: Any) -> Any:
    return bert_client.BertClient(port=ports[0], port_out=ports[1], **{"timeout": SECONDS, **options})


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BertFlow]:
    folder: Path = tmp_path_factory.mktemp("bert-flow")
    grpc, http, bert, out = free_ports(4)
    file = folder / "flow.yml"
    file.write_text(FLOW.format(grpc=grpc, http=http, bert=bert, out=out))
    done = run_flowdex("up", str(file), "--detach")
    assert done.returncode == 0, f"flowdex up failed:\n{done.stdout}\n{done.stderr}"
    flow = RunningFlow(file, grpc, http)
    yield BertFlow(flow, (bert, out))
    stop_flow(flow)


@pytest.fixture(scope="module")
def ours(served: BertFlow) -> Iterator[Client]:
    with Client(served.flow.grpc_url) as client:
        yield client


@contextmanager
def gateway(ours: Client, limits: GatewaySettings | None = None, **flags: Any) -> Iterator[tuple[int, int]]:
    """The ports of one more gateway in front of the flow's encoder, with other flags."""
    (encoder,) = ours.status().executors
    target = ExecutorTarget("encoder", addresses=tuple(each["address"] for each in encoder.replicas))
    loop, ready, end = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    ports: dict[str, int] = {}

    async def serve() -> None:
        async with Gateway([target], limits, bert=Bert.model_validate(flags)) as running:
            ports.update(await running.serve("127.0.0.1", bert_ports=(0, 0)))
            await running.wait_ready()
            ready.set()
            await end.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert ready.wait(20)
        yield ports["bert"], ports["bert-out"]
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(20)
        loop.close()


def same(left: Any, right: Any) -> bool:
    return bool(np.allclose(left, right, atol=2e-5))


def test_encode_equals_our_own_client(served: BertFlow, ours: Client) -> None:
    with served.client() as client:
        vectors = client.encode(TEXTS)
        assert (vectors.dtype, vectors.shape) == (np.float32, (3, 384))
        assert same(vectors, ours.encode(TEXTS, pooling="mean", layers=[-2], normalize=False, max_length=25))
        assert same(client.encode(TEXTS[:1]), vectors[:1])
        assert client.status["num_pending_request"] == 0


def test_lists_of_numbers(served: BertFlow) -> None:
    with served.client(output_fmt="list") as client:
        rows = client.encode(TEXTS)
        assert isinstance(rows[0][0], float)
        client.encode(TEXTS, blocking=False)
        client.encode(TEXTS[:1], blocking=False)
        assert len(client.fetch_all(concat=True)) == 4


def test_pairs_and_tokens(served: BertFlow, ours: Client) -> None:
    choices: Any = {"pooling": "mean", "layers": [-2], "normalize": False, "max_length": 25}
    with served.client() as client:
        assert same(client.encode(["Who? ||| Me."]), ours.encode([("Who?", "Me.")], **choices))
        tokenized = client.encode([["cut", "already"], ["un", "##believ", "##able"]], is_tokenized=True)
        assert same(tokenized, ours.encode(["cut already", "unbelievable"], **choices))


def test_not_blocking(served: BertFlow) -> None:
    with served.client() as client:
        batches = [[f"text {number}"] * (1 + number % 3) for number in range(12)]
        expected = [client.encode(batch) for batch in batches]
        for batch in batches:
            assert client.encode(batch, blocking=False) is None
        assert client.status["num_pending_request"] == 12
        assert all(same(*pair) for pair in zip(client.fetch_all(), expected, strict=True))
        assert client.fetch_all() is None
        for batch in batches:
            client.encode(batch, blocking=False)
        fetched = {response.id: response.embedding for response in client.fetch(delay=0.1)}
        assert [len(fetched[number]) for number in sorted(fetched)] == [len(batch) for batch in batches]


def test_encode_async(served: BertFlow) -> None:
    with served.client() as client:
        endless = (["one", "two"] for _ in iter(int, 1))
        assert [len(each.embedding) for each in client.encode_async(endless, max_num_batch=5)] == [2] * 5


def test_a_large_request_is_cut_and_keeps_its_order(served: BertFlow) -> None:
    texts = [f"number {number}" for number in range(600)]
    with served.client() as client:
        vectors = client.encode(texts)
        assert vectors.shape == (600, 384)
        assert same(vectors[[0, 255, 256, 599]], client.encode([texts[at] for at in (0, 255, 256, 599)]))


def test_configuration_and_status(served: BertFlow) -> None:
    with served.client() as client:
        config = client.server_config
        assert (config["port"], config["port_out"]) == served.ports
        assert (config["max_seq_len"], config["pooling_layer"], config["pooling_strategy"]) == (25, [-2], 2)
        client.encode(["one", "two"])
        status = client.server_status
        assert status["client"] == client.identity.decode()
        assert status["num_worker"] == 1
        assert status["statistic"]["num_total_seq"] >= 2
        assert status["statistic"]["num_active_client"] >= 1
        assert {"num_process", "server_start_time", "zmq_version", "num_concurrent_socket"} <= set(status)
        assert client.status["client_version"] == status["server_version"] == "1.10.0"


def test_warnings(served: BertFlow) -> None:
    with served.client() as client:
        with pytest.warns(UserWarning, match="more tokens than"):
            cut = client.encode(["word " * 40])
        assert cut.shape == (1, 384)
        with pytest.warns(UserWarning, match="does not support showing tokenization"):
            client.encode(["one"], show_tokens=True)


def test_wrong_input_is_refused_by_the_client_itself(served: BertFlow) -> None:
    with served.client() as client:
        for wrong, kind in [("one", TypeError), ([], ValueError), ([" "], ValueError), ([1], TypeError)]:
            with pytest.raises(kind):
                client.encode(wrong)


def test_what_the_server_refuses_is_raised_and_the_client_goes_on(ours: Client) -> None:
    with gateway(ours, GatewaySettings(max_texts=3)) as ports, connect(ports) as client:
        with pytest.raises((TypeError, ValueError), match=r"TooLarge: 4 texts in one request are more than the 3"):
            client.encode(["text"] * 4)
        client.encode(["text"] * 4, blocking=False)
        client.encode(["text"], blocking=False)
        with pytest.raises((TypeError, ValueError), match="TooLarge"):
            client.fetch_all()
        assert client.status["num_pending_request"] <= 1
        assert client.encode(["text"]).shape == (1, 384)


def test_a_time_out(served: BertFlow) -> None:
    hurried = served.client(timeout=1, ignore_all_checks=True)
    with hurried as client_in_a_hurry, pytest.raises(TimeoutError):
        client_in_a_hurry.encode(["one"] * 200)
    (closed_in, closed_out) = free_ports(2)
    with connect((closed_in, closed_out), timeout=200, ignore_all_checks=True) as client, pytest.raises(TimeoutError):
        assert client.server_config


def test_many_clients_at_once(served: BertFlow, ours: Client) -> None:
    texts = [f"caller {number}" for number in range(24)]
    expected = ours.encode(texts, pooling="mean", layers=[-2], normalize=False, max_length=25)
    client = bert_client.ConcurrentBertClient(
        max_concurrency=6, port=served.ports[0], port_out=served.ports[1], timeout=SECONDS
    )
    try:
        with ThreadPoolExecutor(6) as pool:
            found = list(pool.map(lambda text: client.encode(texts=[text])[0], texts))
        assert same(found, expected)
        assert client.server_status["server_version"] == "1.10.0"
        assert client.server_config["max_seq_len"] == 25
    finally:
        client.close()


def test_a_new_client_misses_no_reply(served: BertFlow) -> None:
    for _ in range(15):
        with served.client(ignore_all_checks=True, timeout=10_000) as client:
            assert client.encode(["at once"]).shape == (1, 384)


@pytest.mark.parametrize(
    ("strategy", "layers", "pooling", "ours_layers"),
    [
        ("REDUCE_MAX", [-1], "max", [-1]),
        ("REDUCE_MEAN_MAX", [-1], "mean_max", [-1]),
        ("CLS_TOKEN", [-1, -3], "cls", [-1, -3]),
        ("LAST_TOKEN", [0], "sep", [1]),
        ("ENCODER", [-2], None, None),
    ],
)
def test_pooling_strategies_and_layers(
    ours: Client, strategy: str, layers: list[int], pooling: Any, ours_layers: Any
) -> None:
    choices: Any = {"pooling": pooling, "layers": ours_layers, "normalize": False} if pooling else {}
    flags = {"pooling_strategy": strategy, "pooling_layer": layers, "max_seq_len": "NONE"}
    with gateway(ours, **flags) as ports, connect(ports) as client:
        with pytest.warns(UserWarning, match="does not put a restriction"):
            vectors = client.encode(TEXTS)
        assert same(vectors, ours.encode(TEXTS, **choices))


@pytest.mark.parametrize("fixed", [False, True])
def test_token_vectors(ours: Client, fixed: bool) -> None:
    flags = {"pooling_strategy": "NONE", "fixed_embed_length": fixed, "show_tokens_to_client": True}
    with gateway(ours, **flags) as ports, connect(ports) as client:
        vectors, tokens = client.encode(TEXTS, show_tokens=True)
        lengths = [len(words) for words in tokens]
        assert tokens[1] == ["[CLS]", "bread", "[SEP]"]
        assert vectors.shape == (3, 25 if fixed else max(lengths), 384)
        own = ours.encode(TEXTS, pooling="none", layers=[-2], max_length=25)
        for row, length, expected in zip(vectors, lengths, own, strict=True):
            assert same(row[:length], expected.embedding)
            assert not row[length:].any()


# ---- the same client over our own transport ----


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_our_client_of_the_same_shape(served: BertFlow, protocol: str) -> None:
    from flowdex import compat

    texts = [*TEXTS, "Who? ||| Me."]
    url = served.flow.grpc_url if protocol == "grpc" else served.flow.http_url
    with served.client() as original, compat.BertClient(url=url, timeout=SECONDS) as client:
        expected = original.encode(texts)
        assert same(client.encode(texts), expected)
        assert client.encode(texts).dtype == np.float32
        assert same(client.encode([["cut", "already"]], is_tokenized=True), original.encode(["cut already"]))
        for batch in ([texts[0]], texts[:2]):
            assert client.encode(batch, blocking=False) is None
        assert same(client.fetch_all(concat=True), expected[[0, 0, 1]])
        assert client.fetch_all() is None
        assert sum(len(each.embedding) for each in client.encode_async([texts] * 20, max_num_batch=12)) == 48
        assert client.server_config["max_seq_len"] == original.server_config["max_seq_len"]
        assert set(client.status) == set(original.status)
        with pytest.warns(UserWarning, match="max_seq_len=25"):
            client.encode(["word " * 40])
        with pytest.warns(UserWarning, match="does not send tokens"):
            client.encode(["one"], show_tokens=True)
        for wrong, kind in [("one", TypeError), ([], ValueError), ([" "], ValueError), ([1], TypeError)]:
            with pytest.raises(kind):
                client.encode(wrong)
    with pytest.raises(TimeoutError), compat.BertClient(url=url, timeout=1) as late:
        late.encode(["one"] * 3000)


def test_our_concurrent_client(served: BertFlow) -> None:
    from flowdex import compat

    with compat.ConcurrentBertClient(max_concurrency=1, port=served.flow.grpc_port, ip="127.0.0.1") as client:
        with ThreadPoolExecutor(1) as pool, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            busy = pool.submit(client.encode, ["a longer text"] * 400)
            time.sleep(0.1)
            with pytest.raises(RuntimeError, match="max_concurrency"):
                client.encode(["text"])
            assert busy.result(30).shape == (400, 384)
        for call in (client.fetch, client.fetch_all, lambda: client.encode_async([])):
            with pytest.raises(NotImplementedError):
                call()


# ---- its HTTP API ----


def test_encode_over_http(served: BertFlow) -> None:
    import httpx

    with served.client() as original, httpx.Client(base_url=served.flow.http_url, trust_env=False) as http:
        reply = http.post("/encode", json={"id": 123, "texts": TEXTS, "is_tokenized": False})
        assert (reply.status_code, reply.json()["id"], reply.json()["status"]) == (200, 123, 200)
        assert same(reply.json()["result"], original.encode(TEXTS))
        assert http.post("/encode", json={"texts": TEXTS}).json()["count"] == 3  # our own API beside it
