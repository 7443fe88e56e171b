"""OpenAI's embeddings: POST /v1/embeddings, GET /v1/models and /v1/models/{model}.

{input, model, encoding_format} --/encode of the model's encoder--> {"data": [{index, embedding}], "usage": ...}
errors --> {"error": {message, type, param, code}}
"""

from __future__ import annotations

import base64
import time
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import orjson
from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from flowdex.errors import InvalidInput
from flowdex_orchestrator.gateway.http.body import JsonRoute
from flowdex_orchestrator.gateway.http.call import Call, FlowCall
from flowdex_orchestrator.gateway.http.compat.contract import ContractRequest, Inputs, path_of
from flowdex_orchestrator.gateway.http.compat.embedding import Embedded, embed
from flowdex_orchestrator.gateway.http.compat.served import Directory, Served, choose
from flowdex_orchestrator.gateway.http.problems import Failure
from flowdex_orchestrator.gateway.http.replies import dump

__all__ = ["openai_router"]

_MOST_INPUTS = 2048
# Our class of error -> status, type and code of theirs; what is not named keeps its status as a server_error.
_ERRORS: dict[str, tuple[int, str, str | None]] = {
    "InvalidInput": (400, "invalid_request_error", None),
    "TooLarge": (413, "invalid_request_error", "request_too_large"),
    "NotFound": (404, "invalid_request_error", "model_not_found"),
    "Conflict": (409, "invalid_request_error", None),
    "Unauthenticated": (401, "invalid_request_error", "invalid_api_key"),
    "PermissionDenied": (403, "invalid_request_error", None),
    "Overloaded": (429, "requests", "rate_limit_exceeded"),
    "Unavailable": (503, "server_error", "service_unavailable"),
    "DeadlineExceeded": (504, "server_error", "timeout"),
}


class EmbeddingsRequest(ContractRequest):
    """Texts to turn into vectors."""

    input: Inputs = Field(description="One text, or up to 2048; in the place of a text, ids of the model's own tokens.")
    model: str = Field(description="Name of an encoder of the flow, or of its model.", examples=["encoder"])
    encoding_format: Literal["float", "base64"] = Field(
        default="float", description="Numbers, or base64 of little-endian float32."
    )
    dimensions: int | None = Field(default=None, ge=1, description="So many leading dimensions.")
    user: str | None = Field(default=None, description="Is not looked at.")


class Embedding(BaseModel):
    """A vector."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """Tokens computed, special ones included."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    """A vector for each input, in order."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class Model(BaseModel):
    """An encoder of the flow, by one of its names."""

    id: str = Field(examples=["encoder"])
    object: Literal["model"] = "model"
    created: int = Field(description="When this gateway started, in seconds since 1970.")
    owned_by: str = "flowdex"


class Models(BaseModel):
    """All names by which encoders can be called."""

    object: Literal["list"] = "list"
    data: list[Model]


class OpenAIErrorDetail(BaseModel):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(BaseModel):
    """An error."""

    error: OpenAIErrorDetail


def write_error(failure: Failure) -> Response:
    """An error in OpenAI's shape."""
    status, kind, code = _ERRORS.get(failure.name, (failure.status, "server_error", None))
    if failure.name in ("InvalidInput", "TooLarge") and failure.status in (405, 413, 415):
        status = failure.status
    errors = failure.more.get("errors")
    param = path_of(errors[0]["pointer"]) or None if errors else "model" if code == "model_not_found" else None
    body = {"error": {"message": failure.detail, "type": kind, "param": param, "code": code}}
    return Response(orjson.dumps(body), status, dict(failure.headers), "application/json")


class OpenAIRoute(JsonRoute):
    """A route with OpenAI's errors."""

    shape = staticmethod(write_error)


_RESPONSES: dict[int | str, dict[str, Any]] = {
    code: {"model": OpenAIError} for code in (400, 404, 405, 413, 415, 429, 500, 503, 504)
}
ModelName = Annotated[str, Field(description="A name as /v1/models lists it.")]


def openai_router() -> APIRouter:
    """The routes."""
    router = APIRouter(route_class=OpenAIRoute, tags=["OpenAI"])

    @router.post("/v1/embeddings", response_model=EmbeddingsResponse, responses=_RESPONSES, name="openai_embeddings")
    async def embeddings(body: EmbeddingsRequest, call: Call) -> Response:
        """Turn texts into vectors, as OpenAI's API does."""
        if not body.input:
            raise InvalidInput("input: must not be empty")
        if len(body.input) > _MOST_INPUTS:
            raise InvalidInput(
                f"input: {len(body.input)} inputs in one request are more than the {_MOST_INPUTS} allowed"
            )
        call.check_count(len(body.input), "inputs")
        encoder = choose(await call.directory.encoders(body.model), body.model)
        as_base64 = body.encoding_format == "base64"

        def content(embedded: Embedded) -> dict[str, Any]:
            return {
                "object": "list",
                "data": [
                    {"object": "embedding", "index": index, "embedding": _base64(vector) if as_base64 else vector}
                    for index, vector in enumerate(embedded.vectors)
                ],
                "model": body.model,
                "usage": {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens},
            }

        return await embed(call, body.input, encoder, {"dimensions": body.dimensions}, content)

    @router.get("/v1/models", response_model=Models, responses=_RESPONSES, name="openai_models")
    async def models(call: Call) -> Response:
        """List the encoders of the flow: each by its own name and by that of its model."""
        served = await call.directory.encoders()
        names = dict.fromkeys(name for each in served for name in each.names)
        return _respond(Models(data=[_model(call, name) for name in names]))

    @router.get("/v1/models/{model:path}", response_model=Model, responses=_RESPONSES, name="openai_model")
    async def model(model: ModelName, call: Call) -> Response:
        """Show one of them."""
        choose(await _known(call.directory, model), model)
        return _respond(_model(call, model))

    return router


async def _known(directory: Directory, name: str) -> list[Served]:
    return await directory.encoders(name) or [Served()]


def _model(call: FlowCall, name: str) -> Model:
    started = time.time() - (time.monotonic() - call.gateway.started)
    return Model(id=name, created=int(started))


def _base64(vector: npt.NDArray[np.float32]) -> str:
    return base64.b64encode(vector.astype("<f4", copy=False).tobytes()).decode()


def _respond(content: BaseModel) -> Response:
    return Response(dump(content.model_dump()), media_type="application/json")
