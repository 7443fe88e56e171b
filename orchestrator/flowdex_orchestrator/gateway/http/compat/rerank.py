"""Jina's and Cohere's rerankers: POST /v1/rerank and POST /v2/rerank.

{query, documents, model, top_n} --/rank of the ranker--> {"results": [{index, relevance_score}, ...]}, best first
errors --> {"detail": ...} (Jina, 422 for a wrong body), {"message": ...} (Cohere, 400); each has both members

A ranker is chosen by its executor's name, by its cross-encoder's, or by a method: late_interaction, dense,
cross_encoder. The scores of a cross-encoder are logits: a sigmoid brings them between 0 and 1. The other methods'
scores are cosines, and stay as they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import orjson
from fastapi import APIRouter, Response
from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from flowdex import wire
from flowdex.documents import DocumentBatch, new_id
from flowdex.errors import InvalidInput
from flowdex.proto import flowdex_pb2 as pb
from flowdex.ranking import RankedText, from_batch, to_batch
from flowdex_orchestrator.gateway.http.body import JsonRoute
from flowdex_orchestrator.gateway.http.call import Call, FlowCall
from flowdex_orchestrator.gateway.http.compat.contract import ContractRequest, timing_headers
from flowdex_orchestrator.gateway.http.compat.served import Served, choose
from flowdex_orchestrator.gateway.http.models.base import Text, checked_text, kind
from flowdex_orchestrator.gateway.http.problems import Failure
from flowdex_orchestrator.gateway.http.replies import dump

__all__ = ["Ranked", "rank", "rerank_routers"]

_CROSS_ENCODER = "cross_encoder"
_METHODS = ("late_interaction", "dense")


# ---- what the contracts share, TEI's with them ----


@dataclass(frozen=True)
class Ranked:
    """What became of the texts.

    Attributes:
        texts: Best first, with the ranker's own scores.
        ranker: What ordered them.
        logits: Whether the scores are a cross-encoder's.
        tokens: Of query and texts, by the flow's own tokenizer; 0 where it has none.
        headers: What the work took.
    """

    texts: list[RankedText]
    ranker: str
    logits: bool
    tokens: int
    headers: dict[str, str]

    def relevance(self) -> list[float]:
        """The scores, a cross-encoder's between 0 and 1."""
        scores = np.array([each.score for each in self.texts], dtype=np.float64)
        return (1 / (1 + np.exp(-scores)) if self.logits else scores).tolist()  # type: ignore[no-any-return]


async def rank(
    call: FlowCall, query: str, texts: Sequence[str], *, model: str | None = None, top: int | None = None
) -> Ranked:
    """Order texts by how well they answer a query.

    Raises:
        NotFound: There is no ranker of that name.
    """
    call.check_count(len(texts), "texts")
    ranker, method = await _ranker(call, model)
    counting = asyncio.ensure_future(_count_tokens(call, [query, *texts]))
    try:
        ranked, reply = await call.ask(
            "/rank",
            lambda: to_batch(query, texts),
            {name: value for name, value in {"method": method, "top": top}.items() if value is not None},
            lambda reply: (from_batch(wire.documents_of(reply), texts), reply),
            target=ranker.target,
        )
        tokens = await counting
    finally:
        counting.cancel()
        await asyncio.gather(counting, return_exceptions=True)
    characters = len(query) + sum(map(len, texts))
    headers = timing_headers(call, reply, tokens=tokens, characters=characters)
    return Ranked(ranked, model or next(iter(ranker.names), ""), method == _CROSS_ENCODER, tokens, headers)


async def _ranker(call: FlowCall, model: str | None) -> tuple[Served, str | None]:
    """The ranker that is meant, and the method."""
    served = [_with_methods(each) for each in await call.directory.rankers(model)]
    ranker = choose(served, model)
    has_model = bool(ranker.about.get(_CROSS_ENCODER))
    if model in _METHODS:
        return ranker, model
    return ranker, _CROSS_ENCODER if has_model else None


def _with_methods(ranker: Served) -> Served:
    """The ranker with its methods among its names."""
    if "rerank" not in ranker.about:  # not one of ours
        return ranker
    cross = (_CROSS_ENCODER,) if ranker.about.get(_CROSS_ENCODER) else ()
    return replace(ranker, names=(*ranker.names, *_METHODS, *cross))


async def _count_tokens(call: FlowCall, texts: Sequence[str]) -> int:
    """Tokens of the texts, each by itself and special tokens included."""
    if "/tokenize" not in call.gateway.router.endpoints():
        return 0
    target = next(iter(await call.directory.encoders()), Served()).target

    def count(reply: pb.DataRequestProto) -> int:
        return sum(map(len, wire.documents_of(reply).column("token_texts", ())))

    return await call.ask("/tokenize", lambda: DocumentBatch.from_columns(texts=texts), {}, count, target=target)


