"""The columnar document list: what a flowdex executor's endpoints take and give, under flowdex and under stock Jina.

    DocListProto --from_protobuf--> DocumentColumns --endpoint--> DocumentColumns --to_protobuf--> DocListProto
                                     .batch: DocumentBatch

An endpoint that is annotated with `DocumentColumns` works on columns (`docs.batch.texts`, `docs.batch.embeddings`) in
both hosts: flowdex's worker hands it the batch it decoded, stock Jina calls `from_protobuf` and `to_protobuf`, and
neither builds a pydantic object for each document.

    class Upper(Executor):
        @requests(on="/upper")
        def upper(self, docs: DocumentColumns, **kwargs: Any) -> DocumentColumns:
            docs.batch.texts = [(text or "").upper() for text in docs.batch.texts]
            return docs

Three rules come from Jina:

- All endpoints of a flow share this one class, because Jina's gateway refuses a flow whose executors differ in their
  document schema.
- An endpoint without a return annotation, such as one that returns a dictionary, counts as one that returns Jina's
  legacy documents, and Jina's gateway fails on it: write `@requests(on="/status", response_schema=DocumentColumns)`.
- Jina reads annotations as they are: in a module with `from __future__ import annotations` they are strings, which it
  takes for the legacy type too (with a warning). Name both in the decorator there, which Jina always honours:
  `@requests(on="/upper", request_schema=DocumentColumns, response_schema=DocumentColumns)`.

`Document` spells out the fields that travel in a flow; a stock `jina.Client` reads all of them with
`return_type=DocList[Document]`.
"""

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Dict, List, NoReturn, Optional, Type  # noqa: UP035 - see the note on Passage

from docarray import BaseDoc, DocList
from docarray.proto import DocListProto
from docarray.typing import NdArray
from pydantic import Field
from typing_extensions import Self

from flowdex.documents import DocumentBatch

__all__ = ["Document", "DocumentColumns", "Match", "Passage"]

# Two things below are for docarray and Jina: Optional[...], List[...] and Dict[...] are the spellings that docarray
# looks for, and a field of documents is not Optional, because Jina's gateway cannot rebuild that from a JSON schema.
# ruff: noqa: UP006, UP045


class Passage(BaseDoc):  # type: ignore[misc]  # docarray is untyped
    """A piece of a document's text."""

    text: Optional[str] = None
    embedding: Optional[NdArray] = None
    tags: Dict[str, Any] = Field(default_factory=dict)
    parent_id: Optional[str] = None
    """Id of the document it was cut from."""
    location: Optional[List[int]] = None
    """[start, end], character offsets in that document's text, end exclusive."""
    scores: Optional[Dict[str, float]] = None
    """`scores["score"]` is the one to rank by; higher is better."""
    highlights: Optional[List[List[int]]] = None
    """[start, end] of each highlighted span of its own text."""
    context: Optional[str] = None
    """What is encoded before its text without being part of it: the headings above it, the document's title."""
    weights: Optional[List[List[float]]] = None
    """[start, end, weight] of each span of its own text whose terms count more or less than 1 in BM25."""


class Match(Passage):
    """A hit of a search: a passage, or a document with its best passage's text."""

    chunks: DocList[Passage] = Field(default_factory=DocList[Passage])
    """The document's matching passages, best first."""
    explain: Optional[Dict[str, Any]] = None
    """For each stage that ranked it ("dense", "sparse", "fusion", "rerank"): its `rank`, from 1, and its `score`."""


