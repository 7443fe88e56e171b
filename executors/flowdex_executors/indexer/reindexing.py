"""What `/reindex...` and the parameter `reindex` of /index take; the work of it is in `generations.py`.

    /reindex/pending --> documents that the coming collection lacks: text, fields, tags, version
        --/index {"reindex": {"versions": {id: version}}}--> split and encoded by this flow, into the coming collection
        --/index {"reindex": {"store": false}} of another flow--/reindex/store {"versions": ...}-->  the same
    /reindex {"action": "swap"}, then the same until nothing is pending, then {"action": "finish"}

Every step may be repeated, and all of it given up and begun again: a document that is there already is not pending.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field

from flowdex.documents import DocumentBatch
from flowdex_executors.indexer.columns import Point, SparseRow
from flowdex_executors.indexer.generations import Generations
from flowdex_executors.indexer.points import Passages, make_points
from flowdex_executors.indexer.stored import ScrollParameters, scroll_documents

__all__ = ["CopyParameters", "PendingParameters", "ReindexParameters", "make_copies", "pending_documents", "steer"]


class CopyParameters(BaseModel):
    """The parameter `reindex` of /index.

    Attributes:
        versions: For each document of the request its version, as it came with the pending documents.
        store: False for documents that another flow's index is to have: they are handed on as they are.
    """

    versions: dict[str, int] = Field(default_factory=dict)
    store: bool = True


class PendingParameters(BaseModel):
    """Parameters of /reindex/pending.

    Attributes:
        cursor: Where to go on, as the last document of the page before said; none starts.
        limit: Most documents.
    """

    cursor: str | None = None
    limit: int = Field(default=64, ge=1, le=1000)


class ReindexParameters(BaseModel):
    """Parameters of /reindex.

    Attributes:
        action: What to do: only tell the `status`; `swap` the collections; `finish`, letting the former one go; `abort`
            what is being built; `forget` the one that was kept.
        keep: Of `finish`: whether to keep the former collection.
    """

    action: Literal["status", "swap", "finish", "abort", "forget"] = "status"
    keep: bool = False


async def steer(generations: Generations, wanted: ReindexParameters) -> dict[str, Any]:
    """Do what is asked.

    Returns:
        `stage`, `source` (documents to copy from), `target` (documents copied so far), `fingerprint` of the active
        collection, `coming` that of the one being built; and `done`, whether there was something to do.
    """
    await generations.refresh(now=True)
    done = True
    if wanted.action == "swap":
        await generations.swap()
    elif wanted.action == "finish":
        await generations.finish(keep=wanted.keep)
    elif wanted.action == "abort":
        done = await generations.give_up()
    elif wanted.action == "forget":
        done = await generations.forget_kept()
    target = generations.coming or (generations.active if generations.former else None)
    return {
        "stage": generations.stage,
        "source": (await generations.source.count())[0],
        "target": (await target.count())[0] if target else 0,
        "fingerprint": generations.active.fingerprint.value,
        "coming": generations.coming.fingerprint.value if generations.coming else None,
        "done": done,
    }


def make_copies(
    passages: Passages,
    part: slice,
    sparse: Sequence[SparseRow],
    versions: Mapping[str, int],
    names: list[str],
) -> list[Point]:
    """Make the points of some documents, each of its own version.

    Args:
        passages: All passages.
        part: Documents among which those are.
        sparse: The BM25 vectors of all passages of `part`.
        versions: By document.
        names: Which documents.
    """
    rows = {name: part.start + row for row, name in enumerate(passages.document_ids[part])}
    first = int(passages.offsets[part.start])
    points: list[Point] = []
    for name in names:
        row = rows[name]
        begin, end = int(passages.offsets[row]) - first, int(passages.offsets[row + 1]) - first
        points += make_points(passages, slice(row, row + 1), sparse[begin:end], versions[name])
    return points


async def pending_documents(generations: Generations, wanted: PendingParameters) -> DocumentBatch:
    """The next documents of the source that the target does not have as new.

    Returns:
        Documents with the fields `version` and, on the last one where there may be more, `cursor`; none at the end.
    """
    cursor = wanted.cursor
    while True:
        source = generations.source
        page = ScrollParameters(content=False, limit=wanted.limit, cursor=cursor)
        heads = await scroll_documents(source, None, page)
        if not heads:
            return heads
        # Versions are read before the texts: a text that is newer than its version is only copied twice.
        versions = await generations.pending(heads.ids)
        following = _cursor(heads)
        if versions:
            documents = await scroll_documents(source, None, page.model_copy(update={"content": True}))
            following = _cursor(documents) if documents else following
            documents = documents.select([row for row, name in enumerate(documents.ids) if name in versions])
            if documents:
                documents.drop("passages", "cursor")
                documents.set_column("version", [versions[name] for name in documents.ids])
                if following is not None:
                    documents.select([len(documents) - 1]).set_column("cursor", [following])
                return documents
        if following is None:
            return DocumentBatch()
        cursor = following


def _cursor(documents: DocumentBatch) -> str | None:
    value: Any = documents.column("cursor")[-1] if documents else None
    return None if value is None else str(value)
