"""Every kind of endpoint that a Jina executor may have, behind the worker, unmodified."""

from __future__ import annotations

import grpc
import numpy as np
import pytest

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex.errors import Conflict, ExecutorError, InvalidInput, NotFound
from flowdex.proto import flowdex_pb2 as pb

SOURCE = """
from typing import AsyncGenerator, Generator, Optional
import asyncio
import numpy as np
from docarray import BaseDoc, DocList
from docarray.documents import TextDoc
from docarray.typing import NdArray
from jina import Executor, requests
from pydantic import BaseModel

from flowdex.documents import DocumentBatch
from flowdex.errors import Conflict
from flowdex_executors import DocumentColumns


class Price(BaseDoc):
    amount: float


class Vector(BaseDoc):
    text: Optional[str] = None
    embedding: Optional[NdArray] = None


class Options(BaseModel):
    factor: int = 2


class Tested(Executor):
    def __init__(self, greeting="hello", **kwargs):
        super().__init__(**kwargs)
        self.greeting = greeting

    @requests(on="/sync")
    def upper(self, docs: DocList[TextDoc], **kwargs) -> DocList[TextDoc]:
        for doc in docs:
            doc.text = doc.text.upper()

    @requests(on=["/async", "/also-async"])
    async def async_upper(self, docs: DocList[TextDoc], **kwargs) -> DocList[TextDoc]:
        await asyncio.sleep(0)
        return DocList[TextDoc](TextDoc(id=doc.id, text=doc.text.upper()) for doc in docs)

    @requests(on="/no-kwargs")
    def no_kwargs(self, docs: DocList[TextDoc], parameters, docs_matrix) -> DocList[TextDoc]:
        docs[0].text = f"{len(docs_matrix)} {parameters['a']}"
        return docs

    @requests(on="/unannotated")
    def unannotated(self, docs, parameters, **kwargs):
        for doc in docs:
            doc.text = f"{type(doc).__name__} {doc.text}"

    @requests(on="/single")
    def single(self, doc: TextDoc, **kwargs) -> TextDoc:
        doc.text = doc.text[::-1]
        return doc

    @requests(on="/single-async")
    async def single_async(self, doc: TextDoc, **kwargs) -> TextDoc:
        doc.text = doc.text[::-1]

    @requests(on="/stream")
    async def stream(self, doc: TextDoc, parameters, **kwargs) -> AsyncGenerator[TextDoc, None]:
        for index in range(int(parameters.get("n", 3))):
            yield TextDoc(text=f"{doc.text} {index}")

    @requests(on="/stream-sync")
    def stream_sync(self, doc: TextDoc, **kwargs) -> Generator[TextDoc, None, None]:
        yield TextDoc(text="one")
        yield TextDoc(text="two")

    @requests(on="/stream-wrong")
    async def stream_wrong(self, doc: TextDoc, **kwargs) -> AsyncGenerator[TextDoc, None]:
        yield TextDoc(text="fine")
        yield "not a document"

    @requests(on="/vector")
    def vector(self, docs: DocList[Vector], **kwargs) -> DocList[Vector]:
        for doc in docs:
            doc.embedding = np.arange(3, dtype=np.float32)

    @requests(on="/model")
    def model(self, docs: DocList[TextDoc], parameters: Options, **kwargs) -> DocList[TextDoc]:
        docs[0].text = str(parameters.factor)

    @requests(on="/parameters")
    def show_parameters(self, docs: DocList[TextDoc], parameters: dict, **kwargs) -> DocList[TextDoc]:
        return {"seen": parameters, "greeting": self.greeting}

    @requests(on="/price")
    def price(self, docs: DocList[Price], **kwargs) -> DocList[Price]:
        return docs

    @requests(on="/dict")
    def a_dict(self, docs: DocList[TextDoc], **kwargs):
        return {"documents": len(docs), "nested": {"a": [1, None, "x"]}}

    @requests(on="/dict-not-json")
    def not_json(self, docs: DocList[TextDoc], **kwargs):
        return {"array": np.zeros(3)}

    @requests(on="/raise")
    def raise_error(self, docs: DocList[TextDoc], **kwargs) -> DocList[TextDoc]:
        raise ZeroDivisionError("my own message")

    @requests(on="/raise-async")
    async def raise_async(self, docs: DocList[TextDoc], **kwargs) -> DocList[TextDoc]:
        raise LookupError("lost")

    @requests(on="/raise-flowdex")
    def raise_flowdex(self, docs: DocumentColumns, **kwargs) -> DocumentColumns:
        raise Conflict("another model wrote this index")

    @requests(on="/exit")
    def exit(self, docs: DocumentColumns, **kwargs) -> DocumentColumns:
        raise SystemExit(3)

    @requests(on="/wrong-type")
    def wrong_type(self, docs: DocList[TextDoc], **kwargs) -> DocList[TextDoc]:
        return [TextDoc(text="a list is no DocList")]

    @requests(on="/columns")
    async def columns(self, docs: DocumentColumns, parameters: dict, **kwargs) -> DocumentColumns:
        docs.batch.texts = [(text or "").upper() for text in docs.batch.texts]
        return docs

    @requests(on="/columns-sync")
    def columns_sync(self, docs: DocumentColumns, **kwargs) -> DocumentColumns:
        docs.batch.embeddings = np.ones((len(docs), 4), np.float32)

    @requests(on="/columns-other")
    async def columns_other(self, docs: DocumentColumns, **kwargs) -> DocumentColumns:
        docs.batch = docs.batch.select(range(len(docs.batch) - 1, -1, -1))
        return docs

    @requests(on="/columns-new")
    async def columns_new(self, docs: DocumentColumns, **kwargs) -> DocumentColumns:
        return DocumentColumns(DocumentBatch.from_columns(ids=["new"], texts=["new"]))
"""


