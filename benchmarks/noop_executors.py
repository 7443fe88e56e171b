"""Executors that do nothing, and one that only fills in vectors: what is left is the cost of the runtime."""

from docarray import BaseDoc, DocList
from docarray.typing import NdArray
from jina import Executor, requests
from numpy import float32, ones

from flowdex_executors import DocumentColumns

DIMENSIONS = 384


class TextDocument(BaseDoc):
    """A text and its vector, as a Jina user would declare it."""

    text: str = ""
    embedding: NdArray[DIMENSIONS] | None = None  # type: ignore[valid-type]


class PlainNoOp(Executor):
    """An ordinary Jina executor that returns what it gets."""

    @requests(on="/noop")
    def noop(self, docs: DocList[TextDocument], **kwargs) -> DocList[TextDocument]:
        """Return the documents."""
        return docs

    @requests(on="/encode")
    def encode(self, docs: DocList[TextDocument], **kwargs) -> DocList[TextDocument]:
        """Give every document a vector."""
        vectors = ones((len(docs), DIMENSIONS), dtype=float32)
        for doc, vector in zip(docs, vectors, strict=True):
            doc.embedding = vector
        return docs


class ColumnarNoOp(Executor):
    """The same on columns."""

    @requests(on="/noop")
    async def noop(self, docs: DocumentColumns, **kwargs) -> DocumentColumns:
        """Return the documents."""
        return docs

    @requests(on="/encode")
    async def encode(self, docs: DocumentColumns, **kwargs) -> DocumentColumns:
        """Give every document a vector."""
        docs.batch.embeddings = ones((len(docs.batch), DIMENSIONS), dtype=float32)
        return docs
