"""The client's HTTP transport: the gateway's JSON API over one connection pool.

    DocumentBatch --JSON--> POST /encode /index /search, DELETE /documents --JSON | problem document--> results

Vectors travel as base64 of little-endian float32, errors as RFC 9457 problem documents.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ssl
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

from flowdex.documents import DocumentBatch
from flowdex.errors import Cancelled, ConfigurationError, DeadlineExceeded, InternalError, InvalidInput, Unavailable
from flowdex.results import ExecutorStatus, FlowStatus, Hit, Passage, Span
from flowdex.transport.problems import error_from_problem
from flowdex.transport.target import Target

__all__ = ["HttpTransport"]

_SEARCH_FIELDS = ("limit", "offset", "filter", "mode")


class HttpTransport:
    """See `flowdex.transport.Transport`.

    Args:
        target: A target of scheme http or https.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reached = False
        self._closed = False

    @property
    def reached(self) -> bool:
        """Whether the service has ever answered."""
        return self._reached

    # ---- calls ----

    async def encode(self, batch: DocumentBatch, parameters: Mapping[str, Any], timeout: float | None) -> DocumentBatch:
        """Send the texts to POST /encode; the vectors are written into `batch`."""
        if any(batch.nested("chunks")):
            raise InvalidInput("documents with chunks are not encoded over HTTP: use a grpc:// address")
        body = {"texts": batch.texts, "encoding": "base64", "parameters": dict(parameters)}
        reply = await self._json("POST", "/encode", body, timeout)
        batch.embeddings = _vectors(reply, len(batch))
        return batch

    async def index(
        self, batch: DocumentBatch, parameters: Mapping[str, Any], timeout: float | None
    ) -> tuple[int, int]:
        """Send id, text and tags to POST /index."""
        documents = [
            {"id": id_, "text": text, "tags": tags}
            for id_, text, tags in zip(batch.ids, batch.texts, batch.tags, strict=True)
        ]
        reply = await self._json("POST", "/index", {"documents": documents, **_extra(parameters)}, timeout)
        return int(reply["documents"]), int(reply["passages"])

    async def search(
        self, queries: Sequence[str], parameters: Mapping[str, Any], timeout: float | None
    ) -> list[list[Hit]]:
        """Send queries to POST /search."""
        fields = {name: parameters[name] for name in _SEARCH_FIELDS if name in parameters}
        others = {name: value for name, value in parameters.items() if name not in fields}
        body = {"query": list(queries), **fields, **_extra(others)}
        results = (await self._json("POST", "/search", body, timeout))["results"]
        if len(results) != len(queries):
            raise InternalError(f"/search answered {len(results)} results to {len(queries)} queries")
        return [[_hit(hit) for hit in result["hits"]] for result in results]

    async def delete(self, ids: Sequence[str], parameters: Mapping[str, Any], timeout: float | None) -> int:
        """Send ids, or a filter, to DELETE /documents."""
        body = {"ids": list(ids), **_extra(parameters)} if ids else dict(parameters)
        return int((await self._json("DELETE", "/documents", body, timeout))["deleted"])

    async def status(self, timeout: float | None) -> FlowStatus:
        """Read GET /status."""
        reply = await self._json("GET", "/status", None, timeout)
        return FlowStatus(
            name=reply.get("name") or "",
            version=reply.get("version") or "",
            uptime_s=float(reply.get("uptime_s") or 0.0),
            endpoints=reply.get("endpoints") or {},
            executors=[
                ExecutorStatus(
                    name=each["name"],
                    uses=each.get("uses") or "",
                    needs=each.get("needs") or (),
                    replicas=each.get("replicas") or (),
                    status=each.get("status") or {},
                )
                for each in reply.get("executors") or ()
            ],
        )

    async def ready(self, timeout: float | None) -> bool:
        """Read GET /health/ready."""
        try:
            return (await self._request("GET", "/health/ready", None, timeout)).status_code == 200
        except (Unavailable, DeadlineExceeded):
            return False

    async def close(self) -> None:
        """Close the connection pool."""
        self._closed = True
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.aclose()

    # ---- how ----

    def _open(self) -> httpx.AsyncClient:
        if self._closed:
            raise Cancelled("the client is closed")
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:  # pooled connections belong to the loop that opened them
            verify: ssl.SSLContext | bool = True
            if self._target.secure and self._target.root_certificates:
                verify = _trusting(self._target.root_certificates)
            self._client = httpx.AsyncClient(
                base_url=str(self._target),
                headers=dict(self._target.headers),
                verify=verify,
                timeout=None,  # `_request` bounds the whole exchange, not its phases
                trust_env=not self._target.loopback,  # a proxy from the environment cannot reach this machine
            )
            self._loop = loop
        return self._client

    async def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None, timeout: float | None
    ) -> httpx.Response:
        headers = {} if timeout is None else {"x-request-timeout-ms": str(max(1, int(timeout * 1000)))}
        client = self._open()
        try:
            response = await asyncio.wait_for(client.request(method, path, json=body, headers=headers), timeout)
        except asyncio.TimeoutError:
            raise DeadlineExceeded(f"{self._target} did not answer within {timeout:g} s") from None
        except (httpx.ConnectError, httpx.UnsupportedProtocol) as error:
            raise Unavailable(self._target.unreachable(str(error) or "no connection")) from None
        except httpx.TransportError as error:
            raise Unavailable(f"the connection to {self._target} broke: {error or type(error).__name__}") from None
        except ValueError as error:  # a body that has no JSON form, such as NaN in a tag
            raise InvalidInput(f"the request cannot be written as JSON: {error}") from None
        self._reached = True
        return response

    async def _json(
        self, method: str, path: str, body: Mapping[str, Any] | None, timeout: float | None
    ) -> dict[str, Any]:
        response = await self._request(method, path, body, timeout)
        try:
            answer: object = response.json()
        except ValueError:
            answer = None
        content = answer if isinstance(answer, dict) else None
        if response.is_error:
            raise error_from_problem(response.status_code, content, retry_after=_retry_after(response))
        if content is None:
            raise InternalError(f"{self._target}{path} did not answer as a flowdex gateway does: is the address right?")
        return content


