"""What the HTTP API takes and answers, as pydantic models; the OpenAPI document is made from them.

Requests are strict: an unknown key is an error that names the nearest known one, and nothing is converted (a number is
not a text). Limits that are settings are checked by the routes.
"""

from __future__ import annotations

from flowdex_orchestrator.gateway.http.models.attention import AttentionRequest, AttentionResponse
from flowdex_orchestrator.gateway.http.models.encoding import ENCODE_CHOICES, EncodeRequest, EncodeResponse
from flowdex_orchestrator.gateway.http.models.indexing import (
    DeleteRequest,
    DeleteResponse,
    Document,
    IndexRequest,
    IndexResponse,
)
from flowdex_orchestrator.gateway.http.models.interaction import InteractionRequest, InteractionResponse
from flowdex_orchestrator.gateway.http.models.reading import (
    CountRequest,
    CountResponse,
    GetRequest,
    GetResponse,
    ScrollRequest,
    ScrollResponse,
    StoredDocument,
)
from flowdex_orchestrator.gateway.http.models.searching import (
    SEARCH_CHOICES,
    RankRequest,
    RankResponse,
    SearchRequest,
    SearchResponse,
)
from flowdex_orchestrator.gateway.http.models.state import Health, Problem, Status

__all__ = [
    "ENCODE_CHOICES",
    "SEARCH_CHOICES",
    "AttentionRequest",
    "AttentionResponse",
    "CountRequest",
    "CountResponse",
    "DeleteRequest",
    "DeleteResponse",
    "Document",
    "EncodeRequest",
    "EncodeResponse",
    "GetRequest",
    "GetResponse",
    "Health",
    "IndexRequest",
    "IndexResponse",
    "InteractionRequest",
    "InteractionResponse",
    "Problem",
    "RankRequest",
    "RankResponse",
    "ScrollRequest",
    "ScrollResponse",
    "SearchRequest",
    "SearchResponse",
    "Status",
    "StoredDocument",
]