@pytest.fixture(scope="module")
def worker(start_shared_worker):
    extra = "uses_with:\n  greeting: 'Hello!World $$x 12'\nuses_requests:\n  /renamed: upper\n"
    return start_shared_worker(SOURCE, flow_extra=extra).wait_ready()


def texts_of(reply: pb.DataRequestProto) -> list[str | None]:
    error = wire.error_of(reply.header)
    assert error is None, error
    return wire.documents_of(reply).texts


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("/renamed", ["HÉLLO", "WORLD"]),
        ("/async", ["HÉLLO", "WORLD"]),
        ("/also-async", ["HÉLLO", "WORLD"]),
        ("/unannotated", ["LegacyDocumentJina héllo", "LegacyDocumentJina world"]),
        ("/single", ["olléh", "dlrow"]),
        ("/single-async", ["olléh", "dlrow"]),
        ("/columns", ["HÉLLO", "WORLD"]),
        ("/columns-other", ["world", "héllo"]),
        ("/columns-new", ["new"]),
        ("/price", None),
    ],
)
def test_documents_go_in_and_come_out(worker, endpoint, expected):
    if expected is None:
        reply = worker.post(endpoint, documents=DocumentBatch.from_columns(amount=[1.5]))
        assert wire.documents_of(reply).column("amount") == [1.5]
        return
    reply = worker.post(endpoint, ["héllo", "world"])
    assert texts_of(reply) == expected
    if endpoint not in ("/columns-new",):
        assert sorted(wire.documents_of(reply).ids) == ["d0", "d1"]


def test_many_documents_are_converted_off_the_loop_in_order(worker):
    texts = [f"text {index}" for index in range(100)]
    assert texts_of(worker.post("/async", texts)) == [text.upper() for text in texts]


@pytest.mark.parametrize("endpoint", ["/vector", "/columns-sync"])
def test_vectors(worker, endpoint):
    vectors = wire.documents_of(worker.post(endpoint, ["a", "b"])).embeddings
    expected = np.arange(3) if endpoint == "/vector" else np.ones(4)
    assert vectors is not None and vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, np.stack([expected] * 2))


@pytest.mark.parametrize("endpoint", ["/async", "/columns", "/columns-sync", "/vector"])
def test_no_documents(worker, endpoint):
    reply = worker.post(endpoint, [])
    assert texts_of(reply) == []