def _trusting(roots: bytes) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cadata=roots.decode("ascii"))
    except (ssl.SSLError, UnicodeDecodeError):
        raise ConfigurationError("root_certificates: the file holds no certificates in PEM form") from None


def _extra(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {"parameters": dict(parameters)} if parameters else {}


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return max(0.0, float(response.headers["retry-after"]))
    except (KeyError, ValueError):
        return None


def _vectors(reply: Mapping[str, Any], count: int) -> npt.NDArray[np.float32]:
    """float32 array of shape (count, dim)."""
    rows = reply.get("embeddings") or []
    if len(rows) != count:
        raise InternalError(f"/encode answered {len(rows)} vectors to {count} texts")
    try:
        return np.stack([np.frombuffer(base64.b64decode(row, validate=True), dtype="<f4") for row in rows])
    except (binascii.Error, TypeError, ValueError):
        raise InternalError("/encode answered vectors that are not base64 of equal float32 rows") from None


def _hit(hit: Mapping[str, Any]) -> Hit:
    return Hit(
        id=hit["id"],
        score=hit["score"],
        text=hit.get("text") or "",
        tags=hit.get("tags") or {},
        location=_span(hit.get("location")),
        highlights=[(start, end) for start, end in hit.get("highlights") or ()],
        scores=hit.get("scores") or {},
        passages=[
            Passage(
                id=each["id"],
                text=each.get("text") or "",
                location=_span(each.get("location")),
                score=each.get("score") or 0.0,
            )
            for each in hit.get("passages") or ()
        ],
    )


def _span(value: Sequence[int] | None) -> Span | None:
    return None if value is None else (int(value[0]), int(value[1]))
