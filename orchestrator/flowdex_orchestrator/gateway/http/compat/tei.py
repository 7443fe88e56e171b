"""text-embeddings-inference: /embed, /embed_all, /embed_sparse, /similarity, /rerank, /tokenize, /decode, /info, ...

{inputs, normalize, truncate, ...} --/encode, /rank, /tokenize, /decode of the flow--> bare arrays, best first
headers: x-compute-time, x-total-time, x-queue-time, ... (milliseconds)        errors --> {error, error_type}

Its server has one model. Of a flow with several, `model` in the body (which that server does not know) chooses one.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from fastapi import APIRouter, Response

from flowdex import wire
from flowdex.proto import flowdex_pb2 as pb
from flowdex_orchestrator.gateway.http.body import JsonRoute
from flowdex_orchestrator.gateway.http.call import Call, FlowCall
from flowdex_orchestrator.gateway.http.compat.contract import (
    TextOrIds,
    input_documents,
    timing_headers,
)
from flowdex_orchestrator.gateway.http.compat.embedding import embed
from flowdex_orchestrator.gateway.http.compat.rerank import rank
from flowdex_orchestrator.gateway.http.compat.served import Served, choose, target_of
from flowdex_orchestrator.gateway.http.compat.tei_models import (
    DecodeRequest,
    EmbedAllRequest,
    EmbedRequest,
    EmbedSparseRequest,
    Info,
    SimilarityRequest,
    SimpleToken,
    SparseValue,
    TeiError,
    TeiRank,
    TeiRerankRequest,
    TokenizeRequest,
)
from flowdex_orchestrator.gateway.http.problems import Failure
from flowdex_orchestrator.gateway.http.replies import dump

__all__ = ["tei_router"]

# Our class of error -> status and error_type of theirs.
_ERRORS = {
    "InvalidInput": (422, "Validation"),
    "TooLarge": (413, "Validation"),
    "NotFound": (404, "Validation"),
    "Conflict": (422, "Validation"),
    "Unauthenticated": (401, "Validation"),
    "PermissionDenied": (403, "Validation"),
    "Overloaded": (429, "Overloaded"),
    "Unavailable": (503, "Unhealthy"),
}
_FAILED = (424, "Backend")
_SPARSE = "/embed_sparse"


def tei_error(status: int, error_type: str, message: str, headers: dict[str, str] | None = None) -> Response:
    """An error of that server."""
    content = orjson.dumps({"error": message, "error_type": error_type})
    return Response(content, status, headers, "application/json")


def write_error(failure: Failure) -> Response:
    """One of ours in that server's shape."""
    status, kind = _ERRORS.get(failure.name, _FAILED)
    if failure.name == "InvalidInput" and failure.status in (400, 405, 415):  # of the framework
        status = failure.status
    return tei_error(status, kind, failure.detail, dict(failure.headers))


class TeiRoute(JsonRoute):
    """A route with that server's errors."""

    shape = staticmethod(write_error)


_RESPONSES: dict[int | str, dict[str, Any]] = {
    400: {"model": TeiError, "description": "There are no inputs, or the body is not JSON"},
    404: {"model": TeiError, "description": "The flow has no such model, or does not serve this"},
    413: {"model": TeiError, "description": "More than the limits allow"},
    415: {"model": TeiError, "description": "The body does not claim to be JSON"},
    422: {"model": TeiError, "description": "The body is not what is expected, or a text is too long"},
    424: {"model": TeiError, "description": "An executor failed, or the flow has no such model"},
    429: {"model": TeiError, "description": "Too many requests in flight"},
    503: {"model": TeiError, "description": "No replica is ready"},
}


def tei_router() -> APIRouter:
    """The routes."""
    router = APIRouter(route_class=TeiRoute, tags=["text-embeddings-inference"])
    _add_vector_routes(router)
    _add_text_routes(router)
    _add_service_routes(router)
    return router


