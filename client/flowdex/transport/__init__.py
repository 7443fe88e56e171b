"""How the client reaches a flow: one small protocol, spoken over gRPC or HTTP.

    AsyncClient --columnar batches--> Transport <-- GrpcTransport   grpc:// grpcs://
                                                <-- HttpTransport   http:// https://

Retries, deadlines and batches are the client's business; a transport makes one attempt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from flowdex.documents import DocumentBatch
from flowdex.results import FlowStatus, Hit
from flowdex.transport.target import Target

__all__ = ["Target", "Transport", "open_transport"]


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

    async def index(
        self, batch: DocumentBatch, parameters: Mapping[str, Any], timeout: float | None
    ) -> tuple[int, int]:
        """Store documents; answers how many documents and passages were stored."""
        ...

    async def search(
        self, queries: Sequence[str], parameters: Mapping[str, Any], timeout: float | None
    ) -> list[list[Hit]]:
        """Answer the hits of each query, in order."""
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
