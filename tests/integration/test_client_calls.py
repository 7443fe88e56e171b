"""The client against a small flow over real sockets: the same answers over gRPC and HTTP, in order, under trouble."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest
from fake_flow import DIM, FakeFlow, running, slow_and_random, vector_of

from flowdex import (
    AsyncClient,
    Cancelled,
    Client,
    DeadlineExceeded,
    Document,
    ExecutorError,
    InvalidInput,
    NotFound,
    Overloaded,
    TooLarge,
    Unavailable,
    WrongType,
)


@pytest.fixture(params=["grpc", "http"])
def url(request: pytest.FixtureRequest, flow: FakeFlow) -> str:
    return flow.grpc_url if request.param == "grpc" else flow.http_url


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, timeout=20) as opened:
        yield opened


def expected(texts: list[str]) -> np.ndarray:
    return np.stack([vector_of(text) for text in texts])


# ---- encode ----


def test_vectors_come_back_float32_and_in_order(client: Client, flow: FakeFlow) -> None:
    flow.trouble = slow_and_random()
    texts = [f"text {i}" for i in range(200)]
    vectors = client.encode(texts, batch_size=7, prefetch=5)
    assert vectors.dtype == np.float32
    assert vectors.shape == (200, DIM)
    assert np.array_equal(vectors, expected(texts))
    assert 1 < flow.most_in_flight <= 5
    assert max(size for _, size in flow.calls) == 7


def test_a_generator_is_read_no_further_than_needed(client: Client, flow: FakeFlow) -> None:
    read = 0
    gaps = []

    def texts() -> Iterator[str]:
        nonlocal read
        for i in range(100):
            read += 1
            gaps.append(read - sum(size for _, size in flow.calls))
            yield f"text {i}"

    assert np.array_equal(client.encode(texts(), batch_size=5, prefetch=2), expected([f"text {i}" for i in range(100)]))
    assert max(gaps) <= 5 * 3 + 1  # what is in flight, plus the batch being filled


def test_batches_are_cut_by_bytes_too(client: Client, flow: FakeFlow) -> None:
    client.encode(["x" * 100_000, "y" * 100_000, "z", "ä" * 70_000], prefetch=1)
    assert [size for _, size in flow.calls] == [1, 2, 1]


def test_parameters_and_headers_reach_the_service(url: str, flow: FakeFlow) -> None:
    with Client(url, api_key="secret", headers={"X-Team": "search"}) as client:
        client.encode(["a"], parameters={"pooling": "cls"})
    assert flow.metadata[0]["authorization"] == "Bearer secret"
    assert flow.metadata[0]["x-team"] == "search"
    sent = flow.parameters[0]
    assert sent.get("parameters", sent)["pooling"] == "cls"


def test_documents_come_back_with_embeddings(client: Client) -> None:
    documents = [Document("one", id="a", tags={"n": 1}), Document("two")]
    encoded = client.encode(documents)
    assert [each.text for each in encoded] == ["one", "two"]
    assert encoded[0].tags == {"n": 1}
    assert np.array_equal(encoded[1].embedding, vector_of("two"))
    assert documents[0].embedding is None


def test_async_input_and_async_client(url: str) -> None:
    async def texts() -> AsyncIterator[str]:
        for i in range(20):
            await asyncio.sleep(0)
            yield f"text {i}"

    async def main() -> np.ndarray:
        async with AsyncClient(url) as client:
            return await client.encode(texts(), batch_size=3)

    assert np.array_equal(asyncio.run(main()), expected([f"text {i}" for i in range(20)]))


def test_one_async_client_outlives_its_event_loop(url: str) -> None:
    client = AsyncClient(url)
    assert asyncio.run(client.encode(["a"])).shape == (1, DIM)
    assert asyncio.run(client.encode(["b"])).shape == (1, DIM)
    asyncio.run(client.close())


async def test_the_sync_client_inside_a_running_loop(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with AsyncClient(url) as other:
        with Client(url) as client:
            for _ in range(20):  # side by side on two loops, and nothing logged (grpc.aio would)
                vectors, same = client.encode(["a", "b"]), await other.encode(["a", "b"])
                assert np.array_equal(vectors, same)
    assert not caplog.records


def test_one_client_in_many_threads(client: Client) -> None:
    wrong = []

    def work(i: int) -> None:
        texts = [f"{i} {j}" for j in range(30)]
        if not np.array_equal(client.encode(texts, batch_size=4), expected(texts)):
            wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong


def test_iterables_run_in_the_callers_thread(client: Client) -> None:
    database = sqlite3.connect(":memory:")
    database.execute("create table t (text)")
    database.executemany("insert into t values (?)", [(f"row {i}",) for i in range(50)])
    rows = (text for (text,) in database.execute("select text from t order by rowid"))
    assert np.array_equal(client.encode(rows, batch_size=8), expected([f"row {i}" for i in range(50)]))


def test_an_iterable_may_use_the_client(client: Client) -> None:
    nested = (str(client.encode([f"{i}"]).shape[1]) for i in range(5))
    assert client.encode(nested, batch_size=2).shape == (5, DIM)


def test_the_callers_own_exception_comes_out(client: Client) -> None:
    def texts() -> Iterator[str]:
        yield "fine"
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        client.encode(texts(), batch_size=1)
    assert client.encode(["still works"]).shape == (1, DIM)


def test_progress_is_told(client: Client) -> None:
    told: list[int] = []
    client.encode([f"{i}" for i in range(10)], batch_size=4, show_progress=told.append)
    assert told == [4, 4, 2]


# ---- bad input: found before anything is sent ----


@pytest.mark.parametrize(
    ("content", "error", "match"),
    [
        ("text", WrongType, "pass a list"),
        (b"text", WrongType, "bytes"),
        ({"a": 1}, WrongType, "dict"),
        (Document("x"), WrongType, "Document"),
        (None, WrongType, "NoneType"),
        (7, WrongType, "int"),
        ([], InvalidInput, "empty"),
        (iter([]), InvalidInput, "empty"),
        (["ok"] * 300 + ["  \n"], InvalidInput, "text 300 is blank"),
        (["ok", 3], WrongType, "text 1 must be a string, .* or a document, got int"),
        (["ok", "\ud83d"], InvalidInput, r"text 1 has a lone surrogate \(U\+D83D\)"),
        (["ok", Document("x")], WrongType, "cannot be mixed"),
        (["x" * (64 * 2**20)], TooLarge, "64 MiB"),
    ],
)
def test_bad_content(client: Client, flow: FakeFlow, content: object, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        client.encode(content)
    assert not flow.calls


def test_wrong_types_are_type_errors_and_value_errors(client: Client) -> None:
    with pytest.raises(TypeError):
        client.encode("text")
    with pytest.raises(ValueError):
        client.encode([])
    for option in ({"batch_size": 0}, {"prefetch": 0}, {"batch_size": 2.5}):
        with pytest.raises(InvalidInput, match=next(iter(option))):
            client.encode(["a"], **option)


# ---- index, search, delete, status ----


def test_index_search_delete(client: Client, flow: FakeFlow) -> None:
    result = client.index(
        [
            {"id": "a", "text": "a red apple", "tags": {"colour": "red", "n": 1}},
            Document("a green apple, and more of it", id="b", tags={"colour": "green"}),
            "an apple without a name",
        ]
    )
    assert (result.documents, result.passages) == (3, 3)
    assert result.ids[:2] == ["a", "b"]
    assert len(result.ids[2]) == 32
    assert not result.failures

    found = client.search("red apple", limit=2)
    assert [hit.id for hit in found] == [hit.id for hit in found.hits]
    assert len(found) == 2
    best = found[0]
    assert (best.id, best.score, best.text, best.location) == ("a", 1.0, "a red apple", (0, 11))
    assert best.tags == {"colour": "red", "n": 1}
    assert [best.text[start:end] for start, end in best.highlights] == ["red", "apple"]
    assert best.scores == {"score": 1.0, "dense": 0.5}
    assert best.passages[0].id == "a#0"
    assert best.passages[0].location == (0, 11)
    assert found.took_ms > 0

    assert [hit.id for hit in client.search("apple", filter={"colour": "green"})] == ["b"]
    assert client.search("apple", offset=1, limit=1)[0].id != client.search("apple", limit=1)[0].id
    results = client.search([f"apple {i}" for i in range(100)])
    assert [each.query for each in results] == [f"apple {i}" for i in range(100)]

    assert client.delete(filter={"colour": "green"}) == 1
    assert client.delete("a") == 1
    assert client.delete(["a", *result.ids]) == 1
    assert not flow.documents


def test_indexing_a_stream_and_without_ids(client: Client, flow: FakeFlow) -> None:
    flow.trouble = slow_and_random(1, 0.01)
    result = client.index(({"id": f"{i}", "text": f"text {i}"} for i in range(500)), batch_size=10)
    assert result.ids == [f"{i}" for i in range(500)]
    assert len(flow.documents) == 500
    assert client.index(iter(["x"]), return_ids=False).ids == []


def test_mistakes_in_a_list_are_found_before_anything_is_sent(client: Client, flow: FakeFlow) -> None:
    documents = [{"id": f"{i}", "text": "fine"} for i in range(200)]
    for wrong, match in [
        ({"id": "w", "text": " "}, r"document 200 \(id 'w'\) is blank"),
        ({"id": 5, "text": "x"}, "document 200.*id must be a string"),
        ({"id": "w"}, "document 200 has no 'text'"),
        ({"id": "w", "text": "x", "year": 1}, r"keys \['year'\].*belong in tags"),
        ({"id": "w", "text": "x", "tags": {"a": object()}}, r"document 200 \(id 'w'\).*object"),
        (12, "document 200 must be"),
    ]:
        with pytest.raises(InvalidInput, match=match):
            client.index([*documents, wrong])
    assert not flow.calls


def test_a_document_that_the_flow_refuses_stops_the_call(client: Client) -> None:
    documents = [{"id": f"{i}", "text": "poison" if i == 70 else "fine"} for i in range(100)]
    with pytest.raises(InvalidInput, match=r"'70' is poisoned \(in the batch of 36 that starts at position 64"):
        client.index(documents)


def test_collecting_failures_indexes_the_rest(client: Client, flow: FakeFlow) -> None:
    documents = [{"id": f"{i}", "text": {7: "poison", 33: " ", 70: "poison"}.get(i, "fine")} for i in range(100)]
    result = client.index(documents, on_error="collect", batch_size=32)
    assert [(each.id, each.position) for each in result.failures] == [("7", 7), ("33", 33), ("70", 70)]
    assert "poisoned" in result.failures[0].error.message
    assert result.documents == len(result.ids) == len(flow.documents) == 97


@pytest.mark.parametrize("query", ["", " ", [], ["ok", ""], None, 5, ["ok", 5]])
def test_bad_queries(client: Client, flow: FakeFlow, query: object) -> None:
    with pytest.raises(InvalidInput):
        client.search(query)
    assert not flow.calls


def test_bad_options(client: Client) -> None:
    for limit in (0, -1, 2.0, True, "3"):
        with pytest.raises(InvalidInput, match="limit"):
            client.search("x", limit=limit)
    with pytest.raises(InvalidInput, match="offset"):
        client.search("x", offset=-1)
    for arguments in ({}, {"ids": ["a"], "filter": {"a": 1}}, {"filter": {}}, {"ids": []}):
        with pytest.raises(InvalidInput):
            client.delete(**arguments)
    with pytest.raises(InvalidInput, match="on_error"):
        client.index(["x"], on_error="ignore")


def test_status_and_readiness(client: Client, flow: FakeFlow) -> None:
    status = client.status()
    assert (status.name, status.version) == ("fake", "0.1.0")
    assert [each.name for each in status.executors] == ["encoder", "indexer"]
    assert status.executors[0].status == {"dimensions": DIM}
    assert isinstance(status.executors[0].status["dimensions"], int)
    assert status.executors[0].replicas[0]["ready"]
    assert client.is_ready()
    flow.ready = False
    assert not client.is_ready()
    with pytest.raises(DeadlineExceeded, match=r"not ready within 0\.3 s"):
        client.wait_ready(timeout=0.3)
    threading.Timer(0.3, lambda: setattr(flow, "ready", True)).start()
    client.wait_ready(timeout=5)


# ---- trouble ----


def failing(times: int, error: Exception):
    def trouble(endpoint: str, number: int) -> None:
        if number < times:
            raise error

    return trouble


@pytest.mark.parametrize("error", [Unavailable("no replica"), Overloaded("busy", retry_after=0.3)])
def test_retryable_errors_are_retried(client: Client, flow: FakeFlow, error: Exception) -> None:
    flow.trouble = failing(2, error)
    started = time.monotonic()
    assert client.encode(["a"]).shape == (1, DIM)
    assert len(flow.calls) == 3
    if isinstance(error, Overloaded):
        assert time.monotonic() - started >= 0.6


def test_retries_end(url: str, flow: FakeFlow) -> None:
    flow.trouble = failing(100, Unavailable("no replica"))
    with Client(url, retries=2) as client, pytest.raises(Unavailable, match="no replica"):
        client.encode(["a"])
    assert len(flow.calls) == 3


def test_a_gateway_that_drops_a_call_is_unavailable(flow: FakeFlow) -> None:
    flow.trouble = failing(100, Cancelled("CANCELLED"))  # in gRPC's words
    with Client(flow.grpc_url, retries=1) as client, pytest.raises(Unavailable, match=r"ended the call .*was stopped"):
        client.encode(["a"])
    assert len(flow.calls) == 2


def test_other_errors_are_not_retried(client: Client, flow: FakeFlow) -> None:
    for error in (InvalidInput("no"), NotFound("nothing"), ExecutorError("broken")):
        flow.calls.clear()
        flow.trouble = failing(100, error)
        with pytest.raises(type(error), match=error.message) as caught:
            client.encode(["a"])
        assert type(caught.value) is type(error) or isinstance(error, ExecutorError)
        assert len(flow.calls) == 1


def test_the_first_error_ends_the_call_and_cancels_the_rest(client: Client, flow: FakeFlow) -> None:
    def trouble(endpoint: str, number: int) -> float:
        if number == 1:
            raise InvalidInput("no")
        return 0.0 if number == 0 else 30.0

    flow.trouble = trouble
    started = time.monotonic()
    with pytest.raises(InvalidInput):
        client.encode([f"{i}" for i in range(40)], batch_size=1, prefetch=4)
    assert time.monotonic() - started < 20, "it did not wait for the slow ones"
    if client.url.startswith("grpc"):  # FastAPI does not tell its handlers
        while flow.in_flight and time.monotonic() - started < 20:
            time.sleep(0.02)
        assert not flow.in_flight, "the service was told"
    assert len(flow.calls) <= 5


def test_the_deadline_covers_the_whole_call(client: Client, flow: FakeFlow) -> None:
    flow.trouble = lambda endpoint, number: 0.2
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"no answer within 0\.5 s"):
        client.encode([f"{i}" for i in range(50)], batch_size=1, prefetch=1, timeout=0.5)
    assert time.monotonic() - started < 8, "50 texts take 10 s"
    assert len(flow.calls) <= 4


def test_the_clients_timeout_is_for_each_request(url: str, flow: FakeFlow) -> None:
    flow.trouble = lambda endpoint, number: 0.2
    with Client(url, timeout=1.0) as client:
        assert client.encode([f"{i}" for i in range(10)], batch_size=1, prefetch=1).shape == (10, DIM)
        flow.trouble = lambda endpoint, number: 2.0
        with pytest.raises(DeadlineExceeded, match="1 s"):
            client.encode(["a"])


def test_no_pause_beyond_the_deadline(client: Client, flow: FakeFlow) -> None:
    flow.trouble = failing(100, Overloaded("busy", retry_after=60))
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="the last attempt failed: busy"):
        client.encode(["a"], timeout=20)
    assert time.monotonic() - started < 15, "the end is known at once"


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_nobody_there(scheme: str) -> None:
    from flow_support import free_ports

    (port,) = free_ports(1)
    started = time.monotonic()
    with Client(f"{scheme}://127.0.0.1:{port}") as client:
        with pytest.raises(Unavailable, match=f"nothing answers at {scheme}://127.0.0.1:{port} .*flowdex up"):
            client.encode(["a"])
        assert not client.is_ready()
    assert time.monotonic() - started < 15


def test_a_gateway_that_restarts_is_found_again(flow: FakeFlow) -> None:
    with running(FakeFlow(), http=False) as first:
        client = Client(first.grpc_url)
        client.encode(["a"])
    again = FakeFlow(grpc_port=first.grpc_port)
    later = threading.Event()

    def restart() -> None:
        time.sleep(0.7)
        with running(again, http=False):
            later.wait(20)

    thread = threading.Thread(target=restart)
    thread.start()
    try:
        assert client.encode(["b"]).shape == (1, DIM)
    finally:
        later.set()
        thread.join()
        client.close()


def test_a_client_alone_in_its_process_finds_it_too() -> None:
    """The event loop of the flow above serves gRPC's threads too, and hides what a channel by itself does not do."""
    script = """if True:
        import sys
        from flowdex import Client, Unavailable
        with Client(sys.argv[1], retries=0, timeout=20) as client:
            for _ in sys.stdin:
                try:
                    print(client.encode(["a"]).shape[0], flush=True)
                except Unavailable:
                    print("nobody", flush=True)
    """
    with running(FakeFlow(), http=False) as first:
        command = [sys.executable, "-c", script, first.grpc_url]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin is not None and process.stdout is not None

        def ask() -> str:
            process.stdin.write("\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        assert ask() == "1"
    try:
        assert [ask(), ask()] == ["nobody", "nobody"]
        with running(FakeFlow(grpc_port=first.grpc_port), http=False):
            assert ask() == "1"
    finally:
        process.stdin.close()
        process.wait(20)
        process.stdout.close()


def test_another_kind_of_server_is_recognised() -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Page(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with (
            Client(f"http://127.0.0.1:{server.server_port}") as client,
            pytest.raises(Exception, match="is the address"),
        ):
            client.encode(["a"])
    finally:
        server.shutdown()


def test_a_closed_client_says_so(url: str) -> None:
    client = Client(url)
    client.encode(["a"])
    client.close()
    client.close()
    with pytest.raises(Cancelled, match="closed"):
        client.encode(["a"])
    assert not [thread for thread in threading.enumerate() if thread.name == "flowdex-client"]


def test_closing_ends_calls_in_other_threads(flow: FakeFlow) -> None:
    flow.trouble = lambda endpoint, number: 30.0
    client = Client(flow.grpc_url)
    caught: list[BaseException] = []

    def work() -> None:
        try:
            client.encode(["a"])
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while not flow.calls:
        time.sleep(0.01)
    client.close()
    thread.join(10)
    assert not thread.is_alive()
    assert isinstance(caught[0], Cancelled)
