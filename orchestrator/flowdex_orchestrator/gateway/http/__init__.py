"""The gateway over HTTP: JSON in, JSON out, problem documents for errors.

    request --body.py--> model (models.py) --routes.py--> DocumentBatch --router--> reply --replies.py--> JSON
    error --problems.py--> application/problem+json (RFC 9457)

One decode and one encode at the edge; behind it the same bytes travel as over gRPC.
"""

from __future__ import annotations

from typing import Any

__all__ = ["openapi_document"]


def openapi_document() -> dict[str, Any]:
    """The OpenAPI 3.1 document of the API, as a gateway without settings of its own serves it."""
    from flowdex_orchestrator.gateway.http.app import make_app
    from flowdex_orchestrator.gateway.server import Gateway

    return make_app(Gateway([])).openapi()