class Document(Passage):
    """A document or a query, with every field that executors of the default flow read or write."""

    chunks: DocList[Passage] = Field(default_factory=DocList[Passage])
    matches: DocList[Match] = Field(default_factory=DocList[Match])
    fields: Optional[Dict[str, str]] = None
    """Its text in parts, in place of `text`: title, body, ..."""
    segment: Optional[str] = None
    """How to cut it: passage, sentence, markdown or document. See docs/segmenter.md."""
    field_order: Optional[List[str]] = None
    """The names of the fields in their order, which a dictionary on the wire does not keep; see flowdex.fields."""
    digest: Optional[str] = None
    """Any string that changes with its content, as its sender made it; kept with it, and told by /get and /scroll."""
    cursor: Optional[str] = None
    """Of the last document of a page of /scroll: where to go on; absent where there is nothing more."""
    passages: Optional[int] = None
    """How many passages of it were indexed."""
    error: Optional[Dict[str, Any]] = None
    """Why it alone of its request could not be indexed: `name` and `message`, as of flowdex.errors."""
    notes: Optional[List[str]] = None
    """What a caller should know of the answer to this query, such as that there was no time to rerank."""

    # What an encoder takes beside the text, and gives beside the embedding; see docs/encoders.md.
    text_pair: Optional[str] = None
    words: Optional[List[str]] = None
    token_ids: Optional[NdArray] = None
    """What is encoded in place of a text: ids of the model's vocabulary; and what /tokenize gives."""
    scale: Optional[float] = None
    token_texts: Optional[List[str]] = None
    token_spans: Optional[NdArray] = None
    token_vectors: Optional[NdArray] = None
    attention: Optional[NdArray] = None
    attention_about: Optional[Dict[str, Any]] = None
    """With it at /attention: `model`, `layers`, and `pair_start`, which of the tokens is the first of `text_pair`."""
    receipt: Optional[Dict[str, Any]] = None
    sparse_indices: Optional[NdArray] = None
    sparse_values: Optional[NdArray] = None
    """Of its BM25 vector, which an indexer gives at /embed_sparse."""
    fingerprint: Optional[str] = None
    """What made its vectors, in one line."""


class DocumentColumns(DocList):  # type: ignore[misc]  # docarray is untyped
    """A `DocList` that holds its documents as a `DocumentBatch`.

    Reading single documents (`docs[0]`, iteration) builds `Document` objects for convenience: they are copies. Change
    documents through `batch`.

    Args:
        docs: A batch, which is kept and not copied, or documents of any docarray type.

    Attributes:
        batch: The documents as columns; assign another batch to reply with other documents.
    """

    doc_type: ClassVar[Type[BaseDoc]] = Document

    def __init__(self, docs: DocumentBatch | Iterable[BaseDoc] | None = None, validate_input_docs: bool = True) -> None:
        super().__init__()
        self.batch = docs if isinstance(docs, DocumentBatch) else _batch_of(docs)

    @classmethod
    def from_protobuf(cls, pb_msg: Any) -> Self:
        """Read a `DocListProto`, of docarray's or of flowdex's own generated code; the latter is not copied."""
        if isinstance(pb_msg, DocListProto):
            return cls(DocumentBatch.from_bytes(pb_msg.SerializeToString()))
        return cls(DocumentBatch.from_proto(pb_msg))

    def to_protobuf(self) -> DocListProto:
        """Write docarray's `DocListProto`, which is what Jina copies into its reply."""
        return DocListProto.FromString(self.batch.to_bytes())

    def __len__(self) -> int:
        return len(self.batch)

    def __bool__(self) -> bool:
        return bool(self.batch)

    def __iter__(self) -> Iterator[Document]:
        return (Document.from_protobuf(doc) for doc in self.to_protobuf().docs)

    def __getitem__(self, item: Any) -> Any:
        if isinstance(item, slice):
            return type(self)(self.batch.select(range(*item.indices(len(self)))))
        if isinstance(item, int):
            return next(iter(type(self)(self.batch.select([item]))))
        return type(self)(self.batch.select(item))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.batch!r})"

    def append(self, doc: BaseDoc) -> None:
        """Add a document at the end."""
        self.extend([doc])

    def extend(self, docs: Iterable[BaseDoc]) -> None:
        """Add documents at the end: another DocumentColumns, or documents of any docarray type."""
        self.batch = DocumentBatch.concatenate([self.batch, _batch_of(docs)])

    def _unsupported(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("a DocumentColumns is changed through its batch: docs.batch = docs.batch.select(...)")

    # What list would do to a list that is always empty would be silently wrong.
    __setitem__ = __delitem__ = insert = pop = remove = clear = reverse = sort = _unsupported


def _batch_of(docs: Iterable[BaseDoc] | None) -> DocumentBatch:
    if isinstance(docs, DocumentColumns):
        return docs.batch
    message = DocListProto(docs=[doc.to_protobuf() for doc in docs or ()])
    return DocumentBatch.from_bytes(message.SerializeToString())
