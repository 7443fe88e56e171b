"""The contracts of other services, for clients that people have already.

    request of their shape --> served.py: which executor it means --> call.py: the flow --> answer of their shape
    error                  --> problems.py --> the shape of the contract (contract.py)

openai.py: /v1/embeddings, /v1/models; rerank.py: /v1/rerank (Jina), /v2/rerank (Cohere); tei.py: the routes of
text-embeddings-inference. Each module holds the models, the routes and the error table of its contract. Unlike on our
own routes, an unknown key of a request is ignored there: these services' clients send more than any one server knows.
"""

from __future__ import annotations

from fastapi import APIRouter

from flowdex_orchestrator.gateway.http.compat.openai import openai_router
from flowdex_orchestrator.gateway.http.compat.rerank import rerank_routers
from flowdex_orchestrator.gateway.http.compat.tei import tei_router

__all__ = ["compat_routers"]


def compat_routers() -> list[APIRouter]:
    """The routes of every contract."""
    return [openai_router(), *rerank_routers(), tei_router()]