# ---- Jina's and Cohere's ----


def _document(value: Any) -> str:
    if isinstance(value, dict):
        if "text" not in value:
            raise PydanticCustomError("document", 'must be a string or {{"text": ...}}')
        value = value["text"]
    if not isinstance(value, str):
        raise PydanticCustomError("document", 'must be a string or {{"text": ...}}, not {kind}', {"kind": kind(value)})
    return checked_text(value)


_DOCUMENT_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "object", "properties": {"text": {"type": "string", "minLength": 1}}, "required": ["text"]},
    ]
}
DocumentText = Annotated[str, BeforeValidator(_document), WithJsonSchema(_DOCUMENT_SCHEMA)]


class RerankRequest(ContractRequest):
    """Texts to order."""

    model: str | None = Field(default=None, description="Name of a ranker, of its cross-encoder, or of a method.")
    query: Text
    documents: list[DocumentText] = Field(min_length=1)
    top_n: int | None = Field(default=None, ge=1, description="Most results.")
    return_documents: bool | None = Field(
        default=None, description="Whether results hold their texts; where left out, those of /v1/rerank do."
    )


class ResultDocument(BaseModel):
    """A text."""

    text: str


class Result(BaseModel):
    """A text's place."""

    index: int = Field(description="Its position in `documents`.")
    relevance_score: float
    document: ResultDocument | None = None


class TotalTokens(BaseModel):
    """Tokens of the query and of the documents."""

    total_tokens: int


class RerankResponse(BaseModel):
    """Best first."""

    id: str
    model: str
    usage: TotalTokens
    results: list[Result]
    meta: dict[str, Any]


class RerankError(BaseModel):
    """An error, as Jina (`detail`) and Cohere (`message`) write it."""

    detail: str
    message: str


def _write(failure: Failure, status: int) -> Response:
    body = {"detail": failure.detail, "message": failure.detail}
    return Response(orjson.dumps(body), status, dict(failure.headers), "application/json")


def write_jina_error(failure: Failure) -> Response:
    """An error in Jina's shape."""
    return _write(failure, failure.status)


def write_cohere_error(failure: Failure) -> Response:
    """An error in Cohere's shape: what is wrong with a request is 400."""
    return _write(failure, 400 if failure.name == InvalidInput.__name__ and failure.status == 422 else failure.status)


class JinaRoute(JsonRoute):
    """A route with Jina's errors."""

    shape = staticmethod(write_jina_error)


class CohereRoute(JsonRoute):
    """A route with Cohere's errors."""

    shape = staticmethod(write_cohere_error)


_RESPONSES: dict[int | str, dict[str, Any]] = {
    code: {"model": RerankError} for code in (400, 404, 405, 413, 415, 422, 429, 500, 503, 504)
}
_SHAPES: tuple[tuple[type[JsonRoute], str, bool], ...] = (
    (JinaRoute, "v1", True),
    (CohereRoute, "v2", False),
)


def rerank_routers() -> list[APIRouter]:
    """The routes."""
    routers = []
    for route_class, version, with_documents in _SHAPES:
        router = APIRouter(route_class=route_class, tags=["rerank"])
        _add_route(router, version, with_documents)
        routers.append(router)
    return routers


def _add_route(router: APIRouter, version: str, with_documents: bool) -> None:
    @router.post(f"/{version}/rerank", response_model=RerankResponse, responses=_RESPONSES, name=f"rerank_{version}")
    async def rerank(body: RerankRequest, call: Call) -> Response:
        """Order texts by how well they answer a query, as the rerankers of Jina (v1) and Cohere (v2) do."""
        ranked = await rank(call, body.query, body.documents, model=body.model, top=body.top_n)
        wanted = with_documents if body.return_documents is None else body.return_documents
        results = [
            {"index": each.index, "relevance_score": score, **({"document": {"text": each.text}} if wanted else {})}
            for each, score in zip(ranked.texts, ranked.relevance(), strict=True)
        ]
        content = {
            "id": new_id(),
            "model": ranked.ranker,
            "usage": {"total_tokens": ranked.tokens},
            "results": results,
            "meta": {
                "api_version": {"version": version[1:]},
                "billed_units": {"search_units": 1},
                "tokens": {"input_tokens": ranked.tokens},
            },
        }
        return Response(dump(content), media_type="application/json", headers=ranked.headers)
