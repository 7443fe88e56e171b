"""The routes: a model in, one request through the router, JSON out. Those of stored documents are in `documents.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from flowdex.documents import DocumentBatch, new_id
from flowdex.errors import Unavailable
from flowdex.fields import write_fields
from flowdex_orchestrator.gateway.http import models, replies
from flowdex_orchestrator.gateway.http.admin import add_admin_routes
from flowdex_orchestrator.gateway.http.attention import add_attention_route
from flowdex_orchestrator.gateway.http.bert import EncodeRoute, add_bert_routes
from flowdex_orchestrator.gateway.http.body import JsonRoute
from flowdex_orchestrator.gateway.http.call import ERRORS, Call
from flowdex_orchestrator.gateway.http.comparing import add_compare_routes
from flowdex_orchestrator.gateway.http.documents import add_document_routes
from flowdex_orchestrator.gateway.http.encoded import encode_content, text_documents
from flowdex_orchestrator.gateway.http.interaction import add_interaction_route
from flowdex_orchestrator.gateway.http.jina.route import add_jina_routes
from flowdex_orchestrator.gateway.http.jina.websocket import add_websocket_routes
from flowdex_orchestrator.gateway.http.mapping import add_map_route
from flowdex_orchestrator.gateway.http.ranking import add_rank_route
from flowdex_orchestrator.gateway.status import flow_status, metrics_text
from flowdex_orchestrator.observability.endpoint import CONTENT_TYPE

if TYPE_CHECKING:
    from flowdex_orchestrator.gateway.server import Gateway

__all__ = ["make_routers"]


def make_routers() -> tuple[APIRouter, ...]:
    """All routes of the API, but for its documentation and the contracts of others."""
    router = APIRouter(route_class=JsonRoute)
    encoding = APIRouter(route_class=EncodeRoute)

    @encoding.post("/encode", tags=["flow"], response_model=models.EncodeResponse, responses=ERRORS)
    async def encode(body: models.EncodeRequest, call: Call) -> Response:
        """Turn texts into vectors.

        A body with `id` is one of bert-as-service's, `{"id", "texts", "is_tokenized"?}`; its answer is
        `{"id", "result", "status": 200}`, and an error is `{"description", "type", "status": 400}`.
        """
        call.check_count(len(body.texts), "texts")
        count, as_base64 = len(body.texts), body.encoding == "base64"
        return await call.post(
            "/encode",
            lambda: text_documents(body.texts),
            {**body.parameters, **body.model_dump(include=models.ENCODE_CHOICES, exclude_none=True)},
            lambda reply: encode_content(reply, count, as_base64),
        )

    @router.post("/index", tags=["flow"], response_model=models.IndexResponse, responses=ERRORS)
    async def index(body: models.IndexRequest, call: Call) -> Response:
        """Add documents to the index; a document whose id is there already is replaced.

        A document that cannot be indexed fails alone: it is listed in `failed`, the others are stored.
        """
        call.check_count(len(body.documents), "documents")

        def documents() -> DocumentBatch:
            documents = body.documents
            batch = DocumentBatch.from_columns(
                ids=[document.id or new_id() for document in documents],
                texts=[document.text for document in documents],
                tags=[document.tags for document in documents],
                digest=[document.digest for document in documents],
                segment=[document.segment for document in documents],
            )
            write_fields(batch, [document.fields for document in documents])
            for index, document in enumerate(documents):
                if document.embedding is not None:
                    with np.errstate(over="ignore"):  # what becomes infinite is found by the indexer
                        batch.select([index]).embeddings = np.asarray([document.embedding], dtype=np.float32)
            return batch

        chosen = body.model_dump(include={"segment"}, exclude_none=True)
        return await call.post("/index", documents, {**body.parameters, **chosen}, replies.index_content)

    @router.post("/search", tags=["flow"], response_model=models.SearchResponse, responses=ERRORS)
    async def search(body: models.SearchRequest, call: Call) -> Response:
        """Find the documents that answer a query."""
        call.check_count(len(body.query), "queries")
        chosen = body.model_dump(include=set(models.SEARCH_CHOICES), exclude_unset=True, exclude_none=True)
        return await call.post(
            "/search",
            lambda: DocumentBatch.from_columns(texts=body.query),
            {**body.parameters, **chosen},
            lambda reply: replies.search_content(reply, body.query),
        )

    add_rank_route(router)
    add_attention_route(router)
    add_interaction_route(router)
    add_document_routes(router)
    add_map_route(router)
    add_compare_routes(router)
    add_admin_routes(router)
    add_bert_routes(router)
    add_jina_routes(router)
    add_websocket_routes(router)

    @router.get("/status", tags=["service"], response_model=models.Status)
    async def status(call: Call) -> Response:
        """Show the flow: its endpoints, executors, replicas, and what the executors say of themselves."""
        return Response(replies.dump(await flow_status(call.gateway)), media_type="application/json")

    @router.get("/metrics", tags=["service"], response_class=PlainTextResponse)
    async def metrics(request: Request) -> Response:
        """What Prometheus reads: requests, latencies, replicas, queues."""
        gateway: Gateway = request.app.state.gateway
        return Response(await metrics_text(gateway), media_type=CONTENT_TYPE)

    @router.get("/health/live", tags=["service"])
    async def live() -> models.Health:
        """Whether the process answers."""
        return models.Health()

    @router.get("/health/ready", tags=["service"], responses={503: ERRORS[503]})
    async def ready(request: Request) -> models.Health:
        """Whether every executor has a replica that takes requests."""
        gateway: Gateway = request.app.state.gateway
        if not gateway.ready:
            raise Unavailable(gateway.problem, retry_after=1.0)
        return models.Health()

    return encoding, router
