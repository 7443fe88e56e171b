"""The routes of stored documents: read, listed, counted and removed.

GET, DELETE /documents/{id}   one document
GET /documents                a page of them; POST /scroll, for longer filters
POST /get, DELETE /documents  several, by their ids
POST /count                   how many
"""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path, Query, Response

from flowdex.documents import DocumentBatch
from flowdex.errors import InvalidInput
from flowdex_orchestrator.gateway.http import models, replies
from flowdex_orchestrator.gateway.http.call import ERRORS, Call

__all__ = ["add_document_routes"]


def add_document_routes(router: APIRouter) -> None:
    """Add them to the router."""

    @router.post("/get", tags=["flow"], response_model=models.GetResponse, responses=ERRORS)
    async def get(body: models.GetRequest, call: Call) -> Response:
        """Read documents by their ids, as they were sent."""
        call.check_count(len(body.ids), "ids")
        return await call.post(
            "/get",
            lambda: DocumentBatch.from_columns(ids=body.ids),
            {**body.parameters, **body.model_dump(include={"content", "passages", "embeddings"})},
            replies.documents_content,
        )

    @router.post("/scroll", tags=["flow"], response_model=models.ScrollResponse, responses=ERRORS)
    async def scroll(body: models.ScrollRequest, call: Call) -> Response:
        """Read all documents, or those that a filter finds, page by page, in the order of their last write."""
        fields = body.model_dump(exclude={"parameters"}, exclude_none=True)
        return await call.post("/scroll", DocumentBatch, {**body.parameters, **fields}, replies.page_content)

    @router.post("/count", tags=["flow"], response_model=models.CountResponse, responses=ERRORS)
    async def count(call: Call, body: models.CountRequest | None = None) -> Response:
        """Count documents, or those that a filter finds."""
        body = body or models.CountRequest()
        fields = body.model_dump(include={"filter"}, exclude_none=True)
        return await call.post("/count", DocumentBatch, {**body.parameters, **fields}, replies.count_content)

    @router.get("/documents", tags=["flow"], response_model=models.ScrollResponse, responses=ERRORS)
    async def documents(
        call: Call,
        filter: Annotated[str | None, Query(description="Conditions on the tags, as JSON.")] = None,
        limit: Annotated[int, Query(ge=1, le=1000, description="Most documents; it may be fewer.")] = 100,
        cursor: Annotated[str | None, Query(description="The `cursor` of the page before.")] = None,
    ) -> Response:
        """Read a page of documents: as POST /scroll."""
        fields = {"limit": limit, "cursor": cursor, "filter": _filter(filter)}
        given = {name: value for name, value in fields.items() if value is not None}
        return await call.post("/scroll", DocumentBatch, given, replies.page_content)

    @router.get("/documents/{id:path}", tags=["flow"], response_model=models.StoredDocument, responses=ERRORS)
    async def document(
        call: Call,
        id: Annotated[str, Path(description="Its id; what is not plain in it must be percent-encoded.")],
        passages: Annotated[bool, Query(description="Whether to read its passages too.")] = False,
        embeddings: Annotated[bool, Query(description="Whether to read its vectors too.")] = False,
    ) -> Response:
        """Read one document, as it was sent."""
        return await call.post(
            "/get",
            lambda: DocumentBatch.from_columns(ids=[id]),
            {"passages": passages, "embeddings": embeddings},
            lambda reply: replies.one_document(reply, id),
        )

    @router.delete("/documents/{id:path}", tags=["flow"], response_model=models.DeleteResponse, responses=ERRORS)
    async def delete_document(
        call: Call,
        id: Annotated[str, Path(description="Its id; what is not plain in it must be percent-encoded.")],
    ) -> Response:
        """Remove one document; it is no error if there is none."""
        return await call.post(
            "/delete",
            lambda: DocumentBatch.from_columns(ids=[id]),
            {},
            lambda reply: {"deleted": replies.deleted_count(reply)},
        )

    @router.delete("/documents", tags=["flow"], response_model=models.DeleteResponse, responses=ERRORS)
    async def delete(
        call: Call,
        body: models.DeleteRequest | None = None,
        id: Annotated[list[str] | None, Query(description="An id; may be repeated. Instead of a body.")] = None,
    ) -> Response:
        """Remove documents from the index: by ids in the body or in the query string, or all that a filter finds."""
        body = body or models.DeleteRequest()
        ids = [*body.ids, *(id or ())]
        if not all(ids) or not (ids or body.filter):
            raise InvalidInput(
                'name the documents to delete: {"ids": [...]} or {"filter": {...}} as the body, or ?id=...&id=...'
            )
        call.check_count(len(ids), "ids")
        return await call.post(
            "/delete",
            lambda: DocumentBatch.from_columns(ids=ids),
            {**body.parameters, **body.model_dump(include={"filter"}, exclude_none=True)},
            lambda reply: {"deleted": replies.deleted_count(reply)},
        )


def _filter(text: str | None) -> dict[str, Any] | None:
    try:
        condition = None if text is None else orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the filter is not JSON: {error}") from None
    if condition is not None and not isinstance(condition, dict):
        raise InvalidInput('the filter must be a JSON object, such as {"year": {"$gte": 1960}}')
    return condition
