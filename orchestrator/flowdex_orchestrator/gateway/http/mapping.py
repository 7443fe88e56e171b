"""POST /map: the passages of the collection as points in a plane, and a query among them.

    query --/search of what stands before the indexer--> its vector --+
    limit, ids ------------------------------------------------------+--/map of the indexer--> places --> JSON

The executors that a search visits before it comes to the indexer make the query's vector here, so it is the vector that
a search goes by. The plane itself is the indexer's work: see `indexer/sample.py` there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Response

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex.errors import ExecutorError, NotFound
from flowdex.proto import flowdex_pb2 as pb
from flowdex_orchestrator.gateway.http import models
from flowdex_orchestrator.gateway.http.call import ERRORS, Call, FlowCall
from flowdex_orchestrator.gateway.http.compat.served import target_of

if TYPE_CHECKING:
    from flowdex_orchestrator.gateway.server import Gateway

__all__ = ["add_map_route", "before_index", "check_indexed", "one_document"]


def add_map_route(router: APIRouter) -> None:
    """Add the route."""

    @router.post("/map", tags=["flow"], response_model=models.MapResponse, responses=ERRORS)
    async def map_(body: models.MapRequest, call: Call) -> Response:
        """Place the passages of the index in a plane, so that near ones are alike."""
        check_indexed(call.gateway, "/map", "a map")
        query = await _query(call, body.query)
        chosen = body.model_dump(include={"limit", "ids", "points"})
        return await call.post("/map", lambda: query, {**body.parameters, **chosen}, _content)


def check_indexed(gateway: Gateway, endpoint: str, what: str) -> None:
    """Refuse what takes an index in a flow without one.

    Raises:
        NotFound: It has none, with the remedy.
    """
    endpoints = gateway.router.endpoints()
    if gateway.ready and endpoint not in endpoints:  # before it is ready, the router waits for those who are to come
        raise NotFound(
            f"{what} needs an index, and no executor of this flow serves {endpoint!r}: add one to the flow file "
            "(- {name: indexer, uses: flowdex_executors.QdrantIndexer}), as the default flow.yml has it"
        )


def before_index(gateway: Gateway) -> str | None:
    """The target that means the executors whose work a search needs before the indexer's; None where there are none."""
    endpoints = gateway.router.endpoints()
    indexers = set(endpoints.get("/map", ()))
    names = []
    for name in endpoints.get("/search", ()):
        if name in indexers:
            break
        names.append(name)
    return target_of(names) if names and indexers else None


def one_document(reply: pb.DataRequestProto, endpoint: str) -> DocumentBatch:
    """The document that an indexer answers with.

    Raises:
        ExecutorError: It is not one, or lacks what ours says.
    """
    batch = wire.documents_of(reply)
    if len(batch) != 1 or batch.column("total")[0] is None:
        raise ExecutorError(f"what serves {endpoint!r} in this flow does not answer as flowdex's indexer does")
    return batch


async def _query(call: FlowCall, text: str | None) -> DocumentBatch:
    """The query as a search has it when it comes to the index."""
    target = None if text is None else before_index(call.gateway)
    if target is None:
        return DocumentBatch()
    batch = DocumentBatch.from_columns(texts=[text])
    return await call.ask("/search", lambda: batch, {}, wire.documents_of, target=target)


def _content(reply: pb.DataRequestProto) -> dict[str, Any]:
    batch = one_document(reply, "/map")
    points, placed = batch.nested("matches")[0], batch.nested("chunks")[0]
    (place,) = batch.column("place")
    return {
        **{name: int(batch.column(name)[0]) for name in ("total", "shown")},
        "variance": [float(each) for each in batch.column("variance")[0]],
        "points": _points(points, batch.column("places")[0]),
        "placed": _points(placed, batch.column("chunk_places")[0]),
        "query": None if place is None else {"x": float(place[0]), "y": float(place[1])},
        "notes": batch.column("notes")[0] or [],
    }


def _points(passages: DocumentBatch, places: Any) -> list[dict[str, Any]]:
    if not passages:
        return []
    columns = zip(
        passages.ids,
        passages.column("parent_id", ""),
        passages.column("text", ""),
        passages.column("location"),
        passages.tags,
        places.astype(float).round(5).tolist(),
        strict=True,
    )
    return [
        {"id": id_, "document_id": parent, "text": text, "location": location, "tags": tags, "x": x, "y": y}
        for id_, parent, text, location, tags, (x, y) in columns
    ]
