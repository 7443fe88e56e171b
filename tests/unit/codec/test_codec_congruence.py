"""Two codecs, one format: what flowdex writes docarray reads, what docarray writes flowdex reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from docarray import BaseDoc, DocList
from docarray.documents import TextDoc
from docarray.documents.legacy import LegacyDocument
from docarray.proto import DocListProto
from docarray.typing import AnyUrl, NdArray
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex.proto import flowdex_pb2 as pb

Same = Callable[[Any, Any], bool]
thorough = settings(deadline=None, max_examples=60)

DTYPES = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", "c8", "c16"]
DTYPES += [f">{name}" for name in DTYPES if name not in ("i1", "u1", "?")]
# docarray forgets the dtype of an array without values (it reads as float64), so that those are compared apart.
ARRAYS = npst.arrays(st.sampled_from(DTYPES).map(np.dtype), npst.array_shapes(min_dims=0, max_dims=3, max_side=4))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**31), 2**31 - 1), st.floats(), TEXT, st.binary(max_size=9)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.lists(inner, max_size=3).map(tuple), st.dictionaries(TEXT, inner, max_size=3)
    ),
    max_leaves=8,
)
TAGS = st.dictionaries(TEXT, PLAIN, max_size=3)
LEAF = st.fixed_dictionaries(
    {"id": st.uuids().map(lambda value: value.hex)},
    optional={"text": TEXT, "url": TEXT, "blob": st.binary(max_size=9), "tensor": ARRAYS, "tags": TAGS, "scores": TAGS},
)


def with_children(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    children = st.lists(inner, max_size=2)
    return st.builds(
        lambda doc, nested: {**doc, **nested},
        LEAF,
        st.fixed_dictionaries({}, optional={"chunks": children, "matches": children}),
    )


TREES = with_children(with_children(with_children(LEAF)))  # documents with nested ones, three deep
FORESTS = st.lists(TREES, max_size=3)
NESTED = ("chunks", "matches")


def legacy(tree: dict[str, Any]) -> LegacyDocument:
    fields = {
        name: DocList[LegacyDocument]([legacy(child) for child in value]) if name in NESTED else value
        for name, value in tree.items()
    }
    return LegacyDocument(**fields)


def written_by_docarray(docs: DocList[Any]) -> DocumentBatch:
    return DocumentBatch.from_bytes(docs.to_protobuf().SerializeToString())


def read_by_docarray(batch: DocumentBatch, doc_type: type[BaseDoc] = LegacyDocument) -> list[Any]:
    return list(DocList[doc_type].from_protobuf(DocListProto.FromString(batch.to_bytes())))  # type: ignore[valid-type]


def written_by_us(trees: list[dict[str, Any]]) -> DocumentBatch:
    """The same documents through our columns; each document has its own set of fields."""
    batches = []
    for tree in trees:
        plain = {name: [value] for name, value in tree.items() if name not in (*NESTED, "id", "text", "tags")}
        batch = DocumentBatch.from_columns(
            ids=[tree["id"]],
            texts=[tree["text"]] if "text" in tree else None,
            tags=[tree["tags"]] if "tags" in tree else None,
            **plain,
        )
        for name in NESTED:
            if name in tree:
                batch.set_nested(name, [written_by_us(tree[name])])
        batches.append(batch)
    return DocumentBatch.concatenate(batches)


def tree_of_legacy(doc: LegacyDocument) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in doc:
        if value is None or (name == "tags" and not value):
            continue
        if name in NESTED:
            tree[name] = [tree_of_legacy(child) for child in value]
        elif isinstance(value, NdArray):
            tree[name] = value.unwrap()
        else:
            tree[name] = str(value) if isinstance(value, str) else value
    return tree


def trees_of_batch(batch: DocumentBatch) -> list[dict[str, Any]]:
    trees: list[dict[str, Any]] = [{"id": name} for name in batch.ids]
    for name in batch.fields():
        if name in NESTED:
            for tree, doc, children in zip(trees, batch, batch.nested(name), strict=True):
                if name in doc.data and doc.data[name].HasField("doc_array"):
                    tree[name] = trees_of_batch(children)
            continue
        for tree, value in zip(trees, batch.column(name), strict=True):
            if value is not None and not (name == "tags" and not value):
                tree[name] = value
    return trees


def without_empty_tags(trees: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            name: without_empty_tags(value) if name in NESTED else value
            for name, value in tree.items()
            if not (name == "tags" and not value)
        }
        for tree in trees
    ]


@thorough
@given(FORESTS)
def test_docarray_reads_what_we_write(same: Same, trees: list[dict[str, Any]]) -> None:
    assert same([tree_of_legacy(doc) for doc in read_by_docarray(written_by_us(trees))], without_empty_tags(trees))


@thorough
@given(FORESTS)
def test_we_read_what_docarray_writes(same: Same, trees: list[dict[str, Any]]) -> None:
    batch = written_by_docarray(DocList[LegacyDocument]([legacy(tree) for tree in trees]))
    assert same(trees_of_batch(batch), without_empty_tags(trees))


@thorough
@given(FORESTS)
def test_what_nobody_touches_leaves_as_it_came(trees: list[dict[str, Any]]) -> None:
    message = DocList[LegacyDocument]([legacy(tree) for tree in trees]).to_protobuf()
    batch = DocumentBatch.from_bytes(message.SerializeToString())
    batch.ids, batch.texts, batch.tags, batch.embeddings, batch.flatten("chunks")
    batch.texts = ["new"] * len(batch)
    for doc in message.docs:
        doc.data["text"].text = "new"
    assert canonical(batch.to_bytes()) == message.SerializeToString(deterministic=True)


def canonical(data: bytes) -> bytes:
    return DocListProto.FromString(data).SerializeToString(deterministic=True)


def test_unknown_fields_pass_through() -> None:
    later = b"\xca\x0c\x05later"  # field 201, of a version of the protocol that is not written yet
    batch = DocumentBatch.from_columns(texts=["a"], embeddings=np.zeros((1, 2), "f4"))
    doc = next(iter(batch))
    for message in (doc, doc.data["text"], doc.data["embedding"].ndarray, doc.data["embedding"].ndarray.dense):
        message.MergeFromString(later)
    read = DocumentBatch.from_bytes(batch.to_bytes())
    assert read.texts == ["a"]
    assert read.to_bytes().count(later) == 4


# ---- arrays ----


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (2, 1, 2)])
def test_every_dtype_and_shape_both_ways(dtype: str, shape: tuple[int, ...], same: Same) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    (doc,) = read_by_docarray(DocumentBatch.from_columns(tensor=[array]))
    assert same(doc.tensor.unwrap(), array)
    (read,) = written_by_docarray(DocList[LegacyDocument]([LegacyDocument(tensor=array)])).column("tensor")
    assert same(read, array)


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 3)])
def test_arrays_without_values_keep_their_shape(shape: tuple[int, ...], same: Same) -> None:
    array = np.zeros(shape, "f4")
    (doc,) = read_by_docarray(DocumentBatch.from_columns(tensor=[array]))
    assert doc.tensor.shape == shape
    (read,) = written_by_docarray(DocList[LegacyDocument]([LegacyDocument(tensor=array)])).column("tensor")
    assert same(read, array)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "i4", "u1", "?"])
def test_embeddings_both_ways(dtype: str, same: Same) -> None:
    vectors = np.arange(12).reshape(3, 4).astype(dtype)
    docs = read_by_docarray(DocumentBatch.from_columns(embeddings=vectors))
    assert same([doc.embedding.unwrap() for doc in docs], list(vectors))
    batch = written_by_docarray(DocList[LegacyDocument]([LegacyDocument(embedding=row) for row in vectors]))
    assert same(batch.embeddings, vectors.astype("f4"))


def test_a_view_in_fortran_order_is_written_row_by_row(same: Same) -> None:
    vectors = np.asfortranarray(np.arange(12, dtype="f4").reshape(3, 4))[::-1, ::2]
    docs = read_by_docarray(DocumentBatch.from_columns(embeddings=vectors))
    assert same([doc.embedding.unwrap() for doc in docs], [row.copy() for row in vectors])


def test_tensors_of_torch_both_ways(same: Same) -> None:
    torch = pytest.importorskip("torch")
    from docarray.typing import TorchEmbedding, TorchTensor

    class TorchDoc(BaseDoc):
        tensor: TorchTensor
        embedding: TorchEmbedding

    tensor = torch.arange(6, dtype=torch.int16).reshape(2, 3)
    docs = DocList[TorchDoc]([TorchDoc(tensor=tensor, embedding=torch.ones(4)) for _ in range(2)])
    batch = written_by_docarray(docs)
    assert same(batch.column("tensor"), [tensor.numpy()] * 2)
    assert same(batch.embeddings, np.ones((2, 4), "f4"))
    ours = DocumentBatch.from_columns(embeddings=np.ones((1, 4), "f4"), tensor=[tensor])
    (doc,) = read_by_docarray(ours, TorchDoc)
    assert torch.equal(doc.tensor, tensor)
    assert torch.equal(doc.embedding, torch.ones(4))


# ---- document classes ----


class Passage(BaseDoc):
    text: str
    location: list[int] = []  # noqa: RUF012 - pydantic copies it


class Article(BaseDoc):
    title: str
    published: bool
    rating: float
    pages: int
    url: AnyUrl | None = None
    keywords: list[str] = []  # noqa: RUF012
    lead: Passage
    passages: DocList[Passage]


def test_a_class_of_the_users_own() -> None:
    article = Article(
        title="Zürich 東京",
        published=True,
        rating=4.5,
        pages=3,
        url="http://example.com/a",
        keywords=["x", "y"],
        lead=Passage(text="lead"),
        passages=DocList[Passage]([Passage(text="one", location=[0, 3]), Passage(text="two")]),
    )
    batch = written_by_docarray(DocList[Article]([article]))
    assert batch.column("title") == ["Zürich 東京"]
    assert batch.column("published") == [True]
    assert batch.column("rating") == [4.5]
    assert batch.column("pages") == [3]
    assert batch.column("url") == ["http://example.com/a"]
    assert batch.column("keywords") == [["x", "y"]]
    assert DocumentBatch(batch.column("lead")).texts == ["lead"]
    (passages,) = batch.nested("passages")
    assert passages.texts == ["one", "two"]
    assert passages.column("location") == [[0, 3], []]
    passages.texts = ["ONE", "TWO"]  # a view: it writes into the article
    (read,) = read_by_docarray(batch, Article)
    assert [passage.text for passage in read.passages] == ["ONE", "TWO"]
    assert read.id == article.id
    assert (read.url, read.lead.text, read.published) == (article.url, "lead", True)


def test_text_documents_both_ways() -> None:
    vectors = np.eye(2, 3, dtype="f4")
    docs = DocList[TextDoc](
        [TextDoc(text="a", embedding=vectors[0]), TextDoc(text=None, embedding=vectors[1], url="http://x.test/")]
    )
    batch = written_by_docarray(docs)
    assert batch.ids == [doc.id for doc in docs]
    assert batch.texts == ["a", None]
    assert batch.column("url") == [None, "http://x.test/"]
    assert np.array_equal(batch.embeddings, vectors)
    batch.embeddings = vectors * 2
    read = read_by_docarray(batch, TextDoc)
    assert [doc.text for doc in read] == ["a", None]
    assert np.array_equal([doc.embedding for doc in read], vectors * 2)


def test_jinas_default_class_both_ways() -> None:
    from jina._docarray_legacy import LegacyDocumentJina

    doc = LegacyDocumentJina(
        text="a",
        embedding=np.ones(2),
        tags={"n": 1},
        chunks=DocList[LegacyDocumentJina]([LegacyDocumentJina(text="b")]),
    )
    batch = written_by_docarray(DocList[LegacyDocumentJina]([doc]))
    assert (batch.ids, batch.texts, batch.tags) == ([doc.id], ["a"], [{"n": 1}])
    assert batch.nested("chunks")[0].texts == ["b"]
    (read,) = read_by_docarray(batch, LegacyDocumentJina)
    assert read.dict().keys() == doc.dict().keys()
    assert (read.id, read.text, read.tags, read.chunks[0].text) == (doc.id, "a", {"n": 1}, "b")


def test_a_field_that_is_absent_reads_as_docarrays_default() -> None:
    (doc,) = read_by_docarray(DocumentBatch.from_columns(ids=["a"]))
    assert (doc.id, doc.text, doc.embedding, doc.tags, doc.chunks) == ("a", None, None, {}, None)
    (doc,) = read_by_docarray(DocumentBatch.from_columns(ids=["a"], texts=[None]))
    assert doc.text is None


def test_no_documents() -> None:
    assert read_by_docarray(DocumentBatch()) == []
    batch = written_by_docarray(DocList[LegacyDocument]([]))
    assert (len(batch), batch.ids, batch.texts, batch.embeddings, batch.tags) == (0, [], [], None, [])


def test_integers_that_docarray_cannot_write_become_floats() -> None:
    with pytest.raises(ValueError, match="out of range"):
        DocList[LegacyDocument]([LegacyDocument(tags={"n": 2**31})]).to_protobuf()
    (doc,) = read_by_docarray(DocumentBatch.from_columns(tags=[{"n": 2**31}]))
    assert doc.tags == {"n": 2.0**31}


# ---- whole requests ----


def test_jina_reads_our_request() -> None:
    from jina.types.request.data import DataRequest

    batch = DocumentBatch.from_columns(ids=["a"], texts=["x"], embeddings=np.ones((1, 2), "f4"))
    data = wire.build_request(
        "/index", batch, parameters={"limit": 3, "filter": {"a": [None, True]}}, request_id="r", target_executor="e"
    )
    request = DataRequest(data)
    request.document_array_cls = DocList[LegacyDocument]
    assert (request.header.request_id, request.header.exec_endpoint) == ("r", "/index")
    assert request.header.target_executor == "e"
    assert dict(request.parameters) == {"limit": 3.0, "filter": {"a": [None, True]}}
    assert [(doc.id, doc.text) for doc in request.docs] == [("a", "x")]
    assert np.array_equal(request.docs[0].embedding, [1, 1])


def test_we_read_jinas_request() -> None:
    from jina.types.request.data import DataRequest

    request = DataRequest()
    request.header.exec_endpoint = "/search"
    request.parameters = {"limit": 3, "filter": {"a": [None, True]}}
    request.document_array_cls = DocList[LegacyDocument]
    request.data.docs = DocList[LegacyDocument]([LegacyDocument(id="a", text="x")])
    data = request.proto.SerializeToString()
    head, read = wire.read_head(data), wire.read_request(data)
    assert head.header.exec_endpoint == read.header.exec_endpoint == "/search"
    assert wire.dict_from_struct(head.parameters) == {"limit": 3.0, "filter": {"a": [None, True]}}
    batch = wire.documents_of(read)
    assert (batch.ids, batch.texts) == (["a"], ["x"])
    assert pb.DataRequestProto.FromString(head.SerializeToString()) == read  # the documents are unparsed, not lost
