"""Joining the branches of a flow: several replies become one list of documents.

    reply of branch A: [1: text, embedding] [2: ...]   --+
                                                         +--> [1: text, embedding, tags] [2: ...] [3: ...]
    reply of branch B: [1: text, tags] [3: ...]        --+

The rules are those that Jina documents for its reduction: documents are joined by id, the left-most value of a field is
kept, and dictionaries and nested documents ("chunks", "matches") are joined in the same way, by key and by id.
docarray's own `reduce_all` departs from that text, and we from it, in four points: it lets the right-most value win, it
appends a list to its equal from another branch, it repeats a document that only later branches share, and it repeats
documents without ids, which it gives random ones. Here the n-th document of an id is joined with the n-th of
the same id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, MutableMapping, Sequence

from flowdex.documents import DocumentBatch
from flowdex.proto import flowdex_pb2 as pb

__all__ = ["merge_documents"]


def merge_documents(batches: Sequence[DocumentBatch]) -> DocumentBatch:
    """Join batches by document id; the left-most value wins.

    Args:
        batches: In the order of `needs`. They are used up: the result consists of their messages, changed in place.

    Returns:
        The documents of the first batch in their order, then those that only later ones have, in theirs.

    Raises:
        InvalidInput: A document's id is not a string.
    """
    if len(batches) == 1:
        return batches[0]
    merged: dict[tuple[str, int], pb.DocProto] = {}
    for batch in batches:
        seen: Counter[str] = Counter()
        for name, doc in zip(batch.ids, batch, strict=True):
            key = name, seen[name]
            seen[name] += 1
            kept = merged.setdefault(key, doc)
            if kept is not doc:
                _merge_fields(kept.data, doc.data)
    return DocumentBatch(list(merged.values()))


def _merge_fields(left: MutableMapping[str, pb.NodeProto], right: MutableMapping[str, pb.NodeProto]) -> None:
    for name, node in right.items():
        kind = node.WhichOneof("content")
        if kind is None:
            continue
        kept = left[name]  # a map of messages inserts what is missing
        kept_kind = kept.WhichOneof("content")
        if kept_kind is None:
            kept.CopyFrom(node)
        elif kept_kind != kind:
            continue
        elif kind == "dict":
            _merge_fields(kept.dict.data, node.dict.data)
        elif kind == "doc":
            _merge_fields(kept.doc.data, node.doc.data)
        elif kind == "doc_array":
            _merge_nested(kept.doc_array, node.doc_array.docs)


def _merge_nested(left: pb.DocListProto, right: Iterable[pb.DocProto]) -> None:
    """Join into `left` in place: its documents are its first ones already, the others are appended."""
    ours = len(left.docs)
    merged = merge_documents([DocumentBatch(left.docs), DocumentBatch(list(right))])
    left.docs.extend(list(merged)[ours:])
