"""What reading and writing documents costs: flowdex's columns and docarray's objects, side by side.

    python benchmarks/codec.py [--documents 1024] [--rounds 9]

Both start from columns (lists and one array) and end with bytes on the wire, and back. They take turns, so that each
round compares them under the same noise; the table gives medians over the rounds, and ratios round by round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from docarray import BaseDoc, DocList
from docarray.proto import DocListProto
from docarray.typing import NdArray

from flowdex.documents import DocumentBatch, new_ids

TEXT = "Compute the generalized normal stress on each surface element of the wing. " * 4
DIMENSIONS = 384
CHUNKS = 8


class Passage(BaseDoc):
    """What a passage needs."""

    text: str | None = None
    embedding: NdArray | None = None


class Document(BaseDoc):
    """What the documents below need, and nothing else."""

    text: str | None = None
    embedding: NdArray | None = None
    tags: dict[str, Any] = {}  # noqa: RUF012 - pydantic copies it
    chunks: DocList[Passage] | None = None


class Case(NamedTuple):
    """One kind of document, and both codecs for it."""

    name: str
    write: Callable[[], bytes]
    read: Callable[[bytes], Any]
    docarray_write: Callable[[], bytes]
    docarray_read: Callable[[bytes], Any]


def serialized(docs: DocList[Any]) -> bytes:
    data: bytes = docs.to_protobuf().SerializeToString()
    return data


def parsed(data: bytes) -> DocList[Document]:
    return DocList[Document].from_protobuf(DocListProto.FromString(data))


def vectors(count: int) -> Case:
    ids, texts = new_ids(count), [TEXT] * count
    array = np.random.default_rng(0).standard_normal((count, DIMENSIONS), dtype=np.float32)

    def read(data: bytes) -> Any:
        batch = DocumentBatch.from_bytes(data)
        return batch.ids, batch.texts, batch.embeddings

    def docarray_read(data: bytes) -> Any:
        docs = parsed(data)
        return docs.id, docs.text, np.stack(docs.embedding)

    return Case(
        f"text and {DIMENSIONS}-d float32 vector",
        lambda: DocumentBatch.from_columns(ids=ids, texts=texts, embeddings=array).to_bytes(),
        read,
        lambda: serialized(
            DocList[Document](
                [Document(id=i, text=t, embedding=row) for i, t, row in zip(ids, texts, array, strict=True)]
            )
        ),
        docarray_read,
    )


def tags(count: int) -> Case:
    ids, texts = new_ids(count), [TEXT] * count
    values = [
        {"title": f"title {n}", "year": 2000 + n % 30, "price": n / 7, "topics": ["a", "b"]} for n in range(count)
    ]

    def read(data: bytes) -> Any:
        batch = DocumentBatch.from_bytes(data)
        return batch.ids, batch.texts, batch.tags

    def docarray_read(data: bytes) -> Any:
        docs = parsed(data)
        return docs.id, docs.text, docs.tags

    return Case(
        "text and four tags",
        lambda: DocumentBatch.from_columns(ids=ids, texts=texts, tags=values).to_bytes(),
        read,
        lambda: serialized(
            DocList[Document]([Document(id=i, text=t, tags=v) for i, t, v in zip(ids, texts, values, strict=True)])
        ),
        docarray_read,
    )


def chunks(count: int) -> Case:
    count = max(count // CHUNKS, 1)
    ids, texts = new_ids(count), [TEXT] * CHUNKS
    array = np.random.default_rng(0).standard_normal((CHUNKS, DIMENSIONS), dtype=np.float32)

    def write() -> bytes:
        batch = DocumentBatch.from_columns(ids=ids)
        batch.set_nested("chunks", [DocumentBatch.from_columns(texts=texts, embeddings=array) for _ in range(count)])
        return batch.to_bytes()

    def read(data: bytes) -> Any:
        flat, offsets = DocumentBatch.from_bytes(data).flatten("chunks")
        return offsets, flat.texts, flat.embeddings

    def docarray_write() -> bytes:
        docs = DocList[Document]()
        for name in ids:
            passages = [Passage(text=text, embedding=row) for text, row in zip(texts, array, strict=True)]
            docs.append(Document(id=name, chunks=DocList[Passage](passages)))
        return serialized(docs)

    def docarray_read(data: bytes) -> Any:
        passages = [passage for doc in parsed(data) for passage in doc.chunks or ()]
        return [passage.text for passage in passages], np.stack([passage.embedding for passage in passages])

    return Case(f"{CHUNKS} chunks of text and vector", write, read, docarray_write, docarray_read)


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1024, help="documents a message")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    print(f"Thousand documents a second, {options.documents} a message (medians of {options.rounds} rounds):\n")
    print("| documents with | | flowdex | docarray | ratio |\n|---|---|---:|---:|---:|")
    for make in (vectors, tags, chunks):
        case = make(options.documents)
        data, theirs = case.write(), case.docarray_write()
        number = len(DocumentBatch.from_bytes(data))
        assert number == len(parsed(theirs))
        for verb, ours, docarray in (
            ("write", case.write, case.docarray_write),
            (
                "read",
                lambda case=case, data=data: case.read(data),
                lambda case=case, data=data: case.docarray_read(data),
            ),
        ):
            rounds = [(seconds(ours), seconds(docarray)) for _ in range(options.rounds)]
            fast, slow = (statistics.median(each) for each in zip(*rounds, strict=True))
            ratio = statistics.median(second / first for first, second in rounds)
            print(f"| {case.name} | {verb} | {number / fast / 1e3:.1f} | {number / slow / 1e3:.1f} | {ratio:.0f} |")


if __name__ == "__main__":
    main()
