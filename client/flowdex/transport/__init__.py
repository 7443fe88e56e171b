"""How the client reaches a flow: one small protocol, spoken over gRPC or HTTP.

    AsyncClient --columnar batches--> Transport <-- GrpcTransport   grpc:// grpcs://
                                                <-- HttpTransport   http:// https://

Retries, deadlines and batches are the client's business; a transport makes one attempt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from flowdex.attention import Attention
from flowdex.documents import DocumentBatch
from flowdex.errors import FlowdexError
from flowdex.ranking import RankedText
from flowdex.results import FlowStatus, Hit
from flowdex.stored import Page, StoredDocument
from flowdex.transport.target import Target

__all__ = ["IndexReply", "SearchReply", "Target", "Transport", "open_transport"]


class IndexReply(NamedTuple):
    """What became of the documents of one request.

    Attributes:
        passages: How many were stored.
        errors: Why documents were not, by their rows.
    """

    passages: int
    errors: Mapping[int, FlowdexError]


class SearchReply(NamedTuple):
    """The answer to one query.

    Attributes:
        hits: Best first.
        notes: What the caller should know of it, in sentences.
    """

    hits: list[Hit]
    notes: list[str]


class Transport(Protocol):
    """One attempt at each call. `timeout` is in seconds, None for no limit.

    All methods raise subclasses of `FlowdexError`: what the service answered, `Unavailable` when it cannot be reached,
    `DeadlineExceeded` after `timeout`. A transport may be used from any event loop.
    """

    @property
    def reached(self) -> bool:
        """Whether the service has ever answered, be it with an error."""
        ...

    async def encode(self, batch: DocumentBatch, parameters: Mapping[str, Any], timeout: float | None) -> DocumentBatch:
        """Send documents with texts; answers the same documents, in order, with embeddings."""
        ...

    async def index(self, batch: DocumentBatch, parameters: Mapping[str, Any], timeout: float | None) -> IndexReply:
        """Store documents; answers how many passages were stored, and which documents were not."""
        ...

    async def search(
        self, queries: Sequence[str], parameters: Mapping[str, Any], timeout: float | None
    ) -> list[SearchReply]:
        """Answer the hits of each query, in order."""
        ...

    async def get(
        self, ids: Sequence[str], parameters: Mapping[str, Any], timeout: float | None
    ) -> list[StoredDocument]:
        """Answer the documents that are there, in the order of the ids."""
        ...

    async def scroll(self, parameters: Mapping[str, Any], timeout: float | None) -> Page:
        """Answer a page of documents, and where to go on."""
        ...

    async def count(self, parameters: Mapping[str, Any], timeout: float | None) -> int:
        """Answer the number of documents."""
        ...

    async def rank(
        self, query: str, texts: Sequence[str], parameters: Mapping[str, Any], timeout: float | None
    ) -> list[RankedText]:
        """Answer the texts, best first."""
        ...

    async def attention(
        self,
        text: str,
        text_pair: str | None,
        parameters: Mapping[str, Any],
        timeout: float | None,
        *,
        executor: str | None = None,
    ) -> Attention:
        """Answer the attention of a text or a pair, by that encoder."""
        ...

    async def delete(self, ids: Sequence[str], parameters: Mapping[str, Any], timeout: float | None) -> int:
        """Remove documents by id; answers how many were removed."""
        ...

    async def status(self, timeout: float | None) -> FlowStatus:
        """Answer the state of the flow and of its executors."""
        ...

    async def ready(self, timeout: float | None) -> bool:
        """Whether the flow takes requests now."""
        ...

    async def close(self) -> None:
        """Close all connections; calls in flight are cancelled."""
        ...


def open_transport(target: Target) -> Transport:
    """The transport for a target; connects with the first call."""
    if target.scheme in ("grpc", "grpcs"):
        from flowdex.transport.grpc import GrpcTransport

        return GrpcTransport(target)
    from flowdex.transport.http import HttpTransport

    return HttpTransport(target)
