"""POST /rank: texts in the order of how well they answer a query.

{query, texts} --one document with matches--> ranker --> {"results": [{index, score, text}, ...]}
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from flowdex import wire
from flowdex.proto import flowdex_pb2 as pb
from flowdex.ranking import from_batch, to_batch
from flowdex_orchestrator.gateway.http import models
from flowdex_orchestrator.gateway.http.call import ERRORS, Call

__all__ = ["add_rank_route"]


def add_rank_route(router: APIRouter) -> None:
    """Add the route."""

    @router.post("/rank", tags=["flow"], response_model=models.RankResponse, responses=ERRORS)
    async def rank(body: models.RankRequest, call: Call) -> Response:
        """Order texts by how well they answer a query, without an index."""
        call.check_count(len(body.texts), "texts")

        def content(reply: pb.DataRequestProto) -> dict[str, Any]:
            return {"results": [each.to_dict() for each in from_batch(wire.documents_of(reply), body.texts)]}

        return await call.post(
            "/rank",
            lambda: to_batch(body.query, body.texts),
            {**body.parameters, **body.model_dump(include={"method", "top"}, exclude_none=True)},
            content,
        )
