"""POST /admin/scale and /admin/restart: what `flowdex scale` and `flowdex restart` do, over HTTP.

Authorization: Bearer TOKEN + JSON --> gateway --ask--> the runner that started it, which checks the token

Where the gateway has keys, one with the role `admin` will do, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Header, Request
from pydantic import BaseModel, ConfigDict, Field

from flowdex.errors import ConfigurationError, InvalidInput, NotFound, Unauthenticated
from flowdex_orchestrator.control import ask
from flowdex_orchestrator.gateway.http.call import ERRORS
from flowdex_orchestrator.gateway.http.models import Problem

if TYPE_CHECKING:
    from flowdex_orchestrator.gateway.server import Gateway

__all__ = ["add_admin_routes"]

_BEARER = "bearer "
_RESPONSES: dict[int | str, dict[str, Any]] = {
    **{code: ERRORS[code] for code in (400, 404, 415, 422, 503)},
    401: {"model": Problem, "description": "The runner's token is missing or wrong"},
    409: {"model": Problem, "description": "It cannot be done, or not now"},
}

Authorization = Annotated[
    str, Header(description="`Bearer` and the token that the runner leaves in `.flowdex/run/flow/token`.")
]


class ScaleRequest(BaseModel):
    """Numbers of replicas."""

    model_config = ConfigDict(extra="forbid", strict=True)

    replicas: dict[str, int] = Field(description="By executor.", min_length=1, examples=[{"encoder": 3}])


class ScaleResponse(BaseModel):
    """What was."""

    before: dict[str, int] = Field(description="The numbers before, by executor.", examples=[{"encoder": 1}])


class RestartRequest(BaseModel):
    """What to replace."""

    model_config = ConfigDict(extra="forbid", strict=True)

    executor: str = Field(examples=["encoder"])
    settings: dict[str, Any] = Field(
        default_factory=dict, description="Arguments of its class that change.", examples=[{"batch_tokens": 2048}]
    )


class RestartResponse(BaseModel):
    """What was replaced."""

    replicas: int = Field(examples=[2])


def add_admin_routes(router: APIRouter) -> None:
    """Add the routes."""

    @router.post("/admin/scale", tags=["admin"], responses=_RESPONSES)
    async def scale(body: ScaleRequest, request: Request, authorization: Authorization = "") -> ScaleResponse:
        """Give executors another number of replicas; answers when the new ones serve and the others have ended."""
        return ScaleResponse(**await _ask_runner(request, authorization, "scale", body))

    @router.post("/admin/restart", tags=["admin"], responses=_RESPONSES)
    async def restart(body: RestartRequest, request: Request, authorization: Authorization = "") -> RestartResponse:
        """Replace the replicas of an executor one by one; answers when that is done."""
        return RestartResponse(**await _ask_runner(request, authorization, "restart", body))


async def _ask_runner(request: Request, authorization: str, method: str, body: BaseModel) -> dict[str, Any]:
    gateway: Gateway = request.app.state.gateway
    if gateway.runner is None:
        raise NotFound("this gateway was not started by `flowdex up`: its executors are scaled where they run")
    token = authorization[len(_BEARER) :].strip() if authorization.lower().startswith(_BEARER) else ""
    if gateway.guard is not None:  # which has found that the caller may: with a key, or this very token
        token = gateway.runner_token or token
    if not token:
        raise Unauthenticated("send the header Authorization: Bearer TOKEN, with the token of the flow's runner")
    try:
        return await ask(gateway.runner, token, method, body.model_dump())
    except ConfigurationError as error:  # there a command line is wrong, here a request
        raise InvalidInput(error.message) from None