def test_a_reply_keeps_the_request_id_the_parameters_and_tells_the_route(worker):
    reply = worker.post("/columns", ["a"], parameters={"limit": 3})
    assert reply.header.request_id == "the-request"
    assert wire.dict_from_struct(reply.parameters) == {"limit": 3.0}
    (route,) = reply.routes
    assert route.executor == "tested"
    assert route.start_time.ToNanoseconds() <= route.end_time.ToNanoseconds()


def test_a_method_that_takes_only_what_jina_asks_for(worker):
    assert texts_of(worker.post("/no-kwargs", ["x"], parameters={"a": "b"})) == ["1 b"]


def test_parameters_of_one_executor_override_those_of_all(worker):
    parameters = {"limit": 5, "mode": "dense", "tested": {"limit": 3}, "other__limit": 7, "tested__mode": "sparse"}
    reply = worker.post("/parameters", ["x"], parameters=parameters)
    results = wire.dict_from_struct(reply.parameters)["__results__"]["tested"]
    assert results["seen"] == {"limit": 3.0, "mode": "sparse", "tested": {"limit": 3.0}}
    assert results["greeting"] == "Hello!World $x 12", "uses_with must arrive as written"


def test_parameters_as_a_pydantic_model(worker):
    assert texts_of(worker.post("/model", ["x"], parameters={"factor": 7})) == ["7"]
    assert texts_of(worker.post("/model", ["x"])) == ["2"]
    error = wire.error_of(worker.post("/model", ["x"], parameters={"factor": "many"}).header)
    assert isinstance(error, InvalidInput)
    assert "factor" in error.message


def test_a_dictionary_goes_into_the_results_and_the_documents_come_back(worker):
    reply = worker.post("/dict", ["x"])
    assert wire.dict_from_struct(reply.parameters)["__results__"] == {
        "tested": {"documents": 1.0, "nested": {"a": [1.0, None, "x"]}}
    }
    assert texts_of(reply) == ["x"]


@pytest.mark.parametrize(
    ("endpoint", "error_type", "says"),
    [
        ("/raise", ExecutorError, "ZeroDivisionError: my own message"),
        ("/raise-async", ExecutorError, "LookupError: lost"),
        ("/raise-flowdex", Conflict, "another model wrote this index"),
        ("/exit", ExecutorError, "SystemExit"),
        ("/wrong-type", ExecutorError, "value of type list"),
        ("/dict-not-json", ExecutorError, "JSON"),
        ("/colums", NotFound, "did you mean /columns"),
        ("/price", InvalidInput, "amount"),
        ("/stream", InvalidInput, "streams"),
    ],
)
def test_errors_are_replies(worker, endpoint, error_type, says):
    call = worker.channel.unary_unary(wire.PROCESS_SINGLE_DATA)
    documents = DocumentBatch.from_columns(ids=["a"], texts=["x"])
    data, rpc = call.with_call(wire.build_request(endpoint, documents, request_id="the-request"), timeout=30)
    reply = wire.read_request(data)
    error = wire.error_of(reply.header)
    assert type(error) is error_type
    assert says in error.message
    assert error.executor == "tested"
    assert wire.IS_ERROR_METADATA in [tuple(item) for item in rpc.trailing_metadata()]
    assert reply.header.request_id == "the-request"
    assert [route.executor for route in reply.routes] == ["tested"]
    assert not reply.header.status.exception.stacks
    assert "Traceback" not in data.decode("latin-1")
    assert texts_of(worker.post("/columns", ["goes on"])) == ["GOES ON"]


def test_an_unknown_error_is_logged_with_its_request(worker):
    worker.post("/raise", ["x"])
    assert "the-request" in worker.output
    assert "ZeroDivisionError" in worker.output


def test_documents_of_the_wrong_type_name_the_document_and_the_field(worker):
    documents = DocumentBatch.from_columns(amount=[1.0, "much", 3.0])
    error = wire.error_of(worker.post("/price", documents=documents).header)
    assert isinstance(error, InvalidInput)
    assert "document 1" in error.message
    assert "'amount'" in error.message


def test_text_that_is_not_utf8_is_the_callers_fault(worker):
    data = wire.build_request("/columns", DocumentBatch.from_columns(texts=["abcdef"]), request_id="the-request")
    reply = wire.read_request(worker.channel.unary_unary(wire.PROCESS_SINGLE_DATA)(data.replace(b"cd", b"\xff\xfe")))
    error = wire.error_of(reply.header)
    assert isinstance(error, InvalidInput)
    assert "UTF-8" in error.message
    assert reply.header.request_id == "the-request"