def _add_vector_routes(router: APIRouter) -> None:
    async def respond(body: EmbedRequest, call: FlowCall) -> Response:
        if not body.inputs:
            return _empty("inputs")
        call.check_count(len(body.inputs), "inputs")
        parameters = {**body.parameters(), "normalize": body.normalize, "dimensions": body.dimensions}
        return await embed(call, body.inputs, await _encoder(call, body.model), parameters, lambda it: it.vectors)

    @router.post("/embed", response_model=list[list[float]], responses=_RESPONSES, name="tei_embed")
    async def embed_(body: EmbedRequest, call: Call) -> Response:
        """Turn texts into vectors: a list of vectors, for one text too."""
        return await respond(body, call)

    @router.post("/", response_model=list[list[float]], responses=_RESPONSES, include_in_schema=False)
    async def root(body: EmbedRequest, call: Call) -> Response:
        """The same, where clients of Hugging Face's inference endpoints send it."""
        return await respond(body, call)

    @router.post("/embed_all", response_model=list[list[list[float]]], responses=_RESPONSES, name="tei_embed_all")
    async def embed_all(body: EmbedAllRequest, call: Call) -> Response:
        """Turn every token of each text into a vector, special tokens too; neither pooled nor normalised."""
        if not body.inputs:
            return _empty("inputs")
        call.check_count(len(body.inputs), "inputs")
        parameters = {**body.parameters(), "pooling": "none", "normalize": False}
        return await embed(call, body.inputs, await _encoder(call, body.model), parameters, lambda it: it.vectors)

    @router.post("/embed_sparse", response_model=list[list[SparseValue]], responses=_RESPONSES, name="tei_embed_sparse")
    async def embed_sparse(body: EmbedSparseRequest, call: Call) -> Response:
        """Turn texts into the sparse vectors of the flow's index: BM25, without how rare each term is."""
        if not body.inputs:
            return _empty("inputs")
        call.check_count(len(body.inputs), "inputs")
        serving = call.gateway.router.endpoints().get(_SPARSE)
        if not serving:
            return tei_error(
                *_FAILED, "this flow has nothing that makes sparse vectors: neither a sparse encoder nor an index"
            )

        def answer(reply: pb.DataRequestProto) -> Response:
            return _respond(_sparse(reply), timing_headers(call, reply, characters=sum(map(len, body.inputs))))

        return await call.ask(_SPARSE, lambda: input_documents(body.inputs), {}, answer, target=target_of(serving[:1]))

    @router.post("/similarity", response_model=list[float], responses=_RESPONSES, name="tei_similarity")
    async def similarity(body: SimilarityRequest, call: Call) -> Response:
        """Compare a sentence with others: cosines."""
        if not body.inputs.sentences:
            return _empty("inputs.sentences")
        texts: list[TextOrIds] = [body.inputs.source_sentence, *body.inputs.sentences]
        call.check_count(len(texts), "sentences")
        encoder = await _encoder(call, body.model or body.parameters.model)

        parameters = {**body.parameters.parameters(), "normalize": True}
        return await embed(call, texts, encoder, parameters, lambda it: _cosines(it.vectors))


def _add_text_routes(router: APIRouter) -> None:
    @router.post("/rerank", response_model=list[TeiRank], responses=_RESPONSES, name="tei_rerank")
    async def rerank(body: TeiRerankRequest, call: Call) -> Response:
        """Order texts by how well they answer a query, best first."""
        if not body.texts:
            return _empty("texts")
        ranked = await rank(call, body.query, body.texts, model=body.model)
        scores = [each.score for each in ranked.texts] if body.raw_scores else ranked.relevance()
        content = [
            {"index": each.index, "score": score, **({"text": each.text} if body.return_text else {})}
            for each, score in zip(ranked.texts, scores, strict=True)
        ]
        return _respond(content, ranked.headers)

    @router.post("/tokenize", response_model=list[list[SimpleToken]], responses=_RESPONSES, name="tei_tokenize")
    async def tokenize(body: TokenizeRequest, call: Call) -> Response:
        """Show the tokens of texts, none cut off."""
        if not body.inputs:
            return _empty("inputs")
        call.check_count(len(body.inputs), "inputs")
        encoder = await _encoder(call, body.model)
        parameters = {} if body.prompt_name is None else {"prompt": body.prompt_name}

        def answer(reply: pb.DataRequestProto) -> Response:
            content = _tokens(reply, body.add_special_tokens)
            tokens = sum(map(len, content))
            return _respond(content, timing_headers(call, reply, tokens=tokens))

        return await call.ask(
            "/tokenize", lambda: input_documents(body.inputs), parameters, answer, target=encoder.target
        )

    @router.post("/decode", response_model=list[str], responses=_RESPONSES, name="tei_decode")
    async def decode(body: DecodeRequest, call: Call) -> Response:
        """Make texts of token ids."""
        if not body.ids:
            return _empty("ids")
        call.check_count(len(body.ids), "sequences of ids")
        encoder = await _encoder(call, body.model)

        def answer(reply: pb.DataRequestProto) -> Response:
            headers = timing_headers(call, reply, tokens=sum(map(len, body.ids)))
            return _respond(wire.documents_of(reply).texts, headers)

        return await call.ask(
            "/decode",
            lambda: input_documents(body.ids),
            {"skip_special": body.skip_special_tokens},
            answer,
            target=encoder.target,
        )


