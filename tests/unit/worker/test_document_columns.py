"""`DocumentColumns` as Jina uses a `DocList`, and as docarray's equal on the wire.

No `from __future__ import annotations` here: Jina reads the annotations of the endpoint below as they are.
"""

import subprocess
import sys
import warnings

import numpy as np
import pytest
from docarray import BaseDoc, DocList
from docarray.documents import TextDoc
from docarray.proto import DocListProto

from flowdex.documents import DocumentBatch
from flowdex.proto import flowdex_pb2 as pb
from flowdex_executors.schema import Document, DocumentColumns, Match, Passage


def batch() -> DocumentBatch:
    return DocumentBatch.from_columns(ids=["a", "b", "c"], texts=["x", None, "ü"], tags=[{"n": 1}, {}, {}])


def test_it_reads_and_writes_docarrays_protobuf():
    docs = DocList[TextDoc]([TextDoc(id="a", text="x"), TextDoc(id="b", text="ü")])
    columns = DocumentColumns.from_protobuf(docs.to_protobuf())
    assert columns.batch.texts == ["x", "ü"]
    columns.batch.embeddings = np.eye(2, dtype=np.float32)
    message = columns.to_protobuf()
    assert isinstance(message, DocListProto)
    back = DocList[Document].from_protobuf(message)
    assert back.text == ["x", "ü"]
    np.testing.assert_array_equal(np.stack(back.embedding), np.eye(2))


def test_it_does_not_copy_our_own_protobuf():
    message = pb.DocListProto()
    message.docs.extend(batch())
    columns = DocumentColumns.from_protobuf(message)
    columns.batch.texts = ["1", "2", "3"]
    assert message.docs[2].data["text"].text == "3"


def test_length_and_truth():
    assert len(DocumentColumns(batch())) == 3
    assert DocumentColumns(batch())
    assert not DocumentColumns()
    assert not DocumentColumns(DocumentBatch())
    assert len(DocumentColumns()) == 0


def test_single_documents_are_read_as_document_objects():
    columns = DocumentColumns(batch())
    assert isinstance(columns[0], Document)
    assert [doc.text for doc in columns] == ["x", None, "ü"]
    assert columns[-1].id == "c"
    assert columns[0].tags == {"n": 1}
    assert isinstance(columns[1:], DocumentColumns)
    assert columns[1:].batch.ids == ["b", "c"]
    assert columns[[2, 0]].batch.ids == ["c", "a"]


def test_documents_of_any_type_can_be_added():
    columns = DocumentColumns([TextDoc(id="t", text="one")])
    columns.append(Document(id="d", text="two", location=[0, 3]))
    columns.extend(DocumentColumns(batch()))
    assert columns.batch.ids == ["t", "d", "a", "b", "c"]
    assert columns.batch.column("location")[:2] == [None, [0, 3]]


@pytest.mark.parametrize(
    "change",
    [
        lambda columns: columns.insert(0, Document()),
        lambda columns: columns.pop(),
        lambda columns: columns.clear(),
        lambda columns: columns.__setitem__(0, Document()),
        lambda columns: columns.__delitem__(0),
        lambda columns: columns.sort(),
    ],
)
def test_what_would_be_silently_wrong_is_refused(change):
    with pytest.raises(TypeError, match="batch"):
        change(DocumentColumns(batch()))


def test_document_carries_every_field_of_a_flow():
    passage = Passage(id="a#0", text="x", parent_id="a", location=[0, 1], scores={"score": 1.5}, highlights=[[0, 1]])
    match = Match(id="a", text="x", chunks=DocList[Passage]([passage]))
    document = Document(id="q", text="x", matches=DocList[Match]([match]), passages=2, embedding=np.zeros(3))
    columns = DocumentColumns([document])
    (matches,) = columns.batch.nested("matches")
    (chunks,) = matches.nested("chunks")
    assert chunks.column("location") == [[0, 1]]
    assert chunks.column("scores") == [{"score": 1.5}]
    read = columns[0]
    assert read.matches[0].chunks[0].highlights == [[0, 1]]
    assert read.passages == 2


def test_documents_do_not_share_their_defaults():
    first, second = Document(), Document()
    first.tags["a"] = 1
    first.chunks.append(Passage())
    assert second.tags == {}
    assert len(second.chunks) == 0


def test_jina_takes_it_as_a_schema():
    from jina import Executor, requests

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)

        class Columnar(Executor):
            @requests(on="/x")
            def x(self, docs: DocumentColumns, parameters: dict, **kwargs) -> DocumentColumns:
                return docs

    binding = Columnar().requests["/x"]
    assert binding.request_schema is DocumentColumns
    assert binding.response_schema is DocumentColumns
    assert issubclass(binding.request_schema.doc_type, BaseDoc)


CODE = """
import sys
{first}
import flowdex_executors
assert flowdex_executors.DocumentColumns.__name__ == "DocumentColumns"
assert "Ranker" in dir(flowdex_executors)
print("flowdex_executors.ranker" in sys.modules)
try:
    flowdex_executors.Rancer
except AttributeError as error:
    assert "Rancer" in str(error)
"""


@pytest.mark.parametrize(("first", "all_loaded"), [("", "False"), ("import jina", "True")])
def test_executors_are_loaded_when_used_or_when_jina_looks_for_them(first, all_loaded):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE.format(first=first)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.split()[-1] == all_loaded