def test_bytes_that_are_no_request(worker):
    with pytest.raises(grpc.RpcError) as raised:
        worker.channel.unary_unary(wire.PROCESS_SINGLE_DATA)(b"\xff\xff\xff", timeout=30)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def stream(worker, endpoint: str, text: str, parameters=None) -> list[pb.SingleDocumentRequestProto]:
    request = pb.SingleDocumentRequestProto()
    request.header.exec_endpoint = endpoint
    request.header.request_id = "the-request"
    request.parameters.CopyFrom(wire.struct_from_dict(parameters))
    (document,) = DocumentBatch.from_columns(texts=[text])
    request.document.CopyFrom(document)
    call = worker.channel.unary_stream(wire.STREAM_DOC)
    return [pb.SingleDocumentRequestProto.FromString(data) for data in call(request.SerializeToString(), timeout=30)]


def test_generators_stream(worker):
    replies = stream(worker, "/stream", "number", {"n": 4})
    assert [reply.document.data["text"].text for reply in replies] == [f"number {index}" for index in range(4)]
    assert {reply.header.request_id for reply in replies} == {"the-request"}
    assert [reply.document.data["text"].text for reply in stream(worker, "/stream-sync", "x")] == ["one", "two"]


def test_a_stream_ends_with_its_error(worker):
    good, bad = stream(worker, "/stream-wrong", "x")
    assert wire.error_of(good.header) is None
    error = wire.error_of(bad.header)
    assert isinstance(error, ExecutorError)
    assert "must return TextDoc, but returned a value of type str" in error.message
    (reply,) = stream(worker, "/sync-that-is-not-there", "x")
    assert isinstance(wire.error_of(reply.header), NotFound)
    (reply,) = stream(worker, "/columns", "x")
    assert isinstance(wire.error_of(reply.header), InvalidInput)


def test_the_call_stream_answers_each_request_in_order(worker):
    requests = [
        wire.build_request(endpoint, DocumentBatch.from_columns(texts=[f"t{index}"]))
        for index, endpoint in enumerate(["/columns", "/raise", "/columns"])
    ]
    replies = [wire.read_request(data) for data in worker.channel.stream_stream(wire.CALL)(iter(requests), timeout=30)]
    assert [wire.error_of(reply.header) is None for reply in replies] == [True, False, True]
    assert texts_of(replies[2]) == ["T2"]


def test_process_data_joins_the_requests_of_several_branches(worker):
    requests = pb.DataRequestListProto()
    for text in ("a", "b"):
        data = wire.build_request("/columns", DocumentBatch.from_columns(texts=[text]))
        requests.requests.add().ParseFromString(data)
    data = worker.channel.unary_unary(wire.PROCESS_DATA)(requests.SerializeToString(), timeout=30)
    assert texts_of(wire.read_request(data)) == ["A", "B"]


def test_discovery_names_endpoints_and_schemas(worker):
    data = worker.channel.unary_unary(wire.ENDPOINT_DISCOVERY)(b"", timeout=30)
    message = pb.EndpointsProto.FromString(data)
    assert {"/columns", "/renamed", "/stream"} <= set(message.endpoints)
    assert "/sync" not in message.endpoints, "uses_requests renames an endpoint"
    schemas = wire.dict_from_struct(message.schemas)
    assert schemas["/columns"]["input"]["name"] == "Document"
    assert schemas["/columns"]["input"]["model"] == schemas["/columns"]["output"]["model"]
    assert schemas["/stream"]["is_generator"] is True


def test_info_names_versions_and_no_environment(worker):
    message = pb.JinaInfoProto.FromString(worker.channel.unary_unary(wire.INFO_STATUS)(b"", timeout=30))
    assert message.jina["jina"].startswith("3.")
    assert not message.envs


def test_health_speaks_for_every_service(worker):
    assert worker.health("") == worker.health("jina.JinaSingleDataRequestRPC") == 1
    with pytest.raises(grpc.RpcError) as raised:
        worker.health("no.such.Service")
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