def _add_service_routes(router: APIRouter) -> None:
    @router.get("/info", response_model=Info, name="tei_info", responses={404: _RESPONSES[404]})
    async def info(call: Call, model: str | None = None) -> Response:
        """Show the model and the limits."""
        encoder = await _encoder(call, model)
        return _respond(_info(encoder, call).model_dump())

    @router.get("/health", name="tei_health", responses={503: _RESPONSES[503]}, response_class=Response)
    async def health(call: Call) -> Response:
        """Whether the flow takes requests: an empty answer."""
        if not call.gateway.ready:
            return tei_error(503, "Unhealthy", f"no replica is ready of {', '.join(call.gateway.missing()) or 'any'}")
        return Response()


def _cosines(vectors: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """Of the first vector with each of the others; all have length 1."""
    found: npt.NDArray[np.float32] = np.stack(vectors[1:]) @ vectors[0]
    return found


async def _encoder(call: FlowCall, model: str | None) -> Served:
    return choose(await call.directory.encoders(model), model)


def _empty(name: str) -> Response:
    return tei_error(400, "Empty", f"`{name}` must not be empty")


def _respond(content: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(dump(content), headers=headers, media_type="application/json")


def _tokens(reply: pb.DataRequestProto, with_special: bool) -> list[list[dict[str, Any]]]:
    batch = wire.documents_of(reply)
    columns = (batch.column(f"token_{name}") for name in ("texts", "spans", "ids"))
    answers = []
    for texts, spans, ids in zip(*columns, strict=True):
        places = np.asarray(spans).reshape(-1, 2).tolist()
        numbers = [None] * len(texts) if ids is None else np.asarray(ids).tolist()
        tokens = [
            {"id": id_, "text": text, "special": False, "start": start, "stop": stop}
            if (start, stop) != (0, 0)
            else {"id": id_, "text": text, "special": True, "start": None, "stop": None}
            for id_, text, (start, stop) in zip(numbers, texts, places, strict=True)
        ]
        answers.append([token for token in tokens if with_special or not token["special"]])
    return answers


def _sparse(reply: pb.DataRequestProto) -> list[list[dict[str, Any]]]:
    batch = wire.documents_of(reply)
    rows = zip(batch.column("sparse_indices", ()), batch.column("sparse_values", ()), strict=True)
    return [
        [
            {"index": index, "value": value}
            for index, value in zip(np.asarray(indices).tolist(), np.asarray(values).tolist(), strict=True)
        ]
        for indices, values in rows
    ]


def _info(encoder: Served, call: FlowCall) -> Info:
    about, settings = encoder.about, call.gateway.settings
    pooling = about.get("pooling") or ["mean"]
    return Info(
        model_id=encoder.name,
        model_sha=None,
        model_dtype=str(about.get("compute_dtype", "float32")),
        model_type={"embedding": {"pooling": "+".join(map(str, pooling))}},
        max_concurrent_requests=settings.max_in_flight,
        max_input_length=_whole(about.get("max_tokens")),
        max_batch_tokens=_whole(about.get("batch_tokens")),
        max_batch_requests=None,
        max_client_batch_size=settings.max_texts,
        auto_truncate=about.get("truncation") != "error",
        tokenization_workers=_whole(about.get("threads")),
        version=version("flowdex"),
        sha=None,
        docker_label=None,
    )


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)
