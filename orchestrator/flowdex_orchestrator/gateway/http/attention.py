"""POST /attention: where each token of a text looks, as numbers or as a page of its own.

{text, text_pair?, model?} --one document--> /attention of the chosen encoder --> {tokens, weights, ...} | HTML
"""

from __future__ import annotations

from fastapi import APIRouter, Response

from flowdex import wire
from flowdex.attention import attention_html, from_batch, to_batch
from flowdex.proto import flowdex_pb2 as pb
from flowdex_orchestrator.gateway.http import models, replies
from flowdex_orchestrator.gateway.http.call import ERRORS, Call, FlowCall
from flowdex_orchestrator.gateway.http.compat.served import Served, choose

__all__ = ["add_attention_route"]


def add_attention_route(router: APIRouter) -> None:
    """Add the route."""

    @router.post("/attention", tags=["flow"], response_model=models.AttentionResponse, responses=ERRORS)
    async def attention(body: models.AttentionRequest, call: Call) -> Response:
        """See where each token of a text looks, or of a pair of texts: the attention of a transformer.

        With `format` html the answer is a page that draws it, to keep as a file.
        """
        encoder = await _encoder(call, body.model)

        def respond(reply: pb.DataRequestProto) -> Response:
            values = from_batch(wire.documents_of(reply)).to_dict()
            if body.format == "html":
                headers = {"Content-Disposition": 'attachment; filename="attention.html"'}
                return Response(attention_html(values), media_type="text/html", headers=headers)
            return Response(replies.dump({**values, "took_ms": call.took_ms()}), media_type="application/json")

        return await call.ask(
            "/attention",
            lambda: to_batch(body.text, body.text_pair),
            {**body.parameters, **body.model_dump(include={"layers", "dtype"}, exclude_none=True)},
            respond,
            target=encoder.target,
        )


async def _encoder(call: FlowCall, model: str | None) -> Served:
    encoders = await call.directory.encoders(model)
    if model is None:
        encoders = [encoder for encoder in encoders if encoder.about.get("attention")] or encoders
    return choose(encoders, model)
