"""docarray documents through the client: any class goes out and the same class comes back, and nothing is imported."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Optional

import numpy as np
import pytest
from docarray import BaseDoc, DocList
from docarray.documents import TextDoc
from docarray.documents.legacy import LegacyDocument
from docarray.typing import NdArray
from fake_flow import DIM, FakeFlow, vector_of

from flowdex import Client, InvalidInput, WrongType


class Author(BaseDoc):
    name: str = ""


class Paper(BaseDoc):
    text: str = ""
    year: int = 0
    tags: dict[str, Any] = {}  # noqa: RUF012 - pydantic copies it
    authors: DocList[Author] = DocList[Author]()
    picture: Optional[NdArray] = None  # noqa: UP045 - docarray reads Optional
    embedding: Optional[NdArray[DIM]] = None  # noqa: UP045


class NoVector(BaseDoc):
    text: str = ""


class NoText(BaseDoc):
    title: str = ""
    embedding: Optional[NdArray] = None  # noqa: UP045


@pytest.fixture
def client(flow: FakeFlow) -> Iterator[Client]:
    with Client(flow.grpc_url) as opened:
        yield opened


def papers() -> DocList[Paper]:
    return DocList[Paper](
        Paper(
            id=f"p{i}",
            text=f"title ü {i}",
            year=2000 + i,
            tags={"n": i, "deep": {"x": [1, "a"]}},
            authors=DocList[Author]([Author(id=f"a{i}", name="Ada")]),
            picture=np.arange(6, dtype=np.uint8).reshape(2, 3),
        )
        for i in range(20)
    )


def test_a_doclist_comes_back_as_the_same_doclist(client: Client) -> None:
    sent = papers()
    encoded = client.encode(sent, batch_size=6)
    assert type(encoded) is type(sent)
    assert encoded.doc_type is Paper
    assert encoded.id == sent.id
    for before, after in zip(sent, encoded, strict=True):
        assert type(after) is Paper
        assert np.array_equal(np.asarray(after.embedding), vector_of(before.text))
        assert (after.text, after.year, after.tags) == (before.text, before.year, before.tags)
        assert after.authors.name == ["Ada"]
        assert after.picture.dtype == np.uint8
        assert np.array_equal(after.picture, before.picture)
        assert before.embedding is None


@pytest.mark.parametrize("make", [list, iter, tuple])
def test_loose_documents_come_back_as_a_list(client: Client, make: Any) -> None:
    encoded = client.encode(make([TextDoc(text="a"), TextDoc(text="b")]))
    assert type(encoded) is list
    assert [type(each) for each in encoded] == [TextDoc, TextDoc]
    assert np.array_equal(encoded[1].embedding, vector_of("b"))


def test_legacy_documents_with_chunks(client: Client) -> None:
    document = LegacyDocument(text="whole", chunks=DocList[LegacyDocument]([LegacyDocument(text="part")]))
    (encoded,) = client.encode(DocList[LegacyDocument]([document]))
    assert type(encoded) is LegacyDocument
    assert np.array_equal(encoded.chunks[0].embedding, vector_of("part"))


def test_indexing_documents(client: Client, flow: FakeFlow) -> None:
    result = client.index(papers(), batch_size=7)
    assert result.ids == [f"p{i}" for i in range(20)]
    stored = {key: flow.documents["p3"][key] for key in ("id", "text", "tags")}
    assert stored == {"id": "p3", "text": "title ü 3", "tags": {"n": 3, "deep": {"x": [1, "a"]}}}


def test_encoding_over_http_keeps_the_other_fields(flow: FakeFlow) -> None:
    with Client(flow.http_url) as client:
        encoded = client.encode(papers())
        assert np.array_equal(np.asarray(encoded[4].embedding), vector_of("title ü 4"))
        assert encoded[4].authors.name == ["Ada"]
        with pytest.raises(InvalidInput, match="grpc://"):
            client.encode([LegacyDocument(text="x", chunks=DocList[LegacyDocument]([LegacyDocument(text="y")]))])


def test_bad_documents(client: Client, flow: FakeFlow) -> None:
    flow.calls.clear()
    for content, match in [
        (DocList[NoVector]([NoVector(text="a")]), "NoVector has no field 'embedding'"),
        (DocList[NoText]([NoText(title="a")]), r"document 0 .*\(NoText\) has no text"),
        (DocList[Paper]([Paper(text="a"), Paper(text=" ")]), "the text of document 1 .*is blank"),
        (DocList[Paper](), "empty"),
    ]:
        with pytest.raises(InvalidInput, match=match):
            client.encode(content)
    with pytest.raises(WrongType, match="pass a list"):
        client.encode(TextDoc(text="a"))
    assert not flow.calls


def test_documents_need_no_docarray_in_the_client(flow: FakeFlow) -> None:
    code = f"""
import sys
from flowdex import Client, Document
with Client({flow.grpc_url!r}) as client:
    client.encode(["a"]); client.index([Document("a")]); client.search("a")
print({{"docarray", "jina", "torch", "pydantic"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"
